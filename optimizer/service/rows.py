"""The rows of a chunk on their way from request to log: what was read, what was drafted, how rows see each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np

from optimizer.bandit.eligibility import Question
from optimizer.errors import Conflict, SendtideError
from optimizer.model.history import LENGTH
from optimizer.service import recipients as people
from optimizer.service.answers import judged_at, with_message
from optimizer.service.catalog import View
from optimizer.service.choose import Plan, Situation
from optimizer.service.displace import without
from optimizer.service.erased import refusal
from optimizer.service.record import Ask, answered, message_of
from optimizer.service.requests import DecisionRequest
from optimizer.service.shared import NOTHING_SHARED, Shared
from storage.log import Answer, Decision, Happening, Message
from storage.port import Reader
from storage.records import JsonObject, Recipient
from storage.rhythm import RhythmSum
from storage.swift import swift


@swift
@dataclass(frozen=True, slots=True)
class Read:
    """What the eligible set of one row depends on, as one snapshot had it.

    ``answers`` are empty where no variant requires any, ``unanswered`` is 0 where no cap adapts to it. ``rivals`` are
    the ids of what might be displaced; None = nobody asked.
    """

    view: View
    stored: Recipient
    messages: tuple[Message, ...]
    shared: Shared = NOTHING_SHARED
    unanswered: int = 0
    answers: tuple[Answer, ...] = ()
    rivals: tuple[str, ...] | None = None

    def same_as(self, other: Read, question: Question) -> bool:
        """Whether both give the same eligible set for a row's question, and the same reasons, without computing it.

        Shared limits are compared by what they close, not by their counters: those move with every commit. Recipients
        are compared by their content too: of one whom an earlier row changed, the next version is foreseen, and another
        writer may have stored it with something else.
        """
        return (
            self.view.version == other.view.version
            and self.stored.version == other.stored.version
            and (self.stored is other.stored or people.same(self.stored, other.stored))
            and self.messages == other.messages
            and self.unanswered == other.unanswered
            and self.answers == other.answers
            and self.rivals == other.rivals
            and self.shared.closes_as(other.shared, question)
        )


@swift
@dataclass(frozen=True, slots=True)
class Planned:
    """A decision with its eligible set, before the draw. ``shadowed``: the policy's own set, in shadow mode."""

    ask: Ask
    read: Read
    situation: Situation
    recipient: Recipient
    question: Question
    plan: Plan
    shadowed: Plan | None


@swift
@dataclass(frozen=True, slots=True)
class Draft(Planned):
    """A decision that is computed but not yet committed, the message that it reserves, and whose place it takes."""

    decision: Decision
    message: Message | None
    displaced: tuple[Decision, ...] = ()


class Moment(NamedTuple):
    """When a chunk is decided: ``as_of`` is the time that its decisions are made at, ``real`` what time it is, before
    which nothing is planned any more and messages are out. They differ where a run goes on that began earlier."""

    as_of: datetime
    real: datetime


@dataclass
class Reads:
    """What one snapshot has for a chunk of requests, kept up to date with the rows of the chunk so far.

    ``now`` and ``real`` are those of its ``Moment``.
    ``shared`` is replaced, never changed, so that a ``Read`` may hold on to it. ``pasts`` are read when they are asked
    for: a re-check in the write transaction needs none where the draw stands. ``touched`` are the recipients whose
    state an earlier row changed, ``placed`` its reservations by recipient, ``displaced`` whose place was taken;
    ``gone`` were erased, and ``once`` are named by one row alone, so that nobody asks what it changed about them.
    """

    view: View
    now: datetime
    real: datetime
    known: dict[str, Decision]
    stored: dict[str, Recipient]
    messages: dict[str, tuple[Message, ...]]
    shared: Shared
    unanswered: dict[str, int]
    answers: dict[str, tuple[Answer, ...]]
    rhythms: dict[str, tuple[RhythmSum, ...]] = field(default_factory=dict)
    pasts: dict[str, tuple[Happening, ...]] = field(default_factory=dict)
    drafted: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    placed: dict[str, dict[str, Decision]] = field(default_factory=dict)
    displaced: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    once: Set[str] = frozenset()

    def require_present(self, recipient_id: str) -> None:
        """Raises ``Invalid`` for a recipient who was erased."""
        if recipient_id in self.gone:
            raise refusal(recipient_id)

    def read_pasts(self, reader: Reader, recipient_ids: Collection[str]) -> None:
        """Reads at once what ``past`` is going to be asked for."""
        wanted = [one for one in recipient_ids if one not in self.pasts]
        if wanted:
            found = reader.pasts(self.view.workspace.workspace_id, wanted, self.now, limit=LENGTH)
            self.pasts.update((one, found.get(one, ())) for one in wanted)

    def past(self, reader: Reader, recipient_id: str) -> tuple[Happening, ...]:
        """The recipient's last messages and events before now, oldest first."""
        known = self.pasts.get(recipient_id)
        if known is None:
            workspace_id = self.view.workspace.workspace_id
            known = self.pasts[recipient_id] = reader.past(workspace_id, recipient_id, self.now, limit=LENGTH)
        return known

    def of(self, recipient_id: str) -> Read:
        """What is known for a row of this recipient."""
        workspace_id = self.view.workspace.workspace_id
        return Read(
            view=self.view,
            stored=self.stored.get(recipient_id) or people.unknown(workspace_id, recipient_id),
            messages=self.messages.get(recipient_id, ()),
            shared=self.shared,
            unanswered=self.unanswered.get(recipient_id, 0),
            answers=self.answers.get(recipient_id, ()),
        )


