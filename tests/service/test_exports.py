"""Exports: what was logged comes back, in both formats, whole or not at all."""

from __future__ import annotations

import hashlib
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from pyarrow import parquet

from optimizer.errors import Invalid, NotFound
from optimizer.service import exports, setup
from optimizer.service.exports import Selection, export
from optimizer.service.imports import import_file
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.rhythms import HALF_LIFE_DAYS
from optimizer.service.rowfiles import ParquetWriter, open_writer
from optimizer.service.settle import confirm, release
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Campaign
from storage.rhythm import RhythmSum
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign
from tests.service.rows import history_rows, write


def decide(services: Services, recipient: str, **more: Any) -> Decision:
    decision, _ = services.decider.decide(WORKSPACE, DecisionRequest("spring", recipient, **more))
    return decision


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of an export; JSON cells of Parquet parsed, times as RFC 3339 text."""
    if path.suffix == ".ndjson":
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]
    rows = parquet.read_table(path).to_pylist()
    return [
        orjson.loads(orjson.dumps({k: _parsed(v) for k, v in row.items()}, option=orjson.OPT_UTC_Z)) for row in rows
    ]


def _parsed(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value


def out(services: Services, what: exports.What, path: Path, **selection: Any) -> list[dict[str, Any]]:
    count = export(services, WORKSPACE, what, path, Selection(**selection))
    rows = read(path)
    assert len(rows) == count
    return rows


@pytest.fixture
def logged(services: Services, spring: Campaign, clock: FakeClock) -> list[Decision]:
    """Three decisions, an hour apart: one clicked, one released, one silent."""
    setup.put_campaign(services, campaign(allow_no_send=False))
    made = []
    for recipient in ("a", "b", "c"):
        made.append(decide(services, recipient, context={"age": 30}, metadata={"order": recipient}))
        clock.forward(hours=1)
    ingest(services, WORKSPACE, [EventInput("clicked", made[0].decided_at, decision_id=made[0].decision_id)])
    confirm(services, WORKSPACE, made[2].decision_id, None, "mailer", "m1")
    release(services, WORKSPACE, made[1].decision_id, "no stock")
    clock.forward(days=3)
    return made


@pytest.mark.parametrize("suffix", [".ndjson", ".parquet"])
def test_decisions_come_back_as_they_were_logged(
    services: Services, logged: list[Decision], tmp_path: Path, suffix: str
) -> None:
    rows = out(services, "decisions", tmp_path / f"d{suffix}")

    assert [row["decision_id"] for row in rows] == [decision.decision_id for decision in logged]
    for row, decision in zip(rows, logged, strict=True):
        assert (row["variant_id"], row["channel"], row["group"]) == (
            decision.variant_id,
            decision.channel,
            decision.group,
        )
        assert row["propensity"] == decision.propensity
        assert row["metadata"] == decision.metadata
    assert [row["status"] for row in rows][1:] == ["released", "sent"]
    assert (rows[1]["close_reason"], rows[2]["provider"], rows[2]["message_id"]) == ("no stock", "mailer", "m1")


def test_both_formats_say_the_same(services: Services, logged: list[Decision], tmp_path: Path) -> None:
    for what in ("decisions", "feedback"):
        one, other = (out(services, what, tmp_path / f"x{suffix}") for suffix in (".ndjson", ".parquet"))
        assert [{**row, **_times(row)} for row in one] == [{**row, **_times(row)} for row in other]


def _times(row: dict[str, Any]) -> dict[str, Any]:
    """Times to the second: both formats write microseconds, in two notations."""
    return {k: v[:19] for k, v in row.items() if isinstance(v, str) and k.endswith("_at")}


@pytest.mark.parametrize("suffix", [".ndjson", ".parquet"])
def test_feedback_has_the_whole_distribution_that_each_action_was_drawn_from(
    services: Services, logged: list[Decision], tmp_path: Path, suffix: str
) -> None:
    for row, decision in zip(out(services, "feedback", tmp_path / f"f{suffix}"), logged, strict=True):
        probability = np.array(row["probability"])
        assert probability.shape == (decision.actions,)
        assert probability.sum() == pytest.approx(1, abs=1e-9)
        assert np.flatnonzero(probability).tolist() == row["eligible"]
        assert len(row["eligible"]) == decision.eligible_actions
        assert probability[row["action"]] == pytest.approx(decision.propensity, abs=1e-9)
        variants, channels, slots = row["variants"], row["channels"], len(row["send_times"])
        assert len(variants) * len(channels) * slots == decision.actions
        if decision.variant_id is not None:
            assert variants[row["action"] // (slots * len(channels))] == decision.variant_id
            assert channels[row["action"] % len(channels)] == decision.channel
        assert row["context"] == {"age": 30}


def test_feedback_has_reward_and_outcomes_of_what_went_out(
    services: Services, logged: list[Decision], tmp_path: Path
) -> None:
    clicked, released, silent = out(services, "feedback", tmp_path / "f.ndjson")
    assert (clicked["reward"], clicked["matured"], clicked["outcomes"]["clicked"]["happened"]) == (1.0, True, True)
    assert (silent["reward"], silent["matured"], silent["outcomes"]["clicked"]["happened"]) == (0.0, True, False)
    assert released["status"] == "released"


def test_a_selection_narrows_by_campaign_and_time(services: Services, logged: list[Decision], tmp_path: Path) -> None:
    path = tmp_path / "d.ndjson"
    later = out(services, "decisions", path, since=START + timedelta(hours=1))
    assert [row["recipient_id"] for row in later] == ["b", "c"]
    assert len(out(services, "decisions", path, until=START + timedelta(hours=1))) == 1
    with pytest.raises(NotFound, match="no campaign 'nope'"):
        export(services, WORKSPACE, "decisions", path, Selection(campaign_id="nope"))


def test_imported_rows_have_a_propensity_and_no_distribution(
    services: Services, spring: Campaign, tmp_path: Path
) -> None:
    import_file(services, WORKSPACE, "history", write(tmp_path / "h.csv", history_rows(4)))
    for row in out(services, "feedback", tmp_path / "f.ndjson"):
        assert (row["probability"], row["propensity"], row["fault"], row["imported"]) == (None, 0.5, None, True)
        assert row["eligible"] == [0, 1, 2, 3, 4]


def test_a_policy_that_is_gone_is_told_in_its_rows_and_ends_nothing(
    services: Services, logged: list[Decision], tmp_path: Path
) -> None:
    with services.store.read() as reader:
        known = list(reader.feedback(WORKSPACE))
    lost = replace(logged[0], decision_id="dec_lost", request_id="lost", policy_id="pol_gone")
    services.store.write(lambda writer: writer.add_decision(lost, None))
    rows = {row["decision_id"]: row for row in out(services, "feedback", tmp_path / "f.ndjson")}
    assert len(rows) == len(known) + 1
    assert rows["dec_lost"]["probability"] is None
    assert "pol_gone" in rows["dec_lost"]["fault"]


def test_a_recipient_export_holds_the_counts_of_its_rhythm_as_of_now(
    services: Services, spring: Campaign, clock: FakeClock, tmp_path: Path
) -> None:
    decide(services, "a")
    unit = 2.0 ** (clock.now.timestamp() / (HALF_LIFE_DAYS * 86_400))
    sums = (RhythmSum("active", 9, 2.0 * unit), RhythmSum("sent", 20, 0.5 * unit))
    services.store.write(lambda writer: writer.add_to_rhythm(WORKSPACE, "a", sums))

    def told() -> list[Any]:
        rows = out(services, "recipient", tmp_path / "r.ndjson", recipient_id="a")
        return [row["record"]["sums"] for row in rows if row["kind"] == "rhythm"]

    active, sent = {"kind": "active", "hour": 9}, {"kind": "sent", "hour": 20}
    assert told() == [[{**active, "weight": 2.0}, {**sent, "weight": 0.5}]]
    clock.forward(days=HALF_LIFE_DAYS)
    assert told() == [[{**active, "weight": 1.0}, {**sent, "weight": 0.25}]]


def test_a_recipient_export_holds_everything_of_one_person_and_nothing_of_others(
    services: Services, logged: list[Decision], tmp_path: Path
) -> None:
    rows = out(services, "recipient", tmp_path / "r.ndjson", recipient_id="a")
    assert [row["kind"] for row in rows] == ["decision", "event"]
    assert rows[0]["record"]["context"] == {"age": 30}
    assert rows[1]["record"]["type"] == "clicked"
    assert not {"b", "c"} & {row["record"].get("recipient_id") for row in rows}
    with pytest.raises(NotFound, match="'stranger'"):
        export(services, WORKSPACE, "recipient", tmp_path / "s.ndjson", Selection(recipient_id="stranger"))


def test_an_export_that_fails_leaves_the_old_file_and_no_other(
    services: Services, logged: list[Decision], tmp_path: Path
) -> None:
    path = tmp_path / "d.parquet"
    before = out(services, "decisions", path)

    def stop(rows: int) -> None:
        if rows == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(services, WORKSPACE, "decisions", path, Selection(), stop)
    assert read(path) == before
    assert [file.name for file in tmp_path.iterdir() if file.suffix in (".parquet", ".part")] == ["d.parquet"]


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file grows beyond 4 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def fill(path: Path, rows: int) -> None:
    with open_writer(path, {"x": "string"}) as writer:
        for i in range(rows):
            writer.write({"x": hashlib.sha512(b"%d" % i).hexdigest()})


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("rows", [100, 3_000])
@pytest.mark.parametrize("suffix", [".ndjson", ".parquet"])
def test_on_a_full_disk_the_old_file_stays_and_no_draft(tmp_path: Path, suffix: str, rows: int) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_text("the old one")
    with pytest.raises(OSError, match="File too large"):
        fill(path, rows)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "the old one")]


@pytest.mark.parametrize("step", ["_gather", "_flush"])
def test_a_writer_that_is_stopped_at_its_end_leaves_the_old_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stop(_: ParquetWriter) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "d.parquet"
    path.write_text("the old one")
    monkeypatch.setattr(ParquetWriter, step, stop)
    with pytest.raises(KeyboardInterrupt), open_writer(path, {"x": "bigint"}) as writer:
        writer.write({"x": 1})
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "the old one")]


def test_an_unknown_suffix_is_refused_with_those_that_are_known(services: Services, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"\.ndjson, \.jsonl, \.parquet"):
        export(services, WORKSPACE, "decisions", tmp_path / "d.csv", Selection())


def test_a_zone_that_this_host_lacks_is_told_in_its_rows_and_ends_nothing(
    services: Services, logged: list[Decision], tmp_path: Path
) -> None:
    snapshot = replace(logged[0].snapshot, timezone="America/Nowhere")
    afar = replace(logged[0], decision_id="dec_afar", request_id="afar", snapshot=snapshot)
    services.store.write(lambda writer: writer.add_decision(afar, None))
    rows = {row["decision_id"]: row for row in out(services, "feedback", tmp_path / "f.ndjson")}
    assert len(rows) == len(logged) + 1
    assert (rows["dec_afar"]["probability"], rows["dec_afar"]["reward"]) == (None, 0.0)
    assert "America/Nowhere" in rows["dec_afar"]["fault"]
