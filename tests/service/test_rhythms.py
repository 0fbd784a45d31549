"""Recipients' weekly rhythms: tallied exactly once in any order, told to decisions, stored with them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from optimizer.service import settle, setup
from optimizer.service.ingest import ingest
from optimizer.service.replay import situation_of
from optimizer.service.requests import DecisionRequest, EventInput, RecipientPatch
from optimizer.service.rhythms import HALF_LIFE_DAYS, effects_of
from optimizer.service.wiring import Services
from storage.records import Campaign, Recipient
from storage.rhythm import RhythmSum
from tests.service.asking import ask
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.reserved import after, reserve, stored
from tests.service.test_engagement import Step, assumed, confirmed, engaged, released
from tests.storage.builders import make_decision

#: Hour of the week of the message: Monday 15:00 UTC, on a clock in Berlin.
PLANNED = 16


@pytest.fixture
def service(services: Services, spring: Campaign, clock: FakeClock) -> Services:
    """One message of ``u1``, ``a``, who lives in Berlin, whose planned time has passed unconfirmed."""
    reserve(services, "a", 6.0)
    clock.forward(hours=8)
    return services


def tallied(services: Services, *steps: Step, recipient_id: str = "u1") -> dict[tuple[str, int], float]:
    """The recipient's counts by kind and hour after these steps, as of the start of the tests."""
    for step in steps:
        step(services)
    with services.store.read() as reader:
        sums = reader.rhythms(WORKSPACE, [recipient_id]).get(recipient_id, ())
    told = effects_of(sums, START).get("rhythm", {})
    return {(kind, hour): round(count, 1) for kind, pairs in told.items() for hour, count in pairs}


def event(kind: str = "Page Viewed", recipient_id: str = "u1", minutes: float = 0, **fields: object) -> Step:
    one = EventInput(
        type=kind,
        occurred_at=START - timedelta(days=1) + timedelta(minutes=minutes),
        recipient_id=recipient_id,
        event_id=f"{kind} of {recipient_id} at {minutes}",
        **fields,  # type: ignore[arg-type]  # tests pass fields by name
    )
    return lambda services: ingest(services, WORKSPACE, [one])


def living_in(services: Services, timezone: str, recipient_id: str = "u1") -> None:
    patch = RecipientPatch(timezone=timezone)
    services.decider.decide(WORKSPACE, DecisionRequest("spring", recipient_id, recipient=patch))


def test_a_message_is_tallied_at_the_hour_it_went_out_and_its_answer_too(service: Services) -> None:
    assert tallied(service, confirmed("a")) == {("sent", PLANNED): 1.0}
    assert tallied(service, engaged("a"), engaged("a", "clicked")) == {
        ("answered", PLANNED): 1.0,
        ("sent", PLANNED): 1.0,
    }


def test_a_machine_and_a_delivery_are_no_answers(service: Services) -> None:
    steps = (confirmed("a"), engaged("a", automated=True), engaged("a", "delivered"))
    assert tallied(service, *steps) == {("sent", PLANNED): 1.0}


@pytest.mark.parametrize("by", ["decision_id", "message_id"])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_reports_end_the_same_in_every_order(service: Services, by: str, order: tuple[int, ...]) -> None:
    steps = (confirmed("a"), confirmed("a"), engaged("a", by=by), engaged("a", "clicked", by=by))
    assert tallied(service, *(steps[i] for i in order)) == {("answered", PLANNED): 1.0, ("sent", PLANNED): 1.0}


def test_what_did_not_go_out_is_taken_back_with_its_answer(service: Services) -> None:
    assert tallied(service, assumed("a"), engaged("a")) == {("answered", PLANNED): 1.0, ("sent", PLANNED): 1.0}
    assert tallied(service, released("a")) == {}


def test_what_was_assumed_sent_and_failed_is_taken_back_with_its_answer(service: Services) -> None:
    assert tallied(service, assumed("a"), engaged("a")) == {("answered", PLANNED): 1.0, ("sent", PLANNED): 1.0}
    assert tallied(service, engaged("a", "failed")) == {}


def test_a_reservation_that_never_went_out_is_not_tallied(service: Services) -> None:
    assert tallied(service, engaged("a"), released("a")) == {}


def test_a_confirm_moves_an_assumed_message_to_its_real_hour(service: Services) -> None:
    assert tallied(service, assumed("a")) == {("sent", PLANNED): 1.0}
    settle.confirm(service, WORKSPACE, "a", after(hours=4), None, None)
    assert tallied(service) == {("sent", PLANNED - 2): 1.0}


def test_something_unprompted_is_tallied_once_an_hour_by_the_recipients_clock(service: Services) -> None:
    living_in(service, "Asia/Tokyo")
    sunday_evening = 6 * 24 + 18
    steps = (event(), event(), event(minutes=20), event("Order Completed", minutes=59), event(minutes=60))
    assert tallied(service, *steps) == {("active", sunday_evening): 1.0, ("active", sunday_evening + 1): 1.0}


def test_someone_whose_clock_nobody_knows_is_active_at_no_hour(service: Services) -> None:
    assert tallied(service, event()) == {}


def test_the_campaigns_clock_stands_in_where_an_event_names_one(service: Services) -> None:
    setup.put_campaign(service, campaign(campaign_id="tokyo", timezone="Asia/Tokyo"))
    assert tallied(service, event(campaign_id="tokyo")) == {("active", 6 * 24 + 18): 1.0}


