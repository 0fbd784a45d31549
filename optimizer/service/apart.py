"""The campaigns of one run, each apart: what fails for one of them spoils no other.

Whoever carries out a whole run hands an ``Apart`` down. A campaign for which something unforeseen happens is logged
with its trace, told as failed and left out of the rest of the run, and the run ends as failed, with what it did for the
others. Without one (None: studies, tests of a single step) an error is raised where it happens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from optimizer.errors import Conflict
from storage.errors import StoreError
from storage.policies import Pointer
from storage.port import Reader, Store

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass
class Apart:
    """What has failed so far in a run of a workspace: by campaign, and parts that concern all of them."""

    workspace_id: str
    campaigns: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """All of it in a line; None = nothing has failed."""
        told = [f"campaign {name}: {what}" for name, what in self.campaigns.items()]
        told += [f"{name}: {what}" for name, what in self.parts.items()]
        return "; ".join(told) or None

    @property
    def answers(self) -> list[dict[str, Any]]:
        """For each campaign that has failed what a retrain answers for the others."""
        return [
            {
                "campaign_id": name,
                "decision": "failed",
                "reason": f"an error of the service, what served before goes on: {what}",
                "rows": None,
                "policy_id": None,
                "alpha": None,
                "conditions": [],
            }
            for name, what in self.campaigns.items()
        ]


def fallen(apart: Apart | None, campaign_id: str) -> bool:
    """Whether something has failed for a campaign."""
    return apart is not None and campaign_id in apart.campaigns


def attempted(apart: Apart | None, campaign_id: str, work: Callable[[], T]) -> T | None:
    """What ``work`` for a campaign answers; None where it fails or something has failed for the campaign before.

    A store that can't be reached or was moved under the run, or a run that somebody else has ended, is no matter of one
    campaign, and raised.
    """
    if apart is None:
        return work()
    if campaign_id in apart.campaigns:
        return None
    return _kept(apart, apart.campaigns, campaign_id, work)


def settled(
    store: Store,
    apart: Apart | None,
    served: Callable[[Reader], Iterable[Pointer]],
    look: Callable[[Reader, Pointer], T | None],
    settle: Callable[[Pointer, T], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Looks at what serves each campaign, all on one snapshot, and then carries out what each look leads to.

    Args:
        store: where policies are. apart: keeps what fails for a campaign (None = it is raised).
        served: the pointers that are looked at.
        look: what was found, None = nothing to settle. settle: what came of it.
    """
    with store.read() as reader:
        looks = [(p, attempted(apart, p.campaign_id, partial(look, reader, p))) for p in served(reader)]
    found = [(p, one) for p, one in looks if one is not None]
    answers = [attempted(apart, p.campaign_id, partial(settle, p, one)) for p, one in found]
    return [one for one in answers if one is not None]


def attempted_for_all(apart: Apart | None, name: str, work: Callable[[], T]) -> T | None:
    """What a part of the run that concerns every campaign answers; None where it fails."""
    return work() if apart is None else _kept(apart, apart.parts, name, work)


def _kept(apart: Apart, failed: dict[str, str], name: str, work: Callable[[], T]) -> T | None:
    try:
        return work()
    except (StoreError, Conflict):
        raise
    except Exception as fault:
        kind = "campaign" if failed is apart.campaigns else "part"
        log.exception("%s %s failed", kind, name, extra={"workspace": apart.workspace_id, kind: name})
        failed[name] = f"{type(fault).__name__}: {fault}"
        return None
