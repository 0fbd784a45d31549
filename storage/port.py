"""The store, as the rest of the code sees it: one protocol, documented once, kept by every backend.

A *read* runs on a consistent snapshot. A *write* is one function that runs inside one transaction: it either commits
whole and durable before ``Store.write`` returns, or leaves nothing. Backends may run several such functions in one
physical commit (group commit); each is isolated from the failure of the others, and sees what the earlier ones wrote.
A write function may therefore be run again from its start (after a serialization failure): it must have no effect
outside the transaction. Nothing in this protocol is particular to one database.

Positions (``Decision.position``) ascend in the order of a workspace's commits and, within a write, of calls; none comes
twice in a workspace. What is stored beside decisions notes the newest position of that moment (``…_after``): a write
that makes room for a decision therefore makes it before it adds the decision. The store assigns them all; what a caller
gives is ignored.

Rules for callers: times are aware UTC; ids are opaque strings; a list is ordered as documented and pages by cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from storage.archive import ArchiveChanges, ArchiveQueries
from storage.blocks import BlockQueries
from storage.bulk import BulkReader, BulkWriter
from storage.columns import ColumnQueries
from storage.endpoint_port import EndpointChanges, EndpointQueries
from storage.erasure import ErasureReader, ErasureWriter, Scrubbing
from storage.intake import IntakeChanges, IntakeQueries
from storage.learning_port import LearningChanges, LearningQueries
from storage.log import Change, Decision, Event, FeedbackRow, Happening, Message, Page
from storage.ranks import RankReader, RankWriter
from storage.records import ApiKey, Attribute, Campaign, Recipient, Workspace
from storage.retention import RetentionChanges, RetentionQueries
from storage.rhythm import RhythmChanges, RhythmQueries
from storage.rules import Rule
from storage.sessions import SessionChanges, SessionQueries
from storage.webhooks import WebhookReader, WebhookWriter

T = TypeVar("T")


class Reader(
    ArchiveQueries,
    BlockQueries,
    BulkReader,
    ColumnQueries,
    EndpointQueries,
    ErasureReader,
    IntakeQueries,
    LearningQueries,
    RankReader,
    RetentionQueries,
    RhythmQueries,
    SessionQueries,
    WebhookReader,
    Protocol,
):
    """Queries on one consistent snapshot, confined to one workspace but for the first four, ``pointers`` and
    ``webhook_source``."""

    def ask(self, question: Callable[[], T]) -> Callable[[], T]:
        """Asks something whose answer is looked at later: all that is asked before the first answer is looked at shares
        one way to the database.

        Args:
            question: asks this reader; it may be called twice, and must do nothing else.

        Returns:
            Gives the answer, as it was at some moment since it was asked.
        """

    def meta(self, name: str) -> str | None:
        """A named fact of the whole installation (such as its salt)."""

    def key_by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """The key whose secret has this SHA-256, revoked or not."""

    def workspaces(self) -> tuple[Workspace, ...]:
        """All workspaces, by id."""

    def workspace(self, workspace_id: str) -> Workspace | None:
        """One workspace."""

    def keys(self, workspace_id: str) -> tuple[ApiKey, ...]:
        """All keys, oldest first."""

    def config_version(self, workspace_id: str) -> int:
        """Grows with each change of the workspace, its campaigns, rules, attributes (0 = none such)."""

    def campaign(self, workspace_id: str, campaign_id: str, version: int | None = None) -> Campaign | None:
        """A campaign, now or as it was at ``version`` (every version is kept, so that decisions can be replayed)."""

    def campaigns(self, workspace_id: str, *, limit: int, cursor: str | None = None) -> Page[Campaign]:
        """Current versions, by id, archived ones included."""

    def rules(self, workspace_id: str) -> tuple[Rule, ...]:
        """All rules by id, archived ones included."""

    def rule_history(self, workspace_id: str) -> tuple[Rule, ...]:
        """Every version of every rule, by id, then version: what the audit judges old reservations by."""

    def usage(self, workspace_id: str, spans: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int], int]:
        """What is used of a workspace's capacity and budget rules, as ``storage.usage`` defines it; ``spans`` are
        (rule id, first period, last period), both included.

        Returns:
            (rule id, period) -> used, where it is not 0. At all times the sum of ``usage.taken`` over the messages that
            count, for each rule that is not archived (disabled ones and dry runs too). A period that ended by the
            ``before`` of a ``prune`` is 0 from then on, whatever is told of it; in any other a deleted message stays
            counted until the rule is summed anew.
        """

    def summed(self, rule: Rule, since: datetime) -> dict[int, int]:
        """What messages at or after ``since`` take of a capacity or budget, stored or not, by period: reads each."""

    def unanswered(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, int]:
        """How many messages went to each recipient since they last engaged with one (absent = 0)."""

    def attributes(self, workspace_id: str) -> tuple[Attribute, ...]:
        """The attribute registry, by name."""

    def recipient(self, workspace_id: str, recipient_id: str) -> Recipient | None:
        """One recipient as stored now."""

    def recipients(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, Recipient]:
        """Those of the given recipients that exist."""

    def messages(
        self, workspace_id: str, recipient_ids: Sequence[str], since: datetime, until: datetime
    ) -> dict[str, tuple[Message, ...]]:
        """Messages with ``since <= at < until`` that count against caps, per recipient (absent = none), by time.

        Cost must not depend on how many messages lie outside the span.
        """

    def message_log(self, workspace_id: str) -> Iterator[Message]:
        """Every message that counts against caps, by recipient, then time; streamed."""

    def decision(self, workspace_id: str, decision_id: str) -> Decision | None:
        """One decision as it stands now."""

    def decisions_by_id(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Decision]:
        """Those of the given decisions that exist."""

    def decisions_by_message(
        self, workspace_id: str, provider: str, message_ids: Sequence[str], *, recipient_id: str | None = None
    ) -> tuple[Decision, ...]:
        """The newest decision (of a recipient) that was confirmed with one of these ids, then another recipient's."""

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
        """Decisions, newest first."""

    def due(self, workspace_id: str, before: datetime, *, limit: int) -> tuple[Decision, ...]:
        """Decisions still reserved or claimed, planned and claimed before ``before``; by planned send time."""

    def open_decisions(self, workspace_id: str, recipient_id: str) -> tuple[Decision, ...]:
        """This recipient's reserved and claimed decisions, oldest first."""

    def events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """Events that name this decision, and events of its recipient that name no decision and occurred at or after
        ``decided_at``; by occurrence, then id."""

    def past(self, workspace_id: str, recipient_id: str, before: datetime, *, limit: int) -> tuple[Happening, ...]:
        """A recipient's last messages and events before a moment, oldest first (by time, then ``ref``).

        Messages are those that count against caps; what is planned for ``before`` or later has not happened. Events are
        those that name the recipient, or named a decision of theirs that was known when they arrived. Automated ones
        and ``delivered`` ones say nothing of the recipient and are left out.

        Cost must not depend on how many happened before those that are asked for.
        """

    def pasts(
        self, workspace_id: str, recipient_ids: Sequence[str], before: datetime, *, limit: int
    ) -> dict[str, tuple[Happening, ...]]:
        """``past`` of many; recipients without any are left out."""

    def pasts_before(
        self, workspace_id: str, asked: Sequence[tuple[str, datetime]], *, limit: int
    ) -> dict[tuple[str, datetime], tuple[Happening, ...]]:
        """``past`` of many, each before a moment of its own; those without any are left out."""

    def known_events(self, workspace_id: str, event_ids: Sequence[str]) -> dict[str, str]:
        """The types of those of the given event ids that are stored."""

    def unmatched_events(self, workspace_id: str) -> int:
        """How many events still await their decision."""

    def feedback(
        self,
        workspace_id: str,
        *,
        campaign_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        imported: bool | None = None,
    ) -> Iterator[FeedbackRow]:
        """Decisions with ``since <= decided_at < until`` and their events (as ``events`` gives them), in the order of
        ``(decided_at, decision_id)``; streamed, so that a long log needs no more memory than a short one."""

    def changes(self, workspace_id: str, *, after: int, limit: int) -> tuple[Change, ...]:
        """The change feed after a position, in order."""

    def policy_changes(
        self, workspace_id: str, *, limit: int, policy_id: str | None = None, campaign_id: str | None = None
    ) -> tuple[Change, ...]:
        """What became of policies (of one, also as the one replaced; else of a campaign's), the newest first: put into
        service, taken back."""

    def import_position(self, workspace_id: str, import_id: str) -> int:
        """How many rows of this import are stored (0 = none)."""


