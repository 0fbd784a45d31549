"""Public holidays by country, as local day numbers."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import numpy as np
import pytest

from optimizer.bandit.actions import ActionSpace
from optimizer.service.holidays import holidays_of, public_holidays
from storage.records import Recipient
from storage.rules import Blackout, Rule


def day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


def test_holidays_of_whole_years_are_known_by_local_day() -> None:
    german = public_holidays("DE", 2026, 2027)
    assert {day("2026-01-01"), day("2026-04-03"), day("2026-10-03"), day("2027-12-26")} <= german
    assert day("2026-04-02") not in german
    assert not {d for d in german if not day("2026-01-01") <= d <= day("2027-12-31")}


def test_days_on_which_a_holiday_is_observed_count_too() -> None:
    assert {day("2026-07-03"), day("2026-07-04")} <= public_holidays("US", 2026, 2026)  # the 4th is a Saturday


@pytest.mark.parametrize("code", ["ZZ", "DEU", "date", "", "HolidayBase", "USA"])
def test_what_is_no_two_letter_code_of_a_country_has_none(code: str) -> None:
    assert public_holidays(code, 2026, 2026) == frozenset()


def test_only_what_the_rules_ask_for_is_looked_up_to_a_month_beyond_the_slots() -> None:
    at = np.array([day("2026-12-20") * 86_400], np.int64)
    space = ActionSpace(("a",), ("email",), at, at, no_send=True)
    off = Rule("w", "off", "blackout", Blackout(country_holidays=True, default_country="us"))
    swede, nobody = Recipient("w", "s", attributes={"country": "SE"}), Recipient("w", "n")
    assert holidays_of((), swede, space) == {}
    found = holidays_of((off,), swede, space)
    assert set(found) == {"SE"}
    assert {day("2026-12-25"), day("2027-01-06")} <= found["SE"]
    assert set(holidays_of((off,), nobody, space)) == {"US"}


def test_the_library_is_imported_only_when_a_holiday_is_asked_for() -> None:
    program = "import sys, optimizer.service.wiring; print('holidays' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
