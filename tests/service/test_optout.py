"""How much an event refuses, and what takes it back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import Conflict
from optimizer.service import erasing, settle, setup
from optimizer.service.imports import import_file
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput, RecipientPatch, VendorEvent
from optimizer.service.wiring import Services
from simulations.audit import audit
from storage.log import Decision
from storage.records import ANY, Channel, Consent, EventMapping, Recipient, Suppression
from storage.rules import Cap, Rule
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.reserved import counted, stored
from tests.service.rows import write

MAIL = (Channel("email"),)
OF_THE_LIST = ("email", "marketing")
OF_THE_ADDRESS = ("email", ANY)
EVERYTHING = (ANY, ANY)


@pytest.fixture
def sent(services: Services) -> Decision:
    """A message of marketing by email; news of another category go by email, too."""
    setup.put_campaign(services, campaign(channels=MAIL, allow_no_send=False))
    setup.put_campaign(services, campaign(campaign_id="news", category="news", channels=MAIL, allow_no_send=False))
    return services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))[0]


def event(kind: str, minutes: float, **fields: Any) -> EventInput:
    """Something that happened so many minutes after the start."""
    return EventInput(kind, START + timedelta(minutes=minutes), **fields)


def refused(services: Services) -> set[tuple[str, str]]:
    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "u1")
    return set() if person is None else {(one.channel, one.category) for one in person.suppressed}


def asked(services: Services, campaign_id: str) -> str:
    return services.decider.decide(WORKSPACE, DecisionRequest(campaign_id, "u1"))[0].status


@pytest.mark.parametrize(
    ("kind", "facts", "what"),
    [
        ("unsubscribed", {}, {OF_THE_LIST}),
        ("unsubscribed", {"refuses": "channel"}, {OF_THE_ADDRESS}),
        ("complained", {"refuses": "channel"}, {OF_THE_ADDRESS}),
        ("bounced", {}, {OF_THE_ADDRESS}),
        ("bounced", {"refuses": "category"}, {OF_THE_LIST}),
        ("bounced", {"hard": False, "refuses": "channel"}, set()),
        ("failed", {}, set()),
        ("failed", {"refuses": "channel"}, {OF_THE_ADDRESS}),
        ("failed", {"refuses": "category"}, {OF_THE_LIST}),
        ("clicked", {"refuses": "channel"}, set()),
        ("unsubscribed", {"properties": {"refuses": "whatever"}}, {OF_THE_LIST}),
    ],
)
def test_an_event_refuses_as_much_as_it_says(
    services: Services, sent: Decision, kind: str, facts: dict[str, Any], what: set[tuple[str, str]]
) -> None:
    ingest(services, WORKSPACE, [event(kind, 0, decision_id=sent.decision_id, **facts)])
    assert refused(services) == what
    assert asked(services, "spring") == ("withheld" if what else "reserved")
    assert asked(services, "news") == ("withheld" if OF_THE_ADDRESS in what else "reserved")


def test_what_a_campaign_counts_as_an_opt_out_silences(services: Services, sent: Decision) -> None:
    mapping = {"Email Unsubscribed": EventMapping("unsubscribed")}
    setup.put_campaign(services, campaign(channels=MAIL, allow_no_send=False, event_mapping=mapping))
    several = [event("Email Unsubscribed", 0, decision_id=sent.decision_id), event("seen", 0, recipient_id="u1")]
    ingest(services, WORKSPACE, several)
    assert refused(services) == {OF_THE_LIST}
    ingest(services, WORKSPACE, [event("resubscribed", 1, decision_id=sent.decision_id)])
    assert refused(services) == set(), "it is an unsubscription like any other"


@pytest.mark.parametrize(
    ("named", "what"),
    [
        ({}, {EVERYTHING}),
        ({"campaign_id": "spring"}, {EVERYTHING}),
        ({"campaign_id": "news"}, set()),
        ({"decision_id": "dec_of_nobody"}, {EVERYTHING}),
    ],
)
def test_what_a_campaign_counts_as_an_opt_out_may_name_the_person_alone(
    services: Services, sent: Decision, named: dict[str, str], what: set[tuple[str, str]]
) -> None:
    with services.store.read() as reader:
        services.catalog.view(reader, WORKSPACE).spoken(reader)  # kept, until what is mapped changes
    mapping = {"Email Unsubscribed": EventMapping("unsubscribed"), "Seen": EventMapping("converted")}
    setup.put_campaign(services, campaign(channels=MAIL, allow_no_send=False, event_mapping=mapping))
    several = [event(kind, 0, recipient_id="u1", **named) for kind in ("Seen", "Email Unsubscribed")]
    assert ingest(services, WORKSPACE, several).accepted == 2
    assert refused(services) == what
    assert stored(services, sent.decision_id).status == ("revoked" if what else "reserved")
    ingest(services, WORKSPACE, [event("resubscribed", 1, recipient_id="u1")])
    assert refused(services) == set()


def test_an_imported_opt_out_under_a_campaigns_own_name_silences(services: Services, tmp_path: Path) -> None:
    mapping = {"Email Unsubscribed": EventMapping("unsubscribed")}
    setup.put_campaign(services, campaign(channels=MAIL, event_mapping=mapping))
    row = {"event_id": "e1", "type": "Email Unsubscribed", "recipient_id": "u1", "occurred_at": START.isoformat()}
    assert import_file(services, WORKSPACE, "events", write(tmp_path / "e.csv", [row])).stored == 1
    assert refused(services) == {EVERYTHING}


def test_no_mapping_takes_a_persons_refusals_back(services: Services, sent: Decision) -> None:
    mapping = {"Joined": EventMapping("resubscribed")}
    setup.put_campaign(services, campaign(channels=MAIL, allow_no_send=False, event_mapping=mapping))
    ingest(services, WORKSPACE, [event("unsubscribed", 0, recipient_id="u1")])
    ingest(services, WORKSPACE, [event("Joined", 1, recipient_id="u1")])
    assert refused(services) == {EVERYTHING}


def test_what_a_failure_refuses_acts_when_its_decision_is_known_later(services: Services, sent: Decision) -> None:
    told = VendorEvent(
        "failed", START, event_id="v1", provider="sendgrid", message_id="m1", refuses="channel", vendor="sendgrid"
    )
    assert ingest(services, WORKSPACE, [told]).unmatched == 1
    settle.confirm(services, WORKSPACE, sent.decision_id, START, "sendgrid", "m1")
    assert refused(services) == {OF_THE_ADDRESS}


@pytest.mark.parametrize(
    "named",
    [{"request_id": "nobody's"}, {"decision_id": "dec_of_nobody"}, {"provider": "sendgrid", "message_id": "m1"}],
)
def test_a_refusal_does_not_wait_for_its_message(services: Services, sent: Decision, named: dict[str, str]) -> None:
    report = ingest(services, WORKSPACE, [event("unsubscribed", 0, event_id="e1", recipient_id="u1", **named)])
    assert (report.accepted, report.unmatched) == (1, 1)
    assert refused(services) == {EVERYTHING}
    with services.store.read() as reader:
        found = reader.decision(WORKSPACE, sent.decision_id)
    assert found is not None
    assert found.status == "revoked"


def test_a_refusal_is_its_messages_own_once_that_is_known(services: Services, sent: Decision) -> None:
    unknown = event("unsubscribed", 0, event_id="e1", recipient_id="u1", provider="sendgrid", message_id="m1")
    ingest(services, WORKSPACE, [unknown])
    settle.confirm(services, WORKSPACE, sent.decision_id, START, "sendgrid", "m1")
    assert refused(services) == {OF_THE_LIST}
    assert asked(services, "news") == "reserved"


class TestComingBack:
    """``resubscribed``."""

    @pytest.mark.parametrize(
        ("before", "facts", "left"),
        [
            ([("unsubscribed", {})], {}, set()),
            ([("unsubscribed", {"refuses": "channel"})], {}, {OF_THE_ADDRESS}),
            ([("unsubscribed", {"refuses": "channel"})], {"refuses": "channel"}, set()),
            ([("complained", {})], {}, {OF_THE_LIST}),
            ([("bounced", {})], {"refuses": "channel"}, {OF_THE_ADDRESS}),
            ([("complained", {}), ("unsubscribed", {})], {}, {OF_THE_LIST}),
            ([("unsubscribed", {}), ("complained", {})], {}, {OF_THE_LIST}),
            ([("bounced", {}), ("unsubscribed", {"refuses": "channel"})], {"refuses": "channel"}, {OF_THE_ADDRESS}),
        ],
    )
    def test_by_its_message_it_takes_back_that_unsubscription(
        self,
        services: Services,
        sent: Decision,
        before: list[tuple[str, dict[str, Any]]],
        facts: dict[str, Any],
        left: set[tuple[str, str]],
    ) -> None:
        id_ = sent.decision_id
        ingest(services, WORKSPACE, [event(kind, -9, decision_id=id_, **more) for kind, more in before])
        ingest(services, WORKSPACE, [event("resubscribed", -8, decision_id=id_, properties=facts)])
        assert refused(services) == left
        assert asked(services, "spring") == ("withheld" if left else "reserved")

    @pytest.mark.parametrize("kind", ["unsubscribed", "complained", "bounced"])
    def test_by_its_person_it_takes_back_all_that_events_recorded(
        self, services: Services, sent: Decision, kind: str
    ) -> None:
        own = Suppression("sms", ANY)
        setup.put_recipient(services, Recipient(WORKSPACE, "u1", suppressed=(own,)))
        ingest(services, WORKSPACE, [event(kind, -9, decision_id=sent.decision_id)])
        ingest(services, WORKSPACE, [event("unsubscribed", -9, recipient_id="u1")])
        assert asked(services, "spring") == "withheld"
        ingest(services, WORKSPACE, [event("resubscribed", -8, recipient_id="u1")])
        assert refused(services) == {("sms", ANY)}
        assert asked(services, "spring") == "reserved"

    def test_it_takes_nothing_back_that_is_refused_afterwards(
        self, services: Services, sent: Decision, clock: FakeClock
    ) -> None:
        clock.forward(hours=1)
        back = event("resubscribed", 20, recipient_id="u1")
        ingest(services, WORKSPACE, [event("unsubscribed", 10, recipient_id="u1"), back])
        assert refused(services) == set()
        ingest(services, WORKSPACE, [event("unsubscribed", 30, decision_id=sent.decision_id)])
        ingest(services, WORKSPACE, [event("resubscribed", 25, recipient_id="u1")])
        assert refused(services) == {OF_THE_LIST}

    def test_the_last_refusal_counts(self, services: Services, sent: Decision, clock: FakeClock) -> None:
        clock.forward(hours=1)
        for minutes in (30, 10):
            ingest(services, WORKSPACE, [event("unsubscribed", minutes, decision_id=sent.decision_id)])
        ingest(services, WORKSPACE, [event("resubscribed", 20, recipient_id="u1")])
        assert refused(services) == {OF_THE_LIST}

    def test_a_complaint_that_is_older_than_the_unsubscription_counts(self, services: Services, sent: Decision) -> None:
        for kind, minutes in (("unsubscribed", -8), ("complained", -9), ("resubscribed", -7)):
            ingest(services, WORKSPACE, [event(kind, minutes, decision_id=sent.decision_id)])
        assert refused(services) == {OF_THE_LIST}

    def test_it_waits_for_its_message(self, services: Services, sent: Decision) -> None:
        ingest(services, WORKSPACE, [event("unsubscribed", -9, decision_id=sent.decision_id)])
        ingest(services, WORKSPACE, [event("resubscribed", -8, recipient_id="u1", provider="ses", message_id="m")])
        assert refused(services) == {OF_THE_LIST}
        settle.confirm(services, WORKSPACE, sent.decision_id, START, "ses", "m")
        assert refused(services) == set()

    def test_a_stranger_is_none_the_wiser(self, services: Services) -> None:
        ingest(services, WORKSPACE, [event("resubscribed", -8, recipient_id="u1")])
        with services.store.read() as reader:
            assert reader.recipient(WORKSPACE, "u1") is None


NO_MAIL = {"email": Consent(state=False)}


def _put(services: Services, _: Path, **told: Any) -> None:
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", **told))


def _put_many(services: Services, _: Path, **told: Any) -> None:
    row = Recipient(WORKSPACE, "u1", **told)
    setup.put_recipients(services, WORKSPACE, [row, Recipient(WORKSPACE, "u2", **told), row])


def _import(services: Services, folder: Path, **_: Any) -> None:
    rows = [{"recipient_id": f"u{i}", "channels.email": i != 1} for i in range(40)]
    assert import_file(services, WORKSPACE, "recipients", write(folder / "people.csv", rows)).stored == 40


def _tell(services: Services, _: Path, **told: Any) -> None:
    later = DecisionRequest("news", "u1", recipient=RecipientPatch(**told))
    assert services.decider.decide(WORKSPACE, later)[0].status == "withheld"


class TestARecordThatAgreesToLess:
    """Consent that is taken back by a record and not by an event calls off what is reserved as well."""

    @pytest.mark.parametrize("known", [False, True], ids=["of a stranger", "of somebody known"])
    @pytest.mark.parametrize(
        ("how", "told"),
        [
            (_put, {"channels": NO_MAIL}),
            (_put, {"suppressed": (Suppression("email", "marketing"),)}),
            (_put, {"suppressed": (Suppression(ANY, ANY),)}),
            (_put_many, {"channels": NO_MAIL}),
            (_import, {}),
            (_tell, {"channels": NO_MAIL}),
        ],
    )
    def test_calls_off_what_is_reserved(
        self,
        services: Services,
        sent: Decision,
        tmp_path: Path,
        how: Callable[..., None],
        told: dict[str, Any],
        known: bool,
    ) -> None:
        if known:
            setup.put_recipient(services, Recipient(WORKSPACE, "u1", attributes={"plan": "pro"}))
        how(services, tmp_path, **told)
        with pytest.raises(Conflict, match=r"is revoked \(recipient:consent\)"):
            settle.claim(services, WORKSPACE, sent.decision_id)
        assert counted(services) == ()
        with services.store.read() as reader:
            (change,) = reader.changes(WORKSPACE, after=0, limit=9)
            assert audit(reader, WORKSPACE).clean
        assert (change.kind, change.decision_id, change.detail) == ("revoked", sent.decision_id, "recipient:consent")

    def test_leaves_other_channels_and_categories_and_what_is_said_again(
        self, services: Services, sent: Decision
    ) -> None:
        agreed = {"sms": Consent(state=True)}
        for record in (
            Recipient(WORKSPACE, "u1", channels=agreed),
            Recipient(WORKSPACE, "u1", channels={"sms": Consent(state=False)}),
            Recipient(WORKSPACE, "u1", suppressed=(Suppression("email", "news"), Suppression("sms", ANY))),
            Recipient(WORKSPACE, "u1", timezone="Europe/Berlin"),
        ):
            setup.put_recipient(services, record)
            assert stored(services, sent.decision_id) == sent

    def test_a_channel_that_needs_a_yes_is_closed_by_a_record_that_says_nothing(self, services: Services) -> None:
        setup.put_campaign(services, campaign(channels=(Channel("whatsapp"),), allow_no_send=False))
        setup.put_recipient(services, Recipient(WORKSPACE, "u1", channels={"whatsapp": Consent(state=True)}))
        made, _ = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))
        assert made.status == "reserved"
        setup.put_recipient(services, Recipient(WORKSPACE, "u1"))
        assert stored(services, made.decision_id).status == "revoked"

    def test_leaves_the_message_that_a_refusal_answered(
        self, services: Services, sent: Decision, clock: FakeClock
    ) -> None:
        assert sent.send_at is not None
        clock.now = sent.send_at + timedelta(minutes=1)
        ingest(services, WORKSPACE, [event("unsubscribed", 0, decision_id=sent.decision_id)])
        _put(services, Path(), channels=NO_MAIL)
        assert stored(services, sent.decision_id).status == "reserved"

    def test_of_a_batch_is_answered_as_it_left_the_rows_before(self, services: Services, sent: Decision) -> None:
        setup.put_rule(services, Rule(WORKSPACE, "two", "cap", Cap(2, rolling_hours=72)))
        patch = RecipientPatch(channels=NO_MAIL)
        answers = services.decider.decide_batch(
            WORKSPACE, [DecisionRequest("spring", "u1"), DecisionRequest("news", "u1", recipient=patch)], "run"
        )
        assert [d.status for d in answers if isinstance(d, Decision)] == ["revoked", "withheld"]
        assert stored(services, sent.decision_id).status == "revoked"
        with services.store.read() as reader:
            assert audit(reader, WORKSPACE).clean

    def test_of_a_batch_calls_off_what_a_row_between_was_reserved_on(self, services: Services) -> None:
        setup.put_campaign(services, campaign(channels=(Channel("sms"),), allow_no_send=False))
        told = (RecipientPatch(channels={"sms": Consent(yes)}) for yes in (True, False))
        rows = [DecisionRequest("spring", "u7", recipient=patch) for patch in told]
        answers = services.decider.decide_batch(WORKSPACE, rows, "run")
        assert [d.status for d in answers if isinstance(d, Decision)] == ["revoked", "withheld"]
        assert counted(services, "u7") == ()

    def test_says_so_after_an_erasure_too(self, services: Services, sent: Decision) -> None:
        _put(services, Path(), channels=NO_MAIL)
        erasing.erase(services, WORKSPACE, "u1")
        assert stored(services, sent.decision_id).close_reason == "recipient:consent"


def test_who_unsubscribes_keeps_the_mark_of_what_else_rules_go_by(services: Services, sent: Decision) -> None:
    """Else the audit couldn't tell in which zone and by which consents their messages were reserved."""
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone="Europe/Berlin"))
    before = _person(services).changed_after
    services.decider.decide(WORKSPACE, DecisionRequest("news", "u1"))
    for minute, kind in enumerate(("unsubscribed", "complained", "unsubscribed")):
        ingest(services, WORKSPACE, [event(kind, minute - 9, decision_id=sent.decision_id, event_id=f"e{minute}")])
    assert {s.source for s in _person(services).suppressed} == {"event:complained:e1", "event:unsubscribed:e2"}
    assert _person(services).changed_after == before
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone="Europe/Rome"))
    assert _person(services).changed_after > before


