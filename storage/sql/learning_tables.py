"""Artifacts, policies, pointers, training runs, the change feed, imports and leases."""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from storage.codec import POLICY, TRAINING_RUN, from_micros, is_judged_or_live, to_micros
from storage.cursors import decode_cursor, encode_cursor
from storage.errors import AlreadyExists, VersionConflict
from storage.log import Change, ChangeKind, Page
from storage.policies import Artifact, Pointer, Policy, PolicyStatus, TrainingRun
from storage.sql.setup_tables import SetupWriter
from storage.sql.tables import Row, Tables

_POINTERS: Final = "SELECT workspace_id, campaign_id, policy_id, generation, moved_at FROM pointers "
#: The counter of positions in the change feed.
FEED: Final = "change_position"
_CHANGE: Final = "SELECT position, kind, at, decision_id, campaign_id, policy_id, detail, replaced_id FROM changes "
_CHANGES: Final = _CHANGE + "WHERE workspace_id = ? AND position > ? ORDER BY position LIMIT ?"
#: Few changes are of policies. Left to choose, SQLite reads the whole feed for them.
_OF_POLICIES: Final = (
    _CHANGE
    + "INDEXED BY changes_policies WHERE workspace_id = ? AND policy_id IS NOT NULL ORDER BY position DESC LIMIT ?"
)
_OF_CAMPAIGN: Final = _OF_POLICIES.replace("IS NOT NULL", "IS NOT NULL AND campaign_id = ?")
_OF_POLICY: Final = _OF_POLICIES.replace("IS NOT NULL", "IS NOT NULL AND ? IN (policy_id, replaced_id)")
#: How much longer than whoever asks for a lease its holder can have it: by so much hosts' clocks may differ.
_CLOCK_SKEW: Final = timedelta(minutes=5)
#: One statement, so that of two who find it run out only one gets it.
_TAKE_LEASE: Final = """
INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE leases.holder = excluded.holder OR leases.until <= ?4 OR leases.until > ?5
"""
#: Policies that are read at once where most of them may be left out.
_LOOKED_AT: Final = 500
#: What a blob begins with that is stored compressed; those of earlier versions are stored as they are.
_COMPRESSED: Final = b"zlib\0"


def _blob(stored: bytes) -> bytes:
    if not stored.startswith(_COMPRESSED):
        return stored
    try:
        return zlib.decompress(stored.removeprefix(_COMPRESSED))
    except zlib.error:
        return stored  # whoever loads it is told that the artifact is broken


