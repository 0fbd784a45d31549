"""What every store does to take a person out of the log: names go, everything that is counted stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage.errors import VersionConflict
from storage.log import Decision
from storage.port import Store
from storage.rhythm import RhythmSum
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_decision,
    make_event,
    make_message,
    make_recipient,
)

EVER = (at(-9_000), at(9_000))


def log(store: Store, decision: Decision) -> None:
    store.write(lambda writer: writer.add_decision(decision, make_message(decision)))


def test_events_about_somebody_are_theirs_and_their_decisions(store: Store) -> None:
    log(store, make_decision(decision_id="dec_1", recipient_id="u1"))
    log(store, make_decision(decision_id="dec_2", request_id="r2", recipient_id="u2"))
    events = [
        make_event(event_id="late", decision_id="dec_1", recipient_id="u1", occurred_at=at(3)),
        make_event(event_id="waiting", decision_id=None, recipient_id="u1", matched=False, occurred_at=at(1)),
        make_event(event_id="unnamed", decision_id="dec_1", recipient_id=None, occurred_at=at(2)),
        make_event(event_id="other", decision_id="dec_2", recipient_id="u2"),
    ]
    store.write(lambda writer: writer.add_events(events))
    told = make_event(event_id="told", decision_id="dec_1", recipient_id="u1", occurred_at=at(4))
    store.write(lambda writer: writer.add_vendor_event(told, "sendgrid", {"email": "a@b"}))
    with store.read() as reader:
        found = reader.events_about(WORKSPACE, "u1")
        assert [(event.event_id, words) for event, words in found] == [
            ("waiting", {}),
            ("unnamed", {}),
            ("late", {}),
            ("told", {"email": "a@b"}),
        ]
        assert reader.events_about(WORKSPACE, "u3") == ()
        assert reader.events_about("w2", "u1") == ()


def test_a_decision_gets_another_owner_and_keeps_its_place(store: Store) -> None:
    first = make_decision(
        decision_id="dec_1", recipient_id="u1", provider="ses", message_id="m1", metadata={"order": 1}
    )
    log(store, first)
    with store.read() as reader:
        stored = reader.decision(WORKSPACE, "dec_1")
    assert stored is not None
    bare = replace(
        stored,
        recipient_id="erased_1",
        request_id="dec_1",
        request_hash=b"",
        message_id="hidden",
        close_reason="released",
        metadata={},
        snapshot=replace(stored.snapshot, context={}, erased=True),
    )
    store.write(lambda writer: writer.erase_decision(bare))
    with store.read() as reader:
        found = reader.decision(WORKSPACE, "dec_1")
        assert found == bare
        assert found is not None
        assert found.position == stored.position
        assert reader.decisions_by_message(WORKSPACE, "ses", ["hidden"]) == (bare,)
        assert reader.decisions_by_message(WORKSPACE, "ses", ["m1"]) == ()
        assert reader.decisions(WORKSPACE, limit=9, recipient_id="u1").items == ()
        assert reader.decisions(WORKSPACE, limit=9, recipient_id="erased_1").items == (bare,)
    with pytest.raises(VersionConflict):
        store.write(lambda writer: writer.erase_decision(replace(bare, decision_id="dec_9")))


def test_an_event_is_put_in_the_place_of_another_and_others_are_dropped(store: Store) -> None:
    decision = make_decision(decision_id="dec_1", recipient_id="u1")
    log(store, decision)
    event = make_event(event_id="e1", decision_id="dec_1", recipient_id="u1", message_id="m", provider="ses")
    store.write(lambda writer: writer.add_vendor_event(event, "ses", {"to": "a@b"}))
    store.write(lambda writer: writer.add_event(make_event(event_id="e2", decision_id="dec_1", recipient_id="u1")))
    bare = replace(event, event_id="x1", recipient_id="erased_1", message_id=None, properties={"hard": True})
    store.write(lambda writer: writer.erase_event("e1", bare))
    store.write(lambda writer: writer.drop_events(WORKSPACE, ["e2", "nobody"]))
    with store.read() as reader:
        assert reader.events(WORKSPACE, decision) == (bare,)
        assert reader.vendor_words(WORKSPACE, "dec_1") == ()
        assert reader.known_events(WORKSPACE, ["e1", "e2", "x1"]).keys() == {"x1"}


def test_messages_pass_to_the_heir_and_those_of_others_get_new_references(store: Store) -> None:
    decision = make_decision(decision_id="dec_1", recipient_id="u1")
    log(store, decision)
    store.write(lambda writer: writer.add_message(foreign_message(recipient_id="u1", message_ref="theirs")))
    store.write(lambda writer: writer.hand_over_messages(WORKSPACE, "u1", "erased_1", {"theirs": "x"}))
    with store.read() as reader:
        assert reader.messages(WORKSPACE, ["u1"], *EVER) == {}
        held = reader.messages(WORKSPACE, ["erased_1"], *EVER)["erased_1"]
        assert {one.message_ref for one in held} == {"dec_1", "x"}


def test_changes_say_why_in_other_words(store: Store) -> None:
    for decision_id in ("dec_1", "dec_2"):
        store.write(
            lambda writer, one=decision_id: writer.add_change(  # type: ignore[misc]  # a default binds the loop's variable
                WORKSPACE, "revoked", at(), decision_id=one, detail=f"event:unsubscribed:of {one}"
            )
        )
    store.write(lambda writer: writer.erase_changes(WORKSPACE, {"dec_1": "event:unsubscribed"}))
    with store.read() as reader:
        details = [change.detail for change in reader.changes(WORKSPACE, after=0, limit=9)]
    assert details == ["event:unsubscribed", "event:unsubscribed:of dec_2"]


def test_a_forgotten_recipient_leaves_no_record_no_rhythm_and_no_count(store: Store) -> None:
    for one in ("u1", "u2"):
        store.write(lambda writer, one=one: writer.put_recipient(make_recipient(recipient_id=one)))  # type: ignore[misc]
        store.write(lambda writer, one=one: writer.add_to_rhythm(WORKSPACE, one, [RhythmSum("sent", 3, 1.0)]))  # type: ignore[misc]
        store.write(lambda writer, one=one: writer.add_unanswered(WORKSPACE, one, 2))  # type: ignore[misc]
    store.write(lambda writer: writer.forget_recipient(WORKSPACE, "u1"))
    with store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1", "u2"]).keys() == {"u2"}
        assert reader.rhythms(WORKSPACE, ["u1", "u2"]).keys() == {"u2"}
        assert reader.unanswered(WORKSPACE, ["u1", "u2"]) == {"u2": 2}
    store.write(lambda writer: writer.put_recipient(make_recipient(recipient_id="u1")))


def test_the_files_can_be_cleaned_at_any_time(store: Store) -> None:
    assert store.scrub()
    assert store.scrub(["somebody"])