@swift
@dataclass(frozen=True, slots=True)
class Repeat:
    """A row whose request id an earlier row of the same chunk has: it gets that row's answer."""

    ask: Ask


Row = Draft | Repeat | Decision | SendtideError


def carry_forward(reads: Reads, row: Row) -> None:
    """Lets later rows of the chunk see what this one stores: the recipient as told, the message reserved with what it
    takes of shared limits, the places that it took over."""
    if not isinstance(row, Draft) or row.ask.request.preview:
        return
    recipient_id = row.recipient.recipient_id
    reads.drafted.add(row.ask.decision_id)
    if recipient_id in reads.once:
        _book(reads, row)
        return
    if not people.same(row.read.stored, row.recipient):
        reads.stored[recipient_id] = people.following(row.read.stored, row.recipient, row.recipient.updated_at)
        reads.touched.add(recipient_id)
    if row.message is not None:
        reads.touched.add(recipient_id)
        reads.placed.setdefault(recipient_id, {})[row.decision.decision_id] = row.decision
        _take_places(reads, recipient_id, row)
        if row.message.at <= judged_at(reads.now):
            reads.answers[recipient_id] = with_message(reads.answers.get(recipient_id, ()), row.message)


def _take_places(reads: Reads, recipient_id: str, row: Draft) -> None:
    """Books the row's message, and frees the places of those that it displaced."""
    added = () if row.message is None else (row.message,)
    for gone in row.displaced:
        reads.displaced.add(gone.decision_id)
        reads.placed.get(recipient_id, {}).pop(gone.decision_id, None)
    before = reads.messages.get(recipient_id, ())
    both = (*without(before, row.displaced), *added) if before else added
    reads.messages[recipient_id] = tuple(sorted(both, key=lambda m: (m.at, m.message_ref))) if before else both
    _book(reads, row)


def _book(reads: Reads, row: Draft) -> None:
    """Counts what the row's message takes of shared limits, and no longer what those that it displaced took."""
    removed = [message for gone in row.displaced if (message := message_of(gone)) is not None]
    reads.shared = reads.shared.booked(() if row.message is None else (row.message,), removed)


def same_set(one: Planned, other: Planned) -> bool:
    """Whether two rows are drawn from the same distribution as far as the state decides it: over the same actions with
    the same eligible set, by the same group and mode, under the same version of the campaign and the same limits."""
    a, b = one.plan.space, other.plan.space
    s, t = one.situation, other.situation
    return (
        np.array_equal(one.plan.mask, other.plan.mask)
        and (a.variants, a.channels, a.no_send) == (b.variants, b.channels, b.no_send)
        and np.array_equal(a.send_at, b.send_at)
        and (s.group, s.mode, s.zone.name) == (t.group, t.mode, t.zone.name)
        and (s.campaign.version, s.limits) == (t.campaign.version, t.limits)
    )


def to_log(rows: Sequence[Row]) -> list[Draft]:
    """The rows that are to be logged: new decisions that are not previews."""
    return [row for row in rows if isinstance(row, Draft) and not row.ask.request.preview]


def answers(rows: Sequence[Row]) -> list[tuple[Decision | SendtideError, bool]]:
    """What each row is answered, and whether it is new."""
    repeats = any(isinstance(row, Repeat) for row in rows)
    by_id = _decided(rows) if repeats else {}
    answers: list[tuple[Decision | SendtideError, bool]] = []
    for row in rows:
        if isinstance(row, Draft):
            answers.append((row.decision, not row.ask.request.preview))
        elif isinstance(row, Repeat):
            answers.append((_repeated(row, by_id), False))
        else:
            answers.append((row, False))
    return answers


def _decided(rows: Sequence[Row]) -> dict[str, Decision]:
    """The decisions of the chunk by id, those too that somebody else has made since the chunk was drafted."""
    found = [row.decision if isinstance(row, Draft) else row for row in rows if isinstance(row, Draft | Decision)]
    return {decision.decision_id: decision for decision in found}


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
