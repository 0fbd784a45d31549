"""What every store keeps: what is used of capacities and budgets, and how many messages recipients left unanswered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

import pytest

from storage.log import Decision, Status
from storage.port import Store, Writer
from storage.rules import Budget, Cap, Capacity, Rule, Selector
from tests.storage.builders import (
    WORKSPACE,
    at,
    foreign_message,
    make_decision,
    make_message,
    make_rule,
)

HOURLY = make_rule(rule_id="hourly", kind="capacity", parameters=Capacity(5, 60), counts=Selector())
DAILY = make_rule(rule_id="daily", kind="budget", parameters=Budget(10_000, "day"), counts=Selector())
EVER = 10**12


def used(store: Store, *rule_ids: str, workspace_id: str = WORKSPACE) -> dict[str, list[int]]:
    """What is used of each rule (default: both), period by period."""
    with store.read() as reader:
        found = {
            rule_id: reader.usage(workspace_id, [(rule_id, -EVER, EVER)]) for rule_id in rule_ids or ("hourly", "daily")
        }
    return {rule_id: [found[rule_id][key] for key in sorted(found[rule_id])] for rule_id in found}


def priced(decision_id: str, cost: int, **changes: object) -> Decision:
    decision = make_decision(decision_id=decision_id, **changes)
    return replace(decision, snapshot=replace(decision.snapshot, cost=cost))


def add(store: Store, *decisions: Decision) -> None:
    store.write(lambda writer: writer.add_decisions([(decision, make_message(decision)) for decision in decisions]))


def update(store: Store, decision: Decision) -> None:
    store.write(lambda writer: writer.update_decision(decision, make_message(decision)))


def put(store: Store, *rules: Rule) -> None:
    def work(writer: Writer) -> None:
        for rule in rules:
            writer.put_rule(rule)

    store.write(work)


def change(store: Store, rule_id: str, **changes: object) -> None:
    """Stores the next version of a rule."""

    def work(writer: Writer) -> None:
        stored = next(rule for rule in writer.rules(WORKSPACE) if rule.rule_id == rule_id)
        writer.put_rule(replace(stored, version=stored.version + 1, **changes))  # type: ignore[arg-type]

    store.write(work)


def test_reservations_and_messages_of_other_systems_are_counted_by_planned_time(store: Store) -> None:
    put(store, HOURLY, DAILY)
    add(store, priced("a", 100), priced("b", 20), priced("c", 3, send_at=at(7)), priced("d", 0, status="no_send"))
    store.write(lambda writer: writer.add_decision(priced("e", 4, send_at=at(-24)), make_message(priced("e", 4))))
    store.write(lambda writer: writer.add_message(foreign_message(at=at(7))))
    assert used(store) == {"hourly": [3, 2], "daily": [127]}


def test_usage_is_read_by_rule_and_period_both_ends_included(store: Store) -> None:
    put(store, HOURLY, DAILY)
    add(store, *(priced(f"dec_{n}", 10, send_at=at(n)) for n in range(5)))
    hour = int(at(0).timestamp()) // 3600
    day = hour // 24
    with store.read() as reader:
        assert reader.usage(WORKSPACE, [("hourly", hour + 1, hour + 3), ("daily", day, day), ("none", 0, EVER)]) == {
            ("hourly", hour + 1): 1,
            ("hourly", hour + 2): 1,
            ("hourly", hour + 3): 1,
            ("daily", day): 50,
        }
        assert reader.usage(WORKSPACE, []) == reader.usage("w2", [("hourly", -EVER, EVER)]) == {}
        assert reader.usage(WORKSPACE, [("hourly", hour + 5, hour + 9), ("hourly", hour + 3, hour)]) == {}


def test_what_a_rule_would_count_is_told_without_its_being_stored(store: Store) -> None:
    add(store, priced("a", 100), priced("b", 20), priced("c", 3, send_at=at(7)), priced("d", 7, status="no_send"))
    add(store, priced("old", 1000, send_at=at(-24)))
    store.write(lambda writer: writer.add_message(foreign_message(at=at(7))))
    with store.read() as reader:
        hours = reader.summed(HOURLY, at(0))
        days = reader.summed(DAILY, at(-48))
        assert reader.summed(replace(HOURLY, workspace_id="w2"), at(-48)) == {}
        assert reader.usage(WORKSPACE, [("hourly", -EVER, EVER)]) == {}
    assert [hours[period] for period in sorted(hours)] == [2, 2], "what lies before the given moment may be left out"
    assert [days[period] for period in sorted(days)] == [1000, 123]
    put(store, HOURLY, DAILY)
    assert used(store) == {"hourly": [1, 2, 2], "daily": [1000, 123]}


def test_a_reservation_is_freed_once_and_a_late_confirm_takes_its_place_again(store: Store) -> None:
    put(store, HOURLY, DAILY)
    decision = priced("a", 100)
    add(store, decision)
    closings: tuple[Status, ...] = ("released", "released", "revoked", "expired", "displaced")
    for status in closings:
        update(store, replace(decision, status=status))
        assert used(store) == {"hourly": [], "daily": []}
    for _ in range(2):
        update(store, replace(decision, status="sent", sent_at=at(6)))
        assert used(store) == {"hourly": [1], "daily": [100]}


def test_a_confirm_at_another_time_moves_what_is_used(store: Store) -> None:
    put(store, HOURLY, DAILY)
    add(store, priced("a", 100), priced("b", 20))
    update(store, priced("a", 100, status="claimed"))
    assert used(store) == {"hourly": [2], "daily": [120]}
    update(store, priced("a", 100, status="sent", sent_at=at(30)))
    assert used(store) == {"hourly": [1, 1], "daily": [20, 100]}
    update(store, priced("a", 7, status="sent", sent_at=at(30)))
    assert used(store) == {"hourly": [1, 1], "daily": [20, 7]}, "the cost is the message's as it was last stored"


@pytest.mark.parametrize("hours", [6.0, 6.2, 31.0], ids=["very instant", "same period", "other period"])
def test_a_message_is_counted_once_though_two_systems_tell_of_it(store: Store, hours: float) -> None:
    put(store, HOURLY, DAILY)
    told = foreign_message(message_ref="a", at=at(hours), channel="sms")
    decision = priced("a", 100)
    add(store, decision)
    store.write(lambda writer: writer.add_message(told))
    update(store, replace(decision, status="released"))
    store.write(lambda writer: writer.add_message(told))
    store.write(lambda writer: writer.add_message(told))
    assert used(store) == {"hourly": [1], "daily": []}
    update(store, replace(decision, status="sent", sent_at=at(6)))
    assert used(store) == {"hourly": [1], "daily": [100]}
    update(store, replace(decision, status="released"))
    assert used(store) == {"hourly": [], "daily": []}


def test_a_decision_takes_over_a_message_that_was_told_of_before_it_was_logged(store: Store) -> None:
    put(store, HOURLY, replace(HOURLY, rule_id="sms", counts=Selector(channels=("sms",))))
    store.write(lambda writer: writer.add_message(foreign_message(message_ref="b", at=at(6), channel="sms")))
    assert used(store, "hourly", "sms") == {"hourly": [1], "sms": [1]}
    add(store, make_decision(decision_id="a"), make_decision(decision_id="b"), make_decision(decision_id="c"))
    assert used(store, "hourly", "sms") == {"hourly": [3], "sms": []}
    with store.read() as reader:
        held = reader.messages(WORKSPACE, ["u1"], at(-100), at(100))["u1"]
    assert [(message.message_ref, message.channel, message.decision_id) for message in held] == [
        (one, "email", one) for one in ("a", "b", "c")
    ]


def test_a_write_that_fails_leaves_the_sums(store: Store) -> None:
    put(store, HOURLY)
    add(store, make_decision(decision_id="a"))

    def fails(writer: Writer) -> None:
        writer.add_decision(make_decision(decision_id="b"), make_message(make_decision(decision_id="b")))
        writer.put_rule(replace(HOURLY, version=2, parameters=Capacity(5, 30)))
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        store.write(fails)
    add(store, make_decision(decision_id="b"))
    assert used(store, "hourly") == {"hourly": [2]}


class TestRuleChanges:
    """When sums are made anew, when they stay, when they go."""

    @pytest.fixture(autouse=True)
    def messages(self, store: Store) -> None:
        """Of the hours after 18:00: three, none, one, one; costs 1, 10, 100, 1,000, 10,000. The last two are texts."""
        hours = (6.0, 6.2, 6.5, 8.0, 9.0)
        add(
            store,
            *(
                priced(
                    f"dec_{n}", 10**n, send_at=at(hours[n]), channel="sms" if n > 2 else "email", recipient_id=f"u{n}"
                )
                for n in range(5)
            ),
        )

    def test_a_new_rule_counts_what_was_reserved_and_sent_before_it(self, store: Store) -> None:
        put(store, HOURLY, DAILY)
        put(store, replace(DAILY, rule_id="disabled", enabled=False), replace(DAILY, rule_id="dry", dry_run=True))
        assert used(store, "hourly", "daily", "disabled", "dry") == {
            "hourly": [3, 1, 1],
            "daily": [11_111],
            "disabled": [11_111],
            "dry": [11_111],
        }
        add(store, priced("new", 5, send_at=at(6.9)))
        assert used(store, "hourly", "disabled", "dry") == {
            "hourly": [4, 1, 1],
            "disabled": [11_116],
            "dry": [11_116],
        }

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"parameters": Capacity(5, 120)}, [3, 2]),
            ({"parameters": Capacity(5, 5)}, [1, 1, 1, 1, 1]),
            ({"parameters": Budget(7, "day"), "kind": "budget"}, [11_111]),
            ({"parameters": Budget(7, "day", "Pacific/Auckland"), "kind": "budget"}, [11_111]),
            ({"parameters": Budget(7, "day", "Asia/Kathmandu"), "kind": "budget"}, [11, 11_100]),
            ({"counts": Selector(channels=("sms",))}, [1, 1]),
            ({"counts": Selector(except_campaigns=("spring",))}, []),
            ({"parameters": Cap(1, rolling_hours=1.0), "kind": "cap"}, []),
            ({"archived": True}, []),
            ({"parameters": Capacity(0, 60), "dry_run": True, "enabled": False}, [3, 1, 1]),
        ],
    )
    def test_a_changed_rule_counts_as_if_it_had_always_been_so(
        self, store: Store, changes: dict[str, object], expected: list[int]
    ) -> None:
        put(store, HOURLY)
        change(store, "hourly", **changes)
        assert used(store, "hourly") == {"hourly": expected}
        add(store, priced("new", 0, send_at=at(6.3), channel="sms"))
        with store.read() as reader:
            (rule,) = reader.rules(WORKSPACE)
        put(store, replace(rule, rule_id="fresh", version=1))
        assert used(store, "hourly")["hourly"] == used(store, "fresh")["fresh"], "the sums go on from there"

    def test_an_archived_rule_that_comes_back_counts_what_happened_meanwhile(self, store: Store) -> None:
        put(store, HOURLY)
        change(store, "hourly", archived=True)
        add(store, make_decision(decision_id="meanwhile"))
        assert used(store, "hourly") == {"hourly": []}
        change(store, "hourly", archived=False)
        assert used(store, "hourly") == {"hourly": [4, 1, 1]}

    def test_a_rule_of_a_workspace_counts_its_messages_only(self, store: Store) -> None:
        theirs = make_decision(workspace_id="w2")
        store.write(lambda writer: writer.put_rule(replace(HOURLY, workspace_id="w2")))
        put(store, HOURLY)
        add(store, theirs, make_decision(decision_id="ours"))
        assert used(store, "hourly") == {"hourly": [4, 1, 1]}
        assert used(store, "hourly", workspace_id="w2") == {"hourly": [1]}

    def test_a_write_goes_by_the_rules_that_it_changed_itself(self, store: Store) -> None:
        def work(writer: Writer) -> None:
            for number, rule in enumerate((HOURLY, DAILY)):
                decision = priced(f"new_{number}", 5)
                writer.add_decision(decision, make_message(decision))
                writer.put_rule(rule)
            writer.update_decision(priced("new_0", 5, status="released"), None)

        store.write(work)
        assert used(store) == {"hourly": [4, 1, 1], "daily": [11_116]}

    def test_pruning_forgets_the_periods_that_ended_and_no_message_of_others(self, store: Store) -> None:
        put(store, HOURLY, DAILY)
        update(store, priced("dec_0", 1, status="sent", sent_at=at(6), recipient_id="u0"))
        update(store, priced("dec_3", 1000, status="sent", sent_at=at(8), channel="sms", recipient_id="u3"))
        assert store.write(lambda writer: writer.prune(WORKSPACE, at(8.5))) == 2
        assert used(store) == {"hourly": [1, 1], "daily": [11_111]}, "the running hour and day still count what went"
        store.write(lambda writer: writer.add_message(foreign_message(at=at(6))))
        update(store, priced("dec_1", 10, status="released", recipient_id="u1"))
        assert used(store, "hourly") == {"hourly": [1, 1]}, "what is told of an ended period is not booked"
        store.write(lambda writer: writer.prune(WORKSPACE, at(-99)))
        change(store, "hourly", parameters=Capacity(9, 30))
        change(store, "hourly", parameters=Capacity(9, 60))
        assert used(store, "hourly") == {"hourly": [1]}, "what was pruned is not found again"

    def test_the_store_tells_how_far_messages_reach_that_pruning_deleted(self, store: Store) -> None:
        def told(workspace_id: str = WORKSPACE) -> datetime | None:
            with store.read() as reader:
                return reader.forgotten_until(workspace_id)

        assert told() is None
        update(store, priced("dec_0", 1, status="sent", sent_at=at(99), recipient_id="u0"))
        store.write(lambda writer: writer.prune(WORKSPACE, at(-9)))
        assert told() == at(-9)
        store.write(lambda writer: writer.prune(WORKSPACE, at(8)))
        assert told() == at(99)
        store.write(lambda writer: writer.prune(WORKSPACE, at(9)))
        assert told() == at(99)
        assert told("w2") is None


def test_reservations_that_come_together_are_summed_once_each(store: Store) -> None:
    put(store, HOURLY, DAILY)

    def attempt(number: int) -> None:
        decision = priced(f"dec_{number}", 10, recipient_id=f"u{number}")
        add(store, decision)
        if number % 3 == 0:
            update(store, replace(decision, status="released"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attempt, range(90)))
    assert used(store) == {"hourly": [60], "daily": [600]}


class TestUnanswered:
    """The count of messages since a recipient last engaged."""

    def count(self, store: Store, recipient_ids: Sequence[str] = ("u1", "u2"), of: str = WORKSPACE) -> dict[str, int]:
        with store.read() as reader:
            return reader.unanswered(of, recipient_ids)

    def change(self, store: Store, *works: Callable[[Writer], None]) -> None:
        for work in works:
            store.write(work)

    def test_it_grows_shrinks_and_never_falls_below_zero(self, store: Store) -> None:
        assert self.count(store) == {}
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u1", 2))
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u1", 1))
        assert self.count(store) == {"u1": 3}
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u1", -1))
        assert self.count(store) == {"u1": 2}
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u1", -9))
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u2", -1))
        assert self.count(store) == {}
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u1", 1))
        assert self.count(store) == {"u1": 1}

    def test_engaging_clears_it(self, store: Store) -> None:
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u1", 4))
        self.change(store, lambda writer: writer.add_unanswered(WORKSPACE, "u2", 5))
        self.change(store, lambda writer: writer.clear_unanswered(WORKSPACE, "u1"))
        self.change(store, lambda writer: writer.clear_unanswered(WORKSPACE, "nobody"))
        assert self.count(store) == {"u2": 5}

    def test_it_is_told_for_any_number_of_recipients_of_one_workspace(self, store: Store) -> None:
        people = [f"u{n}" for n in range(700)]

        def work(writer: Writer) -> None:
            for n, recipient_id in enumerate(people):
                writer.add_unanswered(WORKSPACE, recipient_id, n)
            writer.add_unanswered("w2", "u1", 50)

        store.write(work)
        assert self.count(store, [*people, "u1", "nobody"]) == {f"u{n}": n for n in range(1, 700)}
        assert self.count(store, people, "w2") == {"u1": 50}
        assert self.count(store, []) == {}
