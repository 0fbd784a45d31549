"""Erasing a person: everything that says who they are goes; what was decided and what came of it stays, nameless.

What stays of a decision is what sums, caps of the past and the audit are made of: campaign, variant, channel, times,
time zone, group, propensity, eligible set, status. Of an event: its type, time, value, and whether a machine made it.
All of it belongs to a random pseudonym, so that one person stays one in statistics. Such rows are never learned from
(``Snapshot.erased``), since what they were decided by is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from optimizer.bandit.rewards import amount
from optimizer.errors import Conflict, NotFound
from optimizer.service import cleaning, displace, settledrows
from optimizer.service.erased import NAMELESS, bury, gone, grave_id, hidden_message_id
from optimizer.service.feedback import all_campaigns
from optimizer.service.ids import fresh
from optimizer.service.optout import WITHDRAWN, revoke
from optimizer.service.recipients import EVENT_SOURCE, unknown
from optimizer.service.requests import BREADTHS
from optimizer.service.settle import RELEASED, UNCONFIRMED
from optimizer.service.stopped import STOPPED
from optimizer.service.versions import check_version
from optimizer.service.wiring import Services
from storage.errors import StoreUnavailable
from storage.log import HEARD, HEARD_LATE, Decision, Event, items_of
from storage.port import Reader, Writer
from storage.records import Recipient

log = logging.getLogger("sendtide.erasing")

#: Why a reservation of an erased person was called off.
ERASED = "erased"
_OURS = frozenset({ERASED, UNCONFIRMED, RELEASED, WITHDRAWN, HEARD, HEARD_LATE, *STOPPED})
_EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did: how many decisions and events lost their names, how many reserved messages it called off,
    and whether the store's files are clean already (else the scheduler cleans them)."""

    decisions: int = 0
    events: int = 0
    revoked: int = 0
    scrubbed: bool = True


def erase(services: Services, workspace_id: str, recipient_id: str, if_match: int | None = None) -> Erased:
    """Erases a person; again, it changes nothing.

    Raises:
        PreconditionFailed: ``if_match`` (0 = none, None = whichever) is not the version that is stored of them.
        NotFound: nothing is stored of them, and they weren't erased either.
        StoreUnavailable: nothing was changed.
    """
    now = services.clock()
    pseudonym = fresh(NAMELESS)  # one, however often the store runs the work

    def work(writer: Writer) -> Erased:
        person = writer.recipient(workspace_id, recipient_id)
        check_version("recipient", recipient_id, 0 if person is None else person.version, if_match)
        if not is_known(writer, workspace_id, recipient_id):
            if gone(writer, services.salt, workspace_id, [recipient_id]):
                return Erased()
            raise NotFound(f"nothing is stored of recipient {recipient_id!r} in this workspace")
        return _Eraser(writer, services.salt, workspace_id, recipient_id, pseudonym, now).run()

    with services.store.read() as reader:
        words = {recipient_id, *_words_about(reader, workspace_id, recipient_id)}
    records = (recipient_id, pseudonym, grave_id(services.salt, workspace_id, recipient_id))
    done = services.store.write(work, recipients=[(workspace_id, one) for one in records])
    settledrows.forget(services, workspace_id)
    cleaned = _cleaned(services, workspace_id)
    return replace(done, scrubbed=_scrubbed(services, words) and cleaned)  # later, nobody would know the words


def _scrubbed(services: Services, words: Collection[str]) -> bool:
    """Whether the store's files are clean. That they can't be now (a disk without room for a second copy) is told so:
    the person is erased by then."""
    try:
        return services.store.scrub(words)
    except StoreUnavailable as error:
        log.warning("erasure: %s", error)
        return False


def _cleaned(services: Services, workspace_id: str) -> bool:
    """Whether the archive's files are written anew; else the mark that the erasure left makes the scheduler do it."""
    try:
        cleaning.clean(services, workspace_id)
    except Conflict as error:
        if error.code != cleaning.BUSY:
            raise
        return False
    except StoreUnavailable as error:
        log.warning("erasure: %s", error)
        return False
    return True


def _words_about(reader: Reader, workspace_id: str, recipient_id: str) -> Iterator[str]:
    """Every text that is stored about a person."""
    person = reader.recipient(workspace_id, recipient_id)
    if person is not None:
        yield from _texts([person.attributes, [one.source for one in person.suppressed]])
    for decision in _decisions_of(reader, workspace_id, recipient_id):
        yield from _texts([decision.request_id, decision.message_id, decision.snapshot.context, decision.metadata])
    for event, words in reader.events_about(workspace_id, recipient_id):
        yield from _texts([event.event_id, event.message_id, event.properties, words])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def is_known(reader: Reader, workspace_id: str, recipient_id: str) -> bool:
    """Whether anything is stored of a person: be it an event alone, as of each anonymous visitor."""
    return bool(
        reader.recipient(workspace_id, recipient_id) is not None
        or reader.decisions(workspace_id, limit=1, recipient_id=recipient_id).items
        or reader.events_about(workspace_id, recipient_id)
        or reader.messages(workspace_id, [recipient_id], *_EVER)
        or reader.rhythms(workspace_id, [recipient_id])
    )


