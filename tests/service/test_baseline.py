"""Where the baseline answers: at its exact time, else at the next eligible one, else not at all, and says why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from optimizer.service import setup
from optimizer.service.explain import explain
from optimizer.service.replay import Replayer, plan_of
from optimizer.service.settle import record_send
from optimizer.service.wiring import Services
from simulations.audit import audit
from storage.log import Decision, Message
from storage.records import Baseline, Mode
from storage.rules import Cap, QuietHours, Selector
from tests.service.asking import ask, put_rule
from tests.service.conftest import START, WORKSPACE, campaign

EMAIL = Selector(channels=("email",))


@pytest.fixture
def mornings(services: Services) -> None:
    """A campaign that answers its baseline, at nine, in windows of twenty hours."""
    baseline = Baseline("mens", "email", "09:00")
    setup.put_campaign(services, campaign(mode="baseline_only", baseline=baseline, default_window_hours=20.0))


def at(clock: str) -> datetime:
    """A time of the day after the start."""
    hour, minute = clock.split(":")
    return START.replace(hour=int(hour), minute=int(minute)) + timedelta(days=1)


def proven(services: Services, decision: Decision) -> Decision:
    """The decision, once its record has been shown to replay and the log to keep every rule."""
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert replayer.draw(decision) == decision.action
        vector = replayer.vector(decision)
        if decision.action is not None:
            assert vector[decision.action] == decision.propensity == 1.0
        report = audit(reader, WORKSPACE)
    assert (report.reservations, report.clean) == (int(decision.action is not None), True)
    return decision


def test_a_masked_baseline_moves_to_the_first_eligible_minute_of_the_same_day(
    services: Services, mornings: None
) -> None:
    put_rule(services, "mornings", "quiet_hours", QuietHours(start="08:00", end="10:17"), applies_to=EMAIL)
    decision = proven(services, ask(services, window=(at("06:00"), at("06:00") + timedelta(hours=20))))
    assert (decision.status, decision.send_at) == ("reserved", at("10:17"))
    (reason,) = decision.reasons
    assert (reason.rule_id, reason.masked, reason.next_eligible_at) == ("mornings", 77, at("10:17"))


def test_a_baseline_that_nothing_masks_goes_at_its_time(services: Services, mornings: None) -> None:
    decision = proven(services, ask(services, window=(at("06:00"), at("06:00") + timedelta(days=3))))
    assert (decision.send_at, decision.reasons) == (at("09:00"), ())


def test_a_baseline_waits_for_a_cap_to_the_minute(services: Services, mornings: None) -> None:
    put_rule(services, "cap", "cap", Cap(limit=1, rolling_hours=24.0))
    before = at("10:17") + timedelta(seconds=23) - timedelta(days=1)
    record_send(services, Message(WORKSPACE, "u1", before, "theirs", "email", "marketing"))
    decision = proven(services, ask(services, window=(at("06:00"), at("06:00") + timedelta(hours=20))))
    assert decision.send_at == at("10:18")


def test_a_baseline_that_is_masked_to_the_end_of_its_window_is_withheld(services: Services, mornings: None) -> None:
    put_rule(services, "days", "quiet_hours", QuietHours(start="08:00", end="20:00"), applies_to=EMAIL)
    decision = proven(services, ask(services, window=(at("06:00"), at("20:00"))))
    assert (decision.status, decision.eligible_actions, decision.actions) == ("withheld", 0, 660)
    assert [reason.rule_id for reason in decision.reasons] == ["days"]


def test_a_window_without_the_baselines_time_is_withheld_and_says_why(services: Services, mornings: None) -> None:
    decision = proven(services, ask(services, window=(at("10:00"), at("18:00"))))
    assert (decision.status, decision.eligible_actions, decision.actions) == ("withheld", 0, 0)
    (reason,) = decision.reasons
    assert (reason.rule_id, reason.kind, reason.masked) == ("baseline", "outside_window", 0)
    assert reason.note.startswith("no 09:00 (")
    told = explain(services, WORKSPACE, decision.decision_id)
    assert told["sentence"] == "Withheld: the baseline's time does not come in the window."


def test_a_baseline_of_before_it_moved_within_a_day_still_replays(services: Services, mornings: None) -> None:
    made = ask(services, window=(at("06:00"), at("06:00") + timedelta(days=3)))
    mask = np.array([False, True, True])
    then = replace(made, action=1, actions=3, eligible=np.packbits(mask).tobytes(), send_at=at("09:00"))
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert plan_of(then, replayer.campaign(then)).space.send_time(1) == at("09:00") + timedelta(days=1)
        assert (replayer.draw(then), list(replayer.vector(then))) == (1, [0.0, 1.0, 0.0])


@pytest.mark.parametrize("mode", ["paused", "baseline_only"])
@pytest.mark.parametrize("holdout", [0.0, 1.0])
def test_where_nothing_is_chosen_nothing_is_eligible(services: Services, mode: Mode, holdout: float) -> None:
    made = campaign()
    setup.put_campaign(services, replace(made, groups=replace(made.groups, holdout=holdout)))
    setup.set_mode(services, WORKSPACE, mode)
    decision = ask(services)
    if mode == "baseline_only" and holdout:
        assert (decision.status, decision.eligible_actions) == ("no_send", 1)
        return
    assert (decision.status, decision.eligible_actions) == ("withheld", 0)
    assert decision.reasons[0].rule_id == "mode"
    assert decision.reasons[0].masked > 0
    proven(services, decision)
