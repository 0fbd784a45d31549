"""Public holidays of countries, as ``blackout`` rules ask for them: local day numbers, from the ``holidays`` library.

The library is imported when the first holiday is asked for: few workspaces have such a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache, lru_cache

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.eligibility import countries
from optimizer.bandit.localtime import DAY
from storage.records import Recipient
from storage.rules import Rule

_EPOCH = date(1970, 1, 1)
#: How many days after the last send time are told, so that a reason can say what opens next.
DAYS_BEYOND = 32


def holidays_of(rules: Sequence[Rule], recipient: Recipient, space: ActionSpace) -> dict[str, frozenset[int]]:
    """What ``Question.holidays`` wants: for each country that the rules ask for, its public holidays around the slots.

    Whole calendar years are told, from that of the first slot's local day to that of ``DAYS_BEYOND`` after the last
    one's, as days since 1970-01-01. A code that is no country's has no holidays.
    """
    wanted = countries(rules, recipient)
    if not wanted or not space.slots:
        return {}
    first = _year(int(space.local[0]) // DAY)
    last = _year(int(space.local[-1]) // DAY + DAYS_BEYOND)
    return {country: public_holidays(country, first, last) for country in wanted}


@lru_cache(maxsize=4096)
def public_holidays(country: str, first_year: int, last_year: int) -> frozenset[int]:
    """The nation-wide public holidays of an ISO 3166-1 alpha-2 code, days since 1970-01-01; observed days included."""
    return frozenset().union(*(_in_year(country.upper(), year) for year in range(first_year, last_year + 1)))


@lru_cache(maxsize=4096)
def _in_year(country: str, year: int) -> frozenset[int]:
    if country not in _known():
        return frozenset()
    import holidays

    return frozenset((day - _EPOCH).days for day in holidays.country_holidays(country, years=year))


@cache
def _known() -> frozenset[str]:
    """Every code that the library knows; it knows three-letter ones too, which are none of ours."""
    import holidays

    return frozenset(code for code in holidays.list_supported_countries() if len(code) == 2)


def _year(day: int) -> int:
    return (_EPOCH + timedelta(days=day)).year
