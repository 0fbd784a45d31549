"""What a page says of a campaign in one glance."""

from __future__ import annotations

from typing import Any

import pytest

from optimizer.web.console.reports import standing_of


def reported(compared: int, counted: int, low: float | None = 50.0) -> dict[str, Any]:
    """A report of a clear lift, its money that of so many of the compared treated decisions."""
    lift = {"estimate": 0.1, "low": 0.05, "high": 0.15, "clear": "higher"}
    total = {"estimate": 100.0, "low": low, "high": None if low is None else 150.0, "decisions": counted}
    return {
        "groups": [{"group": "treated", "compared": compared}, {"group": "holdout", "compared": 100}],
        "group_sizes": {"mismatch": False},
        "lifts": [{"control": "holdout", "value": lift, "money": {**lift, "total": total}, "doubts": []}],
    }


@pytest.mark.parametrize(("counted", "partial"), [(1_000, False), (400, True)])
def test_money_of_some_of_the_treated_decisions_is_said_to_be_that(counted: int, partial: bool) -> None:
    standing = standing_of(reported(1_000, counted))
    assert (standing.verdict, standing.partial) == ("paying", partial)
    assert standing.money is not None


def test_money_of_which_nobody_can_tell_is_not_shown() -> None:
    standing = standing_of(reported(1_000, 1_000, low=None))
    assert (standing.verdict, standing.money, standing.partial) == ("paying", None, False)


@pytest.mark.parametrize(("doubt", "verdict"), [("two_forms", "mixed"), ("unseen", "paying")])
def test_a_lift_of_outcomes_in_two_forms_pays_nothing(doubt: str, verdict: str) -> None:
    report = reported(1_000, 1_000)
    report["lifts"][0]["doubts"] = [{"outcome": "converted", "doubt": doubt}]
    standing = standing_of(report)
    assert (standing.verdict, standing.money is None) == (verdict, verdict == "mixed")


@pytest.mark.parametrize(("controls", "verdict"), [((), "alone"), (("holdout",), "early")])
def test_a_control_group_is_one_even_if_nobody_of_it_was_asked_about_yet(
    controls: tuple[str, ...], verdict: str
) -> None:
    lifts: list[dict[str, Any]] = [{"control": name, "value": None, "money": None, "doubts": []} for name in controls]
    standing = standing_of({**reported(0, 0), "groups": [{"group": "treated", "compared": 0}], "lifts": lifts})
    assert standing.verdict == verdict
