"""Between a decision's read and its write the world moves: only a changed set, or another policy, draws anew."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from optimizer.config import Settings
from optimizer.errors import Conflict
from optimizer.service import setup
from optimizer.service.drafting import Drafter
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.wiring import Services, open_services
from storage.log import Decision
from storage.records import Channel, Consent, Recipient
from storage.rules import Adapt, Budget, Cap, Capacity, Fatigue, Selector
from tests.service.asking import another, ask, ask_all, meanwhile, put_rule
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

HOUR = (START, START + timedelta(hours=1))
TWO_HOURS = (START, START + timedelta(hours=2))


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, campaign(channels=(Channel("email"),), allow_no_send=False))
    return services


def replays(services: Services, decision: Decision) -> bool:
    assert decision.action is not None
    assert decision.propensity is not None
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        vector = replayer.vector(decision)
        return replayer.draw(decision) == decision.action and bool(
            np.isclose(vector[decision.action], decision.propensity)
        )


def test_a_capacity_that_filled_up_meanwhile_changes_the_set_and_the_draw(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rule(shop, "rate", "capacity", Capacity(1, per_minutes=60))
    meanwhile(shop, monkeypatch, lambda: ask(another(shop), "u2", window=HOUR))
    decision = ask(shop, window=TWO_HOURS)
    assert (decision.snapshot.attempt, decision.eligible_actions) == (1, 2)
    assert decision.send_at is not None
    assert decision.send_at >= HOUR[1]
    assert replays(shop, decision)


def test_counters_that_move_without_closing_anything_cause_no_new_draw_and_no_new_plan(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rule(shop, "rate", "capacity", Capacity(5, per_minutes=60))
    put_rule(shop, "money", "budget", Budget(0, per="day"))
    expected = ask(shop, window=TWO_HOURS, request_id="r1", preview=True)
    planned: list[Decision | None] = []
    real = Drafter.plan

    def counting(self: Drafter, *args: object) -> object:
        planned.append(None)
        return real(self, *args)  # type: ignore[arg-type]

    meanwhile(shop, monkeypatch, lambda: ask(another(shop), "u2", window=HOUR))
    monkeypatch.setattr(Drafter, "plan", counting)
    decision = ask(shop, window=TWO_HOURS, request_id="r1")
    assert (decision.snapshot.attempt, decision.action) == (0, expected.action)
    assert len(planned) == 2  # this one's, and that of the decision in between


def test_a_limit_that_closes_what_another_already_closed_keeps_the_draw_and_is_told(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rule(shop, "b", "capacity", Capacity(1, per_minutes=60))
    setup.put_campaign(shop, campaign(campaign_id="other", channels=(Channel("web"),), allow_no_send=False))
    put_rule(shop, "a", "capacity", Capacity(0, per_minutes=60), applies_to=Selector(campaigns=("spring",)))
    meanwhile(shop, monkeypatch, lambda: ask(another(shop), "u2", campaign="other", window=HOUR))
    decision = ask(shop, window=HOUR)
    assert (decision.status, decision.snapshot.attempt) == ("withheld", 0)
    assert [r.rule_id for r in decision.reasons] == ["a", "b"]


def test_a_tighter_fatigue_rule_is_another_policy_and_draws_anew(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rule(shop, "calm", "fatigue", Fatigue("unsubscribed", 0.5))
    meanwhile(shop, monkeypatch, lambda: put_rule(shop, "calm", "fatigue", Fatigue("unsubscribed", 0.1)))
    decision = ask(shop)
    assert decision.snapshot.attempt == 1
    assert [limit.max_risk for limit in decision.snapshot.limits] == [0.1]


def test_a_new_version_of_the_campaign_is_another_policy_and_draws_anew(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = campaign(channels=(Channel("email", cost=0.5),), allow_no_send=False)
    meanwhile(shop, monkeypatch, lambda: setup.put_campaign(shop, other))
    decision = ask(shop)
    assert (decision.snapshot.attempt, decision.campaign_version, decision.snapshot.cost) == (1, 2, 500_000)
    assert replays(shop, decision)


def test_a_rule_that_changes_nothing_for_this_set_keeps_the_draw(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(shop, request_id="r1", preview=True)
    meanwhile(shop, monkeypatch, lambda: put_rule(shop, "dry", "cap", Cap(0, calendar="day"), dry_run=True))
    decision = ask(shop, request_id="r1")
    assert (decision.snapshot.attempt, decision.action) == (0, expected.action)
    assert [(r.rule_id, r.dry_run) for r in decision.reasons] == [("dry", True)]  # what is true at the commit


def test_a_kept_draw_stores_the_count_of_unanswered_messages_at_the_commit(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rule(shop, "shy", "cap", Cap(5, calendar="day", adapt=Adapt(after_unengaged=10, limit=1)))
    meanwhile(shop, monkeypatch, lambda: shop.store.write(lambda w: w.add_unanswered(WORKSPACE, "u1", 3)))
    decision = ask(shop)
    assert (decision.snapshot.attempt, decision.snapshot.unanswered) == (0, 3)


def test_a_cap_that_adapted_meanwhile_draws_anew(shop: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    put_rule(shop, "shy", "cap", Cap(5, calendar="day", adapt=Adapt(after_unengaged=3, limit=0)))
    meanwhile(shop, monkeypatch, lambda: shop.store.write(lambda w: w.add_unanswered(WORKSPACE, "u1", 3)))
    decision = ask(shop)
    assert (decision.snapshot.attempt, decision.status, decision.snapshot.unanswered) == (1, "withheld", 3)


def test_a_recipient_who_moved_draws_anew_for_the_wall_clock_of_their_zone(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Recipient(WORKSPACE, "u1", timezone="Asia/Tokyo")
    meanwhile(shop, monkeypatch, lambda: setup.put_recipient(shop, moved))
    decision = ask(shop)
    assert (decision.snapshot.attempt, decision.snapshot.timezone) == (1, "Asia/Tokyo")


@pytest.mark.parametrize("told", [None, RecipientPatch(attributes={"plan": "pro"})])
def test_a_refusal_stored_as_the_version_that_an_earlier_row_foresaw_is_heeded_and_kept(
    services: Services, monkeypatch: pytest.MonkeyPatch, told: RecipientPatch | None
) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    refused = Recipient(WORKSPACE, "u1", channels={"push": Consent(False)})
    meanwhile(services, monkeypatch, lambda: setup.put_recipient(services, refused))
    agreed = RecipientPatch(channels={"push": Consent(True)})
    rows = [
        DecisionRequest("spring", "u1", channels=("email",), recipient=agreed),
        DecisionRequest("spring", "u1", channels=("push",), recipient=told),
    ]
    got = ask_all(services, rows)
    assert [(d.status, d.snapshot.attempt) for d in got] == [("reserved", 0), ("withheld", 1)]
    with services.store.read() as reader:
        stored = reader.recipient(WORKSPACE, "u1")
    assert stored is not None
    assert not stored.channels["push"].state
    assert stored.attributes == ({} if told is None else told.attributes)


def test_only_the_rows_of_a_batch_whose_own_set_changed_are_drawn_anew(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_rule(shop, "cap", "cap", Cap(1, calendar="day"))
    meanwhile(shop, monkeypatch, lambda: ask(another(shop), "u2", window=HOUR))
    rows = [DecisionRequest("spring", name) for name in ("u1", "u2", "u3", "u2", "u1")]
    got = ask_all(shop, rows)
    assert [d.snapshot.attempt for d in got] == [0, 1, 0, 1, 0]
    assert all(d.status == "withheld" or replays(shop, d) for d in got)


def test_a_request_id_that_two_rows_share_is_answered_to_both_where_another_worker_was_faster(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Decision] = []
    meanwhile(shop, monkeypatch, lambda: made.append(ask(another(shop), "u1", request_id="r")))
    rows = [DecisionRequest("spring", "u1", request_id="r")] * 2
    assert ask_all(shop, rows) == made * 2
    other = [DecisionRequest("spring", "u1", request_id="s"), DecisionRequest("spring", "u2", request_id="s")]
    meanwhile(shop, monkeypatch, lambda: ask(another(shop), "u1", request_id="s"))
    conflict = shop.decider.decide_batch(WORKSPACE, other, "run1")[1]
    assert isinstance(conflict, Conflict)
    assert conflict.code == "request_id_reused"


def test_a_batch_is_cut_off_by_nothing_and_later_rows_follow_a_new_draw(
    shop: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last place of the first hour goes between read and write, so every row but the last closes one hour more."""
    put_rule(shop, "rate", "capacity", Capacity(1, per_minutes=60))
    meanwhile(shop, monkeypatch, lambda: ask(another(shop), "rival", window=HOUR))
    window = (START, START + timedelta(hours=4))
    got = ask_all(shop, [DecisionRequest("spring", f"u{i}", window=window) for i in range(5)])
    times = [d.send_at for d in got if d.send_at is not None]
    assert [d.status for d in got] == ["reserved"] * 3 + ["withheld"] * 2
    assert {(t - START) // timedelta(hours=1) for t in times} == {1, 2, 3}
    assert all(replays(shop, d) for d in got[:3])


@pytest.mark.parametrize("rule", ["capacity", "budget"])
def test_of_threads_that_race_for_the_last_place_exactly_one_gets_it(services: Services, rule: str) -> None:
    setup.put_campaign(services, campaign(channels=(Channel("web", cost=1.0),), allow_no_send=False))
    if rule == "capacity":
        put_rule(services, "last", "capacity", Capacity(1, per_minutes=1440))
    else:
        put_rule(services, "last", "budget", Budget(1_000_000, per="day"))
    deciders = [another(services).decider for _ in range(8)]
    start = threading.Barrier(8)
    opened = threading.Barrier(8)
    real = services.store.write

    def together(work: object, *, recipients: object = ()) -> object:
        opened.wait(timeout=30)  # everybody has read before anybody writes
        return real(work, recipients=recipients)  # type: ignore[arg-type]

    def one(i: int) -> Decision:
        start.wait(timeout=30)
        return deciders[i].decide(WORKSPACE, DecisionRequest("spring", f"u{i}", window=HOUR))[0]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr(services.store, "write", together)
        got = list(pool.map(one, range(8)))
    assert sorted(d.status for d in got) == ["reserved"] + ["withheld"] * 7
    assert {d.snapshot.attempt for d in got if d.status == "withheld"} == {1}
    with services.store.read() as reader:
        day = (START - START.replace(year=1970, month=1, day=1, hour=0)).days
        assert reader.usage(WORKSPACE, [("last", day, day)]) == {("last", day): 1 if rule == "capacity" else 1_000_000}


def test_batches_that_race_for_a_capacity_take_exactly_what_there_is(shop: Services) -> None:
    put_rule(shop, "rate", "capacity", Capacity(25, per_minutes=60))
    both = threading.Barrier(2)

    def batch(number: int) -> list[Decision]:
        both.wait(timeout=30)
        rows = [DecisionRequest("spring", f"b{number}-{i}", window=TWO_HOURS) for i in range(40)]
        return ask_all(shop, rows, f"run{number}")

    with ThreadPoolExecutor(2) as pool:
        got = [d for part in pool.map(batch, range(2)) for d in part]
    hours = [(d.send_at - START) // timedelta(hours=1) for d in got if d.send_at is not None]
    assert (hours.count(0), hours.count(1)) == (25, 25)
    assert all(d.status == "withheld" or replays(shop, d) for d in got)


def test_a_chunk_is_asked_together_and_answers_as_row_by_row(shop: Services, clock: FakeClock, tmp_path: Path) -> None:
    """A batch asks for the eligible sets of its rows in one go; each row must still see the earlier ones."""
    rows = [
        DecisionRequest("spring", f"u{i % 17}", window=(START, START + timedelta(hours=6 + i % 3)), request_id=f"r{i}")
        for i in range(40)
    ]
    twin = open_services(Settings(database=f"sqlite:///{tmp_path}/twin.db"), clock, seed=7, watch=False)
    try:
        setup.ensure_workspace(twin, WORKSPACE)
        setup.put_campaign(twin, campaign(channels=(Channel("email"),), allow_no_send=False))
        for services in (shop, twin):
            put_rule(services, "rate", "capacity", Capacity(3, per_minutes=60))
            put_rule(services, "cap", "cap", Cap(1, rolling_hours=12.0))
        together = ask_all(shop, rows)
        one_by_one = [twin.decider.decide(WORKSPACE, row)[0] for row in rows]
    finally:
        twin.close()
    assert together == one_by_one
    assert 12 <= sum(d.status == "reserved" for d in together) <= 18
    assert {d.snapshot.attempt for d in together} == {0}


def test_what_a_row_tells_of_its_recipient_is_stored_behind_the_rows_before_it(shop: Services) -> None:
    """The order of commits says which rows knew it: the audit judges them by what was so at their time."""
    moved = RecipientPatch(timezone="Asia/Tokyo")
    rows = [
        DecisionRequest("spring", "u1"),
        DecisionRequest("spring", "u2"),
        DecisionRequest("spring", "u1", recipient=moved),
        DecisionRequest("spring", "u1"),
    ]
    got = ask_all(shop, rows)
    assert [d.snapshot.timezone for d in got] == ["UTC", "UTC", "Asia/Tokyo", "Asia/Tokyo"]
    with shop.store.read() as reader:
        stored = reader.decisions_by_id(WORKSPACE, [d.decision_id for d in got])
        recipient = reader.recipient(WORKSPACE, "u1")
    positions = [stored[d.decision_id].position for d in got]
    assert recipient is not None
    assert positions[1] <= recipient.changed_after < positions[2]
