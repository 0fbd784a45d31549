"""Erasing a person: who they were is in no file any more, what was decided and what came of it still counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from optimizer.config import Settings
from optimizer.errors import Conflict, Invalid, NotFound, PreconditionFailed
from optimizer.service import erasing, exports, feedback, settle, setup
from optimizer.service.explain import explain
from optimizer.service.imports import import_file
from optimizer.service.importtargets import BadRow
from optimizer.service.ingest import ingest
from optimizer.service.report import report
from optimizer.service.requests import DecisionRequest, EventInput, RecipientPatch, VendorEvent
from optimizer.service.wiring import Services, open_services
from simulations.audit import audit
from storage.errors import StoreUnavailable
from storage.log import Decision, Message
from storage.port import Reader
from storage.records import Consent, EventMapping, OutcomeWeight, Recipient, Suppression
from tests.postgresql import Server
from tests.service.asking import ask, meanwhile, stored
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.rows import history_rows, write

T = TypeVar("T")
PEOPLE = 6


def tokens(i: int) -> list[str]:
    """Everything by which person ``i`` could be known."""
    kinds = (
        "id",
        "old-mail",
        "mail",
        "city",
        "cart",
        "order",
        "request",
        "message",
        "event",
        "agent",
        "foreign",
        "why",
    )
    return [f"{kind}-{i:04d}-{i * 7919 % 10_007:05d}" for kind in kinds]


def live(services: Services, clock: FakeClock, i: int) -> Decision:
    """What one person goes through: a record that changes, a message, its open and order, another system's message."""
    name, old, mail, city, cart, order, request, message, event, agent, foreign, _ = tokens(i)
    for address in (old, mail):
        person = Recipient(
            WORKSPACE, name, timezone="Europe/Berlin", attributes={"email": f"{address}@example.org", "city": city}
        )
        setup.put_recipient(services, person)
    visit = EventInput("visited", clock(), event_id=f"{event}-visit", recipient_id=name, properties={"page": city})
    ingest(services, WORKSPACE, [visit])
    settle.record_send(services, Message(WORKSPACE, name, clock(), foreign, "email", "marketing"))
    made = ask(services, name, request_id=request, context={"cart": cart}, metadata={"order": order}, immediate=True)
    settle.claim(services, WORKSPACE, made.decision_id)
    settle.confirm(services, WORKSPACE, made.decision_id, made.send_at, "sendgrid", message)
    words = {"email": f"{mail}@example.org", "useragent": agent, "event": "open"}
    opened = VendorEvent(
        "opened", clock(), event_id=event, provider="sendgrid", message_id=message, vendor="sendgrid", words=words
    )
    bought = EventInput(
        "Order Completed",
        clock(),
        event_id=order,
        decision_id=made.decision_id,
        properties={"revenue": 10.5 + i if i % 2 else f"{10.5 + i}", "to": city},
    )
    assert ingest(services, WORKSPACE, [opened, bought]).accepted == 2
    if i % 3 == 0:
        left = EventInput("unsubscribed", clock(), event_id=f"{event}-left", decision_id=made.decision_id)
        ingest(services, WORKSPACE, [left])
    return made


@pytest.fixture
def decided(services: Services, clock: FakeClock) -> list[Decision]:
    shop = campaign(
        allow_no_send=False,
        channels=campaign().channels[:1],
        objective={"converted": OutcomeWeight(per_value=1.0)},
        attribution_hours={"converted": 24.0},
        event_mapping={"Order Completed": EventMapping("converted", "revenue")},
    )
    setup.put_campaign(services, shop)
    made = []
    for i in range(PEOPLE):
        made.append(live(services, clock, i))
        clock.forward(minutes=5)
    return made


def name_of(i: int) -> str:
    return tokens(i)[0]


def erase(services: Services, i: int) -> erasing.Erased:
    return erasing.erase(services, WORKSPACE, name_of(i))


def read(services: Services, query: Callable[[Reader], T]) -> T:
    with services.store.read() as reader:
        return query(reader)


