"""What is reserved beyond the limits of capacity and budget rules as they stand now.

While the rules stay as they are this is nothing: a reservation is made only where it fits. It is something after a
limit was lowered, or a confirm or another system's message moved into a full period.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from optimizer.service.record import message_of
from storage import usage
from storage.log import Decision, Status, items_of
from storage.port import Reader
from storage.rules import MICROS, Budget, Capacity, Rule

#: Statuses of messages that may still be called off, in the order in which they are walked.
OPEN_STATUSES: tuple[Status, ...] = ("reserved", "claimed")
#: How many decisions are read at once.
CHUNK = 500
#: After every time that a message can be planned for.
_END_OF_TIME = datetime(2250, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Overfull:
    """A period in which more is used than its limit: ``used`` and ``limit`` are messages, or micros of money."""

    rule: Rule
    period: int
    used: int
    limit: int

    @property
    def told(self) -> str:
        """The period's state in words."""
        if isinstance(self.rule.parameters, Budget):
            return f"{self.used / MICROS:g} is spent or reserved in its period; allowed: {self.limit / MICROS:g}"
        return f"{self.used} messages are sent or reserved in its period; allowed: {self.limit}"


def excess(reader: Reader, workspace_id: str, rules: Sequence[Rule]) -> Mapping[str, tuple[Overfull, ...]]:
    """Open decisions beyond a limit, with the periods that they overfill.

    Of the open messages that a rule binds and counts in an overfull period, the last reserved ones are named until the
    rest fits. Costs one look at the sums of use; only where a period is overfull are all open decisions read.

    Args:
        reader: a snapshot.
        workspace_id: whose.
        rules: those to look at; other kinds than capacity and budget are passed over.
    """
    overfull = {(o.rule.rule_id, o.period): o for o in _overfull(reader, workspace_id, rules)}
    if not overfull:
        return {}
    held: dict[tuple[str, int], list[tuple[int, str, int]]] = {}
    concerned = list({o.rule.rule_id: o.rule for o in overfull.values()}.values())
    for decision in open_decisions(reader, workspace_id):
        for rule in concerned:
            place = _place(rule, decision)
            if place is not None and (rule.rule_id, place[0]) in overfull:
                period, amount = place
                held.setdefault((rule.rule_id, period), []).append((decision.position, decision.decision_id, amount))
    found: dict[str, tuple[Overfull, ...]] = {}
    for key, places in held.items():
        over = overfull[key].used - overfull[key].limit
        for _, decision_id, amount in sorted(places, reverse=True):
            if over <= 0:
                break
            found[decision_id] = (*found.get(decision_id, ()), overfull[key])
            over -= amount
    return found


def open_decisions(reader: Reader, workspace_id: str) -> Iterator[Decision]:
    """All decisions whose message is reserved and not yet sent, read in chunks."""
    for status in OPEN_STATUSES:
        yield from _decisions_in(reader, workspace_id, status)


def _decisions_in(reader: Reader, workspace_id: str, status: Status) -> Iterator[Decision]:
    return items_of(lambda at: reader.decisions(workspace_id, limit=CHUNK, cursor=at, status=status))


def _overfull(reader: Reader, workspace_id: str, rules: Sequence[Rule]) -> list[Overfull]:
    shared = {r.rule_id: (r, r.parameters) for r in rules if isinstance(r.parameters, Capacity | Budget)}
    oldest = reader.due(workspace_id, _END_OF_TIME, limit=1) if shared else ()
    if not oldest or oldest[0].send_at is None:
        return []
    spans = [
        (rule_id, usage.period_of(parameters, oldest[0].send_at), usage.period_of(parameters, _END_OF_TIME))
        for rule_id, (_, parameters) in shared.items()
    ]
    found = []
    for (rule_id, period), used in sorted(reader.usage(workspace_id, spans).items()):
        rule, parameters = shared[rule_id]
        limit = usage.limit_in(parameters, period)
        if used > limit:
            found.append(Overfull(rule, period, used, limit))
    return found


def _place(rule: Rule, decision: Decision) -> tuple[int, int] | None:
    """The period and the amount of a rule's limit that a decision takes; None where the rule doesn't speak of it."""
    message = message_of(decision)
    if message is None or not rule.applies_to.admits(
        channel=message.channel, category=message.category, campaign_id=message.campaign_id
    ):
        return None
    place = usage.taken(rule, message)
    return place if place is not None and place[1] > 0 else None
