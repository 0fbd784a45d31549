"""The Hillstrom experiment replayed through the service: customers arrive, the service decides, agreeing rows count.

A customer whose recorded assignment equals the choice is *accepted*, and the recorded visit comes back as an event; the
others' decisions are released, so that nothing is learned from what was never sent. Between two refreshes the policy
stands still, so customers are asked for in batches: the draws hang on decision ids alone, and a batch answers what
single requests would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optimizer.errors import SendtideError
from simulations.client import Call
from simulations.hillstrom import ARMS, Customers
from simulations.rivals import Floats
from simulations.stage import Stage, put_campaign

CAMPAIGN = "hillstrom"
CHANNEL = "email"
#: The largest batch, in customers.
BATCH = 500
#: From the first full retrain on, the next follows when the log has doubled; refreshes fill the time between.
GROWTH = 2.0

Progress = Callable[[int], None]


class UnexpectedError(SendtideError):
    """The service answered what this replay can't use."""

    code = "unexpected"


@dataclass(frozen=True)
class Step:
    """What became of one training run: after how many accepted customers, which kind, how it ended."""

    accepted: int
    full: bool
    result: str


@dataclass
class Replayed:
    """A replay at its end; ``reward`` are the accepted customers' visits in order."""

    reward: list[float] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    consumed: int = 0
    steps: list[Step] = field(default_factory=list)

    @property
    def rewards(self) -> Floats:
        """(accepted,) visits."""
        return np.array(self.reward, dtype=np.float64)


def campaign_body(attribution_hours: float) -> dict[str, Any]:
    """The campaign: two e-mails or none; a visit counts whether or not something was sent; no control groups."""
    return {
        "name": "Hillstrom",
        "variants": [{"id": arm, "features": {"category": arm}} for arm in ARMS if arm is not None],
        "channels": [CHANNEL],
        "allow_no_send": True,
        "objective": {"visit": 1.0},
        "attribution_hours": {"visit": attribution_hours},
        "groups": {"holdout": 0.0, "random": 0.0, "baseline": 0.0},
    }


def replay(
    stage: Stage, customers: Customers, *, accepted: int, refresh_every: int, on_progress: Progress | None = None
) -> Replayed:
    """Replays customers in the order given until ``accepted`` were accepted or none is left.

    Args:
        stage: where the service runs; its campaign ``hillstrom`` is set up here.
        customers: in order of arrival.
        accepted: how many accepted customers end the replay.
        refresh_every: accepted customers from one training run to the next.
        on_progress: told the number of accepted customers.
    """
    put_campaign(stage, CAMPAIGN, campaign_body(stage.attribution_hours))
    replayed = Replayed()
    retrained_at = 0
    while len(replayed.reward) < accepted and replayed.consumed < len(customers):
        _until_accepted(stage, customers, replayed, min(accepted, len(replayed.reward) + refresh_every), on_progress)
        stage.mature()
        have = len(replayed.reward)
        full = have >= GROWTH * retrained_at
        result = stage.learn(CAMPAIGN, full=full)
        if full and result != "skipped":
            retrained_at = have
        replayed.steps.append(Step(have, full, result))
    return replayed


def _until_accepted(
    stage: Stage, customers: Customers, replayed: Replayed, wanted: int, on_progress: Progress | None
) -> None:
    """Asks until exactly ``wanted`` customers are accepted in all, or none is left."""
    while (missing := wanted - len(replayed.reward)) > 0 and replayed.consumed < len(customers):
        # About one in three is accepted, so twice what is missing practically never overshoots; the last few are asked
        # for in batches that can't.
        size = min(BATCH, 2 * missing if missing > 50 else missing, len(customers) - replayed.consumed)
        rows = range(replayed.consumed, replayed.consumed + size)
        arrive(stage, customers, replayed, {i: f"arrival-{i}" for i in rows})
        if on_progress is not None:
            on_progress(len(replayed.reward))


def arrive(
    stage: Stage, customers: Customers, replayed: Replayed, request_ids: Mapping[int, str], *, all_count: bool = False
) -> None:
    """Asks for the customers that ``request_ids`` names by their place, in one batch, and reports what they did.

    ``all_count``: nothing hangs on what is sent, so who was recorded otherwise would have done the same.
    """
    body = {
        "campaign_id": CAMPAIGN,
        "immediate": True,
        "recipients": [
            {"recipient_id": f"customer-{i}", "request_id": request_id, "context": customers.contexts[i]}
            for i, request_id in request_ids.items()
        ],
    }
    decisions = stage.client.call("POST", "/v1/decisions/batch", body)["decisions"]
    replayed.consumed += len(request_ids)
    events, releases = [], []
    for i, decision in zip(request_ids, decisions, strict=True):
        choice = arm_of(decision)
        if choice != customers.assigned[i] and not all_count:
            path = f"/v1/decisions/{decision['decision_id']}/release"
            releases.append(Call("POST", path, {"reason": "recorded otherwise"}))
            continue
        replayed.reward.append(float(customers.visit[i]))
        replayed.chosen.append(choice)
        if customers.visit[i]:
            events.append(visit(decision))
    if events:
        answer = stage.client.call("POST", "/v1/events", {"events": events})
        if answer["accepted"] != len(events):
            raise UnexpectedError(f"{len(events)} events were reported and {answer} was answered")
    stage.client.call_all(releases)


def visit(decision: dict[str, Any]) -> dict[str, Any]:
    """The visit of a customer as an event: it is dated at the decision, and the recorded data know no time."""
    return {
        "event_id": f"visit-{decision['decision_id']}",
        "decision_id": decision["decision_id"],
        "type": "visit",
        "occurred_at": decision["decided_at"],
    }


def arm_of(decision: dict[str, Any]) -> int:
    """The index into ``ARMS`` of a decision as answered (``UnexpectedError`` when it is a problem or withheld)."""
    status = decision.get("status")
    if status == "no_send":
        return ARMS.index(None)
    if status == "reserved":
        return ARMS.index(decision["action"]["variant_id"])
    raise UnexpectedError(f"a customer was answered {decision}")
