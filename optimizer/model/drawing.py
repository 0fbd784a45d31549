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

from optimizer.bandit import kernel
from optimizer.bandit.actions import Spaces
from optimizer.model.matvec import matvec
from optimizer.model.timefeatures import SHORT, TIME_PRESENT, TIME_WIDTH

Floats = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

#: Bytes that a processor reads at a time.
_LINE = 64
#: Actions whose rewards are drawn together: their draws stay in a core's cache.
TOGETHER = 4_096
#: The reward of an action that is not to be chosen: finite, since a product of infinities could spoil others.
_CLOSED = np.float32(-1e30)


@dataclass(frozen=True)
class Bank:
    """Deviations of M posterior draws, of the Hw heads with a weight in the objective, for P pairs; float32.

    Kept apart by what they meet: what contexts change of a pair's level, what they change of all pairs' times of day,
    and what no context changes.

    Attributes:
        context: (F, P·Hw·M). level: (P, Hw, M). short: (F, 9·Hw·M), shared by the pairs.
        time: (P, Hw·W, M), the first W time columns, beyond which none acts. bucket: (168, Hw, M).
        columns: W.
    """

    context: Floats
    level: Floats
    short: Floats
    time: Floats
    bucket: Floats
    columns: int

    @classmethod
    def laid_out(
        cls,
        context: NDArray[np.floating],
        time: NDArray[np.floating],
        short: NDArray[np.floating],
        bucket: NDArray[np.floating],
    ) -> Bank:
        """From (Hw, M, P, F), (Hw, M, P, 24), (Hw, M, 9, F) and (Hw, M, 168)."""
        heads, draws, pairs, features = context.shape
        width = TIME_WIDTH if time[..., TIME_PRESENT + 1 :].any() else TIME_PRESENT
        return cls(
            context=_aligned(context.transpose(3, 2, 0, 1).reshape(features, pairs * heads * draws)),
            level=_aligned(time[..., 0].transpose(2, 0, 1)),
            short=_aligned(short.transpose(3, 2, 0, 1).reshape(features, SHORT * heads * draws)),
            time=_aligned(time[..., 1 : width + 1].transpose(2, 0, 3, 1).reshape(pairs, heads * width, draws)),
            bucket=_aligned(bucket.transpose(2, 0, 1)),
            columns=width,
        )

    def levels(self, x: Floats) -> Floats:
        """Deviations of the pairs' levels at contexts (n, F), and a row of ones: (n, P, Hw + 1, M)."""
        pairs, heads, draws = self.level.shape
        out = np.empty((len(x), pairs, heads + 1, draws), np.float32)
        of_context = (x[:, None, :] @ self.context).reshape(len(x), pairs, heads, draws)
        np.add(self.level, of_context, out=out[:, :, :heads])
        out[:, :, heads] = 1.0
        return out

    def times(self, x: Floats, basis: Floats, hours: NDArray[np.int64]) -> Floats:
        """Deviations that all pairs share: (n, S, Hw, M) at contexts (n, F), time bases (n, 24, S) and hours (n, S)."""
        _, heads, draws = self.bucket.shape
        n, slots = hours.shape
        of_context = (x[:, None, :] @ self.short).reshape(n, SHORT, heads * draws)
        out = (basis[:, 1 : SHORT + 1].swapaxes(1, 2) @ of_context).reshape(n, slots, heads, draws)
        out += self.bucket[hours]
        return np.asarray(out, np.float32)


