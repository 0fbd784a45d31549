"""Exports: the log as files that other programs read. Streamed from one snapshot, whole or not at all.

``feedback`` is logged bandit feedback (Dudík et al. 2014): context, eligible set, action, the whole probability vector
it was drawn from, and reward, so that others can evaluate policies on it. The vector is recomputed from the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optimizer.errors import NotFound, SendtideError
from optimizer.service import feedback
from optimizer.service.replay import Replayer, eligible_logged, space_logged
from optimizer.service.rhythms import counts_of
from optimizer.service.rowfiles import open_writer
from optimizer.service.wiring import Services
from storage.log import Decision, Event, FeedbackRow, items_of
from storage.port import Reader
from storage.records import Campaign, JsonObject

What = Literal["decisions", "feedback", "recipient"]
Row = Mapping[str, Any]

_DECISION_COLUMNS: dict[str, str] = {
    "decision_id": "string",
    "request_id": "string",
    "campaign_id": "string",
    "campaign_version": "bigint",
    "recipient_id": "string",
    "status": "string",
    "group": "string",
    "mode": "string",
    "decided_at": "time",
    "variant_id": "string",
    "channel": "string",
    "category": "string",
    "send_at": "time",
    "propensity": "double",
    "policy_id": "string",
    "actions": "bigint",
    "eligible_actions": "bigint",
    "reasons": "string",
    "metadata": "string",
    "timezone": "string",
    "claimed_at": "time",
    "sent_at": "time",
    "provider": "string",
    "message_id": "string",
    "closed_at": "time",
    "close_reason": "string",
    "imported": "bool",
}
_FEEDBACK_COLUMNS: dict[str, str] = {
    "decision_id": "string",
    "campaign_id": "string",
    "campaign_version": "bigint",
    "recipient_id": "string",
    "status": "string",
    "group": "string",
    "decided_at": "time",
    "policy_id": "string",
    "context": "string",
    "variants": "string",
    "channels": "string",
    "send_times": "string",
    "action": "bigint",
    "variant_id": "string",
    "channel": "string",
    "send_at": "time",
    "eligible": "bigints",
    "probability": "doubles",
    "propensity": "double",
    "reward": "double",
    "matured": "bool",
    "outcomes": "string",
    "imported": "bool",
    "fault": "string",
}
_RECIPIENT_COLUMNS: dict[str, str] = {"kind": "string", "id": "string", "at": "time", "record": "string"}


@dataclass(frozen=True)
class Selection:
    """Which rows to export; None = all."""

    campaign_id: str | None = None
    recipient_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def export(
    services: Services,
    workspace_id: str,
    what: What,
    path: Path,
    selection: Selection,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Writes an export file (Parquet or NDJSON, by suffix); returns how many rows it has.

    Args:
        services: the wired service.
        workspace_id: whose rows.
        what: which export. ``recipient`` needs ``selection.recipient_id``.
        path: the file; it appears when it is whole.
        selection: which rows.
        on_progress: told the number of rows so far, after each.

    Raises:
        Invalid: the file's suffix is unknown.
        NotFound: nothing is stored of the workspace, campaign or recipient that is asked for.
    """
    columns = {"decisions": _DECISION_COLUMNS, "feedback": _FEEDBACK_COLUMNS, "recipient": _RECIPIENT_COLUMNS}[what]
    count = 0
    with services.store.read() as reader:
        _check_known(reader, workspace_id, selection)
        rows = _rows(services, reader, workspace_id, what, selection)
        with open_writer(path, columns) as writer:
            for row in rows:
                writer.write(row)
                count += 1
                if on_progress:
                    on_progress(count)
    return count


def _check_known(reader: Reader, workspace_id: str, selection: Selection) -> None:
    if reader.workspace(workspace_id) is None:
        raise NotFound(f"no workspace {workspace_id!r}")
    if selection.campaign_id is not None and reader.campaign(workspace_id, selection.campaign_id) is None:
        raise NotFound(f"no campaign {selection.campaign_id!r} in this workspace")


def _rows(services: Services, reader: Reader, workspace_id: str, what: What, selection: Selection) -> Iterator[Row]:
    if what == "recipient":
        return _recipient_rows(services, reader, workspace_id, selection.recipient_id or "")
    logged = reader.feedback(
        workspace_id, campaign_id=selection.campaign_id, since=selection.since, until=selection.until
    )
    if what == "decisions":
        return (decision_row(row.decision) for row in logged)
    replayer, now = Replayer(reader, services.salt), services.clock()
    campaigns = {c.campaign_id: c for c in feedback.all_campaigns(reader, workspace_id)}
    return (
        feedback_row(replayer, campaigns[row.decision.campaign_id], row, now)
        for row in logged
        if not row.decision.snapshot.erased
    )


