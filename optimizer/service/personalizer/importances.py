"""Which features matter: jobs that are asked for, carried out by the scheduler, and kept.

A model is fitted on the answers of the range. A feature's score is the variance, over those answers, of what its
weights and its products add to the predicted reward (a product counts half for each of its two features), the largest
being 1. Shapes follow Azure's specification (``FeatureImportance``).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, Literal

import msgspec

from optimizer.errors import Invalid
from optimizer.model.training.adf import KEPT_ENTRIES, AdfOptions, AdfRow, AdfTrainer
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer import replaying
from optimizer.service.personalizer.evaluations import check_range
from optimizer.service.personalizer.learning import lessons
from optimizer.service.personalizer.loop import Loop
from optimizer.service.personalizer.replaying import Trial
from optimizer.service.personalizer.shelf import Shelf, carry_out_oldest
from optimizer.service.wiring import Services
from storage.port import Writer

#: Namespace of features that stand in none.
DEFAULT_NAMESPACE: Final = "Default"
#: Entries of the matrix of all answers that are looked at.
_MOST_ENTRIES: Final = KEPT_ENTRIES
#: Features that are told; where their names are data there may be as many as answers.
MOST_FEATURES: Final = 1_000
_SIDES: Final[Mapping[str, str]] = {"c": "Context", "a": "Action"}


@dataclass(frozen=True, slots=True)
class Score:
    """How much a feature matters, in [0, 1]."""

    namespace: str
    feature: str
    score: float


@dataclass(frozen=True, slots=True)
class Importance:
    """A job, asked for or done."""

    id: str
    name: str
    start: datetime
    end: datetime
    created_at: datetime
    status: Literal["NotSubmitted", "Running", "Succeeded", "Failed"] = "NotSubmitted"
    scores: tuple[Score, ...] = ()
    description: str = ""


SHELF: Final = Shelf("importance", "feature importance", "FeatureImportanceNotFound", msgspec.json.Decoder(Importance))


def create(services: Services, workspace_id: str, asked: Importance) -> Importance:
    """Keeps a job for the scheduler.

    Raises:
        Invalid: its id is taken, or nothing was logged in its range.
    """
    made = replace(asked, created_at=services.clock())

    def work(writer: Writer) -> Importance:
        if writer.loop_document(workspace_id, "importance", made.id) is not None:
            raise Invalid.field(
                "featureImportanceId", f"{made.id!r:.80} is taken", code="FeatureImportanceAlreadyExists"
            )
        check_range(writer, workspace_id, made.start, made.end)
        SHELF.save(writer, workspace_id, made)
        return made

    return services.store.write(work)


def run_waiting(services: Services, workspace_id: str) -> bool:
    """Carries out the oldest job that waits; False where there is none to take up."""
    return carry_out_oldest(services, workspace_id, SHELF, partial(_done, services, workspace_id))


def _done(services: Services, workspace_id: str, asked: Importance) -> Importance:
    with services.store.read() as reader:
        loop = loops.load(reader, workspace_id)
        found = replaying.trials(reader, workspace_id, loop, asked.start, asked.end, services.clock())
    if not found:
        return replace(asked, status="Failed", description="no answer of this range is settled yet")
    return replace(asked, status="Succeeded", scores=tuple(scores(found, loop)))


def scores(found: Sequence[Trial], loop: Loop) -> list[Score]:
    """The features of these answers, those that matter most first."""
    trainer = AdfTrainer(AdfOptions(products=loop.settings.products))
    trainer.add(_newest(found, loop))
    trainer.fit()
    by_name = trainer.importance()
    first = heapq.nsmallest(MOST_FEATURES, by_name.items(), key=lambda one: (-one[1], one[0]))
    largest = max(by_name.values(), default=0.0)
    told = [_score(name, value / largest if largest > 0 else 0.0) for name, value in first]
    return sorted(told, key=lambda score: (-score.score, score.namespace, score.feature))


def _newest(found: Sequence[Trial], loop: Loop) -> list[AdfRow]:
    """What these answers teach; of more than fit into memory the newest."""
    rows: list[AdfRow] = []
    entries = 0
    for trial in reversed(found):
        taught = list(lessons(replace(trial.rank, slots=(trial.slot,)), (trial.reward,), loop.default_reward))
        entries += sum(row.entries(products=loop.settings.products) for row in taught)
        if rows and entries > _MOST_ENTRIES:
            break
        rows.extend(reversed(taught))
    return rows[::-1]


def _score(name: str, value: float) -> Score:
    """A name such as ``c:user.age`` in Azure's terms: namespace ``user``, feature ``age``."""
    side, _, path = name.partition(":")
    namespace, dot, feature = path.partition(".")
    if not dot:
        return Score(_SIDES.get(side, DEFAULT_NAMESPACE), path, round(value, 6))
    return Score(namespace, feature, round(value, 6))
