"""``sendtide decide --processes``: what one process would have answered, whatever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pyarrow import Table, parquet

from optimizer.cli.onprocesses import Crew, ProcessDied
from optimizer.errors import Invalid
from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.records import Campaign
from storage.rules import Cap, Rule
from tests.cli.conftest import Sendtide

AT = "2026-03-02T08:00:00Z"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """1,500 rows, every person five times: later rows meet what earlier ones reserved."""
    file = tmp_path / "people.parquet"
    parquet.write_table(Table.from_pydict({"recipient_id": [f"p{i % 300}" for i in range(1_500)]}), file)
    return file


def test_two_processes_answer_as_one_does(
    sendtide: Sendtide, people: Path, tmp_path: Path, spring: Campaign, services: Services
) -> None:
    setup.put_rule(services, Rule("default", "week", "cap", Cap(2, rolling_hours=168.0)))
    services.close()
    other = Sendtide(tmp_path / "other")
    other.folder.mkdir()
    shutil.copy(tmp_path / "test.db", other.folder)
    given = ("decide", str(people), "--campaign", spring.campaign_id, "--now", AT, "--part-rows", "600")
    assert sendtide.json(*given, "--out", str(tmp_path / "two"), "--processes", "2")["decided"] == 1_500
    assert other.json(*given, "--out", str(tmp_path / "one.parquet"))["decided"] == 1_500
    alone = parquet.read_table(tmp_path / "one.parquet").to_pylist()
    parts = sorted((tmp_path / "two").glob("part-*.parquet"))
    told = [row for part in parts for row in parquet.read_table(part).to_pylist()]
    assert len(parts) == 3
    assert told == [{**row, "file": people.name} for row in alone]
    sent = [row["recipient_id"] for row in told if row["channel"] is not None]
    assert max(sent.count(who) for who in set(sent)) == 2, "else the order of a person's rows would not matter"


def test_processes_and_a_cluster_are_one_or_the_other(sendtide: Sendtide, people: Path, spring: Campaign) -> None:
    given = ("decide", str(people), "--campaign", spring.campaign_id, "--out", "x", "--processes", "2")
    refused = sendtide(*given, "--ray", "local")
    assert refused.exit_code == 1
    assert "processes: --ray decides on a cluster's processors" in refused.stderr


def _worker(argument: str) -> int:
    if argument == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if argument == "refuse":
        raise Invalid.field("row", "must be another", code="odd")
    if argument == "wait":
        time.sleep(60.0)
    return os.getpid()


def make() -> Callable[[str], int]:
    return _worker


def test_each_process_makes_what_it_needs_once_and_errors_come_as_they_were_raised() -> None:
    with Crew(make, 2) as crew:
        for argument in ("a", "b", "c", "d"):
            crew.submit(argument)
        answered = [crew.next() for _ in range(4)]
        assert sorted(argument for argument, _ in answered) == ["a", "b", "c", "d"]
        assert len({pid for _, pid in answered}) <= 2
        assert os.getpid() not in {pid for _, pid in answered}
        crew.submit("refuse")
        with pytest.raises(Invalid, match="row: must be another") as raised:
            crew.next()
        assert raised.value.code == "odd"
        assert raised.value.errors == {"row": ["must be another"]}


#: What OpenMP, OpenBLAS and MKL read as they are loaded.
VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _threads(_: str) -> list[str | None]:
    return [os.environ.get(name) for name in VARIABLES]


def make_teller() -> Callable[[str], list[str | None]]:
    return _threads


def test_a_process_has_one_thread_for_numbers_unless_a_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with Crew(make_teller, 1) as crew:
        crew.submit("how many?")
        assert crew.next()[1] == ["1", "1", "1"]
    assert not set(VARIABLES) & set(os.environ), "this process may have more"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with Crew(make_teller, 1) as crew:
        crew.submit("how many?")
        assert crew.next()[1] == ["1", "2", "1"]


def test_a_process_that_is_killed_ends_the_run_and_is_said() -> None:
    with Crew(make, 2) as crew:
        crew.submit("die")
        with pytest.raises(ProcessDied, match="call the command again"):
            crew.next()


_PARENT = """
from tests.cli.test_processes import make
from optimizer.cli.onprocesses import Crew
if __name__ == "__main__":
    with Crew(make, 2) as crew:
        crew.submit("a")
        crew.submit("b")
        print(crew.next()[1], flush=True)
        crew.submit("wait")
        crew.next()
        crew.next()
"""


def test_processes_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = [
            one for one in psutil.Process(parent.pid).children(recursive=True) if "spawn_main" in str(one.cmdline())
        ]
        assert len(family) == 2
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=10.0)
    assert not alive