def rejected(services: Services, *events: EventInput) -> list[str]:
    return [one.code for one in ingest(services, WORKSPACE, events).rejected]


@pytest.fixture
def sqlite_files(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of the database's files."""
    if request.config.getoption("store") != "sqlite":
        pytest.skip("it looks into the files of SQLite; PostgreSQL frees what is deleted by itself (VACUUM)")
    return tmp_path


def found_in(folder: Path, words: Sequence[str]) -> set[str]:
    files = [path.read_bytes() for path in folder.iterdir() if path.name.startswith("test.db")]
    assert files
    return {word for word in words if any(word.encode() in raw for raw in files)}


def test_no_file_holds_a_word_about_an_erased_person(
    services: Services, decided: list[Decision], clock: FakeClock, sqlite_files: Path
) -> None:
    settle.release(services, WORKSPACE, ask(services, name_of(1)).decision_id, tokens(1)[-1])
    for i in range(PEOPLE, 4 * PEOPLE):
        live(services, clock, i)
    gone = range(1, 4 * PEOPLE, 2)
    assert found_in(sqlite_files, tokens(1)) >= set(tokens(1)) - {tokens(1)[1]}
    for i in gone:
        assert erase(services, i).scrubbed
    assert found_in(sqlite_files, [word for i in gone for word in tokens(i)]) == set()
    assert found_in(sqlite_files, [name_of(0), name_of(2)]) == {name_of(0), name_of(2)}


def test_the_report_says_the_same_afterwards(services: Services, decided: list[Decision], clock: FakeClock) -> None:
    clock.forward(days=3)
    before = report(services, WORKSPACE, "spring")
    services.reports.__init__()  # type: ignore[misc]  # nothing is kept from before
    for i in range(4):
        erase(services, i)
    assert report(services, WORKSPACE, "spring") == before


def test_nothing_is_learned_from_an_erased_person(services: Services, decided: list[Decision]) -> None:
    def known() -> int:
        return read(services, lambda reader: len(feedback.load(reader, WORKSPACE, services.clock()).rows))

    assert known() == PEOPLE
    erase(services, 4)
    assert known() == PEOPLE - 1
    with pytest.raises(NotFound, match="erased"):
        explain(services, WORKSPACE, decided[4].decision_id)


def test_feedback_is_exported_without_them(services: Services, decided: list[Decision], tmp_path: Path) -> None:
    erase(services, 4)
    for what, rows in (("feedback", PEOPLE - 1), ("decisions", PEOPLE)):
        path = tmp_path / f"{what}.ndjson"
        assert exports.export(services, WORKSPACE, what, path, exports.Selection()) == rows  # type: ignore[arg-type]


def test_the_audit_stays_clean(services: Services, decided: list[Decision]) -> None:
    for i in range(4):
        erase(services, i)
    checked = read(services, lambda reader: audit(reader, WORKSPACE))
    assert checked.clean
    assert checked.reservations == PEOPLE


def test_what_is_reserved_is_called_off_and_the_sender_learns_of_it(
    services: Services, decided: list[Decision]
) -> None:
    waiting = ask(services, name_of(2))
    assert erase(services, 2).revoked == 1
    assert stored(services, waiting).status == "revoked"
    changes = read(services, lambda reader: reader.changes(WORKSPACE, after=0, limit=10))
    assert [(c.decision_id, c.kind, c.detail) for c in changes] == [(waiting.decision_id, "revoked", "erased")]
    with pytest.raises(Conflict, match="erased"):
        settle.claim(services, WORKSPACE, waiting.decision_id)


@pytest.mark.parametrize("confirmed", [False, True])
def test_the_change_feed_keeps_no_event_id_of_theirs(
    services: Services, decided: list[Decision], confirmed: bool
) -> None:
    waiting = ask(services, name_of(2))
    left = EventInput("unsubscribed", services.clock(), event_id="left-for-good", recipient_id=name_of(2))
    ingest(services, WORKSPACE, [left])
    if confirmed:
        settle.confirm(services, WORKSPACE, waiting.decision_id, services.clock(), "sendgrid", "gone already")
    erase(services, 2)
    changes = read(services, lambda reader: reader.changes(WORKSPACE, after=0, limit=10))
    assert [(c.decision_id, c.detail) for c in changes] == [(waiting.decision_id, "event:unsubscribed")]


def test_a_stale_list_cannot_write_to_them(services: Services, decided: list[Decision]) -> None:
    erase(services, 2)
    rows = [DecisionRequest("spring", name_of(i), recipient=RecipientPatch(attributes={"x": 1})) for i in (1, 2)]
    first, second = services.decider.decide_batch(WORKSPACE, rows, "run")
    assert isinstance(first, Decision)
    assert isinstance(second, Invalid)
    assert second.code == "erased"
    assert read(services, lambda reader: reader.recipient(WORKSPACE, name_of(2))) is None


def test_an_erasure_between_the_draw_and_the_commit_counts(
    services: Services, decided: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(services, monkeypatch, lambda: erase(services, 2))
    with pytest.raises(Invalid, match="erased"):
        ask(services, name_of(2))


def test_a_disk_without_room_to_clean_the_files_is_told_and_the_person_is_erased(
    services: Services, decided: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> bool:
        raise StoreUnavailable("database or disk is full")

    with monkeypatch.context() as cramped:
        cramped.setattr(services.store, "scrub", full)
        done = erase(services, 2)
    assert (done.decisions, done.scrubbed) == (1, False)
    assert erase(services, 2) == erasing.Erased(scrubbed=True)


def test_a_repeated_request_is_told_why_there_is_no_answer(services: Services, decided: list[Decision]) -> None:
    name, _, _, _, cart, order, request, *_ = tokens(2)
    erase(services, 2)
    with pytest.raises(Conflict) as refused:
        ask(services, name, request_id=request, context={"cart": cart}, metadata={"order": order}, immediate=True)
    assert refused.value.code == "erased"


def test_late_reports_make_no_profile_anew(services: Services, decided: list[Decision], sqlite_files: Path) -> None:
    name, _, mail, _, _, _, request, message, event, *_ = tokens(2)
    erase(services, 2)
    at = services.clock()
    words = {"email": f"{mail}@example.org"}
    late = VendorEvent("opened", at, provider="sendgrid", message_id=message, vendor="sendgrid", words=words)
    by_id = EventInput("clicked", at, event_id=f"{event}-late", decision_id=decided[2].decision_id)
    by_request = EventInput("clicked", at, event_id=f"{event}-late2", request_id=request)
    by_name = EventInput("converted", at, event_id=f"{event}-late3", recipient_id=name)
    assert rejected(services, late, by_id, by_request, by_name) == ["erased"] * 4
    with pytest.raises(Invalid, match="erased"):
        settle.record_send(services, Message(WORKSPACE, name, at, "again", "email", "marketing"))
    with pytest.raises(NotFound):
        exports.of_recipient(services, WORKSPACE, name)
    assert services.store.scrub()
    assert found_in(sqlite_files, tokens(2)) == set()


def test_what_waited_for_its_decision_goes_too(services: Services, decided: list[Decision]) -> None:
    waiting = EventInput("clicked", services.clock(), provider="ses", message_id="early", recipient_id=name_of(2))
    ingest(services, WORKSPACE, [waiting])
    assert read(services, lambda reader: reader.unmatched_events(WORKSPACE)) == 1
    erase(services, 2)
    assert read(services, lambda reader: reader.unmatched_events(WORKSPACE)) == 0


def test_a_late_confirm_is_a_fact_and_names_nobody(
    services: Services, decided: list[Decision], sqlite_files: Path
) -> None:
    waiting = ask(services, name_of(2))
    erase(services, 2)
    told = settle.confirm(services, WORKSPACE, waiting.decision_id, services.clock(), "sendgrid", "message-late")
    assert told.status == "sent"
    opened = EventInput("opened", services.clock(), provider="sendgrid", message_id="message-late")
    assert rejected(services, opened) == ["erased"]
    assert services.store.scrub()
    assert found_in(sqlite_files, ["message-late"]) == set()
    assert read(services, lambda reader: audit(reader, WORKSPACE)).clean


@pytest.mark.parametrize("provider_told_before", [True, False])
def test_what_waited_under_a_message_id_goes_when_a_late_confirm_tells_whose_it_is(
    services: Services, decided: list[Decision], provider_told_before: bool
) -> None:
    made = ask(services, name_of(2))
    if provider_told_before:
        settle.confirm(services, WORKSPACE, made.decision_id, services.clock(), "acme", None)
    for message in ("theirs", "another's"):
        arrived = VendorEvent(
            "delivered",
            services.clock(),
            provider="acme",
            message_id=message,
            vendor="standard",
            words={"email": "anna@secret.example"},
        )
        assert ingest(services, WORKSPACE, [arrived]).unmatched == 1
    erase(services, 2)
    for _ in range(2):
        provider = None if provider_told_before else "acme"
        settle.confirm(services, WORKSPACE, made.decision_id, services.clock(), provider, "theirs")
    with pytest.raises(Conflict, match="message_id another one is stored, which was erased"):  # a caller's mistake
        settle.confirm(services, WORKSPACE, made.decision_id, services.clock(), "acme", "another's")
    assert read(services, lambda reader: reader.unmatched_events(WORKSPACE)) == 1, "another message's is not theirs"
    opened = EventInput("opened", services.clock(), provider="acme", message_id="theirs")
    assert rejected(services, opened) == ["erased"]
    assert read(services, lambda reader: audit(reader, WORKSPACE)).clean


def test_who_is_put_back_keeps_the_refusals_that_events_recorded(
    services: Services, decided: list[Decision], clock: FakeClock
) -> None:
    for i in (2, 3):  # 3 had unsubscribed
        erase(services, i)
        setup.put_recipient(services, Recipient(WORKSPACE, name_of(i), channels={"email": Consent(True)}))
    clock.forward(days=1)
    assert ask(services, name_of(2)).status == "reserved"
    assert ask(services, name_of(3)).status == "withheld"
    setup.put_recipients(services, WORKSPACE, [Recipient(WORKSPACE, name_of(3))])
    assert ask(services, name_of(3)).status == "withheld"
    assert ingest(services, WORKSPACE, [EventInput("visited", clock(), recipient_id=name_of(2))]).accepted == 1
    erase(services, 3)
    setup.put_recipients(services, WORKSPACE, [Recipient(WORKSPACE, name_of(3))])
    assert ask(services, name_of(3)).status == "withheld"


def test_a_second_erasure_brings_no_refusal_back_that_was_lifted(
    services: Services, decided: list[Decision], clock: FakeClock
) -> None:
    for lifts in (False, True):
        erase(services, 3)  # 3 had unsubscribed
        setup.put_recipient(services, Recipient(WORKSPACE, name_of(3)))
        clock.forward(minutes=5)
        assert ask(services, name_of(3)).status == "withheld"
        if lifts:
            ingest(services, WORKSPACE, [EventInput("resubscribed", clock(), recipient_id=name_of(3))])
    clock.forward(minutes=5)
    erase(services, 3)
    assert setup.put_recipient(services, Recipient(WORKSPACE, name_of(3)))[0].suppressed == ()
    assert ask(services, name_of(3)).status == "reserved"


def test_what_a_caller_had_suppressed_is_the_callers_to_say_again(services: Services, decided: list[Decision]) -> None:
    refused = Recipient(WORKSPACE, name_of(2), suppressed=(Suppression("email"),))
    setup.put_recipient(services, refused)
    erase(services, 2)
    back = setup.put_recipient(services, Recipient(WORKSPACE, name_of(2)))[0]
    assert back.suppressed == ()


def test_imports_bring_nobody_back_but_one_of_recipients(
    services: Services, decided: list[Decision], tmp_path: Path
) -> None:
    rows = history_rows(2)
    for row in rows:
        row["recipient_id"] = name_of(2)
    erase(services, 2)
    bad: list[BadRow] = []
    done = import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", rows), on_bad=bad.append)
    assert (done.stored, [one.error.code for one in bad]) == (0, ["erased"] * 2)
    import_file(services, WORKSPACE, "recipients", write(tmp_path / "r.csv", [{"recipient_id": name_of(2)}]))
    assert import_file(services, WORKSPACE, "history", write(tmp_path / "h2.csv", [*rows, rows[0]])).stored == 3


def test_again_it_changes_nothing_and_strangers_are_not_found(services: Services, decided: list[Decision]) -> None:
    first = erase(services, 3)
    assert (first.decisions, first.events, first.revoked) == (1, 4, 0)
    assert erase(services, 3) == erasing.Erased()
    with pytest.raises(NotFound, match="stranger"):
        erasing.erase(services, WORKSPACE, "stranger")


def test_who_was_changed_meanwhile_is_not_erased_by_whoever_knew_the_old_version(
    services: Services, decided: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    with services.store.read() as reader:
        known = reader.recipient(WORKSPACE, name_of(3))
    assert known is not None
    meanwhile(services, monkeypatch, lambda: setup.put_recipient(services, replace(known, timezone="Asia/Tokyo")))
    with pytest.raises(PreconditionFailed, match="version"):
        erasing.erase(services, WORKSPACE, name_of(3), known.version)
    assert stored(services, decided[3]).recipient_id == name_of(3)
    assert erasing.erase(services, WORKSPACE, name_of(3), known.version + 1).decisions == 1


def test_two_people_are_two_pseudonyms_and_one_person_one(services: Services, decided: list[Decision]) -> None:
    again = ask(services, name_of(2))
    for i in (2, 4):
        erase(services, i)
    names = [stored(services, one).recipient_id for one in (decided[2], again, decided[4])]
    assert names[0] == names[1] != names[2]
    assert not {name_of(2), name_of(4)} & set(names)


def test_the_export_of_a_person_holds_what_is_stored(services: Services, decided: list[Decision]) -> None:
    name, _, mail, city, cart, order, *_ = tokens(3)
    told = exports.of_recipient(services, WORKSPACE, name)
    assert told["recipient"]["attributes"] == {"email": f"{mail}@example.org", "city": city}
    assert [one["context"]["cart"] for one in told["decisions"]] == [cart]
    assert sorted(one["type"] for one in told["events"]) == ["Order Completed", "opened", "unsubscribed", "visited"]
    assert [one["words"]["email"] for one in told["events"] if one["words"]] == [f"{mail}@example.org"]
    assert [one["message_ref"] for one in told["messages"]] == [tokens(3)[10]]
    assert told["rhythm"] is not None
    assert order in str(told)


def test_the_messages_of_other_systems_pass_to_the_pseudonym(services: Services, decided: list[Decision]) -> None:
    erase(services, 2)
    heir = stored(services, decided[2]).recipient_id
    span = (START - timedelta(days=1), START + timedelta(days=1))
    held = read(services, lambda reader: reader.messages(WORKSPACE, [heir], *span))[heir]
    assert len(held) == 2


def test_on_postgresql_names_go_as_well(postgresql: Server, clock: FakeClock) -> None:
    url = postgresql.take()
    services = open_services(Settings(database=url), clock, seed=7, watch=False)
    try:
        setup.ensure_workspace(services, WORKSPACE)
        setup.put_campaign(services, campaign(allow_no_send=False, channels=campaign().channels[:1]))
        made = live(services, clock, 3)
        assert erase(services, 3) == erasing.Erased(decisions=1, events=4)
        assert stored(services, made).recipient_id.startswith("erased_")
        with pytest.raises(Invalid, match="erased"):
            ask(services, name_of(3))
        assert read(services, lambda reader: audit(reader, WORKSPACE)).clean
    finally:
        services.close()
        postgresql.give_back(url)
