"""What every store keeps: blocks of the log, and stamps that change with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from storage.blocks import BLOCK, Stamps
from storage.log import Event, Reason, Status
from storage.port import Store, Writer
from storage.webhooks import Label
from tests.storage.builders import WORKSPACE, at, make_decision, make_event, make_workspace

OTHER = "w2"
MANY = BLOCK + 10
KIND = make_event().type


@pytest.fixture
def filled(store: Store) -> Store:
    """More decisions and events than a block has, all of one recipient, and one of each in another workspace."""

    def work(writer: Writer) -> None:
        writer.put_workspace(make_workspace())
        writer.put_workspace(make_workspace(workspace_id=OTHER))
        writer.add_decisions(
            [
                (replace(make_decision(), decision_id=f"dec_{n}", request_id=f"r{n}", decided_at=at(-n / 60)), None)
                for n in range(MANY)
            ]
        )
        writer.add_events([make_event(event_id=f"e{n}", decision_id=f"dec_{n}") for n in range(MANY)])
        writer.add_decision(make_decision(workspace_id=OTHER), None)
        writer.add_event(make_event(workspace_id=OTHER, event_id="theirs"))

    store.write(work)
    return store


def stamps(store: Store, workspace: str = WORKSPACE) -> Stamps:
    with store.read() as reader:
        return reader.block_stamps(workspace)


def changed(store: Store, work: Callable[[Writer], object]) -> tuple[set[int], set[int]]:
    """The blocks of decisions and of events whose stamps a change changes."""
    before = stamps(store)
    store.write(work)
    after = stamps(store)
    return (
        {b for b in {*before.decisions, *after.decisions} if before.decisions.get(b) != after.decisions.get(b)},
        {b for b in {*before.events, *after.events} if before.events.get(b) != after.events.get(b)},
    )


def home(store: Store, number: int) -> tuple[int, int]:
    """The blocks of a decision and of the first event that names it."""
    with store.read() as reader:
        decision = reader.decision(WORKSPACE, f"dec_{number}")
        assert decision is not None
        for block in sorted(reader.block_stamps(WORKSPACE).events):
            if decision.position in reader.event_block(WORKSPACE, "spring", block, {KIND}, set()).position:
                return decision.position // BLOCK, block
    raise AssertionError(f"no event names decision {number}")


def newest(store: Store) -> tuple[int, int]:
    """The newest blocks of decisions and of events."""
    found = stamps(store)
    return max(found.decisions), max(found.events)


def test_stamps_change_with_the_rows_of_their_blocks_and_with_no_others(filled: Store) -> None:
    """One log for all of it: it takes longer to fill than to change."""
    third, oldest = home(filled, 3), home(filled, MANY - 1)
    assert third[0] < oldest[0]
    assert third[1] < oldest[1]
    added = make_decision(decision_id="dec_new", request_id="new")
    late = make_event(event_id="late", decision_id="dec_3")
    assert changed(filled, lambda writer: writer.add_decision(added, None)) == ({newest(filled)[0]}, set())
    assert changed(filled, lambda writer: writer.add_event(late)) == (set(), {newest(filled)[1]})
    for status in ("claimed", "sent"):
        assert _rewritten(filled, status) == ({third[0]}, set()), "each time"
    said = Label(automated=True, confidence=0.9, reason="proxy")
    assert changed(filled, lambda writer: writer.label_events(WORKSPACE, [("e3", said)])) == (set(), {third[1]})
    assert changed(filled, lambda writer: writer.label_events(OTHER, [("theirs", said)])) == (set(), set())
    nobody = replace(make_decision(), decision_id="dec_3", recipient_id="erased_1")
    assert changed(filled, lambda writer: writer.erase_decision(nobody)) == ({third[0]}, set())
    bare = make_event(event_id="bare", decision_id="dec_3")
    assert changed(filled, lambda writer: writer.erase_event("e3", bare)) == (set(), {third[1]})
    assert changed(filled, lambda writer: writer.drop_events(WORKSPACE, ["bare", "nobody"])) == (set(), {third[1]})
    _joined(filled)
    done = replace(make_decision(), decision_id=f"dec_{MANY - 1}", status="released")
    assert changed(filled, lambda writer: writer.update_decision(done, None)) == ({oldest[0]}, set())
    before = at(-MANY / 60) + timedelta(minutes=1.5)
    gone = changed(filled, lambda writer: writer.prune(WORKSPACE, before))
    assert gone == ({oldest[0]}, {oldest[1]})


def _rewritten(store: Store, status: Status) -> tuple[set[int], set[int]]:
    with store.read() as reader:
        stored = reader.decision(WORKSPACE, "dec_3")
    assert stored is not None
    rewritten = replace(stored, status=status, sent_at=at(1))
    return changed(store, lambda writer: writer.update_decision(rewritten, None))


def _joined(store: Store) -> None:
    """An event that comes before its decision: its block isn't complete until they are joined."""
    early, late = make_event(event_id="early", decision_id="dec_late", matched=False), make_decision()
    late = replace(late, decision_id="dec_late", request_id="late")
    store.write(lambda writer: writer.add_event(early))
    assert _incomplete(store) == {newest(store)[1]}

    def work(writer: Writer) -> None:
        writer.add_decision(late, None)
        writer.match_events(WORKSPACE, late)

    assert changed(store, work) == ({newest(store)[0]}, {newest(store)[1]})
    assert _incomplete(store) == set()


