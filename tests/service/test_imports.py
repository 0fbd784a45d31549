"""Imports: formats agree, bad rows are named and left out, killed imports resume, twice is once."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from optimizer.errors import Invalid
from optimizer.service import imports, importtargets, setup
from optimizer.service.erasing import erase
from optimizer.service.imports import ImportReport, import_file
from optimizer.service.importtargets import BadRow, Kind
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from optimizer.web.schemas import limits
from storage.errors import StoreUnavailable
from storage.port import Writer
from storage.records import Campaign, EventMapping, Recipient, Suppression
from tests.service.conftest import START, WORKSPACE, campaign
from tests.service.rows import decisions, history_rows, logged, write

RECIPIENTS: list[dict[str, Any]] = [
    {
        "recipient_id": "u1",
        "timezone": "Europe/Berlin",
        "attributes.age": 33,
        "attributes.plan": "pro",
        "channels.sms": True,
    },
    {"recipient_id": "u2", "timezone": None, "attributes.age": 41, "attributes.plan": None, "channels.sms": False},
]


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet"])
def test_recipients_mean_the_same_in_every_format(services: Services, tmp_path: Path, suffix: str) -> None:
    report = import_file(services, WORKSPACE, "recipients", write(tmp_path / f"people{suffix}", RECIPIENTS))

    with services.store.read() as reader:
        people = reader.recipients(WORKSPACE, ["u1", "u2"])
    assert report == ImportReport(rows=2, stored=2)
    assert people["u1"].timezone == "Europe/Berlin"
    assert people["u1"].attributes == {"age": 33, "plan": "pro"}
    assert people["u1"].channels["sms"].state is True
    assert people["u2"].timezone is None
    assert people["u2"].attributes == {"age": 41}
    assert people["u2"].channels["sms"].state is False


def test_csv_cells_are_read_by_the_grammar_of_json(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(
        "recipient_id,attributes.zip,attributes.score,attributes.vip,attributes.note,suppressed\n"
        '7,01234,-1.5e2,true,,"[{""channel"":""email"",""category"":""marketing""}]"\n',
        encoding="utf-8",
    )
    import_file(services, WORKSPACE, "recipients", file)

    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "7")
    assert person is not None
    assert person.attributes == {"zip": "01234", "score": -150.0, "vip": True}
    assert person.suppressed == (Suppression(channel="email", category="marketing"),)


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        (Decimal("1.5"), 1.5),
        (float("nan"), None),
        (START, START.isoformat()),
        (START.date(), "2026-03-02"),
        ([Decimal("1.5")], [1.5]),
        ({"y": [Decimal("1.5")], "z": START}, {"y": [1.5], "z": START.isoformat()}),
        (b"ab", "bytes are not a value"),
        ([b"ab"], "bytes are not a value"),
        ([float("nan")], "must be finite"),
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["in a column", "in an object"])
def test_a_type_of_parquet_means_the_same_in_an_object(
    services: Services, tmp_path: Path, cell: Any, meaning: Any, nested: bool
) -> None:
    row = {"attributes": {"x": cell, "kept": 1}} if nested else {"attributes.x": cell, "attributes.kept": 1}
    file = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.table({name: [value] for name, value in {"recipient_id": "u", **row}.items()}), file)
    seen: list[BadRow] = []
    import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append)

    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "u")
    if seen:
        assert meaning in seen[0].error.detail
        assert seen[0].error.detail.startswith("attributes.x")
        assert person is None
    else:
        assert person is not None
        assert person.attributes == {"kept": 1} | ({} if meaning is None else {"x": meaning})


def test_a_number_that_no_double_holds_stays_text(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("recipient_id,attributes.big,attributes.nul\nu1,1e999,x\nu2,7,a\0b\n", encoding="utf-8")
    report = import_file(services, WORKSPACE, "recipients", file)

    with services.store.read() as reader:
        assert reader.recipients(WORKSPACE, ["u1", "u2"])["u1"].attributes == {"big": "1e999", "nul": "x"}
    assert (report.stored, report.bad) == (1, 1)


def test_attributes_of_imported_recipients_are_listed_with_their_types(services: Services, tmp_path: Path) -> None:
    import_file(services, WORKSPACE, "recipients", write(tmp_path / "people.csv", RECIPIENTS))

    with services.store.read() as reader:
        types = {attribute.name: attribute.type for attribute in reader.attributes(WORKSPACE)}
    assert types == {"age": "number", "plan": "category"}


BAD_ROWS = [
    ({"recipient_id": None}, "recipient_id"),
    ({"timezone": "Mars/Base"}, "Mars/Base"),
    ({"timezone": "Factory"}, "'Factory' is not a time zone"),
    ({"recipient_id": "x" * 257}, "256"),
    ({"channels.sms": "perhaps"}, "channels.sms"),
    ({"attributes.text": "y" * 9000}, "8192"),
]


@pytest.mark.parametrize(("change", "named"), BAD_ROWS)
def test_a_bad_row_is_reported_with_its_line_and_stops_nothing(
    services: Services, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    good = {"recipient_id": "a", "timezone": "UTC", "channels.sms": True, "attributes.text": "t"}
    rows = [good, {**good, "recipient_id": "bad", **change}, {**good, "recipient_id": "c"}]
    seen: list[BadRow] = []
    report = import_file(services, WORKSPACE, "recipients", write(tmp_path / "p.csv", rows), on_bad=seen.append)

    assert (report.rows, report.stored, report.bad) == (3, 2, 1)
    assert [bad.line for bad in seen] == [3]
    assert named in seen[0].error.detail
    with services.store.read() as reader:
        assert set(reader.recipients(WORKSPACE, ["a", "bad", "c"])) == {"a", "c"}


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ({"channels": {"sms": True, "Push": True}}, "channels.Push: 'Push'"),
        ({"suppressed": [{"category": "news"}, {"channel": "SMS"}]}, "suppressed.1.channel: 'SMS'"),
    ],
)
def test_a_channel_of_consents_in_another_spelling_is_a_bad_row(
    services: Services, tmp_path: Path, cells: dict[str, Any], named: str
) -> None:
    seen: list[BadRow] = []
    file = write(tmp_path / "p.ndjson", [{"recipient_id": "a", **cells}])
    assert import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append).bad == 1
    assert seen[0].error.detail.startswith(f"{named}: Must be spelled")


@pytest.mark.parametrize(
    ("column", "most", "cells"),
    [
        ("channels", limits.CHANNELS, lambda n: {"channels": {f"c{i}": True for i in range(n)}}),
        ("channels", limits.CHANNELS, lambda n: {f"channels.c{i}": True for i in range(n)}),
        ("suppressed", limits.ENTRIES, lambda n: {"suppressed": [{"channel": f"c{i}"} for i in range(n)]}),
    ],
)
def test_a_recipient_has_no_more_than_the_api_takes(
    services: Services, tmp_path: Path, column: str, most: int, cells: Callable[[int], dict[str, Any]]
) -> None:
    seen: list[BadRow] = []
    for n in (most, most + 1):
        file = write(tmp_path / f"{n}.ndjson", [{"recipient_id": f"u{n}", **cells(n)}])
        import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append)
    assert [bad.error.detail for bad in seen] == [f"{column}: {most + 1} values; must hold at most {most}"]
    with services.store.read() as reader:
        assert set(reader.recipients(WORKSPACE, [f"u{most}", f"u{most + 1}"])) == {f"u{most}"}


def test_lines_that_cannot_be_read_at_all_are_bad_rows_too(services: Services, tmp_path: Path) -> None:
    ndjson, table = tmp_path / "p.ndjson", tmp_path / "p.csv"
    ndjson.write_bytes(b'{"recipient_id":"a"}\n{"recipient_id":\n\n[1]\n{"recipient_id":"b"}\n')
    table.write_bytes(b'recipient_id,timezone\na,UTC\nb\n\xff,UTC\n"c"x,UTC\nd,UTC\n')
    seen: list[BadRow] = []

    first = import_file(services, WORKSPACE, "recipients", ndjson, on_bad=seen.append)
    second = import_file(services, WORKSPACE, "recipients", table, on_bad=seen.append)

    assert (first.stored, first.bad) == (2, 2)
    assert (second.stored, second.bad) == (2, 3)
    assert [bad.line for bad in seen] == [2, 4, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_unknown_column_of_a_whole_file_is_refused_once_by_name(
    services: Services, tmp_path: Path, suffix: str
) -> None:
    seen: list[BadRow] = []
    file = write(tmp_path / f"p{suffix}", [{"recipient_id": one, "tmezone": "UTC"} for one in ("a", "b")])
    with pytest.raises(Invalid) as refused:
        import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append)
    assert refused.value.detail.startswith(f"{file}: tmezone: unknown column; known: recipient_id")
    assert list(refused.value.errors) == ["tmezone"]
    assert seen == []


def test_an_unknown_column_of_a_json_line_is_refused_in_its_row(services: Services, tmp_path: Path) -> None:
    seen: list[BadRow] = []
    file = write(tmp_path / "p.ndjson", [{"recipient_id": "a", "tmezone": "UTC"}, {"recipient_id": "b"}])
    assert import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append).stored == 1
    assert "tmezone: unknown column; known: recipient_id" in seen[0].error.detail


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.txt", b"recipient_id\n", "p.txt must end with one of"),
        ("p.csv", b"", "line 1"),
        ("p.csv", b"", "file: is empty; line 1 must name every column once"),
        ("p.csv.gz", gzip.compress(b"", mtime=0), "file: is empty"),
        ("p.csv", b"\na\n", "file: line 1 must name"),
        ("p.csv", b"a,a\n1,2\n", "every column once"),
        ("p.parquet", b"not parquet", "p.parquet"),
        ("p.csv.gz", b"not gzip", "p.csv.gz"),
    ],
)
def test_a_file_that_is_broken_as_a_whole_is_refused(
    services: Services, tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(Invalid, match=named):
        import_file(services, WORKSPACE, "recipients", file)


def test_strict_stops_at_the_first_bad_row_and_keeps_what_came_before(services: Services, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"recipient_id": "a", "timezone": "UTC"}, {"recipient_id": "b", "timezone": "no"}]
    file = write(tmp_path / "p.csv", [*rows, {"recipient_id": "c", "timezone": "UTC"}])

    with pytest.raises(Invalid, match="line 3: timezone"):
        import_file(services, WORKSPACE, "recipients", file, strict=True)
    with services.store.read() as reader:
        assert set(reader.recipients(WORKSPACE, ["a", "b", "c"])) == {"a"}
    assert import_file(services, WORKSPACE, "recipients", file).resumed == 1


def test_strict_refuses_the_same_file_again(services: Services, tmp_path: Path) -> None:
    event = {"type": "viewed", "recipient_id": "u", "occurred_at": START}
    campaigns = (None, "late", None)
    file = write(tmp_path / "e.csv", [{**event, "campaign_id": one, "event_id": one or "e"} for one in campaigns])

    for _ in range(2):
        with pytest.raises(Invalid, match="line 3: campaign_id"):
            import_file(services, WORKSPACE, "events", file, strict=True)


@pytest.mark.parametrize("kind", ["history", "events"])
def test_refused_rows_are_tried_again_when_the_file_is_imported_again(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """A chunk of good rows, one with a row whose campaign is not there yet, and good ones behind it."""
    monkeypatch.setattr(imports, "CHUNK", 10)
    setup.put_campaign(services, campaign())
    event = {"type": "viewed", "recipient_id": "u", "occurred_at": START}
    events: list[dict[str, Any]] = [{**event, "event_id": str(i), "campaign_id": None} for i in range(35)]
    rows = history_rows(35) if kind == "history" else events
    rows[12] = {**rows[12], "campaign_id": "late"}
    file = write(tmp_path / "rows.csv", rows)

    assert import_file(services, WORKSPACE, kind, file) == ImportReport(rows=35, stored=34, bad=1)
    again = import_file(services, WORKSPACE, kind, file)
    assert (again.rows, again.stored, again.bad) == (35, 0, 1)
    assert again.resumed >= 10

    setup.put_campaign(services, campaign(campaign_id="late"))
    report = import_file(services, WORKSPACE, kind, file)
    assert report == ImportReport(rows=35, stored=1, known=34 - again.resumed, resumed=again.resumed)
    assert import_file(services, WORKSPACE, kind, file) == ImportReport(rows=35, resumed=35)


def test_a_killed_import_goes_on_where_it_stopped(
    services: Services, spring: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 10)
    file = write(tmp_path / "h.csv", history_rows(35))

    def killed(done: int, total: int) -> None:
        assert done <= total
        if len(decisions(services)) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(services, WORKSPACE, "history", file, on_progress=killed)
    assert len(decisions(services)) == 20

    report = import_file(services, WORKSPACE, "history", file.rename(tmp_path / "moved.csv"))
    assert report == ImportReport(rows=35, stored=15, resumed=20)
    assert len({d.decision_id for d in decisions(services)}) == 35


def consents(services: Services) -> list[bool]:
    with services.store.read() as reader:
        people = reader.recipients(WORKSPACE, [f"u{n:02}" for n in range(35)])
    return [people[name].channels["email"].state for name in sorted(people)]


def snapshot(path: Path, *, email: bool) -> Path:
    return write(path, [{"recipient_id": f"u{n:02}", "channels.email": email} for n in range(35)])


def test_a_snapshot_of_recipients_that_equals_an_earlier_one_holds_again(services: Services, tmp_path: Path) -> None:
    """Who refused, allowed, and refuses again gets no mail."""
    for email in (False, True, False):
        report = import_file(services, WORKSPACE, "recipients", snapshot(tmp_path / "p.csv", email=email))
        assert (report.stored, report.resumed) == (35, 0)
        assert consents(services) == [email] * 35


def test_the_same_recipients_again_take_up_who_was_erased(services: Services, tmp_path: Path) -> None:
    file = snapshot(tmp_path / "p.csv", email=True)
    import_file(services, WORKSPACE, "recipients", file)
    erase(services, WORKSPACE, "u07")
    assert len(consents(services)) == 34
    import_file(services, WORKSPACE, "recipients", file)
    assert len(consents(services)) == 35


def test_a_killed_import_of_recipients_begins_anew_once_another_file_has_come(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK", 10)
    refusing, allowing = (snapshot(tmp_path / f"{email}.csv", email=email) for email in (False, True))

    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for file in (refusing, allowing):
        with pytest.raises(KeyboardInterrupt):
            import_file(services, WORKSPACE, "recipients", file, on_progress=killed)
    assert consents(services) == [True] * 10
    assert import_file(services, WORKSPACE, "recipients", refusing).resumed == 0
    assert consents(services) == [False] * 35


def test_a_file_that_is_corrected_near_its_end_is_another_one(services: Services, tmp_path: Path) -> None:
    """The two differ in one letter behind their first MiB, and not in length."""
    file = tmp_path / "people.csv"
    head = "recipient_id,timezone,attributes.note\n" + f"u1,Europe/Berlin,{'x' * 1024}\n" * 1024
    file.write_text(head + "u2,Europe/Barlin,\n")
    bad: list[BadRow] = []
    assert import_file(services, WORKSPACE, "recipients", file, on_bad=bad.append).resumed == 0
    assert [row.line for row in bad] == [1026]

    file.write_text(head + "u2,Europe/Berlin,\n")
    report = import_file(services, WORKSPACE, "recipients", file)
    assert (report.rows, report.bad, report.resumed) == (1025, 0, 0)
    with services.store.read() as reader:
        person = reader.recipient(WORKSPACE, "u2")
    assert person is not None
    assert person.timezone == "Europe/Berlin"


def test_rows_and_their_position_are_stored_together_or_not_at_all(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        tmp_path / "e.csv", [{"event_id": "e1", "type": "converted", "recipient_id": "u", "occurred_at": START}]
    )

    def dies(writer: Writer) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as broken:
        broken.setattr(importtargets.Place, "note", lambda *_: dies)
        with pytest.raises(StoreUnavailable):
            import_file(services, WORKSPACE, "events", file)
    assert import_file(services, WORKSPACE, "events", file) == ImportReport(rows=1, stored=1)


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet"])
@pytest.mark.parametrize("kind", ["history", "events"])
def test_values_that_the_api_refuses_are_bad_rows(
    services: Services, spring: Campaign, tmp_path: Path, kind: Kind, suffix: str
) -> None:
    event = {"type": "converted", "recipient_id": "u", "occurred_at": START.isoformat()}
    column, row = ("outcome.converted", history_rows(1)[0]) if kind == "history" else ("value", event)
    for told, good in ((limits.AMOUNT, True), (-limits.AMOUNT, True), (1e308, False), (-1.1 * limits.AMOUNT, False)):
        seen: list[BadRow] = []
        file = write(tmp_path / f"{told}{suffix}", [{**row, column: told}])
        report = import_file(services, WORKSPACE, kind, file, on_bad=seen.append)
        assert (report.stored, report.bad) == (good, not good), told
        assert all(f"{column}: {told:g} must be from -1000000000 to 1000000000" in one.error.detail for one in seen)


def test_imported_events_reach_their_decisions_and_bad_ones_keep_their_lines(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    decision, _ = services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1", request_id="r1"))
    at = services.clock().isoformat()
    rows: list[dict[str, Any]] = [
        {"event_id": "e1", "type": "clicked", "request_id": "r1", "occurred_at": at},
        {"event_id": "e2", "type": "clicked", "request_id": "r1", "occurred_at": "2030-01-01T00:00:00Z"},
        {"event_id": "e3", "type": "clicked", "occurred_at": at},
        {"event_id": "e4", "type": "converted", "recipient_id": "u1", "occurred_at": at, "value": 9},
        {"event_id": "e5", "recipient_id": "u1", "occurred_at": at},
        # An order's id, say: it names no message, and no event that waits for one ever counts.
        {"event_id": "e6", "type": "converted", "recipient_id": "u1", "occurred_at": at, "message_id": "order-1"},
    ]
    seen: list[BadRow] = []
    report = import_file(services, WORKSPACE, "events", write(tmp_path / "e.csv", rows), on_bad=seen.append)

    assert (report.stored, report.bad) == (2, 4)
    assert [bad.line for bad in seen] == [3, 4, 6, 7]
    assert seen[-1].error.errors == {"provider": ["missing; message_id needs it"]}
    (found,) = logged(services)
    assert found.decision.decision_id == decision.decision_id
    assert [event.event_id for event in found.events] == ["e1", "e4"]


@pytest.mark.parametrize("also", [[], [{"event_id": "e0", "type": "clicked", "recipient_id": "u"}]])
def test_an_imported_type_that_is_nearly_a_built_in_one_is_a_bad_row_until_a_campaign_maps_it(
    services: Services, tmp_path: Path, also: list[dict[str, Any]]
) -> None:
    rows = [*also, {"event_id": "e1", "type": "convert", "recipient_id": "u"}]
    rows += [{"event_id": "e2", "type": "visited", "recipient_id": "u"}]
    file = write(tmp_path / "e.csv", [{**row, "occurred_at": START.isoformat()} for row in rows])
    seen: list[BadRow] = []
    report = import_file(services, WORKSPACE, "events", file, on_bad=seen.append)
    assert (report.stored, [bad.error.code for bad in seen]) == (1, [*("needs_message" for _ in also), "misspelled"])
    assert seen[-1].line == 2 + len(also)
    assert "'convert' must be spelled 'converted'" in seen[-1].error.detail

    setup.put_campaign(services, campaign(event_mapping={"convert": EventMapping("converted")}))
    again = import_file(services, WORKSPACE, "events", file)
    assert (again.stored, again.known, again.bad) == (1, 1, len(also))


def test_imported_events_of_who_lives_in_a_zone_that_this_host_lacks_are_stored_and_not_tallied(
    services: Services, tmp_path: Path
) -> None:
    for name, zone in (("u1", "America/Nowhere"), ("u2", "Asia/Tokyo")):
        setup.put_recipient(services, Recipient(WORKSPACE, name, timezone=zone))
    one = {"type": "visited", "occurred_at": START.isoformat()}
    rows = [{**one, "event_id": f"e of {name}", "recipient_id": name} for name in ("u1", "u2")]
    assert import_file(services, WORKSPACE, "events", write(tmp_path / "e.csv", rows)).stored == 2
    with services.store.read() as reader:
        assert list(reader.rhythms(WORKSPACE, ["u1", "u2"])) == ["u2"]
