"""Blackout: dates, and public holidays of the recipient's country, on which a rule lets nothing out."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY, Zone
from optimizer.bandit.stretches import NO_OPENING
from storage.records import Recipient
from storage.rules import Blackout

NO_HOLIDAYS: frozenset[int] = frozenset()
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def country_of(blackout: Blackout, recipient: Recipient) -> str | None:
    """The country whose holidays count for a recipient, in upper case; None where none count."""
    if not blackout.country_holidays:
        return None
    told = recipient.attributes.get("country")
    country = told if isinstance(told, str) and told else blackout.default_country
    return country.upper() if country else None


@lru_cache(maxsize=1024)
def closed_days(blackout: Blackout, holidays: frozenset[int]) -> NDArray[np.int64]:
    """(D,) int64, ascending: the local days (since 1970-01-01) on which the rule lets nothing out; cached."""
    own = {date.fromisoformat(day).toordinal() - _EPOCH_ORDINAL for day in blackout.dates}
    return np.array(sorted(own | holidays), np.int64)


def blocked(days: list[NDArray[np.int64]], group: NDArray[np.int64], local: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which times lie on a closed day.

    Args:
        days: the closed days of each group.
        group: (N,) index into ``days``.
        local: (N, S) local seconds.

    Returns:
        (N, S) bool.
    """
    day = local // DAY
    first = int(day.min())
    table = np.zeros((len(days), int(day.max()) - first + 1), np.bool_)
    for row, closed in zip(table, days, strict=True):
        row[closed[(closed >= first) & (closed < first + len(row))] - first] = True
    return np.asarray(table[group[:, None], day - first])


@lru_cache(maxsize=2048)
def openings(
    blackout: Blackout, holidays: frozenset[int], zone: Zone, first_day: int, last_day: int
) -> NDArray[np.int64]:
    """Starts of days that are not closed, and clock changes on them, from one UTC day to another; cached.

    Returns:
        Seconds since 1970, ascending, and then ``NO_OPENING``: whatever time is closed, the first of them after it is
        the first that is not.
    """
    instants = zone.boundaries(first_day * DAY, last_day * DAY, (0,))
    day = (instants + zone.offsets(instants)) // DAY
    return np.append(instants[~np.isin(day, closed_days(blackout, holidays))], NO_OPENING)
