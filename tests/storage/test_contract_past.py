"""What every store keeps: a recipient's past, messages and events together."""

from __future__ import annotations

from dataclasses import replace

from storage.log import Happening
from storage.port import Store
from tests.storage.builders import WORKSPACE, at, foreign_message, make_decision, make_event, make_message

VIEW = make_event(
    event_id="view",
    type="viewed",
    decision_id=None,
    recipient_id="u1",
    occurred_at=at(1),
    properties={"topic": "shoes"},
)


def past(store: Store, hours: float, limit: int = 32, recipient: str = "u1") -> tuple[Happening, ...]:
    with store.read() as reader:
        return reader.past(WORKSPACE, recipient, at(hours), limit=limit)


def test_messages_and_events_come_in_order_of_time_with_what_they_answer(store: Store) -> None:
    decision = make_decision(recipient_id="u1", send_at=at(2))
    message = make_message(decision)
    assert message is not None
    open_ = make_event(event_id="open", type="opened", recipient_id="u1", occurred_at=at(3))
    other = foreign_message(recipient_id="u1", at=at(0.5))

    def work(writer: object) -> None:
        writer.add_decision(decision, message)  # type: ignore[attr-defined]  # a Writer
        writer.add_message(other)  # type: ignore[attr-defined]
        writer.add_events([open_, VIEW])  # type: ignore[attr-defined]

    store.write(work)
    answered = (decision.channel, decision.campaign_id, decision.variant_id)
    assert past(store, 4) == (
        Happening(at(0.5), other.message_ref, "sent", other.channel, other.campaign_id, other.variant_id),
        Happening(at(1), "view", "viewed", properties={"topic": "shoes"}),
        Happening(message.at, message.message_ref, "sent", *answered),
        Happening(at(3), "open", "opened", *answered),
    )
    assert [one.kind for one in past(store, 4, limit=2)] == ["sent", "opened"]
    assert [one.kind for one in past(store, 2)] == ["sent", "viewed"], "what is planned for then has not happened"
    assert past(store, 4, recipient="u2") == ()


def test_the_pasts_of_many_are_those_of_each(store: Store) -> None:
    views = [
        replace(VIEW, event_id=f"view {who} {hour}", recipient_id=who, occurred_at=at(hour))
        for who in ("u1", "u2", "u3")
        for hour in (3, 1, 2)
    ]
    store.write(lambda writer: writer.add_events(views))
    store.write(lambda writer: writer.add_message(foreign_message(recipient_id="u2", at=at(0.5))))
    with store.read() as reader:
        found = reader.pasts(WORKSPACE, ["u2", "u1", "nobody"], at(3), limit=2)
        assert found == {who: reader.past(WORKSPACE, who, at(3), limit=2) for who in ("u1", "u2")}
        assert [one.ref for one in found["u1"]] == ["view u1 1", "view u1 2"]
        assert reader.pasts(WORKSPACE, [], at(3), limit=2) == {}


def test_each_is_asked_before_a_moment_of_its_own(store: Store) -> None:
    views = [
        replace(VIEW, event_id=f"{who} {n}", recipient_id=who, occurred_at=at(n)) for who in "ab" for n in (3, 1, 2)
    ]
    store.write(lambda writer: writer.add_events(views))
    store.write(lambda writer: writer.add_message(foreign_message(recipient_id="b", at=at(0.5))))
    asked = [("a", at(3)), ("b", at(2)), ("a", at(9)), ("b", at(0.5)), ("nobody", at(9)), ("a", at(3))]
    with store.read() as reader:
        found = reader.pasts_before(WORKSPACE, asked, limit=2)
        assert found == {
            (who, at(n)): reader.past(WORKSPACE, who, at(n), limit=2) for who, n in (("a", 3), ("b", 2), ("a", 9))
        }
        assert [one.ref for one in found["a", at(3)]] == ["a 1", "a 2"]
        assert reader.pasts_before(WORKSPACE, [], limit=2) == {}


def test_what_says_nothing_of_the_recipient_is_left_out(store: Store) -> None:
    events = [
        VIEW,
        replace(VIEW, event_id="scan", type="opened", automated=True),
        replace(VIEW, event_id="arrived", type="delivered"),
        replace(VIEW, event_id="theirs", recipient_id="u2"),
        replace(VIEW, event_id="elsewhere", workspace_id="w2"),
        replace(VIEW, event_id="nobody's", recipient_id=None, decision_id="dec_unknown", matched=False),
    ]
    store.write(lambda writer: writer.add_events(events))
    assert [one.ref for one in past(store, 4)] == ["view"]


def test_events_of_one_moment_are_in_order_of_their_ids(store: Store) -> None:
    events = [replace(VIEW, event_id=name) for name in ("c", "a", "d", "b")]
    store.write(lambda writer: writer.add_events(events))
    assert [one.ref for one in past(store, 4)] == ["a", "b", "c", "d"]
    assert [one.ref for one in past(store, 4, limit=3)] == ["b", "c", "d"]
    assert past(store, 1) == ()
