"""How a learned policy explores: six methods behind one call, each a closed form over the whole eligible set.

``explore`` takes what a model says of the actions, the mean reward and a bank of posterior draws, and gives the vector
that is sampled from and logged (see ``exploration``). Nothing here draws, so every propensity is exact.

**Units.** Rewards are in whatever a campaign's objective counts, so a gap between two of them means nothing by itself.
Where a method weighs gaps, it counts them in the bank's own standard deviations (``spread``): the root mean square by
which a draw moves an eligible action against the others. The bank narrows as rows come in, so a gap grows in these
units and every method anneals as the bank does; a drift alarm that widens the bank widens them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.exploration import Mask, Vector
from storage.records import ExplorationMethod

Draws = NDArray[np.floating]

#: The number of each method that has one, where a campaign doesn't say.
DEFAULTS: dict[ExplorationMethod, float] = {"inverse_gap": 100.0, "softmax": 0.1, "epsilon_greedy": 0.1}


@dataclass(frozen=True, slots=True)
class Valued:
    """What a model says of K actions: ``reward`` (K,) float64, and ``draws`` (M, K) of it from its posterior."""

    reward: Vector
    draws: Draws


def explore(
    method: ExplorationMethod,
    parameter: float | None,
    valued: Valued,
    space: ActionSpace,
    mask: Mask,
    *,
    anneal: float = 1.0,
) -> Vector:
    """The distribution of a method over the eligible actions.

    Args:
        method: one of ``ExplorationMethod``.
        parameter: gamma of ``inverse_gap``, temperature of ``softmax`` (both for gaps in units of ``spread``), epsilon
            of ``epsilon_greedy``; None = ``DEFAULTS``. The other methods have none and ignore it.
        valued: what the model says.
        space: the actions.
        mask: (K,) bool, at least one True.
        anneal: in [0, 1], what is left of epsilon. Methods that weigh gaps anneal by their units.

    Raises:
        ValueError: nothing is eligible, or a value of an eligible action is not finite.
    """
    if method == "posterior_bank":
        return exploration.bank(valued.draws, mask)
    if method == "marginal_thompson":
        return marginal_thompson(valued.draws, mask)
    if method == "uniform":
        return exploration.uniform(mask)
    number = DEFAULTS[method] if parameter is None else parameter
    if method == "epsilon_greedy":
        return exploration.epsilon_greedy(valued.reward, mask, number * anneal)
    if not mask.any():
        raise ValueError("no action is eligible")
    unit = spread(valued, mask)
    if not np.isfinite(unit):
        raise ValueError("rewards and draws of eligible actions must be finite")
    if unit == 0:  # nothing is uncertain, so there is nothing to find out
        return exploration.epsilon_greedy(valued.reward, mask, 0.0)
    score = np.where(mask, valued.reward, 0.0) / unit
    if method == "softmax":
        return exploration.softmax(score, mask, number)
    return sequential_inverse_gap(score, space, mask, number)


def spread(valued: Valued, mask: Mask) -> float:
    """Root mean square, over draws and eligible actions, of a draw's deviation from the mean reward.

    What a draw adds to all eligible actions alike moves no choice and is taken off first.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # of what is not eligible, which may be anything
        deviation = valued.draws - valued.reward
    deviation[:, ~mask] = 0.0
    shared = deviation.sum(axis=1) / np.count_nonzero(mask)
    square = np.vdot(deviation, deviation) / np.count_nonzero(mask) - np.vdot(shared, shared)
    return float(np.sqrt(max(square, 0.0) / len(deviation)))


def sequential_inverse_gap(score: Vector, space: ActionSpace, mask: Mask, gamma: float) -> Vector:
    """Inverse-gap weighting factor by factor: variant (or ``no_send``), then channel, then slot.

    Each factor is drawn by ``exploration.inverse_gap`` (Foster & Rakhlin 2020) among its values with an eligible
    action, a value being worth the best eligible action that is still reachable with it; an action's probability is
    the product of the three. One that differs from the greedy action in its slot alone competes with S others and not
    with all K, which is what gives near misses thicker support than weighting the joint set does.

    Args:
        score: (K,) in the units that ``gamma`` is for.
        space: the actions.
        mask: (K,) bool.
        gamma: 0 = uniform factor by factor, infinity = greedy.

    Raises:
        ValueError: gamma negative or not finite, nothing eligible, or an eligible score not finite.
    """
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma {gamma} must be at least 0 and finite")
    if not mask.any():
        raise ValueError("no action is eligible")
    if not np.isfinite(score[mask]).all():
        raise ValueError("scores of eligible actions must be finite")
    value = np.where(mask, score, -np.inf)
    grid = value[: space.messages].reshape(space.shape).swapaxes(1, 2).copy()  # (V, C, S)
    by_channel = grid.max(axis=2, initial=-np.inf)
    first = np.append(by_channel.max(axis=1, initial=-np.inf), value[space.messages :])
    chosen = _inverse_gap_rows(first[None], gamma)[0]
    variants = len(space.variants)
    product = chosen[:variants, None, None] * _inverse_gap_rows(by_channel, gamma)[..., None]
    product = product * _inverse_gap_rows(grid, gamma)
    return np.concatenate((product.swapaxes(1, 2).reshape(-1), chosen[variants:]))


