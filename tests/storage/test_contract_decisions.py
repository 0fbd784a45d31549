"""What every store keeps: decisions, the ledger of messages, lists and their pages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest

from storage.errors import AlreadyExists, VersionConflict
from storage.log import COUNTED, Decision, Message, Reason, ShadowChoice, Status
from storage.port import Store, Writer
from storage.rules import RiskLimit
from tests.storage.builders import (
    NOON,
    WORKSPACE,
    at,
    foreign_message,
    make_decision,
    make_message,
)

FULL = make_decision(
    status="sent",
    group="random",
    mode="shadow",
    propensity=1 / 3,
    category="transactional",
    reasons=(
        Reason("weekly", "cap", 12, at(30)),
        Reason("consent", "consent", 3),
        Reason("night", "quiet_hours", 7, dry_run=True),
        Reason("never", "cap", 97, note="limit 0: never"),
    ),
    metadata={"order": "77", "deep": {"list": [1, 2.5, None, True, "\0"]}, "big": 2**70},
    claimed_at=at(5),
    sent_at=at(6.01),
    provider="sendgrid",
    message_id="m-1",
    closed_at=at(7),
    close_reason="done",
    imported=True,
    snapshot=replace(
        make_decision().snapshot,
        timezone_source="campaign",
        context={"x": 0.1 + 0.2, "n": 10**12, "none": None, "nested": {"a": [1]}},
        effects={"hour": [0.25, -1e-300]},
        attempt=2,
        immediate=True,
        shadow=ShadowChoice("womens", "sms", at(2), 0.25, "pol_9"),
        overridden_rules=("weekly",),
        cost=30_000,
        unanswered=0,
        limits=(RiskLimit("tired", "unsubscribed", 0.002, ("email",)), RiskLimit("angry", "complained", 0.1)),
        risks={"unsubscribed": (0.001, None), "complained": ()},
        displaced=("dec_7", "dec_8"),
        floored=True,
    ),
)
BARE = make_decision(
    decision_id="dec_2",
    status="withheld",
    propensity=None,
    action=None,
    eligible=b"",
    eligible_actions=0,
    variant_id=None,
    channel=None,
    send_at=None,
)


def add(store: Store, *decisions: Decision) -> None:
    store.write(lambda writer: writer.add_decisions([(decision, make_message(decision)) for decision in decisions]))


def ledger(store: Store, recipient_id: str = "u1") -> tuple[Message, ...]:
    with store.read() as reader:
        return reader.messages(WORKSPACE, [recipient_id], at(-10_000), at(10_000)).get(recipient_id, ())


@pytest.mark.parametrize("decision", [FULL, BARE, make_decision()], ids=["full", "bare", "usual"])
def test_a_decision_comes_back_as_it_was_logged(store: Store, decision: Decision) -> None:
    store.write(lambda writer: writer.add_decision(decision, make_message(decision)))
    with store.read() as reader:
        assert reader.decision(WORKSPACE, decision.decision_id) == decision
        assert reader.decision("w2", decision.decision_id) is None
        assert reader.decisions_by_id(WORKSPACE, [decision.decision_id, "dec_x"]) == {decision.decision_id: decision}
    expected = make_message(decision)
    assert ledger(store) == (() if expected is None else (expected,))


@pytest.mark.parametrize("status", get_args(Status))
def test_every_status_comes_back_and_can_be_listed(store: Store, status: Status) -> None:
    decision = make_decision(status=status)
    add(store, decision, make_decision(decision_id="other", status="sent" if status != "sent" else "expired"))
    with store.read() as reader:
        assert reader.decisions(WORKSPACE, limit=9, status=status).items == (decision,)


def test_a_taken_decision_id_is_refused_and_nothing_changed(store: Store) -> None:
    add(store, make_decision())
    again = make_decision(recipient_id="u2", send_at=at(9))
    with pytest.raises(AlreadyExists):
        store.write(lambda writer: writer.add_decision(again, make_message(again)))
    fresh = make_decision(decision_id="dec_3", recipient_id="u3")
    with pytest.raises(AlreadyExists):
        add(store, fresh, again)
    with pytest.raises(AlreadyExists):
        add(store, fresh, fresh)
    with store.read() as reader:
        assert reader.decision(WORKSPACE, "dec_1") == make_decision()
        assert reader.decision(WORKSPACE, "dec_3") is None
    assert ledger(store, "u2") == ledger(store, "u3") == ()


def test_a_work_that_catches_already_exists_goes_on_with_nothing_half_stored(store: Store) -> None:
    add(store, make_decision())
    fresh = make_decision(decision_id="dec_2", send_at=at(8))

    def work(writer: Writer) -> None:
        with pytest.raises(AlreadyExists):
            writer.add_decision(make_decision(), make_message(make_decision()))
        writer.add_decision(fresh, make_message(fresh))

    store.write(work)
    assert [message.message_ref for message in ledger(store)] == ["dec_1", "dec_2"]


def test_the_same_decision_id_may_live_in_two_workspaces(store: Store) -> None:
    other = make_decision(workspace_id="w2", status="released")
    add(store, make_decision(), other)
    with store.read() as reader:
        assert reader.decision(WORKSPACE, "dec_1") == make_decision()
        assert reader.decision("w2", "dec_1") == other
        assert reader.decisions("w2", limit=5).items == (other,)
        assert reader.open_decisions("w2", "u1") == ()


def test_an_update_changes_what_may_change_and_moves_the_message(store: Store) -> None:
    decision = make_decision()
    add(store, decision)
    sent = replace(
        decision, status="sent", claimed_at=at(5), sent_at=at(6.5), provider="p", message_id="m", closed_at=at(6.5)
    )
    store.write(lambda writer: writer.update_decision(sent, make_message(sent)))
    with store.read() as reader:
        assert reader.decision(WORKSPACE, "dec_1") == sent
        assert reader.decisions_by_message(WORKSPACE, "p", ["m"]) == (sent,)
        assert reader.decisions_by_message(WORKSPACE, "q", ["m"]) == ()
        assert reader.decisions_by_message("w2", "p", ["m"]) == ()
    assert [message.at for message in ledger(store)] == [at(6.5)]


def test_messages_that_share_an_id_are_told_by_person_the_newest_first(store: Store) -> None:
    def sent(name: str, recipient_id: str, message_id: str) -> Decision:
        facts = {"decision_id": name, "request_id": name, "recipient_id": recipient_id, "message_id": message_id}
        return make_decision(status="sent", sent_at=at(1), provider="p", **facts)

    one, other, again = (sent(n, r, "m") for n, r in (("a", "u1"), ("b", "u2"), ("c", "u2")))
    hidden = sent("d", "erased", "h")
    add(store, one, other, again, hidden, sent("e", "u1", "n"), sent("f", "u1", "n"))

    def found(*message_ids: str, recipient_id: str | None = None) -> list[str]:
        with store.read() as reader:
            told = reader.decisions_by_message(WORKSPACE, "p", message_ids, recipient_id=recipient_id)
        return [decision.decision_id for decision in told]

    assert found("m") == ["c", "a"]
    assert [found("m", recipient_id=who) for who in ("u1", "u2", "u3")] == [["a"], ["c"], []]
    assert (found("n"), found("n", "h"), found("h"), found("h", "x")) == (["f"], ["f", "d"], ["d"], ["d"])


def test_a_closed_decision_gives_its_place_back_and_a_late_confirm_takes_it_again(store: Store) -> None:
    decision = make_decision()
    add(store, decision)
    released = replace(decision, status="released", closed_at=at(1), close_reason="changed our mind")
    store.write(lambda writer: writer.update_decision(released, None))
    assert ledger(store) == ()
    store.write(lambda writer: writer.update_decision(released, None))
    sent = replace(released, status="sent", sent_at=at(6))
    store.write(lambda writer: writer.update_decision(sent, make_message(sent)))
    assert ledger(store) == (make_message(sent),)


def test_a_message_is_counted_once_though_two_systems_tell_of_it(store: Store) -> None:
    decision = make_decision()
    add(store, decision)
    told = foreign_message(message_ref="dec_1", at=at(6.2))
    assert store.write(lambda writer: writer.add_message(told)) is False
    released = replace(decision, status="released")
    store.write(lambda writer: writer.update_decision(released, None))
    assert store.write(lambda writer: writer.add_message(told)) is True
    assert ledger(store) == (told,)
    sent = replace(decision, status="sent", sent_at=at(6.1))
    store.write(lambda writer: writer.update_decision(sent, make_message(sent)))
    assert ledger(store) == (make_message(sent),)


def test_updating_a_decision_that_is_not_stored_is_a_conflict(store: Store) -> None:
    with pytest.raises(VersionConflict, match="dec_1"):
        store.write(lambda writer: writer.update_decision(make_decision(), None))


def test_messages_of_other_systems_count_once(store: Store) -> None:
    message = foreign_message()
    assert store.write(lambda writer: writer.add_message(message)) is True
    assert store.write(lambda writer: writer.add_message(replace(message, at=at(3)))) is False
    assert store.write(lambda writer: writer.add_message(replace(message, recipient_id="u2"))) is True
    assert store.write(lambda writer: writer.add_message(replace(message, workspace_id="w2"))) is True
    assert ledger(store) == (message,)
    attributed = foreign_message(message_ref="crm-2", campaign_id="spring", variant_id="mens")
    assert store.write(lambda writer: writer.add_message(attributed)) is True
    assert ledger(store) == (message, attributed)


def test_the_message_log_streams_every_message_by_recipient_and_time(store: Store) -> None:
    decisions = [make_decision(decision_id=f"dec_{i}", recipient_id=f"u{i % 2}", send_at=at(9 - i)) for i in range(4)]
    gone = make_decision(decision_id="dec_9", status="released")
    store.write(lambda w: w.add_decisions([(d, make_message(d)) for d in decisions] + [(gone, None)]))
    store.write(lambda w: w.add_message(foreign_message(recipient_id="stranger")))
    with store.read() as reader:
        found = [(m.recipient_id, m.message_ref) for m in reader.message_log(WORKSPACE)]
        assert list(reader.message_log("elsewhere")) == []
    assert found[:2] == [("stranger", foreign_message().message_ref), ("u0", "dec_2")]
    assert found[2:] == [("u0", "dec_0"), ("u1", "dec_3"), ("u1", "dec_1")]


def test_messages_are_those_from_since_up_to_before_until_by_time(store: Store) -> None:
    tick = timedelta(microseconds=1)
    times = {"before": at(0) - tick, "start": at(0), "middle": at(1), "last": at(2) - tick, "end": at(2)}

    def work(writer: Writer) -> None:
        for name in reversed(times):
            writer.add_message(foreign_message(message_ref=name, at=times[name]))
            writer.add_message(foreign_message(message_ref=name, at=times[name], recipient_id="u2"))

    store.write(work)
    with store.read() as reader:
        found = reader.messages(WORKSPACE, ["u2", "u1", "u3", "u1"], at(0), at(2))
    assert {recipient: [m.message_ref for m in messages] for recipient, messages in found.items()} == {
        recipient: ["start", "middle", "last"] for recipient in ("u1", "u2")
    }


def test_decisions_are_listed_newest_first_and_paged_under_every_filter(store: Store) -> None:
    statuses: list[Status] = ["reserved", "sent", "released"]
    logged = [
        make_decision(
            decision_id=f"dec_{n}",
            decided_at=at(n // 4),  # several at one time: pages must not lose or repeat them
            recipient_id=f"u{n % 2}",
            campaign_id=("spring", "summer", "autumn")[n % 3],
            status=statuses[n // 2 % 3],
        )
        for n in range(60)
    ]
    for decision in logged:
        add(store, decision)
    filters: list[dict[str, str]] = [
        {},
        {"recipient_id": "u1"},
        {"campaign_id": "summer"},
        {"status": "sent"},
        {"campaign_id": "summer", "status": "sent"},
        {"recipient_id": "u0", "campaign_id": "spring", "status": "reserved"},
        {"recipient_id": "nobody"},
    ]
    for chosen in filters:
        expected = [d for d in reversed(logged) if all(getattr(d, name) == value for name, value in chosen.items())]
        listed: list[Decision] = []
        cursor = None
        with store.read() as reader:
            while True:
                page = reader.decisions(WORKSPACE, limit=3, cursor=cursor, **chosen)
                listed += page.items
                cursor = page.cursor
                if cursor is None:
                    break
        assert listed == expected


def test_a_page_does_not_move_when_newer_decisions_arrive(store: Store) -> None:
    add(store, *(make_decision(decision_id=f"dec_{n}", decided_at=at(n)) for n in range(4)))
    with store.read() as reader:
        first = reader.decisions(WORKSPACE, limit=2)
    add(store, make_decision(decision_id="dec_9", decided_at=at(9)))
    with store.read() as reader:
        second = reader.decisions(WORKSPACE, limit=2, cursor=first.cursor)
    assert [d.decision_id for d in (*first.items, *second.items)] == ["dec_3", "dec_2", "dec_1", "dec_0"]
    assert second.cursor is None


def test_an_unknown_status_and_a_made_up_cursor_are_value_errors(store: Store) -> None:
    with store.read() as reader:
        with pytest.raises(ValueError, match=r"status.*lost.*reserved"):
            reader.decisions(WORKSPACE, limit=1, status="lost")
        for listing in (reader.decisions, reader.campaigns, reader.policies, reader.training_runs):
            for cursor in ("", "nonsense", "é", "W10", "\0", "WyJkZWNpc2lvbnMiXQ"):
                with pytest.raises(ValueError, match="cursor"):
                    listing(WORKSPACE, limit=1, cursor=cursor)


def test_due_decisions_are_the_open_ones_planned_and_claimed_before_a_time_oldest_first(store: Store) -> None:
    logged = [
        make_decision(decision_id="late", send_at=at(5)),
        make_decision(decision_id="early", send_at=at(1), status="claimed", claimed_at=at(4)),
        make_decision(decision_id="middle", send_at=at(2)),
        make_decision(decision_id="gone", send_at=at(1), status="sent"),
        make_decision(decision_id="nothing", send_at=None, status="no_send"),
        make_decision(decision_id="other", send_at=at(1), workspace_id="w2"),
    ]
    add(store, *logged)
    with store.read() as reader:
        assert [d.decision_id for d in reader.due(WORKSPACE, at(5), limit=9)] == ["early", "middle"]
        assert [d.decision_id for d in reader.due(WORKSPACE, at(5), limit=1)] == ["early"]
        assert [d.decision_id for d in reader.due(WORKSPACE, at(4), limit=9)] == ["middle"]
        assert [d.decision_id for d in reader.due(WORKSPACE, at(5.1), limit=9)] == ["early", "middle", "late"]


def test_open_decisions_are_the_recipients_reserved_and_claimed_ones_oldest_first(store: Store) -> None:
    logged = [
        make_decision(decision_id=f"dec_{status}", status=status, decided_at=NOON - timedelta(hours=hours))
        for hours, status in enumerate(get_args(Status))
    ]
    add(store, *logged, make_decision(decision_id="theirs", recipient_id="u2"))
    with store.read() as reader:
        assert [d.decision_id for d in reader.open_decisions(WORKSPACE, "u1")] == ["dec_claimed", "dec_reserved"]
        assert reader.with_open_decisions(WORKSPACE, ["u1", "u3", "u2", "u1"]) == {"u1", "u2"}
        assert reader.with_open_decisions("w2", ["u1"]) == set()
        claimed = reader.open_decisions(WORKSPACE, "u1")[0]
    store.write(lambda writer: writer.update_decision(replace(claimed, status="sent"), make_message(claimed)))
    with store.read() as reader:
        assert [d.decision_id for d in reader.open_decisions(WORKSPACE, "u1")] == ["dec_reserved"]


def test_the_builders_message_is_none_exactly_where_no_place_is_held() -> None:
    for status in get_args(Status):
        assert (make_message(make_decision(status=status)) is not None) == (status in COUNTED)
