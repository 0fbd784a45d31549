"""``sendtide decide`` over a folder: one time and one policy for all, answers in parts, resumed where it was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from pyarrow import parquet

from optimizer.cli import batch, batchrun
from optimizer.cli.batchrun import SUCCESS
from optimizer.service import setup
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services, open_services
from storage.errors import StoreUnavailable
from storage.log import Decision
from storage.records import Campaign
from storage.rules import Cap, Rule
from tests.cli.conftest import Sendtide
from tests.service.conftest import campaign

#: Line 4 of the first file names a zone that isn't one; "a" comes again in the second file.
FIRST = "recipient_id,timezone\na,Europe/Berlin\nb,\nc,Mars/Base\nd,\n"
SECOND = '{"recipient_id":"a"}\nno json\n{"recipient_id":"e"}\n'


@pytest.fixture
def people(tmp_path: Path, spring: Campaign) -> Path:
    folder = tmp_path / "people"
    (folder / "day=2").mkdir(parents=True)
    (folder / "day=1.csv").write_text(FIRST)
    (folder / "day=2" / "x.ndjson").write_text(SECOND)
    (folder / "_SUCCESS").touch()
    (folder / ".x.ndjson.crc").write_text("nothing to decide")
    return folder


def decide(sendtide: Sendtide, people: Path, out: Path, *more: str) -> Any:
    return sendtide.json("decide", str(people), "--campaign", "spring", "--out", str(out), "--part-rows", "3", *more)


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(out.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]


def test_all_files_are_decided_in_order_into_parts(sendtide: Sendtide, people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = decide(sendtide, people, out)
    assert found == {"decided": 5, "failed": 2, "folder": str(out)}
    told = rows(out)
    assert [(r["file"], r["line"], r["recipient_id"]) for r in told] == [
        ("day=1.csv", 2, "a"),
        ("day=1.csv", 3, "b"),
        ("day=1.csv", 4, "c"),
        ("day=1.csv", 5, "d"),
        ("day=2/x.ndjson", 1, "a"),
        ("day=2/x.ndjson", 2, None),
        ("day=2/x.ndjson", 3, "e"),
    ]
    assert [len(parquet.read_table(part)) for part in sorted(out.glob("*.parquet"))] == [3, 3, 1]
    assert "Mars/Base" in orjson.loads(told[2]["error"])["detail"]
    assert len({r["request_id"] for r in told if r["error"] is None}) == 5
    assert (out / SUCCESS).exists()
    assert len(parquet.read_table(out)) == 7, "what is noted beside the parts disturbs no reader of the folder"


def test_a_run_decides_all_of_it_at_one_time_and_a_file_can_be_told_to(
    sendtide: Sendtide, people: Path, tmp_path: Path, services: Services
) -> None:
    decide(sendtide, people, tmp_path / "out", "--now", "2026-03-02T08:00:00Z")
    file = str(people / "day=1.csv")
    sendtide.ok(
        *("decide", file, "--campaign", "spring", "--out", str(tmp_path / "a.ndjson"), "--now", "2026-03-02T09:00:00Z")
    )
    with services.store.read() as reader:
        at = [d.decided_at.isoformat() for d in reader.decisions("default", limit=100).items]
    assert sorted(at) == ["2026-03-02T08:00:00+00:00"] * 5 + ["2026-03-02T09:00:00+00:00"] * 3
    early = sendtide("decide", str(people), "--campaign", "spring", "--out", "x", "--now", "2199-01-01T00:00:00Z")
    assert early.exit_code == 1
    assert "now: 2199-01-01T00:00:00+00:00 is yet to come" in early.stderr


def test_a_file_alone_gets_the_decisions_that_it_gets_as_a_folder_of_parts(
    sendtide: Sendtide, people: Path, tmp_path: Path
) -> None:
    """Which is how ``--ray`` takes a file."""
    from optimizer.cli.batchrun import sources
    from optimizer.service.rowfiles import fingerprint

    file = people / "day=1.csv"
    assert [s.run_id for s in sources(file, "spring")] == ["file-" + fingerprint(file, "spring")]
    (one,) = [s for s in sources(people, "spring") if s.name == file.name]
    assert one.run_id != "file-" + fingerprint(file, "spring"), "a folder's files are told apart by name too"


@pytest.mark.parametrize("folder", [False, True], ids=["a file", "a folder"])
def test_what_is_corrected_near_its_end_is_another_run(tmp_path: Path, folder: bool) -> None:
    from optimizer.cli.batchrun import sources

    file = tmp_path / "people" / "all.csv"
    file.parent.mkdir()
    runs = []
    for zone in ("Barlin", "Berlin", "Berlin"):
        file.write_text("recipient_id,timezone\n" + "a,\n" * (1 << 19) + f"b,Europe/{zone}\n")
        runs.append([source.run_id for source in sources(file.parent if folder else file, "spring")])
    assert runs[0] != runs[1] == runs[2]


@pytest.mark.parametrize("reached", [1, 2, 3])
def test_a_run_that_was_cut_short_goes_on_to_the_answers_that_it_would_have_had(
    sendtide: Sendtide, people: Path, tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch, reached: int
) -> None:
    """Cut once after the decisions of a part are stored and before they are written."""
    out, whole, calls = tmp_path / "out", batch.Desk.__call__, []

    def cut(self: batch.Desk, piece: batch.Piece) -> list[batch.Placed]:
        answers = whole(self, piece)
        calls.append(piece.block)
        if len(calls) == reached:
            raise StoreUnavailable("the line is dead")
        return answers

    with monkeypatch.context() as patched:
        patched.setattr(batch.Desk, "__call__", cut)
        assert sendtide("decide", str(people), "--campaign", "spring", "--out", str(out), "--part-rows", "3").exit_code
    assert len(list(out.glob("part-*"))) == reached - 1
    assert not (out / SUCCESS).exists()
    (out / ".part-000002.parquet.77.part").write_bytes(b"half")
    with services.store.read() as reader:
        first = {d.request_id: d for d in reader.decisions("default", limit=100).items}
    assert decide(sendtide, people, out)["decided"] == 5
    with services.store.read() as reader:
        stored = {d.request_id: d for d in reader.decisions("default", limit=100).items}
    assert len(stored) == 5
    assert {name: stored[name] for name in first} == first
    assert len({d.decided_at for d in stored.values()}) == 1
    told = rows(out)
    assert [r["decision_id"] for r in told if r["error"] is None] == [
        stored[r["request_id"]].decision_id for r in told if r["error"] is None
    ]
    assert not list(out.glob(".*"))
    written = {part: part.stat().st_mtime_ns for part in out.iterdir()}
    assert decide(sendtide, people, out) == {"decided": 5, "failed": 2, "folder": str(out)}
    assert {part: part.stat().st_mtime_ns for part in out.glob("part-*")}.items() <= written.items()


def _cut_short(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-20])


def _without_rows(part: Path) -> None:
    parquet.write_table(parquet.read_table(part).slice(0, 0), part)


@pytest.mark.parametrize("broken", [_cut_short, _without_rows, Path.unlink])
def test_a_part_that_is_not_whole_is_written_anew(
    sendtide: Sendtide, people: Path, tmp_path: Path, broken: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    decide(sendtide, people, out)
    before = rows(out)
    broken(out / "part-000001.parquet")
    assert decide(sendtide, people, out) == {"decided": 5, "failed": 2, "folder": str(out)}
    assert rows(out) == before


def test_a_run_goes_on_with_the_policy_that_it_began_with(
    sendtide: Sendtide, people: Path, tmp_path: Path, services: Services
) -> None:
    from optimizer.cli.batchrun import Run, part
    from optimizer.service.publish import new_policy, publish
    from storage.policies import Component

    out = tmp_path / "out"
    decide(sendtide, people, out)
    cold = rows(out)
    now = services.clock()
    newer = new_policy(
        "default",
        "spring",
        now,
        (Component(1.0, None),),
        parent=None,
        exploration={},
        verdict={"decision": "publish", "reason": "test"},
        run_id=None,
    )
    publish(services, [], newer, None, now)
    part(out, 1).unlink()
    (people / "day=2" / "x.ndjson").touch()
    decide(sendtide, people, out)
    assert rows(out) == cold
    decide(sendtide, people / "day=2", tmp_path / "other")
    assert {r["policy_id"] for r in rows(tmp_path / "other") if r["error"] is None} == {newer.policy_id}
    assert orjson.loads((out / "_run.json").read_bytes()).keys() == set(Run.__dataclass_fields__)


def _more(people: Path, _out: Path) -> None:
    (people / "day=1.csv").write_text(FIRST + "z,\n")


def _forgotten(_people: Path, out: Path) -> None:
    (out / "_run.json").unlink()


def _odd(people: Path, _out: Path) -> None:
    (people / "readme.txt").touch()


@pytest.mark.parametrize(
    ("change", "flags", "told"),
    [
        (None, ["--campaign", "autumn"], "another campaign"),
        (None, ["--part-rows", "4"], "other --part-rows"),
        (None, ["--now", "2026-03-02T08:00:00Z"], "another --now"),
        (None, ["--out", "{people}/out"], "all of which is decided"),
        (None, ["--out", "{people}.ndjson"], "name a folder"),
        (_more, [], "other files"),
        (_forgotten, [], "must be an empty folder"),
        (_odd, [], "readme.txt must end with one of"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    sendtide: Sendtide,
    people: Path,
    tmp_path: Path,
    change: Callable[[Path, Path], None] | None,
    flags: list[str],
    told: str,
) -> None:
    out = tmp_path / "out"
    decide(sendtide, people, out)
    before = rows(out)
    if change is not None:
        change(people, out)
    given = ("decide", str(people), "--campaign", "spring", "--out", str(out), "--part-rows", "3")
    refused = sendtide(*given, *(flag.format(people=people) for flag in flags))
    assert refused.exit_code == 1
    assert told in refused.stderr
    assert rows(out) == before


def test_a_folder_without_recipients_and_another_database_are_refused(
    sendtide: Sendtide, people: Path, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    refused = sendtide("decide", str(tmp_path / "nothing"), "--campaign", "spring", "--out", str(tmp_path / "out"))
    assert "holds no file of recipients" in refused.stderr
    decide(sendtide, people, tmp_path / "out")
    elsewhere = Sendtide(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    with_workspace = elsewhere.open()
    setup.ensure_workspace(with_workspace, "default")
    with_workspace.close()
    given = ("decide", str(people), "--campaign", "spring", "--out", str(tmp_path / "out"), "--part-rows", "3")
    assert "another database" in elsewhere(*given).stderr


class Backwards:
    """A crew that decides what came last first, as a cluster might."""

    size = 3

    def __init__(self, desk: batch.Desk) -> None:
        self._desk = desk
        self._waiting: list[batch.Piece] = []
        self.seen: list[batch.Piece] = []

    def submit(self, argument: batch.Piece) -> None:
        self._waiting.append(argument)

    def next(self) -> tuple[batch.Piece, list[batch.Placed]]:
        piece = self._waiting.pop()
        self.seen.append(piece)
        return piece, self._desk(piece)


def test_rows_of_a_recipient_stay_in_order_whoever_comes_first(
    sendtide: Sendtide, spring: Campaign, tmp_path: Path, services: Services
) -> None:
    from optimizer.cli import batchrun

    file = Path(sendtide.file("who.csv", "recipient_id\n" + "".join(f"p{i % 7}\n" for i in range(60))))
    run = batchrun.planned(
        services, "default", "spring", batchrun.sources(file, "spring"), part_rows=8, now=services.clock()
    )
    out = tmp_path / "out"
    out.mkdir()
    desk = batch.Desk(services.settings, run)
    crew = Backwards(desk)
    done: list[int] = []
    assert batch.decide_all(tmp_path, run, out, crew, done.append) == batch.Done(60, 0)
    desk.close()
    assert done == [8, 16, 24, 32, 40, 48, 56, 60]
    assert [(r["line"], r["recipient_id"]) for r in rows(out)] == [(i + 2, f"p{i % 7}") for i in range(60)]
    lines: dict[str, list[int]] = {}
    for piece in crew.seen:
        for _, asked in piece.rows:
            assert isinstance(asked.cells, dict)
            lines.setdefault(asked.cells["recipient_id"], []).append(asked.line)
    assert all(found == sorted(found) for found in lines.values())
    assert len({piece.lane for piece in crew.seen}) == 3
    assert [piece.block for piece in crew.seen] != sorted(piece.block for piece in crew.seen)


#: When a run begins that goes on much later.
BEGAN = datetime(2026, 3, 2, 18, 0, tzinfo=UTC)


def go_on(services: Services, tmp_path: Path, run: batchrun.Run, now: datetime) -> dict[str, Decision]:
    """Decides what is left of a run at ``now``; all that is stored then, by id."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    desk = batch.Desk(services.settings, run, lambda: now)
    batch.decide_all(tmp_path, run, out, batch.Alone(desk), lambda _: None)
    desk.close()
    with services.store.read() as reader:
        return {d.decision_id: d for d in reader.decisions("default", limit=500).items}


