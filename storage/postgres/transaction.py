"""All queries and changes of a PostgreSQL transaction in one object, with the locks that changes need."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from storage.archive import ArchiveFile
from storage.bulk import NewLogged
from storage.codec import to_micros
from storage.log import ChangeKind, Decision, Event, Happening, Message, Named
from storage.postgres.locks import Locks
from storage.postgres.migrate import ARCHIVED
from storage.postgres.statements import Noted, Statements
from storage.postgres.tables import PostgresTables
from storage.records import Attribute, Campaign, Recipient, Workspace
from storage.rules import Rule
from storage.sql.archive_changes import ArchiveWriter
from storage.sql.archive_columns import ArchiveColumnReader
from storage.sql.endpoint_tables import EndpointReader, EndpointWriter
from storage.sql.intake_tables import IntakeReader, IntakeWriter
from storage.sql.past_tables import PAST, PastReader, happening_from
from storage.sql.rank_tables import RankReader, RankWriter
from storage.sql.rhythm_tables import RhythmReader, RhythmWriter
from storage.sql.session_tables import SessionReader, SessionWriter

_PASTS = f"""
SELECT people.who, told.* FROM unnest(CAST(?2 AS TEXT[])) AS people (who)
CROSS JOIN LATERAL ({PAST.replace("?2", "people.who")}) AS told (at, ref, kind, channel, campaign, variant, properties)
ORDER BY people.who, told.at, told.ref
"""  # noqa: S608 - statements of this package
_PASTS_BEFORE = f"""
SELECT asked.who, asked.before, told.* FROM unnest(CAST(?2 AS TEXT[]), CAST(?3 AS BIGINT[])) AS asked (who, before)
CROSS JOIN LATERAL ({PAST.replace("?2", "asked.who").replace("?3", "asked.before")})
  AS told (at, ref, kind, channel, campaign, variant, properties)
ORDER BY asked.who, asked.before, told.at, told.ref
"""  # noqa: S608 - statements of this package
_USED = """
SELECT used.rule_id, used.period, used.used
FROM unnest(CAST(?2 AS TEXT[]), CAST(?3 AS BIGINT[]), CAST(?4 AS BIGINT[])) AS span (rule_id, first, last)
JOIN usage AS used ON used.workspace_id = ?1 AND used.rule_id = span.rule_id
  AND used.period >= span.first AND used.period <= span.last AND used.used <> 0