class LearningReader(Tables):
    """Queries on what was learned and on background work."""

    def artifact(self, workspace_id: str, artifact_id: str) -> Artifact | None:
        """See ``storage.port``."""
        row = self._row(
            """
            SELECT created_at, checksum, feature_hash, blob FROM artifacts WHERE workspace_id = ? AND artifact_id = ?
            """,
            (workspace_id, artifact_id),
        )
        if row is None:
            return None
        created_at, checksum, feature_hash, stored = row
        return Artifact(workspace_id, artifact_id, from_micros(created_at), checksum, feature_hash, _blob(stored))

    def policy(self, workspace_id: str, policy_id: str) -> Policy | None:
        """See ``storage.port``."""
        row = self._row(
            "SELECT document FROM policies WHERE workspace_id = ? AND policy_id = ?", (workspace_id, policy_id)
        )
        return None if row is None else POLICY.unpack(row[0])

    def policies(
        self,
        workspace_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        campaign_id: str | None = None,
        revisions: bool = True,
    ) -> Page[Policy]:
        """See ``storage.port``; of one time, the last stored first."""
        if revisions:
            rows, following = self._newest("policies", workspace_id, limit, cursor, campaign_id=campaign_id)
        else:
            rows, following = self._judged_or_live(workspace_id, limit, cursor, campaign_id)
        return Page(tuple(POLICY.unpack(row[0]) for row in rows), following)

    def pointer(self, workspace_id: str, campaign_id: str) -> Pointer | None:
        """See ``storage.port``."""
        row = self._row(_POINTERS + "WHERE workspace_id = ? AND campaign_id = ?", (workspace_id, campaign_id))
        return None if row is None else _pointer_from(row)

    def pointers(self) -> tuple[Pointer, ...]:
        """See ``storage.port``."""
        return tuple(_pointer_from(row) for row in self._rows(_POINTERS + "ORDER BY workspace_id, campaign_id", ()))

    def training_run(self, workspace_id: str, run_id: str) -> TrainingRun | None:
        """See ``storage.port``."""
        row = self._row(
            "SELECT document FROM training_runs WHERE workspace_id = ? AND run_id = ?", (workspace_id, run_id)
        )
        return None if row is None else TRAINING_RUN.unpack(row[0])

    def training_runs(
        self,
        workspace_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        status: str | None = None,
        kind: str | None = None,
    ) -> Page[TrainingRun]:
        """See ``storage.port``; of one time, the last stored first."""
        rows, following = self._newest("training_runs", workspace_id, limit, cursor, status=status, kind=kind)
        return Page(tuple(TRAINING_RUN.unpack(row[0]) for row in rows), following)

    def changes(self, workspace_id: str, *, after: int, limit: int) -> tuple[Change, ...]:
        """See ``storage.port``."""
        return self._changes(_CHANGES, workspace_id, after, limit)

    def policy_changes(
        self, workspace_id: str, *, limit: int, policy_id: str | None = None, campaign_id: str | None = None
    ) -> tuple[Change, ...]:
        """See ``storage.port``."""
        if policy_id is not None:
            return self._changes(_OF_POLICY, workspace_id, policy_id, limit)
        if campaign_id is not None:
            return self._changes(_OF_CAMPAIGN, workspace_id, campaign_id, limit)
        return self._changes(_OF_POLICIES, workspace_id, limit)

    def _changes(self, statement: str, workspace_id: str, *more: object) -> tuple[Change, ...]:
        rows = self._rows(statement, (workspace_id, *more))
        return tuple(Change(workspace_id, row[0], row[1], from_micros(row[2]), *row[3:]) for row in rows)

    def import_position(self, workspace_id: str, import_id: str) -> int:
        """See ``storage.port``."""
        row = self._row(
            "SELECT rows FROM import_positions WHERE workspace_id = ? AND import_id = ?", (workspace_id, import_id)
        )
        return 0 if row is None else int(row[0])

    def _judged_or_live(
        self, workspace_id: str, limit: int, cursor: str | None, campaign_id: str | None
    ) -> tuple[list[Row], str | None]:
        """As ``_newest``, of policies that are no revision or live: reads on until the page is full, since only the
        documents tell, and between two that the gate has judged there may be thousands of revisions."""
        found: list[Row] = []
        while len(found) <= limit:
            rows, cursor = self._newest("policies", workspace_id, _LOOKED_AT, cursor, campaign_id=campaign_id)
            found += [row for row in rows if is_judged_or_live(row[0])]
            if cursor is None:
                break
        return found[:limit], encode_cursor("policies", found[limit - 1][1:]) if len(found) > limit else None

    def _newest(
        self, table: str, workspace_id: str, limit: int, cursor: str | None, **wanted: str | None
    ) -> tuple[list[Row], str | None]:
        """A page of documents, newest first, and the cursor of the next; ``wanted``: values of columns (None = any)."""
        conditions = "WHERE workspace_id = ? "
        parameters: list[object] = [workspace_id]
        for column, value in wanted.items():
            if value is not None:
                conditions += f"AND {column} = ? "
                parameters.append(value)
        if cursor is not None:
            conditions += "AND (created_at, seq) < (?, ?) "
            parameters.extend(decode_cursor(table, cursor, (int, int)))
        statement = f"SELECT document, created_at, seq FROM {table} {conditions}"  # noqa: S608 - names of this module
        rows = self._rows(statement + "ORDER BY created_at DESC, seq DESC LIMIT ?", (*parameters, limit + 1))
        more = len(rows) > limit
        return rows[:limit], encode_cursor(table, rows[limit - 1][1:]) if more else None


