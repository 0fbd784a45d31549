"""The quick way through an import accepts, refuses and stores exactly what reading row by row does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from optimizer.config import Settings
from optimizer.model.history import HISTORY, read
from optimizer.service import imports, importtargets, setup
from optimizer.service.imports import import_file
from optimizer.service.importtargets import Kind
from optimizer.service.wiring import Services, open_services
from storage.records import Campaign, EventMapping, Recipient
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.storage.conftest import dump

pytestmark = pytest.mark.usefixtures("steps_of_one")

Rows = Sequence[dict[str, str]]
TEXT = st.sampled_from(
    [
        "",
        "x",
        "é",
        "true",
        "FALSE",
        "1",
        "01",
        "-0.0",
        "1e400",
        "null",
        "[1]",
        '{"a": 1}',
        "a,b",
        'q"',
        "nan",
        "y" * 3000,
    ]
)
PLAIN = st.sampled_from(["DE", "33", "", "pro", "2.50"])
IDS = st.sampled_from(["a", "b", "c", "u 1", "ü", ""])
AT = st.sampled_from(
    [(START - timedelta(hours=h)).isoformat() for h in (1, 2, 2.4, 30)]
    + ["2026-03-02T07:30:00+09:00", "2026-03-02", "", "2027-01-01T00:00:00Z"]
)
SENT = st.sampled_from([(START - timedelta(hours=h)).isoformat() for h in (1, 2, 30)])


def file_of(rows: Rows, form: str, folder: Path) -> Path:
    """The rows as a file; NDJSON and Parquet with their types, as far as each column has but one."""
    path = folder / f"rows.{form}"
    columns = list(rows[0])
    if form == "csv":
        quoted = [
            '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell
            for row in rows
            for cell in row.values()
        ]
        lines = [",".join(quoted[i : i + len(columns)]) for i in range(0, len(quoted), len(columns))]
        path.write_text("\n".join([",".join(columns), *lines]) + "\n", encoding="utf-8")
    elif form == "ndjson":
        path.write_bytes(b"\n".join(orjson.dumps({n: _typed(c) for n, c in row.items() if c != "x"}) for row in rows))
    else:
        table: dict[str, Any] = {}
        for name in columns:
            cells = [_typed(row[name]) for row in rows]
            table[name] = cells if len({type(c) for c in cells} - {type(None)}) <= 1 else [row[name] for row in rows]
        parquet.write_table(pyarrow.table(table), path)
    return path


def _typed(cell: str) -> Any:
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell or None
    return value if not isinstance(value, list | dict) else cell


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One service for all examples: each has workspaces of its own."""
    folder = tmp_path_factory.mktemp("whole")
    opened = open_services(Settings(database=f"sqlite:///{folder}/t.db"), FakeClock(), seed=1, watch=False)
    yield opened
    opened.close()


@dataclass(frozen=True)
class Both:
    """Imports the same by both ways, each into a workspace of its own, and compares."""

    services: Services
    folder: Path

    def __call__(self, kind: Kind, rows: Rows, form: str, before: Rows = ()) -> None:
        assert self._outcome(kind, rows, form, before, whole=True) == self._outcome(
            kind, rows, form, before, whole=False
        )

    def _outcome(self, kind: Kind, rows: Rows, form: str, before: Rows, *, whole: bool) -> Any:
        """What is reported, and what is stored."""
        name = f"workspace-{next(NUMBERS):05d}"
        setup.ensure_workspace(self.services, name)
        setup.put_campaign(
            self.services, campaign(workspace_id=name, event_mapping={"Left": EventMapping("unsubscribed")})
        )
        people = [Recipient(name, one, timezone=zone) for one, zone in (("a", "Asia/Tokyo"), ("b", None))]
        setup.put_recipients(self.services, name, people)
        bad: list[Any] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(imports, "CHUNK", 4)
            if not whole:
                for target in (importtargets._Recipients, importtargets._Events, importtargets._History):
                    patched.setattr(target, "put_whole", lambda *_: None)
            reports = [
                import_file(self.services, name, kind, file_of(part, form, self.folder), on_bad=bad.append)
                for part in (before, rows)
                if part
            ]
        told = [(one.line, one.error.code, one.error.detail) for one in bad]
        stored = _nameless(dump(self.folder / "t.db", name), name)
        return reports, told, stored


