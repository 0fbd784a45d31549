"""Chains: a variant that opens only after the recipient did, or didn't do, something with an earlier message."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from optimizer.service import setup
from optimizer.service.answers import LOOKBACK, last_messages, read_answers, with_message
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.settle import confirm, record_send, release
from optimizer.service.wiring import Services
from storage.log import Answer, Decision, Message
from storage.records import Channel, EventMapping, Requirement, Variant
from tests.service.asking import ask, ask_all, meanwhile
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign


@pytest.fixture
def shop(services: Services) -> Services:
    """``welcome`` (hello, hi), and ``spring``, whose variants follow it: open1, silent, bought."""
    put(services, "welcome", (Variant("hello"), Variant("hi")), event_mapping={"Paid": EventMapping("converted")})
    opened = Requirement("welcome", "opened", happened=True, within_hours=48, variant_id="hello")
    silent = Requirement("welcome", "opened", happened=False, within_hours=48)
    bought = Requirement("welcome", "converted", happened=True, within_hours=48)
    variants = (Variant("opened", requires=(opened,)), Variant("silent", requires=(silent,)))
    put(services, "spring", (*variants, Variant("bought", requires=(bought,))))
    return services


def put(services: Services, name: str, variants: tuple[Variant, ...], **changes: Any) -> None:
    made = campaign(campaign_id=name, variants=variants, channels=(Channel("email"),), allow_no_send=False, **changes)
    setup.put_campaign(services, made)


def welcomed(services: Services, clock: FakeClock, variant: str = "hello", recipient: str = "u1") -> Decision:
    """A welcome that went out now."""
    decision = ask(services, recipient, campaign="welcome", variants=(variant,), immediate=True)
    return confirm(services, WORKSPACE, decision.decision_id, clock.now, None, None)


def happens(services: Services, kind: str, decision: Decision | None, at: datetime, **fields: Any) -> None:
    fields |= {"recipient_id": "u1"} if decision is None else {"decision_id": decision.decision_id}
    report = ingest(services, WORKSPACE, [EventInput(type=kind, occurred_at=at, **fields)])
    assert report.accepted == 1


def open_variants(services: Services, recipient: str = "u1") -> set[str | None]:
    return {
        name
        for name in ("opened", "silent", "bought")
        if ask(services, recipient, variants=(name,), preview=True).status == "reserved"
    }


def test_without_the_earlier_message_every_step_is_closed_and_says_so(shop: Services) -> None:
    assert open_variants(shop) == set()
    decision = ask(shop)
    assert (decision.status, [r.kind for r in decision.reasons]) == ("withheld", ["requires"])


def test_what_must_have_happened_opens_with_the_answer(shop: Services, clock: FakeClock) -> None:
    sent = welcomed(shop, clock)
    clock.forward(hours=3)
    assert open_variants(shop) == set()
    happens(shop, "opened", sent, clock.now)
    assert open_variants(shop) == {"opened"}
    assert ask(shop).variant_id == "opened"


def test_what_must_not_have_happened_opens_once_its_time_is_over(shop: Services, clock: FakeClock) -> None:
    welcomed(shop, clock)
    clock.forward(hours=47)
    assert open_variants(shop) == set()
    waiting = ask(shop, variants=("silent",))
    assert waiting.reasons[0].next_eligible_at == START + timedelta(hours=48)
    clock.forward(hours=1)
    assert open_variants(shop) == {"silent"}


@pytest.mark.parametrize(
    ("hours", "automated", "expected"),
    [
        (1, False, {"opened"}),
        (1, True, {"silent"}),
        (49, False, {"silent"}),
        (48, False, {"opened"}),
        (-1, False, {"silent"}),
    ],
)
def test_only_a_persons_answer_in_time_counts(
    shop: Services, clock: FakeClock, hours: int, automated: bool, expected: set[str]
) -> None:
    clock.forward(hours=2)
    sent = welcomed(shop, clock)
    clock.forward(hours=50)
    happens(shop, "opened", sent, START + timedelta(hours=2 + hours), automated=automated)
    assert open_variants(shop) == expected


def test_an_early_and_a_late_occurrence_are_judged_by_the_first_after_the_send(
    shop: Services, clock: FakeClock
) -> None:
    clock.forward(hours=2)
    sent = welcomed(shop, clock)
    clock.forward(hours=50)
    for hours in (49, 5, -1):
        happens(shop, "opened", sent, START + timedelta(hours=2 + hours))
    assert open_variants(shop) == {"opened"}


def test_who_opened_before_a_late_confirm_is_not_told_that_they_did_not_open(shop: Services, clock: FakeClock) -> None:
    sent = ask(shop, campaign="welcome", variants=("hello",), immediate=True)
    clock.forward(minutes=5)
    happens(shop, "opened", sent, clock.now)
    assert open_variants(shop) == {"opened"}
    clock.forward(minutes=35)
    confirm(shop, WORKSPACE, sent.decision_id, None, None, None)  # says no time: now
    assert open_variants(shop) == {"opened"}
    clock.forward(hours=50)
    assert open_variants(shop) == {"opened"}


@pytest.mark.parametrize("named", [False, True])
def test_who_bought_before_a_late_confirm_is_not_told_that_they_did_not_buy(
    shop: Services, clock: FakeClock, named: bool
) -> None:
    sent = ask(shop, campaign="welcome", variants=("hello",), immediate=True)
    clock.forward(minutes=5)
    happens(shop, "Paid", sent if named else None, clock.now)
    assert open_variants(shop) == {"bought"}
    clock.forward(minutes=35)
    confirm(shop, WORKSPACE, sent.decision_id, None, None, None)
    assert open_variants(shop) == {"bought"}
    clock.forward(hours=50)
    assert open_variants(shop) == {"bought", "silent"}, "who bought has not opened"


def test_who_opened_a_message_that_went_out_a_little_early_is_not_told_that_they_did_not_open(
    shop: Services, clock: FakeClock
) -> None:
    window = (START + timedelta(hours=2), START + timedelta(hours=3))
    planned = ask(shop, campaign="welcome", variants=("hello",), window=window)
    assert planned.send_at is not None
    clock.forward(hours=60)
    happens(shop, "opened", planned, planned.send_at - timedelta(minutes=2))
    assert open_variants(shop) == {"opened"}


def test_a_purchase_before_the_send_is_no_answer_to_it(shop: Services, clock: FakeClock) -> None:
    window = (START + timedelta(hours=2), START + timedelta(hours=3))
    planned = ask(shop, campaign="welcome", window=window)
    clock.forward(hours=4)
    happens(shop, "Paid", planned, START + timedelta(hours=1))
    happens(shop, "Paid", None, START + timedelta(hours=1))
    assert open_variants(shop) == set()
    happens(shop, "Paid", planned, clock.now)
    assert open_variants(shop) == {"bought"}


def test_the_last_message_of_the_variant_counts(shop: Services, clock: FakeClock) -> None:
    happens(shop, "opened", welcomed(shop, clock), clock.now)
    clock.forward(hours=1)
    welcomed(shop, clock, "hi")
    assert open_variants(shop) == {"opened"}  # of hello; the last of any variant is unanswered, but not for 48 hours
    clock.forward(hours=48)
    assert open_variants(shop) == {"opened", "silent"}
    welcomed(shop, clock)
    assert open_variants(shop) == set()


def test_outcomes_that_need_no_message_count_by_recipient_and_by_mapping(shop: Services, clock: FakeClock) -> None:
    welcomed(shop, clock)
    clock.forward(hours=1)
    happens(shop, "Paid", None, clock.now, campaign_id="spring")
    assert open_variants(shop) == set()
    happens(shop, "Paid", None, clock.now)
    assert open_variants(shop) == {"bought"}


def test_a_refusal_that_names_no_message_is_no_answer_to_one(shop: Services, clock: FakeClock) -> None:
    sent = welcomed(shop, clock)
    clock.forward(hours=1)
    happens(shop, "unsubscribed", None, clock.now)
    with shop.store.read() as reader:
        none = read_answers(reader, WORKSPACE, ["u1"], frozenset({"welcome"}), lambda _: None, clock.now)
    assert none == {"u1": (Answer("welcome", "hello", START),)}
    happens(shop, "unsubscribed", sent, clock.now)
    with shop.store.read() as reader:
        one = read_answers(reader, WORKSPACE, ["u1"], frozenset({"welcome"}), lambda _: None, clock.now)
    assert one["u1"][0].outcomes == {"unsubscribed": clock.now}


def test_an_unconfirmed_message_counts_from_its_planned_time_until_it_is_given_back(
    shop: Services, clock: FakeClock
) -> None:
    planned = ask(shop, campaign="welcome", window=(START + timedelta(hours=2), START + timedelta(hours=3)))
    assert planned.send_at is not None
    clock.now = planned.send_at + timedelta(hours=48) - timedelta(seconds=1)
    assert open_variants(shop) == set()
    clock.forward(seconds=1)
    assert open_variants(shop) == {"silent"}
    release(shop, WORKSPACE, planned.decision_id, "never sent")
    assert open_variants(shop) == set()


def test_messages_of_other_systems_and_forgotten_ones_are_no_step(shop: Services, clock: FakeClock) -> None:
    record_send(shop, Message(WORKSPACE, "u1", START, "crm", "email", "marketing"))
    clock.forward(hours=60)
    assert open_variants(shop) == set()
    welcomed(shop, clock)
    clock.now += LOOKBACK
    assert open_variants(shop) == {"silent"}
    clock.forward(seconds=1)
    assert open_variants(shop) == set()


def test_an_answer_that_arrives_between_read_and_write_draws_anew(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(shop, "spring", (*campaign().variants, *_variants(shop)))
    sent = welcomed(shop, clock)
    clock.forward(hours=1)
    before = ask(shop, preview=True)
    meanwhile(shop, monkeypatch, lambda: happens(shop, "opened", sent, clock.now))
    after = ask(shop)
    assert (before.eligible_actions, after.eligible_actions, after.snapshot.attempt) == (2 * 24, 3 * 24, 1)


def test_an_answer_to_something_else_keeps_the_draw(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = welcomed(shop, clock)
    happens(shop, "opened", sent, clock.now)
    meanwhile(shop, monkeypatch, lambda: happens(shop, "clicked", sent, clock.now))
    decision = ask(shop)
    assert (decision.status, decision.snapshot.attempt) == ("reserved", 0)


def test_a_batch_reads_the_answers_of_each_recipient(shop: Services, clock: FakeClock) -> None:
    for name in ("a", "b", "c"):
        sent = welcomed(shop, clock, recipient=name)
        if name != "c":
            happens(shop, "opened", sent, clock.now)
    got = ask_all(shop, [DecisionRequest("spring", name) for name in ("a", "x", "b", "c")])
    assert [d.variant_id for d in got] == ["opened", None, "opened", None]


def test_a_step_of_the_same_batch_that_goes_out_at_once_counts_for_the_next(shop: Services, clock: FakeClock) -> None:
    now_over = Requirement("welcome", "opened", happened=False, within_hours=0.0)
    put(shop, "spring", (Variant("at once", requires=(now_over,)),))
    rows = [
        DecisionRequest("spring", "u1"),
        DecisionRequest("welcome", "u1", immediate=True),
        DecisionRequest("spring", "u1"),
    ]
    assert [d.status for d in ask_all(shop, rows)] == ["withheld", "reserved", "reserved"]
    assert ask(shop).status == "reserved"


def test_overriding_rules_does_not_skip_a_step(shop: Services) -> None:
    assert ask(shop, override_rules=True).status == "withheld"


def test_the_last_message_of_a_variant_is_settled_by_time_then_reference() -> None:
    def message(ref: str, hours: int, variant: str = "hello") -> Message:
        at = START + timedelta(hours=hours)
        return Message(WORKSPACE, "u1", at, ref, "email", "marketing", "welcome", variant, ref)

    messages = [message("b", 1), message("a", 1), message("c", 0), message("d", 0, "hi")]
    assert [m.message_ref for m in last_messages(messages, frozenset({"welcome"}))] == ["b", "d"]
    assert last_messages(messages, frozenset({"spring"})) == []


def test_a_later_message_replaces_the_answer_and_an_earlier_one_does_not() -> None:
    answers = (Answer("welcome", "hello", START, {"opened": START}), Answer("welcome", "hi", START))
    later = Message(WORKSPACE, "u1", START + timedelta(hours=1), "m", "email", "marketing", "welcome", "hello", "m")
    earlier = Message(WORKSPACE, "u1", START - timedelta(hours=1), "m", "email", "marketing", "welcome", "hello", "m")
    assert with_message(answers, later) == (Answer("welcome", "hello", later.at), answers[1])
    assert with_message(answers, earlier) == answers


def _variants(services: Services) -> tuple[Variant, ...]:
    with services.store.read() as reader:
        found = reader.campaign(WORKSPACE, "spring")
    assert found is not None
    return found.variants
