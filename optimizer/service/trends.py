"""How a campaign's figures came about: the lift at each daily look, the traffic of each day, the week of each channel.

What a report says of today, these say of every day before; the bounds of a lift are those that a report of that day
gave, and hold at all looks together.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from optimizer.bandit.comparison import lift_of
from optimizer.service.compared import EPOCH, LEVEL, Compared, bounds
from optimizer.service.ledger import DAY, GROUPS, MODES, NONE, STATUSES, Ints, Mask
from storage.log import Group

#: A curve has at most so many points, and a history so many bars.
_POINTS: Final = 24
_BARS: Final = 45
_WEEK: Final = 168
CONTROLS: Final[tuple[Group, ...]] = ("holdout", "random", "baseline")


def trends(compared: Compared) -> dict[str, Any]:
    """The history of a campaign.

    Returns:
        ``lift``: for each control group with decisions, the points of its curve; ``traffic``: what the treated were
        given, by day; ``week``: for each channel (168,) messages to the treated and their mean reward (None where
        there is none), by local hour of the week from Monday; ``days``: decisions by day.
    """
    return {
        "lift": [
            {"control": control, "points": _curve(compared, control)}
            for control in CONTROLS
            if np.any(compared.ledger.group == GROUPS.index(control))
        ],
        "traffic": _traffic(compared),
        "week": _week(compared),
        "days": _days(compared),
    }


def _curve(compared: Compared, control: Group) -> list[dict[str, Any]]:
    """The lift over a control group at up to 24 of the daily looks, the newest among them."""
    ledger = compared.ledger
    treated, other = compared.groups["treated"], compared.groups[control]
    if not treated.rows.size or not other.rows.size:
        return []
    one, two = (part.of(ledger.reward, ledger.worth) for part in (treated, other))
    first, last = max(int(one.look.min()), int(two.look.min())), max(int(one.look.max()), int(two.look.max()))
    points = []
    for look in np.unique(np.linspace(first, last, _POINTS).astype(np.int64)).tolist():
        then = [rows.take(rows.look <= look) for rows in (one, two)]
        found = lift_of(then[0], then[1], LEVEL)
        if found is not None:
            at = _date(look + _first_look(compared))
            points.append({"at": at, "compared": int(then[1].value.size), **bounds(found)})
    return points


def _first_look(compared: Compared) -> int:
    """The day, counted from 1970, of look 0."""
    return int((-(-compared.ledger.closes // DAY) - compared.look)[0])


def _date(day: int) -> datetime:
    return EPOCH + timedelta(days=day)


def _bins(days: Ints) -> tuple[Ints, int, int]:
    """Days as numbers of bars, with the first day and the days that a bar covers; the last bar ends today."""
    first, last = int(days.min()), int(days.max())
    step = -(-(last - first + 1) // _BARS)
    first = last + 1 - step * (-(-(last - first + 1) // step))
    return (days - first) // step, first, step


def _live(compared: Compared) -> Mask:
    live: Mask = compared.ledger.mode == MODES.index("live")
    return live


def _traffic(compared: Compared) -> dict[str, Any]:
    """Decisions for the treated by day and by what was chosen; ``variants`` ends with None, no message."""
    ledger = compared.ledger
    mine = _live(compared) & (ledger.group == GROUPS.index("treated"))
    names: list[str | None] = [*ledger.variants, None]
    if not mine.any():
        return {"variants": names, "days_a_bar": 1, "bars": []}
    bar, first, step = _bins(ledger.decided[mine] // DAY)
    choice = np.where(ledger.variant[mine] == NONE, len(ledger.variants), ledger.variant[mine])
    counts = np.zeros((int(bar.max()) + 1, len(names)), np.int64)
    np.add.at(counts, (bar, choice), 1)
    bars = [{"from": _date(first + n * step), "counts": row.tolist()} for n, row in enumerate(counts)]
    return {"variants": names, "days_a_bar": step, "bars": bars}


def _week(compared: Compared) -> list[dict[str, Any]]:
    """Compared messages to the treated, by channel and local hour of the week, the busiest channel first."""
    ledger = compared.ledger
    treated = compared.groups["treated"].rows
    sent = treated[ledger.variant[treated] != NONE]
    found = []
    for code, channel in enumerate(ledger.channels):
        mine = sent[ledger.channel[sent] == code]
        count = np.bincount(ledger.hour[mine], minlength=_WEEK)
        total = np.bincount(ledger.hour[mine], weights=ledger.reward[mine], minlength=_WEEK)
        value = [s / n if n else None for s, n in zip(total.tolist(), count.tolist(), strict=True)]
        found.append({"channel": channel, "messages": count.tolist(), "value": value})
    return sorted(found, key=lambda one: -sum(one["messages"]))


def _days(compared: Compared) -> dict[str, Any]:
    """All decisions by day: how many, how many for a message, how many withheld."""
    ledger = compared.ledger
    if not ledger.decided.size:
        return {"days_a_bar": 1, "bars": []}
    bar, first, step = _bins(ledger.decided // DAY)
    size = int(bar.max()) + 1
    every, messages, withheld = (
        np.bincount(bar[mask], minlength=size).tolist()
        for mask in (
            np.ones(bar.size, np.bool_),
            ledger.variant != NONE,
            ledger.status == STATUSES.index("withheld"),
        )
    )
    rows = zip(every, messages, withheld, strict=True)
    bars = [
        {"from": _date(first + n * step), "decisions": d, "messages": m, "withheld": w}
        for n, (d, m, w) in enumerate(rows)
    ]
    return {"days_a_bar": step, "bars": bars}
