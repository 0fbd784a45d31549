"""Events, confirms and upkeep: order and repetition don't matter, an opt-out acts at once."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from optimizer.bandit.rewards import outcomes, reward
from optimizer.errors import Conflict, Invalid, NotFound
from optimizer.service import decide, settle, setup, upkeep
from optimizer.service.feedback import load
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput, RejectedEvent, VendorEvent
from optimizer.service.wiring import Services
from storage.log import Decision, Message
from storage.records import Campaign, EventMapping, GroupShares, OutcomeWeight, Recipient, Suppression
from storage.rules import Cap, Rule
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign


@pytest.fixture
def sent(services: Services) -> Decision:
    setup.put_campaign(services, campaign(allow_no_send=False))
    return services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="r1"))[0]


def event(kind: str = "clicked", at: float = 1.0, **fields: object) -> EventInput:
    return EventInput(type=kind, occurred_at=START + timedelta(minutes=at), **fields)  # type: ignore[arg-type]


def stored(services: Services, decision_id: str) -> Decision:
    with services.store.read() as reader:
        found = reader.decision(WORKSPACE, decision_id)
    assert found is not None
    return found


def test_events_are_counted_once_whatever_names_them(services: Services, sent: Decision, clock: FakeClock) -> None:
    clock.forward(hours=1)
    by_decision = event(event_id="e1", decision_id=sent.decision_id)
    by_request = event("opened", event_id="e2", request_id="r1")
    report = ingest(services, WORKSPACE, [by_decision, by_request, by_decision])
    assert (report.accepted, report.duplicates, report.unmatched) == (2, 1, 0)
    assert ingest(services, WORKSPACE, [by_request]).duplicates == 1
    with services.store.read() as reader:
        assert {e.event_id for e in reader.events(WORKSPACE, sent)} == {"e1", "e2"}


def test_an_event_without_an_id_is_recognised_by_its_content(services: Services, sent: Decision) -> None:
    one = event(decision_id=sent.decision_id)
    assert ingest(services, WORKSPACE, [one]).accepted == 1
    assert ingest(services, WORKSPACE, [one]).duplicates == 1


def test_an_event_by_message_id_waits_for_the_confirm(services: Services, sent: Decision, clock: FakeClock) -> None:
    clock.forward(hours=25)
    early = event(at=60.0, event_id="e1", provider="ses", message_id="m1")
    assert ingest(services, WORKSPACE, [early]).unmatched == 1
    with services.store.read() as reader:
        assert reader.unmatched_events(WORKSPACE) == 1
    settle.confirm(services, WORKSPACE, sent.decision_id, START, "ses", "m1")
    with services.store.read() as reader:
        assert [e.event_id for e in reader.events(WORKSPACE, sent)] == ["e1"]
        assert reader.unmatched_events(WORKSPACE) == 0


def test_an_event_ahead_of_its_decision_is_joined_when_it_appears(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    assert ingest(services, WORKSPACE, [event("opened", at=0, event_id="e1", request_id="later")]).unmatched == 1
    decision, _ = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="later"))
    with services.store.read() as reader:
        assert [e.event_id for e in reader.events(WORKSPACE, decision)] == ["e1"]


@pytest.mark.parametrize("kind", ["failed", "Send Failed"])
def test_a_failure_gives_the_place_back_also_ahead_of_its_decision(services: Services, kind: str) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False, event_mapping={"Send Failed": EventMapping("failed")}))
    ends = []
    for who, ahead in (("early", True), ("late", False)):
        failure = event(kind, at=0, event_id=who, request_id=f"of {who}")
        if ahead:
            assert ingest(services, WORKSPACE, [failure]).unmatched == 1
        decided = services.decider.decide(WORKSPACE, DecisionRequest("spring", who, request_id=f"of {who}"))[0]
        if not ahead:
            ingest(services, WORKSPACE, [failure])
        ended = stored(services, decided.decision_id)
        assert decided.status == ("released" if ahead else "reserved")
        with services.store.read() as reader:
            held = reader.messages(WORKSPACE, [who], START - timedelta(days=1), START + timedelta(days=99))
            row = next(
                row
                for row in load(reader, WORKSPACE, START + timedelta(hours=1)).rows
                if row.decision.recipient_id == who
            )
        ends.append((ended.status, ended.close_reason == f"event:failed:{who}", held, row.failed))
    assert ends == [("released", True, {}, True)] * 2


@pytest.mark.parametrize("chunk", [1, 250])
def test_a_batch_answers_what_earlier_events_left_of_its_decisions(
    services: Services, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(decide, "CHUNK", chunk)
    setup.put_campaign(services, campaign(allow_no_send=False))
    ingest(services, WORKSPACE, [event("bounced", at=0, event_id="b", request_id="third")])
    ingest(services, WORKSPACE, [event("failed", at=0, event_id="f", request_id="fourth")])
    first = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="first"))[0]
    others = (("second", "u1"), ("third", "u1"), ("fourth", "u2"), ("fifth", "u3"))
    narrow = (first.channel or "",)
    requests = [
        DecisionRequest("spring", "u1", request_id="first"),
        *(DecisionRequest("spring", who, request_id=name, channels=narrow) for name, who in others),
    ]
    answers = [one for one in services.decider.decide_batch(WORKSPACE, requests, "run") if isinstance(one, Decision)]
    assert [one.status for one in answers] == ["revoked", "revoked", "revoked", "released", "reserved"]
    assert [stored(services, one.decision_id).status for one in answers] == [one.status for one in answers]
    assert answers[3].close_reason == "event:failed:f"


def test_a_bad_event_is_listed_and_the_others_are_kept(services: Services, sent: Decision) -> None:
    refused = RejectedEvent(index=1, code="invalid", detail="type: missing")
    report = ingest(
        services,
        WORKSPACE,
        [
            event(decision_id=sent.decision_id, event_id="ok"),
            refused,
            event(at=60 * 24 * 365, decision_id=sent.decision_id, event_id="far"),
            event(decision_id=sent.decision_id, campaign_id="nope", event_id="lost"),
            event("opened", recipient_id="u1", event_id="needs"),
            event("bounced", recipient_id="u1", event_id="whose address"),
            event(event_id="nobody"),
        ],
    )
    assert report.accepted == 1
    assert [(r.index, r.code) for r in report.rejected] == [
        (1, "invalid"),
        (2, "future"),
        (3, "unknown_campaign"),
        (4, "needs_message"),
        (5, "needs_message"),
        (6, "uncorrelated"),
    ]
    assert stored(services, sent.decision_id).status == "reserved"


@pytest.mark.parametrize("kind", ["unsubscribed", "complained", "bounced"])
def test_an_opt_out_suppresses_and_revokes_at_once(services: Services, kind: str) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    one, other = (services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0] for _ in range(2))
    ingest(services, WORKSPACE, [event(kind, at=0, decision_id=one.decision_id)])
    assert stored(services, one.decision_id).status == "revoked"
    assert stored(services, other.decision_id).status == "revoked"
    assert services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0].status == "withheld"
    with services.store.read() as reader:
        assert [c.kind for c in reader.changes(WORKSPACE, after=0, limit=10)] == ["revoked", "revoked"]
    with pytest.raises(Conflict, match="revoked"):
        settle.claim(services, WORKSPACE, one.decision_id)


def test_an_opt_out_outlives_a_callers_suppression_of_the_same(services: Services, sent: Decision) -> None:
    own = Suppression("email", "marketing", source="crm: on holiday")
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", suppressed=(own,)))
    ingest(services, WORKSPACE, [event("unsubscribed", at=0, event_id="e1", decision_id=sent.decision_id)])
    by_event = Suppression("email", "marketing", source="event:unsubscribed:e1", at=START)
    with services.store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1"])["u1"].suppressed == (own, by_event)
    assert setup.put_recipient(services, Recipient(WORKSPACE, "u1"))[0].suppressed == (by_event,)
    assert services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0].status == "withheld"


def test_a_soft_bounce_silences_nobody(services: Services, sent: Decision) -> None:
    ingest(services, WORKSPACE, [event("bounced", at=0, decision_id=sent.decision_id, hard=False)])
    assert stored(services, sent.decision_id).status == "reserved"


@pytest.mark.parametrize("kind", ["unsubscribed", "complained"])
def test_an_opt_out_that_names_only_the_recipient_silences_every_channel(
    services: Services, sent: Decision, kind: str
) -> None:
    ingest(services, WORKSPACE, [event(kind, at=0, recipient_id="u1")])
    assert stored(services, sent.decision_id).status == "revoked"


def test_an_opt_out_joined_late_still_acts(services: Services, sent: Decision) -> None:
    ingest(services, WORKSPACE, [event("complained", at=0, provider="ses", message_id="m1")])
    later = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0]
    settle.confirm(services, WORKSPACE, sent.decision_id, START, "ses", "m1")
    assert stored(services, later.decision_id).status == "revoked"


@pytest.mark.parametrize(
    ("changes", "status", "kind"),
    [
        ({"allow_no_send": False}, "reserved", "bounced"),
        ({"allow_no_send": False}, "reserved", "complained"),
        ({"groups": GroupShares(holdout=1.0)}, "no_send", "complained"),
        ({"mode": "paused"}, "withheld", "complained"),
    ],
)
def test_an_opt_out_ahead_of_its_decision_acts_as_one_behind_it_whatever_was_decided(
    services: Services, changes: dict[str, object], status: str, kind: str
) -> None:
    setup.put_campaign(services, campaign(campaign_id="other", allow_no_send=False))
    setup.put_campaign(services, campaign(**changes))
    ends = []
    for who, ahead in (("early", True), ("late", False)):
        reserved = services.decider.decide(WORKSPACE, DecisionRequest("other", who))[0]
        refusal = event(kind, at=0, event_id=who, request_id=f"of {who}")
        if ahead:
            assert ingest(services, WORKSPACE, [refusal]).unmatched == 1
        decided = services.decider.decide(WORKSPACE, DecisionRequest("spring", who, request_id=f"of {who}"))[0]
        assert decided.status == ("revoked" if ahead and status == "reserved" else status)
        if not ahead:
            ingest(services, WORKSPACE, [refusal])
        with services.store.read() as reader:
            assert reader.unmatched_events(WORKSPACE) == 0
            assert [e.event_id for e in reader.events(WORKSPACE, decided)] == [who]
            person = reader.recipient(WORKSPACE, who)
        assert person is not None
        refused = [(one.channel == decided.channel, one.category) for one in person.suppressed]
        ends.append((refused, stored(services, decided.decision_id).status))
        if decided.channel in (None, reserved.channel):
            assert stored(services, reserved.decision_id).status == "revoked"
    assert ends[0] == ends[1]


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(
    ("changes", "status"), [({"groups": GroupShares(holdout=1.0)}, "no_send"), ({"mode": "paused"}, "withheld")]
)
def test_a_bounce_of_a_decision_without_a_message_silences_nothing(
    services: Services, changes: dict[str, object], status: str, ahead: bool
) -> None:
    setup.put_campaign(services, campaign(campaign_id="other", allow_no_send=False))
    setup.put_campaign(services, campaign(**changes))
    reserved = services.decider.decide(WORKSPACE, DecisionRequest("other", "u1"))[0]
    bounce = event("bounced", at=0, event_id="b", request_id="r1")
    if ahead:
        ingest(services, WORKSPACE, [bounce])
    assert services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="r1"))[0].status == status
    if not ahead:
        ingest(services, WORKSPACE, [bounce])
    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "u1")
        assert reader.unmatched_events(WORKSPACE) == 0
    assert person is None or person.suppressed == ()
    assert stored(services, reserved.decision_id).status == "reserved"


@pytest.mark.parametrize("ahead", [True, False])
def test_a_vendors_event_that_names_no_decision_of_ours_joins_by_its_message(
    services: Services, sent: Decision, ahead: bool
) -> None:
    refusal = VendorEvent(
        type="unsubscribed",
        occurred_at=START,
        event_id="v1",
        decision_id="order-7",
        provider="sendgrid",
        message_id="m1",
        vendor="sendgrid",
        words={"event": "unsubscribe"},
    )
    if ahead:
        assert ingest(services, WORKSPACE, [refusal]).unmatched == 1
    settle.confirm(services, WORKSPACE, sent.decision_id, START, "sendgrid", "m1")
    if not ahead:
        assert ingest(services, WORKSPACE, [refusal]).unmatched == 0
    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "u1")
        assert [(e.event_id, e.decision_id) for e in reader.events(WORKSPACE, sent)] == [("v1", sent.decision_id)]
        assert reader.unmatched_events(WORKSPACE) == 0
    assert person is not None
    assert [(one.channel, one.category) for one in person.suppressed] == [(sent.channel, "marketing")]


def test_what_a_second_report_says_under_a_stored_id_is_not_acted_on(services: Services, sent: Decision) -> None:
    ingest(services, WORKSPACE, [event("opened", at=0, event_id="e1", provider="ses", message_id="m1")])
    other = event("unsubscribed", at=0, event_id="e1", decision_id=sent.decision_id)
    report = ingest(services, WORKSPACE, [other])
    assert (report.accepted, report.duplicates) == (0, 0)
    assert [(one.index, one.code) for one in report.rejected] == [(0, "event_id_reused")]
    assert "type 'opened'; this one is 'unsubscribed'" in report.rejected[0].detail
    repeated = event("opened", at=5, event_id="e1", decision_id=sent.decision_id)
    assert ingest(services, WORKSPACE, [repeated]).duplicates == 1
    with services.store.read() as reader:
        assert [(e.event_id, e.type) for e in reader.events(WORKSPACE, sent)] == [("e1", "opened")]
        person = reader.recipient(WORKSPACE, "u1")
    assert person is None or person.suppressed == ()
    assert stored(services, sent.decision_id).status == "reserved"


def test_a_stored_refusal_acts_once_a_second_report_names_its_message(services: Services, sent: Decision) -> None:
    ingest(services, WORKSPACE, [event("unsubscribed", at=0, event_id="e1", provider="ses", message_id="m1")])
    ingest(services, WORKSPACE, [event("unsubscribed", at=0, event_id="e1", decision_id=sent.decision_id)])
    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "u1")
    assert person is not None
    assert [(one.channel, one.category) for one in person.suppressed] == [(sent.channel, "marketing")]


def test_two_events_under_one_id_in_one_envelope_are_not_taken_for_one(services: Services, sent: Decision) -> None:
    told = [event(kind, at=0, event_id="m1", decision_id=sent.decision_id) for kind in ("delivered", "unsubscribed")]
    report = ingest(services, WORKSPACE, [*told, told[0]])
    assert (report.accepted, report.duplicates) == (1, 1)
    assert [(one.index, one.code) for one in report.rejected] == [(1, "event_id_reused")]


def test_the_order_of_events_changes_no_reward(services: Services, sent: Decision, clock: FakeClock) -> None:
    worth = {"clicked": OutcomeWeight(fixed=1.0), "converted": OutcomeWeight(per_value=0.5, max_value=10.0)}
    changed = campaign(objective=worth, allow_no_send=False)
    happened = [
        event("clicked", 30.0, decision_id=sent.decision_id, event_id="a"),
        event("clicked", 31.0, decision_id=sent.decision_id, event_id="b"),
        event("converted", 40.0, recipient_id="u1", value=30.0, event_id="c"),
        event("clicked", 20.0, decision_id=sent.decision_id, automated=True, event_id="d"),
    ]
    clock.forward(hours=100)
    ingest(services, WORKSPACE, happened)
    with services.store.read() as reader:
        events = reader.events(WORKSPACE, sent)
    rewards = {
        reward(changed, sent, outcomes(changed, sent, order, clock.now)) for order in itertools.permutations(events)
    }
    assert rewards == {1.0 + 0.5 * 10.0}


def test_claim_confirm_and_release_keep_their_order(services: Services, sent: Decision, clock: FakeClock) -> None:
    assert settle.claim(services, WORKSPACE, sent.decision_id).status == "claimed"
    assert settle.claim(services, WORKSPACE, sent.decision_id).status == "claimed"
    released = settle.release(services, WORKSPACE, sent.decision_id, "no address")
    assert (released.status, released.close_reason) == ("released", "no address")
    clock.forward(hours=30)
    confirmed = settle.confirm(services, WORKSPACE, sent.decision_id, START + timedelta(hours=29), "ses", "m1")
    assert confirmed.status == "sent"
    assert settle.confirm(services, WORKSPACE, sent.decision_id, None, "ses", "m1") == confirmed
    with pytest.raises(Conflict, match="sent"):
        settle.release(services, WORKSPACE, sent.decision_id, None)


def test_a_confirm_from_the_future_or_without_a_message_is_refused(services: Services, spring: Campaign) -> None:
    decided = [services.decider.decide(WORKSPACE, DecisionRequest("spring", f"u{i}"))[0] for i in range(300)]
    silent = next(d for d in decided if d.status == "no_send")
    message = next(d for d in decided if d.status == "reserved")
    with pytest.raises(Invalid, match="no message"):
        settle.confirm(services, WORKSPACE, silent.decision_id, None, None, None)
    with pytest.raises(Invalid, match="future"):
        settle.confirm(services, WORKSPACE, message.decision_id, START + timedelta(hours=9), None, None)
    with pytest.raises(NotFound):
        settle.claim(services, WORKSPACE, "dec_nope")


def test_a_sent_message_counts_at_its_real_time(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    setup.put_rule(services, Rule(WORKSPACE, "cap", "cap", Cap(1, rolling_hours=24.0)))
    first = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0]
    clock.forward(days=10)
    settle.confirm(services, WORKSPACE, first.decision_id, clock.now, None, None)
    assert services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0].status == "withheld"


def test_sends_of_other_systems_count(services: Services) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    setup.put_rule(services, Rule(WORKSPACE, "cap", "cap", Cap(1, rolling_hours=72.0)))
    other = Message(WORKSPACE, "u1", START, "crm-1", "email", "marketing")
    assert settle.record_send(services, other)
    assert not settle.record_send(services, other)
    assert services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0].status == "withheld"


@pytest.mark.parametrize(("unconfirmed", "status"), [("assume_sent", "assumed_sent"), ("release", "expired")])
def test_an_unconfirmed_reservation_is_settled_as_the_campaign_says(
    services: Services, clock: FakeClock, unconfirmed: str, status: str
) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False, unconfirmed=unconfirmed))
    decision = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0]
    assert upkeep.expire(services, WORKSPACE) == 0
    clock.forward(hours=26)
    assert upkeep.expire(services, WORKSPACE) == 1
    assert upkeep.expire(services, WORKSPACE) == 0
    assert stored(services, decision.decision_id).status == status
    assert settle.confirm(services, WORKSPACE, decision.decision_id, START, None, None).status == "sent"