def _inverse_gap_rows(value: Vector, gamma: float) -> Vector:
    """Inverse-gap weighting along the last axis; −inf marks what is closed, a row without anything open is all 0."""
    if not value.shape[-1]:
        return np.zeros(value.shape)
    greedy = value.argmax(axis=-1)[..., None]
    best = np.take_along_axis(value, greedy, axis=-1)
    some = best > -np.inf
    count = (value > -np.inf).sum(axis=-1, keepdims=True)
    # What is closed falls short by infinity and so gets 0, unless gamma is 0: the smallest one is as good as that.
    p = 1.0 / (count + max(gamma, 1e-300) * (np.where(some, best, 0.0) - value))
    np.put_along_axis(p, greedy, 0.0, axis=-1)
    np.put_along_axis(p, greedy, np.where(some, 1.0 - p.sum(axis=-1, keepdims=True), 0.0), axis=-1)
    return np.asarray(p, np.float64)


def marginal_thompson(draws: Draws, mask: Mask) -> Vector:
    """Thompson sampling as if the actions' posteriors were independent, each being the M draws of its own column.

    With F_b(x) the share of b's draws that are at most x, p(a) is proportional to sum_m prod_{b != a} F_b(draw_m(a)):
    the chance that a draw of a, taken from its column alone, beats one of each other column taken from theirs. Actions
    that share a draw's fortune in the bank are rivals here, so it explores more. Summed exactly over all draws: in
    sorted order the product changes by one factor at a draw.

    Args:
        draws: (M, K).
        mask: (K,) bool.

    Raises:
        ValueError: no draws, another number of columns, nothing eligible, or a draw of an eligible action not finite.
    """
    if draws.ndim != 2 or draws.shape[0] == 0 or draws.shape[1] != len(mask):
        raise ValueError(f"draws have shape {draws.shape}, expected (M >= 1, {len(mask)})")
    if not mask.any():
        raise ValueError("no action is eligible")
    columns = draws[:, mask].astype(np.float64)
    if not np.isfinite(columns).all():
        raise ValueError("draws of eligible actions must be finite")
    least = columns.min(axis=0).max()  # below it some column has no draw, so the product is 0
    rivals = columns.max(axis=0) >= least  # the others' shares are 1 from there on
    weight = np.zeros(len(mask))
    weight[np.flatnonzero(mask)[rivals]] = _wins(np.sort(columns[:, rivals], axis=0), least)
    return np.asarray(weight / weight.sum(), np.float64)


def _wins(columns: Vector, least: float) -> Vector:
    """(n,) M x sum_m prod_{b != a} F_b(draw_m(a)) of sorted columns (M, n); what lies below ``least`` counts 0."""
    many, width = columns.shape
    row, column = np.nonzero(columns >= least)
    order = np.argsort(columns[row, column], kind="stable")
    row, column = row[order], column[order]
    x = columns[row, column]
    start = float(np.log(np.maximum((columns < least).sum(axis=0), 1)).sum())
    product = start + np.cumsum(np.log(row + 1) - np.log(np.maximum(row, 1)))
    product = product[np.searchsorted(x, x, side="right") - 1]  # equals count for each other
    own = np.log(_at_most(columns)[row, column])
    weight = np.exp(product - own - (width - 1) * np.log(many))
    return np.asarray(np.bincount(column, weight, minlength=width), np.float64)


def _at_most(columns: Vector) -> NDArray[np.int64]:
    """(M, n) how many values of its own sorted column are at most as large as each value."""
    many = len(columns)
    last = np.ones(columns.shape, np.bool_)
    last[:-1] = columns[:-1] != columns[1:]
    rank = np.where(last, np.arange(1, many + 1)[:, None], many)
    return np.asarray(np.minimum.accumulate(rank[::-1], axis=0)[::-1], np.int64)
