"""``--ray`` on a real cluster of two nodes and a real PostgreSQL server: as one process, whatever dies meanwhile."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pyarrow
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet
from ray.cluster_utils import Cluster

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import setup, tuning
from optimizer.service.wiring import open_services
from simulations.audit import audit
from simulations.drills import scene
from storage.open import open_store
from storage.records import Channel
from storage.rules import Capacity, Rule
from storage.rules import Selector as Only
from tests.cli.conftest import Sendtide
from tests.cli.test_loop import history
from tests.postgresql import Server
from tests.service.conftest import campaign

ROWS, RECIPIENTS, PART_ROWS = 2_400, 600, 300
NOW = "2026-11-20T10:00:00Z"
#: A dead node is noticed in seconds and not in half a minute.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


def add_node(cluster: Cluster, **more: Any) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False, **more)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one processor. Nothing is told to Ray's makers: ``onray`` does so for what it starts itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Cluster()
        add_node(made, _system_config=QUICK)
        add_node(made)
        yield made
        made.shutdown()  # type: ignore[no-untyped-call]


@dataclass
class Databases:
    """Copies of one database: two campaigns, one with a learned policy, people, a cap and quiet hours."""

    server: Server
    template: str
    made: list[str]

    def copy(self) -> str:
        self.made.append(self.server.create(template=self.template))
        return self.made[-1]


@pytest.fixture(scope="module")
def databases(postgresql: Server) -> Iterator[Databases]:
    url = postgresql.create()
    scene.prepare(Settings(database=url), RECIPIENTS, cap=2, seed=3)
    made = Databases(postgresql, str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]), [url])
    yield made
    for one in made.made:
        postgresql.drop(one)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files; everybody comes three or four times, across files and parts."""
    folder = tmp_path_factory.mktemp("people")
    for number in range(3):
        rows = range(number * ROWS // 3, (number + 1) * ROWS // 3)
        names = [scene.recipient_name(i * 7919 % RECIPIENTS) for i in rows]
        parquet.write_table(pyarrow.table({"recipient_id": names}), folder / f"{number}.parquet")
    return folder


def arguments(file: Path, out: Path, database: str, *more: str) -> list[str]:
    campaign = ["--campaign", scene.LEARNED, "--workspace", scene.WORKSPACE, "--now", NOW]
    shape = ["--part-rows", str(PART_ROWS), "--out", str(out)]
    return ["decide", str(file), *campaign, *shape, "--database", database, "--json", *more]


def sendtide(*given: str) -> Result:
    result = CliRunner().invoke(main, list(given))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def decide(*given: Any) -> Any:
    result = sendtide(*arguments(*given))
    assert result.exit_code == 0, result.stderr
    return orjson.loads(result.stdout)


def answers(out: Path) -> pyarrow.Table:
    return pyarrow.concat_tables([parquet.read_table(part) for part in sorted(out.glob("part-*"))])


@pytest.fixture(scope="module")
def alone(databases: Databases, people: Path, tmp_path_factory: pytest.TempPathFactory) -> pyarrow.Table:
    """What one process answers."""
    out = tmp_path_factory.mktemp("alone") / "out"
    decide(people, out, databases.copy())
    table = answers(out)
    masked = sum("cap" in text for text in table.column("reasons").to_pylist())
    assert masked > ROWS / 10, "else the order of a recipient's rows would not matter"
    return table


def parts(out: Path) -> int:
    return len(list(out.glob("part-*")))


def when(condition: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Does something as soon as something is so."""

    def watch() -> None:
        while not condition():
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_node_that_is_killed_half_way_loses_and_doubles_nothing(
    cluster: Cluster, databases: Databases, people: Path, alone: pyarrow.Table, tmp_path: Path
) -> None:
    out, database, node = tmp_path / "out", databases.copy(), next(iter(cluster.worker_nodes))
    left: list[int] = []

    def kill() -> None:
        node.all_processes["raylet"][0].process.kill()
        left.append(ROWS // PART_ROWS - parts(out))

    killer = when(lambda: parts(out) > 0, kill)
    try:
        told = decide(people, out, database, "--ray", cluster.address)
        killer.join()
    finally:
        cluster.remove_node(node, allow_graceful=False)
        add_node(cluster)
    assert left[0] > 0, "the node died too late to show anything"
    assert told == {"decided": ROWS, "failed": 0, "folder": str(out)}
    assert answers(out).equals(alone)
    assert len(alone) == ROWS
    assert stored(database) == ROWS


def stored(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM decisions").fetchone()
    assert row is not None
    return int(row[0])


def test_a_driver_that_is_killed_goes_on_when_it_is_called_again(
    cluster: Cluster, databases: Databases, people: Path, alone: pyarrow.Table, tmp_path: Path
) -> None:
    out, database = tmp_path / "out", databases.copy()
    given = arguments(people, out, database, "--ray", cluster.address)
    with subprocess.Popen([sys.executable, "-m", "optimizer.cli", *given], start_new_session=True) as driver:
        when(lambda: parts(out) > 0 or driver.poll() is not None, lambda: os.killpg(driver.pid, signal.SIGKILL)).join()
    assert driver.returncode == -signal.SIGKILL
    assert 0 < parts(out) < ROWS // PART_ROWS
    assert decide(people, out, database, "--ray", cluster.address)["decided"] == ROWS
    assert answers(out).equals(alone)
    assert stored(database) == ROWS


def test_caps_and_capacity_hold_exactly(cluster: Cluster, databases: Databases, people: Path, tmp_path: Path) -> None:
    database, out = databases.copy(), tmp_path / "out"
    services = open_services(Settings(database=database), watch=False)
    emails = Only(channels=("email",))
    rule = Rule(scene.WORKSPACE, "few", "capacity", Capacity(40, 60), emails, emails)
    setup.put_rule(services, rule)
    services.close()
    assert decide(people, out, database, "--ray", cluster.address)["decided"] == ROWS
    told = answers(out)
    assert sum('"few"' in text for text in told.column("reasons").to_pylist()) > 0
    store = open_store(database)
    with store.read() as reader:
        report = audit(reader, scene.WORKSPACE)
    store.close()
    assert report.clean
    assert stored(database) == len(set(told.column("decision_id").to_pylist())) == ROWS


def test_simulations_have_the_figures_that_they_have_in_one_process(cluster: Cluster) -> None:
    given = ("simulate", "stationary", "--policies", "random,ours", "--decisions", "60", "--json")
    one, spread = sendtide(*given), sendtide(*given, "--ray", cluster.address)
    assert spread.exit_code == 0, spread.stderr
    figures = [orjson.loads(told.stdout)["standings"] for told in (one, spread)]
    for standing in itertools.chain(*figures):
        assert standing.pop("seconds") > 0
    assert figures[0] == figures[1]


def test_a_search_finds_what_it_finds_in_one_process(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LEAST", 500)
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
    assert local.json(*search, "--ray", cluster.address) == one
    assert one["trials"] == 4


def test_sqlite_is_refused_over_two_nodes_and_taken_on_this_one(cluster: Cluster, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/one.db"
    scene.prepare(Settings(database=database), 4, cap=2, seed=3)
    file = tmp_path / "people.csv"
    file.write_text("recipient_id\nu000000\nu000001\n")
    refused = sendtide(*arguments(file, tmp_path / "refused", database, "--ray", cluster.address))
    assert refused.exit_code == 2
    assert "a SQLite file can't be shared by several nodes" in refused.stderr
    taken = sendtide(*arguments(file, tmp_path / "out", database, "--ray", "local"))
    assert taken.exit_code == 0, taken.stderr
    assert "SQLite takes one writer at a time" in taken.stderr
    assert orjson.loads(taken.stdout)["decided"] == 2
    single = sendtide(*arguments(file, tmp_path / "one.parquet", database))
    assert single.exit_code == 0
    ids = [parquet.read_table(tmp_path / name).column("decision_id").to_pylist() for name in ("out", "one.parquet")]
    assert ids[0] == ids[1], "a file alone has the ids that it has without --ray"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "--ray: nothing answers at 127.0.0.1:1"),
        ("people.parquet", "'people.parquet' is no address of a Ray cluster"),
        ("ray://127.0.0.1:10001", "is no address of a Ray cluster"),
    ],
)
def test_an_address_that_is_none_is_told_plainly(tmp_path: Path, address: str, told: str) -> None:
    file = tmp_path / "people.csv"
    file.write_text("recipient_id\nu000000\n")
    database = f"sqlite:///{tmp_path}/one.db"
    refused = sendtide(*arguments(file, tmp_path / "out", database, "--ray", address))
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
        "decide": arguments(file, tmp_path / "out", database),
        "simulate": ["simulate", "stationary", "--decisions", "20"],
        "tune": ["tune", "--database", database, "--workspace", scene.WORKSPACE],
    }
    refused = sendtide(*given[command], "--ray", "local")
    assert refused.exit_code == 2
    assert "--ray needs ray: pip install 'sendtide[ray]'" in refused.stderr


def test_nothing_imports_ray_unasked() -> None:
    names = ("cli.decide", "cli.tune", "cli.batch", "service.tuning", "web.app", "scheduler")
    imports = "; ".join([*(f"import optimizer.{name}" for name in names), "import simulations.simulate_run"])
    code = f"{imports}; import sys; print([m for m in sys.modules if m.split('.')[0] == 'ray'])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
