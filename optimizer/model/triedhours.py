"""The local hours of the day that messages were sent at: what a model says of other hours nobody has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY
from optimizer.model.examples import Examples

_HOURS: Final = 24
_HOUR: Final = DAY // _HOURS
#: Messages at an hour from which on it counts as tried …
ENOUGH: Final = 50
#: … or this share of those at the hour that has the most, if that is fewer.
_OF_MOST: Final = 0.5

#: By campaign, how many of its messages were sent at each local hour of the day.
Hours = Mapping[str, Sequence[int]]


def hours_of(examples: Examples) -> dict[str, list[int]]:
    """At which hours the messages among training rows were sent; campaigns without any are left out."""
    hour = examples.local % DAY // _HOUR
    found = {}
    for i, campaign in enumerate(examples.campaigns):
        mine = examples.sent & (examples.campaign == i)
        if mine.any():
            found[campaign.campaign_id] = np.bincount(hour[mine], minlength=_HOURS).tolist()
    return found


def most(one: Hours, other: Hours) -> dict[str, list[int]]:
    """The larger count of each hour: rows that a refresh doesn't read again may be in either or in both."""
    nothing = [0] * _HOURS
    return {
        name: np.maximum(one.get(name, nothing), other.get(name, nothing)).tolist()
        for name in sorted(one.keys() | other.keys())
    }


def tried(counts: Sequence[int], local: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(S,) which of some times were tried; all where none of them was.

    Args:
        counts: messages by local hour of the day. local: (S,) the recipient's wall clock, in local seconds.
    """
    known = np.asarray(counts, dtype=np.int64)[local % DAY // _HOUR]
    return known >= min(ENOUGH, _OF_MOST * float(known.max(initial=0)))
