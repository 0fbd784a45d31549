"""Which pairs of features join the model as products: those that clearly tell more together than each alone.

Heads are additive in the features, so a taste that turns round with another feature (exclusive or), or a rhythm that
bends with it, is out of their reach. A network could find it, but not in some thousand rows among hundreds of pairs. So
pairs are looked for one by one: a score test (Rao 1948) of each pair's products asks whether the residuals of the model
without them still go with them, in the level, or by variant, channel or time. It needs no fit of its own. Its variance
is that of recipients' sums (Liang & Zeger 1986), since residuals of one person hang together. Over all tests together
a pair is let in by chance in ``ERROR`` of trainings (Bonferroni), or somewhat more where single features matter much:
what their estimated effects are off by is not projected out. Where one of two features acts by itself, the other is
likelier to bend it than any two are to act together (effect heredity; Hamada & Wu 1992, Chipman 1996): of the few pairs
that a feature at work belongs to less is asked, ``HEIRS_ERROR``. How far a pair is then believed is learned with all
else.

In two worlds in which the signs of two features turn a taste round, the greedy choice after 3,000 random rows went .60
and .69 of the way to the oracle without products, .71 and .79 with them, and in worlds without such a thing no less far
than before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincc

from optimizer.model.columns import CategoryColumn, NumberColumn
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec, Product
from optimizer.model.timefeatures import WEEKEND
from optimizer.model.training.actionparts import THROUGH, Through, action_parts
from optimizer.model.training.rowterms import row_terms

Floats = NDArray[np.float64]
#: By outcome and part of the action the names of features.
Working = Mapping[tuple[str, Through], frozenset[str]]

#: Chance that anything is let in where nothing is there; and that any pair is with a feature that is at work, each part
#: of the action having the same share of it.
ERROR, HEIRS_ERROR = 0.05, 0.25
#: Pairs that are let in at most, the clearest, and the numbers that come with them: each is multiplied by variants,
#: channels and times.
MOST, MOST_NUMBERS = 6, 40
#: Rows that are looked at; what more of them would show is there at the next retrain as well.
MOST_ROWS = 20_000
LEAST_LOOKED_AT = 2_000
#: Rows with a known outcome, and how often it happened, that an outcome needs to be asked.
LEAST_ROWS, LEAST_HAPPENED = 500, 50
#: Levels of a category that are multiplied, the most frequent; fewer where products would be more than
#: ``MOST_PRODUCTS``.
LEVELS = 5
MOST_PRODUCTS = 8_000
#: Multiplications of the search for promising pairs; rows are fewer where it would take more. Some seconds of a core.
WORK = 2e10
#: For each outcome and part of the action the pairs that look most promising are tested, so many.
TESTED = 12
#: What a product has of an outcome in one part of the action is asked where about so many happenings tell of it, and of
#: so many of these at most, those with the most: where hardly one is to be expected, none is no finding.
LEAST_EXPECTED, MOST_ASKED = 10.0, 100
#: Directions of a test whose share of its variance is below this are left out: they are rounding.
_REGULAR = 0.02
_LEAST_SCALE = 0.25
#: Products that are computed together.
_TOGETHER = 256


@dataclass(frozen=True)
class Found:
    """A pair of features that joins.

    Attributes:
        left, right: names of the features.
        outcome, through: whose residuals, and through what of the action ("level": none of it).
        chance: that of so clear a finding where there is nothing, times the number of tests that it was one of.
        products: of their numbers.
    """

    left: str
    right: str
    outcome: str
    through: Through
    chance: float
    products: tuple[Product, ...]

    def to_json(self) -> dict[str, Any]:
        """For the artifact's meta; the products themselves are in its spec."""
        told = {"features": [self.left, self.right], "outcome": self.outcome, "through": self.through}
        return {**told, "chance": self.chance}


def find_products(
    examples: Examples,
    spec: FeatureSpec,
    encoded: NDArray[np.float32],
    eta: Mapping[str, Floats],
    working: Working,
) -> tuple[Found, ...]:
    """The pairs that join, the clearest first.

    Args:
        examples: n rows.
        spec: without products. encoded: (n, width) the rows by it.
        eta: by outcome (n,) log odds by a model of the features alone; NaN where there is none.
        working: the features that act in that model, by outcome and part of the action.
    """
    pairs = _pairs(spec)
    asked = _asked(examples, eta)
    if not pairs or not asked:
        return ()
    parts = _through(examples)
    each = len(asked) * sum(part.shape[1] for part in parts.values())
    rows = _looked_at(examples, int(WORK / (each * sum(len(pair.places) for pair in pairs))))
    numbers = encoded[rows].astype(np.float64)
    units = {name: part[rows] for name, part in parts.items()}
    terms = {name: (slope[rows], curvature[rows]) for name, (slope, curvature) in asked.items()}
    first = np.flatnonzero(np.concatenate(([True], np.diff(examples.cluster[rows]) != 0)))
    heirs = _heirs(pairs, list(terms), list(units), working)
    tests = len(pairs) * len(terms) * len(units)
    best: dict[int, tuple[float, Found]] = {}
    for (name, through), promising in _promising(numbers, pairs, terms, units).items():
        slope, curvature = terms[name]
        likely = len(units) * sum(len(heirs[other, through]) for other in terms)
        for place in promising:
            pair = pairs[place]
            columns = _columns(pair.products(numbers), units[through], curvature)
            single = _chance(columns * slope[:, None], first)
            clear = tests * single < ERROR
            heir = place in heirs[name, through] and likely * single < HEIRS_ERROR
            if (clear or heir) and (place not in best or single < best[place][0]):
                chance = single * (tests if clear else likely)
                found = Found(pair.left, pair.right, name, through, chance, pair.as_products(numbers, through))
                best[place] = (single, found)
    clearest = sorted(best.values(), key=lambda one: (one[0], one[1].left, one[1].right))
    return _as_fit([found for _, found in clearest])


