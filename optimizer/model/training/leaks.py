"""Does a feature know the outcome? Then it was written after the send, and a model that reads it learns nothing.

Two tests of one feature against one outcome, both on recipients that did not choose what is tested, one row each:

- *separation*: recipients of one half give the chance of each value, the other half is ranked by it. Under the null the
  area under the curve is at most .95; its error is at most √(.95·.05/k), k the rarer kind of row (van Dantzig 1951).
- *certainty*: the values under which the outcome happened in at least .9 of one half's rows. Under the null it happens
  with at most that chance in the other half's: an exact binomial tail. This finds what is present only where something
  happened. Asked as well is that those values raise the chance threefold, hold a twentieth of the cases, and do so
  under more than one action: a good policy makes outcomes certain too, but only for the action that it picks.

Values are groups of rows: a category's levels, a number's bins. What is written after the send is often one exact
number (no hours since the last order), or a time after the decision, an age below 0: a number that several recipients
share is a group of its own, and bins end at 0. All groups come from the half that isn't judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.drift import area_under_curve, binomial_tail
from optimizer.bandit.intervals import one_sided_quantile
from optimizer.bandit.rewards import needs_message
from optimizer.model.examples import Examples
from optimizer.model.funnel import TITLES

#: The most that a feature which is known before the send is thought to separate.
SEPARATION = 0.95
#: The most that a value which is known before the send is thought to make an outcome likely.
CERTAINTY = 0.9
#: A certain value must raise the chance by this factor, and hold this share of the cases.
_LIFT, _COVERAGE = 3.0, 0.05
#: Bins of a number have about this many rows; levels with fewer are one, as are numbers that fewer recipients share.
_BIN_ROWS, _MOST_BINS, _LEVEL_ROWS = 40, 64, 5
#: Rows of other actions that must agree.
_OTHER_ROWS = 10


@dataclass(frozen=True, slots=True)
class Leak:
    """A feature that knows an outcome: the figure and its limit, in words too."""

    figure: float
    limit: float
    detail: str


def leak_of(
    number: NDArray[np.float64] | None, code: NDArray[np.int64], levels: int, rows: Examples, error: float
) -> Leak | None:
    """Tests a feature against every outcome; the error of each outcome is spent on the two tests in halves.

    Args:
        number: (n,) values, NaN = missing; None for a category.
        code: (n,) levels, −1 = missing.
        levels: how many levels.
        rows: the rows.
        error: chance of a false alarm, for each outcome.
    """
    first = rows.cluster % 2 == 0
    groups = _levels(code, levels, first) if number is None else _numbers(number, rows.cluster, first)
    for name in rows.outcomes:
        outcome = rows.outcome[name]
        known = np.isfinite(outcome) & (rows.sent if needs_message(name) else True)
        learn, judge = np.flatnonzero(known & first), _one_each(np.flatnonzero(known & ~first), rows.cluster)
        if min(learn.size, judge.size) == 0:
            continue
        size = np.bincount(groups[learn], minlength=int(groups.max()) + 1)
        cases = np.bincount(groups[learn], outcome[learn], minlength=size.size).astype(np.float64)
        test = _Test(name, groups[judge], outcome[judge], rows.variant[judge], size, cases, error / 2.0)
        found = test.separation() or test.certainty()
        if found is not None:
            return found
    return None


def foretold(present: NDArray[np.bool_], rows: Examples) -> str | None:
    """The outcome, as people know it, that happened in nearly all rows in which a feature is present, and far more
    often than elsewhere; None where there is none. Of a feature that few rows have, ``leak_of`` can't show it."""
    for name in rows.outcomes:
        outcome = rows.outcome[name]
        known = np.isfinite(outcome) & (rows.sent if needs_message(name) else True)
        inside = outcome[known & present]
        if inside.size and float(inside.mean()) >= max(CERTAINTY, _LIFT * float(outcome[known].mean())):
            return TITLES.get(name, name)
    return None


