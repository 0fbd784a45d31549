"""Trains the model of ``optimizer.model.adf``: Bayesian linear regression of the reward on hashed features.

**Relevance.** Columns that multiply the same two features form a group, and a group has a prior precision of its own
that empirical Bayes sets (MacKay 1992): products that say nothing are shrunk away, whole features at a time.

**Posterior.** Draws are exact ones of the linear model: the regression is solved for M perturbed copies of rewards and
prior (Papandreou & Yuille 2010, "Gaussian sampling by local perturbations"), all at once by conjugate gradients over
the sparse rows. A row and a column keep their perturbations, so a solution is the start of the next one: a refresh
with a few new rows takes few steps.

**Memory.** The newest rows are kept; older ones are folded into the prior, as mean and precision of each weight. What
is folded stays learned and costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from optimizer.model.adf import BITS, AdfModel, Columns, bucket, crossed, encode, owners_of_groups
from optimizer.model.scales import Scales
from optimizer.model.tokens import Keys, Tokens, Values, hashed
from optimizer.model.training.solving import Floats, System, solve
from storage.records import JsonObject

INTERCEPT = np.uint64(hashed("@intercept"))
#: Prior precision of the intercept: it is what it is.
_FREE = 1e-3
#: Values of a number that are looked at for its scale.
_REMEMBERED_NUMBERS = 2_000
#: Rows before groups get precisions of their own.
_FEWEST_FOR_BAYES = 60


@dataclass(frozen=True, slots=True)
class AdfOptions:
    """Numbers of the training.

    Attributes:
        draws: of the posterior. products: whether features are multiplied.
        precision: where each group's prior starts, with the reward in its own standard deviations; lowest, highest: how
            far it may go.
        steps, tolerance: of the conjugate gradients at one fit.
        rows, entries: how much is kept before the older half is folded; entries are 8 bytes each, twice while fitting.
        seed: of the perturbations.
    """

    draws: int = 15
    products: bool = True
    precision: float = 40.0
    lowest: float = 1.0
    highest: float = 1e5
    steps: int = 25
    tolerance: float = 2e-3
    entries: int = 12_000_000
    rows: int = 100_000
    seed: int = 20_221_101


@dataclass(frozen=True, slots=True, eq=False)
class AdfRow:
    """One row: what was known, what was shown, what it earned. ``weight`` counts it as so many rows."""

    context: Tokens
    action: Tokens
    reward: float
    weight: float = 1.0


@dataclass
class _Rows:
    """Rows as sparse parts, each with its perturbations."""

    source: list[AdfRow] = field(default_factory=list)
    columns: list[NDArray[np.int32]] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    entries: int = 0


class AdfTrainer:
    """Learns as rows come in. Not for use by two threads at once."""

    def __init__(self, options: AdfOptions | None = None, start: AdfModel | None = None) -> None:
        """Begins from nothing, or from what ``start`` has learned: its means and precisions are the prior."""
        self.options = options = options or AdfOptions()
        self.rows = 0
        self._scales = Scales.none() if start is None else start.scales
        self._scales_frozen = start is not None and start.rows > 0
        self._scaled_at = 0
        self._place = np.zeros(1 << BITS, np.int32)
        self._columns = np.zeros(0, np.int64)
        self._group = np.zeros(0, np.int32)
        self._groups: dict[int, int] = {}
        self._lambda = np.zeros(0)
        self._solution = np.zeros((0, options.draws + 1), np.float32)
        self._folded = np.zeros(0)
        self._anchor = np.zeros(0, np.float32)
        self._shock = np.zeros((0, options.draws), np.float32)
        self._noise = 1.0
        self._unit = 1.0
        self._kept = _Rows()
        self._rng = np.random.default_rng(options.seed)
        self._row_shock = np.zeros((0, options.draws), np.float32)
        self._seen: dict[int, list[float]] = {}
        if start is not None:
            self._begin_from(start)

    def _begin_from(self, start: AdfModel) -> None:
        self.rows, self._noise, self._unit = start.rows, 1.0, math.sqrt(start.noise)
        self._admit(start.columns, np.zeros(len(start.columns), np.uint64))
        self._folded = start.precision.astype(np.float64) * start.noise
        self._anchor = start.weights[:, 0] / np.float32(self._unit)
        again = start.weights[:, 1 + np.arange(self.options.draws) % max(start.draws, 1)] if start.draws else None
        self._solution[:, 0] = self._anchor
        self._solution[:, 1:] = self._anchor[:, None] if again is None else again / np.float32(self._unit)

    @property
    def whole(self) -> bool:
        """Whether all that was learned is in the rows that are kept: nothing was begun from, nothing folded."""
        return not self._folded.any()

    def add(self, rows: Iterable[AdfRow]) -> None:
        """Takes rows in; ``fit`` learns from them."""
        new = list(rows)
        if not new:
            return
        for row in new:
            self._note_numbers(row)
        self._kept.source.extend(new)
        shocks = self._rng.standard_normal((len(new), self.options.draws), np.float32)
        self._row_shock = np.concatenate([self._row_shock, shocks])
        self.rows += len(new)
        if not self._scales_frozen and self.rows >= 2 * self._scaled_at:
            self._rescale()
        else:
            for row in new:
                self._append(row)

    def _note_numbers(self, row: AdfRow) -> None:
        for told in (row.context, row.action):
            for at in np.flatnonzero(told.number).tolist():
                values = self._seen.setdefault(int(told.name[at]), [])
                if len(values) < _REMEMBERED_NUMBERS:
                    values.append(float(told.value[at]))
                else:
                    values[self.rows % _REMEMBERED_NUMBERS] = float(told.value[at])

    def _rescale(self) -> None:
        """Scales follow what was seen, at every doubling of the rows; rows are encoded anew."""
        self._scaled_at = max(self.rows, 32)
        self._scales = Scales.fit(self._seen)
        source = self._kept.source
        self._kept = _Rows(source=source)
        for row in source:
            self._append(row)

    def _append(self, row: AdfRow) -> None:
        products = self.options.products
        context = encode(row.context, self._scales, products=products)
        action = encode(row.action, self._scales, products=products)
        column = [bucket(np.array([INTERCEPT])), context.column, action.column]
        value: list[Values] = [np.ones(1), context.weight, action.weight]
        group: list[Keys] = [np.array([INTERCEPT]), context.group, action.group]
        if products:
            columns_, values_, groups_ = crossed(context, action)
            column.append(columns_)
            value.append(values_)
            group.append(groups_)
        columns = np.concatenate(column)
        self._admit(columns, np.concatenate(group))
        self._kept.columns.append(self._place[columns] - 1)
        self._kept.values.append(np.concatenate(value).astype(np.float32))
        self._kept.entries += len(columns)

    def _admit(self, columns: Columns, groups: Keys) -> None:
        """Gives new columns a place, in a group of theirs."""
        new = np.flatnonzero(self._place[columns] == 0)
        if not len(new):
            return
        unique, first = np.unique(columns[new], return_index=True)
        keys = groups[new[first]]
        self._place[unique] = np.arange(len(self._columns) + 1, len(self._columns) + 1 + len(unique), dtype=np.int32)
        self._columns = np.concatenate([self._columns, unique])
        ids = [self._groups.setdefault(int(k), len(self._groups)) for k in keys]
        self._group = np.concatenate([self._group, np.array(ids, np.int32)])
        missing = len(self._groups) - len(self._lambda)
        if missing > 0:
            self._lambda = np.concatenate([self._lambda, np.full(missing, self.options.precision)])
        count = len(unique)
        shock = self._rng.standard_normal((count, self.options.draws), np.float32)
        self._shock = np.concatenate([self._shock, shock])
        start = np.zeros((count, self.options.draws + 1), np.float32)
        start[:, 1:] = shock / np.sqrt(self._lambda[np.array(ids)])[:, None]
        self._solution = np.concatenate([self._solution, start])
        self._folded = np.concatenate([self._folded, np.zeros(count)])
        self._anchor = np.concatenate([self._anchor, np.zeros(count, np.float32)])

    def fit(self, facts: JsonObject | None = None) -> AdfModel:
        """The model of all rows taken in so far."""
        self._fold()
        rewards = np.array([row.reward for row in self._kept.source])
        if len(rewards):
            self._set_unit(rewards)
        matrix = self._matrix()
        target = (rewards / self._unit).astype(np.float32)
        weight = np.array([row.weight for row in self._kept.source], np.float32)
        precision = self._prior()
        information = self._information(matrix, weight)
        self._solve(matrix, target, weight, precision, precision + information)
        if len(rewards) >= _FEWEST_FOR_BAYES:
            self._learn_relevance(matrix, target, weight, precision)
        order = np.argsort(self._columns)
        return AdfModel(
            self._columns[order],
            (self._solution[order] * np.float32(self._unit)).astype(np.float32),
            ((precision + information)[order] / (self._unit**2)).astype(np.float32),
            self._scales,
            self.options.products,
            self.rows,
            max(self._noise * self._unit**2, 1e-12),
            dict(facts or {}),
        )

    def _set_unit(self, rewards: Values) -> None:
        """Rewards count in their own deviations; solutions found in another unit are carried over."""
        unit = float(rewards.std()) if len(rewards) >= 2 else 1.0
        unit = unit if unit > 1e-6 else max(float(np.abs(rewards).max()), 1e-6)
        if self._folded.any() and 0.5 < unit / self._unit < 2.0:
            return
        ratio = self._unit / unit
        self._solution *= np.float32(ratio)
        self._anchor *= np.float32(ratio)
        self._folded /= ratio**2
        self._unit = unit

    def _matrix(self) -> Any:
        parts = self._kept
        lengths = np.array([0, *(len(c) for c in parts.columns)])
        shape = (len(parts.columns), len(self._columns))
        if not parts.columns:
            return sp.csr_matrix(shape, dtype=np.float32)
        data, indices = np.concatenate(parts.values), np.concatenate(parts.columns)
        parts.values, parts.columns = _split(data, lengths), _split(indices, lengths)
        return sp.csr_matrix((data, indices, np.cumsum(lengths)), shape=shape)

    def _prior(self) -> Values:
        """(d,) prior precision of each weight: its group's, or what was folded of it."""
        own = self._lambda[self._group] if len(self._group) else np.zeros(0)
        own = np.where(self._columns == bucket(np.array([INTERCEPT]))[0], _FREE, own)
        return np.where(self._folded > 0, self._folded, own)

    def _solve(self, matrix: Any, target: Floats, weight: Floats, prior: Values, diagonal: Values) -> None:
        """The mean and every draw at once, from the last solution."""
        scale = (weight / np.float32(self._noise)).astype(np.float32)
        prior_ = prior.astype(np.float32)
        right = np.empty_like(self._solution)
        right[:, 0] = matrix.T @ (scale * target) + prior_ * self._anchor
        right[:, 1:] = matrix.T @ (np.sqrt(scale)[:, None] * self._row_shock) + np.sqrt(prior_)[:, None] * self._shock
        right[:, 1:] += right[:, :1]
        system = System(matrix, scale, prior_, diagonal.astype(np.float32))
        options = self.options
        self._solution = solve(system, right, self._solution, steps=options.steps, tolerance=options.tolerance)

    def _learn_relevance(self, matrix: Any, target: Floats, weight: Floats, prior: Values) -> None:
        """One step of empirical Bayes: each group's precision, and the noise."""
        mean = self._solution[:, 0].astype(np.float64)
        variance = ((self._solution[:, 1:] - self._solution[:, :1]).astype(np.float64) ** 2).mean(axis=1)
        free = (self._folded == 0) & (self._columns != bucket(np.array([INTERCEPT]))[0])
        known = np.clip(1.0 - prior * variance, 0.0, 1.0)
        count = len(self._lambda)
        effective = np.bincount(self._group[free], known[free], count)
        size = np.bincount(self._group[free], mean[free] ** 2, count)
        found = (effective + 1.0) / (size + 1.0 / self.options.precision)
        found = np.clip(found, self.options.lowest, self.options.highest)
        self._lambda = np.sqrt(self._lambda * found)  # half a step: the trace is that of a few draws
        error = (target - matrix @ self._solution[:, 0]).astype(np.float64)
        left = max(float(weight.sum()) - float(known.sum()), 0.5 * float(weight.sum()))
        self._noise = float(np.clip((weight * error**2).sum() / left, 0.02, 1.5))

    def importance(self) -> dict[str, float]:
        """How much of the predicted reward's variance over the kept rows each feature adds, by its name.

        A product of two features counts half for each. Columns of a model that was begun from belong to no feature.
        """
        matrix = self._matrix()
        texts = {
            int(name): text
            for row in self._kept.source
            for told in (row.context, row.action)
            for name, text in zip(told.name.tolist(), told.texts, strict=True)
        }
        found = dict.fromkeys(texts.values(), 0.0)
        owners = owners_of_groups(texts)
        mean = self._solution[:, 0]
        for key, group in self._groups.items():
            names = owners.get(key, ())
            columns = np.flatnonzero(self._group == group)
            added = matrix[:, columns] @ mean[columns]
            for name in names:
                found[name] += float(added.var()) / len(names)
        return found

    def _fold(self) -> None:
        """Turns the older half of the rows into a prior, when more are kept than ``options`` allow."""
        kept, options = self._kept, self.options
        if len(kept.source) <= options.rows and kept.entries <= options.entries:
            return
        half = len(kept.source) // 2
        matrix = self._matrix()[:half]
        rewards = np.array([row.reward for row in kept.source[:half]])
        weight = np.array([row.weight for row in kept.source[:half]], np.float32)
        shocks, self._row_shock = self._row_shock, self._row_shock[:half]
        prior = self._prior()
        information = self._information(matrix, weight)
        self._solve(matrix, (rewards / self._unit).astype(np.float32), weight, prior, prior + information)
        self._anchor, self._folded = self._solution[:, 0].copy(), prior + information
        self._row_shock = shocks[half:]
        self._scales_frozen = True  # what is folded was learned with these scales
        self._kept = _Rows(kept.source[half:], kept.columns[half:], kept.values[half:])
        self._kept.entries = sum(len(columns) for columns in self._kept.columns)

    def _information(self, matrix: Any, weight: Floats) -> Values:
        """(d,) what the rows add to the precision of each weight, the others given."""
        square = matrix.copy()
        square.data **= 2
        return np.asarray(square.T @ (weight / np.float32(self._noise)), np.float64)


def _split(whole: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[Any]]:
    ends = np.cumsum(lengths)
    return [whole[a:b] for a, b in pairwise(ends.tolist())]
