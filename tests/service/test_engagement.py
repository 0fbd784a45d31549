"""The count of unanswered messages: one for each message that went out since the recipient last engaged."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from optimizer.service import settle, setup, upkeep
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput, VendorEvent
from optimizer.service.wiring import Services
from storage.records import Campaign, EventMapping
from tests.service.asking import ask
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import after, reserve, stored, unanswered

Step = Callable[[Services], object]


def confirmed(name: str) -> Step:
    return lambda s: settle.confirm(s, WORKSPACE, name, after(hours=6), "ses", f"message of {name}")


def confirmed_nameless(name: str) -> Step:
    return lambda s: settle.confirm(s, WORKSPACE, name, after(hours=6), None, None)


def released(name: str) -> Step:
    return lambda s: settle.release(s, WORKSPACE, name, None)


def assumed(_: str) -> Step:
    return lambda s: upkeep.expire(s, WORKSPACE)


def engaged(name: str, kind: str = "opened", *, by: str = "decision_id", automated: bool = False) -> Step:
    how = {"decision_id": name} if by == "decision_id" else {"provider": "ses", "message_id": f"message of {name}"}
    event = EventInput(
        type=kind,
        occurred_at=after(hours=7),
        event_id=f"{kind} of {name}",
        automated=automated,
        **how,  # type: ignore[arg-type]
    )
    return lambda s: ingest(s, WORKSPACE, [event])


@pytest.fixture
def service(services: Services, spring: Campaign, clock: FakeClock) -> Services:
    """Two messages of ``u1``, ``a`` and ``b``, whose time has passed unconfirmed."""
    reserve(services, "a", 6.0)
    reserve(services, "b", 6.5)
    clock.forward(hours=8)
    return services


def after_steps(service: Services, *steps: Step) -> int:
    for step in steps:
        step(service)
    return unanswered(service)


def test_a_message_counts_once_when_it_goes_out(service: Services) -> None:
    assert unanswered(service) == 0
    assert after_steps(service, confirmed("a")) == 1
    assert after_steps(service, confirmed("a"), confirmed("a")) == 1
    assert after_steps(service, confirmed("b")) == 2


def test_a_late_confirm_of_an_assumed_message_does_not_count_again(service: Services) -> None:
    assert after_steps(service, assumed("a")) == 2
    assert {stored(service, name).status for name in "ab"} == {"assumed_sent"}
    assert after_steps(service, confirmed("a"), assumed("a")) == 2


def test_an_assumed_message_that_did_not_go_out_is_taken_back_once(service: Services) -> None:
    assert after_steps(service, assumed("a"), released("a")) == 1
    assert after_steps(service, released("a")) == 1
    assert after_steps(service, confirmed("a")) == 2


def test_a_reservation_that_is_given_back_never_counted(service: Services) -> None:
    assert after_steps(service, confirmed("b"), released("a")) == 1


@pytest.mark.parametrize("kind", ["opened", "clicked", "converted"])
def test_an_engagement_clears_the_count(service: Services, kind: str) -> None:
    assert after_steps(service, confirmed("a"), confirmed("b"), engaged("a", kind)) == 0


@pytest.mark.parametrize(
    "step", [engaged("a", "delivered"), engaged("a", "Page Viewed"), engaged("a", automated=True), engaged("x")]
)
def test_what_is_no_engagement_with_a_message_clears_nothing(service: Services, step: Step) -> None:
    assert after_steps(service, confirmed("a"), confirmed("b"), step) == 2


def test_a_repeated_engagement_does_not_clear_what_went_out_since(service: Services) -> None:
    assert after_steps(service, confirmed("a"), engaged("a"), confirmed("b"), engaged("a")) == 1


@pytest.mark.parametrize("by", ["decision_id", "message_id"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_reports_of_one_message_end_the_same_in_every_order(service: Services, by: str, order: tuple[int, ...]) -> None:
    steps = (confirmed("a"), confirmed("a"), engaged("a", by=by))
    assert after_steps(service, *(steps[i] for i in order)) == 0


def test_an_answer_that_waits_for_the_confirm_clears_what_went_out_before(service: Services) -> None:
    assert after_steps(service, confirmed("b"), engaged("a", by="message_id")) == 1
    assert after_steps(service, confirmed("a")) == 0


def test_what_a_campaign_maps_to_an_engagement_is_one(service: Services) -> None:
    setup.put_campaign(service, campaign(event_mapping={"Order Completed": EventMapping("converted")}))
    assert after_steps(service, confirmed("a"), engaged("a", "Page Viewed")) == 1
    assert after_steps(service, engaged("a", "Order Completed")) == 0


def test_what_names_only_the_recipient_is_no_answer_to_a_message(service: Services) -> None:
    bought = EventInput(type="converted", occurred_at=after(hours=7), recipient_id="u1", event_id="bought")
    ingest(service, WORKSPACE, [bought])
    assert after_steps(service, confirmed("a")) == 1
    ingest(service, WORKSPACE, [replace(bought, event_id="again")])
    assert unanswered(service) == 1


def test_an_answer_before_the_confirm_leaves_other_messages_counted(service: Services) -> None:
    assert after_steps(service, engaged("a"), confirmed("b"), confirmed("a")) == 1


def test_an_answered_message_that_is_then_called_unsent_takes_nothing_back(service: Services) -> None:
    assert after_steps(service, assumed("a"), engaged("a"), released("a")) == 0
    assert after_steps(service, engaged("b", "clicked"), released("b")) == 0


@pytest.mark.parametrize("taken_back", [released("a"), engaged("a", "failed")], ids=["released", "failed"])
def test_an_assumed_message_that_a_later_ones_answer_has_cleared_is_not_taken_back_from_what_went_out_since(
    service: Services, taken_back: Step
) -> None:
    assert after_steps(service, confirmed("b"), assumed("a")) == 2
    assert after_steps(service, engaged("b")) == 0
    reserve(service, "c")
    assert after_steps(service, confirmed("c")) == 1
    assert after_steps(service, taken_back) == 1


class TestCountedAnew:
    """``late`` becomes known after an answer to another message, and went out before that, as its sender says. Then
    ``a`` is taken back, so that all is counted anew: in the order in which it became known here."""

    @pytest.fixture
    def assumed(self, service: Services, clock: FakeClock) -> Services:
        """``a`` and ``b`` count."""
        reserve(service, "late", 7.9)
        reserve(service, "later", 7.9)
        assert after_steps(service, assumed("a")) == 2
        clock.forward(minutes=1)
        return service

    def test_a_message_that_was_confirmed_after_an_answer_stays_counted(
        self, assumed: Services, clock: FakeClock
    ) -> None:
        assert after_steps(assumed, engaged("b")) == 0
        clock.forward(minutes=1)
        assert after_steps(assumed, confirmed("late")) == 1
        assert after_steps(assumed, released("a")) == 1

    def test_a_message_that_was_heard_of_after_an_answer_stays_counted(
        self, assumed: Services, clock: FakeClock
    ) -> None:
        setup.put_campaign(assumed, campaign(unconfirmed="release"))
        clock.forward(hours=2)
        upkeep.expire(assumed, WORKSPACE)
        assert stored(assumed, "late").status == "expired"
        assert after_steps(assumed, engaged("b")) == 0
        clock.forward(minutes=1)
        assert after_steps(assumed, engaged("late", "delivered")) == 1
        assert after_steps(assumed, released("a")) == 1

    @pytest.mark.parametrize(
        ("name", "before"),
        [("later", ()), ("later", (confirmed_nameless("later"),)), ("b", ())],
        ids=["reserved", "confirmed", "assumed"],
    )
    def test_an_answer_that_waited_for_a_confirm_has_cleared_what_was_confirmed_before_that(
        self, assumed: Services, clock: FakeClock, name: str, before: tuple[Step, ...]
    ) -> None:
        count = after_steps(assumed, *before)
        clock.forward(minutes=1)
        assert after_steps(assumed, engaged(name, by="message_id")) == count
        reserve(assumed, "between")
        clock.forward(minutes=1)
        assert after_steps(assumed, confirmed("late")) == count + 1
        clock.forward(minutes=1)
        assert after_steps(assumed, confirmed(name)) == 0
        clock.forward(minutes=1)
        assert after_steps(assumed, confirmed("between")) == 1
        assert after_steps(assumed, released("a")) == 1

    def test_an_answer_that_names_its_decision_too_has_waited_for_nothing(
        self, assumed: Services, clock: FakeClock
    ) -> None:
        named = {"decision_id": "later", "provider": "ses", "message_id": "message of later"}
        event = EventInput(type="opened", occurred_at=after(hours=8), **named)  # type: ignore[arg-type]
        assert after_steps(assumed, lambda s: ingest(s, WORKSPACE, [event])) == 0
        clock.forward(minutes=1)
        assert after_steps(assumed, confirmed("late")) == 1
        reserve(assumed, "between")
        assert after_steps(assumed, confirmed("later")) == 1
        assert after_steps(assumed, released("a")) == 1

    def test_an_answer_that_waited_for_its_decision_has_cleared_what_was_confirmed_before_that(
        self, assumed: Services, clock: FakeClock
    ) -> None:
        event = EventInput(type="clicked", occurred_at=after(hours=8), request_id="r1")
        assert after_steps(assumed, lambda s: ingest(s, WORKSPACE, [event])) == 2
        clock.forward(minutes=1)
        assert after_steps(assumed, confirmed("late")) == 3
        clock.forward(minutes=1)
        assert after_steps(assumed, lambda s: ask(s, request_id="r1")) == 0
        assert after_steps(assumed, released("a")) == 0


def opened_at_a_vendor(name: str, kind: str = "opened", **span: float) -> Step:
    of = {"decision_id": name, "event_id": f"vendor's {kind} of {name}", "vendor": "sendgrid"}
    event = VendorEvent(type=kind, occurred_at=after(**span), **of)  # type: ignore[arg-type]
    return lambda s: ingest(s, WORKSPACE, [event])


def test_a_message_whose_confirm_makes_its_open_a_machines_counts_once(service: Services) -> None:
    assert after_steps(service, confirmed("b"), opened_at_a_vendor("a", hours=6, seconds=1)) == 0
    assert after_steps(service, confirmed("a")) == 2


def test_an_open_that_is_judged_a_machines_clears_nothing_though_another_answered(
    service: Services, clock: FakeClock
) -> None:
    assert after_steps(service, confirmed("a"), engaged("a")) == 0
    clock.forward(minutes=1)
    assert after_steps(service, confirmed("b")) == 1
    clock.forward(minutes=1)
    assert after_steps(service, opened_at_a_vendor("a", hours=7)) == 0
    assert after_steps(service, opened_at_a_vendor("a", "delivered", hours=7, seconds=1)) == 1


@pytest.mark.parametrize("vendor", [True, False])
def test_who_reads_a_message_has_seen_what_the_same_envelope_says_went_out(service: Services, vendor: bool) -> None:
    setup.put_campaign(service, campaign(unconfirmed="release"))
    assert after_steps(service, confirmed("b"), assumed("a")) == 1
    assert stored(service, "a").status == "expired"
    read = EventInput(type="opened", occurred_at=after(hours=7), decision_id="b")
    if vendor:
        read = VendorEvent(type="opened", occurred_at=after(hours=7), decision_id="b", vendor="sendgrid")
    out = EventInput(type="delivered", occurred_at=after(hours=7), decision_id="a")
    assert after_steps(service, lambda s: ingest(s, WORKSPACE, [read, out])) == 0
    assert stored(service, "a").status == "assumed_sent"


def test_recipients_are_counted_apart(service: Services) -> None:
    reserve(service, "c", 6.0, recipient_id="u2")
    assert after_steps(service, confirmed("a"), confirmed("c"), engaged("c")) == 1
    assert unanswered(service, "u2") == 0
