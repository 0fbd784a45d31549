"""Writing a chunk's decisions into the log, in an order that makes their positions tell the truth.

A position says what was committed before what. So whatever a row changes beside its own decision (a reservation that it
displaces) is written after the rows before it and before the row itself. What it tells of a recipient concerns that
recipient's decisions alone, so it need only be written before the row and after the recipient's earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from optimizer.service import displace
from optimizer.service import recipients as people
from optimizer.service.engagement import note_engagement
from optimizer.service.labels import judge_anew
from optimizer.service.optout import apply_opt_outs, release_failed, revoke_withdrawn
from optimizer.service.rows import Draft, told
from storage.log import Decision
from storage.port import Writer
from storage.records import Recipient


def log(writer: Writer, workspace_id: str, rows: Sequence[Draft], now: datetime) -> dict[str, Decision]:
    """Stores new decisions with all that comes with them.

    Returns:
        What was closed by it, as it is now, by id: decisions that they displaced, those that events which had come
        before their decision called off, and those whose channel a row's recipient agrees to no longer. All may be
        stored earlier, or rows of the same chunk.
    """
    if not rows:
        return {}
    people.sight(writer, workspace_id, rows[0].read.view.attributes, [told(row.ask.request) for row in rows])
    named = [row for row in rows if row.ask.repeatable]  # whatever came of them: a refusal holds without a message, too
    awaited = writer.ask(partial(writer.awaited, workspace_id, [row.decision.decision_id for row in named]))
    closed: dict[str, Decision] = {}
    records: dict[str, list[Recipient]] = {}  # of each recipient who is told of: as stored, and by row
    page = _Page(writer)
    for row in rows:
        tells = row.ask.request.recipient is not None and not people.same(row.read.stored, row.recipient)
        if row.displaced or (tells and row.recipient.recipient_id in page.named):
            page.turn()
        if tells:
            page.told.append(people.following(row.read.stored, row.recipient, now))
            records.setdefault(row.recipient.recipient_id, [row.read.stored]).append(row.recipient)
        if row.displaced:
            closed.update(_displace(writer, row, now))
        page.add(row)
    page.turn()
    # Behind the rows, all of which were drawn while these messages held their places.
    for *earlier, last in records.values():
        for before in earlier:  # each of them: a row may be reserved on what was opened and closed within the chunk
            closed.update((one.decision_id, one) for one in revoke_withdrawn(writer, before, last, now))
    closed.update(_join(writer, workspace_id, named, awaited(), now))
    return closed


class _Page:
    """Rows that are written together: first what they tell of people, of whom no earlier one of them is, then they."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._rows: list[Draft] = []
        self.told: list[Recipient] = []
        self.named: set[str] = set()

    def add(self, row: Draft) -> None:
        """Takes one more."""
        self._rows.append(row)
        self.named.add(row.recipient.recipient_id)

    def turn(self) -> None:
        """Writes what is here and begins anew."""
        self._writer.add_decisions([(row.decision, row.message) for row in self._rows], self.told)
        self._rows, self.told, self.named = [], [], set()


def _join(
    writer: Writer, workspace_id: str, rows: Sequence[Draft], awaited: set[str], now: datetime
) -> dict[str, Decision]:
    """Joins events that arrived before the decisions that they name: callers may know a decision's id beforehand.

    Returns:
        What they called off, as it is now, by id.
    """
    closed: dict[str, Decision] = {}
    for row in rows:
        if row.decision.decision_id in awaited:
            joined = judge_anew(writer, row.decision, row.decision, writer.match_events(workspace_id, row.decision))
            closed.update((one.decision_id, one) for one in apply_opt_outs(writer, row.decision, joined, now))
            closed.update((one.decision_id, one) for one in release_failed(writer, row.decision, joined, now))
            note_engagement(writer, row.decision, joined)
    return closed


def _displace(writer: Writer, row: Draft, now: datetime) -> dict[str, Decision]:
    """Takes the places that a row takes over from those that held them; the sender learns of it from the feed."""
    by = displace.reason(row.decision.decision_id)
    found: dict[str, Decision] = {}
    for decision in row.displaced:
        gone = replace(decision, status="displaced", closed_at=now, close_reason=by)
        writer.update_decision(gone, None)
        writer.add_change(
            gone.workspace_id, "displaced", now, decision_id=gone.decision_id, campaign_id=gone.campaign_id, detail=by
        )
        found[gone.decision_id] = gone
    return found
