"""What time does to reservations: an unconfirmed one is settled once, as its campaign says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from optimizer.service import settle, setup, upkeep
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.wiring import Services
from storage.endpoints import Delivery, Endpoint
from storage.errors import StoreUnavailable
from storage.log import Message
from storage.policies import TrainingRun
from storage.port import Writer
from storage.rules import Cap, Rule
from tests.service.asking import meanwhile
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import EVERYTHING, after, counted, reserve, stored, unanswered, used


def kinds_of_changes(services: Services) -> list[tuple[str, str | None]]:
    with services.store.read() as reader:
        return [(c.kind, c.decision_id) for c in reader.changes(WORKSPACE, after=0, limit=10)]


@pytest.mark.parametrize(
    ("unconfirmed", "status", "place", "told"),
    [("assume_sent", "assumed_sent", 1, []), ("release", "expired", 0, [("expired", "due")])],
)
def test_what_is_due_keeps_or_frees_its_place_exactly_once_and_the_rest_is_left_alone(
    services: Services, clock: FakeClock, unconfirmed: str, status: str, place: int, told: list[tuple[str, str]]
) -> None:
    setup.put_campaign(services, campaign(unconfirmed=unconfirmed))
    setup.put_rule(services, EVERYTHING)
    reserve(services, "due", 6.0)
    reserve(services, "in its grace", 7.5, recipient_id="u2")
    reserve(services, "ahead", 30.0, recipient_id="u3")
    clock.forward(hours=8)
    for changed in (1, 0, 0):
        assert upkeep.expire(services, WORKSPACE) == changed
        assert stored(services, "due").status == status
        assert (len(counted(services)), unanswered(services), used(services)) == (place, place, 2 + place)
        assert kinds_of_changes(services) == told
    assert {stored(services, name).status for name in ("in its grace", "ahead")} == {"reserved"}


def test_what_was_just_claimed_is_not_settled_under_the_senders_hands(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.put_campaign(services, campaign(unconfirmed="release"))
    for name in ("claimed", "claimed meanwhile"):
        reserve(services, name, 6.0)
    clock.forward(hours=7)
    settle.claim(services, WORKSPACE, "claimed")

    def claims() -> None:  # a sender whose clock is a little behind the scheduler's
        clock.forward(seconds=-1)
        settle.claim(services, WORKSPACE, "claimed meanwhile")
        clock.forward(seconds=1)

    clock.forward(seconds=1)
    meanwhile(services, monkeypatch, claims)
    assert upkeep.expire(services, WORKSPACE) == 0
    assert {stored(services, name).status for name in ("claimed", "claimed meanwhile")} == {"claimed"}
    clock.forward(hours=1)
    assert upkeep.expire(services, WORKSPACE) == 2
    assert stored(services, "claimed").status == "expired"


def test_retention_takes_what_hangs_on_no_decision(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.put_campaign(services, campaign())
    monkeypatch.setattr(upkeep, "LOOSE", 2)
    for days in (0, 500):
        for n in range(5):
            name = f"{days}-{n}"
            settle.record_send(services, Message(WORKSPACE, f"u{n}", clock(), name, "email", "marketing"))
            visit = EventInput("visited", clock(), event_id=name, recipient_id=f"u{n}", properties={"page": "shoes"})
            waiting = EventInput("opened", clock(), event_id=f"{name} waits", provider="ses", message_id=name)
            ingest(services, WORKSPACE, [visit, waiting])
        if not days:
            clock.forward(days=500)
    assert upkeep.retain(services, WORKSPACE) == 0
    young = {f"500-{n}" for n in range(5)}
    with services.store.read() as reader:
        assert {message.message_ref for message in reader.message_log(WORKSPACE)} == young
        visits = {event.event_id for n in range(5) for event, _ in reader.events_about(WORKSPACE, f"u{n}")}
        assert visits == young
        assert reader.unmatched_events(WORKSPACE) == 5


def test_retention_that_is_cut_off_goes_on_with_the_next_run(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.put_campaign(services, campaign())
    monkeypatch.setattr(upkeep, "STEP", 2)
    for n in range(6):
        reserve(services, f"d{n}", status="sent", sent_at=after(hours=6), recipient_id=f"u{n}")
    clock.forward(days=500)
    write, writes = services.store.write, itertools.count()

    def breaks(work: Callable[[Writer], object], **named: Any) -> object:
        if next(writes) == 3:  # the first notes the time of the run
            raise StoreUnavailable("cut off")
        return write(work, **named)

    with monkeypatch.context() as cut:
        cut.setattr(services.store, "write", breaks)
        with pytest.raises(StoreUnavailable):
            upkeep.retain(services, WORKSPACE)
    with services.store.read() as reader:
        left = {decision.decision_id for decision in reader.decisions(WORKSPACE, limit=9).items}
        assert {message.message_ref for message in reader.message_log(WORKSPACE)} == left == {"d4", "d5"}
    assert upkeep.retain(services, WORKSPACE) == 1, "the newest of all stays"


def test_a_clock_that_is_far_ahead_for_a_moment_deletes_nothing(
    services: Services, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    setup.put_campaign(services, campaign())
    for n in range(3):
        reserve(services, f"d{n}", status="sent", sent_at=after(hours=6), recipient_id=f"u{n}")
    assert upkeep.retain(services, WORKSPACE) == 0
    clock.forward(days=500)
    assert upkeep.retain(services, WORKSPACE) == 0
    assert "far ahead" in caplog.text
    clock.forward(days=-499)
    assert upkeep.retain(services, WORKSPACE) == 0
    clock.forward(days=500)
    assert upkeep.retain(services, WORKSPACE) == 0
    clock.forward(minutes=10)
    assert upkeep.retain(services, WORKSPACE) == 0, "the scheduler was started again"
    clock.forward(days=1)
    assert upkeep.retain(services, WORKSPACE) == 2, "it was off for so long: the newest of all stays"


def test_what_a_cap_still_counts_outlives_the_retention(
    services: Services, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    setup.put_campaign(services, campaign())
    ever = Rule(WORKSPACE, "once", "cap", Cap(limit=1, rolling_hours=24 * 450))
    reserve(services, "d", 24.0 * 10, status="sent", sent_at=after(days=10))
    settle.record_send(services, Message(WORKSPACE, "u1", after(days=5), "theirs", "email", "marketing"))
    reserve(services, "newest", status="released", recipient_id="u2")
    setup.put_rule(services, ever)
    for days, left in ((445, ["theirs", "d"]), (456, ["d"]), (459, ["d"]), (461, [])):
        clock.now = after(days=days)
        upkeep.retain(services, WORKSPACE)
        assert [message.message_ref for message in counted(services)] == left
    assert [record.cap_days for record in caplog.records if "looks back farther" in record.message] == [450.0] * 4  # type: ignore[attr-defined]  # an extra


def test_a_cap_of_all_time_keeps_all_messages_and_one_that_is_archived_none(
    services: Services, clock: FakeClock
) -> None:
    setup.put_campaign(services, campaign())
    reserve(services, "d", status="sent", sent_at=after(hours=6))
    reserve(services, "newest", status="released", recipient_id="u2")
    ever = Rule(WORKSPACE, "once", "cap", Cap(limit=1, rolling_hours=24 * 365 * 5000))
    setup.put_rule(services, ever)
    clock.forward(days=5_000)
    assert upkeep.retain(services, WORKSPACE) == 0
    setup.archive_rule(services, WORKSPACE, "once")
    assert upkeep.retain(services, WORKSPACE) == 1


def test_a_claimed_message_that_was_never_confirmed_is_settled_too(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, campaign(unconfirmed="release"))
    reserve(services, "d", 6.0, status="claimed")
    clock.forward(hours=8)
    assert upkeep.expire(services, WORKSPACE) == 1
    assert (stored(services, "d").status, stored(services, "d").close_reason) == ("expired", "unconfirmed")
    assert counted(services) == ()


def test_records_of_refreshes_go_after_a_month(services: Services, clock: FakeClock) -> None:
    runs = [
        TrainingRun(WORKSPACE, f"run_{number}", "refresh", "rejected", clock.now + timedelta(days=days))
        for number, days in enumerate((0, 20, 29))
    ]

    def work(writer: Writer) -> None:
        for run in runs:
            writer.put_training_run(run)

    services.store.write(work)
    clock.forward(days=31)
    upkeep.retain(services, WORKSPACE)
    with services.store.read() as reader:
        assert [run.run_id for run in reader.training_runs(WORKSPACE, limit=9).items] == ["run_2", "run_1"]


def test_the_last_retrain_is_known_until_the_next_is_due(services: Services, clock: FakeClock) -> None:
    rare = replace(services.settings, retention_days=7, retrain_minutes=14 * 24 * 60)
    kinds: tuple[Literal["retrain", "refresh"], ...] = ("retrain", "refresh")

    def work(writer: Writer) -> None:
        for kind in kinds:
            writer.put_training_run(TrainingRun(WORKSPACE, kind, kind, "rejected", clock.now))
            clock.forward(hours=1)

    services.store.write(work)
    for days, left in ((8, ["refresh", "retrain"]), (21, ["refresh"])):
        clock.forward(days=days)
        upkeep.retain(replace(services, settings=rare), WORKSPACE)
        with services.store.read() as reader:
            assert [run.run_id for run in reader.training_runs(WORKSPACE, limit=9).items] == left


def test_the_change_feed_forgets_what_the_log_forgets_once_endpoints_were_told(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LOOSE", 2)
    setup.put_campaign(services, campaign())
    told = {"running": 4, "disabled": 0, "stopped": 1}

    def work(writer: Writer) -> None:
        for name, position in told.items():
            made = Endpoint(WORKSPACE, name, "https://example.org/", ("whsec_x",), ("revoked",), clock.now, clock.now)
            writer.put_endpoint(replace(made, enabled=name != "disabled"))
            writer.put_delivery(Delivery(WORKSPACE, name, position, stopped="gone" if name == "stopped" else None))

    services.store.write(work)
    for n in range(6):
        reserve(services, f"d{n}", recipient_id=f"u{n}")
        left = EventInput("unsubscribed", clock(), event_id=f"ada-{n}@example.org", recipient_id=f"u{n}")
        ingest(services, WORKSPACE, [left])
    reserve(services, "newest", status="released", recipient_id="u9", decided_at=after(days=399))
    clock.forward(days=399)
    upkeep.retain(services, WORKSPACE)
    assert kinds_of_changes(services) == [("revoked", f"d{n}") for n in range(6)]
    clock.forward(days=2)
    assert upkeep.retain(services, WORKSPACE) == 6
    assert kinds_of_changes(services) == [("revoked", "d4"), ("revoked", "d5")]
    services.store.write(lambda writer: writer.put_delivery(Delivery(WORKSPACE, "running", 6)))
    upkeep.retain(services, WORKSPACE)
    assert kinds_of_changes(services) == []
