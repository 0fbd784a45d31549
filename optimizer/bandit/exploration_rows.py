"""What every policy does to its scores, for many rows at once: the bank's shares and the floor.

Each row gets the very bits that it would get alone, so a batch, a single decision and a replay agree exactly. The
definitions, and what they raise, are those of ``exploration``; rows have one shape of space (``Spaces``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import kernel
from optimizer.bandit.actions import DAYPARTS, Spaces

#: (n, K) float64 and bool.
Vectors = NDArray[np.float64]
Masks = NDArray[np.bool_]
#: Every eligible variant, channel and daypart keeps at least this part of the exploration rate.
FLOOR_PART = 1 / 20
#: Minima that together ask for more than this are scaled down to it: the policy keeps a say.
MAX_FLOOR = 0.95


def uniform(mask: Masks) -> Vectors:
    """The same probability for every eligible action of a row."""
    return mask / _counts(mask)[:, None]


def bank(draws: NDArray[np.floating], mask: Masks) -> Vectors:
    """For each row the share of its M draws (n, M, K) in which an eligible action is best (the first of equals).

    Raises:
        ValueError: the best eligible value of a draw is not finite, no draws, or a row with nothing eligible.
    """
    _counts(mask)
    if draws.ndim != 3 or draws.shape[1] == 0 or (draws.shape[0], draws.shape[2]) != mask.shape:
        raise ValueError(f"draws have shape {draws.shape}, expected {mask.shape[0], 'M >= 1', mask.shape[1]}")
    allowed = draws
    if not mask.all():
        allowed = draws.copy()
        np.copyto(allowed, -np.inf, where=~mask[:, None, :])
    size = draws.shape[2]
    winners = allowed.argmax(axis=2)
    # argmax stops at the first NaN, so a look at the winners finds every NaN among the eligible.
    if not np.isfinite(np.take_along_axis(allowed, winners[:, :, None], axis=2)).all():
        raise ValueError("draws of eligible actions must be finite")
    return shares(winners, size)


def shares(winners: NDArray[np.int64], size: int) -> Vectors:
    """For each row the share of its M draws (n, M) that each of ``size`` actions won."""
    n, many = winners.shape
    places = (winners + size * np.arange(n)[:, None]).reshape(-1)
    return np.asarray(np.bincount(places, minlength=n * size).reshape(n, size) / many, np.float64)


def coordinate(spaces: Spaces, greedy: NDArray[np.int64], mask: Masks) -> Vectors:
    """One factor of each row's greedy action changed at random; see ``exploration.coordinate``.

    Raises:
        ValueError: a greedy action is not eligible.
    """
    n = len(mask)
    rows = np.arange(n)
    if not (greedy.min() >= 0 and greedy.max() < spaces.size and mask[rows, greedy].all()):
        raise ValueError(f"greedy action {greedy} is not eligible")
    out = np.zeros(mask.shape)
    sends = greedy < spaces.messages
    if spaces.messages:
        _move_factors(spaces, np.where(sends, greedy, 0), mask, out)
    out[:, spaces.messages :] = mask[:, spaces.messages :]
    used = np.rint(out.sum(axis=1))
    moved = sends & (used > 0)
    if moved.all():
        out /= used[:, None]
        return out
    out[moved] /= used[moved][:, None]
    rest = np.flatnonzero(~moved)
    out[rest] = uniform(_without_a_move(spaces, greedy[rest], mask[rest]))
    return out


def _move_factors(spaces: Spaces, greedy: NDArray[np.int64], mask: Masks, out: Vectors) -> None:
    """Fills ``out`` with 1 on the alternatives of each factor that has some, for rows whose greedy action sends."""
    n = len(mask)
    rows = np.arange(n)
    shape = spaces.shape
    rest, channel = np.divmod(greedy, shape[2])
    variant, slot = np.divmod(rest, shape[1])
    open_ = mask[:, : spaces.messages].reshape(n, *shape)
    moved = out[:, : spaces.messages].reshape(n, *shape)
    everywhere = slice(None)
    for line in (
        (rows, everywhere, slot, channel),
        (rows, variant, everywhere, channel),
        (rows, variant, slot, everywhere),
    ):
        eligible = open_[line]
        alternatives = np.count_nonzero(eligible, axis=1) - 1  # the greedy action is eligible and on the line
        moved[line] = eligible / np.maximum(alternatives, 1)[:, None]
    moved[rows, variant, slot, channel] = 0.0


def _without_a_move(spaces: Spaces, greedy: NDArray[np.int64], mask: Masks) -> Masks:
    """What rows without a one-factor move spread over: after ``no_send`` every message, otherwise all eligible."""
    others = mask.copy()
    others[:, spaces.messages :] &= (greedy < spaces.messages)[:, None]
    alone = ~others.any(axis=1)
    others[alone] = mask[alone]
    return others


def with_floor(
    p: Vectors,
    spaces: Spaces,
    mask: Masks,
    *,
    greedy: NDArray[np.int64],
    rate: float,
    young: Mapping[str, float],
) -> Vectors:
    """One-factor moves, and a minimum of mass for each variant, channel and daypart; see ``exploration.with_floor``.

    Raises:
        ValueError: rate or a minimum outside [0, 1], or a greedy action not eligible.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate {rate} must be in [0, 1]")
    if kernel.available:
        return _with_floor_compiled(p, spaces, mask, greedy, rate, young)
    q = coordinate(spaces, greedy, mask)
    q *= rate
    q += (1 - rate) * p
    if not spaces.messages:
        return q
    n = len(p)
    variants, _, channels = spaces.shape
    dayparts = spaces.dayparts
    cubes = np.empty((2, n, *spaces.shape))
    open_ = cubes[0]
    open_[...] = mask[:, : spaces.messages].reshape(open_.shape)
    cubes[1] = q[:, : spaces.messages].reshape(open_.shape)
    size, mass = _by_group(cubes, dayparts)
    total, share = _shares(mass, _minima(spaces, size, rate, young))
    short = total > 0.0
    if not short.any():
        return q
    each = share / np.maximum(size, 1.0)
    by_variant, by_channel, by_daypart = np.split(each, [variants, variants + channels], axis=1)
    by_slot = by_daypart[np.arange(n)[:, None], dayparts]
    extra = by_variant[:, :, None, None] + (by_slot[:, :, None] + by_channel[:, None, :])[:, None]
    extra *= open_
    raised = q * (1.0 - total)[:, None]
    raised[:, : spaces.messages] += extra.reshape(n, -1)
    return np.where(short[:, None], raised, q)


