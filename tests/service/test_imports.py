"""Imports: formats agree, bad rows are named and left out, killed imports resume, twice is once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
from pyarrow import parquet

from optimizer.errors import Invalid
from optimizer.service import imports, setup
from optimizer.service.feedback import load
from optimizer.service.imports import BadRow, ImportReport, import_file
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.errors import StoreUnavailable
from storage.log import Decision, FeedbackRow
from storage.records import Campaign, Channel, Suppression, Variant
from tests.service.conftest import START, WORKSPACE, campaign

DAY = timedelta(days=1)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as a file of the suffix's format."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".ndjson":
        path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = [",".join(columns)]
        lines += [",".join(_text(row.get(name)) for name in columns) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def logged(services: Services) -> list[FeedbackRow]:
    with services.store.read() as reader:
        return list(reader.feedback(WORKSPACE))


def decisions(services: Services) -> list[Decision]:
    return [row.decision for row in logged(services)]


def history_rows(count: int) -> list[dict[str, Any]]:
    at = START - 10 * DAY
    return [
        {
            "recipient_id": f"u{i % 7}",
            "campaign_id": "spring",
            "variant_id": ("mens", "womens")[i % 2],
            "channel": "email",
            "send_at": (at + timedelta(minutes=i)).isoformat(),
            "propensity": 0.5,
            "context.age": 20 + i % 5,
            "outcome.clicked": int(i % 3 == 0),
        }
        for i in range(count)
    ]


RECIPIENTS = [
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


def test_attributes_of_imported_recipients_are_listed_with_their_types(services: Services, tmp_path: Path) -> None:
    import_file(services, WORKSPACE, "recipients", write(tmp_path / "people.csv", RECIPIENTS))

    with services.store.read() as reader:
        types = {attribute.name: attribute.type for attribute in reader.attributes(WORKSPACE)}
    assert types == {"age": "number", "plan": "category"}


BAD_ROWS = [
    ({"recipient_id": None}, "recipient_id"),
    ({"timezone": "Mars/Base"}, "Mars/Base"),
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


def test_an_unknown_column_is_refused_by_name(services: Services, tmp_path: Path) -> None:
    seen: list[BadRow] = []
    file = write(tmp_path / "p.csv", [{"recipient_id": "a", "tmezone": "UTC"}])
    import_file(services, WORKSPACE, "recipients", file, on_bad=seen.append)
    assert "tmezone: unknown column; known: recipient_id" in seen[0].error.detail


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("p.txt", b"recipient_id\n", "p.txt must end with one of"),
        ("p.csv", b"", "line 1"),
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


def test_an_import_that_dies_between_rows_and_position_stores_nothing_twice(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        tmp_path / "e.csv", [{"event_id": "e1", "type": "converted", "recipient_id": "u", "occurred_at": START}]
    )

    def dies(place: object, rows: int) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as broken:
        broken.setattr(imports.Place, "put_position", dies)
        with pytest.raises(StoreUnavailable):
            import_file(services, WORKSPACE, "events", file)
    assert import_file(services, WORKSPACE, "events", file) == ImportReport(rows=1, known=1)


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet"])
def test_the_same_history_twice_is_once(services: Services, spring: Campaign, tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"h{suffix}", history_rows(12))
    first, again = (import_file(services, WORKSPACE, "history", file) for _ in range(2))

    assert (first.stored, first.resumed) == (12, 0)
    assert (again.stored, again.resumed) == (0, 12)
    assert len(decisions(services)) == 12


def test_a_history_that_has_grown_adds_only_what_is_new(services: Services, spring: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "h.csv"
    import_file(services, WORKSPACE, "history", write(file, history_rows(12)))
    report = import_file(services, WORKSPACE, "history", write(file, history_rows(20)))
    assert (report.stored, report.known) == (8, 12)


def test_equal_rows_of_a_history_are_two_decisions(services: Services, spring: Campaign, tmp_path: Path) -> None:
    row = history_rows(1)[0]
    assert import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", [row, row])).stored == 2


def test_a_logged_row_becomes_a_decision_over_all_actions_at_its_time(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    row = {
        "recipient_id": "u1",
        "campaign_id": "spring",
        "variant_id": "womens",
        "channel": "push",
        "send_at": "2026-02-20T10:00:00+01:00",
        "decided_at": "2026-02-20T08:00:00Z",
        "propensity": 0.25,
        "context": {"age": 30},
        "context.plan": "pro",
        "outcome.clicked": "2026-02-20T09:30:00Z",
        "outcome.converted": 49.5,
        "outcome.unsubscribed": 0,
    }
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.ndjson", [row]))

    (found,) = logged(services)
    decision = found.decision
    assert (decision.policy_id, decision.imported, decision.status) == ("pol_imported", True, "sent")
    assert (decision.variant_id, decision.channel, decision.propensity) == ("womens", "push", 0.25)
    # 2 variants x 1 slot x 2 channels + no_send; womens = 1, push = 1: a = 1 * 2 + 1.
    assert (decision.action, decision.actions, decision.eligible_actions) == (3, 5, 5)
    assert decision.send_at == datetime(2026, 2, 20, 9, tzinfo=UTC)
    assert decision.decided_at == datetime(2026, 2, 20, 8, tzinfo=UTC)
    assert decision.snapshot.context == {"age": 30, "plan": "pro"}
    events = {event.type: event for event in found.events}
    assert set(events) == {"clicked", "converted"}
    assert events["clicked"].occurred_at == datetime(2026, 2, 20, 9, 30, tzinfo=UTC)
    assert (events["converted"].value, events["converted"].occurred_at) == (49.5, decision.send_at)


def test_a_row_without_a_variant_is_a_decision_not_to_send(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    row = {
        "recipient_id": "u1",
        "campaign_id": "spring",
        "variant_id": None,
        "decided_at": "2026-02-20T08:00:00Z",
        "outcome.converted": 3,
    }
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", [row]))

    (found,) = logged(services)
    assert (found.decision.status, found.decision.action, found.decision.send_at) == ("no_send", 4, None)
    assert found.decision.propensity is None
    assert [event.occurred_at for event in found.events] == [found.decision.decided_at]


@pytest.mark.parametrize(("propensity", "kept"), [(None, None), (0, None), (-1, None), (1, 1.0), (0.01, 0.01)])
def test_a_missing_or_non_positive_propensity_is_kept_for_training_only(
    services: Services, spring: Campaign, tmp_path: Path, propensity: float | None, kept: float | None
) -> None:
    rows = [{**history_rows(1)[0], "propensity": propensity}]
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", rows))

    with services.store.read() as reader:
        (row,) = load(reader, WORKSPACE, services.clock()).rows
    assert row.decision.propensity == kept
    assert row.trainable
    assert row.evaluable is (kept is not None)
    assert row.reward == 1.0


HISTORY_FAULTS = [
    ({"campaign_id": "nope"}, "no campaign 'nope'"),
    ({"variant_id": "kids"}, "'kids' is not one of the campaign's: mens, womens"),
    ({"channel": "fax"}, "'fax' is not one of the campaign's: email, push"),
    ({"channel": None}, "channel: missing"),
    ({"send_at": None}, "send_at: missing"),
    ({"send_at": "2026-02-20 10:00:00"}, "with an offset"),
    ({"send_at": "2027-01-01T00:00:00Z"}, "must not be after now"),
    ({"decided_at": "2026-03-01T00:00:00Z"}, "must not be after send_at"),
    ({"propensity": 1.5}, "must not be above 1"),
    ({"propensity": "many"}, "'many' must be a finite number"),
    ({"outcome.clicked": "soon"}, "'soon' must be an RFC 3339 time"),
    ({"outcome.clicked": "2026-01-01T00:00:00Z"}, "must lie between decided_at and now"),
    ({"variant_id": None, "outcome.opened": 1}, "needs a message"),
]


@pytest.mark.parametrize(("change", "named"), HISTORY_FAULTS)
def test_a_history_row_that_contradicts_itself_is_refused_with_the_reason(
    services: Services, spring: Campaign, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    seen: list[BadRow] = []
    file = write(tmp_path / "h.csv", [{**history_rows(1)[0], **change}])
    report = import_file(services, WORKSPACE, "history", file, on_bad=seen.append)
    assert (report.bad, report.stored) == (1, 0)
    assert named in seen[0].error.detail
    assert decisions(services) == []


def test_an_only_channel_need_not_be_named_and_archived_variants_are_known(services: Services, tmp_path: Path) -> None:
    setup.put_campaign(services, campaign(channels=(Channel("email"),)))
    setup.put_campaign(services, campaign(channels=(Channel("email"),), variants=(Variant("kids"),)))
    file = write(tmp_path / "h.csv", [{**history_rows(1)[0], "channel": None}])
    assert import_file(services, WORKSPACE, "history", file).stored == 1
    assert decisions(services)[0].channel == "email"


def test_sent_history_counts_against_caps_like_any_message(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", history_rows(3)))
    with services.store.read() as reader:
        found = reader.messages(WORKSPACE, ["u0", "u1", "u2"], START - 11 * DAY, START)
    assert {person: len(messages) for person, messages in found.items()} == {"u0": 1, "u1": 1, "u2": 1}


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
    ]
    seen: list[BadRow] = []
    report = import_file(services, WORKSPACE, "events", write(tmp_path / "e.csv", rows), on_bad=seen.append)

    assert (report.stored, report.bad) == (2, 3)
    assert [bad.line for bad in seen] == [3, 4, 6]
    (found,) = logged(services)
    assert found.decision.decision_id == decision.decision_id
    assert [event.event_id for event in found.events] == ["e1", "e4"]
