"""Retention: what ``prune`` deletes, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from storage.codec import POLICY, TRAINING_RUN, from_micros, to_micros
from storage.policies import Policy
from storage.sql.block_tables import RewriteWriter
from storage.sql.learning_tables import LearningWriter

#: The counter that holds when retention ran last.
_RETAINED: Final = "retained_at"
_DOUBTED: Final = "clock_doubted_at"
#: Later than any time, and more than any number of rows.
_NEVER: Final = 2**62
#: The numbers of the decisions that go: parameters workspace, time, how many, time from which on messages still count,
#: and for events that name no decision the time of the oldest decision in files, if it is earlier.
#: 0 and 1 are the codes of reserved and claimed. The newest decision of all stays, since the next one gets its number
#: + 1: numbers are positions, which must never come twice.
_NUMBERS: Final = """
SELECT seq FROM decisions INDEXED BY decisions_time WHERE workspace_id = ?1 AND decided_at < ?2 AND status NOT IN (0, 1)
  AND seq < (SELECT max(seq) FROM decisions) AND (message_at IS NULL OR message_at < ?4)
ORDER BY decided_at, seq LIMIT ?3
"""
_GOING: Final = f"FROM decisions NOT INDEXED WHERE workspace_id = ?1 AND seq IN ({_NUMBERS})"
# An event without a decision belongs to every decision of its recipient that was made before it: it goes with the last.
# The newest of all stays until one is newer, as the newest decision does: its number must not come twice either.
# Without the OFFSET PostgreSQL would join with all decisions, in every step.
_ORGANIC_EVENTS: Final = """
SELECT e.seq FROM (SELECT DISTINCT recipient_id GOING) d
JOIN events e INDEXED BY events_recipient
  ON e.workspace_id = ?1 AND e.recipient_id = d.recipient_id AND e.decision_id IS NULL AND e.occurred_at < ?5
WHERE e.seq < (SELECT max(seq) FROM events) AND NOT EXISTS (
  SELECT 1 FROM decisions k INDEXED BY decisions_recipient
  WHERE k.workspace_id = ?1 AND k.recipient_id = e.recipient_id AND k.decided_at <= e.occurred_at
    AND k.seq NOT IN (NUMBERS)
  LIMIT 1 OFFSET 0
)
""".replace("GOING", _GOING).replace("NUMBERS", _NUMBERS)
_NAMING_EVENTS: Final = f"FROM events WHERE workspace_id = ?1 AND decision_id IN (SELECT decision_id {_GOING})"
_MESSAGES: Final = """
DELETE FROM messages WHERE (workspace_id, recipient_id, at, message_ref) IN (
  SELECT workspace_id, recipient_id, message_at, decision_id GOING AND message_at IS NOT NULL
)
""".replace("GOING", _GOING)
_LOOSE_EVENTS: Final = """
SELECT e.seq FROM events AS e INDEXED BY events_loose
WHERE e.workspace_id = ?1 AND e.occurred_at < ?2 AND (e.decision_id IS NULL OR e.matched = 0)
  AND e.seq < (SELECT max(seq) FROM events)
  AND NOT EXISTS (
    SELECT 1 FROM decisions k INDEXED BY decisions_recipient
    WHERE k.workspace_id = ?1 AND k.recipient_id = e.recipient_id AND k.decided_at <= e.occurred_at
      AND e.decision_id IS NULL
  )
  AND NOT EXISTS (
    SELECT 1 FROM decisions k INDEXED BY decisions_id
    WHERE k.workspace_id = ?1 AND k.decision_id = e.decision_id
  )
ORDER BY e.occurred_at LIMIT ?3
"""
#: What goes with a file of the archive: parameters workspace, recipient, time. Of people without an older decision in
#: the tables; the time is before what is left in files.
FREE_EVENTS: Final = """
FROM events WHERE workspace_id = ?1 AND seq IN (
  SELECT e.seq FROM events AS e INDEXED BY events_recipient
  WHERE e.workspace_id = ?1 AND e.recipient_id = ?2 AND e.decision_id IS NULL AND e.occurred_at < ?3
    AND e.seq < (SELECT max(seq) FROM events)
    AND NOT EXISTS (
      SELECT 1 FROM decisions k INDEXED BY decisions_recipient
      WHERE k.workspace_id = e.workspace_id AND k.recipient_id = e.recipient_id AND k.decided_at <= e.occurred_at
    )
)
"""
#: Parameters workspace, before when, the last one seen (time and id), how many. The newest of all stays: what it tells
#: of canaries and drift is where the next one goes on.
_OLD_RUNS: Final = """
SELECT created_at, run_id, document FROM training_runs
WHERE workspace_id = ?1 AND created_at < ?2 AND (created_at, run_id) > (?3, ?4)
  AND status NOT IN ('queued', 'running')
  AND created_at < (SELECT max(created_at) FROM training_runs WHERE workspace_id = ?1)
