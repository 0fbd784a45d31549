"""Logged decisions of another system as decisions of ours: one row of a history file, checked and named.

An imported decision was made over all the campaign's variants and channels at the one time it was sent (what else was
open is not known), under ``pol_imported``; its message cost what the campaign says now. Its ids are hashes of the row
and its place, so a file that is imported twice, or longer than before, adds only what is new. Outcomes become events
that name their decision.

A refusal in an old log is an outcome to learn from, not the recipient's present will: it suppresses nothing. Current
refusals come with the recipients' file or as events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import numpy as np

from optimizer.bandit.ope import TINY_PROPENSITY
from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from optimizer.errors import Invalid
from optimizer.service import recipients as people
from optimizer.service.cells import Cells, outcome
from optimizer.service.framing import ZoneSource, resolve_zone
from optimizer.service.ids import IMPORTED_POLICY, derived, derived_many
from optimizer.service.importedpast import Occasion, pasts
from optimizer.service.past import with_past
from optimizer.service.record import cost_of, message_of
from storage.log import Decision, Event, Message, Snapshot
from storage.port import Reader
from storage.records import Campaign, Recipient

#: Columns of a history file, beside ``context.NAME`` and ``outcome.NAME``.
COLUMNS = frozenset({"recipient_id", "campaign_id", "variant_id", "channel", "send_at", "decided_at", "propensity"})
NESTED = frozenset({"context", "outcome"})
_ID_KEY = b"sendtide history"
#: How long the window of a decision is that was made for one time.
WINDOW = timedelta(seconds=1)


@dataclass(frozen=True)
class LoggedRow:
    """One imported decision, the message it holds against caps, and its outcomes."""

    decision: Decision
    message: Message | None
    events: tuple[Event, ...]


@dataclass(frozen=True)
class _Send:
    """What was sent (None, None = nothing) and when it was decided and sent."""

    variant_id: str | None
    channel: str | None
    decided_at: datetime
    send_at: datetime


class Frame:
    """A campaign as its rows share it: its action space, and what messages cost."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.variants = tuple(v.id for v in campaign.variants)
        self.channels = tuple(c.id for c in campaign.channels)
        self.messages = len(self.variants) * len(self.channels)
        self.size = self.messages + campaign.allow_no_send
        self.eligible = np.packbits(np.ones(self.size, dtype=np.bool_)).tobytes()
        self._costs: dict[tuple[str, str], int] = {}

    def action(self, variant_id: str | None, channel: str | None) -> int:
        """The place in the action space; behind all messages: none."""
        if variant_id is None or channel is None:
            return self.messages
        return self.variants.index(variant_id) * len(self.channels) + self.channels.index(channel)

    def cost(self, variant_id: str | None, channel: str | None) -> int:
        """What the message cost, in micros."""
        if variant_id is None or channel is None:
            return 0
        key = (variant_id, channel)
        if key not in self._costs:
            self._costs[key] = cost_of(self.campaign, variant_id, channel)
        return self._costs[key]


def read_row(cells: Cells, line: int, frame: Frame, recipient: Recipient | None, now: datetime) -> LoggedRow:
    """Reads one row.

    Args:
        cells: the row.
        line: its place in the file; part of its id, since two rows may be equal.
        frame: the campaign that it names.
        recipient: the stored recipient, for its time zone; None when there is none.
        now: received now; nothing in a history lies after it.

    Raises:
        Invalid: names the column, its value and what is allowed.
    """
    cells.refuse_unknown(COLUMNS, NESTED)
    recipient_id = cells.required_id("recipient_id")
    campaign = frame.campaign
    send = _send(cells, frame, now)
    name = row_name(campaign, recipient_id, cells.row, line)
    decision = _decision(cells, frame, send, recipient or people.unknown(campaign.workspace_id, recipient_id), name)
    return LoggedRow(decision, message_of(decision), tuple(_events(cells, decision, send, now)))


def _send(cells: Cells, frame: Frame, now: datetime) -> _Send:
    campaign = frame.campaign
    variant_id = cells.id("variant_id")
    send_at, decided_at = cells.instant("send_at"), cells.instant("decided_at")
    send_at, decided_at = send_at or decided_at, decided_at or send_at
    if send_at is None or decided_at is None:
        raise Invalid.field("send_at", "missing, and decided_at too; one of them is required", code="required")
    if decided_at > send_at:
        raise Invalid.field("decided_at", f"{decided_at.isoformat()} must not be after send_at {send_at.isoformat()}")
    if send_at > now:
        raise Invalid.field("send_at", f"{send_at.isoformat()} must not be after now, {now.isoformat()}")
    if variant_id is None:
        if not campaign.allow_no_send:
            raise Invalid.field("variant_id", f"missing; campaign {campaign.campaign_id!r} allows no no_send")
        return _Send(None, None, decided_at, send_at)
    _one_of("variant_id", variant_id, frame.variants)
    names = frame.channels
    channel = cells.id("channel") or (names[0] if len(names) == 1 else None)
    if channel is None:
        raise Invalid.field("channel", f"missing; required with {len(names)} channels", code="required")
    _one_of("channel", channel, names)
    return _Send(variant_id, channel, decided_at, send_at)


def _one_of(column: str, value: str, names: Sequence[str]) -> None:
    if value not in names:
        raise Invalid.field(
            column, f"{value!r} is not one of the campaign's: {', '.join(names)}", code="unknown_action"
        )


def row_name(campaign: Campaign, recipient_id: str, row: Mapping[str, Any], line: int) -> str:
    """What a row's ids are made of: a hash of its place and its cells in one canonical text."""
    content = _content(row).decode()
    return derived("", _ID_KEY, campaign.workspace_id, campaign.campaign_id, recipient_id, content, str(line))