def _heirs(
    pairs: Sequence[_Pair], outcomes: Sequence[str], parts: Sequence[Through], working: Working
) -> dict[tuple[str, Through], set[int]]:
    """By outcome and part of the action the places of the pairs with a feature at work there."""
    named = [{pair.left, pair.right} for pair in pairs]
    return {
        (name, through): {i for i, names in enumerate(named) if names & working.get((name, through), frozenset())}
        for name in outcomes
        for through in parts
    }


def _as_fit(found: Sequence[Found]) -> tuple[Found, ...]:
    """The first of them, without those whose numbers would be too many."""
    kept: list[Found] = []
    spare = MOST_NUMBERS
    for one in found:
        if len(one.products) <= spare and len(kept) < MOST:
            kept.append(one)
            spare -= len(one.products)
    return tuple(kept)


@dataclass(frozen=True)
class _Pair:
    """Two features, and the places of the k pairs of their numbers."""

    left: str
    right: str
    places: tuple[tuple[int, int], ...]

    def products(self, numbers: Floats) -> Floats:
        """(n, k) centred products of (n, width) numbers."""
        raw = self._raw(numbers)
        return np.asarray(raw - raw.mean(axis=0))

    def as_products(self, numbers: Floats, through: Through) -> tuple[Product, ...]:
        """What the spec needs of those that vary. Two levels that seldom meet are not blown up to unit variance."""
        raw = self._raw(numbers)
        mean, scale = raw.mean(axis=0), raw.std(axis=0)
        return tuple(
            Product(left, right, float(mean[i]), max(_LEAST_SCALE, float(scale[i])), through)
            for i, (left, right) in enumerate(self.places)
            if scale[i] > 0.0
        )

    def _raw(self, numbers: Floats) -> Floats:
        left, right = np.array(self.places).T
        return np.asarray(numbers[:, left] * numbers[:, right])


def _pairs(spec: FeatureSpec) -> list[_Pair]:
    """Every two features that have a number worth multiplying: the rank (or what a number has of it), or a level."""
    for levels in range(LEVELS, 0, -1):
        own = _numbers(spec, levels)
        of_each = np.array([len(places) for places in own.values()])
        if (of_each.sum() ** 2 - (of_each**2).sum()) / 2 <= MOST_PRODUCTS:
            break
    return [
        _Pair(left, right, tuple((i, j) for i in own[left] for j in own[right])) for left, right in combinations(own, 2)
    ]


def _numbers(spec: FeatureSpec, levels: int) -> dict[str, list[int]]:
    """By feature the places of its numbers that are worth multiplying."""
    own: dict[str, list[int]] = {}
    start = 0
    for column in spec.columns:
        if isinstance(column, NumberColumn):
            own[column.name] = [start + max(i for i, label in enumerate(column.labels) if label in ("value", "rank"))]
        elif isinstance(column, CategoryColumn) and column.levels:
            own[column.name] = [start + i for i in range(min(levels, len(column.levels)))]
        start += len(column.labels)
    return own


def _looked_at(examples: Examples, most: int) -> NDArray[np.int64]:
    """Rows, those of a recipient together; some at random where they are more than ``most`` or ``MOST_ROWS``."""
    rows = np.argsort(examples.cluster, kind="stable")
    most = min(MOST_ROWS, max(LEAST_LOOKED_AT, most))
    if len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(len(rows)).permutation(len(rows))[:most])]
    return rows


def _asked(examples: Examples, eta: Mapping[str, Floats]) -> dict[str, tuple[Floats, Floats]]:
    """Slopes and curvatures (n,) in η of the outcomes of which enough is known; 0 where a row tells nothing."""
    out = {}
    for name in examples.outcomes:
        known = np.isfinite(examples.outcome[name]) & np.isfinite(eta[name])
        if known.sum() < LEAST_ROWS or examples.outcome[name][known].sum() < LEAST_HAPPENED:
            continue
        told = (eta[name][known], examples.outcome[name][known], examples.share(name)[known])
        columns = np.zeros((2, len(examples)))
        for column, term in zip(columns, row_terms(*map(torch.from_numpy, told))[1:], strict=True):
            column[known] = term.numpy()
        out[name] = (columns[0], columns[1])
    return out