ORDER BY created_at, run_id LIMIT ?5
"""
_DROP_RUN: Final = "DELETE FROM training_runs WHERE workspace_id = ? AND run_id = ?"
#: Parameters workspace, the last one seen, the last that may go, how many.
_OLDEST_CHANGES: Final = """
SELECT c.position, c.at, EXISTS (
  SELECT 1 FROM policies WHERE workspace_id = ?1 AND policy_id IN (c.policy_id, c.replaced_id)
)
FROM changes AS c WHERE c.workspace_id = ?1 AND c.position > ?2 AND c.position <= ?3 ORDER BY c.position LIMIT ?4
"""
_DROP_CHANGE: Final = "DELETE FROM changes WHERE workspace_id = ? AND position = ?"
_DROP_EVENT: Final = "DELETE FROM events WHERE workspace_id = ? AND seq = ?"
_LOOSE_MESSAGES: Final = """
DELETE FROM messages WHERE (workspace_id, recipient_id, at, message_ref) IN (
  SELECT workspace_id, recipient_id, at, message_ref FROM messages INDEXED BY messages_others
  WHERE workspace_id = ?1 AND at < ?2 AND decision_id IS NULL
  ORDER BY at LIMIT ?3
)
"""
_USES: Final = """
UPDATE policy_uses SET decisions = decisions - gone.n
FROM (SELECT COLUMN AS policy_id, count(*) AS n GOING AND COLUMN IS NOT NULL GROUP BY 1) AS gone
WHERE policy_uses.workspace_id = ?1 AND policy_uses.policy_id = gone.policy_id
""".replace("GOING", _GOING)
_POLICIES: Final = """
SELECT policy_id, document FROM policies p WHERE workspace_id = ?1 AND created_at < ?2
AND NOT EXISTS (SELECT 1 FROM pointers WHERE workspace_id = ?1 AND policy_id = p.policy_id)
AND NOT EXISTS (SELECT 1 FROM policy_uses WHERE workspace_id = ?1 AND policy_id = p.policy_id AND decisions > 0)
"""
_POLICIES_SINCE: Final = "SELECT document FROM policies WHERE workspace_id = ? AND created_at >= ?"
_DROP_POLICY: Final = "DELETE FROM policies WHERE workspace_id = ? AND policy_id = ?"
_DROP_ARTIFACT: Final = "DELETE FROM artifacts WHERE workspace_id = ? AND artifact_id = ?"
#: A retrain dates its policy to its own beginning: what it came from, and shares a model with, may be younger.
_LONGEST_RUN: Final = timedelta(days=2)


class RetentionWriter(LearningWriter, RewriteWriter):
    """Deletes what is older than anybody needs."""

    def last_retention(self, workspace_id: str) -> tuple[datetime | None, datetime | None]:
        """See ``storage.retention``."""
        return self._time(workspace_id, _RETAINED), self._time(workspace_id, _DOUBTED)

    def note_retention(self, workspace_id: str, at: datetime, *, doubted: bool = False) -> None:
        """See ``storage.retention``."""
        if not doubted:
            self._query("DELETE FROM counters WHERE workspace_id = ? AND name = ?", (workspace_id, _DOUBTED))
        name = _DOUBTED if doubted else _RETAINED
        self._upsert("counters", {"workspace_id": workspace_id, "name": name}, {"value": to_micros(at)})

    def prune(
        self, workspace_id: str, before: datetime, *, counting_from: datetime | None = None, limit: int | None = None
    ) -> int:
        """See ``storage.retention``. Policies and artifacts go only when they were made before ``before``, too: one
        that was just trained is not in use yet. An event that names no decision goes with the last one it counts for.
        """
        old, counting = to_micros(before), _NEVER if counting_from is None else to_micros(counting_from)
        pruned = self._prune_decisions((workspace_id, old, _NEVER if limit is None else limit, counting))
        if limit is None or not pruned:
            self._query("DELETE FROM policy_uses WHERE workspace_id = ? AND decisions <= 0", (workspace_id,))
            self._prune_policies(workspace_id, old)
            self._forget_usage(workspace_id, before)
        return pruned

    def _prune_decisions(self, step: tuple[str, int, int, int]) -> int:
        bound = min(step[1], self._oldest_archived(step[0]))
        latest = self._row("SELECT max(message_at) " + _GOING, step)
        self._note_forgotten(step[0], None if latest is None else latest[0])
        self._count_all("events", _NAMING_EVENTS, step)
        self._query("DELETE " + _NAMING_EVENTS, step)
        self._drop_numbered(step[0], [row[0] for row in self._rows(_ORGANIC_EVENTS, (*step, bound))])
        for statement in (_MESSAGES, _USES.replace("COLUMN", "policy_id"), _USES.replace("COLUMN", "shadow_policy_id")):
            self._query(statement, step)
        self._count_all("decisions", _GOING, step)
        return self._query("DELETE " + _GOING, step).rowcount

    def prune_loose(self, workspace_id: str, before: datetime, *, limit: int) -> int:
        """See ``storage.retention``."""
        gone = self._query(_LOOSE_MESSAGES, (workspace_id, to_micros(before), limit)).rowcount
        bound = min(to_micros(before), self._oldest_archived(workspace_id))
        going = [row[0] for row in self._rows(_LOOSE_EVENTS, (workspace_id, bound, limit))]
        self._drop_numbered(workspace_id, going)
        return gone + len(going)

    def _drop_numbered(self, workspace_id: str, events: Sequence[int]) -> None:
        for seq in events:
            self._count_rewrite(workspace_id, "events", seq)
        if events:
            self._query_many(_DROP_EVENT, [(workspace_id, seq) for seq in events])

    def prune_runs(self, workspace_id: str, before: datetime, *, refreshes_before: datetime, limit: int) -> int:
        """See ``storage.retention``."""
        until, last = to_micros(max(before, refreshes_before)), (0, "")
        while rows := self._rows(_OLD_RUNS, (workspace_id, until, *last, limit)):
            last = rows[-1][0], rows[-1][1]
            runs = [TRAINING_RUN.unpack(document) for *_, document in rows]
            going = [r for r in runs if r.created_at < (refreshes_before if r.kind == "refresh" else before)]
            if going:
                self._query_many(_DROP_RUN, [(workspace_id, run.run_id) for run in going])
                return len(going)
        return 0

    def prune_changes(self, workspace_id: str, before: datetime, *, told: int | None, limit: int) -> int:
        """See ``storage.retention``."""
        last, until = 0, _NEVER if told is None else told
        while rows := self._rows(_OLDEST_CHANGES, (workspace_id, last, until, limit)):
            # In the order of commits times ascend, but for clocks that differ: nobody reads the whole feed for those.
            old = list(takewhile(lambda row: row[1] < to_micros(before), rows))
            going = [(workspace_id, position) for position, _, in_use in old if not in_use]
            if going:
                self._query_many(_DROP_CHANGE, going)
            if going or len(old) < len(rows):
                return len(going)
            last = rows[-1][0]
        return 0

    def _oldest_archived(self, workspace_id: str) -> int:  # noqa: ARG002 - for who overrides
        """When the oldest decision in files was made; what occurred before belongs to none of those."""
        return _NEVER

    def _prune_policies(self, workspace_id: str, before: int) -> None:
        documents = self._rows("SELECT document FROM policies WHERE workspace_id = ?", (workspace_id,))
        policies = [POLICY.unpack(row[0]) for row in documents]
        unused = {name for name, _ in self._rows(_POLICIES, (workspace_id, before))}
        going = unused - {policy.gated_id for policy in policies if policy.policy_id not in unused}
        # A campaign's newest verdict says how much of its error is spent.
        judged = sorted((policy for policy in policies if not policy.revision), key=lambda policy: policy.created_at)
        going -= set({policy.campaign_id: policy.policy_id for policy in judged}.values())
        self._query_many(_DROP_POLICY, [(workspace_id, policy_id) for policy_id in sorted(going)])
        kept = {part.artifact_id for policy in policies if policy.policy_id not in going for part in policy.mixture}
        old = self._rows(
            "SELECT artifact_id FROM artifacts WHERE workspace_id = ? AND created_at < ?", (workspace_id, before)
        )
        self._query_many(_DROP_ARTIFACT, [(workspace_id, row[0]) for row in old if row[0] not in kept])

    def prune_revisions(self, workspace_id: str, before: datetime, *, limit: int) -> int:
        """See ``storage.retention``."""
        unused = [POLICY.unpack(document) for _, document in self._rows(_POLICIES, (workspace_id, to_micros(before)))]
        idle = [p for p in unused if p.revision and p.superseded_at is not None and p.superseded_at < before]
        going = {p.policy_id: p for p in sorted(idle, key=lambda p: p.created_at)[:limit]}
        if not going:
            return 0
        named = {part.artifact_id for p in going.values() for part in p.mixture if part.artifact_id is not None}
        made = [made for one in sorted(named) if (made := self._made(workspace_id, one)) is not None]
        since = min([*made, *(p.created_at for p in going.values())]) - _LONGEST_RUN
        younger = [POLICY.unpack(row[0]) for row in self._rows(_POLICIES_SINCE, (workspace_id, to_micros(since)))]
        staying = [p for p in younger if p.policy_id not in going]
        for policy in staying:
            self._skip_parents(policy, going)
        self._query_many(_DROP_POLICY, [(workspace_id, one) for one in going])
        kept = {part.artifact_id for p in staying for part in p.mixture}
        self._query_many(_DROP_ARTIFACT, [(workspace_id, one) for one in sorted(named) if one not in kept])
        return len(going)

    def _made(self, workspace_id: str, artifact_id: str) -> datetime | None:
        """When an artifact was stored first: no older policy names it."""
        row = self._row(
            "SELECT created_at FROM artifacts WHERE workspace_id = ? AND artifact_id = ?", (workspace_id, artifact_id)
        )
        return None if row is None else from_micros(row[0])

    def _skip_parents(self, policy: Policy, going: Mapping[str, Policy]) -> None:
        """Makes a policy that stays come from one that does, so that its line of revisions has no gap."""
        parent_id = policy.parent_id
        while parent_id is not None and parent_id in going:
            parent_id = going[parent_id].parent_id
        if parent_id != policy.parent_id:
            self._rewrite_policy(replace(policy, parent_id=parent_id))