@dataclass(frozen=True)
class _Eraser:
    """One erasure, inside its transaction."""

    writer: Writer
    salt: bytes
    workspace_id: str
    recipient_id: str
    pseudonym: str
    now: datetime

    def run(self) -> Erased:
        """Does it, in an order in which each step still finds what it needs."""
        self.writer.bring_back(self.workspace_id, self.recipient_id)
        open_ = self.writer.open_decisions(self.workspace_id, self.recipient_id)
        for decision in open_:
            revoke(self.writer, decision, reason=ERASED, now=self.now)
        events = [event for event, _ in self.writer.events_about(self.workspace_id, self.recipient_id)]
        self._erase_events(events)
        decisions = self._erase_decisions()
        self._hand_over_messages()
        person = self.writer.recipient(self.workspace_id, self.recipient_id)
        bury(self.writer, self.salt, person or unknown(self.workspace_id, self.recipient_id), self.now)
        self.writer.forget_recipient(self.workspace_id, self.recipient_id)
        # A bare record from now on: the audit sees that what was known at the reservations is known no more.
        self.writer.put_recipient(Recipient(self.workspace_id, self.pseudonym, 1, updated_at=self.now))
        self.writer.want_cleaning(self.workspace_id)
        return Erased(decisions, len(events), len(open_))

    def _erase_events(self, events: Collection[Event]) -> None:
        waiting = [event.event_id for event in events if not event.matched]
        self.writer.drop_events(self.workspace_id, waiting)
        values = _mapped_values(self.writer, self.workspace_id)
        for event in events:
            if event.matched:
                self.writer.erase_event(event.event_id, nameless_event(event, self.pseudonym, values))

    def _erase_decisions(self) -> int:
        told: dict[str, str] = {}
        count = 0
        for decision in _decisions_of(self.writer, self.workspace_id, self.recipient_id):
            bare = nameless_decision(self.salt, decision, self.pseudonym)
            self.writer.erase_decision(bare)
            # An event's refusal stays the reason of what was confirmed after it had been revoked.
            if decision.status == "revoked" or (decision.close_reason or "").startswith(EVENT_SOURCE):
                told[decision.decision_id] = bare.close_reason or ""
            count += 1
        self.writer.erase_changes(self.workspace_id, told)
        return count

    def _hand_over_messages(self) -> None:
        held = self.writer.messages(self.workspace_id, [self.recipient_id], *_EVER).get(self.recipient_id, ())
        refs = {message.message_ref: fresh("msg") for message in held if message.decision_id is None}
        self.writer.hand_over_messages(self.workspace_id, self.recipient_id, self.pseudonym, refs)


def _decisions_of(reader: Reader, workspace_id: str, recipient_id: str) -> list[Decision]:
    """All of them, read before any is changed."""
    return list(items_of(lambda at: reader.decisions(workspace_id, limit=500, cursor=at, recipient_id=recipient_id)))


def nameless_decision(salt: bytes, decision: Decision, pseudonym: str) -> Decision:
    """What stays of a decision. Its id stays: a keyed hash, by which late reports are known to be about nobody."""
    hidden = None
    if decision.message_id is not None:
        hidden = hidden_message_id(salt, decision.workspace_id, decision.provider or "", decision.message_id)
    return replace(
        decision,
        recipient_id=pseudonym,
        request_id=decision.decision_id,
        request_hash=b"",
        message_id=hidden,
        close_reason=_nameless_reason(decision.close_reason),
        snapshot=replace(decision.snapshot, context={}, effects={}, erased=True),
        metadata={},
    )


def _nameless_reason(reason: str | None) -> str | None:
    """A closing reason without an event's id and without a caller's words."""
    if reason is None or reason in _OURS or reason.startswith(displace.BY):
        return reason
    if reason.startswith(EVENT_SOURCE):
        return ":".join(reason.split(":")[:2])
    return RELEASED


def nameless_event(event: Event, pseudonym: str, values: Mapping[str, Collection[str]]) -> Event:
    """What stays of an event. ``values``: by type, the properties that campaigns read an outcome's value from."""
    told = {name: amount(event.properties.get(name)) for name in values.get(event.type, ())}
    kept: dict[str, Any] = {name: number for name, number in told.items() if number is not None}
    if event.type == "bounced" and isinstance(event.properties.get("hard"), bool):
        kept["hard"] = event.properties["hard"]
    if event.properties.get("refuses") in BREADTHS:
        kept["refuses"] = event.properties["refuses"]
    return replace(
        event,
        event_id=fresh("evt"),
        recipient_id=None if event.recipient_id is None else pseudonym,
        message_id=None,
        properties=kept,
        reason=event.reason.partition(":")[0],
    )


def _mapped_values(reader: Reader, workspace_id: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for campaign in all_campaigns(reader, workspace_id):
        for kind, mapping in campaign.event_mapping.items():
            if mapping.value is not None:
                found.setdefault(kind, set()).add(mapping.value)
    return found