@dataclass(frozen=True)
class Drawing:
    """What the drawn rewards of n rows are made of.

    Linearised at the mean: reward + Σ slope · Δη, each action at its own slope. Σ worth · σ(η + Δη) would need a
    sigmoid a draw, head and action (design notes: 6 times the time at M = 64).

    Attributes:
        bank: the draws. spaces: the actions.
        x: (n, F) embedded contexts. basis: (n, 24, S) time bases. hours: (n, S) hours of the week.
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
        """The best eligible action of each draw (n, M), each charged its toll (n, K); a few rows at a time.

        Of equals the first pair, then the first slot, and a message before ``no_send``.

        Args:
            mask: (n, K) with something eligible in each row.
            toll: None = nothing.

        Raises:
            ValueError: a reward is not finite.
        """
        if not self.spaces.messages:
            return np.full(self.stay.shape, self.spaces.size - 1)
        if kernel.available and self.stay.shape[1] % kernel.DRAWS_TOGETHER == 0:
            return self._best_compiled(mask, toll)
        height = max(1, TOGETHER // self.spaces.size)
        parts = [slice(start, start + height) for start in range(0, len(mask), height)]
        if len(parts) == 1:
            return self._best(mask, toll)
        return np.concatenate([self._rows(at)._best(mask[at], None if toll is None else toll[at]) for at in parts])

    def _rows(self, at: slice) -> Drawing:
        """Some of the rows; ``spaces`` is only asked what all rows have in common."""
        return Drawing(
            bank=self.bank,
            spaces=self.spaces,
            x=self.x[at],
            basis=self.basis[at],
            hours=self.hours[at],
            slope=self.slope[at],
            reward=self.reward[at],
            stay=self.stay[at],
        )

    def _best(self, mask: NDArray[np.bool_], toll: NDArray[np.float64] | None) -> NDArray[np.int64]:
        spaces = self.spaces
        draws = self.stay.shape[1]
        offered = self.reward if toll is None else self.reward - by_pair(spaces, toll)
        open_ = by_pair(spaces, mask)
        values = self._messages(np.where(open_, offered, _CLOSED)).reshape(len(mask), spaces.messages, draws)
        place = values.argmax(axis=1)
        top = values[np.arange(len(mask))[:, None], place, np.arange(draws)]
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

    def _best_compiled(self, mask: NDArray[np.bool_], toll: NDArray[np.float64] | None) -> NDArray[np.int64]:
        """The rest of ``best``."""
        bank, spaces, whole = self.bank, self.spaces, np.ascontiguousarray
        (n, draws), heads, features = self.stay.shape, self.slope.shape[1], self.x.shape[1]
        variants, slots, channels = spaces.shape
        chosen = np.empty((n, draws), np.int64)
        finite = kernel.best(
            (n, variants, slots, channels, spaces.no_send, heads, draws, features, SHORT, bank.columns),
            whole(self.x, np.float32),
            whole(self.basis[:, : bank.columns + 1], np.float32),
            whole(self.hours, np.int64),
            whole(self.slope, np.float32),
            whole(self.reward, np.float32),
            whole(self.stay, np.float32),
            whole(mask, np.bool_),
            None if toll is None else whole(toll, np.float64),
            bank.context,
            bank.level,
            bank.short,
            bank.time,
            bank.bucket,
            chosen,
        )
        if not finite:
            raise ValueError("draws of eligible actions must be finite")
        return chosen

    def _messages(self, reward: NDArray[np.floating]) -> Floats:
        """Drawn rewards (n, P, S, M) of messages whose mean is ``reward`` (n, P, S).

        Slopes and time features meet first, so that heads and time columns are one inner dimension of a single product
        for each pair, whose other side no context changes. What contexts change is two smaller products: one for each
        pair, with the mean as one row more of it, and one for each slot.
        """
        bank = self.bank
        n, heads, pairs, slots = self.slope.shape
        width = bank.columns
        inner = heads * width
        tiled = np.empty((n, 1, width, pairs, slots), np.float32)
        tiled[...] = self.basis[:, None, 1 : width + 1, None]
        timed = np.empty((n, heads, width, pairs * slots), np.float32)
        sloped = self.slope.reshape(n, heads, 1, pairs * slots)
        np.multiply(sloped, tiled.reshape(n, 1, width, pairs * slots), out=timed)
        drawn = timed.reshape(n, inner, pairs, slots).transpose(0, 2, 3, 1) @ bank.time
        by_slot = np.empty((n, slots, pairs, heads + 1), np.float32)
        by_slot[..., :heads] = self.slope.transpose(0, 3, 2, 1)
        by_slot[..., heads] = reward.swapaxes(1, 2)
        drawn += by_slot.swapaxes(1, 2) @ bank.levels(self.x)
        of_times = np.empty_like(drawn)
        np.matmul(by_slot[..., :heads], bank.times(self.x, self.basis, self.hours), out=of_times.swapaxes(1, 2))
        drawn += of_times
        return np.asarray(drawn, np.float32)


def _aligned(values: NDArray[np.floating]) -> Floats:
    """A float32 copy that starts with a cache line: products read it a tenth faster."""
    raw = np.empty(4 * values.size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    out = raw[start : start + 4 * values.size].view(np.float32).reshape(values.shape)
    out[...] = values
    return out


def products(matrix: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """matrix (R, F) times each of n vectors (n, F): (n, R), one product a vector."""
    return matvec(matrix, x[:, :, None])[..., 0]


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
