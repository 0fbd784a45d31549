"""The action space of one decision: variant x send slot x channel, and not sending at all.

An action is a number. Its order is fixed, since a decision stores its action and its mask by number:
``a = (v * S + s) * C + c`` for variant v, slot s, channel c, and ``no_send`` is the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY, Zone, parse_clock
from optimizer.errors import Invalid
from storage.records import Baseline
from storage.swift import swift

#: More actions than this in one decision are refused.
MAX_ACTIONS = 4096
#: Local time falls into four dayparts of six hours: night, morning, afternoon, evening.
DAYPARTS = 4
_DAYPART_SECONDS = DAY // DAYPARTS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = 8  # 64-bit words in one blake2b digest
#: Minutes between the times that a masked baseline moves to: the first of which this many reach the window's end. All
#: divide the hour, so that times stay round on every clock.
_STEPS, _MOST_STEPS = (1, 2, 5, 10, 15, 30, 60), 1440


@swift
@dataclass(frozen=True, slots=True, eq=False)
class ActionSpace:
    """All that one decision can choose from, before any rule.

    Attributes:
        variants: (V,) ids.
        channels: (C,) ids.
        send_at: (S,) int64, send time of each slot, seconds since 1970 UTC, increasing.
        local: (S,) int64, the same on the recipient's wall clock (local seconds, see ``localtime``).
        no_send: whether not sending is an action (the last one).
    """

    variants: tuple[str, ...]
    channels: tuple[str, ...]
    send_at: NDArray[np.int64]
    local: NDArray[np.int64]
    no_send: bool

    @property
    def slots(self) -> int:
        """S, the number of send slots."""
        return len(self.send_at)

    @property
    def messages(self) -> int:
        """How many actions send something: V x S x C."""
        return len(self.variants) * len(self.send_at) * len(self.channels)

    @property
    def size(self) -> int:
        """K, the number of actions, ``no_send`` included."""
        return self.messages + self.no_send

    @property
    def no_send_index(self) -> int | None:
        """The action that sends nothing, None if the campaign must send."""
        return self.messages if self.no_send else None

    @property
    def kind(self) -> tuple[object, ...]:
        """What spaces have in common that may be stacked."""
        return self.variants, self.channels, len(self.send_at), self.no_send

    @property
    def shape(self) -> tuple[int, int, int]:
        """(V, S, C), the shape in which the message actions of a (K,) vector lie."""
        return len(self.variants), len(self.send_at), len(self.channels)

    @property
    def dayparts(self) -> NDArray[np.int64]:
        """(S,) int64, the daypart 0–3 of each slot by the recipient's wall clock."""
        return (self.local % DAY) // _DAYPART_SECONDS

    def factors(self, a: int) -> tuple[int, int, int] | None:
        """(variant, slot, channel) of action ``a``; None for ``no_send``. Raises IndexError outside 0 … K-1."""
        if not 0 <= a < self.size:
            raise IndexError(f"action {a} is not in 0 … {self.size - 1}")
        if a == self.no_send_index:
            return None
        rest, channel = divmod(a, len(self.channels))
        variant, slot = divmod(rest, len(self.send_at))
        return variant, slot, channel

    def index(self, v: int, s: int, c: int) -> int:
        """The action of variant ``v`` in slot ``s`` on channel ``c``. Raises IndexError outside the space."""
        shape = self.shape
        if not (0 <= v < shape[0] and 0 <= s < shape[1] and 0 <= c < shape[2]):
            raise IndexError(f"(variant, slot, channel) = {(v, s, c)} is not inside {shape}")
        return (v * shape[1] + s) * shape[2] + c

    def send_time(self, s: int) -> datetime:
        """Send time of slot ``s`` as an aware UTC ``datetime``."""
        return _EPOCH + timedelta(seconds=int(self.send_at[s]))


@dataclass(frozen=True, slots=True, eq=False)
class Spaces:
    """The action spaces of n rows that differ in their times alone, for what is computed of many rows at once.

    Attributes:
        variants: (V,) ids. channels: (C,) ids.
        send_at: (n, S) int64. local: (n, S) int64. As in ``ActionSpace``.
        no_send: whether not sending is an action.
    """

    variants: tuple[str, ...]
    channels: tuple[str, ...]
    send_at: NDArray[np.int64]
    local: NDArray[np.int64]
    no_send: bool

    @classmethod
    def stacked(cls, spaces: Sequence[ActionSpace]) -> Spaces:
        """Spaces of one ``kind``, at least one."""
        one = spaces[0]
        send_at = np.stack([space.send_at for space in spaces])
        local = np.stack([space.local for space in spaces])
        return cls(one.variants, one.channels, send_at, local, one.no_send)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(V, S, C), as in ``ActionSpace``."""
        return len(self.variants), int(self.local.shape[1]), len(self.channels)

    @property
    def messages(self) -> int:
        """How many actions send something: V x S x C."""
        return len(self.variants) * int(self.local.shape[1]) * len(self.channels)

    @property
    def size(self) -> int:
        """K, the number of actions, ``no_send`` included."""
        return int(self.messages + self.no_send)

    @property
    def dayparts(self) -> NDArray[np.int64]:
        """(n, S) int64, the daypart 0–3 of each slot by the recipient's wall clock."""
        return (self.local % DAY) // _DAYPART_SECONDS