@dataclass(frozen=True)
class _Test:
    """One feature against one outcome: values (m,) and outcomes (m,) of the judging half; sizes of the learning one."""

    outcome: str
    group: NDArray[np.int64]
    happened: NDArray[np.float64]
    variant: NDArray[np.int64]
    size: NDArray[np.int64]
    cases: NDArray[np.float64]
    error: float

    @property
    def title(self) -> str:
        """The outcome as people know it."""
        return TITLES.get(self.outcome, self.outcome)

    def separation(self) -> Leak | None:
        base = float(self.cases.sum() + 0.5) / float(self.size.sum() + 1.0)
        rate = (self.cases + base) / (self.size + 1.0)
        rarer = int(min(self.happened.sum(), self.happened.size - self.happened.sum()))
        area = area_under_curve(rate[self.group], self.happened)
        limit = SEPARATION + one_sided_quantile(self.error) * math.sqrt(SEPARATION * (1 - SEPARATION) / max(1, rarer))
        if rarer == 0 or area <= limit:
            return None
        detail = f"separates {self.title} by itself: area under the curve over {rarer} recipients of the rarer kind"
        return Leak(area, limit, detail)

    def certainty(self) -> Leak | None:
        certain = (self.size >= _LEVEL_ROWS) & (self.cases >= CERTAINTY * self.size)
        inside = certain[self.group]
        rows, cases = int(inside.sum()), int(self.happened[inside].sum())
        base = float(self.happened.mean())
        if rows == 0 or cases < _LIFT * base * rows or cases < _COVERAGE * self.happened.sum():
            return None
        if binomial_tail(cases, rows, CERTAINTY) > self.error or not self._under_other_actions(inside):
            return None
        detail = f"{self.title} happened in {cases} of {rows} rows with certain values, in {100 * base:.1f} % of all"
        return Leak(cases / rows, CERTAINTY, detail)

    def _under_other_actions(self, inside: NDArray[np.bool_]) -> bool:
        if np.unique(self.variant).size < 2:
            return True
        names, counts = np.unique(self.variant[inside], return_counts=True)
        other = self.happened[inside & (self.variant != names[np.argmax(counts)])]
        return other.size >= _OTHER_ROWS and float(other.mean()) >= CERTAINTY - 0.1


def _numbers(number: NDArray[np.float64], cluster: NDArray[np.int64], first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) the group of each number, 0 = missing: bins by the quantiles of the first half, cut at 0, and behind them
    single numbers that several of its recipients have."""
    known = ~np.isnan(number)
    seen = number[known & first]
    bins = max(1, min(_MOST_BINS, seen.size // _BIN_ROWS))
    quantiles = np.quantile(seen, np.linspace(0.0, 1.0, bins + 1)[1:-1]) if seen.size else seen
    edges = np.unique(np.append(quantiles, 0.0))
    values, place = np.unique(seen, return_inverse=True)
    # Of recipients and not of rows: a number that one has in many rows would be a group that no other can be judged by.
    pairs = np.unique(np.column_stack((place, cluster[known & first])), axis=0)
    single = values[np.bincount(pairs[:, 0], minlength=values.size) >= _LEVEL_ROWS]
    at = np.searchsorted(single, number)
    exact = np.append(single, np.nan)[at] == number
    group = np.where(exact, edges.size + 2 + at, 1 + np.searchsorted(edges, number, side="right"))
    return np.where(known, group, 0).astype(np.int64)


def _levels(code: NDArray[np.int64], levels: int, first: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) the group of each level, 0 = missing: the frequent levels of the first half; 1 holds the others together."""
    sizes = np.bincount(code[first & (code >= 0)], minlength=max(1, levels))
    place = np.zeros(sizes.size + 1, dtype=np.int64)
    frequent = sizes >= _LEVEL_ROWS
    place[:-1] = np.where(frequent, np.cumsum(frequent) + 1, 1)
    return place[code]


def _one_each(rows: NDArray[np.int64], cluster: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last of each recipient's rows: rows of one recipient are not independent."""
    _, last = np.unique(cluster[rows][::-1], return_index=True)
    return np.sort(rows[::-1][last])
