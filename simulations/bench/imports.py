"""What an import costs a row, beside bare ``executemany`` of the very same rows, in one run.

Side by side, with the same durability (WAL, ``synchronous=FULL``) and rows a transaction: ``sendtide import`` of a CSV,
NDJSON or Parquet file; the rows that it stored put by ``executemany`` into tables of the same schema, indexes included;
and the cells of the file, unread, into a table without an index. The second is the bound of any import into this
schema, the third of any file into SQLite.
"""

from __future__ import annotations

import csv
import itertools
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import orjson
import pyarrow.csv
from pyarrow import parquet

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.imports import CHUNK, import_file
from optimizer.service.importtargets import KINDS, Kind
from optimizer.service.wiring import open_services
from storage.records import Campaign, Channel, GroupShares, Variant

ROWS, ROUNDS = 20_000, 5
FORMS = ("csv", "ndjson", "parquet")
_WORKSPACE = "bench"
_HEADERS: dict[Kind, str] = {
    "recipients": "recipient_id,timezone,attributes.country,attributes.age,attributes.plan,channels.email,channels.sms",
    "events": "event_id,type,occurred_at,recipient_id,value,properties.category,properties.sku",
    "history": "recipient_id,campaign_id,variant_id,channel,send_at,decided_at,propensity,context.country,context.age,"
    "outcome.opened,outcome.converted",
}
#: What of the store's tables an import of each kind fills.
_TABLES: dict[Kind, tuple[str, ...]] = {
    "recipients": ("recipients",),
    "events": ("events", "rhythms"),
    "history": ("decisions", "messages", "events"),
}


@dataclass(frozen=True)
class Took:
    """Microseconds a row, by the clock and of this process's CPU: on a shared machine only the second is ours alone."""

    clock: float
    cpu: float

    @classmethod
    def median(cls, rounds: Sequence[Took]) -> Took:
        """The median of each."""
        return cls(median(one.clock for one in rounds), median(one.cpu for one in rounds))


@dataclass(frozen=True)
class Cost:
    """What took how long: the import, its stored rows into the same tables, its cells into a bare table."""

    kind: Kind
    form: str
    imported: Took
    same_tables: Took
    bare: Took


class _Watch:
    """A stopwatch as a context manager."""

    def __enter__(self) -> _Watch:
        self._began = time.perf_counter(), time.process_time()
        self.took = Took(0.0, 0.0)
        return self

    def __exit__(self, *_: object) -> None:
        ended = time.perf_counter(), time.process_time()
        self.took = Took(*((end - began) / ROWS * 1e6 for end, began in zip(ended, self._began, strict=True)))


def lines(kind: Kind) -> Iterator[str]:
    """The lines of a made-up file."""
    yield _HEADERS[kind]
    for i in range(ROWS):
        day, hour, minute = 1 + i % 27, i % 24, i % 60
        if kind == "recipients":
            plan, sms = "pro" if i % 3 else "free", "false" if i % 2 else "true"
            yield f"u{i:07d},Europe/Berlin,DE,{20 + i % 60},{plan},true,{sms}"
        elif kind == "events":
            at = f"2026-02-{day:02d}T{hour:02d}:{minute:02d}:00Z"
            yield f"e{i:08d},Product Viewed,{at},u{i % 5000:07d},,cat{i % 20},s{i}"
        else:
            sent, decided = (f"2026-02-{day:02d}T{at}:00:00Z" for at in ("12", "09"))
            happened = f"{int(i % 4 == 0)},{'12.5' if i % 30 == 0 else ''}"
            yield f"u{i:07d},c,v{i % 6},email,{sent},{decided},0.1667,DE,{20 + i % 60},{happened}"


def measure() -> list[Cost]:
    """What each kind of import costs on this machine now, from each format: medians over rounds, in each of which the
    three are measured one after the other."""
    found = []
    for kind, form in itertools.product(KINDS, FORMS):
        rounds = [_measure(kind, form) for _ in range(ROUNDS)]
        parts = ([c.imported for c in rounds], [c.same_tables for c in rounds], [c.bare for c in rounds])
        found.append(Cost(kind, form, *(Took.median(part) for part in parts)))
    return found


def _file(kind: Kind, form: str, folder: Path) -> Path:
    """The made-up file in a format; in NDJSON and Parquet its cells have types."""
    table = folder / f"{kind}.csv"
    table.write_text("\n".join(lines(kind)) + "\n")
    source = table.with_suffix(f".{form}")
    if form == "parquet":
        parquet.write_table(pyarrow.csv.read_csv(table), source)
    elif form == "ndjson":
        with table.open() as rows:
            typed = ({name: _typed(cell) for name, cell in row.items()} for row in csv.DictReader(rows))
            source.write_bytes(b"\n".join(map(orjson.dumps, typed)) + b"\n")
    return source


def _typed(cell: str) -> object:
    try:
        return orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell or None


def _measure(kind: Kind, form: str) -> Cost:
    with TemporaryDirectory(prefix="sendtide-bench-") as folder:
        source = _file(kind, form, Path(folder))
        ours, other = Path(folder) / "ours.db", Path(folder) / "other.db"
        imported = _import(kind, source, ours)
        with closing(sqlite3.connect(ours)) as filled:
            stored = {name: filled.execute(f"SELECT * FROM {name}").fetchall() for name in _TABLES[kind]}  # noqa: S608
        open_services(_settings(other), watch=False).close()
        cells = list(csv.reader(lines(kind)))[1:]
        with closing(sqlite3.connect(other, isolation_level=None)) as bare:
            bare.execute("PRAGMA synchronous = FULL")
            bare.execute(f"CREATE TABLE plain ({', '.join(f'c{n}' for n in range(len(cells[0])))})")
            same, plain = _insert(bare, stored), _insert(bare, {"plain": cells})
    return Cost(kind, form, imported, same, plain)


def _settings(path: Path) -> Settings:
    return replace(Settings(), database=f"sqlite:///{path}")


def _import(kind: Kind, source: Path, database: Path) -> Took:
    """What the import took; recipients of events have a zone, so that their rhythm is kept, too."""
    services = open_services(_settings(database), watch=False)
    try:
        setup.ensure_workspace(services, _WORKSPACE)
        now = services.clock()
        variants, channels = tuple(Variant(f"v{n}") for n in range(6)), (Channel("email"),)
        setup.put_campaign(services, Campaign(_WORKSPACE, "c", variants, channels, now, now, groups=GroupShares()))
        if kind == "events":
            people = source.with_name("people.csv")
            people.write_text("\n".join(lines("recipients")) + "\n")
            import_file(services, _WORKSPACE, "recipients", people)
        with _Watch() as watch:
            report = import_file(services, _WORKSPACE, kind, source)
    finally:
        services.close()
    if report.stored != ROWS:
        raise RuntimeError(f"{report.stored} of {ROWS} rows were stored")
    return watch.took


def _insert(connection: sqlite3.Connection, tables: Mapping[str, Sequence[Sequence[object]]]) -> Took:
    """What bare inserts of these rows took."""
    with _Watch() as watch:
        for table, rows in tables.items():
            for start in range(0, len(rows), CHUNK):
                marks = ", ".join("?" * len(rows[0]))
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[start : start + CHUNK])  # noqa: S608  names of this module
                connection.execute("COMMIT")
    return watch.took
