"""What every store does with many packed rows at once: all are new and stored, or none is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.bulk import NewEvents, NewLogged, NewOutcomes
from storage.codec import pack_object, pack_recipient, to_micros
from storage.decision_codec import Details, pack_detail
from storage.errors import OneByOne
from storage.log import Decision, Event, Message, Named, Reply
from storage.port import Store
from storage.records import Recipient
from storage.rules import Capacity, Rule
from tests.storage.builders import WORKSPACE, at, make_decision, make_recipient

EVER = (at(-9_000), at(9_000))


def people(*names: str) -> list[Recipient]:
    return [make_recipient(recipient_id=name, version=1) for name in names]


def add_people(store: Store, *names: str) -> None:
    documents = [pack_recipient(one) for one in people(*names)]
    store.write(lambda writer: writer.add_new_recipients(WORKSPACE, names, documents))


def test_new_recipients_are_as_if_put_one_by_one(store: Store) -> None:
    add_people(store, "u1", "u2")
    with store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1", "u2"]) == {one.recipient_id: one for one in people("u1", "u2")}
        zone = make_recipient().timezone
        assert reader.timezones(WORKSPACE, ["u1", "u2", "u3"]) == {"u1": zone, "u2": zone}


def test_one_that_is_known_or_named_twice_keeps_all_out(store: Store) -> None:
    add_people(store, "u1")
    for names in (("u2", "u1"), ("u3", "u3"), ("u1",)):
        with pytest.raises(OneByOne):
            add_people(store, *names)
    with store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1", "u2", "u3"]).keys() == {"u1"}


def events(*ids: str, **changes: Any) -> NewEvents:
    n = len(ids)
    made = NewEvents(
        received_at=to_micros(at(5)),
        ids=ids,
        types=["viewed"] * n,
        occurred_at=[to_micros(at(i)) for i in range(n)],
        recipients=["u1"] * n,
        campaigns=[None] * n,
        values=[1.5] * n,
        automated=[False] * n,
        properties=[pack_object({"page": i}) for i in range(n)],
    )
    return replace(made, **changes)


def add_events(store: Store, *ids: str) -> None:
    store.write(lambda writer: writer.add_new_events(WORKSPACE, events(*ids)))


def test_new_events_are_as_if_added_one_by_one(store: Store) -> None:
    add_events(store, "e1", "e2")
    with store.read() as reader:
        found = [event for event, _ in reader.events_about(WORKSPACE, "u1")]
    assert found == [
        Event(
            WORKSPACE, f"e{i + 1}", "viewed", at(i), at(5), True, recipient_id="u1", value=1.5, properties={"page": i}
        )
        for i in range(2)
    ]
    for again in (("e3", "e1"), ("e4", "e4")):
        with pytest.raises(OneByOne):
            add_events(store, *again)
    with store.read() as reader:
        assert reader.known_events(WORKSPACE, ["e1", "e2", "e3", "e4"]).keys() == {"e1", "e2"}


def test_events_may_name_decisions_and_messages_too(store: Store) -> None:
    decision = make_decision(decision_id="dec_9", recipient_id="u9")
    store.write(lambda writer: writer.add_decision(decision, None))
    told = replace(
        events("e1", "e2", "e3"),
        matched=[True, False, False],
        decisions=["dec_9", "dec_none", None],
        providers=[None, None, "ses"],
        messages=[None, None, "m"],
        recipients=["u9", None, None],
    )
    store.write(lambda writer: writer.add_new_events(WORKSPACE, told))
    plain = Event(
        WORKSPACE, "e1", "viewed", at(0), at(5), True, decision_id="dec_9", recipient_id="u9", value=1.5,
        properties={"page": 0},
    )  # fmt: skip
    with store.read() as reader:
        assert reader.events(WORKSPACE, decision) == (plain,)
        assert reader.unmatched_events(WORKSPACE) == 2
        assert reader.replies(WORKSPACE, ["dec_9", "dec_none", "x"]) == {
            "dec_9": [Reply("viewed", automated=False, told=False)],
            "dec_none": [Reply("viewed", automated=False, told=False)],
        }


def test_decisions_are_told_in_short(store: Store) -> None:
    waiting = make_decision(decision_id="dec_1", recipient_id="u1", status="reserved", sent_at=None)
    went = make_decision(decision_id="dec_2", recipient_id="u2", status="sent", sent_at=at(3))
    gone = make_decision(decision_id="dec_3", recipient_id="u3")
    gone = replace(gone, snapshot=replace(gone.snapshot, erased=True))
    store.write(lambda writer: writer.add_decisions([(one, None) for one in (waiting, went, gone)]))
    with store.read() as reader:
        found = reader.named(WORKSPACE, ["dec_1", "dec_2", "dec_3", "dec_4"])
    assert found == {one.decision_id: Named.of(one) for one in (waiting, went, gone)}
    assert (found["dec_1"].at, found["dec_2"].at, found["dec_3"].erased) == (waiting.send_at, at(3), True)
    written = store.write(lambda writer: writer.named(WORKSPACE, ["dec_1", "dec_4"]))
    assert written == {"dec_1": Named.of(waiting)}


def test_counts_of_unanswered_messages_are_cleared_for_many(store: Store) -> None:
    for name in ("u1", "u2", "u3"):
        store.write(lambda writer, name=name: writer.add_unanswered(WORKSPACE, name, 2))  # type: ignore[misc]
    store.write(lambda writer: writer.clear_all_unanswered(WORKSPACE, ["u1", "u3", "u3", "nobody"]))
    store.write(lambda writer: writer.clear_all_unanswered(WORKSPACE, []))
    with store.read() as reader:
        assert reader.unanswered(WORKSPACE, ["u1", "u2", "u3"]) == {"u2": 2}


def test_hours_that_hold_something_unprompted_are_found(store: Store) -> None:
    hours = [to_micros(at(i)) for i in range(4)]
    told = events(
        "a", "b", "c", "d", automated=[False, False, True, False], types=["viewed", "bought", "viewed", "opened"]
    )
    store.write(lambda writer: writer.add_new_events(WORKSPACE, told))
    wanted = [(name, hour) for name in ("u1", "u2") for hour in hours] * 70  # more than one statement takes
    with store.read() as reader:
        assert reader.unprompted_hours(WORKSPACE, wanted, ["opened"]) == {("u1", hours[0]), ("u1", hours[1])}
        assert reader.unprompted_hours(WORKSPACE, wanted, []) == {("u1", hours[i]) for i in (0, 1, 3)}
        assert reader.unprompted_hours(WORKSPACE, [], ["opened"]) == set()


def test_rhythms_of_many_add_up(store: Store) -> None:
    store.write(
        lambda writer: writer.add_to_rhythms(WORKSPACE, "active", [("u1", 3, 1.0), ("u2", 3, 1.0), ("u1", 3, 0.5)])
    )
    with store.read() as reader:
        found = reader.rhythms(WORKSPACE, ["u1", "u2"])
    assert {name: [(s.kind, s.hour, s.weight) for s in sums] for name, sums in found.items()} == {
        "u1": [("active", 3, 1.5)],
        "u2": [("active", 3, 1.0)],
    }


def imported(decision_id: str, variant: str | None) -> Decision:
    sent = None if variant is None else at(1)
    made = make_decision(
        decision_id=decision_id,
        request_id=f"imp of {decision_id}",
        request_hash=f"imp of {decision_id}".encode(),
        status="no_send" if variant is None else "sent",
        group="treated",
        mode="live",
        imported=True,
        variant_id=variant,
        channel=None if variant is None else "email",
        send_at=sent,
        sent_at=sent,
        reasons=(),
        metadata={},
    )
    snapshot = replace(made.snapshot, window_start=at(1), window_end=at(2), cost=7, shadow=None)
    return replace(
        made, snapshot=snapshot, claimed_at=None, provider=None, message_id=None, closed_at=None, close_reason=None
    )


def logged(*decisions: Decision) -> NewLogged:
    first = decisions[0]
    return NewLogged(
        campaign_id=first.campaign_id,
        campaign_version=first.campaign_version,
        category=first.category,
        policy_id=first.policy_id,
        actions=first.actions,
        eligible=first.eligible,
        ids=[d.decision_id for d in decisions],
        request_ids=[d.request_id for d in decisions],
        recipients=[d.recipient_id for d in decisions],
        decided_at=[to_micros(d.decided_at) for d in decisions],
        send_at=[to_micros(at(1)) for _ in decisions],
        propensities=[d.propensity for d in decisions],
        action=[d.action or 0 for d in decisions],
        variants=[d.variant_id for d in decisions],
        channels=[d.channel for d in decisions],
        costs=[d.snapshot.cost for d in decisions],
        details=[pack_detail(d.snapshot, (), {}) for d in decisions],
        outcomes=NewOutcomes(
            to_micros(at(9)), [0], [f"e of {first.decision_id}"], ["clicked"], [to_micros(at(2))], [None]
        ),
    )


def test_imported_decisions_come_with_their_messages_and_events(store: Store) -> None:
    both = [
        replace(one, eligible_actions=one.actions, action=one.action or 0)
        for one in (imported("dec_1", "mens"), imported("dec_2", None))
    ]
    store.write(lambda writer: writer.add_new_logged(WORKSPACE, logged(*both)))
    with store.read() as reader:
        assert reader.decisions_by_id(WORKSPACE, ["dec_1", "dec_2"]) == {one.decision_id: one for one in both}
        d = both[0]
        held = Message(
            WORKSPACE, d.recipient_id, at(1), "dec_1", "email", d.category, d.campaign_id, "mens", "dec_1", cost=7
        )
        assert reader.messages(WORKSPACE, [d.recipient_id], *EVER) == {d.recipient_id: (held,)}
        (event,) = reader.events(WORKSPACE, d)
        last = reader.decision(WORKSPACE, "dec_2")
        assert last is not None
        assert (event.event_id, event.type, event.decision_id, event.known_after) == (
            "e of dec_1",
            "clicked",
            "dec_1",
            last.position,
        )
    with pytest.raises(OneByOne):
        store.write(lambda writer: writer.add_new_logged(WORKSPACE, logged(imported("dec_3", "mens"), both[0])))
    with store.read() as reader:
        assert reader.decision(WORKSPACE, "dec_3") is None


def test_where_a_rule_counts_messages_they_are_stored_one_by_one(store: Store) -> None:
    store.write(lambda writer: writer.put_rule(Rule(WORKSPACE, "r", "capacity", Capacity(9, per_minutes=60))))
    with pytest.raises(OneByOne):
        store.write(lambda writer: writer.add_new_logged(WORKSPACE, logged(imported("dec_1", "mens"))))


def test_details_in_parts_are_the_documents_of_the_whole() -> None:
    snapshot = imported("dec_1", "mens").snapshot
    for context in ({}, {"a": 1, "ü": "x\n"}):
        whole = pack_detail(replace(snapshot, context=context), (), {})
        members = pack_object(context)
        assert Details.of(snapshot).pack(to_micros(at(1)), "" if members is None else members.decode()[1:-1]) == whole
