"""What every store keeps: events, their matching in any order, feedback, retention."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from storage.log import Decision, Event, FeedbackRow, ShadowChoice
from storage.policies import Component, Pointer, Policy
from storage.port import Reader, Store, Writer
from storage.rules import Capacity, Selector
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_artifact,
    make_decision,
    make_event,
    make_message,
    make_policy,
    make_rule,
)

ORGANIC = make_event(event_id="buy", type="converted", decision_id=None, recipient_id="u1", value=19.5)


def add(store: Store, *decisions: Decision) -> None:
    store.write(lambda writer: writer.add_decisions([(decision, make_message(decision)) for decision in decisions]))


def test_an_event_comes_back_as_it_was_reported(store: Store) -> None:
    full = make_event(
        event_id="full",
        recipient_id="u1",
        campaign_id="spring",
        provider="p",
        message_id="m",
        value=0.1,
        automated=True,
        properties={"a": [1, None, {"\0": "é"}]},
    )
    assert store.write(lambda writer: (writer.add_event(full), writer.add_event(make_event()))) == (True, True)
    with store.read() as reader:
        assert reader.events(WORKSPACE, make_decision()) == (make_event(), full)


def test_known_events_are_those_of_the_workspace(store: Store) -> None:
    store.write(lambda writer: writer.add_events([make_event(event_id=f"e{n}") for n in range(3)]))
    with store.read() as reader:
        assert reader.known_events(WORKSPACE, ["e1", "e2", "e2", "e3", *map(str, range(1000))]).keys() == {"e1", "e2"}
        assert reader.known_events(WORKSPACE, []) == {}
        assert reader.known_events("other", ["e1"]) == {}


def test_a_known_event_id_changes_nothing(store: Store) -> None:
    assert store.write(lambda writer: writer.add_event(make_event())) is True
    changed = make_event(type="clicked", value=3.0, occurred_at=at(20))
    assert store.write(lambda writer: writer.add_event(changed)) is False
    assert store.write(lambda writer: writer.add_event(replace(changed, workspace_id="w2"))) is True
    with store.read() as reader:
        assert reader.events(WORKSPACE, make_decision()) == (make_event(),)


def test_many_events_are_counted_without_their_repetitions(store: Store) -> None:
    events = [make_event(event_id=f"ev_{n % 700}") for n in range(1000)]
    assert store.write(lambda writer: writer.add_events(events)) == 700
    assert store.write(lambda writer: writer.add_events(events)) == 0
    assert store.write(lambda writer: writer.add_events([])) == 0
    with store.read() as reader:
        assert len(reader.events(WORKSPACE, make_decision())) == 700


def test_events_of_a_decision_are_its_own_and_its_recipients_since_it_was_made(store: Store) -> None:
    decision = make_decision()
    events = [
        replace(ORGANIC, event_id="early", occurred_at=at(-0.001)),
        replace(ORGANIC, event_id="at once", occurred_at=decision.decided_at),
        make_event(event_id="before", occurred_at=at(-1)),
        replace(ORGANIC, event_id="theirs", recipient_id="u2"),
        make_event(event_id="other", decision_id="dec_2", recipient_id="u1"),
        make_event(event_id="b", occurred_at=at(3)),
        make_event(event_id="a", occurred_at=at(3)),
        replace(ORGANIC, event_id="elsewhere", workspace_id="w2"),
    ]
    store.write(lambda writer: writer.add_events(events))
    with store.read() as reader:
        found = [event.event_id for event in reader.events(WORKSPACE, decision)]
    assert found == ["before", "at once", "a", "b"]


def test_unmatched_events_wait_for_their_decision(store: Store) -> None:
    waiting = make_event(matched=False)
    later = make_event(event_id="ev_0", matched=False, occurred_at=at(8))
    store.write(lambda writer: writer.add_events([later, waiting, make_event(event_id="ev_2")]))
    with store.read() as reader:
        assert reader.unmatched_events(WORKSPACE) == 2
        assert reader.unmatched_events("w2") == 0
    names = ["dec_2", "dec_1", "dec_3"]
    assert store.write(lambda writer: writer.awaited(WORKSPACE, names)) == {"dec_1"}
    assert store.write(lambda writer: writer.awaited("w2", names)) == set()
    joined = store.write(lambda writer: writer.match_events(WORKSPACE, make_decision()))
    assert joined == tuple(
        replace(one, matched=True, recipient_id="u1", campaign_id="spring") for one in (waiting, later)
    )
    assert store.write(lambda writer: writer.awaited(WORKSPACE, names)) == set()
    assert store.write(lambda writer: writer.match_events(WORKSPACE, make_decision())) == ()
    with store.read() as reader:
        assert reader.unmatched_events(WORKSPACE) == 0


def test_events_join_by_the_message_id_of_the_confirm(store: Store) -> None:
    waiting = make_event(decision_id=None, provider="p", message_id="m", matched=False)
    others = [
        replace(waiting, event_id="q", provider="q"),
        replace(waiting, event_id="n", message_id="n"),
        replace(waiting, event_id="w", workspace_id="w2"),
        replace(waiting, event_id="d", decision_id="dec_9"),
    ]
    store.write(lambda writer: writer.add_events([waiting, *others]))
    assert store.write(lambda writer: writer.match_events(WORKSPACE, make_decision())) == ()
    confirmed = make_decision(status="sent", provider="p", message_id="m", sent_at=at(6))
    joined = store.write(lambda writer: writer.match_events(WORKSPACE, confirmed))
    assert joined == (replace(waiting, matched=True, decision_id="dec_1", recipient_id="u1", campaign_id="spring"),)
    with store.read() as reader:
        assert reader.events(WORKSPACE, confirmed) == joined
        assert reader.unmatched_events(WORKSPACE) == 3
        assert [one.kind for one in reader.past(WORKSPACE, "u1", at(9), limit=9)] == ["opened"]


def ingest(event: Event) -> Callable[[Writer], None]:
    """Stores an event as matched where what it names is known by then."""

    def work(writer: Writer) -> None:
        known = writer.decision(event.workspace_id, "dec_1")
        if event.decision_id is None and event.provider is not None and event.message_id is not None:
            found = writer.decisions_by_message(event.workspace_id, event.provider, [event.message_id])
            known = found[0] if found else None
        decision_id = event.decision_id if known is None else known.decision_id
        writer.add_event(replace(event, matched=known is not None, decision_id=decision_id))

    return work


def log_and_match(decision: Decision, *, known: bool) -> Callable[[Writer], None]:
    """Stores a decision, or what became of it, and joins what waited for that."""

    def work(writer: Writer) -> None:
        (writer.update_decision if known else writer.add_decision)(decision, make_message(decision))
        writer.match_events(decision.workspace_id, decision)

    return work


def test_matching_gives_the_same_events_in_whatever_order_things_arrive(store: Store) -> None:
    outcomes = set()
    for turn, order in enumerate(itertools.permutations(["decision", "confirm", "named", "by message"])):
        if order.index("confirm") < order.index("decision"):
            continue
        workspace = f"w{turn}"
        decision = make_decision(workspace_id=workspace)
        sent = replace(decision, status="sent", provider="p", message_id="m", sent_at=at(6))
        named = make_event(workspace_id=workspace)
        steps = {
            "decision": log_and_match(decision, known=False),
            "confirm": log_and_match(sent, known=True),
            "named": ingest(named),
            "by message": ingest(replace(named, event_id="ev_2", decision_id=None, provider="p", message_id="m")),
        }
        for step in order:
            store.write(steps[step])
        with store.read() as reader:
            outcomes.add(tuple((e.event_id, e.matched, e.decision_id) for e in reader.events(workspace, sent)))
            assert reader.unmatched_events(workspace) == 0
    assert outcomes == {(("ev_1", True, "dec_1"), ("ev_2", True, "dec_1"))}


def expected_row(decision: Decision, events: list[Event]) -> FeedbackRow:
    """A decision with the events that name it, or that name only its recipient and came no earlier."""
    own = [
        e
        for e in events
        if e.decision_id == decision.decision_id
        or (e.decision_id is None and e.recipient_id == decision.recipient_id and e.occurred_at >= decision.decided_at)
    ]
    return FeedbackRow(decision, tuple(sorted(own, key=lambda e: (e.occurred_at, e.event_id))))


def test_feedback_gives_every_decision_with_its_events_in_order(store: Store) -> None:
    rng = random.Random(11)  # a fixed layout, larger than one chunk of any backend
    decisions = [
        make_decision(
            decision_id=f"dec_{n}",
            recipient_id=f"u{rng.randrange(40)}",
            campaign_id=rng.choice(["spring", "summer"]),
            decided_at=at(rng.randrange(30)),
            imported=rng.random() < 0.3,
            status="sent",
        )
        for n in range(4500)
    ]
    events = [
        make_event(event_id=f"e{n}", decision_id=f"dec_{rng.randrange(5000)}", occurred_at=at(rng.randrange(60)))
        for n in range(3000)
    ] + [
        replace(ORGANIC, event_id=f"o{n}", recipient_id=f"u{rng.randrange(50)}", occurred_at=at(rng.randrange(-9, 40)))
        for n in range(60)
    ]
    add(store, *decisions)
    store.write(lambda writer: writer.add_events(events))
    in_order = sorted(decisions, key=lambda d: (d.decided_at, d.decision_id))

    with store.read() as reader:
        rows = list(reader.feedback(WORKSPACE))
        assert [row.decision.decision_id for row in rows] == [d.decision_id for d in in_order]
        for row in rng.sample(rows, 60):
            assert row == expected_row(row.decision, events)
            assert row.events == reader.events(WORKSPACE, row.decision)
        some = [
            row.decision
            for row in reader.feedback(WORKSPACE, campaign_id="summer", since=at(3), until=at(20), imported=False)
        ]
        assert some == [
            d for d in in_order if d.campaign_id == "summer" and at(3) <= d.decided_at < at(20) and not d.imported
        ]
        assert sum(1 for _ in reader.feedback(WORKSPACE, imported=True)) == sum(d.imported for d in decisions)
        assert list(reader.feedback("w2")) == []


def test_feedback_may_be_left_before_its_end_and_read_twice_at_once(store: Store) -> None:
    add(store, *(make_decision(decision_id=f"dec_{n:04}", decided_at=at(n)) for n in range(3000)))
    with store.read() as reader:
        left = reader.feedback(WORKSPACE)
        assert next(left).decision.decision_id == "dec_0000"
        pairs = zip(reader.feedback(WORKSPACE), reader.feedback(WORKSPACE), strict=True)
        assert all(a.decision == b.decision for a, b in pairs)
    store.write(lambda writer: writer.put_import_position(WORKSPACE, "i", 1))
    assert store.write(lambda writer: next(writer.feedback(WORKSPACE)).decision.decision_id) == "dec_0000"
    store.write(lambda writer: writer.put_import_position(WORKSPACE, "i", 2))


class TestPrune:
    """Retention on one small history: two old closed decisions, an old open one, a new closed one."""

    @pytest.fixture(autouse=True)
    def history(self, store: Store) -> None:
        old = make_decision(decision_id="old", status="sent", decided_at=at(-100), sent_at=at(-99), policy_id="pol_old")
        shadow = replace(old.snapshot, shadow=ShadowChoice("mens", "email", at(1), 0.5, "pol_shadow"))
        decisions = [
            old,
            replace(old, decision_id="theirs", recipient_id="u2"),
            make_decision(decision_id="open", recipient_id="u2", decided_at=at(-100), policy_id="pol_open"),
            make_decision(decision_id="new", status="sent", policy_id="pol_new", snapshot=shadow),
            replace(old, workspace_id="w2"),
        ]
        add(store, *decisions)
        events = [
            make_event(event_id="of old", decision_id="old", occurred_at=at(-98)),
            make_event(event_id="late of old", decision_id="old", occurred_at=at(5)),
            make_event(event_id="of new", decision_id="new"),
            make_event(event_id="w2 of old", decision_id="old", workspace_id="w2"),
            replace(ORGANIC, event_id="u1 organic old", occurred_at=at(-97)),
            replace(ORGANIC, event_id="u1 organic new", occurred_at=at(3)),
            replace(ORGANIC, event_id="u2 organic old", recipient_id="u2", occurred_at=at(-97)),
        ]
        policies = [
            make_policy(policy_id=f"pol_{name}", created_at=at(-200), mixture=(Component(1.0, f"art_{name}"),))
            for name in ("old", "open", "new", "shadow", "served", "idle")
        ] + [make_policy(policy_id="pol_fresh", created_at=at(0), mixture=(Component(1.0, "art_fresh"),))]

        def work(writer: Writer) -> None:
            writer.add_events(events)
            writer.add_message(foreign_message(at=at(-99)))
            for policy in policies:
                writer.add_policy(policy)
                (component,) = policy.mixture
                writer.put_artifact(make_artifact(artifact_id=component.artifact_id, created_at=policy.created_at))
            writer.move_pointer(Pointer(WORKSPACE, "spring", "pol_served", 1, at(0)))

        store.write(work)

    def prune(self, store: Store, hours: float, counting_from: datetime | None = None) -> int:
        return store.write(lambda writer: writer.prune(WORKSPACE, at(hours), counting_from=counting_from))

    def test_closed_decisions_before_the_time_go_and_open_ones_stay(self, store: Store) -> None:
        assert self.prune(store, -100) == 0
        assert self.prune(store, -50) == 2
        assert self.prune(store, -50) == 0
        with store.read() as reader:
            assert {d.decision_id for d in reader.decisions(WORKSPACE, limit=9).items} == {"open", "new"}
            assert reader.decision("w2", "old") is not None

    def test_their_messages_go_and_others_stay(self, store: Store) -> None:
        self.prune(store, -50)
        with store.read() as reader:
            held = reader.messages(WORKSPACE, ["u1", "u2"], at(-1000), at(1000))
            assert {m.message_ref for messages in held.values() for m in messages} == {"crm-1", "new", "open"}
            assert len(reader.messages("w2", ["u1"], at(-1000), at(1000))["u1"]) == 1

    def test_their_events_go_unless_they_count_for_another_decision(self, store: Store) -> None:
        self.prune(store, -50)
        with store.read() as reader:
            of_u1 = reader.events(WORKSPACE, make_decision(decision_id="old", decided_at=at(-1000)))
            of_u2 = reader.events(WORKSPACE, make_decision(decision_id="open", recipient_id="u2", decided_at=at(-1000)))
            assert [e.event_id for e in of_u1] == ["u1 organic new"]
            assert [e.event_id for e in of_u2] == ["u2 organic old"]
            assert len(reader.events(WORKSPACE, make_decision(decision_id="new"))) == 2
            assert len(reader.events("w2", make_decision(decision_id="old"))) == 1

    def test_steps_take_the_oldest_with_what_is_theirs_and_what_is_shared_goes_last(self, store: Store) -> None:
        daily = make_rule(rule_id="daily", kind="capacity", parameters=Capacity(9, 1440), counts=Selector())
        store.write(lambda writer: writer.put_rule(daily))

        def left(reader: Reader) -> tuple[str, str, int, int]:
            names = ["of old", "late of old", "u1 organic old", "u2 organic old"]
            return (
                " ".join(sorted(d.decision_id for d in reader.decisions(WORKSPACE, limit=9).items)),
                " ".join(sorted(m.message_ref for m in reader.message_log(WORKSPACE))),
                len(reader.known_events(WORKSPACE, names)),
                len(reader.policies(WORKSPACE, limit=9).items)
                + len(reader.usage(WORKSPACE, [("daily", -999, 99_999)])),
            )

        seen: list[object] = []
        for _ in range(4):
            with store.read() as reader:
                seen.append(left(reader))
            seen.append(store.write(lambda writer: writer.prune(WORKSPACE, at(-50), limit=1)))
        assert seen == [
            ("new old open theirs", "crm-1 new old open theirs", 4, 9),
            1,
            ("new open theirs", "crm-1 new open theirs", 1, 9),
            1,
            ("new open", "crm-1 new open", 1, 9),
            0,
            ("new open", "crm-1 new open", 1, 6),
            0,
        ]

    def test_a_message_that_still_counts_keeps_its_decision_with_what_is_theirs(self, store: Store) -> None:
        later = make_decision(
            decision_id="later", recipient_id="u3", status="sent", decided_at=at(-100), sent_at=at(-60)
        )
        add(store, later)
        store.write(lambda writer: writer.add_event(make_event(event_id="of later", decision_id="later")))
        add(store, make_decision(decision_id="newest", decided_at=at(9)))
        for counting_from, gone in ((at(-60), 2), (at(-60), 0), (at(-59), 1)):
            with store.read() as reader:
                assert reader.decision(WORKSPACE, "later") is not None
                assert reader.known_events(WORKSPACE, ["of later"])
                assert "later" in {message.message_ref for message in reader.message_log(WORKSPACE)}
            assert self.prune(store, -50, counting_from) == gone

    def prune_loose(self, store: Store, hours: float, limit: int = 10) -> int:
        return store.write(lambda writer: writer.prune_loose(WORKSPACE, at(hours), limit=limit))

    def test_messages_of_other_systems_go_by_their_own_age_in_bounded_steps(self, store: Store) -> None:
        def work(writer: Writer) -> None:
            for n in range(4):
                writer.add_message(foreign_message(recipient_id="stranger", message_ref=f"m{n}", at=at(-200 + n)))
            writer.add_message(foreign_message(message_ref="young", at=at(-40)))
            writer.add_message(foreign_message(workspace_id="w2", message_ref="theirs", at=at(-200)))

        store.write(work)
        assert [self.prune_loose(store, -50, limit=3) for _ in range(3)] == [3, 2, 0]
        with store.read() as reader:
            assert {m.message_ref for m in reader.message_log(WORKSPACE)} == {"old", "theirs", "open", "new", "young"}
            assert {m.message_ref for m in reader.message_log("w2")} == {"old", "theirs"}

    def test_events_go_by_their_own_age_where_no_decision_takes_them_along(self, store: Store) -> None:
        alone = [
            replace(ORGANIC, event_id="of a stranger", recipient_id="stranger", occurred_at=at(-200)),
            replace(ORGANIC, event_id="before any decision", occurred_at=at(-150)),
            make_event(event_id="of none", decision_id="none", matched=False, occurred_at=at(-99)),
            make_event(
                event_id="of none of theirs", decision_id="none", matched=False, occurred_at=at(-98), recipient_id="u1"
            ),
            make_event(
                event_id="by message",
                decision_id=None,
                provider="p",
                message_id="m",
                matched=False,
                occurred_at=at(-97),
            ),
        ]
        kept = [
            replace(ORGANIC, event_id="young", recipient_id="stranger", occurred_at=at(-50)),
            make_event(event_id="ahead of old", decision_id="old", matched=False, occurred_at=at(-99)),
            make_event(event_id="young and waiting", decision_id="none", matched=False, occurred_at=at(-3)),
            replace(ORGANIC, event_id="theirs", workspace_id="w2", recipient_id="stranger", occurred_at=at(-200)),
        ]
        store.write(lambda writer: writer.add_events([*alone, *kept]))
        store.write(lambda writer: writer.prune_loose(WORKSPACE, at(-199.5), limit=9))
        with store.read() as reader:
            assert set(reader.known_events(WORKSPACE, ["of a stranger", "before any decision"])) == {
                "before any decision"
            }
            stamps = reader.block_stamps(WORKSPACE).events
        assert [self.prune_loose(store, -50, limit=3) for _ in range(4)] == [4, 1, 0, 0]  # a message among them
        ids = [one.event_id for one in (*alone, *kept)] + ["of old", "u1 organic old", "u2 organic old"]
        with store.read() as reader:
            assert reader.known_events(WORKSPACE, ids).keys() == {
                *(one.event_id for one in kept if one.workspace_id == WORKSPACE),
                "of old",
                "u1 organic old",
                "u2 organic old",
            }
            assert reader.known_events("w2", ids).keys() == {"theirs"}
            assert reader.block_stamps(WORKSPACE).events != stamps

    def test_policies_and_artifacts_in_use_stay_and_unused_old_ones_go(self, store: Store) -> None:
        self.prune(store, -50)
        with store.read() as reader:
            policies = {p.policy_id for p in reader.policies(WORKSPACE, limit=99).items}
            assert policies == {"pol_open", "pol_new", "pol_shadow", "pol_served", "pol_fresh"}
            artifacts = {
                n
                for n in ("old", "open", "new", "shadow", "served", "idle", "fresh")
                if reader.artifact(WORKSPACE, f"art_{n}")
            }
            assert artifacts == {"open", "new", "shadow", "served", "fresh"}

    def test_what_a_revision_started_from_stays_and_goes_with_it(self, store: Store) -> None:
        def serve(policy: Policy) -> None:
            def work(writer: Writer) -> None:
                writer.add_policy(policy)
                pointer = writer.pointer(WORKSPACE, "spring")
                assert pointer is not None
                writer.move_pointer(replace(pointer, policy_id=policy.policy_id, generation=pointer.generation + 1))

            store.write(work)

        serve(make_policy(policy_id="pol_revision", created_at=at(0), mixture=(), revision=True, gated_id="pol_idle"))
        self.prune(store, -50)
        with store.read() as reader:
            assert reader.policy(WORKSPACE, "pol_idle") is not None
            assert reader.artifact(WORKSPACE, "art_idle") is not None
            assert reader.policy(WORKSPACE, "pol_served") is None
        serve(make_policy(policy_id="pol_next", created_at=at(0), mixture=()))
        self.prune(store, -50)
        with store.read() as reader:
            assert reader.policy(WORKSPACE, "pol_idle") is not None, "one may go back to the revision"
        self.prune(store, 1)
        with store.read() as reader:
            assert reader.policy(WORKSPACE, "pol_idle") is None
            assert reader.artifact(WORKSPACE, "art_idle") is None

    def test_a_policy_goes_with_the_last_decision_that_used_it(self, store: Store) -> None:
        add(store, make_decision(decision_id="newest", decided_at=at(9)))
        assert self.prune(store, 1) == 3
        with store.read() as reader:
            left = {p.policy_id for p in reader.policies(WORKSPACE, limit=99).items}
            assert left == {"pol_open", "pol_served", "pol_fresh"}, "the newest says how much of the error is spent"