@pytest.mark.parametrize("told", [False, True], ids=["of its own time", "told its time"])
def test_a_run_that_goes_on_later_reserves_nothing_for_a_time_that_is_past(
    sendtide: Sendtide, services: Services, tmp_path: Path, told: bool
) -> None:
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, campaign(workspace_id="default", allow_no_send=False))
    file = Path(sendtide.file("who.csv", "recipient_id\n" + "".join(f"p{i}\n" for i in range(40))))
    files, later = batchrun.sources(file, "spring"), BEGAN + timedelta(hours=15)
    run = batchrun.planned(services, "default", "spring", files, 20, BEGAN, told=told)
    first = go_on(services, tmp_path, run, BEGAN)
    (tmp_path / "out" / "part-000001.parquet").unlink()
    assert go_on(services, tmp_path, run, later) == first, "rows that are stored keep their decisions"
    other = replace(run, files=tuple(replace(source, run_id="another") for source in files))
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    late = [d for name, d in go_on(services, tmp_path, other, later).items() if name not in first]
    assert len(late) == 40
    assert {d.decided_at for d in late} == {BEGAN}
    assert {d.snapshot.window_start for d in late} == {BEGAN if told else later}
    assert any(d.send_at is not None and d.send_at < later for d in late) == told


def test_a_run_that_goes_on_later_takes_the_place_of_no_message_that_is_out(
    sendtide: Sendtide, services: Services, tmp_path: Path
) -> None:
    setup.ensure_workspace(services, "default")
    for name, priority in (("letter", 20), ("urgent", 90)):
        campaigned = campaign(workspace_id="default", campaign_id=name, priority=priority, allow_no_send=False)
        setup.put_campaign(services, campaigned)
    setup.put_rule(services, Rule("default", "one", "cap", Cap(1, rolling_hours=72)))
    file = Path(sendtide.file("who.csv", "recipient_id\nu1\n"))
    run = batchrun.planned(services, "default", "urgent", batchrun.sources(file, "urgent"), 8, BEGAN)
    at = open_services(services.settings, lambda: BEGAN, watch=False)
    window = BEGAN + timedelta(hours=4), BEGAN + timedelta(hours=4, seconds=1)
    letter, _ = at.decider.decide("default", DecisionRequest("letter", "u1", window=window))
    at.close()
    assert letter.status == "reserved"
    found = go_on(services, tmp_path, run, BEGAN + timedelta(hours=4, minutes=30))
    assert found.pop(letter.decision_id) == letter
    assert [d.status for d in found.values()] == ["withheld"]
