"""What every store keeps of recipients' weekly rhythms."""

from __future__ import annotations

import pytest

from storage.port import Store, Writer
from storage.rhythm import RhythmSum
from tests.storage.builders import WORKSPACE, at, make_event


def add(store: Store, recipient_id: str, *sums: RhythmSum, of: str = WORKSPACE) -> None:
    store.write(lambda writer: writer.add_to_rhythm(of, recipient_id, sums))


def test_weights_add_up_by_kind_and_hour(store: Store) -> None:
    add(store, "u1", RhythmSum("sent", 9, 1.5), RhythmSum("active", 167, 2.0), RhythmSum("sent", 9, 0.25))
    add(store, "u1", RhythmSum("sent", 9, -0.5), RhythmSum("answered", 0, 2.0**230))
    add(store, "u2", RhythmSum("sent", 10, 1.0))
    add(store, "u1", RhythmSum("sent", 9, 7.0), of="w2")
    with store.read() as reader:
        assert reader.rhythms(WORKSPACE, ["u1", "u2", "nobody"]) == {
            "u1": (RhythmSum("active", 167, 2.0), RhythmSum("answered", 0, 2.0**230), RhythmSum("sent", 9, 1.25)),
            "u2": (RhythmSum("sent", 10, 1.0),),
        }
        assert reader.rhythms(WORKSPACE, []) == {}


def test_what_was_taken_back_is_not_told(store: Store) -> None:
    add(store, "u1", RhythmSum("sent", 9, 3.0))
    add(store, "u1", RhythmSum("sent", 9, -3.0))
    with store.read() as reader:
        assert reader.rhythms(WORKSPACE, ["u1"]) == {}


def test_any_number_of_recipients_is_told_at_once(store: Store) -> None:
    people = [f"u{n}" for n in range(700)]

    def work(writer: Writer) -> None:
        for recipient_id in people:
            writer.add_to_rhythm(WORKSPACE, recipient_id, [RhythmSum("active", 1, 1.0)])

    store.write(work)
    with store.read() as reader:
        assert set(reader.rhythms(WORKSPACE, people)) == set(people)


def test_unprompted_events_are_those_that_name_the_recipient_alone(store: Store) -> None:
    events = [
        make_event(event_id="a", type="view", decision_id=None, recipient_id="u1", occurred_at=at(0)),
        make_event(event_id="b", type="order", decision_id=None, recipient_id="u1", occurred_at=at(0.5)),
        make_event(event_id="late", type="view", decision_id=None, recipient_id="u1", occurred_at=at(1)),
        make_event(event_id="other", type="view", decision_id=None, recipient_id="u2", occurred_at=at(0)),
        make_event(event_id="named", type="view", decision_id="dec_1", recipient_id="u1", occurred_at=at(0)),
        make_event(
            event_id="machine", type="view", decision_id=None, recipient_id="u1", occurred_at=at(0), automated=True
        ),
        make_event(
            event_id="mail",
            type="opened",
            decision_id=None,
            recipient_id="u1",
            occurred_at=at(0),
            provider="ses",
            message_id="m",
        ),
    ]
    store.write(lambda writer: writer.add_events(events))
    with store.read() as reader:
        assert reader.unprompted_types(WORKSPACE, "u1", at(0), at(1)) == ("order", "view")
        assert reader.unprompted_types(WORKSPACE, "u1", at(2), at(3)) == ()
        assert reader.unprompted_types("w2", "u1", at(0), at(1)) == ()


@pytest.mark.parametrize(("kind", "hour"), [("idle", 3), ("sent", 168), ("sent", -1)])
def test_a_sum_of_no_kind_or_hour_is_refused(kind: str, hour: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        RhythmSum(kind, hour, 1.0)  # type: ignore[arg-type]  # the point of the test
