"""``--ray`` on a real cluster of two nodes and a real PostgreSQL server: as one process, whatever dies meanwhile."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import searches, setup
from simulations.drills import ray_run, ray_told, scene
from simulations.drills.nodes import Nodes, two_nodes
from simulations.drills.ray_scene import Size
from storage.records import Channel
from tests.cli.conftest import Sendtide
from tests.cli.test_loop import history
from tests.postgresql import Server
from tests.service.conftest import campaign


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with two_nodes(1) as started:
        yield started


@dataclass(frozen=True)
class Drill:
    work: ray_run.Work
    result: ray_run.Result


@pytest.fixture(scope="module")
def drill(nodes: Nodes, postgresql: Server, tmp_path_factory: pytest.TempPathFactory) -> Drill:
    """The drill with few people: 660 rows in 11 parts, in four runs."""
    work = ray_run.Work.begin(tmp_path_factory.mktemp("drill"), postgresql, Size(recipients=600, part_rows=60))
    return Drill(work, ray_run.drilled(work, nodes, print))


def test_two_nodes_answer_as_one_process_does(drill: Drill) -> None:
    result = drill.result
    assert result.same[0]
    assert (result.alone.decided, result.nodes.decided, result.nodes.failed) == (660, 660, 0)
    told = [row for part in ray_run.parts(drill.work.folder / "alone") for row in parquet.read_table(part).to_pylist()]
    assert len({row["recipient_id"] for row in told}) == 600
    assert len({row["decision_id"] for row in told}) == 660
    assert result.masked > 10, "else the order of a recipient's rows would not matter"


def test_a_node_that_is_killed_half_way_loses_and_doubles_nothing(drill: Drill) -> None:
    result = drill.result
    assert result.killed.killed_at is not None
    assert result.killed.killed_at < result.size.parts, "the node died too late to show anything"
    assert result.same[1]
    assert (result.killed.decided, result.killed.failed, result.stored[0]) == (660, 0, 660)


def test_caps_and_shared_limits_hold_exactly_where_a_node_is_killed(drill: Drill) -> None:
    result = drill.result
    assert result.report.clean
    assert result.report.unknown == 0
    assert (result.shared.decided, result.answered, result.stored[1]) == (660, 660, 660)
    assert sorted(result.ran_out) == ["emails", "money", "pushes"]
    assert min(result.ran_out.values()) > 0


def test_the_drill_tells_what_it_found_and_fails_where_something_is_amiss(drill: Drill) -> None:
    result = drill.result
    assert result.passed
    assert ray_told.document(result)["runs"]["one_killed"]["killed_at"] == result.killed.killed_at
    assert list(ray_told.lines(result))[-1] == "passed"
    late = replace(result.killed, killed_at=result.size.parts)
    for worse in (
        replace(result, same=(True, False)),
        replace(result, stored=(660, 661)),
        replace(result, answered=659),
        replace(result, killed=late),
        replace(result, masked=0),
        replace(result, ran_out={"emails": 0}),
        replace(result, nodes=replace(result.nodes, failed=1)),
    ):
        assert not worse.passed
        assert list(ray_told.lines(worse))[-1] == "NOT AS PROMISED"


def test_a_command_that_is_killed_goes_on_when_it_is_called_again(drill: Drill, nodes: Nodes) -> None:
    work, out = drill.work, drill.work.folder / "resumed"
    with work.copy() as database:
        environment = Settings(database=database).child_environment(os.environ)
        with subprocess.Popen(work.command(out, nodes), env=environment) as at_work:
            while at_work.poll() is None and not ray_run.parts(out):
                time.sleep(0.01)
            at_work.kill()
        assert at_work.returncode == -signal.SIGKILL
        assert 0 < len(ray_run.parts(out)) < work.size.parts
        assert work.decide("resumed", database, nodes).decided == 660
        assert ray_run.stored(database) == 660
    assert ray_run.same(work.folder / "alone", out)


def sendtide(*given: str) -> Result:
    result = CliRunner().invoke(main, list(given))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def decide(file: Path, out: Path, database: str, *more: str) -> Result:
    whose = ("--campaign", scene.LEARNED, "--workspace", scene.WORKSPACE, "--database", database)
    return sendtide("decide", str(file), "--out", str(out), *whose, "--json", *more)


def test_simulations_have_the_figures_that_they_have_in_one_process(nodes: Nodes) -> None:
    given = ("simulate", "stationary", "--policies", "ours", "--decisions", "60", "--seeds", "1", "--json")
    one, spread = sendtide(*given), sendtide(*given, "--ray", nodes.address)
    assert spread.exit_code == 0, spread.stderr
    figures = [orjson.loads(told.stdout)["standings"] for told in (one, spread)]
    for standing in itertools.chain(*figures):
        assert standing.pop("seconds") > 0
    assert figures[0] == figures[1]


def test_a_search_finds_what_it_finds_in_one_process(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "LEAST", 500)
    local = Sendtide(tmp_path)
    services = local.open()
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, campaign(workspace_id="default", channels=(Channel("email"),), allow_no_send=False))
    services.close()
    local.ok("import", "history", local.file("h.csv", history(seed=3)))
    search = ("tune", "--trials", "4", "--together", "3")
    one = local.json(*search)
    (tmp_path / "tuning.journal").unlink()
    local.ok("tune", "--reset")
    assert local.json(*search, "--ray", nodes.address) == one
    assert one["trials"] == 4


def test_sqlite_is_refused_over_two_nodes_and_taken_on_this_one(nodes: Nodes, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/one.db"
    scene.prepare(Settings(database=database), 4, cap=2, seed=3)
    file = tmp_path / "people.csv"
    file.write_text("recipient_id\nu000000\nu000001\n")
    refused = decide(file, tmp_path / "refused", database, "--ray", nodes.address)
    assert refused.exit_code == 2
    assert "a SQLite file can't be shared by several nodes" in refused.stderr
    taken = decide(file, tmp_path / "out", database, "--ray", "local")
    assert taken.exit_code == 0, taken.stderr
    assert "SQLite takes one writer at a time" in taken.stderr
    assert orjson.loads(taken.stdout)["decided"] == 2
    single = decide(file, tmp_path / "one.parquet", database)
    assert single.exit_code == 0
    ids = [parquet.read_table(tmp_path / name).column("decision_id").to_pylist() for name in ("out", "one.parquet")]
    assert ids[0] == ids[1], "a file alone has the ids that it has without --ray"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "--ray: nothing answers at 127.0.0.1:1"),
        ("people.parquet", "'people.parquet' is no address of a Ray cluster"),
        ("ray://127.0.0.1:10001", "is no address of a Ray cluster"),
        ("127.0.0.1:70000", "is no address of a Ray cluster"),
    ],
)
def test_an_address_that_is_none_is_told_plainly(tmp_path: Path, address: str, told: str) -> None:
    file = tmp_path / "people.csv"
    file.write_text("recipient_id\nu000000\n")
    database = f"sqlite:///{tmp_path}/one.db"
    scene.prepare(Settings(database=database), 1, cap=1, seed=3)
    refused = decide(file, tmp_path / "out", database, "--ray", address)
    assert refused.exit_code == 2
    assert told in refused.stderr


@pytest.mark.parametrize("command", ["decide", "simulate", "tune"])
def test_without_the_extra_a_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "optimizer.cli.onray", raising=False)
    monkeypatch.delattr("optimizer.cli.onray", raising=False)
    database = f"sqlite:///{tmp_path}/one.db"
    scene.prepare(Settings(database=database), 1, cap=1, seed=3)
    file = tmp_path / "people.csv"
    file.write_text("recipient_id\nu000000\n")
    given = {
        "decide": ["decide", str(file), "--campaign", scene.LEARNED, "--out", str(tmp_path / "out")],
        "simulate": ["simulate", "stationary", "--decisions", "20"],
        "tune": ["tune", "--database", database, "--workspace", scene.WORKSPACE],
    }
    whose = ["--database", database, "--workspace", scene.WORKSPACE] if command == "decide" else []
    refused = sendtide(*given[command], *whose, "--ray", "local")
    assert refused.exit_code == 2
    assert "--ray needs ray: pip install 'sendtide[ray]'" in refused.stderr


def test_nothing_imports_ray_unasked() -> None:
    names = ("cli.decide", "cli.tune", "cli.batch", "service.tuning", "web.app", "scheduler")
    imports = "; ".join([*(f"import optimizer.{name}" for name in names), "import simulations.simulate_run"])
    code = f"{imports}; import sys; print([m for m in sys.modules if m.split('.')[0] == 'ray'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
