"""What every store keeps: positions in the order of commits, and what notes them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from storage.errors import AlreadyExists
from storage.log import Decision, Status
from storage.port import Store, Writer
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_decision,
    make_event,
    make_message,
    make_recipient,
    make_rule,
)
from tests.storage.rivals import tell_around

CLOSINGS: tuple[Status, ...] = ("released", "revoked", "displaced", "expired", "assumed_sent")


class PlannedError(Exception):
    """Raised by a test's own work."""


def add(store: Store, *ids: str, workspace_id: str = WORKSPACE) -> list[int]:
    """Logs decisions in one write and returns their positions."""
    decisions = [make_decision(decision_id=one, workspace_id=workspace_id) for one in ids]
    store.write(lambda writer: writer.add_decisions([(decision, make_message(decision)) for decision in decisions]))
    return [stored(store, one, workspace_id).position for one in ids]


def stored(store: Store, decision_id: str, workspace_id: str = WORKSPACE) -> Decision:
    with store.read() as reader:
        decision = reader.decision(workspace_id, decision_id)
    assert decision is not None
    return decision


def update(store: Store, decision_id: str, status: Status) -> Decision:
    """Gives a decision this status, says nothing of positions, and returns what is stored then."""
    changed = make_decision(decision_id=decision_id, status=status)
    store.write(lambda writer: writer.update_decision(changed, make_message(changed)))
    return stored(store, decision_id)


def assert_one_by_one(store: Store, writes: int) -> None:
    """Every write of ``tell_around`` knew of its own decision, of all that were committed before it, of none later."""
    with store.read() as reader:
        by_position = sorted(reader.decisions(WORKSPACE, limit=2 * writes).items, key=lambda d: d.position)
        held = reader.messages(WORKSPACE, [d.recipient_id for d in by_position], at(-100), at(100))
    seen = [{m.message_ref: m.known_after for m in held[decision.recipient_id]} for decision in by_position]
    positions = [decision.position for decision in by_position]
    assert len(set(positions)) == writes
    assert [one["after"] for one in seen] == positions
    assert [one["before"] for one in seen] == [0, *positions[:-1]]


def test_positions_ascend_in_the_order_of_commits_over_all_ways_to_add(store: Store) -> None:
    positions = add(store, "a", "b", "c")
    store.write(lambda writer: writer.add_decision(make_decision(decision_id="d", position=1), None))
    positions.append(stored(store, "d").position)
    add(store, "theirs", workspace_id="w2")
    positions += add(store, "e", "f")
    assert positions == sorted(set(positions))
    assert positions[0] > 0


def test_every_way_to_read_a_decision_tells_the_same_positions(store: Store) -> None:
    add(store, "a", "b")
    with store.read() as reader:
        assert {d.decision_id for d in reader.due(WORKSPACE, at(99), limit=9)} == {"a", "b"}
    update(store, "a", "released")
    sent = make_decision(
        decision_id="a", status="sent", provider="p", message_id="m", counted_at=at(7), joined_at=at(8)
    )
    store.write(lambda writer: writer.update_decision(sent, make_message(sent)))

    def places(*found: Decision | None) -> list[tuple[Any, ...]]:
        known = [d for d in found if d is not None]
        noted = ("position", "sent_after", "closed_after", "joined_after", "counted_at", "joined_at")
        return sorted((d.decision_id, *(getattr(d, name) for name in noted)) for d in known)

    with store.read() as reader:
        every = places(reader.decision(WORKSPACE, "a"), reader.decision(WORKSPACE, "b"))
        first, last = (place for _, place, *_ in every)
        assert every == [("a", first, last, last, last, at(7), at(8)), ("b", last, None, None, None, None, None)]
        assert places(*reader.decisions_by_id(WORKSPACE, ["a", "b"]).values()) == every
        assert places(*reader.decisions(WORKSPACE, limit=9).items) == every
        assert places(*(row.decision for row in reader.feedback(WORKSPACE))) == every
        assert places(*reader.decisions_by_message(WORKSPACE, "p", ["m"])) == every[:1]
        assert places(*reader.due(WORKSPACE, at(99), limit=9)) == every[1:]
        assert places(*reader.open_decisions(WORKSPACE, "u1")) == every[1:]