def _through(rows: Examples) -> dict[Through, Floats]:
    """The parts of the action that are asked about; a single channel or variant tells no more than the level.

    Of time it is the daily harmonics: numbers of the weekend, which seldom tell more, made what a rhythm that bends has
    by chance 12 to 40 times as likely in three simulated logs of 3,000 to 8,000 rows.
    """
    parts = action_parts(rows)
    parts["time"] = parts["time"][:, :WEEKEND]
    return {name: parts[name] for name in THROUGH if name in ("level", "time") or parts[name].shape[1] > 1}


def _promising(
    numbers: Floats, pairs: Sequence[_Pair], terms: Mapping[str, tuple[Floats, Floats]], units: Mapping[Through, Floats]
) -> dict[tuple[str, Through], list[int]]:
    """For each outcome and part of the action the places of the pairs with the largest score statistics, as if rows
    were independent and products uncorrelated."""
    keys = [(name, through) for name in terms for through in units]
    slopes = np.concatenate([terms[name][0][:, None] * units[through] for name, through in keys], axis=1)
    second, fourth = (
        np.concatenate([terms[name][1][:, None] * units[through] ** power for name, through in keys], axis=1)
        for power in (2, 4)
    )
    edges = np.cumsum([0, *(units[through].shape[1] for _, through in keys)])
    score = np.empty((len(pairs), len(keys)))
    for some in _some(pairs):
        products = np.concatenate([pairs[place].products(numbers) for place in some], axis=1)
        of_squares = products**2  # squared again: a fourth power takes ten times as long
        information = of_squares.T @ second
        told = _told(information, (of_squares**2).T @ fourth)
        squares = np.where(told, (products.T @ slopes) ** 2 / np.where(told, information, 1.0), 0.0)
        starts = np.cumsum([0, *(len(pairs[place].places) for place in some)])[:-1]
        squares, count = (np.add.reduceat(one, starts, axis=0) for one in (squares, told.astype(np.float64)))
        for i, (low, high) in enumerate(pairwise(edges.tolist())):
            freedom = count[:, low:high].sum(axis=1)
            score[some, i] = (squares[:, low:high].sum(axis=1) - freedom) / np.sqrt(2.0 * np.maximum(freedom, 1.0))
    return {key: np.argsort(-score[:, i], kind="stable")[:TESTED].tolist() for i, key in enumerate(keys)}


def _some(pairs: Sequence[_Pair]) -> Iterator[list[int]]:
    """Places of pairs with not many more than ``_TOGETHER`` products in all."""
    some: list[int] = []
    count = 0
    for place, pair in enumerate(pairs):
        some.append(place)
        count += len(pair.places)
        if count >= _TOGETHER:
            yield some
            some, count = [], 0
    if some:
        yield some


def _told(information: Floats, fourth: Floats) -> NDArray[np.bool_]:
    """Where about ``LEAST_EXPECTED`` happenings tell of a column z: (Σ w z²)² / Σ w z⁴ for curvatures w, which is m·w
    for one that is 1 in m rows and 0 else."""
    return information**2 >= LEAST_EXPECTED * np.maximum(fourth, 1e-300)


def _columns(products: Floats, unit: Floats, curvature: Floats) -> Floats:
    """What is asked of k products (n, k) in u parts (n, u) of the action: (n, q), each one product in one part."""
    of_squares, unit_squares = products**2, unit**2
    information = of_squares.T @ (curvature[:, None] * unit_squares)
    told = _told(information, (of_squares**2).T @ (curvature[:, None] * unit_squares**2))
    asked = np.argsort(np.where(told, -information, 0.0), axis=None, kind="stable")[: min(MOST_ASKED, int(told.sum()))]
    product, part = np.unravel_index(asked, told.shape)
    return np.asarray(products[:, product] * unit[:, part])


def _chance(residuals: Floats, first: NDArray[np.int64]) -> float:
    """How likely a score is at least so large where there is nothing.

    The statistic sᵀ(Σ c cᵀ)⁻¹s, with c the sums of C recipients and s = Σ c, is C times a Beta(p/2, (C − p)/2) where
    sums are Gaussian (as Hotelling 1931 has it for their mean), χ² with p degrees of freedom where recipients are many.

    Args:
        residuals: (n, q) columns times slopes, rows of one recipient together.
        first: the first row of each recipient.
    """
    sums = np.add.reduceat(residuals, first, axis=0)
    total, scale = sums.sum(axis=0), np.sqrt((sums**2).sum(axis=0))
    live = scale > 0.0
    standard = sums[:, live] / scale[live]
    size, direction = np.linalg.eigh(standard.T @ standard)
    kept = size > _REGULAR
    freedom, recipients = int(kept.sum()), len(sums)
    if not 0 < freedom < recipients:
        return 1.0
    along = direction[:, kept].T @ (total[live] / scale[live])
    share = float(np.sum(along**2 / size[kept])) / recipients
    return float(betaincc(0.5 * freedom, 0.5 * (recipients - freedom), min(share, 1.0)))
