"""What every store keeps: webhook sources, used tokens, vendors' words and the labels of events."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from storage.errors import AlreadyExists, VersionConflict
from storage.port import Store, Writer
from storage.webhooks import Label, VendorWords, WebhookSource
from tests.storage.builders import NOON, WORKSPACE, at, make_decision, make_event, make_message

SOURCE = WebhookSource(WORKSPACE, "main", "sendgrid", ("k1", "k2"), (), created_at=NOON, updated_at=NOON)
MACHINE = Label(True, 0.9, "burst")
PERSON = Label(False, 0.0, "")
WORDS = {"event": "open", "ü": ["\0", None, 0.1]}


def put(store: Store, source: WebhookSource) -> None:
    store.write(lambda writer: writer.put_webhook_source(source))


def test_a_source_comes_back_by_its_id_alone(store: Store) -> None:
    put(store, SOURCE)
    topics = replace(SOURCE, source_id="aws", vendor="ses", secrets=(), topic_arns=("arn:aws:sns:eu-west-1:1:t",))
    put(store, topics)
    put(store, replace(SOURCE, source_id="theirs", workspace_id="w2"))
    with store.read() as reader:
        assert reader.webhook_source("main") == SOURCE
        assert reader.webhook_source("nobody") is None
        assert reader.webhook_sources(WORKSPACE) == (topics, SOURCE)
        assert reader.webhook_sources("w3") == ()
        assert (reader.heard_vendors(WORKSPACE), reader.heard_vendors("w3")) == (True, False)


def test_a_vendors_event_joins_by_its_message_whatever_decision_it_names(store: Store) -> None:
    waiting = make_event(decision_id="order-7", provider="sendgrid", message_id="m", matched=False)
    of_it = replace(waiting, event_id="of it", decision_id="dec_1")
    others = [
        replace(waiting, event_id="n", message_id="n"),
        replace(waiting, event_id="w", workspace_id="w2"),
    ]

    def report(writer: Writer) -> None:
        for event in (waiting, of_it, *others):
            writer.add_vendor_event(event, "sendgrid", WORDS)
        writer.add_event(replace(waiting, event_id="a caller's"))

    store.write(report)
    confirmed = make_decision(status="sent", provider="sendgrid", message_id="m", sent_at=at(6))
    joined = store.write(lambda writer: writer.match_events(WORKSPACE, confirmed))
    assert {event.event_id for event in joined} == {waiting.event_id, "of it"}
    assert len(joined) == 2
    assert {event.decision_id for event in joined} == {"dec_1"}
    with store.read() as reader:
        assert {event.event_id for event in reader.events(WORKSPACE, confirmed)} == {waiting.event_id, "of it"}
        assert reader.unmatched_events(WORKSPACE) == 2


def test_versions_of_a_source_follow_each_other_and_deletion_is_one(store: Store) -> None:
    put(store, SOURCE)
    for version in (1, 3):
        with pytest.raises(VersionConflict):
            put(store, replace(SOURCE, version=version))
    gone = replace(SOURCE, version=2, secrets=(), deleted=True)
    put(store, gone)
    with store.read() as reader:
        assert reader.webhook_source("main") == gone
        assert reader.webhook_sources(WORKSPACE) == ()
        assert reader.heard_vendors(WORKSPACE), "its events keep its words"
    put(store, replace(SOURCE, version=3))
    with store.read() as reader:
        assert reader.webhook_sources(WORKSPACE) == (replace(SOURCE, version=3),)


def test_a_source_id_never_passes_to_another_workspace(store: Store) -> None:
    put(store, SOURCE)
    with pytest.raises(AlreadyExists):
        put(store, replace(SOURCE, workspace_id="w2"))
    put(store, replace(SOURCE, version=2, secrets=(), deleted=True))
    with pytest.raises(AlreadyExists):
        put(store, replace(SOURCE, workspace_id="w2"))
    with store.read() as reader:
        assert reader.webhook_sources("w2") == ()


def test_a_token_is_used_for_one_thing_until_it_is_over(store: Store) -> None:
    def use(token: str, used_for: str, hours: float = 0.0, workspace: str = WORKSPACE, source: str = "main") -> str:
        now, until = at(hours), at(hours) + timedelta(hours=1)
        return store.write(lambda writer: writer.use_token(workspace, source, token, used_for, now=now, until=until))

    assert use("t", "first") == "first"
    assert use("t", "second") == "first"
    assert use("t", "first") == "first"
    assert use("t", "second", workspace="w2") == "second"
    assert use("t", "second", source="other") == "second"
    assert use("t", "second", hours=1) == "first"
    for n in range(3):
        use(f"later{n}", "x", hours=2)
    assert use("t", "second", hours=2) == "second"


def test_a_vendors_words_stay_beside_the_event_and_go_with_the_decision(store: Store) -> None:
    event = make_event(provider="sendgrid", message_id="m", confidence=0.9, reason="burst", automated=True)
    later = make_event(event_id="a", occurred_at=at(9))
    decision = make_decision(status="released")

    def add() -> tuple[bool, ...]:
        return store.write(
            lambda writer: (
                writer.add_vendor_event(event, "sendgrid", WORDS),
                writer.add_vendor_event(later, "ses", {}),
                writer.add_event(make_event(event_id="plain")),
                writer.add_vendor_event(make_event(event_id="b", decision_id=None), "ses", WORDS),
                writer.add_vendor_event(make_event(event_id="c", decision_id="dec_2"), "ses", WORDS),
            )
        )

    assert add() == (True,) * 5
    assert add() == (False,) * 5
    with store.read() as reader:
        assert reader.vendor_words(WORKSPACE, "dec_1") == (
            VendorWords(event, "sendgrid", WORDS),
            VendorWords(later, "ses", {}),
        )
        assert reader.vendor_words("w2", "dec_1") == ()
        assert event in reader.events(WORKSPACE, decision)
        assert reader.vendor_decisions(WORKSPACE, limit=9) == ("dec_1", "dec_2")
        assert reader.vendor_decisions(WORKSPACE, limit=1) == ("dec_1",)
        assert reader.vendor_decisions(WORKSPACE, after="dec_1", limit=9) == ("dec_2",)
        assert reader.vendor_decisions("w2", limit=9) == ()
    store.write(lambda writer: writer.add_decision(decision, make_message(decision)))
    store.write(lambda writer: writer.add_decision(make_decision(decision_id="dec_9", request_id="r9"), None))
    store.write(lambda writer: writer.prune(WORKSPACE, at(100)))
    with store.read() as reader:
        assert reader.vendor_words(WORKSPACE, "dec_1") == ()


def test_labelled_events_of_a_decision_are_counted_up_to_a_limit(store: Store) -> None:
    def add(name: str, confidence: float | None, decision_id: str | None = "dec_1") -> None:
        event = make_event(event_id=name, confidence=confidence, decision_id=decision_id)
        store.write(lambda writer: writer.add_vendor_event(event, "ses", WORDS))

    for name in "abc":
        add(name, 0.0)
    add("machine", 0.9)
    add("plain", None)
    add("of another", 0.0, "dec_2")
    add("of none", 0.0, None)
    with store.read() as reader:
        counts = [reader.labelled(WORKSPACE, "dec_1", limit=limit) for limit in (1, 3, 4, 9)]
        assert counts == [1, 3, 4, 4]
        assert reader.labelled("w2", "dec_1", limit=9) == 0


def test_a_new_label_notes_where_in_the_log_it_turned_the_old_one_round(store: Store) -> None:
    store.write(lambda writer: writer.add_event(make_event()))

    def label(label: Label) -> None:
        store.write(lambda writer: writer.label_events(WORKSPACE, [("ev_1", label), ("unknown", label)]))

    def stored() -> tuple[bool, float | None, str, tuple[int, ...]]:
        with store.read() as reader:
            (event,) = reader.events(WORKSPACE, make_decision())
        return event.automated, event.confidence, event.reason, event.flipped_after

    assert stored() == (False, None, "", ())
    label(PERSON)
    assert stored() == (False, 0.0, "", ())
    label(MACHINE)
    assert stored() == (True, 0.9, "burst", (0,))
    store.write(lambda writer: writer.add_decision(make_decision(), None))
    with store.read() as reader:
        logged = reader.decision(WORKSPACE, "dec_1")
    assert logged is not None
    label(replace(MACHINE, confidence=0.95))
    label(PERSON)
    assert stored() == (False, 0.0, "", (0, logged.position))


def test_an_unmatched_event_joins_the_decision_that_another_report_of_it_names(store: Store) -> None:
    waiting = make_event(decision_id=None, provider="ses", message_id="m", matched=False)
    named = make_event(recipient_id="u1", campaign_id="spring", provider="ses", message_id="m")
    assert store.write(lambda writer: writer.join_event(named)) is None
    store.write(lambda writer: writer.add_event(waiting))
    assert store.write(lambda writer: writer.join_event(replace(named, workspace_id="w2"))) is None
    store.write(lambda writer: writer.add_decision(make_decision(), None))
    told = replace(named, type="unsubscribed", value=7.0, properties={"hard": False})
    assert store.write(lambda writer: writer.join_event(told)) == named
    assert store.write(lambda writer: writer.join_event(replace(named, decision_id="dec_2"))) is None
    with store.read() as reader:
        (joined,), logged = reader.events(WORKSPACE, make_decision()), reader.decision(WORKSPACE, "dec_1")
        assert logged is not None
        assert (joined, joined.known_after) == (named, logged.position)
        assert reader.unmatched_events(WORKSPACE) == 0