def test_a_write_that_fails_leaves_no_trace_in_positions(store: Store) -> None:
    (first,) = add(store, "a")

    def fails(writer: Writer) -> None:
        writer.add_decision(make_decision(decision_id="lost"), None)
        writer.add_message(foreign_message(message_ref="lost"))
        raise PlannedError

    with pytest.raises(PlannedError):
        store.write(fails)

    def refused_in_part(writer: Writer) -> None:
        with pytest.raises(AlreadyExists):
            writer.add_decision(make_decision(decision_id="a"), None)
        writer.add_message(foreign_message())

    store.write(refused_in_part)
    with store.read() as reader:
        held = reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]
    assert {message.message_ref: message.known_after for message in held} == {"a": 0, "crm-1": first}
    assert add(store, "b")[0] > first


def test_the_first_confirm_notes_how_far_the_log_had_come_and_later_ones_change_nothing(store: Store) -> None:
    add(store, "a")
    assert stored(store, "a").sent_after is None
    add(store, "b", "c")
    assert update(store, "a", "claimed").sent_after is None
    newest = stored(store, "c").position
    assert update(store, "a", "sent").sent_after == newest
    add(store, "d")
    assert update(store, "a", "sent").sent_after == newest
    update(store, "a", "assumed_sent")
    assert update(store, "a", "sent").sent_after == newest, "the first confirm counts"
    assert stored(store, "a").closed_after == stored(store, "d").position


@pytest.mark.parametrize("status", CLOSINGS)
def test_the_last_closing_notes_how_far_the_log_had_come(store: Store, status: Status) -> None:
    add(store, "a", "b")
    assert stored(store, "a").closed_after is None
    first = update(store, "a", status)
    assert (first.closed_after, first.sent_after) == (stored(store, "b").position, None)
    (later,) = add(store, "c")
    assert update(store, "a", status).closed_after == first.closed_after, "it was closed before"
    update(store, "a", "sent")
    assert stored(store, "a").closed_after == first.closed_after
    assert update(store, "a", status).closed_after == later


def test_when_a_message_came_to_count_and_was_joined_is_kept_as_it_was_told_last(store: Store) -> None:
    new = make_decision(decision_id="a", status="sent", counted_at=at(1), joined_at=at(1))
    store.write(lambda writer: writer.add_decision(new, None))
    store.write(lambda writer: writer.add_decisions([(replace(new, decision_id="b"), None)]))
    assert {(one.counted_at, one.joined_at) for one in (stored(store, name) for name in "ab")} == {(None, None)}
    for told in (at(2), at(3) + timedelta(microseconds=1), None):
        changed = replace(new, counted_at=told, joined_at=told)
        store.write(lambda writer, one=changed: writer.update_decision(one, None))  # type: ignore[misc]
        assert (stored(store, "a").counted_at, stored(store, "a").joined_at) == (told, told)


def test_joining_notes_how_far_the_log_had_come(store: Store) -> None:
    add(store, "a", "b")
    places = []
    for hours in (1, 1, 2):
        joined = make_decision(decision_id="a", joined_at=at(hours), joined_after=77)
        store.write(lambda writer, one=joined: writer.update_decision(one, None))  # type: ignore[misc]
        places.append(stored(store, "a").joined_after)
        add(store, f"c{len(places)}")
    first = stored(store, "b").position
    assert places == [first, first, stored(store, "c2").position]


def test_what_a_caller_says_of_positions_is_ignored(store: Store) -> None:
    add(store, "a")
    made_up = make_decision(decision_id="a", status="released", position=77, sent_after=78, closed_after=79)
    store.write(lambda writer: writer.update_decision(made_up, None))
    found = stored(store, "a")
    assert (found.sent_after, found.closed_after) == (None, found.position)

    def work(writer: Writer) -> None:
        writer.add_message(foreign_message(known_after=77))
        writer.add_event(make_event(known_after=77))
        writer.put_recipient(make_recipient())
        writer.put_rule(make_rule(changed_after=77))

    store.write(work)
    assert noted(store) == dict.fromkeys(("message", "event", "recipient", "rule", "version"), found.position)


def test_a_recipient_keeps_the_mark_of_what_rules_go_by(store: Store) -> None:
    add(store, "a")
    store.write(lambda writer: writer.put_recipient(make_recipient(version=1)))
    with store.read() as reader:
        first = reader.recipient(WORKSPACE, "u1")
    assert first is not None
    add(store, "b")
    store.write(lambda writer: writer.put_recipient(replace(first, version=2)))
    with store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1"])["u1"].changed_after == first.changed_after > 0
    store.write(lambda writer: writer.put_recipient(replace(first, version=3, changed_after=-1)))
    with store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1"])["u1"].changed_after == stored(store, "b").position


