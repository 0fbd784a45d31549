"""One trial of ``tuning``: a model of some rows, judged on others. Plain data, so that any process can make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.history import Wanted
from optimizer.model.inference import RewardModel
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.options import TrainOptions
from optimizer.service.feedback import Logged, examples
from optimizer.service.fitting import Job, model_of
from storage.records import Attribute

A = TypeVar("A")
B = TypeVar("B")


class Across(Protocol):
    """Calls a function with each argument, wherever it likes; the results in order."""

    def __call__(self, work: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
        """The results."""


def here(work: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    """One after the other, in this process."""
    return [work(one) for one in arguments]


@dataclass(frozen=True)
class Exam:
    """Rows to learn from and rows to be judged on; calling it with options gives their mean log-likelihood in nats."""

    learn: Examples
    judge: Examples
    attributes: tuple[Attribute, ...]
    encoder: Wanted

    @classmethod
    def of(cls, job: Job, learn: Sequence[Logged], judge: Sequence[Logged]) -> Exam:
        """From rows of a job's log."""
        return cls(job.data(learn), examples(judge, job.log.campaigns), job.attributes, job.encoder)

    def __call__(self, options: TrainOptions) -> float:
        """The mean, under a model trained with these options."""
        fitted = model_of(self.learn, self.attributes, self.encoder, options, calibrated=False)
        return float(row_likelihood(RewardModel.load(fitted.blob), self.judge).mean())


def row_likelihood(model: RewardModel, held: Examples) -> NDArray[np.float64]:
    """(n,) log-likelihood of each row's outcomes, in nats."""
    total = np.zeros(len(held))
    for column in log_likelihood(model, held).values():
        total += np.nan_to_num(column)
    return total