def test_of_whom_nothing_was_stored_a_refusal_says_nothing_else(services: Services, sent: Decision) -> None:
    ingest(services, WORKSPACE, [event("unsubscribed", 0, decision_id=sent.decision_id)])
    assert _person(services).changed_after == 0


def test_what_is_taken_back_moves_the_mark(services: Services, sent: Decision) -> None:
    """Nothing in the record tells any more that it was refused before."""
    ingest(services, WORKSPACE, [event("unsubscribed", 0, decision_id=sent.decision_id)])
    ingest(services, WORKSPACE, [event("resubscribed", 1, decision_id=sent.decision_id)])
    assert _person(services).changed_after >= sent.position


def test_a_refusal_that_narrows_once_its_message_is_known_moves_the_mark(services: Services, sent: Decision) -> None:
    waiting = event("unsubscribed", 0, provider="p", message_id="m1", recipient_id="u1", event_id="e1")
    ingest(services, WORKSPACE, [waiting])
    assert refused(services) == {EVERYTHING}
    assert _person(services).changed_after == 0
    settle.confirm(services, WORKSPACE, sent.decision_id, START, "p", "m1")
    assert refused(services) == {OF_THE_LIST}
    assert _person(services).changed_after > 0


def _person(services: Services) -> Recipient:
    with services.store.read() as reader:
        found = reader.recipient(WORKSPACE, "u1")
    assert found is not None
    return found
