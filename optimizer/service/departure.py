"""How far a revision departs from its gated policy, and which mixture is nearer to that than a refitted model alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from optimizer.model.policy import Asked, LivePolicy, distributions
from optimizer.service.replay import Replayer, plan_of, situation_of
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Component, Pointer, Policy
from storage.port import Reader
from storage.records import Campaign

#: How far a revision may move from its gated ancestor, in mean total variation over recent contexts, while the log has
#: hardly grown since.
LEAST_ALLOWED = 0.25
#: Recent decisions over which that divergence is measured.
DIVERGENCE_ROWS = 200


def allowed(judged: int | None, rows: int, *, free: bool) -> float:
    """How far a revision may move from its gated ancestor.

    A quarter, or as much as is new: ``judged`` of the ``rows`` that are known now were known when the ancestor was put
    into service (None or 0 = it isn't told). A campaign's first policy is of some hundred rows, and what a thousand say
    is bound to be something else; what was judged on a hundred thousand stays nearly what it was. ``free``: its line
    was shown to predict better than the ancestor (``progress``), so nothing keeps it near that.
    """
    if free:
        return 1.0
    if not judged or rows <= 0:
        return LEAST_ALLOWED
    return max(LEAST_ALLOWED, 1.0 - judged / rows)


def judged_on(pointer: Pointer, policy: Policy, gated: Policy, rows: int) -> int | None:
    """How many rows were known when what serves was put into service: by a gate, or later by a person or a rollback."""
    if pointer.moved_at > policy.created_at or policy.verdict.get("put_back"):
        return rows
    told: int | None = policy.verdict.get("judged") if policy.revision else None
    return gated.exploration.get("rows") if told is None else told


def nearer_mixture(gated: Sequence[Component], refitted: Sequence[Component], share: float) -> tuple[Component, ...]:
    """A mixture that is nearer to the gated one: of a whole policy with that share of the refitted model, of a canary's
    mixture with the canary alone refitted."""
    if len(gated) > 1:
        return (*gated[:-1], refitted[-1])
    return replace(gated[0], weight=1.0 - share), replace(refitted[0], weight=share)


def divergence(
    reader: Reader,
    services: Services,
    campaign: Campaign,
    decisions: Sequence[Decision],
    gated: LivePolicy,
    revision: LivePolicy,
) -> float:
    """Mean total variation of two policies over the newest decisions' contexts and eligible sets, in [0, 1]."""
    replayer = Replayer(reader, services.salt)
    asked = []
    for decision in decisions:
        made, s = plan_of(decision, replayer.campaign(decision)), situation_of(decision, campaign)
        asked.append(Asked(made.space, made.mask, s.seen, s.effects))
    pairs = zip(*(distributions(live, campaign, asked) for live in (revision, gated)), strict=True)
    distances = [0.5 * float(np.abs(one.probability - other.probability).sum()) for one, other in pairs]
    return float(np.mean(distances)) if distances else 0.0
