"""Wall clocks: exact offsets of a time zone for whole arrays of instants, and back from wall clock to instant.

``zoneinfo`` answers one ``datetime`` at a time; a decision asks for hundreds of slots. So each zone is read once into
a table of its transitions, and an array of instants is one ``searchsorted``. Local time is written as *local seconds*:
the wall clock read as if it were UTC, so that ``local // 86400`` is the local date, ``local % 86400`` the time of day.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import Invalid

log = logging.getLogger("sendtide.localtime")

DAY = 86_400
#: The table covers 1980–2109; instants outside it are answered by ``zoneinfo`` one at a time, just as exactly.
FIRST = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp())
LAST = int(datetime(2110, 1, 1, tzinfo=UTC).timestamp())
# Two changes of offset are at least 6.96 days apart in every zone of tzdata 2026 from 1970 to 2120 (the nearest pairs:
# Brazil 2000, Gaza around Ramadan), so steps of five days hold at most one each and none can hide. The tests check
# this against every zone of the installed tzdata.
_STEP = 5 * DAY
#: Names that a file system may resolve although they are no zones: the host's own, and those with leap seconds.
_NOT_ZONES = ("localtime", "posixrules")
_NOT_ZONE_FOLDERS = ("posix/", "right/")


class Zone:
    """A time zone with its transition table. Immutable; get one from ``zone(name)``."""

    __slots__ = ("_info", "_offset_list", "_offsets", "_transition_list", "_transitions", "name")

    def __init__(self, info: ZoneInfo) -> None:
        self.name = info.key
        self._info = info
        self._transition_list, self._offset_list = _table(info, FIRST, LAST - 1)
        self._transitions: NDArray[np.int64] = np.array(self._transition_list, np.int64)
        self._offsets: NDArray[np.int64] = np.array(self._offset_list, np.int64)

    def __repr__(self) -> str:
        return f"Zone({self.name!r})"

    def __reduce__(self) -> tuple[Callable[[str], Zone], tuple[str]]:
        return zone, (self.name,)

    def offset(self, epoch: int) -> int:
        """Seconds east of UTC at the instant ``epoch`` (seconds since 1970)."""
        if FIRST <= epoch < LAST:
            return self._offset_list[bisect_right(self._transition_list, epoch)]
        return _slow_offset(self._info, epoch)

    def offsets(self, epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Seconds east of UTC at each instant; same shape as ``epoch`` (seconds since 1970, int64)."""
        if epoch.size and (epoch.min() < FIRST or epoch.max() >= LAST):
            flat = [self.offset(int(e)) for e in epoch.ravel()]
            return np.array(flat, np.int64).reshape(epoch.shape)
        return self._offsets[self._transitions.searchsorted(epoch, side="right")]

    def wall_clock(self, epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Local seconds at instants (S,) that ascend; quick where no clock is changed between them."""
        if epoch.size:
            first, last = int(epoch[0]), int(epoch[-1])
            segment = bisect_right(self._transition_list, first)
            if first >= FIRST and last < LAST and bisect_right(self._transition_list, last) == segment:
                return epoch + self._offset_list[segment]
        return epoch + self.offsets(epoch)

    def to_epoch(self, local: int) -> int:
        """The instant at which the wall clock reads ``local`` (local seconds).

        A time that is skipped moves forward by the length of the jump (02:30 becomes 03:30); one that occurs twice is
        the first. That is ``fold=0`` of PEP 495.
        """
        if not FIRST + 2 * DAY <= local < LAST - 2 * DAY:
            naive = datetime.fromtimestamp(local, UTC).replace(tzinfo=self._info)
            return int(naive.timestamp())
        # No offset reaches a day, so the instant is later than local - DAY.
        segment = bisect_right(self._transition_list, local - DAY)
        while (
            segment < len(self._transition_list)
            and local - self._offset_list[segment] >= (self._transition_list[segment])
        ):
            segment += 1
        epoch = local - self._offset_list[segment]
        if segment and epoch < self._transition_list[segment - 1]:
            return local - self._offset_list[segment - 1]
        return epoch

    def segments(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """From when on which offset holds, over the instants ``first`` … ``last`` (seconds since 1970).

        Returns:
            (T,) the instants, ascending from ``first``, at which an offset begins to hold, and (T,) the offsets.
        """
        if first >= FIRST and last < LAST:
            low, high = bisect_right(self._transition_list, first), bisect_right(self._transition_list, last)
            transitions, offsets = self._transition_list[low:high], self._offset_list[low : high + 1]
        else:
            transitions, offsets = _table(self._info, first, last)
        return np.array([first, *transitions], np.int64), np.array(offsets, np.int64)

    def boundaries(self, first: int, last: int, clocks: tuple[int, ...]) -> NDArray[np.int64]:
        """``first``, then every later instant up to ``last`` at which the wall clock reads one of some times, or moves.

        Args:
            first: seconds since 1970, as ``last``.
            last: where to end.
            clocks: times of day, seconds after midnight.

        Something that depends on the wall clock only, and changes at these times only, is constant from one of the
        instants to the next; so its first change is found exactly, clock changes included. A time that is skipped gives
        no instant, but the jump is one; a time that is repeated gives two.
        """
        starts, offsets = self.segments(first, last)
        ends = np.append(starts[1:], last + 1)
        days = np.arange((first + int(offsets.min())) // DAY, (last + int(offsets.max())) // DAY + 1)
        local = (days[:, None] * DAY + np.array(clocks, np.int64)).ravel()
        read = local - offsets[:, None]
        return np.unique(np.concatenate((starts, read[(read >= starts[:, None]) & (read < ends[:, None])])))


@cache
def zone(name: str) -> Zone:
    """The zone of that IANA name, e.g. ``Europe/Berlin``.

    Raises:
        ValueError: no such zone in the time zone database; the message names it.
    """
    if name in _NOT_ZONES or name.startswith(_NOT_ZONE_FOLDERS):
        raise ValueError(_unknown(name))
    try:
        return Zone(ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(_unknown(name)) from error


@cache
def known_zone(name: str) -> Zone | None:
    """The zone of a name that was stored; None where another host stored it and this one's database lacks it.

    A name that is lacked is warned of once.
    """
    try:
        return zone(name)
    except ValueError as error:
        log.warning("a stored time zone is not known on this host; its time zone database may be an old one: %s", error)
        return None


def at_zone(at: datetime, name: str) -> datetime:
    """An aware instant on the wall clock of a stored zone; in UTC where this host doesn't know the zone."""
    where = known_zone(name)
    return at.astimezone(UTC if where is None else where._info)


@cache
def zone_names() -> frozenset[str]:
    """The zones that a recipient may be in: all that are known here, without what stands for none."""
    return frozenset(available_timezones() - {"Factory", "localtime"})


def parse_clock(text: str, field: str) -> int:
    """Seconds after midnight of ``HH:MM`` (00:00 … 24:00). Raises Invalid naming ``field`` and the text."""
    hours, separator, minutes = text.partition(":")
    if separator and hours.isdecimal() and minutes.isdecimal() and len(minutes) == 2:
        seconds = int(hours) * 3600 + int(minutes) * 60
        if int(minutes) < 60 and seconds <= DAY:
            return seconds
    raise Invalid.field(field, f"{text!r} is not a time of day: expected HH:MM between 00:00 and 24:00")


def _unknown(name: str) -> str:
    return f"{name!r} is not a time zone: expected an IANA name such as 'Europe/Berlin' or 'UTC'"


def _slow_offset(info: ZoneInfo, epoch: int) -> int:
    offset = datetime.fromtimestamp(epoch, info).utcoffset()
    if offset is None:  # pragma: no cover - ZoneInfo always knows the offset of an instant
        raise ValueError(f"{info.key} has no offset at {epoch}")
    return offset.days * DAY + offset.seconds


def _table(info: ZoneInfo, first: int, last: int) -> tuple[list[int], list[int]]:
    """Instants after ``first`` up to ``last`` at which the offset changes; the offsets before, between and after them
    (one more)."""
    transitions: list[int] = []
    before = _slow_offset(info, first)
    offsets = [before]
    for start in range(first, last, _STEP):
        end = min(start + _STEP, last)
        after = _slow_offset(info, end)
        if after == before:
            continue
        low, high = start, end
        while high - low > 1:
            middle = (low + high) // 2
            if _slow_offset(info, middle) == before:
                low = middle
            else:
                high = middle
        transitions.append(high)
        offsets.append(after)
        before = after
    return transitions, offsets
