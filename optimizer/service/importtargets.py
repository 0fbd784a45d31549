"""What an import does with the rows of each kind: reads them, by whole columns or one by one, and stores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, get_args

from optimizer.errors import Invalid
from optimizer.service import history, setup
from optimizer.service import recipients as people
from optimizer.service.cells import Cells
from optimizer.service.erased import any_erased, gone, refusal
from optimizer.service.eventtypes import well_spelled
from optimizer.service.header import Allowed
from optimizer.service.importrows import EVENT_ROW, RECIPIENT_ROW, event_row, recipient_row
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput, IngestReport
from optimizer.service.rowparts import Table
from optimizer.service.wholecolumns import Unusual
from optimizer.service.wholeevents import EventColumns
from optimizer.service.wholehistory import HistoryColumns
from optimizer.service.wholerecipients import RecipientColumns
from optimizer.service.wiring import Services
from storage.errors import OneByOne
from storage.port import Reader, Writer
from storage.records import Recipient

T = TypeVar("T")
Kind = Literal["recipients", "history", "events"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: What the ids of imports of recipients begin with.
_RECIPIENTS = "recipients/"
#: The columns that files of each kind may have.
ALLOWED: Mapping[Kind, Allowed] = {
    "recipients": RECIPIENT_ROW,
    "history": (history.COLUMNS, history.NESTED),
    "events": EVENT_ROW,
}


@dataclass(frozen=True)
class BadRow:
    """A row that was refused: its line (its number, in Parquet) and what is wrong with it."""

    line: int
    error: Invalid


@dataclass(frozen=True)
class Place:
    """Where an import's rows and its position go.

    Rows of recipients replace what later ones say. So only the last import of recipients can go on where it stopped,
    and only if it did not reach its end: an earlier file that comes again says what holds now, from its first row on.
    """

    services: Services
    workspace_id: str
    kind: Kind
    content: str

    @property
    def import_id(self) -> str:
        """What the position is stored under."""
        return _RECIPIENTS + self.content if self.kind == "recipients" else self.content

    def note(self, rows: int | None) -> Callable[[Writer], None]:
        """What stores, in a transaction, that the first ``rows`` rows are done; None = it stays where it is."""

        def work(writer: Writer) -> None:
            if self.kind == "recipients":
                writer.drop_import_positions(self.workspace_id, _RECIPIENTS, keep=self.import_id)
            if rows is not None:
                writer.put_import_position(self.workspace_id, self.import_id, rows)

        return work

    def reached_end(self) -> None:
        """All rows were looked at: those of recipients are taken again with the file."""
        if self.kind == "recipients":
            whose = self.workspace_id
            self.services.store.write(lambda writer: writer.drop_import_positions(whose, _RECIPIENTS))


class Target(Protocol[T]):
    """What a kind of import does with its rows."""

    def put_whole(self, table: Table, position: int | None) -> Stored | None:
        """Stores a chunk in which nothing is unusual, and with it the position after it (None: which stays where it
        is); None = nothing was stored, and it is to be read row by row."""

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Reads what ``parse`` needs for these rows."""

    def parse(self, line: int, cells: Cells) -> T:
        """One row; ``Invalid`` when it is bad."""

    def put(self, rows: Sequence[tuple[int, T]], position: int | None) -> Stored:
        """Stores parsed rows and with them a position, before the first row that couldn't be parsed. It stays where it
        is where that is None, or a row is refused here."""


@dataclass(frozen=True)
class Stored:
    """What became of a chunk."""

    stored: int
    known: int
    bad: tuple[BadRow, ...] = ()


def _put_whole(
    place: Place, table: Table, recipients: Sequence[str], store: Callable[[Writer], None], position: int | None
) -> Stored | None:
    """What ``Target.put_whole`` says, with ``store`` to do it."""

    def work(writer: Writer) -> None:
        store(writer)
        place.note(position)(writer)

    pairs = [(place.workspace_id, one) for one in recipients]
    try:
        place.services.store.write(work, recipients=pairs)
    except OneByOne:
        return None
    return Stored(stored=len(table), known=0)


@dataclass(frozen=True)
class _Recipients:
    """Rows replace recipients, as ``PUT`` does: refusals that events recorded stay."""

    place: Place
    columns: RecipientColumns

    def put_whole(self, table: Table, position: int | None) -> Stored | None:
        """See ``Target``."""
        services, workspace_id = self.place.services, self.place.workspace_id
        try:
            found = self.columns.read(table, services.clock())
        except Unusual:
            return None
        return _put_whole(self.place, table, found.ids, lambda w: self.columns.store(w, workspace_id, found), position)

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Recipients need nothing."""

    def parse(self, line: int, cells: Cells) -> Recipient:  # noqa: ARG002  the protocol's signature
        return recipient_row(cells, self.place.workspace_id)

    def put(self, rows: Sequence[tuple[int, Recipient]], position: int | None) -> Stored:
        people = [row for _, row in rows]
        setup.put_recipients(self.place.services, self.place.workspace_id, people, self.place.note(position))
        return Stored(stored=len(rows), known=0)


@dataclass(frozen=True)
class _Events:
    """Rows are events as ``POST /v1/events`` takes them."""

    place: Place
    columns: EventColumns

    def put_whole(self, table: Table, position: int | None) -> Stored | None:
        """See ``Target``."""
        services, workspace_id = self.place.services, self.place.workspace_id
        try:
            with services.store.read() as reader:
                mapped = services.catalog.view(reader, workspace_id).spoken(reader).refusals
            found = self.columns.read(table, services.clock(), mapped)
        except Unusual:
            return None
        return _put_whole(
            self.place, table, found.people, lambda w: self.columns.store(w, workspace_id, found), position
        )

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Events are correlated where they are stored."""

    def parse(self, line: int, cells: Cells) -> EventInput:  # noqa: ARG002  the protocol's signature
        return event_row(cells)

    def put(self, rows: Sequence[tuple[int, EventInput]], position: int | None) -> Stored:
        events = well_spelled(self.place.services, self.place.workspace_id, [row for _, row in rows])

        def note(writer: Writer, report: IngestReport) -> None:
            all_good = not report.rejected and all(isinstance(one, EventInput) for one in events)
            self.place.note(position if all_good else None)(writer)

        report = ingest(self.place.services, self.place.workspace_id, events, also=note)
        refused = tuple(BadRow(rows[r.index][0], Invalid(r.detail, code=r.code)) for r in report.rejected)
        return Stored(stored=report.accepted, known=report.duplicates, bad=refused)


