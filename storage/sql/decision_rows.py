"""A decision and a message as rows, and the statements that name all their columns."""

from __future__ import annotations

from typing import Final

from storage.codec import (
    GROUP_CODES,
    GROUPS,
    MODE_CODES,
    MODES,
    STATUS_CODES,
    STATUSES,
    from_micros,
    maybe_micros,
    maybe_time,
    shared,
    shared_number,
    to_micros,
)
from storage.decision_codec import pack_detail, unpack_detail
from storage.log import Decision, Message
from storage.sql.manyrows import Insertion
from storage.sql.tables import Row

DECISION_COLUMNS: Final = """
  decision_id, request_id, request_hash, campaign_id, campaign_version, recipient_id, status, control_group, mode,
  decided_at, propensity, policy_id, action, actions, eligible_actions, eligible, variant_id, channel, category,
  send_at, claimed_at, sent_at, provider, message_id, closed_at, close_reason, imported, detail
"""
_NAMES: Final = tuple(name.strip() for name in DECISION_COLUMNS.split(","))
INTO_DECISIONS: Final = Insertion(
    "decisions",
    ("seq", "workspace_id", *_NAMES, "shadow_policy_id", "message_at"),
    "ON CONFLICT (workspace_id, decision_id) DO NOTHING",
)
#: What a decision is read from: the store itself assigns ``seq``, and what follows comes after it was logged.
STORED_COLUMNS: Final = DECISION_COLUMNS + ", seq, sent_after, closed_after, counted_at, joined_at, joined_after"
MESSAGE_COLUMNS: Final = """
  recipient_id, at, message_ref, channel, category, campaign_id, variant_id, decision_id, cost, known_after
"""
INTO_MESSAGES: Final = Insertion(
    "messages",
    ("workspace_id", *(name.strip() for name in MESSAGE_COLUMNS.split(","))),
    "ON CONFLICT DO NOTHING",
)
#: Where ``recipient_id``, ``decided_at`` and ``seq`` are in a row of ``STORED_COLUMNS``.
RECIPIENT, DECIDED_AT, SEQ = 5, 9, 28


def decision_row(decision: Decision) -> Row:
    """Values of ``DECISION_COLUMNS``."""
    d = decision
    return (
        d.decision_id,
        d.request_id,
        d.request_hash,
        d.campaign_id,
        d.campaign_version,
        d.recipient_id,
        STATUS_CODES[d.status],
        GROUP_CODES[d.group],
        MODE_CODES[d.mode],
        to_micros(d.decided_at),
        d.propensity,
        d.policy_id,
        d.action,
        d.actions,
        d.eligible_actions,
        d.eligible,
        d.variant_id,
        d.channel,
        d.category,
        maybe_micros(d.send_at),
        maybe_micros(d.claimed_at),
        maybe_micros(d.sent_at),
        d.provider,
        d.message_id,
        maybe_micros(d.closed_at),
        d.close_reason,
        d.imported,
        pack_detail(d.snapshot, d.reasons, d.metadata),
    )


def decision_from(workspace_id: str, row: Row) -> Decision:
    """The decision whose ``STORED_COLUMNS`` these are."""
    snapshot, reasons, metadata = unpack_detail(row[27])
    return Decision(
        workspace_id=workspace_id,
        decision_id=row[0],
        request_id=row[1],
        request_hash=row[2],
        campaign_id=shared(row[3]),
        campaign_version=row[4],
        recipient_id=row[5],
        status=STATUSES[row[6]],
        group=GROUPS[row[7]],
        mode=MODES[row[8]],
        decided_at=from_micros(row[9]),
        propensity=row[10],
        policy_id=shared(row[11]),
        action=row[12],
        actions=shared_number(row[13]),
        eligible_actions=shared_number(row[14]),
        eligible=shared(row[15]),
        variant_id=shared(row[16]),
        channel=shared(row[17]),
        category=shared(row[18]),
        send_at=maybe_time(row[19]),
        claimed_at=maybe_time(row[20]),
        sent_at=maybe_time(row[21]),
        provider=shared(row[22]),
        message_id=row[23],
        closed_at=maybe_time(row[24]),
        close_reason=row[25],
        imported=bool(row[26]),
        snapshot=snapshot,
        reasons=reasons,
        metadata=metadata,
        position=row[SEQ],
        sent_after=row[29],
        closed_after=row[30],
        counted_at=maybe_time(row[31]),
        joined_at=maybe_time(row[32]),
        joined_after=row[33],
    )


def message_row(message: Message, decision_id: str | int | None, known_after: int = 0) -> Row:
    """The workspace and the values of ``MESSAGE_COLUMNS``; ``decision_id`` is ``SAME`` for a decision's own message."""
    return (
        message.workspace_id,
        message.recipient_id,
        to_micros(message.at),
        message.message_ref,
        message.channel,
        message.category,
        message.campaign_id,
        message.variant_id,
        decision_id,
        message.cost,
        known_after,
    )


def message_from(workspace_id: str, row: Row, same: object) -> Message:
    """The message whose ``MESSAGE_COLUMNS`` these are; ``same`` is the backend's ``SAME``."""
    recipient_id, at, message_ref, channel, category, campaign_id, variant_id, decision_id, cost, known_after = row
    return Message(
        workspace_id,
        recipient_id,
        from_micros(at),
        message_ref,
        channel,
        category,
        campaign_id,
        variant_id,
        message_ref if decision_id == same else decision_id,
        cost,
        known_after,
    )
