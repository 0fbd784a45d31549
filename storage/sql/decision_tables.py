"""Decisions and the ledger of messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Final

from storage.codec import STATUS_CODES, maybe_micros, to_micros
from storage.cursors import decode_cursor, encode_cursor
from storage.errors import AlreadyExists, VersionConflict
from storage.log import Decision, Message, Page
from storage.records import Recipient
from storage.sql.block_tables import RewriteWriter
from storage.sql.decision_rows import (
    DECISION_COLUMNS,
    INTO_DECISIONS,
    INTO_MESSAGES,
    MESSAGE_COLUMNS,
    RECIPIENT,
    SEQ,
    STORED_COLUMNS,
    decision_from,
    decision_row,
    message_from,
    message_row,
)
from storage.sql.manyrows import insert_rows
from storage.sql.setup_tables import SetupWriter
from storage.sql.tables import Row, Tables


def _select(rest: str) -> str:
    """A statement for whole decisions; the index is named where cost must not hang on the planner's guess."""
    return "SELECT " + STORED_COLUMNS + " FROM decisions " + rest  # noqa: S608 - constants of this package


_BY_ID: Final = _select("WHERE workspace_id = ? AND decision_id = ?")
_BY_IDS: Final = _select("WHERE workspace_id = ? AND decision_id IN ({marks})")
_BY_MESSAGE: Final = _select("INDEXED BY decisions_message WHERE workspace_id = ? AND provider = ? AND message_id = ? ")
_NEWEST: Final = "ORDER BY seq DESC LIMIT 2"
_BY_MESSAGE_OF_ANYBODY: Final = _BY_MESSAGE + _NEWEST
# By the person: a broadcast has one id for thousands of people.
_BY_MESSAGE_OF_ONE: Final = _select(
    "INDEXED BY decisions_recipient WHERE workspace_id = ? AND recipient_id = ? AND provider = ? AND message_id = ?"
)
_BY_MESSAGE_OF_OTHERS: Final = _BY_MESSAGE + "AND recipient_id <> ? " + _NEWEST
_DUE: Final = _select(
    "INDEXED BY decisions_due WHERE workspace_id = ? AND send_at < ? AND status IN (0, 1) "
    "AND (claimed_at IS NULL OR claimed_at < ?) ORDER BY send_at, seq LIMIT ?"
)
_OPEN: Final = _select(
    "INDEXED BY decisions_open "
    "WHERE workspace_id = ? AND recipient_id = ? AND status IN (0, 1) ORDER BY decided_at, seq"
)
#: The filters of the list, the most selective first: the first one that is given picks the index.
_FILTERS: Final = (
    ("recipient_id", "decisions_recipient"),
    ("campaign_id", "decisions_campaign"),
    ("status", "decisions_status"),
)
_MESSAGES: Final = """
SELECT COLUMNS FROM messages WHERE workspace_id = ? AND recipient_id IN ({marks}) AND at >= ? AND at < ?
ORDER BY recipient_id, at, message_ref
""".replace("COLUMNS", MESSAGE_COLUMNS)
_MESSAGE_LOG: Final = (
    "SELECT COLUMNS FROM messages WHERE workspace_id = ? ORDER BY recipient_id, at, message_ref".replace(
        "COLUMNS", MESSAGE_COLUMNS
    )
)
INSERT_DECISION: Final = """
INSERT INTO decisions (seq, workspace_id, COLUMNS, shadow_policy_id, message_at) VALUES (MARKS)
ON CONFLICT (workspace_id, decision_id) DO NOTHING
""".replace("COLUMNS", DECISION_COLUMNS).replace("MARKS", ", ".join("?" * (DECISION_COLUMNS.count(",") + 5)))
_UPDATE: Final = """
UPDATE decisions SET status = ?, claimed_at = ?, sent_at = ?, provider = ?, message_id = ?, closed_at = ?,
  close_reason = ?, message_at = ?, sent_after = ?, closed_after = ?, counted_at = ?, joined_at = ?,
  joined_after = ?
WHERE workspace_id = ? AND seq = ?
"""
#: The end of what a decision planned: each notes how far the log had come.
_CLOSINGS: Final = frozenset({"released", "revoked", "displaced", "expired", "assumed_sent"})
INSERT_MESSAGE: Final = "INSERT INTO messages (workspace_id, COLUMNS) VALUES (MARKS) ON CONFLICT DO NOTHING".replace(
    "COLUMNS", MESSAGE_COLUMNS
).replace("MARKS", ", ".join("?" * (MESSAGE_COLUMNS.count(",") + 2)))
_REMOVE_MESSAGE: Final = """
DELETE FROM messages WHERE workspace_id = ? AND recipient_id = ? AND at = ? AND message_ref = ? RETURNING COLUMNS
""".replace("COLUMNS", MESSAGE_COLUMNS)
_REMOVE_TOLD: Final = _REMOVE_MESSAGE.replace("RETURNING", "AND decision_id IS NOT 0 RETURNING")
_REMOVE_FOREIGN: Final = """
DELETE FROM messages WHERE workspace_id = ? AND recipient_id = ? AND message_ref = ? AND decision_id IS NOT 0
RETURNING COLUMNS
""".replace("COLUMNS", MESSAGE_COLUMNS)
COUNT_USE: Final = """
INSERT INTO policy_uses (workspace_id, policy_id, decisions) VALUES (?, ?, ?)
ON CONFLICT (workspace_id, policy_id) DO UPDATE SET decisions = policy_uses.decisions + excluded.decisions
"""