def noted(store: Store) -> dict[str, int]:
    """What each kind of record beside decisions says it came after."""
    with store.read() as reader:
        messages = reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]
        (event,) = reader.events(WORKSPACE, make_decision())
        recipient = reader.recipient(WORKSPACE, "u1")
        assert recipient is not None
        assert reader.recipients(WORKSPACE, ["u1"])["u1"].changed_after == recipient.changed_after
        return {
            "message": next(m.known_after for m in messages if m.decision_id is None),
            "event": event.known_after,
            "recipient": recipient.changed_after,
            "rule": reader.rules(WORKSPACE)[0].changed_after,
            "version": reader.rule_history(WORKSPACE)[-1].changed_after,
        }


def test_what_is_stored_beside_decisions_notes_the_newest_decision_before_it(store: Store) -> None:
    def everything(writer: Writer) -> None:
        writer.add_message(foreign_message())
        writer.add_events([make_event()])
        writer.put_recipients([make_recipient()])
        writer.put_rule(make_rule())

    store.write(everything)
    assert set(noted(store).values()) == {0}
    add(store, "a", "b")
    newest = stored(store, "b").position
    changes: list[Callable[[Writer], object]] = [
        lambda writer: writer.put_recipient(make_recipient(version=2)),
        lambda writer: writer.put_rule(make_rule(version=2)),
        lambda writer: writer.add_message(foreign_message()),
        lambda writer: writer.add_event(make_event()),
    ]
    for change in changes:
        store.write(change)
    assert noted(store) == {"message": 0, "event": 0, "recipient": newest, "rule": newest, "version": newest}


def test_within_a_write_the_order_of_calls_decides(store: Store) -> None:
    add(store, "a")
    before = stored(store, "a").position

    def displace(writer: Writer) -> None:
        writer.update_decision(make_decision(decision_id="a", status="displaced"), None)
        writer.add_message(foreign_message(message_ref="earlier"))
        writer.add_decision(make_decision(decision_id="b"), None)
        writer.add_message(foreign_message(message_ref="later"))
        writer.update_decision(make_decision(decision_id="b", status="released"), None)
        writer.add_decisions([(make_decision(decision_id="c"), None), (make_decision(decision_id="d"), None)])
        writer.add_message(foreign_message(message_ref="last"))

    store.write(displace)
    new = stored(store, "b")
    assert new.position > before
    assert (stored(store, "a").closed_after, new.closed_after) == (before, new.position)
    with store.read() as reader:
        held = reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]
    last = stored(store, "d").position
    assert {m.message_ref: m.known_after for m in held} == {"earlier": before, "later": new.position, "last": last}


def test_a_position_never_comes_twice_though_the_newest_decisions_are_pruned(store: Store) -> None:
    add(store, "a", "b", "c")
    for one in ("a", "b", "c"):
        update(store, one, "released")
    newest = stored(store, "c").position
    assert store.write(lambda writer: writer.prune(WORKSPACE, at(1000))) == 2
    assert stored(store, "c").position == newest
    store.write(lambda writer: writer.add_event(make_event()))
    assert add(store, "d")[0] > newest
    assert store.write(lambda writer: writer.prune(WORKSPACE, at(1000))) == 1


def test_the_newest_decision_is_kept_with_all_that_belongs_to_it(store: Store) -> None:
    decision = make_decision(status="sent", sent_at=at(6))

    def work(writer: Writer) -> None:
        writer.add_decision(make_decision(decision_id="older", status="released"), None)
        writer.add_decision(decision, make_message(decision))
        writer.add_event(make_event(event_id="names it"))
        writer.add_event(make_event(event_id="names the recipient", decision_id=None, recipient_id="u1"))

    store.write(work)
    assert store.write(lambda writer: writer.prune(WORKSPACE, at(1000))) == 1
    with store.read() as reader:
        assert {event.event_id for event in reader.events(WORKSPACE, decision)} == {"names it", "names the recipient"}
        assert reader.messages(WORKSPACE, ["u1"], at(0), at(9)) == {"u1": (make_message(decision),)}


def test_writes_that_come_together_note_positions_as_if_they_had_come_one_by_one(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tell_around(store, str(number)), range(100)))
    assert_one_by_one(store, 100)


def test_decisions_that_were_sent_when_they_were_logged_note_no_confirm(store: Store) -> None:
    decision = make_decision(status="sent", sent_at=at(1), imported=True)
    store.write(lambda writer: writer.add_decision(decision, make_message(decision)))
    assert stored(store, "dec_1").sent_after is None
    again = replace(decision, sent_at=at(2))
    store.write(lambda writer: writer.update_decision(again, make_message(again)))
    assert stored(store, "dec_1").sent_after is None