class Writer(
    Reader,
    ArchiveChanges,
    BulkWriter,
    EndpointChanges,
    ErasureWriter,
    IntakeChanges,
    LearningChanges,
    RankWriter,
    RetentionChanges,
    RhythmChanges,
    SessionChanges,
    WebhookWriter,
    Protocol,
):
    """Changes inside one transaction; reads see what was written earlier in it."""

    def put_meta(self, name: str, value: str) -> str:
        """Sets a fact of the installation if it has none yet; returns the one that holds."""

    def put_workspace(self, workspace: Workspace) -> None:
        """Inserts or replaces; bumps ``config_version``."""

    def put_key(self, key: ApiKey) -> None:
        """Inserts or replaces by ``(workspace_id, key_id)``."""

    def put_campaign(self, campaign: Campaign) -> None:
        """Stores the newest version (else ``VersionConflict``: it is the stored one + 1); bumps ``config_version``."""

    def put_rule(self, rule: Rule) -> None:
        """As ``put_campaign``, for a rule. What a capacity or budget rule counts is summed anew when that changes."""

    def add_unanswered(self, workspace_id: str, recipient_id: str, count: int) -> None:
        """Changes the recipient's count of unanswered messages by ``count``; it never falls below 0."""

    def clear_unanswered(self, workspace_id: str, recipient_id: str) -> None:
        """Sets that count to 0: the recipient engaged."""

    def put_attribute(self, attribute: Attribute) -> None:
        """Inserts or replaces; bumps ``config_version``."""

    def put_recipient(self, recipient: Recipient) -> None:
        """Stores ``recipient.version``; ``VersionConflict`` unless it is the stored version + 1. Its ``changed_after``
        is kept, or assigned where it is -1."""

    def put_recipients(self, recipients: Sequence[Recipient]) -> None:
        """``put_recipient`` for many."""

    def add_decision(self, decision: Decision, message: Message | None) -> None:
        """Logs a decision and, with it, the message that it reserves; gives it the next position. ``AlreadyExists``
        when the id is taken. ``counted_at`` and ``joined_at`` are not kept: they are of what comes afterwards."""

    def add_decisions(self, rows: Sequence[tuple[Decision, Message | None]], told: Sequence[Recipient] = ()) -> None:
        """``put_recipients`` of what was told with them, then ``add_decision`` for many; where an id is taken, the
        write is to be given up, which undoes the others."""

    def update_decision(self, decision: Decision, message: Message | None) -> None:
        """Replaces what may change after the choice (status, claim, sending, counting, joining, closing) and the
        message that it holds against the caps (None = it holds none). Notes ``sent_after`` when it becomes ``sent``
        (unless it had one as assumed sent), or assumed sent once expired, ``closed_after`` when it becomes released,
        revoked, displaced, expired, or else assumed sent, ``joined_after`` with another ``joined_at``."""

    def add_message(self, message: Message) -> bool:
        """Counts a message of another system; False when this ``message_ref`` of this recipient is known already."""

    def add_event(self, event: Event) -> bool:
        """Stores an event; False (and nothing changed) when its ``event_id`` is known already."""

    def add_events(self, events: Sequence[Event]) -> int:
        """``add_event`` for many; returns how many were new."""

    def awaited(self, workspace_id: str, decision_ids: Sequence[str]) -> set[str]:
        """Those of these decisions that unmatched events name."""

    def match_events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """Makes unmatched events that name this decision, or its provider and message id, its, its recipient's and its
        campaign's; returns them. Another decision that one names counts, but a vendor's, which may be none of ours."""

    def put_import_position(self, workspace_id: str, import_id: str, rows: int) -> None:
        """Notes how many rows of an import are stored."""

    def drop_import_positions(self, workspace_id: str, prefix: str, *, keep: str = "") -> None:
        """Forgets how far the imports are whose ids begin with ``prefix``, all but ``keep``."""


class Store(Scrubbing, Protocol):
    """A store opened by one process (after its fork). Safe to share between the threads of that process."""

    #: Whether it matters which ``recipients`` a write names: where all writes take turns, nobody needs to look them up.
    names_recipients: bool
    #: The folder of the archive (``storage.archive``).
    archive: Path

    def read(self) -> AbstractContextManager[Reader]:
        """A reader on a consistent snapshot of everything committed. For the calling thread only."""

    def write(self, work: Callable[[Writer], T], *, recipients: Sequence[tuple[str, str]] = ()) -> T:
        """Runs ``work`` in a transaction and returns its result once that is durable.

        Args:
            work: the transaction; what it raises is raised here, with nothing recorded.
            recipients: the ``(workspace_id, recipient_id)`` pairs whose state ``work`` reads in order to decide what to
                write. Writes with a pair in common run one after the other.

        Raises:
            StoreUnavailable: the store can't be reached or can't take the write; nothing was recorded (see its
                ``fate_unknown`` for the exception).
        """

    def check(self) -> None:
        """Raises ``StoreUnavailable`` unless the store can be read and takes a write."""

    def close(self) -> None:
        """Ends every connection and thread of this store. Calls after it raise ``StoreUnavailable``."""
