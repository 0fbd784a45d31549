"""Imports of files: recipients, history, events. Resumable, idempotent, and one bad row spoils no other.

Rows are stored in chunks. In the transaction of a chunk the position in the file is stored under the hash of the file's
content, so a killed import goes on where it stopped, also when the file was moved. It stays before the first row that
was refused, since what a row lacked (its campaign, for instance) may be there when the import is run again. Every row
may be stored again without harm: recipients are replaced, history and events have ids derived from content. A file of
recipients whose end was reached is stored again as a whole when it comes again: what it says may have changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from optimizer.errors import Invalid
from optimizer.service import settledrows, setup
from optimizer.service.cells import Cells
from optimizer.service.garbage import rarely_collected
from optimizer.service.header import require_known
from optimizer.service.importtargets import ALLOWED, BadRow, Kind, Place, Stored, Target, target_of
from optimizer.service.mapping import ColumnMapping
from optimizer.service.rowfiles import RowFile, fingerprint
from optimizer.service.rowparts import NumberedRow, Part, Rows
from optimizer.service.wiring import Services

T = TypeVar("T")
#: Rows that share a transaction.
CHUNK = 2000


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
        Invalid: the file as a whole can't be read, or its columns or the mapping's are none of ours; or, when
            ``strict``, a row is bad (the detail names its line).
        StoreUnavailable: the rows of this chunk were not stored; the import can be run again.
    """
    setup.ensure_workspace(services, workspace_id)
    place = Place(services, workspace_id, kind, fingerprint(path, kind, *([mapping.digest] if mapping else [])))
    with services.store.read() as reader:
        resumed = reader.import_position(workspace_id, place.import_id)
    report = ImportReport(resumed=resumed)
    with RowFile(path) as file, rarely_collected(CHUNK):
        require_known(file, ALLOWED[kind], mapping)
        run = _Run(place, target_of(kind, place, typed=file.typed), file.typed, strict)
        for first, chunk in _chunks(file, mapping, resumed):
            part = run.store(first, chunk)
            settledrows.forget(services, workspace_id)  # these rows may lie before those that it speaks of
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
        place.reached_end()
        return replace(report, rows=resumed + report.stored + report.known + report.bad)


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


@dataclass
class _Run(Generic[T]):
    """One import going on. ``clean``: no row of it has been refused, so its position moves on."""

    place: Place
    target: Target[T]
    typed: bool
    strict: bool
    clean: bool = True

    def store(self, first: int, chunk: Part) -> Stored:
        """Stores a chunk whose first row is at position ``first``; when strict, only up to its first bad row."""
        table = chunk.table()
        quick = None if table is None else self.target.put_whole(table, first + len(chunk) if self.clean else None)
        if quick is not None:
            return quick
        parsed, bad, good = self._parse(chunk.rows())
        part = self.target.put(parsed, first + good if self.clean else None)
        bad = sorted([*bad, *part.bad], key=lambda row: row.line)
        self.clean = self.clean and not bad
        return replace(part, bad=tuple(bad))

    def _parse(self, rows: Sequence[NumberedRow]) -> tuple[list[tuple[int, T]], list[BadRow], int]:
        """The good rows (strict: those before the first bad one), the bad ones, and how many lie before the first."""
        readable = [(line, row if isinstance(row, Invalid) else Cells(row, typed=self.typed)) for line, row in rows]
        with self.place.services.store.read() as reader:
            self.target.prepare(reader, [row for _, row in readable if isinstance(row, Cells)])
        parsed: list[tuple[int, T]] = []
        bad: list[BadRow] = []
        good = len(rows)
        for place, (line, row) in enumerate(readable):
            try:
                if isinstance(row, Invalid):
                    raise row
                parsed.append((line, self.target.parse(line, row)))
            except Invalid as error:
                good = min(good, place)
                bad.append(BadRow(line, error))
                if self.strict:
                    break
        return parsed, bad, good
