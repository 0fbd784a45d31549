"""Carrying out a claimed training run. Importing this imports torch: only processes that train do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from optimizer.service.apart import Apart
from optimizer.service.canary import watch
from optimizer.service.climbing import climb
from optimizer.service.garbage import rarely_collected
from optimizer.service.guarding import guard
from optimizer.service.refreshing import refresh
from optimizer.service.retrain import retrain
from optimizer.service.runs import Ended
from optimizer.service.wiring import Services
from storage.policies import TrainingRun

#: What became of a campaign whose policy was replaced, and of one that had nothing new to judge.
_PUBLISHED = frozenset(("publish", "repriced"))
_NOTHING_NEW = frozenset(("skipped", "waits", "unchanged", "watched", "guarded", "shares"))
#: Rows of a log that may be read between looks for garbage: of most logs all, since none of it is.
_ROWS = 100_000


def carry_out(services: Services, run: TrainingRun) -> Ended:
    """Looks at the canaries, at the harms of what serves and at what shares the traffic, then retrains or refreshes.

    Published when any campaign's policy is; skipped when none had anything new to judge; failed when something
    unforeseen happened, which stops no other campaign.
    """
    apart = Apart(run.workspace_id)
    with rarely_collected(_ROWS):
        watched = watch(services, run.workspace_id, run.campaign_id, apart)
        guarded = guard(services, run.workspace_id, run.campaign_id, apart)
        seen = {look["campaign_id"]: look["watch"] for look in watched}
        climbed = climb(services, run.workspace_id, run.campaign_id, run, apart, seen)
        if run.kind == "retrain":
            verdicts = retrain(services, run.workspace_id, run.campaign_id, run, apart, seen)
        else:
            verdicts = refresh(services, run.workspace_id, run.campaign_id, apart)
    told = [*watched, *guarded, *climbed, *verdicts, *apart.answers]
    if apart.error is not None:
        return Ended("failed", told, apart.error)
    return Ended(_status(told), told)


def _status(verdicts: Sequence[dict[str, Any]]) -> Literal["published", "rejected", "skipped"]:
    decisions = {verdict["decision"] for verdict in verdicts}
    if decisions & _PUBLISHED:
        return "published"
    return "skipped" if decisions <= _NOTHING_NEW else "rejected"
