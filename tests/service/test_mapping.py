"""Mappings: foreign columns, constants and formats become ours, and what isn't as the mapping says is a bad row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from optimizer.errors import Invalid
from optimizer.service.imports import import_file
from optimizer.service.importtargets import BadRow
from optimizer.service.mapping import read_mapping
from optimizer.service.wiring import Services
from storage.log import Happening
from storage.records import Campaign
from tests.service.conftest import START, WORKSPACE
from tests.service.rows import decisions

CRM = """
ignore = ["Notes"]
[columns]
recipient_id = "Customer No"
"attributes.age" = "Age"
"attributes.spent" = "Spent"
"attributes.since" = "Member since"
"channels.email" = "Newsletter"
[constants]
timezone = "Europe/Berlin"
"attributes.source" = "crm"
[formats]
"attributes.spent" = {decimal = ",", thousands = "."}
"attributes.since" = {time = "%d.%m.%Y %H:%M", timezone = "Europe/Berlin"}
[formats."channels.email".values]
Ja = true
Nein = false
"""


def mapping(folder: Path, content: Any, name: str = "m.json") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else orjson.dumps(content))
    return path


def test_a_crm_table_becomes_recipients(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "crm.csv"
    file.write_text(
        "Customer No,Age,Spent,Member since,Newsletter,Notes\n"
        '7,41,"1.234,50",01.07.2020 12:30,Ja,call back\n'
        "8,,,,Nein,\n"
        "9,30,x,01.07.2020 12:30,Ja,\n"
        "10,30,1,2020,Ja,\n"
        "11,30,1,,Vielleicht,\n"
    )
    seen: list[BadRow] = []
    how = read_mapping(mapping(tmp_path, CRM, "crm.toml"))
    report = import_file(services, WORKSPACE, "recipients", file, mapping=how, on_bad=seen.append)

    assert (report.stored, report.bad) == (2, 3)
    assert [(bad.line, next(iter(bad.error.errors))) for bad in seen] == [
        (4, "attributes.spent"),
        (5, "attributes.since"),
        (6, "channels.email"),
    ]
    with services.store.read() as reader:
        people = reader.recipients(WORKSPACE, ["7", "8"])
    assert people["7"].attributes == {
        "age": 41,
        "spent": 1234.5,
        "since": "2020-07-01T10:30:00+00:00",
        "source": "crm",
    }
    assert people["7"].timezone == "Europe/Berlin"
    assert [people[one].channels["email"].state for one in ("7", "8")] == [True, False]
    assert people["8"].attributes == {"source": "crm"}


@pytest.mark.parametrize(
    ("marks", "cells"),
    [
        (
            {"decimal": ",", "thousands": "."},
            {"1.234,50": 1234.5, "-1.234.567": -1234567.0, "1234,5": 1234.5, " 7 ": 7.0, "1.5": None, "12.50": None}
            | {
                "1,234.50": None,
                "1.2345,0": None,
                ".234": None,
                "1..234": None,
                "1,": 1.0,
                ",5": 0.5,
                "1e5": 1e5,
                "nan": None,
            }
            | {"1.234,5e-05": 1234.5e-5, "-,5E+2": -50.0, ",": None, ",e5": None, "1e": None, "1e1,5": None},
        ),
        ({"thousands": ","}, {"12,34,567.5": 1234567.5, "1,234": 1234.0, "1,5": None, "1.234,50": None}),
        ({"thousands": "."}, {"1.234": 1234.0, "1.234,5": 1234.5, "1.5": None}),
        (
            {"decimal": ","},
            {"1,5": 1.5, "1,5e-05": 1.5e-5, "1e-05": 1e-5, "1.5e-05": None, "1.5": None, "1.234,5": None},
        ),
        ({"thousands": "\u00a0", "decimal": ","}, {"1\u00a0234,5": 1234.5, "1 234,5": None}),
    ],
)
def test_a_number_in_another_notation_than_the_mappings_is_a_bad_row(
    services: Services, tmp_path: Path, marks: dict[str, str], cells: dict[str, float | None]
) -> None:
    file = tmp_path / "n.ndjson"
    file.write_bytes(b"\n".join(orjson.dumps({"recipient_id": f"u{i}", "n": cell}) for i, cell in enumerate(cells)))
    how = {"columns": {"attributes.n": "n"}, "formats": {"attributes.n": marks}}
    seen: list[BadRow] = []
    read = read_mapping(mapping(tmp_path, how))
    import_file(services, WORKSPACE, "recipients", file, mapping=read, on_bad=seen.append)
    with services.store.read() as reader:
        people = reader.recipients(WORKSPACE, [f"u{i}" for i in range(len(cells))])
    known = {f"u{i}": number for i, number in enumerate(cells.values()) if number is not None}
    assert {name: one.attributes["n"] for name, one in people.items()} == known
    assert [(bad.line, [*bad.error.errors]) for bad in seen] == [
        (line, ["attributes.n"]) for line, number in enumerate(cells.values(), start=1) if number is None
    ]


def past(services: Services, recipient_id: str) -> tuple[Happening, ...]:
    with services.store.read() as reader:
        return reader.past(WORKSPACE, recipient_id, services.clock(), limit=9)


@pytest.mark.parametrize(("unit", "pattern"), [(1, "unix"), (1000, "unix_ms")])
def test_nested_ndjson_becomes_events(services: Services, tmp_path: Path, unit: int, pattern: str) -> None:
    at = int(START.timestamp()) - 3600
    row = {"user": {"id": "u1", "name": "x"}, "ts": at * unit, "item": {"group": "shoes"}, "junk": [1]}
    file = tmp_path / "e.ndjson"
    file.write_bytes(orjson.dumps(row) + b"\n" + orjson.dumps({**row, "ts": "soon"}) + b"\n")
    how = {
        "columns": {"recipient_id": "user.id", "occurred_at": "ts", "properties.category": "item.group"},
        "constants": {"type": "viewed"},
        "formats": {"occurred_at": pattern},
        "ignore": True,
    }
    report = import_file(services, WORKSPACE, "events", file, mapping=read_mapping(mapping(tmp_path, how)))
    assert (report.stored, report.bad) == (1, 1)
    (event,) = past(services, "u1")
    assert (event.kind, event.at.timestamp(), event.properties) == ("viewed", at, {"category": "shoes"})


def test_history_with_foreign_names(services: Services, spring: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    file.write_text("who;what\n".replace(";", ",") + "u1,mens\nu2,\n")
    how = {
        "columns": {"recipient_id": "who", "variant_id": "what"},
        "constants": {"campaign_id": "spring", "channel": "email", "send_at": "2026-01-05T09:00:00Z"},
    }
    import_file(services, WORKSPACE, "history", file, mapping=read_mapping(mapping(tmp_path, how)))
    assert sorted((d.recipient_id, d.variant_id) for d in decisions(services)) == [("u1", "mens"), ("u2", None)]


def test_another_mapping_is_another_import(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("id,a\nu1,5\n")
    for name in ("x", "y"):
        how = {"columns": {"recipient_id": "id", f"attributes.{name}": "a"}}
        report = import_file(services, WORKSPACE, "recipients", file, mapping=read_mapping(mapping(tmp_path, how)))
        assert (report.stored, report.resumed) == (1, 0)
        with services.store.read() as reader:
            person = reader.recipient(WORKSPACE, "u1")
        assert person is not None
        assert person.attributes == {name: 5}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"columns": {"recipient_idd": "No"}}, "mapping.columns.recipient_idd: unknown column; known: recipient_id"),
        ({"columns": {"recipient_id": "No"}, "constants": {"zone": "UTC"}}, "mapping.constants.zone: unknown column"),
        ({"columns": {"recipient_id": "No"}, "formats": {"spent": {"decimal": ","}}}, "mapping.formats.spent: unknown"),
        (
            {"columns": {"recipient_id": "Number"}},
            "mapping.columns.recipient_id: the file has no column 'Number'; it has: No, Spent",
        ),
        ({"columns": {"recipient_id": "No"}}, "crm.csv: Spent: unknown column; known: recipient_id"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_once_where_it_does_not(
    services: Services, tmp_path: Path, how: Any, told: str
) -> None:
    file = tmp_path / "crm.csv"
    file.write_text("No,Spent\n7,5\n8,6\n")
    seen: list[BadRow] = []
    with pytest.raises(Invalid) as refused:
        import_file(
            services,
            WORKSPACE,
            "recipients",
            file,
            mapping=read_mapping(mapping(tmp_path, how)),
            on_bad=seen.append,
        )
    assert told in refused.value.detail
    assert seen == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "m.json"),
        ([], "mapping"),
        ({"colums": {}}, "mapping.colums"),
        ({"columns": []}, "mapping.columns"),
        ({"columns": {"a": 7}}, "mapping.columns.a"),
        ({"columns": {"a": "b"}, "constants": {"a": 1}}, "mapping.constants.a"),
        ({"formats": {"a": 7}}, "mapping.formats.a"),
        ({"formats": {"a": {"tim": "unix"}}}, "mapping.formats.a.tim"),
        ({"formats": {"a": {}}}, "mapping.formats.a"),
        ({"formats": {"a": {"time": "unix", "timezone": "Mars"}}}, "mapping.formats.a.timezone"),
        ({"formats": {"a": {"thousands": ".", "decimal": "."}}}, "mapping.formats.a"),
        ({"formats": {"a": {"thousands": ",", "decimal": ","}}}, "mapping.formats.a"),
        ({"formats": {"a": {"decimal": ""}}}, "mapping.formats.a"),
        ({"formats": {"a": {"values": 7}}}, "mapping.formats.a.values"),
        ({"ignore": 7}, "mapping.ignore"),
    ],
)
def test_a_mapping_that_says_nonsense_is_refused_by_name(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(Invalid, match=named.replace(".", r"\.")):
        read_mapping(mapping(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('[constants]\n"attributes.a" = 18446744073709551616', "mapping.constants.attributes.a"),
        (f"[constants.metadata]\na = [1, {{b = 0x{'f' * 9000}}}]", "mapping.constants.metadata.a.1.b"),
        ("[formats.value.values]\nmuch = -9223372036854775809", "mapping.formats.value.values.much"),
    ],
)
def test_a_whole_number_of_more_than_64_bits_is_refused_where_it_stands(
    tmp_path: Path, content: str, named: str
) -> None:
    with pytest.raises(Invalid) as refused:
        read_mapping(mapping(tmp_path, content, "m.toml"))
    assert list(refused.value.errors) == [named]
    widest = "[constants]\na = 18446744073709551615\nb = -9223372036854775808"
    assert read_mapping(mapping(tmp_path, widest, "m.toml")).constants == {"a": 2**64 - 1, "b": -(2**63)}