def decision_row(decision: Decision) -> Row:
    """A decision as a flat row; times are aware UTC."""
    row = {name: getattr(decision, name) for name in _DECISION_COLUMNS if name not in ("timezone", "reasons")}
    reasons = [asdict(reason) for reason in decision.reasons]
    return {**row, "reasons": reasons, "timezone": decision.snapshot.timezone, "metadata": dict(decision.metadata)}


def feedback_row(replayer: Replayer, campaign: Campaign, row: FeedbackRow, now: datetime) -> Row:
    """A decision as logged bandit feedback; its reward is by the objective that ``campaign`` has now, as in training.

    ``probability`` is null where there is none (imported or withheld), and where its policy is no longer stored
    (``fault`` says so). ``reward`` and ``outcomes`` are null for rows that never went out.
    """
    decision = row.decision
    known = feedback.logged(campaign, row, now)
    mask = eligible_logged(decision)
    probability, times, fault = _replayed(replayer, decision)
    return {
        **{name: getattr(decision, name, None) for name in _FEEDBACK_COLUMNS},
        "context": dict(decision.snapshot.context),
        "variants": list(decision.snapshot.variants),
        "channels": list(decision.snapshot.channels),
        "send_times": times,
        "eligible": np.flatnonzero(mask).tolist(),
        "probability": probability,
        "reward": None if known is None else known.reward,
        "matured": known is not None and known.matured,
        "outcomes": None if known is None else {name: asdict(one) for name, one in known.outcomes.items()},
        "fault": fault,
    }


def _replayed(replayer: Replayer, decision: Decision) -> tuple[list[float] | None, list[datetime] | None, str | None]:
    """The probability vector, the send time of each slot, and why they are missing."""
    try:
        space = space_logged(decision, replayer.campaign(decision))
        times = [datetime.fromtimestamp(int(at), UTC) for at in space.send_at]
        if decision.imported or decision.action is None:
            return None, times, None
        return replayer.vector(decision).tolist(), times, None
    except SendtideError as fault:
        return None, None, fault.detail


def _recipient_rows(services: Services, reader: Reader, workspace_id: str, recipient_id: str) -> Iterator[Row]:
    """Everything that is stored of one person: the record, decisions, events with what vendors said, other systems'
    messages, the sums of the weekly rhythm faded to now, the count of unanswered messages."""
    recipient = reader.recipient(workspace_id, recipient_id)
    known = recipient is not None
    if recipient is not None:
        yield {"kind": "recipient", "id": recipient_id, "at": recipient.updated_at, "record": asdict(recipient)}
    theirs = items_of(lambda at: reader.decisions(workspace_id, limit=500, cursor=at, recipient_id=recipient_id))
    for decision in theirs:
        known = True
        yield {
            "kind": "decision",
            "id": decision.decision_id,
            "at": decision.decided_at,
            "record": {
                **decision_row(decision),
                "context": dict(decision.snapshot.context),
                "effects": dict(decision.snapshot.effects),
            },
        }
    for event, words in reader.events_about(workspace_id, recipient_id):
        known = True
        yield _event_row(event, words)
    everything = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    for message in reader.messages(workspace_id, [recipient_id], *everything).get(recipient_id, ()):
        if message.decision_id is None:
            known = True
            yield {"kind": "message", "id": message.message_ref, "at": message.at, "record": asdict(message)}
    sums = reader.rhythms(workspace_id, [recipient_id]).get(recipient_id)
    if sums:
        record = {"recipient_id": recipient_id, "sums": [asdict(one) for one in counts_of(sums, services.clock())]}
        yield {"kind": "rhythm", "id": recipient_id, "at": None, "record": record}
    unanswered = reader.unanswered(workspace_id, [recipient_id]).get(recipient_id)
    if unanswered:
        count = {"recipient_id": recipient_id, "unanswered": unanswered}
        yield {"kind": "engagement", "id": recipient_id, "at": None, "record": count}
    if not known:
        raise NotFound(f"nothing is stored of recipient {recipient_id!r} in this workspace")


def of_recipient(services: Services, workspace_id: str, recipient_id: str) -> dict[str, Any]:
    """Everything that is stored of one person, the records of ``_recipient_rows`` by kind; None or [] = there is none.

    Raises:
        NotFound: nothing is stored of them.
    """
    several: dict[str, list[Any]] = {"decision": [], "event": [], "message": []}
    single: dict[str, Any] = {"recipient": None, "rhythm": None, "engagement": None}
    with services.store.read() as reader:
        for row in _recipient_rows(services, reader, workspace_id, recipient_id):
            if row["kind"] in several:
                several[row["kind"]].append(row["record"])
            else:
                single[row["kind"]] = row["record"]
    return {**single, **{f"{kind}s": records for kind, records in several.items()}}


def _event_row(event: Event, words: JsonObject) -> Row:
    record = {**asdict(event), "words": dict(words)}
    return {"kind": "event", "id": event.event_id, "at": event.occurred_at, "record": record}
