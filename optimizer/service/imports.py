"""Imports of files: recipients, history, events. Resumable, idempotent, and one bad row spoils no other.

Rows are stored in chunks. In the transaction of a chunk the position in the file is stored under the hash of the file's
content, so a killed import goes on where it stopped, also when the file was moved. Every row may be stored again
without harm: recipients are replaced by themselves, history and events have ids derived from content.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

from optimizer.errors import Invalid
from optimizer.service import history, setup, wholeevents
from optimizer.service import recipients as people
from optimizer.service.cells import Cells
from optimizer.service.erased import gone, refusal
from optimizer.service.importrows import event_row, recipient_row
from optimizer.service.ingest import ingest
from optimizer.service.mapping import ColumnMapping
from optimizer.service.requests import EventInput
from optimizer.service.rowfiles import RowFile, fingerprint
from optimizer.service.rowparts import NumberedRow, Part, Rows, Table
from optimizer.service.wholecolumns import Unusual
from optimizer.service.wholerecipients import RecipientColumns
from optimizer.service.wiring import Services
from storage.port import Reader, Writer
from storage.records import Recipient

T = TypeVar("T")
Kind = Literal["recipients", "history", "events"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Rows that share a transaction.
CHUNK = 2000


@dataclass(frozen=True)
class BadRow:
    """A row that was refused: its line (its number, in Parquet) and what is wrong with it."""

    line: int
    error: Invalid


@dataclass(frozen=True)
class ImportReport:
    """What became of a file's rows. ``resumed``: an earlier run had stored them; ``known``: stored already."""

    rows: int = 0
    stored: int = 0
    known: int = 0
    bad: int = 0
    resumed: int = 0


