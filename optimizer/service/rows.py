"""The rows of a chunk on their way from request to log: what was read, what was drafted, how rows see each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from optimizer.errors import Conflict, SendtideError
from optimizer.service import recipients as people
from optimizer.service.catalog import View
from optimizer.service.choose import Plan, Situation
from optimizer.service.record import Ask, answered
from optimizer.service.requests import DecisionRequest
from storage.log import Decision, Message
from storage.records import JsonObject, Recipient


@dataclass(frozen=True)
class Read:
    """What the eligible set depends on, as one snapshot had it."""

    view: View
    stored: Recipient
    messages: tuple[Message, ...]

    def same_as(self, other: Read) -> bool:
        """Whether both give the same eligible set without computing it."""
        return (
            self.view.version == other.view.version
            and self.stored.version == other.stored.version
            and self.messages == other.messages
        )


@dataclass(frozen=True)
class Draft:
    """A decision that is computed but not yet committed."""

    ask: Ask
    read: Read
    situation: Situation
    recipient: Recipient
    plan: Plan
    decision: Decision
    message: Message | None


@dataclass(frozen=True)
class Reads:
    """The rows of one snapshot for a chunk of requests."""

    view: View
    known: dict[str, Decision]
    stored: dict[str, Recipient]
    messages: dict[str, tuple[Message, ...]]
    drafted: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Repeat:
    """A row whose request id an earlier row of the same chunk has: it gets that row's answer."""

    ask: Ask


Row = Draft | Repeat | Decision | SendtideError


def carry_forward(reads: Reads, row: Row) -> None:
    """Lets later rows of the chunk see what this one stores: the recipient as told, the message reserved."""
    if not isinstance(row, Draft) or row.ask.request.preview:
        return
    recipient_id = row.recipient.recipient_id
    reads.drafted.add(row.ask.decision_id)
    if not people.same(row.read.stored, row.recipient):
        reads.stored[recipient_id] = replace(row.recipient, version=row.read.stored.version + 1)
    if row.message is not None:
        both = (*reads.messages.get(recipient_id, ()), row.message)
        reads.messages[recipient_id] = tuple(sorted(both, key=lambda m: (m.at, m.message_ref)))


def same_set(one: Draft, other: Draft) -> bool:
    """Whether two drafts were drawn over the same actions with the same eligible set, by the same group and mode."""
    a, b = one.plan.space, other.plan.space
    return (
        one.decision.eligible == other.decision.eligible
        and (a.variants, a.channels, a.no_send) == (b.variants, b.channels, b.no_send)
        and np.array_equal(a.send_at, b.send_at)
        and (one.situation.group, one.situation.mode) == (other.situation.group, other.situation.mode)
    )


def to_log(rows: Sequence[Row]) -> list[Draft]:
    """The rows that are to be logged: new decisions that are not previews."""
    return [row for row in rows if isinstance(row, Draft) and not row.ask.request.preview]


def answers(rows: Sequence[Row]) -> list[tuple[Decision | SendtideError, bool]]:
    """What each row is answered, and whether it is new."""
    by_id = {row.ask.decision_id: row.decision for row in rows if isinstance(row, Draft)}
    answers: list[tuple[Decision | SendtideError, bool]] = []
    for row in rows:
        if isinstance(row, Draft):
            answers.append((row.decision, not row.ask.request.preview))
        elif isinstance(row, Repeat):
            answers.append((_repeated(row, by_id), False))
        else:
            answers.append((row, False))
    return answers


def _repeated(row: Repeat, by_id: dict[str, Decision]) -> Decision | SendtideError:
    first = by_id.get(row.ask.decision_id)
    if first is None:
        return Conflict("the earlier row with this request_id could not be decided", code="repeated_row_failed")
    try:
        return answered(first, row.ask)
    except Conflict as conflict:
        return conflict


def told(request: DecisionRequest) -> JsonObject:
    """The attributes that a request tells, for the registry."""
    return request.context if request.recipient is None else {**request.context, **request.recipient.attributes}
