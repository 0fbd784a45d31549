"""What a policy would have earned on the log of a loop: importance-weighted sums over time.

The logging probabilities are exact and stored, so weights are too. A policy that learns is replayed as it would have
learned: the log is cut into parts by time, and each part is judged by a model of the parts before it, so no row judges
a model that saw it.

Where one of several actions was certain to be shown (an apprentice, a loop that only logs, or one that never explores),
nothing tells what another would have earned: such a row judges no policy but the baseline, if that is what was shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from optimizer.model.adf import Action, AdfModel
from optimizer.model.training.adf import AdfOptions, AdfRow
from optimizer.model.training.plain import LoopTrainer
from optimizer.service.personalizer.arguments import LearningSettings
from optimizer.service.personalizer.choosing import distribution
from optimizer.service.personalizer.learning import lessons
from optimizer.service.personalizer.loop import Loop
from optimizer.service.personalizer.outcomes import settled
from optimizer.service.personalizer.ranking import slot_context
from storage.port import Reader
from storage.ranks import Rank, SlotChoice

#: Answers that are looked at, the newest ones of a range; and actions and values of features in them, since these fill
#: the memory.
MOST = 50_000
MOST_ACTIONS = 250_000
MOST_VALUES = 5_000_000
#: Characters that take as much memory as a number.
_TEXT = 50
#: Parts of the log; the first is drawn evenly by a policy that learns.
PARTS = 8
#: A probability from which on an action was certain; what is missing to 1 is rounding.
_CERTAIN = 1.0 - 1e-9

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One slot of one settled answer, ready to be judged by."""

    rank: Rank
    slot: SlotChoice
    reward: float

    @property
    def propensity(self) -> float:
        """The probability with which the choice was logged."""
        return self.slot.probability[self.slot.eligible.index(self.slot.chosen)]

    @property
    def telling(self) -> bool:
        """Whether the log tells of other choices: another could have been made, or none was open."""
        return len(self.slot.eligible) == 1 or self.propensity < _CERTAIN


def trials(reader: Reader, workspace_id: str, loop: Loop, start: datetime, end: datetime, now: datetime) -> list[Trial]:
    """The settled answers of a range that count, oldest first; of too many the newest."""
    found: deque[tuple[Trial, int]] = deque()
    actions = values = 0
    for row in reader.ranks(workspace_id, since=start, until=end):
        rewards = settled(row, loop, now)
        if not rewards:
            continue
        size = _values(row.rank)
        found.extend((Trial(row.rank, s, r), size) for s, r in zip(row.rank.slots, rewards, strict=True))
        actions += len(row.rank.actions) * len(rewards)
        values += size * len(rewards)
        while len(found) > 1 and (len(found) > MOST or actions > MOST_ACTIONS or values > MOST_VALUES):
            gone, size = found.popleft()
            actions -= len(gone.rank.actions)
            values -= size
    return [trial for trial, _ in found]


def _values(rank: Rank) -> int:
    """How many values the features of an answer have, lists and objects among them; a long text counts as several."""
    values = 0
    left = [*rank.context, *(action.features for action in rank.actions), *(slot.features for slot in rank.slots)]
    while left:
        one = left.pop()
        values += 1
        if isinstance(one, Mapping):
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
        elif isinstance(one, str):
            values += len(one) // _TEXT
    return values


def online(log: Sequence[Trial]) -> Floats:
    """(n,) weights of what was in service: 1."""
    return np.ones(len(log))


def baseline(log: Sequence[Trial]) -> Floats:
    """(n,) weights of always showing the baseline."""
    return np.array([float(t.slot.chosen == _baseline_of(t.slot)) / t.propensity for t in log])


def telling(log: Sequence[Trial]) -> Mask:
    """(n,) which rows judge any policy."""
    return np.array([trial.telling for trial in log], np.bool_)


def telling_of_baseline(log: Sequence[Trial]) -> Mask:
    """(n,) which rows judge the baseline: those that show it, too, however certain that was."""
    return np.array([t.telling or t.slot.chosen == _baseline_of(t.slot) for t in log], np.bool_)


def _baseline_of(slot: SlotChoice) -> int:
    """The baseline, or the first action that is open where an earlier slot shows it."""
    return slot.baseline if slot.baseline in slot.eligible else slot.eligible[0]


def uniform(log: Sequence[Trial]) -> Floats:
    """(n,) weights of drawing evenly."""
    return np.array([1.0 / len(t.slot.eligible) / t.propensity for t in log])


def learned(
    log: Sequence[Trial], settings: LearningSettings, ceiling: float, default_reward: float, *, linear: bool = False
) -> Floats:
    """(n,) weights of a policy that learns as it goes.

    Args:
        log: by time.
        settings: how it learns and explores. ceiling: the most that it explores.
        default_reward: what an apprentice's other choices are taught.
        linear: see ``distribution``.
    """
    trainer = LoopTrainer(AdfOptions(products=settings.products), network=settings.network and not linear)
    model: AdfModel | None = None
    weights = np.empty(len(log))
    done = 0
    for part in _parts(log):
        for trial in part:
            weights[done] = _probability(trial, model, settings, ceiling, linear) / trial.propensity
            done += 1
        trainer.add(row for trial in part for row in _taught(trial, default_reward))
        if done < len(log):
            model = trainer.fit()
    return weights


def _parts(log: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    for rows in np.array_split(np.arange(len(log)), PARTS):
        if len(rows):
            yield log[int(rows[0]) : int(rows[-1]) + 1]


def _taught(trial: Trial, default_reward: float) -> Iterator[AdfRow]:
    return lessons(replace(trial.rank, slots=(trial.slot,)), (trial.reward,), default_reward)


def _probability(
    trial: Trial, model: AdfModel | None, settings: LearningSettings, ceiling: float, linear: bool
) -> float:
    actions = [Action(a.id, a.features) for a in trial.rank.actions]
    mask = np.zeros(len(actions), np.bool_)
    mask[list(trial.slot.eligible)] = True
    context = slot_context(trial.rank.context, trial.slot.slot_id, trial.slot.features)
    p = distribution(model, settings, ceiling, context, actions, mask, linear=linear)
    return float(p[trial.slot.chosen])