def import_file(
    services: Services,
    workspace_id: str,
    kind: Kind,
    path: Path,
    *,
    mapping: ColumnMapping | None = None,
    strict: bool = False,
    on_bad: Callable[[BadRow], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Imports a file.

    Args:
        services: the wired service.
        workspace_id: whose rows they are; made when it is new.
        kind: what the rows are.
        path: CSV, NDJSON or Parquet, by suffix.
        mapping: how its columns become ours; None = they are.
        strict: stop at the first bad row. Rows before it stay stored; so may events of the same chunk after it.
        on_bad: told of every bad row, in order.
        on_progress: told after each chunk how much of the file is done: bytes (rows, in Parquet) and their total.

    Raises:
        Invalid: the file as a whole can't be read; or, when ``strict``, a row is bad (the detail names its line).
        StoreUnavailable: the rows of this chunk were not stored; the import can be run again.
    """
    setup.ensure_workspace(services, workspace_id)
    place = Place(services, workspace_id, fingerprint(path, kind, *([mapping.digest] if mapping else [])))
    with services.store.read() as reader:
        resumed = reader.import_position(workspace_id, place.import_id)
    report = ImportReport(resumed=resumed)
    with RowFile(path) as file, _rarely_collected():
        run = _run(kind, place, file.typed, strict)
        for first, chunk in _chunks(file, mapping, resumed):
            part = run.store(first, chunk)
            report = replace(
                report,
                stored=report.stored + part.stored,
                known=report.known + part.known,
                bad=report.bad + len(part.bad),
            )
            if on_bad:
                for bad in part.bad:
                    on_bad(bad)
            if strict and part.bad:
                raise _as_refusal(part.bad[0])
            if on_progress:
                on_progress(file.done(), file.total)
        return replace(report, rows=resumed + report.stored + report.known + report.bad)


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """A chunk is thousands of objects that live for a moment and hold no cycles: looking for some in them again and
    again took a third of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(50 * CHUNK, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _chunks(file: RowFile, mapping: ColumnMapping | None, skip: int) -> Iterator[tuple[int, Part]]:
    """The rows after the first ``skip``, in chunks, each with the position of its first row."""
    first = 0
    for part in file.parts(CHUNK):
        following = first + len(part)
        if following > skip:
            left = part.behind(max(0, skip - first))
            yield following - len(left), left if mapping is None else Rows(list(mapping.rows(iter(left.rows()))))
        first = following


def _as_refusal(bad: BadRow) -> Invalid:
    return Invalid(f"line {bad.line}: {bad.error.detail}", code=bad.error.code, errors=bad.error.errors)


@dataclass(frozen=True)
class Place:
    """Where an import's rows and its position go."""

    services: Services
    workspace_id: str
    import_id: str

    def note(self, rows: int) -> Callable[[Writer], None]:
        """What stores, in a transaction, that the first ``rows`` rows are done."""
        return lambda writer: writer.put_import_position(self.workspace_id, self.import_id, rows)


class _Target(Protocol[T]):
    """What a kind of import does with its rows."""

    def put_whole(self, table: Table, position: int) -> _Part | None:
        """Stores a chunk in which nothing is unusual, and with it the position after it; None = nothing was stored, and
        it is to be read row by row."""

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Reads what ``parse`` needs for these rows."""

    def parse(self, line: int, cells: Cells) -> T:
        """One row; ``Invalid`` when it is bad."""

    def put(self, rows: Sequence[tuple[int, T]], position: int) -> _Part:
        """Stores parsed rows and with them the position after them."""


@dataclass(frozen=True)
class _Part:
    """What became of a chunk."""

    stored: int
    known: int
    bad: tuple[BadRow, ...] = ()


@dataclass(frozen=True)
class _Run(Generic[T]):
    """One import going on."""

    place: Place
    target: _Target[T]
    typed: bool
    strict: bool

    def store(self, first: int, chunk: Part) -> _Part:
        """Stores a chunk whose first row is at position ``first``; when strict, only up to its first bad row."""
        table = chunk.table()
        quick = None if table is None else self.target.put_whole(table, first + len(chunk))
        if quick is not None:
            return quick
        parsed, bad, taken = self._parse(chunk.rows())
        part = self.target.put(parsed, first + taken)
        return replace(part, bad=tuple(sorted([*bad, *part.bad], key=lambda row: row.line)))

    def _parse(self, rows: Sequence[NumberedRow]) -> tuple[list[tuple[int, T]], list[BadRow], int]:
        """The good rows, the bad ones, and how many rows that is from the start (strict: those before the bad one)."""
        readable = [(line, row if isinstance(row, Invalid) else Cells(row, typed=self.typed)) for line, row in rows]
        with self.place.services.store.read() as reader:
            self.target.prepare(reader, [row for _, row in readable if isinstance(row, Cells)])
        parsed: list[tuple[int, T]] = []
        bad: list[BadRow] = []
        for taken, (line, row) in enumerate(readable):
            try:
                if isinstance(row, Invalid):
                    raise row
                parsed.append((line, self.target.parse(line, row)))
            except Invalid as error:
                bad.append(BadRow(line, error))
                if self.strict:
                    return parsed, bad, taken
        return parsed, bad, len(rows)


def _run(kind: Kind, place: Place, typed: bool, strict: bool) -> _Run[Any]:
    targets: dict[Kind, _Target[Any]] = {
        "recipients": _Recipients(place, RecipientColumns(typed)),
        "history": _History(place),
        "events": _Events(place, wholeevents.EventColumns(typed)),
    }
    return _Run(place, targets[kind], typed, strict)


def _put_whole(
    place: Place, table: Table, recipients: Sequence[str], store: Callable[[Writer], bool], position: int
) -> _Part | None:
    """What ``_Target.put_whole`` says, with ``store`` to do it."""

    def work(writer: Writer) -> bool:
        stored = store(writer)
        if stored:
            place.note(position)(writer)
        return stored

    pairs = [(place.workspace_id, one) for one in recipients]
    return _Part(stored=len(table), known=0) if place.services.store.write(work, recipients=pairs) else None


@dataclass(frozen=True)
class _Recipients:
    """Rows replace recipients, as ``PUT`` does: refusals that events recorded stay."""

    place: Place
    columns: RecipientColumns

    def put_whole(self, table: Table, position: int) -> _Part | None:
        """See ``_Target``."""
        services, workspace_id = self.place.services, self.place.workspace_id
        try:
            found = self.columns.read(table, services.clock())
        except Unusual:
            return None

        def store(writer: Writer) -> bool:
            known = services.catalog.view(writer, workspace_id, keep=False).attributes
            return self.columns.store(writer, workspace_id, known, found)

        return _put_whole(self.place, table, found.ids, store, position)

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Recipients need nothing."""

    def parse(self, line: int, cells: Cells) -> Recipient:  # noqa: ARG002  the protocol's signature
        return recipient_row(cells, self.place.workspace_id)

    def put(self, rows: Sequence[tuple[int, Recipient]], position: int) -> _Part:
        people = [row for _, row in rows]
        setup.put_recipients(self.place.services, self.place.workspace_id, people, self.place.note(position))
        return _Part(stored=len(rows), known=0)


@dataclass(frozen=True)
class _Events:
    """Rows are events as ``POST /v1/events`` takes them."""

    place: Place
    columns: wholeevents.EventColumns

    def put_whole(self, table: Table, position: int) -> _Part | None:
        """See ``_Target``."""
        services, workspace_id = self.place.services, self.place.workspace_id
        try:
            found = self.columns.read(table, services.clock())
        except Unusual:
            return None
        return _put_whole(
            self.place, table, found.recipients, lambda w: wholeevents.store(w, workspace_id, found), position
        )

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Events are correlated where they are stored."""

    def parse(self, line: int, cells: Cells) -> EventInput:  # noqa: ARG002  the protocol's signature
        return event_row(cells)

    def put(self, rows: Sequence[tuple[int, EventInput]], position: int) -> _Part:
        events = [row for _, row in rows]
        report = ingest(self.place.services, self.place.workspace_id, events, also=self.place.note(position))
        refused = tuple(BadRow(rows[r.index][0], Invalid(r.detail, code=r.code)) for r in report.rejected)
        return _Part(stored=report.accepted, known=report.duplicates, bad=refused)


@dataclass
class _History:
    """Rows are decisions that another system logged; see ``history``."""

    place: Place
    campaigns: dict[str, history.Frame | None] = field(default_factory=dict)
    recipients: Mapping[str, Recipient] = field(default_factory=dict)
    gone: Set[str] = frozenset()

    def put_whole(self, table: Table, position: int) -> _Part | None:  # noqa: ARG002  the protocol's signature
        """Every row of a history is read by itself."""
        return None

    def prepare(self, reader: Reader, rows: Sequence[Cells]) -> None:
        """Reads the chunk's campaigns and recipients; a cell that is no id is refused by ``parse``."""
        workspace_id = self.place.workspace_id
        named = _ids(rows, "recipient_id")
        self.recipients = reader.recipients(workspace_id, sorted(named))
        self.gone = gone(reader, self.place.services.salt, workspace_id, named - self.recipients.keys())
        for campaign_id in _ids(rows, "campaign_id") - set(self.campaigns):
            campaign = reader.campaign(workspace_id, campaign_id)
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

    def put(self, rows: Sequence[tuple[int, history.LoggedRow]], position: int) -> _Part:
        workspace_id = self.place.workspace_id
        logged = [row for _, row in rows]

        def work(writer: Writer) -> int:
            known = writer.decisions_by_id(workspace_id, [row.decision.decision_id for row in logged])
            new = [row for row in logged if row.decision.decision_id not in known]
            people.sight(writer, workspace_id, {}, [row.decision.snapshot.context for row in new])
            writer.add_decisions([(row.decision, row.message) for row in new])
            writer.add_events([event for row in new for event in row.events])
            self.place.note(position)(writer)
            return len(new)

        pairs = sorted({(workspace_id, row.decision.recipient_id) for row in logged})
        new = self.place.services.store.write(work, recipients=pairs)
        return _Part(stored=new, known=len(logged) - new)


def _ids(rows: Sequence[Cells], column: str) -> set[str]:
    """The ids in a column; cells that are none are left to ``parse``, which refuses their rows."""
    found = set()
    for cells in rows:
        with suppress(Invalid):
            found.add(cells.id(column))
    return {one for one in found if one is not None}