def build_space(
    *,
    variants: tuple[str, ...],
    channels: tuple[str, ...],
    window: tuple[datetime, datetime],
    slot_minutes: int,
    spread: bool,
    immediate: bool,
    no_send: bool,
    decision_id: str,
    zone: Zone,
) -> ActionSpace:
    """The action space of a window.

    Slots start at the window's start and every ``slot_minutes`` after it; the last may be shorter. Send times are whole
    seconds with ``start <= send_at < end``: a slot's start or, with ``spread``, its start plus a hash of
    (``decision_id``, slot number) modulo its length, so that messages do not all leave at :00. ``immediate`` has one
    slot, at the window's start (rounded up to the second), whatever the window's end.

    Raises:
        Invalid: code ``too_many_actions``, more than ``MAX_ACTIONS``; ``slot_minutes`` below 1.
    """
    if slot_minutes < 1:
        raise Invalid.field("slot_minutes", f"{slot_minutes} is not allowed: expected at least 1")
    starts, lengths = _slots(*window, slot_minutes * 60, immediate, len(variants) * len(channels), no_send)
    send_at = starts
    if spread and len(starts) and not immediate:
        send_at = starts + _spread(decision_id, lengths)
    return ActionSpace(variants, channels, send_at, zone.wall_clock(send_at), no_send)


@lru_cache(maxsize=64)
def _slots(
    first: datetime, beyond: datetime, length: int, immediate: bool, each: int, no_send: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """(S,) when the slots of a window start, and (S,) their lengths in seconds; a batch's rows share them.

    Raises:
        Invalid: ``each`` actions a slot, and ``no_send``, are more than ``MAX_ACTIONS``.
    """
    start, end = _seconds_up(first), _seconds_up(beyond)
    count = 1 if immediate else max(0, -(-(end - start) // length))
    _check_size(each * count + no_send)
    starts = start + length * np.arange(count, dtype=np.int64)
    lengths = np.minimum(length, end - starts).astype(np.uint64)
    for shared in (starts, lengths):
        shared.setflags(write=False)
    return starts, lengths


def build_baseline_space(
    *,
    baseline: Baseline,
    window: tuple[datetime, datetime],
    decision_id: str,
    zone: Zone,
    immediate: bool = False,
    moves: bool = True,
) -> ActionSpace:
    """What would be sent without Sendtide: one variant on one channel at its exact local time.

    The first slot is the earliest occurrence of ``baseline.local_time`` with ``start <= send_at < end``, the others are
    where it moves to while it is masked, in order, so the first eligible one is the baseline's choice: every minute
    from there to the end, where more than a day is left every 2, 5, 10, 15, 30 or 60 minutes (as few as give 1,440
    times), and all other occurrences. In windows of more than 60 days it moves from day to day. A window without an
    occurrence has no slot (S = 0). A time that the clock skips moves forward, one that it repeats is the first.
    ``immediate``: one slot at the window's start. ``decision_id`` is not used: a baseline is not spread. ``moves``
    false: the occurrences alone, as they were logged before masked baselines moved within a day.

    Raises:
        Invalid: code ``too_many_actions``, a window of more than ``MAX_ACTIONS`` days; ``local_time`` not ``HH:MM``.
    """
    del decision_id
    if immediate:
        send_at = np.array([_seconds_up(window[0])], np.int64)
        local = zone.wall_clock(send_at)
    else:
        send_at, local = _baseline_times(*window, baseline.local_time, zone, moves)
    return ActionSpace((baseline.variant_id,), (baseline.channel,), send_at, local, no_send=False)


@lru_cache(maxsize=256)
def _baseline_times(
    first: datetime, beyond: datetime, local_time: str, zone: Zone, moves: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(S,) when a baseline may be sent, and the same on the wall clock; a batch's rows share them."""
    start, end = _seconds_up(first), _seconds_up(beyond)
    _check_size((end - start) // DAY)
    clock = parse_clock(local_time, "baseline.local_time")
    # A day of margin on both sides: the local date may differ from the UTC date by one, and a skipped date by two.
    days = range(start // DAY - 2, end // DAY + 3)
    times = sorted({at for day in days if start <= (at := zone.to_epoch(day * DAY + clock)) < end})
    if moves and times:
        times = sorted({*times, *_moves(times[0], end)})
    send_at = np.array(times, np.int64)
    local = zone.wall_clock(send_at)
    for shared in (send_at, local):
        shared.setflags(write=False)
    return send_at, local


def _moves(first: int, end: int) -> range:
    """Where a baseline moves to that is masked at ``first``."""
    steps = (60 * minutes for minutes in _STEPS)
    return range(first, end, next((step for step in steps if end - first <= step * _MOST_STEPS), end - first))


def _seconds_up(at: datetime) -> int:
    """Whole seconds since 1970, rounded up, so that no send time lies before the moment that was asked for."""
    return -((_EPOCH - at) // timedelta(seconds=1))


def _check_size(size: int) -> None:
    if size > MAX_ACTIONS:
        message = (
            f"{size} actions are more than {MAX_ACTIONS}: "
            "use a shorter window, longer slots, or fewer variants or channels"
        )
        raise Invalid.field("window", message, code="too_many_actions")


def _spread(decision_id: str, length: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(S,) int64 seconds into each slot: 64 bits of blake2b(decision_id, slot) modulo the slot's length.

    One digest gives the words of eight slots (slot // 8 is hashed, slot % 8 picks the word): eight times as fast.
    """
    blocks = -(-len(length) // _WORDS)
    name = decision_id.encode()
    words = b"".join(
        [
            hashlib.blake2b(name, person=b"sendtide.spread", salt=block.to_bytes(4, "little")).digest()
            for block in range(blocks)
        ]
    )
    drawn = np.frombuffer(words, "<u8")[: len(length)]
    return (drawn % length).view(np.int64)  # as small as the lengths