def _incomplete(store: Store) -> set[int]:
    with store.read() as reader:
        known = reader.block_stamps(WORKSPACE).events
        return {b for b in known if not reader.event_block(WORKSPACE, "spring", b, {KIND}, set()).complete}


def test_blocks_have_the_rows_that_columns_have(filled: Store) -> None:
    free = make_event(event_id="free", decision_id=None, recipient_id="nobody")
    foreign = make_event(event_id="foreign", decision_id=None, recipient_id="u1", campaign_id="autumn")
    by_message = make_event(event_id="by-message", decision_id=None, recipient_id="u1", message_id="m", provider="p")
    machine = make_event(event_id="machine", decision_id="dec_1", automated=True)
    reasoned = make_decision(decision_id="dec_r", request_id="reasoned", reasons=(Reason("cap", "cap", 3),))
    elsewhere = make_decision(decision_id="dec_e", request_id="elsewhere", campaign_id="autumn")

    def work(writer: Writer) -> None:
        writer.add_decisions([(reasoned, None), (elsewhere, None)])
        writer.add_events([free, foreign, by_message, machine, make_event(event_id="other", type="viewed")])

    filled.write(work)
    known = stamps(filled)
    with filled.read() as reader:
        blocks = [reader.decision_block(WORKSPACE, "spring", block) for block in sorted(known.decisions)]
        assert reader.decision_block(WORKSPACE, "spring", max(known.decisions) + 1) is None
        chunks = reader.decision_columns(WORKSPACE, "spring", at(-9_999), at(9_999))
        expected = sorted(row for chunk in chunks for row in zip(chunk.position, chunk.decided, strict=True))
        events = [reader.event_block(WORKSPACE, "spring", block, {KIND}, set()) for block in sorted(known.events)]
    assert blocks[-1] is not None
    assert blocks[-1].reasons[-1] == (("cap", "cap", 3, False),)
    found = [row for one in blocks if one is not None for row in zip(one.position, one.decided, strict=True)]
    assert found == expected
    named = [position for one in events for position in one.position if position is not None]
    assert len(named) == MANY
    assert [who for one in events for who, p in zip(one.recipient, one.position, strict=True) if p is None] == [
        "nobody"
    ]
    numbers = [number for one in events for number in one.number]
    assert numbers == sorted(set(numbers))


def test_properties_come_with_the_types_they_were_asked_for(store: Store) -> None:
    def work(writer: Writer) -> None:
        writer.add_decision(make_decision(), None)
        writer.add_events([_bought("e1", "bought"), _bought("e2", "viewed")])

    store.write(work)
    with store.read() as reader:
        (place,) = reader.block_stamps(WORKSPACE).events
        block = reader.event_block(WORKSPACE, "spring", place, {"bought", "viewed"}, {"bought"})
    told = dict(zip(block.type, block.properties, strict=True))
    assert told == {"bought": {"revenue": 5}, "viewed": {}}


def _bought(event_id: str, kind: str) -> Event:
    return make_event(event_id=event_id, type=kind, decision_id="dec_1", properties={"revenue": 5})


def test_a_campaign_is_long_or_not(store: Store) -> None:
    made = [(make_decision(decision_id=f"dec_{n}", request_id=f"r{n}"), None) for n in range(3)]
    store.write(lambda writer: writer.add_decisions(made))
    with store.read() as reader:
        assert reader.has_decisions(WORKSPACE, "spring", 3)
        assert not reader.has_decisions(WORKSPACE, "spring", 4)
        assert not reader.has_decisions(OTHER, "spring", 1)
        assert not reader.has_decisions(WORKSPACE, "autumn", 1)


def test_a_workspace_has_answers_once_an_event_names_a_stored_decision(store: Store) -> None:
    answer = make_event(decision_id="dec_1")
    waiting = replace(answer, event_id="e2", decision_id="dec_unknown", matched=False)
    organic = replace(answer, event_id="e3", decision_id=None, recipient_id="u1")

    def told(*events: Event) -> list[bool]:
        store.write(lambda writer: writer.add_events(events))
        with store.read() as reader:
            return [reader.has_answers(workspace_id) for workspace_id in (WORKSPACE, OTHER)]

    store.write(lambda writer: writer.add_decision(make_decision(), None))
    assert told(waiting, organic) == [False, False]
    assert told(answer) == [True, False]


def test_a_log_that_went_another_way_has_other_stamps(store: Store) -> None:
    """As after going back to a backup: the same numbers, other rows."""
    store.write(lambda writer: writer.add_decision(make_decision(), None))
    here = stamps(store).decisions
    store.write(lambda writer: writer.add_decision(make_decision(decision_id="dec_2", request_id="2"), None))
    one_way = stamps(store).decisions
    assert here != one_way
