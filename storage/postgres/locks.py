"""Which writes wait for each other, by advisory locks that end with the transaction.

They are always taken in this order, so that writes rarely close a circle (PostgreSQL finds those, and the write runs
again): first the *turn*, which all writes take that name no recipients, so that they run one after the other; then the
*gate* of each workspace, shared by writes that name recipients and closed by whatever all of them depend on (campaigns,
rules, retention); then the recipients; then decisions and messages that were looked for and are not there, so that who
stores one and who awaits it don't miss each other; last the workspace's log, from the first position or shared sum that
a write asks for until it commits. So writes for different recipients go on side by side until they come to the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

#: A write of more locks than this closes the gate instead: the server's table of locks has some thousand places.
MOST_LOCKS = 300

_SHARED, _EXCLUSIVE = 1, 0
_LOCK = """
SELECT count(
  CASE WHEN shared = 1 THEN pg_advisory_xact_lock_shared(key)::text ELSE pg_advisory_xact_lock(key)::text END
) FROM unnest($1::bigint[], $2::bigint[]) AS wanted (key, shared)
"""
#: A statement and its values.
Taking = tuple[str, tuple[list[int], list[int]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a write takes before it starts: its recipients, and the workspaces whose gate it closes.

    One that names no recipients, or closes a gate, takes its turn; one that writes nothing which another looks at is
    ``aside`` of all that and waits for nobody.
    """

    recipients: frozenset[tuple[str, str]]
    closed: frozenset[str] = frozenset()
    aside: bool = False

    @classmethod
    def of(cls, recipients: Iterable[tuple[str, str]]) -> Plan:
        """The plan of a write that names these recipients."""
        return cls(frozenset(recipients)).fitted()

    def fitted(self) -> Plan:
        """This plan, with gates closed in place of more recipients than there may be locks."""
        if len(self.recipients) <= MOST_LOCKS:
            return self
        return replace(self, closed=self.closed | {workspace_id for workspace_id, _ in self.recipients})


class RunAgain(Exception):
    """The write needs locks that come before some that it has; it is undone and runs again with this plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("a write runs again with more locks")
        self.plan = plan


class Locks:
    """The locks of one write transaction; ``first`` is the statement that takes what is planned."""

    def __init__(self, plan: Plan) -> None:
        self.execute: Callable[..., object] = _not_begun
        self._plan = plan
        self._closed = set(plan.closed)
        self._held: set[int] = set()
        self.logs_taken = False
        wanted: list[tuple[int, int]] = []
        if plan.closed or not (plan.recipients or plan.aside):
            wanted.append((_key("turn"), _EXCLUSIVE))
        open_gates = {workspace_id for workspace_id, _ in plan.recipients} - plan.closed
        gates = [(_key("gate", one), _EXCLUSIVE) for one in plan.closed]
        wanted += sorted(gates + [(_key("gate", one), _SHARED) for one in open_gates])
        people = {_key("recipient", *pair) for pair in plan.recipients if pair[0] not in plan.closed}
        self._held |= people
        self.first = _taking(wanted + [(key, _EXCLUSIVE) for key in sorted(people)])

    def close_gate(self, workspace_id: str) -> None:
        """Shuts out every write of the workspace that names recipients.

        Raises:
            RunAgain: it was too late for that; it will be done at the start.
        """
        if workspace_id in self._closed:
            return
        if self._plan.recipients or self.logs_taken or self._held:
            raise RunAgain(replace(self._plan, closed=self._plan.closed | self._closed | {workspace_id}))
        self._lock([(_key("gate", workspace_id), _EXCLUSIVE)])
        self._closed.add(workspace_id)

    def require(self, workspace_id: str, recipient_ids: Iterable[str]) -> None:
        """Makes sure that a write which names recipients has named these.

        Raises:
            RunAgain: it had not; it will hold them from the start.
        """
        if not self._plan.recipients or workspace_id in self._closed:
            return
        missing = {(workspace_id, one) for one in recipient_ids} - self._plan.recipients
        if missing:
            raise RunAgain(replace(self._plan, recipients=self._plan.recipients | missing).fitted())

    def take(self, kind: str, workspace_id: str, names: Iterable[str]) -> bool:
        """Locks things by name; False when all of them were locked by this write before, or are behind a closed gate.

        Raises:
            RunAgain: they are too many, and the gate will be closed instead.
        """
        if workspace_id in self._closed:
            return False
        new = sorted({_key(kind, workspace_id, name) for name in names} - self._held)
        if not new:
            return False
        if len(self._held) + len(new) > 2 * MOST_LOCKS:
            self.close_gate(workspace_id)
            return False
        self._lock([(key, _EXCLUSIVE) for key in new])
        self._held.update(new)
        return True

    def _lock(self, wanted: Sequence[tuple[int, int]]) -> None:
        self.execute(*_taking(wanted))


def _taking(wanted: Sequence[tuple[int, int]]) -> Taking:
    """Takes locks in this order."""
    return _LOCK, ([key for key, _ in wanted], [way for _, way in wanted])


def _not_begun(*statement: object) -> object:
    raise RuntimeError(f"the transaction of these locks has not begun: {statement}")


def _key(*name: str) -> int:
    """A name as a number; should two names ever have the same, writes wait that needn't."""
    digest = blake2b("\0".join(f"{len(part)}:{part}" for part in name).encode(), digest_size=8, person=b"sendtide lock")
    return int.from_bytes(digest.digest(), "big", signed=True)
