"""Offline evaluations: asked for, kept, listed, applied. ``evaluating`` carries them out.

Shapes and limits follow Azure's specification of Personalizer (``EvaluationContract``, ``Evaluation``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from optimizer.errors import Invalid, NotFound
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.arguments import read_arguments
from optimizer.service.personalizer.shelf import Shelf
from optimizer.service.wiring import Services
from storage.port import Reader, Writer

Status = Literal[
    "NotSubmitted", "Running", "Succeeded", "Failed", "Timeout", "OptimalPolicyApplied", "OnlinePolicyRetained"
]
Source = Literal["Online", "Baseline", "Random", "Custom", "OfflineExperimentation"]
MOST_POLICIES: Final = 10
#: Names of what every evaluation compares, and of what an optimisation finds. Whoever applies a policy has nothing but
#: its name, so a custom one can't have one of these.
OURS: Final = ("Online", "Baseline", "Random", "Optimized")
#: Sums are kept by five minutes, of a longer range by the hour.
_FINE: Final = timedelta(minutes=5)
_COARSE: Final = timedelta(hours=1)
_LONG: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """Learning settings under a name."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """Sums over the rows of a stretch of time, w = weight, r = reward: enough for every estimate and its error."""

    start: datetime
    rows: int
    hits: int
    w: float
    wr: float
    ww: float
    wwr: float
    wwrr: float


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """What a policy would have earned: in all, with an interval, and over time. ``slot_id`` "" = all slots; ``seen``:
    the least and the greatest reward (None = not noted, by an earlier version)."""

    name: str
    arguments: str
    source: Source
    value: float
    low: float
    high: float
    buckets: tuple[Bucket, ...] = ()
    slot_id: str = ""
    seen: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation, asked for or done. ``better``: the optimal policy clearly beats what was in service."""

    id: str
    name: str
    start: datetime
    end: datetime
    created_at: datetime
    policies: tuple[NamedPolicy, ...] = ()
    optimise: bool = False
    kind: Literal["Manual", "Auto"] = "Manual"
    status: Status = "NotSubmitted"
    outcomes: tuple[PolicyOutcome, ...] = ()
    optimal: str | None = None
    better: bool = False
    description: str = ""


SHELF: Final = Shelf("evaluation", "evaluation", "EvaluationNotFound", msgspec.json.Decoder(Evaluation))


def bucket_width(evaluation: Evaluation) -> timedelta:
    """How long the stretches of time are that an evaluation keeps sums of."""
    return _COARSE if evaluation.end - evaluation.start > _LONG else _FINE


def create(services: Services, workspace_id: str, asked: Evaluation) -> Evaluation:
    """Keeps an evaluation for the scheduler to carry out.

    Raises:
        Invalid: its id is taken, nothing was logged in its range, or it is not what it should be.
    """
    _check(asked)
    made = replace(asked, created_at=services.clock())

    def work(writer: Writer) -> Evaluation:
        if writer.loop_document(workspace_id, "evaluation", made.id) is not None:
            raise Invalid.field("evaluationId", f"{made.id!r:.80} is taken", code="EvaluationAlreadyExists")
        check_range(writer, workspace_id, made.start, made.end)
        SHELF.save(writer, workspace_id, made)
        return made

    return services.store.write(work)


def check_range(reader: Reader, workspace_id: str, start: datetime, end: datetime) -> None:
    """``Invalid`` unless something was logged between the two times."""
    if start >= end:
        raise Invalid.field("endTime", "must lie after startTime", code="InvalidEvaluationContract")
    span = reader.rank_span(workspace_id)
    if span is None or span[1] < start or span[0] >= end:
        raise Invalid.field("startTime", "nothing was logged between the two times", code="NoLogsExistInDateRange")


def _check(asked: Evaluation) -> None:
    if len(asked.policies) > MOST_POLICIES:
        raise Invalid.field(
            "policies", f"{len(asked.policies)} policies; allowed: {MOST_POLICIES}", code="InvalidEvaluationContract"
        )
    names = [policy.name for policy in asked.policies]
    if len(set(names)) < len(names):
        raise Invalid.field("policies", "two have the same name", code="DuplicateCustomPolicyNames")
    for place, name in enumerate(names):
        if name in OURS:
            raise Invalid.field(
                f"policies.{place}.name",
                f"{name!r} is one of ours; allowed: any name but {', '.join(OURS)}",
                code="DuplicateCustomPolicyNames",
            )
    for policy in asked.policies:
        read_arguments(policy.arguments)


def apply(services: Services, workspace_id: str, evaluation_id: str, policy_name: str) -> None:
    """Makes the learning settings of an evaluation's policy those of the loop. An evaluation keeps no model: the loop
    learns on from its log under them.

    Raises:
        NotFound: no such evaluation, or no such policy with learning settings in it.
    """
    with services.store.read() as reader:
        evaluation = SHELF.find(reader, workspace_id, evaluation_id)
    named = [o for o in evaluation.outcomes if o.name == policy_name and o.arguments]
    # Evaluations that were asked for before our names were kept free may have a custom policy under one of them.
    found = min(named, key=lambda o: o.source == "Custom", default=None)
    if found is None:
        raise NotFound(f"no learning settings {policy_name!r:.80} in it", code="LearningSettingsNotFound")
    loops.set_policy(services, workspace_id, found.name, found.arguments)
