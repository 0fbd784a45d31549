"""Caps of one recipient, number by number: what ``caps.Caps.judge`` answers for many, cheaper for a few messages.

A step over arrays costs about a microsecond however short they are, and one recipient has a dozen messages in sight of
the caps: plain numbers are done in a third of the time. Which stretches of time a full cap closes: ``bandit.caps``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter

from optimizer.bandit.caps import Caps, Whereabouts
from optimizer.bandit.periods import LONGEST, days_around, listed
from optimizer.bandit.stretches import MICRO, NEVER, Blocked, Times, micros
from storage.log import Message
from storage.rules import Cap, Selector

#: From so many messages on arrays are faster.
MANY = 64

#: When a message goes out, microseconds since 1970, and its channel, category and campaign.
_Entry = tuple[int, tuple[str, str, str | None]]
_Stretch = tuple[int, int]


def judge_alone(
    caps: Caps, unanswered: int, messages: Sequence[Message], send_at: Times, where: Whereabouts, shut: Blocked
) -> tuple[list[int], list[bool]]:
    """Which slots each of R caps closes for one recipient, and when the first closed one opens.

    Args:
        caps: the caps.
        unanswered: how many messages the recipient left unanswered.
        messages: the recipient's, in any order.
        send_at: (S,) the slots, seconds since 1970, ascending.
        where: when and where.
        shut: (R, S) bool; filled with which slots each cap closes.

    Returns:
        (R,) microseconds since 1970, as ``caps.Caps.judge`` has them, and (R,) whether the limit is 0.
    """
    slots = send_at.tolist()
    entries = [(micros(m.at), (m.channel, m.category, m.campaign_id)) for m in messages]
    entries.sort(key=itemgetter(0))
    everything = [at for at, _ in entries]
    shut[...] = False
    opens, zero = [], []
    for r, cap in enumerate(caps.caps):
        limit = cap.limit_for(unanswered)
        zero.append(limit <= 0)
        if limit <= 0:
            shut[r], opening = True, NEVER
        else:
            times = everything if caps.counts_all[r] else _counted(entries, caps.counts[r])
            if cap.rolling_hours is not None:
                stretches = _rolling(times, limit, caps.reach[r])
            else:
                stretches = _calendar(cap, times, limit, where)
            opening = _close(stretches, slots, shut[r])
        opens.append(opening if opening <= caps.reach[r] + where.latest * MICRO else NEVER)
    return opens, zero


def _counted(entries: Sequence[_Entry], counts: Selector) -> list[int]:
    """The times of the messages that a selector admits."""
    admitted = {
        (channel, category, campaign_id)
        for channel, category, campaign_id in {kind for _, kind in entries}
        if counts.admits(channel=channel, category=category, campaign_id=campaign_id)
    }
    return [at for at, kind in entries if kind in admitted]


def _rolling(times: Sequence[int], limit: int, length: int) -> list[_Stretch]:
    """What each ``limit`` neighbours that share a window close."""
    neighbours = zip(times, times[limit - 1 :], strict=False)
    return [(last - length + 1, first + length) for first, last in neighbours if last - first < length]


def _calendar(cap: Cap, times: Sequence[int], limit: int, where: Whereabouts) -> list[_Stretch]:
    """The periods that hold ``limit`` messages; one that a clock set back interrupts comes in two parts."""
    per = cap.calendar or "day"
    days = days_around(where.earliest - LONGEST[per], where.latest + 2 * LONGEST[per])
    starts, segments = listed(where.zones[0], per, cap.week_start, *days)
    # A message outside the range is taken for one at its ends, whose periods hold no slot and no opening that is told.
    held = Counter([segments[max(0, bisect_right(starts, at) - 1)][0] for at in times])
    return [(start, end) for number, start, end in segments if held[number] >= limit]


def _close(stretches: Iterable[_Stretch], slots: Sequence[int], shut: Blocked) -> int:
    """Closes slots (S,) that stretches cover, in order of start and of end; when the first closed one opens."""
    opening = NEVER
    runs: list[_Stretch] = []
    for opens, closes in stretches:
        if runs and opens <= runs[-1][1]:
            runs[-1] = runs[-1][0], closes
        else:
            runs.append((opens, closes))
    for opens, closes in runs:
        first, beyond = bisect_left(slots, -(-opens // MICRO)), bisect_left(slots, -(-closes // MICRO))
        if first < beyond:
            shut[first:beyond] = True
            opening = min(opening, closes)
    return opening