def _nameless(tables: dict[str, list[tuple[Any, ...]]], workspace_id: str) -> dict[str, list[str]]:
    """Ids of history are hashes in which the workspace is: each is replaced by the place where it first occurs in the
    order of the log. Tables that lie in the order of such ids are sorted, and so is what happened to one person at one
    time."""
    places: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        return places.setdefault(found[0], f"#{len(places)}")

    shown = {}
    for name in ("decisions", "events", *(one for one in tables if one not in ("decisions", "events"))):
        told = [re.sub(r'(?<="@history":){"minutes":.*?\]\]}', _by_time, repr(row)) for row in tables[name]]
        rows = [re.sub(r"(?<=[a-z]_)[a-z2-7]{26}", named, row.replace(workspace_id, "W")) for row in told]
        shown[name] = sorted(rows) if name == "messages" else rows
    return shown


def _by_time(found: re.Match[str]) -> str:
    return repr(sorted(read({HISTORY: orjson.loads(found[0])}), key=lambda one: (-one.minutes, one)))


@pytest.fixture(scope="module")
def both(shared: Services) -> Both:
    return Both(shared, Path(shared.settings.database.removeprefix("sqlite:///")).parent)


FORM = st.sampled_from(["csv", "ndjson", "parquet"])
PERSON = {
    "recipient_id": IDS,
    "timezone": st.sampled_from(["", "Europe/Berlin", "Nowhere/City"]),
    "attributes.country": PLAIN,
    "attributes.odd": st.one_of(PLAIN, TEXT),
    "channels.email": st.sampled_from(["true", "false", "", "1", "maybe"]),
}


def rows_of(columns: dict[str, st.SearchStrategy[str]], *, most: int = 9) -> st.SearchStrategy[list[dict[str, str]]]:
    return st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=most)


@given(rows=rows_of(PERSON), form=FORM)
@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_recipients_are_the_same_by_both_ways(both: Both, rows: Rows, form: str) -> None:
    both("recipients", rows, form)


KNOWN = PERSON | {
    "attributes.country": st.sampled_from(["DE", "", "é"]),
    "attributes.odd": st.sampled_from(["", "1", "1.0", "0.0", "-0.0", "true", "é"]),
    "timezone": st.sampled_from(["", "Europe/Berlin", "UTC"]),
    "channels.email": st.sampled_from(["true", "false", ""]),
}


@given(rows=rows_of(KNOWN), form=FORM, every=st.integers(1, 3))
@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_so_are_recipients_of_whom_few_occur_twice(both: Both, rows: Rows, form: str, every: int) -> None:
    both("recipients", [{**row, "recipient_id": f"u{i // every}"} for i, row in enumerate(rows)], form)


@pytest.mark.parametrize("cells", [["1", "true", "1.0", "0"], ["0.0", "-0.0", "1.0", ""], ["1", "01", "", "1.0"]])
@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_cells_that_are_equal_and_not_the_same_are_told_apart(both: Both, cells: list[str], form: str) -> None:
    both("recipients", [{"recipient_id": f"u{i}", "attributes.x": cell} for i, cell in enumerate(cells)], form)


@pytest.mark.parametrize("cells", [["1", "true", "1.0"], ["0.0", "-0.0", "0"], ["", "1.5", "x"]])
def test_so_are_those_of_different_chunks(both: Both, cells: list[str]) -> None:
    rows = [
        {"recipient_id": f"u{i}", "attributes.y": cell} for i, cell in enumerate(c for c in cells for _ in range(4))
    ]
    both("recipients", rows, "ndjson")


EVENT = {
    "type": st.sampled_from(["visited", "visited", "Viewed", "opened", "unsubscribed", "Left", ""]),
    "occurred_at": AT,
    "recipient_id": IDS,
    "value": st.sampled_from(["", "1.5", "x", "1e10"]),
    "automated": st.sampled_from(["", "true", "no"]),
    "campaign_id": st.sampled_from(["", "", "spring", "nope"]),
    "properties.page": st.one_of(PLAIN, TEXT),
}
GOOD_EVENT = EVENT | {
    "type": st.sampled_from(["visited", "Viewed"]),
    "occurred_at": SENT,
    "recipient_id": st.sampled_from(["a", "b", "c"]),
    "value": st.sampled_from(["1.5", "2"]),
    "campaign_id": st.sampled_from([""]),
    "properties.page": PLAIN,
}