"""
_LOCK_POSITION = "SELECT value FROM counters WHERE workspace_id = ? AND name = 'position' FOR UPDATE"
_FIRST_POSITION = "INSERT INTO counters (workspace_id, name, value) VALUES (?, 'position', 0) ON CONFLICT DO NOTHING"
_NEXT_POSITIONS = "SELECT nextval('decision_positions') FROM generate_series(1, ?)"
_SET_POSITION = "UPDATE counters SET value = ? WHERE workspace_id = ? AND name = 'position'"
_TOUCH = "INSERT INTO meta (name, value) VALUES ('write_check', '') ON CONFLICT (name) DO UPDATE SET value = ''"


class PostgresReader(
    PostgresTables,
    ArchiveColumnReader,
    EndpointReader,
    IntakeReader,
    PastReader,
    RankReader,
    RhythmReader,
    SessionReader,
):
    """``storage.port.Reader`` on one connection."""

    def pasts(
        self, workspace_id: str, recipient_ids: Sequence[str], before: datetime, *, limit: int
    ) -> dict[str, tuple[Happening, ...]]:
        """See ``storage.port``; by one statement, since each takes a round trip."""
        found: dict[str, list[Happening]] = {}
        for who, *row in self._rows(_PASTS, (workspace_id, list(set(recipient_ids)), to_micros(before), limit)):
            found.setdefault(who, []).append(happening_from(tuple(row)))
        return {who: tuple(past) for who, past in found.items()}

    def pasts_before(
        self, workspace_id: str, asked: Sequence[tuple[str, datetime]], *, limit: int
    ) -> dict[tuple[str, datetime], tuple[Happening, ...]]:
        """See ``storage.port``; as ``pasts``."""
        moments = {(who, to_micros(before)): (who, before) for who, before in asked}
        people, befores = [who for who, _ in moments], [before for _, before in moments]
        found: dict[tuple[str, datetime], list[Happening]] = {}
        for who, before, *row in self._rows(_PASTS_BEFORE, (workspace_id, people, befores, limit)):
            found.setdefault(moments[who, before], []).append(happening_from(tuple(row)))
        return {one: tuple(past) for one, past in found.items()}

    def usage(self, workspace_id: str, spans: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
        """See ``storage.port``; by one statement, as ``pasts``."""
        if not spans:
            return {}
        rules, first, last = (list(column) for column in zip(*spans, strict=True))
        rows = self._rows(_USED, (workspace_id, rules, first, last))
        return {(rule_id, period): used for rule_id, period, used in rows}


class PostgresWriter(
    PostgresReader,
    ArchiveWriter,
    EndpointWriter,
    IntakeWriter,
    RankWriter,
    RhythmWriter,
    SessionWriter,
):
    """``storage.port.Writer`` on one connection; ``storage.postgres.locks`` says what waits for what."""

    def __init__(self, statements: Statements, locks: Locks) -> None:
        super().__init__(statements)
        self._locks = locks
        locks.execute = statements.later
        self._positions: dict[str, int] = {}
        #: What they were before the last ones were given.
        self._earlier: dict[str, int] = {}
        self._changed: set[str] = set()
        self._locking: dict[str, Noted] = {}
        self._drawn: dict[str, Noted] = {}

    def finish(self) -> None:
        """See ``storage.sql.tables``; also notes the positions that were given."""
        for workspace_id in sorted(self._changed):
            self._send(_SET_POSITION, (self._positions[workspace_id], workspace_id))
        super().finish()

    def touch(self) -> None:
        """Writes a row that nobody reads, to learn whether writing works."""
        self._query(_TOUCH)

    # --- the log: positions, sums and the change feed are in the order of commits

    def _position(self, workspace_id: str) -> int:
        found = self._positions.get(workspace_id)
        if found is None:
            row = self._statements.answer(self._locked(workspace_id)).fetchone()
            if row is None:
                self._drawn.pop(workspace_id, None)  # nothing was locked yet
                self._send(_FIRST_POSITION, (workspace_id,))
                row = self._row(_LOCK_POSITION, (workspace_id,)) or (0,)
            found = self._positions[workspace_id] = int(row[0])
        return found

    def _locked(self, workspace_id: str) -> Noted:
        """The statement that locks the log and tells its newest position."""
        self._locks.logs_taken = True
        if workspace_id not in self._locking:
            self._locking[workspace_id] = self._note(_LOCK_POSITION, (workspace_id,))
        return self._locking[workspace_id]

    def _draw(self, workspace_id: str, count: int) -> Noted:
        """The statement that draws the next positions; the lock is taken before it, and on the same way."""
        if workspace_id not in self._positions:
            self._locked(workspace_id)
        return self._note(_NEXT_POSITIONS, (count,))

    def _next_positions(self, workspace_id: str, count: int) -> Sequence[int | None]:
        # Drawn while the log is locked, they ascend in the order of the workspace's commits.
        self._earlier[workspace_id] = self._position(workspace_id)
        drawing = self._drawn.pop(workspace_id, None) or self._draw(workspace_id, count)
        drawn = [row[0] for row in self._statements.answer(drawing)]
        self._positions[workspace_id] = drawn[-1]
        self._changed.add(workspace_id)
        return drawn

    def _take_back_positions(self, workspace_id: str) -> None:
        self._positions[workspace_id] = self._earlier[workspace_id]

    def _hold_log(self, workspace_id: str) -> None:
        self._position(workspace_id)

    def usage(self, workspace_id: str, spans: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
        """See ``storage.port``; what is told holds until the commit."""
        if spans:
            self._position(workspace_id)
        return super().usage(workspace_id, spans)

    def add_change(
        self,
        workspace_id: str,
        kind: ChangeKind,
        at: datetime,
        *,
        decision_id: str | None = None,
        campaign_id: str | None = None,
        policy_id: str | None = None,
        replaced_id: str | None = None,
        detail: str = "",
    ) -> int:
        """See ``storage.port``."""
        self._position(workspace_id)
        return super().add_change(
            workspace_id,
            kind,
            at,
            decision_id=decision_id,
            campaign_id=campaign_id,
            policy_id=policy_id,
            replaced_id=replaced_id,
            detail=detail,
        )

    # --- decisions: whoever looks for one waits first for who may be storing it

    def decision(self, workspace_id: str, decision_id: str) -> Decision | None:
        """See ``storage.port``."""
        return self.decisions_by_id(workspace_id, (decision_id,)).get(decision_id)

    def decisions_by_id(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Decision]:
        """See ``storage.port``."""
        self._locks.take("decision", workspace_id, decision_ids)
        found = super().decisions_by_id(workspace_id, decision_ids)
        self._locks.require(workspace_id, (decision.recipient_id for decision in found.values()))
        return found

    def named(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Named]:
        """See ``storage.bulk``."""
        self._locks.take("decision", workspace_id, decision_ids)
        found = super().named(workspace_id, decision_ids)
        self._locks.require(workspace_id, (one.recipient_id for one in found.values()))
        return found

    def decisions_by_message(
        self, workspace_id: str, provider: str, message_ids: Sequence[str], *, recipient_id: str | None = None
    ) -> tuple[Decision, ...]:
        """See ``storage.port``."""
        self._locks.take("message", workspace_id, [_message(provider, one) for one in message_ids])
        found = super().decisions_by_message(workspace_id, provider, message_ids, recipient_id=recipient_id)
        if len(found) == 1:  # where it may be either's, nothing of theirs is changed
            self._locks.require(workspace_id, (found[0].recipient_id,))
        return found

    def match_events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """See ``storage.port``."""
        self._lock_names(workspace_id, (decision,))
        return super().match_events(workspace_id, decision)

    def add_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        self._lock_names(decision.workspace_id, (decision,))
        super().add_decision(decision, message)

    def add_decisions(self, rows: Sequence[tuple[Decision, Message | None]], told: Sequence[Recipient] = ()) -> None:
        """See ``storage.port``."""
        self._lock_people(told)
        by_workspace = {
            workspace_id: [one for one, _ in rows if one.workspace_id == workspace_id]
            for workspace_id in sorted({decision.workspace_id for decision, _ in rows})
        }
        for workspace_id, decisions in by_workspace.items():
            self._lock_names(workspace_id, decisions)
        self._drawn = {one: self._draw(one, len(decisions)) for one, decisions in by_workspace.items()}
        super().add_decisions(rows, told)

    def update_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        self._lock_names(decision.workspace_id, (decision,))
        super().update_decision(decision, message)

    def _lock_names(self, workspace_id: str, decisions: Sequence[Decision]) -> None:
        """Locks what events may call these by; before the log, as whoever reports such an event does."""
        self._locks.take("decision", workspace_id, [one.decision_id for one in decisions])
        named = [_message(one.provider, one.message_id) for one in decisions if one.message_id is not None]
        if named:
            self._locks.take("message", workspace_id, named)

    def put_archive_file(self, file: ArchiveFile) -> None:
        """See ``storage.archive``; code that would not look there has to refuse this database from now on."""
        self._locks.close_gate(file.workspace_id)  # whoever asked whether there is an archive has ended
        super().put_archive_file(file)
        self._query(ARCHIVED)

    # --- what every decision depends on

    def put_workspace(self, workspace: Workspace) -> None:
        """See ``storage.port``."""
        self._locks.close_gate(workspace.workspace_id)
        super().put_workspace(workspace)

    def put_campaign(self, campaign: Campaign) -> None:
        """See ``storage.port``."""
        self._locks.close_gate(campaign.workspace_id)
        super().put_campaign(campaign)

    def put_rule(self, rule: Rule) -> None:
        """See ``storage.port``."""
        self._locks.close_gate(rule.workspace_id)
        super().put_rule(rule)

    def put_attribute(self, attribute: Attribute) -> None:
        """See ``storage.port``."""
        self._locks.close_gate(attribute.workspace_id)
        super().put_attribute(attribute)

    def put_recipients(self, recipients: Sequence[Recipient]) -> None:
        """See ``storage.port``."""
        self._lock_people(recipients)
        super().put_recipients(recipients)

    def _lock_people(self, recipients: Sequence[Recipient]) -> None:
        for workspace_id in sorted({recipient.workspace_id for recipient in recipients}):
            ids = [recipient.recipient_id for recipient in recipients if recipient.workspace_id == workspace_id]
            self._locks.require(workspace_id, ids)
            self._locks.take("recipient", workspace_id, ids)

    def add_new_recipients(self, workspace_id: str, recipient_ids: Sequence[str], documents: Sequence[bytes]) -> None:
        """See ``storage.bulk``."""
        self._locks.require(workspace_id, recipient_ids)
        self._locks.take("recipient", workspace_id, recipient_ids)
        super().add_new_recipients(workspace_id, recipient_ids, documents)

    def add_new_logged(self, workspace_id: str, logged: NewLogged) -> None:
        """See ``storage.bulk``."""
        self._locks.take("decision", workspace_id, logged.ids)
        super().add_new_logged(workspace_id, logged)

    def prune(
        self, workspace_id: str, before: datetime, *, counting_from: datetime | None = None, limit: int | None = None
    ) -> int:
        """See ``storage.retention``."""
        self._locks.close_gate(workspace_id)
        self._query("SET LOCAL statement_timeout = 0")  # the first one of a grown log takes its time
        return super().prune(workspace_id, before, counting_from=counting_from, limit=limit)

    def prune_loose(self, workspace_id: str, before: datetime, *, limit: int) -> int:
        """See ``storage.retention``."""
        self._locks.close_gate(workspace_id)
        return super().prune_loose(workspace_id, before, limit=limit)


def _message(provider: str | None, message_id: str) -> str:
    return f"{len(provider or '')}:{provider or ''}:{message_id}"
