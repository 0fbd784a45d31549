"""Rewards as a frozen bank of posterior draws sees them, and which action is best in each draw.

The drawn rewards of a context are one small product for each (variant, channel) pair, laid out pair by slot with the
draws innermost: so they are written once, in the order in which they are summed and compared. Only who asks for them
in the order of the actions gets them rearranged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import Spaces
from optimizer.model.timefeatures import SHORT, TIME_COLUMNS

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

#: The reward of an action that is not to be chosen: finite, since a product of infinities could spoil others.
_CLOSED = np.float32(-1e30)


@dataclass(frozen=True)
class Bank:
    """Deviations of M posterior draws, of the Hw heads with a weight in the objective, for P pairs; float32.

    Attributes:
        context: (P·Hw·M, F). time: (P, Hw, 14, M). short: (Hw·5·M, F), shared by the pairs. bucket: (168, Hw, M).
    """

    context: Floats
    time: Floats
    short: Floats
    bucket: Floats

    @classmethod
    def laid_out(
        cls,
        context: NDArray[np.floating],
        time: NDArray[np.floating],
        short: NDArray[np.floating],
        bucket: NDArray[np.floating],
    ) -> Bank:
        """From (Hw, M, P, F), (Hw, M, P, 14), (Hw, M, 5, F) and (Hw, M, 168)."""
        heads, draws, pairs, features = context.shape
        parts = (
            context.transpose(2, 0, 1, 3).reshape(pairs * heads * draws, features),
            time.transpose(2, 0, 3, 1),
            short.transpose(0, 2, 1, 3).reshape(heads * SHORT * draws, features),
            bucket.transpose(2, 0, 1),
        )
        return cls(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))

    def left(self, x: Floats) -> Floats:
        """Deviations of the coefficients at contexts (n, F), and a row of ones: (n, P, Hw·14 + 1, M)."""
        pairs, heads, _, draws = self.time.shape
        n, inner = len(x), heads * TIME_COLUMNS
        out = np.empty((n, pairs, inner + 1, draws), np.float32)
        grid = out[:, :, :inner].reshape(n, pairs, heads, TIME_COLUMNS, draws)
        grid[...] = self.time
        grid[:, :, :, 0] += products(self.context, x).reshape(n, pairs, heads, draws)
        grid[:, :, :, 1 : SHORT + 1] += products(self.short, x).reshape(n, 1, heads, SHORT, draws)
        out[:, :, inner] = 1.0
        return out


@dataclass(frozen=True)
class Drawing:
    """What the drawn rewards of n rows are made of.

    Linearised at the mean: reward + Σ slope · Δη, each action at its own slope. Σ worth · σ(η + Δη) would need a
    sigmoid a draw, head and action (design notes: 6 times the time at M = 64).

    Attributes:
        bank: the draws. spaces: the actions.
        x: (n, F) embedded contexts. basis: (n, 14, S) time bases. hours: (n, S) hours of the week.
        slope: (n, Hw, P, S), d reward / dη of every action and head. reward: (n, P, S), the mean.
        stay: (n, M) drawn rewards of not sending.
    """

    bank: Bank
    spaces: Spaces
    x: Floats
    basis: Floats
    hours: NDArray[np.int64]
    slope: Floats
    reward: Floats
    stay: Floats

    @cached_property
    def actions(self) -> Floats:
        """Drawn rewards (n, M, K) in the order of the actions."""
        spaces = self.spaces
        grid = self._messages(self.reward)
        n, _, slots, draws = grid.shape
        variants, channels = len(spaces.variants), len(spaces.channels)
        out = np.empty((n, draws, spaces.size), np.float32)
        by_factor = grid.reshape(n, variants, channels, slots, draws).transpose(0, 4, 1, 3, 2)
        out[..., : spaces.messages].reshape(n, draws, variants, slots, channels)[...] = by_factor
        out[..., spaces.messages :] = self.stay[:, :, None]
        return out

    def best(self, mask: NDArray[np.bool_], toll: NDArray[np.float64] | None) -> NDArray[np.int64]:
        """The best eligible action of each draw (n, M), each charged its toll (n, K).

        Of equals the first pair, then the first slot, and a message before ``no_send``.

        Args:
            mask: (n, K) with something eligible in each row.
            toll: None = nothing.

        Raises:
            ValueError: a reward is not finite.
        """
        spaces = self.spaces
        draws = self.stay.shape[1]
        if not spaces.messages:
            return np.full((len(mask), draws), spaces.size - 1)
        offered = self.reward if toll is None else self.reward - by_pair(spaces, toll)
        open_ = by_pair(spaces, mask)
        values = self._messages(np.where(open_, offered, _CLOSED)).reshape(len(mask), spaces.messages, draws)
        place = values.argmax(axis=1)
        top = np.take_along_axis(values, place[:, None], axis=1)[:, 0]
        pair, slot = np.divmod(place, open_.shape[2])
        variant, channel = np.divmod(pair, len(spaces.channels))
        best = (variant * open_.shape[2] + slot) * len(spaces.channels) + channel
        if spaces.no_send:
            stay = self.stay if toll is None else self.stay - toll[:, -1:].astype(np.float32)
            stays = mask[:, -1:] & ((stay > top) | ~mask[:, : spaces.messages].any(axis=1, keepdims=True))
            best, top = np.where(stays, spaces.messages, best), np.where(stays, stay, top)
        if not np.isfinite(top).all():
            raise ValueError("draws of eligible actions must be finite")
        return np.asarray(best, np.int64)

    def _messages(self, reward: NDArray[np.floating]) -> Floats:
        """Drawn rewards (n, P, S, M) of messages whose mean is ``reward`` (n, P, S).

        Slopes and time features meet first, so that heads and time columns are one inner dimension of a single product
        for each pair; the mean is one row more of it.
        """
        n, heads, pairs, slots = self.slope.shape
        inner = heads * TIME_COLUMNS
        right = np.empty((n, inner + 1, pairs * slots), np.float32)
        tiled = np.empty((n, 1, TIME_COLUMNS, pairs, slots), np.float32)
        tiled[...] = self.basis[:, None, :, None]
        np.multiply(
            self.slope.reshape(n, heads, 1, pairs * slots),
            tiled.reshape(n, 1, TIME_COLUMNS, pairs * slots),
            out=right[:, :inner].reshape(n, heads, TIME_COLUMNS, pairs * slots),
        )
        right[:, inner] = reward.reshape(n, pairs * slots)
        left = self.bank.left(self.x)
        drawn = right.reshape(n, inner + 1, pairs, slots).transpose(0, 2, 3, 1) @ left
        by_slot = np.ascontiguousarray(self.slope.transpose(0, 3, 2, 1))
        of_hours = np.empty_like(drawn)
        np.matmul(by_slot, self.bank.bucket[self.hours], out=of_hours.swapaxes(1, 2))
        drawn += of_hours
        return np.asarray(drawn, np.float32)


def products(matrix: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """matrix (R, F) times each of n vectors (n, F): (n, R), one product a vector."""
    of_each: NDArray[Any] = (matrix @ x[:, :, None])[..., 0]
    return of_each


def by_pair(spaces: Spaces, values: NDArray[T]) -> NDArray[T]:
    """Values of actions (n, K) as (n, P, S), ``no_send`` left out."""
    n, (variants, slots, channels) = len(values), spaces.shape
    cube = values[:, : spaces.messages].reshape(n, variants, slots, channels)
    return cube.swapaxes(2, 3).reshape(n, variants * channels, slots)


def by_action(spaces: Spaces, grid: NDArray[np.float64], stay: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values over (n, P, S), and of not sending (n,), in the order of the actions: (n, K)."""
    n, (variants, slots, channels) = len(grid), spaces.shape
    out = np.empty((n, spaces.size))
    cube = grid.reshape(n, variants, channels, slots)
    out[:, : spaces.messages] = cube.swapaxes(2, 3).reshape(n, spaces.messages)
    if spaces.no_send:
        out[:, -1] = stay
    return out
