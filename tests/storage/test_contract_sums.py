"""What every store keeps: whatever happens in whatever order, what is used equals the sum over the ledger."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.log import Decision, Message, Status
from storage.port import Reader, Store, Writer
from storage.rules import Budget, Cap, Capacity, Rule, RuleKind, Selector
from storage.usage import period_of, taken
from tests.storage.builders import at, foreign_message, make_decision, make_message, make_rule

PEOPLE = ("u0", "u1")
REFERENCES = ("dec_0", "dec_1", "dec_2", "dec_3", "crm-1", "crm-2")
EVER = 10**12
#: One step of a write: given the writer and what was pruned, by rule.
Step = Callable[[Writer, str, "Pruned"], None]


class PlannedError(Exception):
    """Ends a write that is to leave nothing."""


class Pruned:
    """What a prune deleted but a running period still counts, and the time of the last prune."""

    def __init__(self) -> None:
        self.counted: dict[str, list[Message]] = {}
        self.before: datetime | None = None

    def copy(self) -> Pruned:
        """An independent copy, for a write that fails."""
        twin = Pruned()
        twin.counted = {rule_id: list(messages) for rule_id, messages in self.counted.items()}
        twin.before = self.before
        return twin


def ledger(reader: Reader, workspace_id: str) -> list[Message]:
    held = reader.messages(workspace_id, PEOPLE, at(-10_000), at(10_000))
    return [message for messages in held.values() for message in messages]


def expected(reader: Reader, workspace_id: str, pruned: Pruned) -> dict[tuple[str, int], int]:
    """The sums by their definition."""
    sums: Counter[tuple[str, int]] = Counter()
    for rule in reader.rules(workspace_id):
        parameters = rule.parameters
        if rule.archived or not isinstance(parameters, Capacity | Budget):
            continue
        for message in ledger(reader, workspace_id) + pruned.counted.get(rule.rule_id, []):
            share = taken(rule, message)
            if share is not None and (pruned.before is None or share[0] >= period_of(parameters, pruned.before)):
                sums[rule.rule_id, share[0]] += share[1]
    return {key: used for key, used in sums.items() if used}


def kept(rule: Rule) -> object:
    """What the sums of a rule hang on: a change of it makes them anew."""
    p = rule.parameters
    if rule.archived or not isinstance(p, Capacity | Budget):
        return None
    return (replace(p, limit=0, warm_up=()) if isinstance(p, Capacity) else replace(p, amount=0), rule.counts)


hours = st.sampled_from([-30.0, -1.0, 0.0, 0.25, 5.0, 6.0, 6.5, 30.0])
costs = st.sampled_from([0, 1, 1_000_000])
channels = st.sampled_from(["email", "sms"])
statuses: st.SearchStrategy[Status] = st.sampled_from(
    ["reserved", "claimed", "sent", "assumed_sent", "released", "revoked", "displaced", "expired", "no_send"]
)


def rarely(*names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.sampled_from([None, None, *names])


selectors = st.builds(
    Selector,
    channels=rarely(("sms",), ("sms", "email")),
    except_channels=rarely(("sms",)),
    categories=rarely(("marketing", "other")),
    except_categories=rarely(("other",), ("marketing",)),
    campaigns=rarely(("spring", "other")),
    except_campaigns=rarely(("spring",), ("other", "summer")),
)
parameters: st.SearchStrategy[tuple[RuleKind, Any]] = st.one_of(
    st.builds(lambda limit, per: ("capacity", Capacity(limit, per)), st.integers(0, 2), st.sampled_from([7, 60, 1440])),
    st.builds(
        lambda amount, per, zone, start: ("budget", Budget(amount, per, zone, start)),
        st.integers(0, 2),
        st.sampled_from(["day", "week", "month"]),
        st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns"]),
        st.sampled_from(["mon", "wed"]),
    ),
    st.just(("cap", Cap(1, rolling_hours=1.0))),
)


def planned(number: int, who: int, hour: float, cost: int, channel: str, status: Status) -> Decision:
    decision = make_decision(
        decision_id=f"dec_{number}",
        recipient_id=PEOPLE[who],
        status=status,
        decided_at=at(hour - 1),
        send_at=at(hour),
        channel=channel,
    )
    return replace(decision, snapshot=replace(decision.snapshot, cost=cost))


decisions = st.builds(planned, st.integers(0, 3), st.integers(0, 1), hours, costs, channels, statuses)


def log(logged: list[Decision]) -> Step:
    """Adds those decisions that are not stored yet."""

    def step(writer: Writer, workspace_id: str, pruned: Pruned) -> None:
        fresh = {d.decision_id: replace(d, workspace_id=workspace_id) for d in logged}
        for decision_id in writer.decisions_by_id(workspace_id, list(fresh)):
            del fresh[decision_id]
        writer.add_decisions([(decision, make_message(decision)) for decision in fresh.values()])

    return step


def update(number: int, status: Status, sent: float | None, cost: int) -> Step:
    """Whatever may happen to a decision, also what a service would refuse."""

    def step(writer: Writer, workspace_id: str, pruned: Pruned) -> None:
        stored = writer.decision(workspace_id, f"dec_{number}")
        if stored is not None:
            changed = replace(stored, status=status, sent_at=None if sent is None else at(sent))
            changed = replace(changed, snapshot=replace(changed.snapshot, cost=cost))
            writer.update_decision(changed, make_message(changed))

    return step


def tell(reference: str, who: int, hour: float, channel: str) -> Step:
    """Another system tells of a message, of its own or of ours."""
    message = foreign_message(message_ref=reference, recipient_id=PEOPLE[who], at=at(hour), channel=channel)

    def step(writer: Writer, workspace_id: str, pruned: Pruned) -> None:
        writer.add_message(replace(message, workspace_id=workspace_id))

    return step


def change_rule(number: int, kind: tuple[RuleKind, Any], counts: Selector, archived: bool) -> Step:
    """Stores the next version of a rule."""

    def step(writer: Writer, workspace_id: str, pruned: Pruned) -> None:
        rule_id = f"r{number}"
        old = {rule.rule_id: rule for rule in writer.rules(workspace_id)}.get(rule_id)
        rule = make_rule(
            workspace_id=workspace_id,
            rule_id=rule_id,
            kind=kind[0],
            parameters=kind[1],
            counts=counts,
            archived=archived,
            version=1 if old is None else old.version + 1,
        )
        writer.put_rule(rule)
        if old is None or kept(old) != kept(rule):
            pruned.counted.pop(rule_id, None)

    return step


def prune(hour: float) -> Step:
    """Retention: what was deleted stays counted until its period has ended or its rule is summed anew."""

    def step(writer: Writer, workspace_id: str, pruned: Pruned) -> None:
        before = ledger(writer, workspace_id)
        writer.prune(workspace_id, at(hour))
        left = ledger(writer, workspace_id)
        pruned.before = at(hour) if pruned.before is None else max(pruned.before, at(hour))
        for rule in writer.rules(workspace_id):
            if kept(rule) is not None:
                pruned.counted.setdefault(rule.rule_id, []).extend(m for m in before if m not in left)

    return step


steps = st.one_of(
    st.builds(log, st.lists(decisions, min_size=1, max_size=4)),
    st.builds(update, st.integers(0, 3), statuses, st.none() | hours, costs),
    st.builds(update, st.integers(0, 3), statuses, st.none() | hours, costs),
    st.builds(tell, st.sampled_from(REFERENCES), st.integers(0, 1), hours, channels),
    st.builds(change_rule, st.integers(0, 1), parameters, selectors, st.sampled_from([False, False, True])),
    st.builds(prune, hours),
)
writes = st.lists(
    st.tuples(st.lists(steps, min_size=1, max_size=3), st.sampled_from([True, True, True, False])), max_size=12
)
first_rules = st.builds(change_rule, st.just(0), parameters, selectors, st.just(False))
workspaces = itertools.count()


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(writes=writes, first=first_rules)
def test_what_is_used_equals_the_sum_over_the_ledger_after_any_sequence(
    store: Store, writes: list[tuple[list[Step], bool]], first: Step
) -> None:
    """Each example is a workspace of its own in one store."""
    workspace_id = f"w{next(workspaces)}"
    pruned = Pruned()
    for work, succeeds in [([first], True), *writes]:
        trial = pruned.copy()

        def write(writer: Writer, work: list[Step] = work, trial: Pruned = trial, succeeds: bool = succeeds) -> None:
            for step in work:
                step(writer, workspace_id, trial)
            if not succeeds:
                raise PlannedError

        try:
            store.write(write)
            pruned = trial
        except PlannedError:
            assert not succeeds
        with store.read() as reader:
            every = [(rule.rule_id, -EVER, EVER) for rule in reader.rules(workspace_id)]
            assert reader.usage(workspace_id, every) == expected(reader, workspace_id, pruned)