class LearningWriter(LearningReader, SetupWriter):
    """Changes of what was learned and of background work."""

    def put_artifact(self, artifact: Artifact) -> None:
        """See ``storage.port``."""
        self._query(
            """
            INSERT INTO artifacts (workspace_id, artifact_id, created_at, checksum, feature_hash, blob)
            VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, artifact_id) DO NOTHING
            """,
            (
                artifact.workspace_id,
                artifact.artifact_id,
                to_micros(artifact.created_at),
                artifact.checksum,
                artifact.feature_hash,
                # Many draws of a model are zeros of features at rest: a fifth to a half is left, in 4 ms.
                _COMPRESSED + zlib.compress(artifact.blob, level=1),
            ),
        )

    def add_policy(self, policy: Policy) -> None:
        """See ``storage.port``; ``AlreadyExists`` when the id is taken."""
        added = self._query(
            """
            INSERT INTO policies (workspace_id, policy_id, campaign_id, created_at, document)
            VALUES (?, ?, ?, ?, ?) ON CONFLICT (workspace_id, policy_id) DO NOTHING
            """,
            (
                policy.workspace_id,
                policy.policy_id,
                policy.campaign_id,
                to_micros(policy.created_at),
                POLICY.pack(policy),
            ),
        )
        if not added.rowcount:
            raise AlreadyExists(f"policy {policy.policy_id} is stored already")

    def set_policy_status(
        self, workspace_id: str, policy_id: str, status: PolicyStatus, *, superseded_at: datetime | None = None
    ) -> None:
        """See ``storage.port``; ``VersionConflict`` when there is no such policy (any more)."""
        policy = self.policy(workspace_id, policy_id)
        if policy is None:
            raise VersionConflict(f"policy {policy_id} is not stored")
        self._rewrite_policy(replace(policy, status=status, superseded_at=superseded_at))

    def _rewrite_policy(self, policy: Policy) -> None:
        self._query(
            "UPDATE policies SET document = ? WHERE workspace_id = ? AND policy_id = ?",
            (POLICY.pack(policy), policy.workspace_id, policy.policy_id),
        )

    def move_pointer(self, pointer: Pointer) -> None:
        """See ``storage.port``."""
        stored = self.pointer(pointer.workspace_id, pointer.campaign_id)
        following = 1 if stored is None else stored.generation + 1
        if pointer.generation != following:
            raise VersionConflict(
                f"pointer of campaign {pointer.campaign_id}: generation {pointer.generation} was to be stored, "
                f"but {following} comes next"
            )
        self._upsert(
            "pointers",
            {"workspace_id": pointer.workspace_id, "campaign_id": pointer.campaign_id},
            {
                "policy_id": pointer.policy_id,
                "generation": pointer.generation,
                "moved_at": to_micros(pointer.moved_at),
            },
        )

    def put_training_run(self, run: TrainingRun) -> None:
        """See ``storage.port``."""
        self._query(
            """
            INSERT INTO training_runs (workspace_id, run_id, created_at, status, document) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (workspace_id, run_id) DO UPDATE SET created_at = excluded.created_at,
              status = excluded.status, document = excluded.document
            """,
            (run.workspace_id, run.run_id, to_micros(run.created_at), run.status, TRAINING_RUN.pack(run)),
        )

    def take_lease(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """See ``storage.port``; a lease has run out when its ``until`` is at or before ``now``. One that would hold for
        much longer than a new one was taken while the clock was ahead, and nobody waits for that date."""
        longest = to_micros(until + _CLOCK_SKEW)
        return self._query(_TAKE_LEASE, (name, holder, to_micros(until), to_micros(now), longest)).rowcount > 0

    def drop_lease(self, name: str, holder: str) -> None:
        """See ``storage.port``."""
        self._query("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder))

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
        position = self._next(workspace_id, FEED)
        self._query(
            """
            INSERT INTO changes
              (workspace_id, position, kind, at, decision_id, campaign_id, policy_id, detail, replaced_id)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (workspace_id, position, kind, to_micros(at), decision_id, campaign_id, policy_id, detail, replaced_id),
        )
        return position

    def put_import_position(self, workspace_id: str, import_id: str, rows: int) -> None:
        """See ``storage.port``."""
        self._upsert("import_positions", {"workspace_id": workspace_id, "import_id": import_id}, {"rows": rows})

    def drop_import_positions(self, workspace_id: str, prefix: str, *, keep: str = "") -> None:
        """See ``storage.port``."""
        self._query(
            """
            DELETE FROM import_positions
            WHERE workspace_id = ? AND substr(import_id, 1, CAST(? AS integer)) = ? AND import_id != ?
            """,
            (workspace_id, len(prefix), prefix, keep),
        )


def _pointer_from(row: Row) -> Pointer:
    return Pointer(row[0], row[1], row[2], row[3], from_micros(row[4]))
