"""Trains the model of ``optimizer.model.adf``: Bayesian linear regression of the reward on hashed features.

**Relevance.** Columns that multiply the same two features form a group, and a group has a prior precision of its own
that empirical Bayes sets (MacKay 1992): products that say nothing are shrunk away, whole features at a time.

**Posterior.** Draws are exact ones of the linear model: the regression is solved for M perturbed copies of rewards and
prior (Papandreou & Yuille 2010, "Gaussian sampling by local perturbations"), all at once by conjugate gradients over
the sparse rows. A row and a column keep their perturbations, so a solution is the start of the next one: a refresh
with a few new rows takes few steps.

**Memory.** The newest rows are kept; older ones are folded into the prior, as mean and precision of each weight. What
is folded stays learned, fades as more is folded, and costs nothing more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from optimizer.model.adf import MAX_CROSSED, AdfModel, Columns, bucket, crossed, encode
from optimizer.model.scales import Scales
from optimizer.model.tokens import Keys, Tokens, Values
from optimizer.model.training.importance import importance
from optimizer.model.training.solving import Floats, System, solve
from optimizer.model.training.weights import INTERCEPT, Weights
from storage.records import JsonObject

#: Values of a number that are looked at for its scale, the newest.
_REMEMBERED_NUMBERS = 2_000
#: Values of a number, or rows, before there are scales, of numbers or of the reward.
_FEWEST_SEEN = 32
#: The least unit of rewards; a model with no larger one has seen none but zeros.
_LEAST_UNIT = 1e-6
#: Rows before groups get precisions of their own.
_FEWEST_FOR_BAYES = 60
#: Entries of rows that are kept.
KEPT_ENTRIES = 10_000_000
#: Rows are encoded in so many parts of what may be kept: an entry takes three times as much until it has a place.
_PARTS = 16


@dataclass(frozen=True, slots=True)
class AdfOptions:
    """Numbers of the training.

    Attributes:
        draws: of the posterior. products: whether features are multiplied.
        precision: where each group's prior starts, with the reward in its own standard deviations; lowest, highest: how
            far it may go.
        steps, tolerance: of the conjugate gradients at one fit.
        rows, entries: how much is kept before the older half is folded; entries are 8 bytes each, twice while fitting.
        columns: with more of them, those that no kept row has go when rows are folded, the least known first.
        seed: of the perturbations.
    """

    draws: int = 15
    products: bool = True
    precision: float = 40.0
    lowest: float = 1.0
    highest: float = 1e5
    steps: int = 25
    tolerance: float = 2e-3
    entries: int = KEPT_ENTRIES
    rows: int = 50_000
    columns: int = 100_000
    seed: int = 20_221_101


@dataclass(frozen=True, slots=True, eq=False)
class AdfRow:
    """One row: what was known, what was shown, what it earned. ``weight`` counts it as so many rows."""

    context: Tokens
    action: Tokens
    reward: float
    weight: float = 1.0

    def entries(self, *, products: bool) -> int:
        """The entries of a matrix that it takes at most: as many as it does where each of its numbers has a bin."""
        sizes = [len(side.key) + int(side.number.sum()) for side in (self.context, self.action)]
        multiplied = sum(min(size, MAX_CROSSED) for size in sizes) if products else 0
        return 1 + sum(sizes) + multiplied * (multiplied - 1) // 2


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
        self._rng = np.random.default_rng(options.seed)
        self._weights = Weights(options.draws, options.precision, self._rng)
        self._noise = 1.0
        self._unit = 1.0
        self._kept = _Rows()
        self._row_shock = np.zeros((0, options.draws), np.float32)
        self._seen: dict[int, deque[float]] = {}
        if start is not None:
            self._begin_from(start)

    def _begin_from(self, start: AdfModel) -> None:
        self.rows, self._noise, self._unit = start.rows, 1.0, math.sqrt(start.noise)
        weights = self._weights
        weights.admit(start.columns, np.zeros(len(start.columns), np.uint64))
        at = weights.places(start.columns)
        told = start.weights / np.float32(self._unit)
        weights.folded[at] = start.precision.astype(np.float64) * start.noise
        weights.anchor[at] = told[:, 0]
        weights.solution[at] = told[:, :1]
        if start.draws:
            weights.solution[at, 1:] = told[:, 1 + np.arange(self.options.draws) % start.draws]

    @property
    def whole(self) -> bool:
        """Whether all that was learned is in the rows that are kept: nothing was begun from, nothing folded."""
        return not self._weights.folded.any()

    def add(self, rows: Iterable[AdfRow]) -> None:
        """Takes rows in; ``fit`` learns from them."""
        new = list(rows)
        if not new:
            return
        for row in new:
            self._note_numbers(row)
        shocks = self._rng.standard_normal((len(new), self.options.draws), np.float32)
        self._row_shock = np.concatenate([self._row_shock, shocks])
        self.rows += len(new)
        if self._scales_are_due():
            new = self._rescaled(new)
        for block in self._blocks(new):
            self._append(block)
            self._fold()

    def _blocks(self, rows: Iterable[AdfRow]) -> Iterator[list[AdfRow]]:
        """The rows in parts of about equally many entries."""
        block: list[AdfRow] = []
        entries = 0
        for row in rows:
            block.append(row)
            entries += row.entries(products=self.options.products)
            if entries >= self.options.entries // _PARTS:
                yield block
                block, entries = [], 0
        if block:
            yield block

    def _note_numbers(self, row: AdfRow) -> None:
        for told in (row.context, row.action):
            for at in np.flatnonzero(told.number).tolist():
                values = self._seen.setdefault(int(told.name[at]), deque(maxlen=_REMEMBERED_NUMBERS))
                values.append(float(told.value[at]))

    def _scales_are_due(self) -> bool:
        """All rows are encoded anew then; so new numbers wait for a tenth more of them, however many there are."""
        if self._scales_frozen:
            return self.rows >= 1.1 * self._scaled_at and bool(self._late_numbers())
        return self.rows >= 2 * self._scaled_at

    def _late_numbers(self) -> dict[int, deque[float]]:
        """What was seen of numbers that have come since scales were frozen, where it is enough for scales of theirs."""
        known = set(self._scales.name.tolist())
        return {name: seen for name, seen in self._seen.items() if len(seen) >= _FEWEST_SEEN and name not in known}

    def _rescaled(self, new: list[AdfRow]) -> list[AdfRow]:
        """Scales follow what was seen, at every doubling of the rows; once they are frozen new numbers get theirs.
        Returns what is to be encoded: all rows, anew."""
        self._scaled_at = max(self.rows, _FEWEST_SEEN)
        frozen = self._scales_frozen
        self._scales = self._scales.joined(Scales.fit(self._late_numbers())) if frozen else Scales.fit(self._seen)
        kept, self._kept = self._kept, _Rows()
        return [*kept.source, *new]

    def _append(self, rows: Sequence[AdfRow]) -> None:
        """Encodes rows, and gives the columns that are new a place."""
        encoded = [self._encoded(row) for row in rows]
        self._weights.admit(
            np.concatenate([columns for columns, _, _ in encoded]), np.concatenate([groups for _, _, groups in encoded])
        )
        self._kept.source.extend(rows)
        for columns, values, _ in encoded:
            self._kept.columns.append(self._weights.places(columns))
            self._kept.values.append(values.astype(np.float32))
            self._kept.entries += len(columns)

    def _encoded(self, row: AdfRow) -> tuple[Columns, Values, Keys]:
        """Columns, values and groups of a row's intercept, context, action and their products."""
        products = self.options.products
        context = encode(row.context, self._scales, products=products)
        action = encode(row.action, self._scales, products=products)
        parts = [
            (bucket(np.array([INTERCEPT])), np.ones(1), np.array([INTERCEPT])),
            (context.column, context.weight, context.group),
            (action.column, action.weight, action.group),
        ]
        if products:
            parts.append(crossed(context, action))
        columns, values, groups = zip(*parts, strict=True)
        return np.concatenate(columns), np.concatenate(values), np.concatenate(groups)

    def fit(self, facts: JsonObject | None = None) -> AdfModel:
        """The model of all rows taken in so far."""
        rewards = np.array([row.reward for row in self._kept.source])
        if len(rewards):
            self._set_unit(rewards)
        matrix = self._matrix()
        target = (rewards / self._unit).astype(np.float32)
        weight = np.array([row.weight for row in self._kept.source], np.float32)
        precision = self._weights.prior()
        information = self._information(matrix, weight)
        self._solve(matrix, target, weight, precision, precision + information)
        if len(rewards) >= _FEWEST_FOR_BAYES:
            self._learn_relevance(matrix, target, weight, precision)
        order = np.argsort(self._weights.columns)
        return AdfModel(
            self._weights.columns[order],
            (self._weights.solution[order] * np.float32(self._unit)).astype(np.float32),
            ((precision + information)[order] / (self._unit**2)).astype(np.float32),
            self._scales,
            self.options.products,
            self.rows,
            max(self._noise * self._unit**2, _LEAST_UNIT**2),
            dict(facts or {}),
        )

    def _set_unit(self, rewards: Values) -> None:
        """Rewards count in their own deviations; solutions found in another unit are carried over. Where more was
        learned than is kept, a few rewards don't change the unit, but for that of a model that saw none but zeros."""
        unit = float(rewards.std()) if len(rewards) >= 2 else 1.0
        unit = unit if unit > _LEAST_UNIT else max(float(np.abs(rewards).max()), _LEAST_UNIT)
        few = len(rewards) < _FEWEST_SEEN and self._unit > 2.0 * _LEAST_UNIT
        if not self.whole and (few or 0.5 < unit / self._unit < 2.0):
            return
        self._weights.rescale(self._unit / unit)
        self._unit = unit

    def _matrix(self) -> Any:
        parts = self._kept
        lengths = np.array([0, *(len(c) for c in parts.columns)])
        shape = (len(parts.columns), len(self._weights))
        if not parts.columns:
            return sp.csr_matrix(shape, dtype=np.float32)
        data, indices = np.concatenate(parts.values), np.concatenate(parts.columns)
        parts.values, parts.columns = _split(data, lengths), _split(indices, lengths)
        return sp.csr_matrix((data, indices, np.cumsum(lengths)), shape=shape)

    def _solve(self, matrix: Any, target: Floats, weight: Floats, prior: Values, diagonal: Values) -> None:
        """The mean and every draw at once, from the last solution."""
        scale = (weight / np.float32(self._noise)).astype(np.float32)
        prior_ = prior.astype(np.float32)
        weights, options = self._weights, self.options
        right = np.empty_like(weights.solution)
        right[:, 0] = matrix.T @ (scale * target) + prior_ * weights.anchor
        right[:, 1:] = matrix.T @ (np.sqrt(scale)[:, None] * self._row_shock)
        right[:, 1:] += right[:, :1] + np.sqrt(prior_)[:, None] * weights.shock
        system = System(matrix, scale, prior_, diagonal.astype(np.float32))
        weights.solution = solve(system, right, weights.solution, steps=options.steps, tolerance=options.tolerance)

    def _learn_relevance(self, matrix: Any, target: Floats, weight: Floats, prior: Values) -> None:
        """One step of empirical Bayes: each group's precision, and the noise."""
        weights = self._weights
        mean = weights.solution[:, 0].astype(np.float64)
        variance = ((weights.solution[:, 1:] - weights.solution[:, :1]).astype(np.float64) ** 2).mean(axis=1)
        free = weights.free()
        known = np.clip(1.0 - prior * variance, 0.0, 1.0)
        count = len(weights.precision)
        effective = np.bincount(weights.group[free], known[free], count)
        size = np.bincount(weights.group[free], mean[free] ** 2, count)
        found = (effective + 1.0) / (size + 1.0 / self.options.precision)
        found = np.clip(found, self.options.lowest, self.options.highest)
        half = np.sqrt(weights.precision * found)  # half a step: the trace is that of a few draws
        told = np.bincount(weights.group[free], minlength=count) > 0  # of all others every column is folded
        weights.precision = np.where(told, half, weights.precision)
        error = (target - matrix @ weights.solution[:, 0]).astype(np.float64)
        left = max(float(weight.sum()) - float(known.sum()), 0.5 * float(weight.sum()))
        noise = float(np.clip((weight * error**2).sum() / left, 0.02, 1.5))
        weights.folded *= self._noise / noise  # folded rows are as noisy as those that are kept
        self._noise = noise

    def importance(self) -> dict[str, float]:
        """How much of the predicted reward's variance over the kept rows each feature adds, by its name."""
        rows = ((row.context, row.action) for row in self._kept.source)
        return importance(self._matrix(), self._weights, rows, self._scales)

    def _fold(self) -> None:
        """Turns the older half of the rows into a prior, when more are kept than ``options`` allow."""
        kept, options = self._kept, self.options
        if len(kept.source) <= options.rows and kept.entries <= options.entries:
            return
        half = len(kept.source) // 2
        rewards = np.array([row.reward for row in kept.source])
        self._set_unit(rewards)
        matrix, rewards = self._matrix()[:half], rewards[:half]
        weight = np.array([row.weight for row in kept.source[:half]], np.float32)
        shocks, self._row_shock = self._row_shock, self._row_shock[:half]
        prior = self._weights.prior()
        information = self._information(matrix, weight)
        self._solve(matrix, (rewards / self._unit).astype(np.float32), weight, prior, prior + information)
        self._weights.fold(information)
        self._row_shock = shocks[half:]
        self._scales_frozen = True  # what is folded was learned with these scales
        self._kept = _Rows(kept.source[half:], kept.columns[half:], kept.values[half:])
        self._kept.entries = sum(len(columns) for columns in self._kept.columns)
        self._forget_columns()

    def _forget_columns(self) -> None:
        """Ids come and go: what no kept row has and little is known of makes room, half of all at a time."""
        if len(self._weights) <= self.options.columns:
            return
        used = np.zeros(len(self._weights), np.bool_)
        for columns in self._kept.columns:
            used[columns] = True
        moved = self._weights.forget(used, self.options.columns // 2)
        self._kept.columns = [moved[columns] for columns in self._kept.columns]

    def _information(self, matrix: Any, weight: Floats) -> Values:
        """(d,) what the rows add to the precision of each weight, the others given."""
        square = matrix.copy()
        square.data **= 2
        return np.asarray(square.T @ (weight / np.float32(self._noise)), np.float64)


def _split(whole: NDArray[Any], lengths: NDArray[np.int64]) -> list[NDArray[Any]]:
    ends = np.cumsum(lengths)
    return [whole[a:b] for a, b in pairwise(ends.tolist())]
