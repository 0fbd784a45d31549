"""What the last days' log tells of demand: counted as asked, sampled, and read on as it grows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from optimizer.service import questions, setup
from optimizer.service.questions import Watched, watched
from optimizer.service.wiring import Services
from storage.records import GroupShares
from storage.rules import Capacity
from tests.service.conftest import START, WORKSPACE, FakeClock
from tests.service.scarce_shop import HOURLY, ask, spring


def test_demand_counts_withheld_questions_and_leaves_control_groups_out(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SAMPLE", 50)
    setup.put_campaign(services, spring(groups=GroupShares(random=0.5), allow_no_send=False))
    rule = replace(HOURLY, parameters=Capacity(20, 60))
    setup.put_rule(services, rule)
    decided = ask(services, 200, "one")
    clock.forward(hours=7)
    with services.store.read() as reader:
        past = Watched(frozenset({"spring"}), (rule,), whole=True).read(reader, WORKSPACE, clock.now)
    treated = [d for d in decided if d.group == "treated"]
    assert any(d.status == "withheld" for d in treated)
    assert past.typical == len(treated)
    assert len(past.sample) == 50
    assert {d.decision_id for d in past.sample} <= {d.decision_id for d in treated}
    sent = [d for d in decided if d.send_at is not None]
    assert past.taken["hourly"] == (sum(d.group == "treated" for d in sent), len(sent), 0)
    assert 0 < len(past.whole) <= 50


def test_a_week_with_one_busy_day_has_busy_days(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, spring())
    ask(services, 7, "first")
    clock.forward(days=6, hours=1)
    ask(services, 63, "busy")
    clock.forward(hours=1)
    with services.store.read() as reader:
        past = Watched(frozenset({"spring"}), (), whole=False).read(reader, WORKSPACE, clock.now)
    assert past.typical == pytest.approx(63.0)
    assert past.busy == pytest.approx(6.0)


@pytest.mark.parametrize("hours", range(1, 7 * 24))
def test_a_mailing_that_all_were_asked_for_at_once_has_its_size_whenever_it_is_looked_at(hours: int) -> None:
    asked = {START - timedelta(hours=1): 5_000}
    past = Watched(frozenset({"spring"}), (), whole=False, asked=asked)._past(START + timedelta(hours=hours - 1))
    assert past.typical == 5_000
    assert 1 <= past.busy <= 7


def test_a_few_questions_since_do_not_hide_a_mailing() -> None:
    asked = {START: 5_000, START + timedelta(hours=20): 3}
    past = Watched(frozenset({"spring"}), (), whole=False, asked=asked)._past(START + timedelta(hours=28))
    assert past.typical > 4_900


def test_a_part_of_a_day_like_the_others_is_left_out() -> None:
    asked = {START + timedelta(hours=i): 10 for i in range(60)}
    past = Watched(frozenset({"spring"}), (), whole=False, asked=asked)._past(START + timedelta(hours=60))
    assert (past.typical, past.busy) == (240.0, 1.0)


def test_reading_on_tells_what_reading_anew_tells(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SAMPLE", 40)
    setup.put_campaign(services, spring())
    setup.put_rule(services, HOURLY)
    on = Watched(frozenset({"spring"}), (HOURLY,), whole=True)
    for step in range(20):
        ask(services, 10 + step, f"step{step}")
        with services.store.read() as reader:
            read_on = on.read(reader, WORKSPACE, clock.now)
            anew = Watched(frozenset({"spring"}), (HOURLY,), whole=True).read(reader, WORKSPACE, clock.now)
        assert (read_on.typical, read_on.busy, read_on.taken) == (anew.typical, anew.busy, anew.taken)
        assert len(read_on.sample) == min(40, sum(10 + s for s in range(max(0, step - 13), step + 1)))
        assert {d.decision_id for d in read_on.sample} == {d.decision_id for d in anew.sample}
        clock.forward(hours=12)
    assert not on.thin


def test_a_sample_that_became_thin_is_drawn_anew(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SAMPLE", 20)
    setup.put_campaign(services, spring())
    known: dict[str, Watched] = {}
    ask(services, 200, "many")
    with services.store.read() as reader:
        watched(known, WORKSPACE, {"spring"}, (), whole=False).read(reader, WORKSPACE, clock.now)
    clock.forward(days=4)
    ask(services, 30, "few")
    clock.forward(days=5)
    for expected in (None, 20):
        with services.store.read() as reader:
            past = watched(known, WORKSPACE, {"spring"}, (), whole=False).read(reader, WORKSPACE, clock.now)
        assert expected in (None, len(past.sample))
