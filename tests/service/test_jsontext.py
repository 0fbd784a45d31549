"""JSON of lines and cells: read as it is, refused where it is nested too deeply."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.service.imports import import_file
from optimizer.service.importtargets import BadRow
from optimizer.service.jsontext import LEVELS, parsed
from optimizer.service.wiring import Services
from tests.service.conftest import WORKSPACE


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("text", [nested(LEVELS), '{"a":' * LEVELS + "1" + "}" * LEVELS, f"[{','.join(['{}'] * 500)}]"])
def test_what_is_nested_as_deeply_as_may_be_is_read(text: str) -> None:
    assert parsed(text) == parsed(text.encode())


@pytest.mark.parametrize("text", ["[", nested(LEVELS + 1), f'{{"a":[{nested(LEVELS)}]}}', nested(2_000)])
def test_what_is_nested_deeper_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|expected|depth|recursion|unexpected end"):
        parsed(text)


@pytest.mark.parametrize("cell", ['"attributes":', '"timezone":', '"suppressed":', '"channels":'])
@pytest.mark.parametrize("others", [1, 0])
def test_a_row_that_is_nested_deeply_is_a_bad_row(services: Services, tmp_path: Path, cell: str, others: int) -> None:
    file, seen = tmp_path / "people.ndjson", list[BadRow]()
    good = '{"recipient_id":"a"}\n'
    file.write_text(good * others + f'{{"recipient_id":"deep",{cell}{nested(1_000)}}}\n' + good.replace("a", "b"))
    report = import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append)
    assert (report.stored, [bad.line for bad in seen]) == (1 + others, [1 + others])


def test_so_is_a_cell(services: Services, tmp_path: Path) -> None:
    file, seen = tmp_path / "people.csv", list[BadRow]()
    file.write_text(f"recipient_id,attributes\na,{nested(1_000)}\nb,\n")
    report = import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append)
    assert (report.stored, [bad.line for bad in seen]) == (1, [2])
