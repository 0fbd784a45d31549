"""A lift of one group over another where the groups' shares changed over time.

A stretch is the time in which the shares were the same. Groups are compared within each, since what everybody brings
changes over time: a group that was large while everybody bought more would else look better (Simpson 1951). Stretches
in which one of the groups has no decision say nothing.

A stretch of n treated and m control decisions has the information 1/(1/n + 1/m), and weighs by it (Mantel & Haenszel
1959). A stretch with five control decisions tells as much as five decisions do, however many were treated. It also is
what makes bounds hold at every look: the lift times the information is then a walk whose steps are independent, with
the information as its clock, which other weights don't give.

That estimate is the coefficient of the group in a regression with an intercept for each stretch, and its error is that
regression's, from recipients' sums (Liang & Zeger 1986). Residuals are measured from what the stretch and the lift
common to all say, not from the mean of the five: whose outcomes are all 0 scatter by nothing around their own mean.
Squares are divided by 1 − leverage (MacKinnon & White 1985), the leverage of recipients. With a single stretch all of
this is the difference of two means with ``lift.arm``'s variances. Where lifts differ by stretch, errors are a little
too large.

The lift of all treated decisions together (``Comparison.total``) weighs stretches by treated decisions in place of
information: what was gained where most were treated counts most, even though least is known of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.clusters import Floats
from optimizer.bandit.lift import LEAST_OUTCOMES, Estimate, Rows, bounded, outcomes_by_look, scalar, unbounded

_TREATED, _CONTROL = 0, 1


class Total(NamedTuple):
    """What the treated decisions of some stretches, so many, brought more, all together."""

    estimate: Estimate
    decisions: int


class Rate(NamedTuple):
    """Cases in so many decisions, both weighed."""

    cases: float
    decisions: float


def lift_of(treated: Rows, control: Rows, level: float = 0.95) -> Estimate | None:
    """How much more a decision of the treated is worth than one of the control group, with bounds.

    None = the groups never stood side by side. See ``compare``.
    """
    comparison = compare(treated, control)
    return None if comparison is None else comparison.lift(level)


def compare(treated: Rows, control: Rows) -> Comparison | None:
    """The comparison of two groups in the stretches that both have; None = there is no such stretch.

    Args:
        treated: at least one row, as ``control``.
        control: rows of the same campaign and the same looks.
    """
    size = int(max(treated.epoch.max(), control.epoch.max())) + 1
    both = np.all([np.bincount(rows.epoch, minlength=size) > 0 for rows in (treated, control)], axis=0)
    return _within(treated, control, both) if both.any() else None


def _within(treated: Rows, control: Rows, chosen: NDArray[np.bool_]) -> Comparison:
    """The comparison in the chosen ones of the stretches, which both groups have."""
    code = np.cumsum(chosen) - 1
    parts = []
    for rows in (treated, control):
        mine = rows.take(chosen[rows.epoch])
        parts.append(Rows(mine.unit, mine.look, mine.value, mine.worth, code[mine.epoch]))
    return Comparison(parts[_TREATED], parts[_CONTROL])


@dataclass(frozen=True)
class Comparison:
    """Two groups in K stretches, coded 0 to K − 1, each of which has decisions of both.

    Attributes:
        treated: its rows. control: rows of the same looks.
        by_treated: whether stretches weigh by their treated decisions, not by their information.
    """

    treated: Rows
    control: Rows
    by_treated: bool = False

    @property
    def arms(self) -> tuple[Rows, Rows]:
        """The treated, then the control group."""
        return self.treated, self.control

    @cached_property
    def stretches(self) -> int:
        """How many."""
        return int(self.treated.epoch.max()) + 1

    @cached_property
    def newest(self) -> int:
        """The newest look."""
        return max(int(rows.look.max()) for rows in self.arms)

    @cached_property
    def counts(self) -> Floats:
        """(2, L, K) decisions of each group up to each look."""
        return np.stack([self._by_look(rows, np.ones(rows.look.size)) for rows in self.arms])

    @cached_property
    def information(self) -> Floats:
        """(L, K) of each stretch at each look: decisions of a single group that would tell as much."""
        total = self.counts.sum(axis=0)
        found: Floats = self.counts[_TREATED] * self.counts[_CONTROL] / np.maximum(total, 1.0)
        return found

    @cached_property
    def weight(self) -> Floats:
        """(K,) of the stretches now, summing to 1."""
        weight = self._weights[-1]
        found: Floats = weight / weight.sum()
        return found

    @cached_property
    def value(self) -> float:
        """The lift a decision."""
        return float(self.weight @ (self._means[_TREATED] - self._means[_CONTROL]))

    @cached_property
    def base(self) -> float:
        """What a control decision is worth, over the same stretches with the same weights."""
        return float(self.weight @ self._means[_CONTROL])

    @cached_property
    def outcomes(self) -> Floats:
        """(2, L) as good as how many recipients of like worth had an outcome, by group and look.

        Of a group's rows that count, together, as much as fewer of like weight (Kish 1965), so many fewer outcomes
        count, too. Weights are by what is expected of each stretch from both groups: outcomes that a few rows should
        have had and had not are just what makes a lift of chance.
        """
        own = np.stack([outcomes_by_look(rows, self.newest + 1) for rows in self.arms])
        if self.stretches == 1:
            return own
        seen = np.maximum(self.counts.sum(axis=0), 1.0)
        mean, square = (sum(self._by_look(rows, rows.worth**power) for rows in self.arms) / seen for power in (1, 2))
        share = self._weights / np.maximum(self.counts, 1.0)
        weighed = _effective(self.counts * share * mean, self.counts * share**2 * square)
        found: Floats = own * np.minimum(
            weighed / np.maximum(_effective(self.counts * mean, self.counts * square), 1e-300), 1.0
        )
        return found

    @cached_property
    def start(self) -> int | None:
        """The first look at which each group has had outcomes enough; None = not yet."""
        enough = np.logical_or.accumulate(self.outcomes >= LEAST_OUTCOMES * (1.0 - 1e-9), axis=1).all(axis=0)
        return int(np.argmax(enough)) if enough.any() else None

    def clock(self, look: int) -> Floats:
        """The walk's clock at a look, 0 before the first: the information, or what it is of a sum over the treated."""
        if look < 0:
            return scalar(0.0)
        information = self.information[look]
        if self.stretches == 1 or not self.by_treated:
            return scalar(float(information.sum()))
        return scalar(float(np.sum(self._weights[look] ** 2 / np.maximum(information, 1e-300))))

    def lift(self, level: float = 0.95) -> Estimate:
        """The lift a decision, with bounds.

        Args:
            level: probability with which the bounds of all looks hold together.
        """
        value, error = scalar(self.value), scalar(math.sqrt(self._variance))
        if self.start is None:
            return unbounded(value, error)
        clock, begin, before = (self.clock(look) for look in (self.newest, self.start, self.newest - 1))
        return bounded(value, error, clock, begin, before, level)

    def total(self, level: float = 0.95) -> Total:
        """What the treated decisions brought more, all together, with bounds.

        Stretches of which the control group tells too little are left out, those with the most treated decisions for
        each of the control group first, until outcomes are enough; where they never are, all are in and there are no
        bounds.

        Args:
            level: probability with which the bounds of all looks hold together.
        """
        if self.stretches == 1:
            return _times(self.lift(level), self.treated.look.size)
        treated, control = self.counts[:, -1]
        order = np.argsort(treated / control, kind="stable")
        for kept in range(self.stretches, 0, -1):
            chosen = np.isin(np.arange(self.stretches), order[:kept])
            part = _within(self.treated, self.control, chosen)
            part = Comparison(part.treated, part.control, by_treated=True)
            if np.all(part.outcomes[:, -1] >= LEAST_OUTCOMES * (1.0 - 1e-9)):
                return _times(part.lift(level), part.treated.look.size)
        every = Comparison(self.treated, self.control, by_treated=True)
        return _times(unbounded(scalar(every.value), scalar(math.sqrt(every._variance))), self.treated.look.size)

    def rates(self) -> tuple[Rate, Rate]:
        """How often it happened to the treated and to the control group where the value is 1 for that and 0 else.

        A group's decisions count by their weight over the largest one in it, ≤ 1: cases over decisions is then the
        rate weighed as the lift is, and no decision counts for more than one.
        """
        found = []
        for rows, count in zip(self.arms, self.counts[:, -1], strict=True):
            share = self.weight / count
            share /= share.max()
            found.append(Rate(float(share[rows.epoch] @ rows.value), float(share @ count)))
        return found[_TREATED], found[_CONTROL]

    @cached_property
    def _weights(self) -> Floats:
        """(L, K) of each stretch at each look; 0 where a group has no decision yet."""
        if not self.by_treated:
            return self.information
        found: Floats = np.where(self.information > 0.0, self.counts[_TREATED], 0.0)
        return found

    @cached_property
    def _means(self) -> Floats:
        """(2, K) of each group in each stretch."""
        sums = [np.bincount(rows.epoch, weights=rows.value, minlength=self.stretches) for rows in self.arms]
        found: Floats = np.stack(sums) / self.counts[:, -1]
        return found

    @cached_property
    def _variance(self) -> float:
        """Of the lift; infinite where residuals can't tell.

        A recipient of one group may be of the other in another stretch; their sums are not joined. People stay as they
        are, so that joined they would cancel in part: as it is, the variance is rather too large.
        """
        count, information = self.counts[:, -1], self.information[-1]
        common = float(information @ (self._means[_TREATED] - self._means[_CONTROL])) / float(information.sum())
        total = count.sum(axis=0)
        base = (count * self._means).sum(axis=0) / total - common * count[_TREATED] / total
        expected = np.stack([base + common, base])
        free = 1.0 - self._leverage
        if np.any(free < 1e-9):
            return math.inf
        share = self.weight / count / np.sqrt(free)
        variance = 0.0
        for rows, one, mean in zip(self.arms, share, expected, strict=True):
            sums = np.bincount(rows.unit, weights=one[rows.epoch] * (rows.value - mean[rows.epoch]))
            variance += float(np.sum(sums**2))
        return variance

    @property
    def _leverage(self) -> Floats:
        """(2, K) of a recipient in the regression, as if each had one decision in a stretch."""
        recipients = np.array(
            [
                [np.count_nonzero(np.bincount(rows.unit[rows.epoch == k])) for k in range(self.stretches)]
                for rows in self.arms
            ],
            dtype=np.float64,
        )
        total = recipients.sum(axis=0)
        information = recipients.prod(axis=0) / total
        found: Floats = 1.0 / total + (recipients[::-1] / total) ** 2 / information.sum()
        return found

    def _by_look(self, rows: Rows, values: Floats) -> Floats:
        """(L, K) sums of a group's values up to each look, by stretch."""
        looks = self.newest + 1
        place = rows.look * self.stretches + rows.epoch
        sums = np.bincount(place, weights=values, minlength=looks * self.stretches)
        found: Floats = np.cumsum(sums.reshape(looks, self.stretches), axis=0)
        return found


def _effective(sums: Floats, squares: Floats) -> Floats:
    """As good as how many of like size, over the last axis; 0 for none."""
    found: Floats = sums.sum(axis=-1) ** 2 / np.maximum(squares.sum(axis=-1), 1e-300)
    return found


def _times(one: Estimate, decisions: int) -> Total:
    """A lift a decision, over so many."""
    return Total(Estimate(*(part * decisions for part in (one.value, one.error, one.low, one.high))), decisions)
