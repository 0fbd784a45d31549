"""Parts of row files hold the cells that a plain reader of the format finds."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from optimizer.errors import Invalid
from optimizer.service.rowfiles import RowFile
from optimizer.service.rowparts import csv_parts, ndjson_parts, parquet_columns

SOME = [datetime(2026, 3, 1, 9, tzinfo=UTC), None, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+02:00", None])
def test_times_of_parquet_are_those_that_pyarrow_gives(unit: str, zone: str | None) -> None:
    plain = [one if zone or one is None else one.replace(tzinfo=None) for one in SOME]
    column = pyarrow.array(plain * 3, pyarrow.timestamp(unit, tz=zone))
    batch = pyarrow.record_batch({"at": column, "never": pyarrow.nulls(9), "n": pyarrow.array(range(9))})
    found = parquet_columns(batch)
    expected = batch.to_pydict()
    assert found == expected
    told = [[one and one.isoformat() for one in columns["at"]] for columns in (found, expected)]
    assert told[0] == told[1]


def test_a_time_beyond_all_calendars_breaks_the_file_and_not_the_import(tmp_path: Path) -> None:
    path = tmp_path / "late.parquet"
    late = pyarrow.array([2**53], pyarrow.int64()).cast(pyarrow.timestamp("ms", tz="UTC"))
    parquet.write_table(pyarrow.table({"at": late}), path)
    with RowFile(path) as file, pytest.raises(Invalid, match=r"late\.parquet") as refused:
        list(file.rows())
    assert refused.value.code == "unreadable_file"


LINES = ["a,b", "1,2", ",", "é,x\u2028y", "\x85,z", "3", "4,5,6", "", "x, y ", "7,8"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 20])
def test_lines_of_a_csv_are_cut_as_the_standard_library_does(end: str, last: str, size: int) -> None:
    text = end.join(LINES) + last
    found = [row for part in csv_parts(io.BytesIO(text.encode()), size) for row in part.rows()]
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    expected: list[Any] = [(i, dict(zip("ab", row, strict=True))) for i, row in enumerate(rows, 2) if len(row) == 2]
    assert [one for one in found if isinstance(one[1], dict)] == expected
    bad = [i for i, row in enumerate(rows, 2) if len(row) not in (0, 2)]
    assert [line for line, row in found if isinstance(row, Invalid)] == bad


def test_a_csv_of_one_column_leaves_empty_lines_out() -> None:
    parts = csv_parts(io.BytesIO(b"a\n1\n\n2\n"), 9)
    assert [row for part in parts for row in part.rows()] == [(2, {"a": "1"}), (4, {"a": "2"})]


@pytest.mark.parametrize("note", ["", '"quoted"'], ids=["plain lines", "lines with quotes"])
def test_a_cell_that_is_too_long_for_a_csv_is_a_bad_row_and_spoils_no_other(note: str) -> None:
    text = f"a,b\n1,{note}\n{'x' * (csv.field_size_limit() + 1)},2\n3,4\n"
    found = [row for part in csv_parts(io.BytesIO(text.encode()), 9) for row in part.rows()]
    assert [(line, row["a"]) for line, row in found if not isinstance(row, Invalid)] == [(2, "1"), (4, "3")]
    assert [(line, "field limit" in row.detail) for line, row in found if isinstance(row, Invalid)] == [(3, True)]


def test_lines_of_ndjson_are_read_one_by_one_where_they_differ() -> None:
    lines = [b'{"a": 1, "b": 2}', b'{"a": 3, "b": 4}', b'{"b": 5, "a": 6}', b"", b"[1]", b'{"a": 1}, {"a": 2}', b"{}"]
    numbered = [row for part in ndjson_parts(io.BytesIO(b"\n".join(lines)), 2) for row in part.rows()]
    good = [(1, {"a": 1, "b": 2}), (2, {"a": 3, "b": 4}), (3, {"b": 5, "a": 6}), (7, {})]
    assert [one for one in numbered if isinstance(one[1], dict)] == good
    assert [line for line, row in numbered if isinstance(row, Invalid)] == [5, 6]