def _with_floor_compiled(
    p: Vectors, spaces: Spaces, mask: Masks, greedy: NDArray[np.int64], rate: float, young: Mapping[str, float]
) -> Vectors:
    """The rest of ``with_floor``."""
    variants, slots, channels = spaces.shape
    asked = _asked_for(tuple(spaces.variants), variants + channels + DAYPARTS, rate, tuple(young.items()))
    sizes = (len(p), variants, slots, channels, spaces.no_send)
    whole = np.ascontiguousarray
    out = np.empty(p.shape)
    arrays = (whole(p, np.float64), whole(mask, np.bool_), whole(greedy, np.int64), whole(spaces.dayparts, np.int64))
    if not kernel.with_floor(sizes, rate, *arrays, asked, out):
        raise ValueError(f"greedy action {greedy} is not eligible")
    return out


def _minima(spaces: Spaces, size: Vectors, rate: float, young: Mapping[str, float]) -> Vectors:
    """(n, V + C + 4) the minimum of each group, 0 for one without an eligible action (``size`` counts them)."""
    least = np.where(size == 0, 0.0, _asked_for(tuple(spaces.variants), size.shape[1], rate, tuple(young.items())))
    return np.asarray(least * np.minimum(1.0, MAX_FLOOR / np.maximum(least.sum(axis=1), MAX_FLOOR))[:, None])


@lru_cache(maxsize=256)
def _asked_for(
    variants: tuple[str, ...], groups: int, rate: float, young: tuple[tuple[str, float], ...]
) -> NDArray[np.float64]:
    """(V + C + 4) the minima of groups that have eligible actions. They change with a policy, so they are kept."""
    told = dict(young)
    own = np.array([max(told.get(v, 0.0), rate * FLOOR_PART) for v in variants])
    if not (own <= 1).all() or not all(minimum >= 0 for minimum in told.values()):
        raise ValueError(f"minima of young variants must be in [0, 1]: {told}")
    every = np.concatenate([own, np.full(groups - len(own), rate * FLOOR_PART)])
    every.setflags(write=False)
    return every


def _by_group(cubes: Vectors, dayparts: NDArray[np.int64]) -> Vectors:
    """(2, n, V + C + 4) sums of (2, n, V, S, C) cubes by variant, by channel, by daypart."""
    kinds, n, variants, slots, channels = cubes.shape
    by_slot = cubes.sum(axis=2)
    out = np.empty((kinds, n, variants + channels + DAYPARTS))
    cubes.reshape(kinds, n, variants, slots * channels).sum(axis=3, out=out[:, :, :variants])
    by_slot.sum(axis=2, out=out[:, :, variants : variants + channels])
    places = dayparts + DAYPARTS * np.arange(kinds * n).reshape(kinds, n, 1)
    parts = np.bincount(places.reshape(-1), by_slot.sum(axis=3).reshape(-1), minlength=kinds * n * DAYPARTS)
    out[:, :, variants + channels :] = parts.reshape(kinds, n, DAYPARTS)
    return out


def _shares(mass: Vectors, least: Vectors) -> tuple[NDArray[np.float64], Vectors]:
    """For each row the smallest W with W = sum max(0, least - (1 - W) mass), and the terms of that sum.

    The sum minus W is convex and piecewise linear in W, at least 0 at W = 0 and below 0 at W = 1 (as ``least`` sums to
    less than 1). So Newton's steps from 0 rise to the root without passing it, and reach it exactly after at most one
    step a group: each step but the last adds a group that falls short. A row that is there stays there.
    """
    total = np.zeros(len(mass))
    short = np.zeros(mass.shape, np.bool_)
    for _ in range(mass.shape[1]):
        now = short | (least > (1 - total)[:, None] * mass)
        if (now == short).all():
            break
        short = now
        missing = np.where(short, least - mass, 0.0).sum(axis=1)
        total = missing / (1.0 - np.where(short, mass, 0.0).sum(axis=1))
    return total, np.where(short, least - (1 - total)[:, None] * mass, 0.0)


def _counts(mask: Masks) -> NDArray[np.int64]:
    counts = np.count_nonzero(mask, axis=1)
    if not counts.all():
        raise ValueError("no action is eligible")
    return np.asarray(counts, np.int64)