@dataclass
class _History:
    """Rows are decisions that another system logged; see ``history``."""

    place: Place
    columns: HistoryColumns
    campaigns: dict[str, history.Frame | None] = field(default_factory=dict)
    recipients: Mapping[str, Recipient] = field(default_factory=dict)
    gone: Set[str] = frozenset()

    def put_whole(self, table: Table, position: int | None) -> Stored | None:
        """See ``Target``."""
        services, workspace_id = self.place.services, self.place.workspace_id
        try:
            campaign_id = self.columns.campaign_of(table)
            with services.store.read() as reader:
                self._learn(reader, {campaign_id})
                frame = self.campaigns[campaign_id]
                if frame is None or any_erased(reader, workspace_id):
                    return None
                found = self.columns.read(table, frame, reader, services.clock())
        except Unusual:
            return None
        return _put_whole(
            self.place, table, found.recipients, lambda w: self.columns.store(w, workspace_id, table, found), position
        )

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Reads the chunk's campaigns and recipients; a cell that is no id is refused by ``parse``."""
        workspace_id = self.place.workspace_id
        named = _ids(rows, "recipient_id")
        self.recipients = reader.recipients(workspace_id, sorted(named))
        self.gone = gone(reader, self.place.services.salt, workspace_id, named - self.recipients.keys())
        self._learn(reader, _ids(rows, "campaign_id"))

    def _learn(self, reader: Reader, campaign_ids: Set[str]) -> None:
        for campaign_id in campaign_ids - set(self.campaigns):
            campaign = reader.campaign(self.place.workspace_id, campaign_id)
            self.campaigns[campaign_id] = None if campaign is None else history.Frame(campaign)

    def parse(self, line: int, cells: Cells) -> history.LoggedRow:
        campaign_id = cells.required_id("campaign_id")
        frame = self.campaigns[campaign_id]
        if frame is None:
            raise Invalid.field(
                "campaign_id", f"no campaign {campaign_id!r} in this workspace", code="unknown_campaign"
            )
        recipient_id = cells.required_id("recipient_id")
        if recipient_id in self.gone:
            raise refusal(recipient_id)
        recipient = self.recipients.get(recipient_id)
        return history.read_row(cells, line, frame, recipient, self.place.services.clock())

    def put(self, rows: Sequence[tuple[int, history.LoggedRow]], position: int | None) -> Stored:
        workspace_id, salt = self.place.workspace_id, self.place.services.salt
        named = sorted({row.decision.recipient_id for _, row in rows})

        def work(writer: Writer) -> Stored:
            erased = gone(writer, salt, workspace_id, named)  # since ``prepare`` asked
            bad = [BadRow(line, refusal(who)) for line, row in rows if (who := row.decision.recipient_id) in erased]
            logged = [row for _, row in rows if row.decision.recipient_id not in erased]
            known = writer.decisions_by_id(workspace_id, [row.decision.decision_id for row in logged])
            new = [row for row in logged if row.decision.decision_id not in known]
            people.sight(writer, workspace_id, {}, [row.decision.snapshot.context for row in new])
            decided = history.with_pasts(writer, workspace_id, new)
            writer.add_decisions([(one, row.message) for one, row in zip(decided, new, strict=True)])
            writer.add_events([event for row in new for event in row.events])
            self.place.note(None if bad else position)(writer)
            return Stored(stored=len(new), known=len(logged) - len(new), bad=tuple(bad))

        return self.place.services.store.write(work, recipients=[(workspace_id, one) for one in named])


def _ids(rows: Sequence[Cells], column: str) -> set[str]:
    """The ids in a column; cells that are none are left to ``parse``, which refuses their rows."""
    found = set()
    for cells in rows:
        with suppress(Invalid):
            found.add(cells.id(column))
    return {one for one in found if one is not None}


def target_of(kind: Kind, place: Place, *, typed: bool) -> Target[Any]:
    """What takes the rows of a kind."""
    targets: dict[Kind, Target[Any]] = {
        "recipients": _Recipients(place, RecipientColumns(typed)),
        "history": _History(place, HistoryColumns(typed)),
        "events": _Events(place, EventColumns(typed)),
    }
    return targets[kind]
