"""What a trainer of ``optimizer.model.adf`` keeps of each column: its weights, its prior, its perturbations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.model.adf import BITS, Columns, bucket
from optimizer.model.hashing import hashed
from optimizer.model.tokens import Keys, Values
from optimizer.model.training.solving import Floats

INTERCEPT = np.uint64(hashed("@intercept"))
#: Prior precision of the intercept: it is what it is.
_FREE = 1e-3
#: What was folded before counts so much when more is folded: tastes change, and what fades can be unlearned.
FADE = 0.7


class Weights:
    """Columns in the order in which they were first seen, with arrays beside them.

    Attributes:
        columns: (d,) buckets. group: (d,) the group of each, a place in ``precision``.
        groups: the place of each group's key. precision: (g,) of each group's prior.
        solution: (d, 1 + M) the mean and M draws.
        folded: (d,) precision of what was folded of each, 0 = nothing. anchor: (d,) its mean.
        shock: (d, M) standard normal, by which each draw's prior is moved.
    """

    def __init__(self, draws: int, precision: float, rng: np.random.Generator) -> None:
        self._rng = rng
        self._first_precision = precision
        self._place = np.zeros(1 << BITS, np.int32)
        self._intercept = int(bucket(np.array([INTERCEPT]))[0])
        self.columns: Columns = np.zeros(0, np.int64)
        self.group = np.zeros(0, np.int32)
        self.groups: dict[int, int] = {}
        self.precision: Values = np.zeros(0)
        self.solution: Floats = np.zeros((0, draws + 1), np.float32)
        self.folded: Values = np.zeros(0)
        self.anchor: Floats = np.zeros(0, np.float32)
        self.shock: Floats = np.zeros((0, draws), np.float32)

    def __len__(self) -> int:
        return len(self.columns)

    def places(self, columns: Columns) -> NDArray[np.int32]:
        """The places of columns that were admitted."""
        return self._place[columns] - np.int32(1)

    def admit(self, columns: Columns, groups: Keys) -> None:
        """Gives new ones among these columns a place, in a group of theirs, with a draw from its prior."""
        new = np.flatnonzero(self._place[columns] == 0)
        if not len(new):
            return
        unique, first = np.unique(columns[new], return_index=True)
        known = len(self)
        self._place[unique] = np.arange(known + 1, known + 1 + len(unique), dtype=np.int32)
        ids = [self.groups.setdefault(int(key), len(self.groups)) for key in groups[new[first]]]
        missing = len(self.groups) - len(self.precision)
        self.precision = np.concatenate([self.precision, np.full(missing, self._first_precision)])
        self.columns = np.concatenate([self.columns, unique])
        self.group = np.concatenate([self.group, np.array(ids, np.int32)])
        shock = self._rng.standard_normal((len(unique), self.shock.shape[1]), np.float32)
        start = np.zeros((len(unique), self.solution.shape[1]), np.float32)
        start[:, 1:] = shock / np.sqrt(self.precision[ids])[:, None]
        self.shock = np.concatenate([self.shock, shock])
        self.solution = np.concatenate([self.solution, start])
        self.folded = np.concatenate([self.folded, np.zeros(len(unique))])
        self.anchor = np.concatenate([self.anchor, np.zeros(len(unique), np.float32)])

    def prior(self) -> Values:
        """(d,) prior precision of each weight: its group's, or what was folded of it."""
        own = np.where(self.columns == self._intercept, _FREE, self.precision[self.group])
        return np.where(self.folded > 0, self.folded, own)

    def free(self) -> NDArray[np.bool_]:
        """(d,) whether a column's prior is its group's."""
        return np.asarray((self.folded == 0) & (self.columns != self._intercept), np.bool_)

    def fold(self, information: Values) -> None:
        """Makes the present mean, with this (d,) information about it, the prior of what was informed of; what was
        folded before fades."""
        told = (information > 0) | (self.folded > 0)
        own = self.precision[self.group]
        self.folded = np.where(told, np.maximum(FADE * self.folded, own) + information, 0.0)
        self.anchor = np.where(told, self.solution[:, 0], 0.0).astype(np.float32)

    def rescale(self, ratio: float) -> None:
        """The same weights with rewards counted in units of ``1 / ratio`` of the present one."""
        self.solution *= np.float32(ratio)
        self.anchor *= np.float32(ratio)
        self.folded /= ratio**2

    def forget(self, used: NDArray[np.bool_], most: int) -> NDArray[np.int32]:
        """Drops columns that are not ``used``, those least known first, until ``most`` are left.

        Returns:
            (d,) the new place of each, -1 = dropped.
        """
        order = np.argsort(-np.where(used, np.inf, self.folded), kind="stable")
        kept = np.sort(order[: max(most, int(used.sum()))])
        moved = np.full(len(self), -1, np.int32)
        moved[kept] = np.arange(len(kept), dtype=np.int32)
        self._place[self.columns] = moved + 1
        self.columns, self.group = self.columns[kept], self.group[kept]
        self.solution, self.shock = self.solution[kept], self.shock[kept]
        self.folded, self.anchor = self.folded[kept], self.anchor[kept]
        return moved