def numbered(rows: Rows, start: int = 0, every: int = 1) -> list[dict[str, str]]:
    return [{"event_id": f"e{(start + i) // every}", **row} for i, row in enumerate(rows)]


@given(rows=rows_of(EVENT), form=FORM)
@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_events_are_the_same_by_both_ways(both: Both, rows: Rows, form: str) -> None:
    both("events", numbered(rows), form)


@given(
    rows=rows_of(GOOD_EVENT),
    before=rows_of(GOOD_EVENT, most=4),
    form=FORM,
    every=st.integers(1, 2),
    start=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_so_are_events_beside_earlier_ones_and_repeated_ones(
    both: Both, rows: Rows, before: Rows, form: str, every: int, start: int
) -> None:
    both("events", numbered(rows, start, every), form, numbered(before))


SENDS = st.sampled_from([(START - timedelta(hours=h)).isoformat() for h in (30, 31, 50)])
LOGGED = {
    "recipient_id": st.sampled_from(["a", "b", "c", "d"]),
    "campaign_id": st.just("spring"),
    "variant_id": st.sampled_from(["mens", "womens", "mens", ""]),
    "channel": st.sampled_from(["email", "push"]),
    "send_at": SENDS,
    "propensity": st.sampled_from(["0.5", "0.25", "", "-1.5", "1e-15"]),
    "context.country": st.sampled_from(["DE", "", "é"]),
    "context.age": st.sampled_from(["33", "", "0"]),
    "outcome.converted": st.sampled_from(["1.5", "0.0", ""]),
    "outcome.bought": st.sampled_from(["true", "false", ""]),
}
ODD_LOGGED = LOGGED | {
    "campaign_id": st.sampled_from(["spring", "spring", "nope"]),
    "variant_id": st.sampled_from(["mens", "kids", ""]),
    "channel": st.sampled_from(["email", "", "sms"]),
    "decided_at": st.sampled_from([(START - timedelta(hours=h)).isoformat() for h in (29, 31, 60)] + [""]),
    "send_at": st.one_of(SENDS, AT),
    "propensity": st.sampled_from(["0.5", "1.5", "x", ""]),
    "context.age": TEXT,
    "outcome.converted": st.sampled_from(["1.5", "0.0", "", "-1e300"]),
    "outcome.opened": st.sampled_from(["1", "", "2026-03-01T09:00:00Z", "2020-01-01T00:00:00Z", "x"]),
}


@given(rows=rows_of(LOGGED), before=rows_of(LOGGED, most=4), form=FORM)
@settings(max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_history_is_the_same_by_both_ways(both: Both, rows: Rows, before: Rows, form: str) -> None:
    both("history", rows, form, before)


@given(rows=rows_of(ODD_LOGGED), form=FORM)
@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate])
def test_so_is_history_that_is_partly_refused(both: Both, rows: Rows, form: str) -> None:
    both("history", rows, form)


def test_ordinary_rows_do_go_the_quick_way(
    services: Services, spring: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careful(*_: object) -> None:
        raise AssertionError("row by row")

    monkeypatch.setattr(imports._Run, "_parse", careful)
    people = [
        {"recipient_id": f"u{i}", "timezone": "UTC", "attributes.age": str(20 + i), "channels.email": "true"}
        for i in range(9)
    ]
    events = [
        {
            "event_id": f"e{i}",
            "type": "visited",
            "occurred_at": START.isoformat(),
            "recipient_id": f"u{i}",
            "properties.page": f"p{i}",
        }
        for i in range(9)
    ]
    at = (START - timedelta(hours=30)).isoformat()
    sends = [
        {"recipient_id": "", "campaign_id": "spring", "variant_id": "mens", "channel": "email", "send_at": at}
        | {"context.age": f"{20 + i}", "outcome.converted": "1.5"}
        for i in range(9)
    ]
    for form in ("csv", "ndjson", "parquet"):
        folder = tmp_path / form
        folder.mkdir()
        for kind, rows in (("recipients", people), ("events", events), ("history", sends)):
            named = [{**row, next(iter(row)): f"{form}-{i}"} for i, row in enumerate(rows)]
            assert import_file(services, WORKSPACE, kind, file_of(named, form, folder)).stored == 9  # type: ignore[arg-type]
