"""Closed stretches of time: which slots they cover, and when the first of them opens again.

A rule that binds a recipient closes half-open stretches ``[opens, closes)`` of microseconds. The rules of many
recipients are judged at once: an *owner* is one recipient under one rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MICRO = 1_000_000
#: An opening that never comes, or is too far away to be known.
NEVER = int(np.iinfo(np.int64).max)
#: The same in seconds: what a list of openings ends with.
NO_OPENING = NEVER // MICRO
_NEVER: Final = np.array([NEVER])

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Times = NDArray[np.int64]
Blocked = NDArray[np.bool_]


def micros(at: datetime) -> int:
    """Microseconds since 1970 of an aware time. Not ``timestamp()``: a float would lose the last one."""
    return (at - _EPOCH) // _MICROSECOND


def never(count: int) -> Times:
    """(count,) openings that never come; in a quarter of the time of ``numpy.full``."""
    return _NEVER.repeat(count)


class Stretches(NamedTuple):
    """(n,) stretches in order of owner and start; of one owner the ends ascend too.

    Attributes:
        owner: int64, ascending.
        opens: int64 microseconds since 1970, the first closed one.
        closes: int64 microseconds, the first open one after it.
    """

    owner: Times
    opens: Times
    closes: Times


class SlotIndex:
    """The send times of many recipients behind each other, each recipient's ascending, so that one search serves all.

    ``send_at`` is (N, S) int64, seconds since 1970; ``first`` and ``last`` are the earliest and latest of them.
    """

    __slots__ = ("_keys", "_shift", "_stride", "rows", "slots")
    _keys: Times

    def __init__(self, send_at: Times, first: int, last: int) -> None:
        self.rows, self.slots = send_at.shape
        if self.rows == 1:
            self._shift, self._keys = 1 - MICRO, send_at[0]
            return
        self._stride = last - first + 2
        self._shift = first * MICRO - (MICRO - 1)  # so that rounding down rounds up
        self._keys = (send_at + (np.arange(self.rows) * self._stride - first)[:, None]).ravel()

    def find(self, row: Times, at: Times) -> Times:
        """Where in the flat (N x S) array the first slot of a row lies that is not before ``at`` (microseconds)."""
        seconds = (at - self._shift) // MICRO
        if self.rows == 1:
            return self._keys.searchsorted(seconds)
        inside = np.minimum(np.maximum(seconds, 0), self._stride - 1)
        return self._keys.searchsorted(inside + row * self._stride)


def cover(stretches: Stretches, slots: SlotIndex, owners: int) -> tuple[Blocked, Times]:
    """Which slots the stretches close, and when the first closed one opens.

    Args:
        stretches: of owners 0 … ``owners`` - 1; owner o has the slots of row o % N.
        slots: N rows of S slots.
        owners: a multiple of N.

    Returns:
        (owners, S) bool, and (owners,) microseconds since 1970: the first instant from an owner's first closed slot on
        that lies in none of its stretches; ``NEVER`` for an owner without a closed slot.
    """
    opening = never(owners)
    owner, count, size = stretches.owner, slots.slots, owners * slots.slots
    if not len(owner):
        return np.zeros((owners, count), np.bool_), opening
    row = owner % slots.rows
    shift = (owner - row) * count
    edges = slots.find(np.concatenate((row, row)), np.concatenate((stretches.opens, stretches.closes)))
    start, end = edges[: len(row)] + shift, edges[len(row) :] + shift
    depth = np.bincount(start, minlength=size + 1) - np.bincount(end, minlength=size + 1)
    closed = (depth[:size].cumsum() > 0).reshape(owners, count)
    first = closed.argmax(axis=1) + np.arange(0, size, count)
    shut = closed.ravel()[first].nonzero()[0]
    if len(shut):
        # The first stretch that ends after a closed slot has the smallest start of all that do, so it holds the slot;
        # from there on the slot stays closed until the last stretch of an unbroken chain ends.
        held = end.searchsorted(first[shut], side="right")
        final = np.ones(len(owner), np.bool_)
        np.not_equal(owner[1:], owner[:-1], out=final[:-1])
        final[:-1] |= stretches.opens[1:] > stretches.closes[:-1]
        last = final.nonzero()[0]
        opening[shut] = stretches.closes[last[last.searchsorted(held)]]
    return closed, opening


def following(openings: Sequence[Times], group: Times, at: Times) -> Times:
    """The first opening after each time.

    Args:
        openings: of each group, the instants at which something is open (seconds since 1970), ascending, and then
            ``NO_OPENING``.
        group: (n,) the group of each time.
        at: (n,) seconds since 1970.

    Returns:
        (n,) seconds since 1970, ``NO_OPENING`` where none follows.
    """
    if len(openings) == 1:
        return openings[0][openings[0].searchsorted(at, side="right")]
    first, last = int(at.min()), int(at.max())
    stride = last - first + 2
    joined = np.concatenate(openings)
    shift = (np.arange(len(openings)) * stride).repeat([len(part) for part in openings])
    keys = np.minimum(np.maximum(joined - first, 0), stride - 1) + shift
    return joined[keys.searchsorted(at - first + group * stride, side="right")]
