"""What becomes of a reservation: late, twice, out of order and at once, its place is taken and freed exactly once."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.errors import Conflict, Invalid, SendtideError
from optimizer.service import settle, setup, upkeep
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.wiring import Services
from storage.log import COUNTED, Decision, Status
from storage.records import Campaign
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.reserved import EVERYTHING, after, counted, reserve, stored, told_of, unanswered, used

CLOSED: tuple[Status, ...] = ("released", "revoked", "displaced", "expired")


def close(services: Services, decision: Decision, status: Status) -> Decision:
    """The decision, ended in this way."""
    ended = stored(services, decision.decision_id)
    if status == "released":
        return settle.release(services, WORKSPACE, decision.decision_id, "no stock")
    ended = replace(ended, status=status, closed_at=after(hours=1), close_reason=f"was {status}")
    services.store.write(lambda writer: writer.update_decision(ended, None))
    return ended


def confirm(
    services: Services, decision_id: str, hours: float, provider: str | None = None, ref: str | None = None
) -> Decision:
    return settle.confirm(services, WORKSPACE, decision_id, after(hours=hours), provider, ref)


def test_the_first_confirm_says_when_it_went_out(services: Services, clock: FakeClock) -> None:
    reserve(services, "d")
    clock.forward(hours=9)
    assert confirm(services, "d", 6.5).sent_at == after(hours=6.5)
    for again in (8.0, 1.0):
        assert confirm(services, "d", again) == stored(services, "d")
    assert stored(services, "d").sent_at == after(hours=6.5)
    assert [m.at for m in counted(services)] == [after(hours=6.5)]


def test_a_later_confirm_may_still_tell_the_message_id_but_not_change_it(services: Services, clock: FakeClock) -> None:
    reserve(services, "d")
    clock.forward(hours=9)
    assert (confirm(services, "d", 6).provider, confirm(services, "d", 6, "ses").provider) == (None, "ses")
    named = confirm(services, "d", 6, "ses", "m1")
    assert (named.provider, named.message_id) == ("ses", "m1")
    for provider, ref in ((None, None), ("ses", None), ("ses", "m1")):
        assert confirm(services, "d", 6, provider, ref) == named
    for provider, ref, wrong in (("sendgrid", "m2", ["provider", "message_id"]), ("ses", "m2", ["message_id"])):
        with pytest.raises(Conflict, match=re.escape("message_id 'm2'; stored: 'm1'")) as refused:
            confirm(services, "d", 6, provider, ref)
        assert (refused.value.code, list(refused.value.errors)) == ("confirmed_otherwise", wrong)
    assert stored(services, "d") == named
    with services.store.read() as reader:
        assert reader.decisions_by_message(WORKSPACE, "sendgrid", ["m2"]) == ()


def test_a_message_id_comes_with_its_own_provider(services: Services, clock: FakeClock) -> None:
    reserve(services, "d")
    clock.forward(hours=9)
    confirm(services, "d", 6, "ses")
    with pytest.raises(Conflict, match="provider 'sendgrid'; stored: 'ses'"):
        confirm(services, "d", 6, "sendgrid")
    named = confirm(services, "d", 6, "sendgrid", "m2")
    assert (named.provider, named.message_id) == ("sendgrid", "m2")


def test_events_that_await_the_message_id_are_joined_by_whichever_confirm_tells_it(
    services: Services, clock: FakeClock
) -> None:
    reserve(services, "d")
    clock.forward(hours=9)
    opened = EventInput(type="opened", occurred_at=after(hours=7), provider="ses", message_id="m1", event_id="e")
    assert ingest(services, WORKSPACE, [opened]).unmatched == 1
    confirm(services, "d", 6)
    confirm(services, "d", 6, "ses", "m1")
    with services.store.read() as reader:
        assert [e.event_id for e in reader.events(WORKSPACE, stored(services, "d"))] == ["e"]


@pytest.mark.parametrize("status", CLOSED)
def test_a_confirm_is_a_fact_whatever_came_before_and_counts_again(
    services: Services, clock: FakeClock, status: Status
) -> None:
    setup.put_rule(services, EVERYTHING)
    decision = reserve(services, "d")
    clock.forward(hours=3)
    assert (len(counted(services)), used(services)) == (1, 1)
    closed = close(services, decision, status)
    assert (counted(services), used(services)) == ((), 0)
    sent = confirm(services, "d", 2.5)
    assert (sent.status, sent.sent_at) == ("sent", after(hours=2.5))
    assert (sent.closed_at, sent.close_reason) == (closed.closed_at, closed.close_reason)
    assert ([m.at for m in counted(services)], used(services)) == ([after(hours=2.5)], 1)
    with pytest.raises(Conflict, match="is sent and can't be released"):
        settle.release(services, WORKSPACE, "d", None)
    assert used(services) == 1


@pytest.mark.parametrize("status", [*CLOSED, "sent", "assumed_sent"])
def test_what_is_no_longer_reserved_cannot_be_claimed_and_the_refusal_says_what_became_of_it(
    services: Services, spring: Campaign, clock: FakeClock, status: Status
) -> None:
    decision = reserve(services, "d")
    clock.forward(hours=8)
    if status == "sent":
        confirm(services, "d", 6)
    elif status == "assumed_sent":
        assert upkeep.expire(services, WORKSPACE) == 1
    else:
        close(services, decision, status)
    before = stored(services, "d")
    with pytest.raises(Conflict, match=f"is {status}") as refused:
        settle.claim(services, WORKSPACE, "d")
    assert refused.value.code == f"not_claimable_{status}"
    if before.close_reason is not None:
        assert before.close_reason in refused.value.detail
    assert stored(services, "d") == before


@pytest.mark.parametrize("unconfirmed", ["assume_sent", "release"])
def test_what_is_first_claimed_when_its_hour_is_over_has_not_gone_out_and_frees_its_places(
    services: Services, clock: FakeClock, unconfirmed: str
) -> None:
    setup.put_campaign(services, campaign(unconfirmed=unconfirmed))
    setup.put_rule(services, EVERYTHING)
    reserve(services, "d")
    clock.forward(days=3)
    for _ in range(2):
        with pytest.raises(Conflict, match="unconfirmed") as refused:
            settle.claim(services, WORKSPACE, "d")
        assert refused.value.code == "not_claimable_expired"
        assert stored(services, "d").status == "expired"
    assert stored(services, "d").closed_at == clock()
    assert upkeep.expire(services, WORKSPACE) == 0
    assert (counted(services), used(services), unanswered(services)) == ((), 0, 0)
    assert told_of(services) == [("expired", "d", "unconfirmed")]


def test_who_claims_what_was_taken_for_sent_is_told_that_a_release_gives_it_back(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    reserve(services, "d")
    clock.forward(hours=8)
    upkeep.expire(services, WORKSPACE)
    with pytest.raises(Conflict, match="a release gives back what was not sent"):
        settle.claim(services, WORKSPACE, "d")


def test_a_late_claim_within_the_hour_gives_the_sender_an_hour_of_its_own(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    reserve(services, "d")
    clock.forward(hours=7)
    assert settle.claim(services, WORKSPACE, "d").status == "claimed"
    clock.forward(hours=1)
    assert settle.claim(services, WORKSPACE, "d").status == "claimed"
    clock.forward(seconds=1)
    with pytest.raises(Conflict, match="is assumed_sent"):
        settle.claim(services, WORKSPACE, "d")


def test_a_refusal_of_what_was_sent_after_all_does_not_tell_why_it_was_once_given_back(
    services: Services, clock: FakeClock
) -> None:
    close(services, reserve(services, "d"), "released")
    clock.forward(hours=6)
    confirm(services, "d", 6.0)
    with pytest.raises(Conflict, match="d is sent; only a reserved one can be claimed"):
        settle.claim(services, WORKSPACE, "d")


def test_a_confirm_from_the_future_is_told_how_far_ahead_a_clock_may_be(services: Services) -> None:
    reserve(services, "d")
    latest = START + CLOCK_SKEW
    with pytest.raises(Invalid, match=re.escape(f"allowed: up to {latest.isoformat()}")):
        settle.confirm(services, WORKSPACE, "d", latest + timedelta(seconds=1), None, None)
    assert settle.confirm(services, WORKSPACE, "d", latest, None, None).sent_at == latest


def test_a_confirm_from_before_the_decision_is_told_how_far_back_a_clock_may_be(
    services: Services, clock: FakeClock
) -> None:
    reserve(services, "d")
    clock.forward(hours=9)
    earliest = START - CLOCK_SKEW
    with pytest.raises(Invalid, match=re.escape(f"allowed: from {earliest.isoformat()}")) as refused:
        settle.confirm(services, WORKSPACE, "d", earliest - timedelta(seconds=1), None, None)
    assert list(refused.value.errors) == ["sent_at"]
    assert stored(services, "d").status == "reserved"
    assert settle.confirm(services, WORKSPACE, "d", earliest, None, None).sent_at == earliest


def test_what_was_decided_as_of_a_time_to_come_may_have_gone_out_before(services: Services) -> None:
    reserve(services, "d", 48, decided_at=after(hours=24))
    assert settle.confirm(services, WORKSPACE, "d", START, None, None).sent_at == START


@pytest.mark.parametrize("status", ["revoked", "displaced", "expired"])
def test_what_was_called_off_otherwise_cannot_be_released(services: Services, status: Status) -> None:
    close(services, reserve(services, "d"), status)
    with pytest.raises(Conflict, match=f"is {status} and can't be released"):
        settle.release(services, WORKSPACE, "d", None)


def test_a_release_is_done_once_and_never_without_a_reason(services: Services, clock: FakeClock) -> None:
    setup.put_rule(services, EVERYTHING)
    reserve(services, "d")
    reserve(services, "other", 7.0)
    first = settle.release(services, WORKSPACE, "d", None)
    clock.forward(hours=1)
    assert settle.release(services, WORKSPACE, "d", "again") == first
    assert (first.close_reason, first.closed_at) == (settle.RELEASED, START)
    assert ([m.decision_id for m in counted(services)], used(services)) == (["other"], 1)


def test_what_was_assumed_sent_may_still_be_released(services: Services, spring: Campaign, clock: FakeClock) -> None:
    setup.put_rule(services, EVERYTHING)
    reserve(services, "d")
    clock.forward(hours=8)
    upkeep.expire(services, WORKSPACE)
    assert (stored(services, "d").status, stored(services, "d").close_reason, used(services)) == (
        "assumed_sent",
        None,
        1,
    )
    assert settle.release(services, WORKSPACE, "d", "bounced at the gateway").status == "released"
    assert (counted(services), used(services)) == ((), 0)


def test_a_failure_that_is_reported_late_gives_back_what_was_assumed_sent_and_nothing_that_was_confirmed(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    setup.put_rule(services, EVERYTHING)
    reserve(services, "d")
    reserve(services, "other", 6.5)
    clock.forward(hours=8)
    upkeep.expire(services, WORKSPACE)
    confirm(services, "other", 6.5)
    assert (used(services), unanswered(services)) == (2, 2)
    failures = [replace(_event("failed", f"f {name}"), decision_id=name) for name in ("d", "other")]
    for _ in range(2):
        ingest(services, WORKSPACE, failures)
    assert (stored(services, "d").status, stored(services, "d").close_reason) == ("released", "event:failed:f d")
    assert stored(services, "other").status == "sent"
    assert [m.message_ref for m in counted(services)] == ["other"]
    assert (used(services), unanswered(services)) == (1, 1)


Step = Callable[[Services], object]
RIVALS: dict[str, Step] = {
    "claim": lambda s: settle.claim(s, WORKSPACE, "d"),
    "confirm": lambda s: settle.confirm(s, WORKSPACE, "d", after(hours=6.25), "ses", "m"),
    "confirm again": lambda s: settle.confirm(s, WORKSPACE, "d", after(hours=6.5), None, None),
    "release": lambda s: settle.release(s, WORKSPACE, "d", "rival"),
    "expire": lambda s: upkeep.expire(s, WORKSPACE),
    "fail": lambda s: ingest(s, WORKSPACE, [_event("failed", "f")]),
    "opt out": lambda s: ingest(s, WORKSPACE, [_event("unsubscribed", "u")]),
}


def _event(kind: str, event_id: str) -> EventInput:
    return EventInput(type=kind, occurred_at=after(hours=6.75), decision_id="d", event_id=event_id)


@pytest.mark.parametrize("unconfirmed", ["assume_sent", "release"])
@pytest.mark.parametrize("together", [*((one,) * 4 for one in RIVALS), tuple(RIVALS)], ids="+".join)
def test_rivals_at_once_take_and_free_a_place_exactly_once(
    services: Services, clock: FakeClock, together: tuple[str, ...], unconfirmed: str
) -> None:
    setup.put_campaign(services, campaign(unconfirmed=unconfirmed))
    setup.put_rule(services, EVERYTHING)
    reserve(services, "d")
    reserve(services, "other", 7.5)
    clock.forward(hours=8)
    gate = threading.Barrier(len(together))

    def run(step: Step) -> None:
        gate.wait()
        with contextlib.suppress(SendtideError):  # refused: another came first
            step(services)

    threads = [threading.Thread(target=run, args=(RIVALS[name],)) for name in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = stored(services, "d")
    other = stored(services, "other")
    holding = [d for d in (ended, other) if d.status in COUNTED]
    assert sorted(m.message_ref for m in counted(services)) == sorted(d.decision_id for d in holding)
    assert used(services) == len(holding)
    if "confirm" in together:
        assert (ended.status, ended.sent_at) in {
            ("sent", after(hours=6.25)),
            ("sent", after(hours=6.5)),
        }
    assert unanswered(services) == sum(d.status in ("sent", "assumed_sent") for d in holding)