def of_two_people(decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """The first of some decisions, and the first of another recipient's, where there is one."""
    others = (one for one in decisions if one.recipient_id != decisions[0].recipient_id)
    return (*decisions[:1], *islice(others, 1))


class DecisionReader(Tables):
    """Queries on decisions and messages."""

    def messages(
        self, workspace_id: str, recipient_ids: Sequence[str], since: datetime, until: datetime
    ) -> dict[str, tuple[Message, ...]]:
        """See ``storage.port``."""
        found: dict[str, list[Message]] = {}
        span = (to_micros(since), to_micros(until))
        for row in self._rows_in(_MESSAGES, (workspace_id,), recipient_ids, span):
            found.setdefault(row[0], []).append(message_from(workspace_id, row, self.SAME))
        return {recipient_id: tuple(messages) for recipient_id, messages in found.items()}

    def message_log(self, workspace_id: str) -> Iterator[Message]:
        """See ``storage.port``."""
        stream = self._stream(_MESSAGE_LOG, (workspace_id,))
        return (message_from(workspace_id, row, self.SAME) for row in stream)

    def decision(self, workspace_id: str, decision_id: str) -> Decision | None:
        """See ``storage.port``."""
        row = self._row(_BY_ID, (workspace_id, decision_id))
        return None if row is None else decision_from(workspace_id, row)

    def decisions_by_id(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Decision]:
        """See ``storage.port``."""
        rows = self._rows_in(_BY_IDS, (workspace_id,), decision_ids)
        return {row[0]: decision_from(workspace_id, row) for row in rows}

    def decisions_by_message(
        self, workspace_id: str, provider: str, message_ids: Sequence[str], *, recipient_id: str | None = None
    ) -> tuple[Decision, ...]:
        """See ``storage.port``."""
        keys = [(workspace_id, provider, one) for one in message_ids]
        if recipient_id is not None:
            theirs = [(workspace_id, recipient_id, provider, one) for one in message_ids]
            rows = [row for key in theirs for row in self._rows(_BY_MESSAGE_OF_ONE, key)]
        else:
            rows = [row for key in keys for row in self._rows(_BY_MESSAGE_OF_ANYBODY, key)]
            people = {row[RECIPIENT] for row in rows}
            if len(rows) > len(people) == 1:  # of several messages to one the two newest say nothing of others
                rows += [row for key in keys for row in self._rows(_BY_MESSAGE_OF_OTHERS, (*key, *people))]
        rows.sort(key=itemgetter(SEQ), reverse=True)
        return of_two_people([decision_from(workspace_id, row) for row in rows])

    def decisions(
        self,
        workspace_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        campaign_id: str | None = None,
        recipient_id: str | None = None,
        status: str | None = None,
    ) -> Page[Decision]:
        """See ``storage.port``; of one time, the last logged first. An unknown status raises ``ValueError``."""
        if status is not None and status not in STATUS_CODES:
            raise ValueError(f"status: {status!r} is not one of {', '.join(STATUS_CODES)}")
        code = None if status is None else STATUS_CODES[status]
        wanted: dict[str, str | int | None] = {"recipient_id": recipient_id, "campaign_id": campaign_id, "status": code}
        given = [(column, index) for column, index in _FILTERS if wanted[column] is not None]
        index = given[0][1] if given else "decisions_time"
        conditions = "".join(f"AND {column} = ? " for column, _ in given)
        parameters: list[object] = [workspace_id, *(wanted[column] for column, _ in given)]
        if cursor is not None:
            conditions += "AND (decided_at, seq) < (?, ?) "
            parameters.extend(decode_cursor("decisions", cursor, (int, int)))
        statement = _select(f"INDEXED BY {index} WHERE workspace_id = ? {conditions}")
        rows = self._rows(
            statement + "ORDER BY decided_at DESC, seq DESC LIMIT ?",
            (*parameters, limit + 1),
        )
        items = tuple(decision_from(workspace_id, row) for row in rows[:limit])
        more = len(rows) > limit
        return Page(items, encode_cursor("decisions", (rows[limit - 1][9], rows[limit - 1][SEQ])) if more else None)

    def due(self, workspace_id: str, before: datetime, *, limit: int) -> tuple[Decision, ...]:
        """See ``storage.port``."""
        rows = self._rows(_DUE, (workspace_id, to_micros(before), to_micros(before), limit))
        return tuple(decision_from(workspace_id, row) for row in rows)

    def open_decisions(self, workspace_id: str, recipient_id: str) -> tuple[Decision, ...]:
        """See ``storage.port``."""
        return tuple(decision_from(workspace_id, row) for row in self._rows(_OPEN, (workspace_id, recipient_id)))


class DecisionWriter(DecisionReader, SetupWriter, RewriteWriter):
    """Changes of decisions and messages."""

    def add_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        (position,) = self._next_positions(decision.workspace_id, 1)
        if not self._query(INSERT_DECISION, _insert_row(decision, message, position)).rowcount:
            self._take_back_positions(decision.workspace_id)
            raise AlreadyExists(f"decision {decision.decision_id} is stored already")
        if message is not None:
            self._hold([message])
        self._query(COUNT_USE, (decision.workspace_id, decision.policy_id, 1))
        shadow = decision.snapshot.shadow
        if shadow is not None:
            self._query(COUNT_USE, (decision.workspace_id, shadow.policy_id, 1))

    def add_decisions(self, rows: Sequence[tuple[Decision, Message | None]], told: Sequence[Recipient] = ()) -> None:
        """See ``storage.port``."""
        if told:
            self.put_recipients(told)
        if not rows:
            return
        counts = Counter(decision.workspace_id for decision, _ in rows)
        messages = [message for _, message in rows if message is not None]
        held = [message_row(message, self.SAME) for message in messages]
        stored = self.ask(partial(insert_rows, self._query, INTO_DECISIONS, self._decision_rows(rows, counts)))
        inserted = self.ask(partial(insert_rows, self._query, INTO_MESSAGES, held))
        summed = [self.ask(partial(self._summed_rules, one)) for one in {m.workspace_id for m in messages}]
        if stored() < len(rows):
            raise AlreadyExists("one of these decisions is stored already, or is named twice")
        gone = [] if inserted() == len(held) else self._owned(held)
        for rules in summed:
            rules()
        self._book(messages, gone)
        uses = Counter((decision.workspace_id, decision.policy_id) for decision, _ in rows)
        for decision, _ in rows:
            if decision.snapshot.shadow is not None:
                uses[decision.workspace_id, decision.snapshot.shadow.policy_id] += 1
        self._send_many(COUNT_USE, [(*policy, count) for policy, count in uses.items()])

    def _decision_rows(self, rows: Sequence[tuple[Decision, Message | None]], counts: Mapping[str, int]) -> list[Row]:
        """The rows to insert, each with its workspace's next position; ``counts`` says how many each has."""
        positions = {one: iter(self._next_positions(one, count)) for one, count in sorted(counts.items())}
        return [_insert_row(decision, message, next(positions[decision.workspace_id])) for decision, message in rows]

    def update_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``; ``VersionConflict`` when the decision is not stored (any more)."""
        key = (decision.workspace_id, decision.decision_id)
        row = self._row(
            """
            SELECT seq, message_at, status, sent_after, closed_after, joined_at, joined_after FROM decisions
            WHERE workspace_id = ? AND decision_id = ?
            """,
            key,
        )
        if row is None:
            raise VersionConflict(f"decision {decision.decision_id} is not stored")
        seq, old_at, old_status, sent_after, closed_after, old_joined, joined_after = row
        if STATUS_CODES[decision.status] != old_status:
            returns = decision.status == "assumed_sent" and old_status == STATUS_CODES["expired"]
            # One assumed sent counts since then; one given back, even if it had returned, counts from its confirm on.
            counts_already = sent_after is not None and old_status == STATUS_CODES["assumed_sent"]
            if (decision.status == "sent" and not counts_already) or returns:
                sent_after = self._position(decision.workspace_id)
            if decision.status in _CLOSINGS and not returns:
                closed_after = self._position(decision.workspace_id)
        joined_at = maybe_micros(decision.joined_at)
        if joined_at != old_joined:
            joined_after = self._position(decision.workspace_id)
        changed = (
            STATUS_CODES[decision.status],
            maybe_micros(decision.claimed_at),
            maybe_micros(decision.sent_at),
            decision.provider,
            decision.message_id,
            maybe_micros(decision.closed_at),
            decision.close_reason,
            _message_at(decision, message),
            sent_after,
            closed_after,
            maybe_micros(decision.counted_at),
            joined_at,
            joined_after,
        )
        self._query(_UPDATE, (*changed, decision.workspace_id, seq))
        self._count_rewrite(decision.workspace_id, "decisions", seq)
        place = (decision.workspace_id, decision.recipient_id)
        removed: list[Message] = []
        if old_at is not None:
            removed = self._removed(_REMOVE_MESSAGE, (*place, old_at, decision.decision_id))
        elif message is not None:  # meanwhile another system may have told of it
            removed = self._removed(_REMOVE_FOREIGN, (*place, decision.decision_id))
        self._hold([] if message is None else [message], removed)

    def add_message(self, message: Message) -> bool:
        """See ``storage.port``."""
        owner = self._row(
            "SELECT recipient_id, message_at FROM decisions WHERE workspace_id = ? AND decision_id = ?",
            (message.workspace_id, message.message_ref),
        )
        if owner is not None and owner[0] == message.recipient_id and owner[1] is not None:
            return False
        if not self._query(
            INSERT_MESSAGE, message_row(message, message.decision_id, self._position(message.workspace_id))
        ).rowcount:
            return False
        self._book((message,))
        return True

    def _hold(self, messages: Sequence[Message], removed: Sequence[Message] = ()) -> None:
        """Stores decisions' messages, and keeps the sums right for them and for those that were removed before."""
        rows = [message_row(message, self.SAME) for message in messages]
        owned = [] if insert_rows(self._query, INTO_MESSAGES, rows) == len(rows) else self._owned(rows)
        self._book(messages, (*removed, *owned))

    def _owned(self, rows: Sequence[Row]) -> list[Message]:
        """Stores those of decisions' messages that couldn't be stored: another system has told of them.

        Where one has the same reference and the very instant, it is the same message, and the decision owns it: that
        row goes. Returns what went.
        """
        gone = [message for row in rows for message in self._removed(_REMOVE_TOLD, row[:4])]
        insert_rows(self._query, INTO_MESSAGES, rows)
        return gone

    def _removed(self, statement: str, key: Row) -> list[Message]:
        """The messages that a statement deleted."""
        return [message_from(str(key[0]), row, self.SAME) for row in self._rows(statement, key)]


def _message_at(decision: Decision, message: Message | None) -> int | None:
    """When the message that a decision holds is planned; ``ValueError`` when it is another decision's."""
    if message is None:
        return None
    own = (decision.workspace_id, decision.recipient_id, decision.decision_id, decision.decision_id)
    if (message.workspace_id, message.recipient_id, message.message_ref, message.decision_id) != own:
        raise ValueError(f"message {message.message_ref}: it is not that of decision {decision.decision_id}")
    return to_micros(message.at)


def _insert_row(decision: Decision, message: Message | None, position: int | None) -> Row:
    shadow = decision.snapshot.shadow
    return (
        position,
        decision.workspace_id,
        *decision_row(decision),
        None if shadow is None else shadow.policy_id,
        _message_at(decision, message),
    )