def test_machines_and_outcomes_of_messages_are_nothing_unprompted(service: Services) -> None:
    living_in(service, "Asia/Tokyo")
    assert tallied(service, event(automated=True), event("unsubscribed", minutes=5)) == {}
    assert tallied(service, event(minutes=30)) == {("active", 6 * 24 + 18): 1.0}


def test_counts_halve_with_every_half_life() -> None:
    weight = 2.0 ** (START.timestamp() / (HALF_LIFE_DAYS * 86_400))
    sums = (RhythmSum("active", 3, weight), RhythmSum("sent", 9, weight / 200))
    assert effects_of(sums, START) == {"rhythm": {"active": [[3, 1.0]]}}
    assert effects_of(sums, START + timedelta(days=HALF_LIFE_DAYS)) == {"rhythm": {"active": [[3, 0.5]]}}
    assert effects_of((), START) == {}
    assert effects_of(sums, datetime(2200, 1, 1, tzinfo=UTC)) == {}


def test_a_decision_is_told_what_is_tallied_by_then_and_stores_it(service: Services) -> None:
    living_in(service, "UTC", "u2")
    assert ask(service, "u2").snapshot.effects == {}
    event(recipient_id="u2")(service)
    decision = ask(service, "u2")
    told = decision.snapshot.effects["rhythm"]
    assert list(told) == ["active"]
    assert [pair[0] for pair in told["active"]] == [6 * 24 + 9]
    with service.store.read() as reader:
        kept = reader.decision(WORKSPACE, decision.decision_id)
    assert kept is not None
    assert situation_of(kept, campaign()).effects == decision.snapshot.effects


def test_many_events_at_once_are_tallied_as_one_by_one(service: Services) -> None:
    """Together with a duplicate, a machine's, one without a zone, and hours that are known already."""
    setup.put_campaign(service, campaign(campaign_id="ny", timezone="America/New_York"))
    inputs = {
        who: [
            EventInput(
                type=kind,
                occurred_at=START - timedelta(days=1) + timedelta(minutes=minutes),
                recipient_id=who if named else "nowhere",
                event_id=f"{who} {number}",
                automated=automated,
                campaign_id=campaign_id,
            )
            for number, (kind, minutes, automated, campaign_id, named) in enumerate(
                [
                    ("Seen", 0, False, None, True),
                    ("Seen", 20, False, "ny", True),
                    ("Bought", 70, False, None, True),
                    ("Seen", 75, True, None, True),
                    ("Seen", 130, False, "ny", True),
                    ("Seen", 190, True, "ny", True),
                    ("Seen", 10, False, None, False),
                ]
            )
        ]
        for who in ("u2", "u3", "u4", "u5")
    }
    living_in(service, "Asia/Tokyo", "u3")
    living_in(service, "Asia/Tokyo", "u4")
    for one in (*inputs["u3"], inputs["u3"][0]):
        ingest(service, WORKSPACE, [one])
    report = ingest(service, WORKSPACE, [*inputs["u4"], inputs["u4"][0]])
    assert (report.accepted, report.duplicates) == (7, 1)
    assert tallied(service, recipient_id="u3") == tallied(service, recipient_id="u4") != {}
    assert ingest(service, WORKSPACE, inputs["u4"]).duplicates == 7
    # Of u2 no zone is known, so the campaign's counts where the first event of an hour names one.
    for number in (0, 1, 4):
        ingest(service, WORKSPACE, [inputs["u2"][number]])
    ingest(service, WORKSPACE, inputs["u5"])
    assert tallied(service, recipient_id="u2") == tallied(service, recipient_id="u5") != {}


def test_a_stored_zone_that_this_host_lacks_keeps_no_event_from_being_stored(service: Services) -> None:
    setup.put_recipient(service, Recipient(WORKSPACE, "u2", timezone="America/Nowhere"))
    setup.put_campaign(service, campaign(campaign_id="afar", timezone="America/Nowhere"))
    living_in(service, "Asia/Tokyo", "u3")
    one = partial(EventInput, type="Seen", occurred_at=START - timedelta(days=1))
    for name, told in (
        ("together", [one(recipient_id="u2"), one(recipient_id="u3")]),
        ("of a campaign", [one(recipient_id="u2", campaign_id="afar"), one(recipient_id="u4", campaign_id="afar")]),
        ("one by one", [one(recipient_id="u2", event_id="e"), one(recipient_id="u2", event_id="e")]),
    ):
        report = ingest(service, WORKSPACE, told)
        assert report.accepted + report.duplicates == len(told), name
    assert {who: tallied(service, recipient_id=who) for who in ("u2", "u3", "u4")} == {
        "u2": {},
        "u3": {("active", 6 * 24 + 18): 1.0},
        "u4": {},
    }


def test_a_message_in_a_zone_that_this_host_lacks_is_settled_and_answered_and_not_tallied(service: Services) -> None:
    afar = replace(make_decision().snapshot, timezone="America/Nowhere")
    for name in ("b", "c"):
        reserve(service, name, 6.0, recipient_id=f"owner of {name}", snapshot=afar)
    steps = (confirmed("b"), engaged("b"), engaged("b", "clicked"), assumed("a"))
    assert tallied(service, *steps, engaged("c"), recipient_id="owner of b") == {}
    assert {name: stored(service, name).status for name in "abc"} == {
        "a": "assumed_sent",
        "b": "sent",
        "c": "assumed_sent",
    }
    assert tallied(service) == {("sent", PLANNED): 1.0}, "of others it is"