def row_names(
    campaign: Campaign, recipient_ids: Sequence[str], rows: Sequence[Mapping[str, Any]], lines: Sequence[int]
) -> list[str]:
    """``row_name`` of many."""
    parts = (
        (recipient_id.encode(), _content(row), b"%d" % line)
        for recipient_id, row, line in zip(recipient_ids, rows, lines, strict=True)
    )
    return derived_many(_ID_KEY, (campaign.workspace_id, campaign.campaign_id), parts)


def _content(row: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(row, order="deterministic")


def outcome_id(decision_id: str, name: str) -> str:
    """The id of the event that an outcome of a row becomes."""
    return derived("evt", _ID_KEY, decision_id, name)


def outcome_ids(outcomes: Sequence[tuple[str, str]]) -> list[str]:
    """``outcome_id`` of many."""
    parts = ((decision_id.encode(), name.encode()) for decision_id, name in outcomes)
    return [f"evt{name}" for name in derived_many(_ID_KEY, (), parts)]


def snapshot(
    frame: Frame, where: tuple[str, ZoneSource], send_at: datetime, cost: int, context: Mapping[str, Any]
) -> Snapshot:
    """What a row's decision was made under: every action of the campaign, at the one time that it was sent."""
    return Snapshot(
        window_start=send_at,
        window_end=send_at + WINDOW,
        variants=frame.variants,
        channels=frame.channels,
        timezone=where[0],
        timezone_source=where[1],
        context=context,
        immediate=True,  # one slot, at the start of the window: the time it was sent
        cost=cost,
    )


def _decision(cells: Cells, frame: Frame, send: _Send, recipient: Recipient, name: str) -> Decision:
    campaign = frame.campaign
    where, source = resolve_zone(recipient, campaign)
    cost = frame.cost(send.variant_id, send.channel)
    logged_under = snapshot(frame, (where.name, source), send.send_at, cost, cells.nested("context"))
    status: Literal["no_send", "sent"] = "no_send" if send.variant_id is None else "sent"
    return Decision(
        workspace_id=campaign.workspace_id,
        decision_id="dec" + name,
        request_id="imp" + name,
        request_hash=f"imp{name}".encode(),
        campaign_id=campaign.campaign_id,
        campaign_version=campaign.version,
        recipient_id=recipient.recipient_id,
        status=status,
        group="treated",
        mode="live",
        decided_at=send.decided_at,
        propensity=_propensity(cells),
        policy_id=IMPORTED_POLICY,
        action=frame.action(send.variant_id, send.channel),
        actions=frame.size,
        eligible_actions=frame.size,
        eligible=frame.eligible,
        snapshot=logged_under,
        variant_id=send.variant_id,
        channel=send.channel,
        category=campaign.category,
        send_at=None if send.variant_id is None else send.send_at,
        sent_at=None if send.variant_id is None else send.send_at,
        imported=True,
    )


def _propensity(cells: Cells) -> float | None:
    propensity = cells.number("propensity")
    if propensity is not None and propensity > 1:
        raise Invalid.field("propensity", f"{propensity:g} must not be above 1")
    return known_propensity(propensity)


def known_propensity(told: float | None) -> float | None:
    """A row's propensity as it is stored; None when it is missing, not positive, or too small to weigh by
    (``ope.TINY_PROPENSITY``): such rows train, but are not evaluated off policy."""
    return told if told is not None and told >= TINY_PROPENSITY else None


def with_pasts(reader: Reader, workspace_id: str, rows: Sequence[LoggedRow]) -> list[Decision]:
    """The decisions of rows that are not stored, their contexts with what had happened before them."""
    decided = []
    for row, past in zip(rows, pasts(reader, workspace_id, list(map(_occasion, rows))), strict=True):
        context = with_past(row.decision.snapshot.context, past, row.decision.decided_at)
        decided.append(replace(row.decision, snapshot=replace(row.decision.snapshot, context=context)))
    return decided


def _occasion(row: LoggedRow) -> Occasion:
    decision = row.decision
    return Occasion(
        recipient_id=decision.recipient_id,
        decided_at=decision.decided_at,
        decision_id=decision.decision_id,
        campaign_id=decision.campaign_id,
        variant_id=decision.variant_id,
        channel=decision.channel,
        sent_at=decision.sent_at,
        outcomes=[(event.event_id, event.type, event.occurred_at) for event in row.events],
    )


def _events(cells: Cells, decision: Decision, send: _Send, now: datetime) -> list[Event]:
    events = []
    for name, cell in sorted(cells.nested("outcome").items()):
        found = outcome(f"outcome.{name}", cell)
        if found is None:
            continue
        value, at = found
        if decision.variant_id is None and name in MESSAGE_OUTCOMES:
            raise Invalid.field(f"outcome.{name}", f"{cell!r} needs a message, and the row has no variant_id")
        # Without a time of its own an outcome is dated to the start of its clock, inside any attribution window.
        at = at or (send.decided_at if decision.variant_id is None else send.send_at)
        if not send.decided_at <= at <= now:
            raise Invalid.field(f"outcome.{name}", f"{at.isoformat()} must lie between decided_at and now")
        events.append(
            Event(
                workspace_id=decision.workspace_id,
                event_id=outcome_id(decision.decision_id, name),
                type=name,
                occurred_at=at,
                received_at=now,
                matched=True,
                decision_id=decision.decision_id,
                recipient_id=decision.recipient_id,
                campaign_id=decision.campaign_id,
                value=value,
            )
        )
    return events
