"""What every store keeps when several processes use it, and when one is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.port import Store
from tests.storage.builders import WORKSPACE, at
from tests.storage.conftest import StoreFactory
from tests.storage.rivals import ATTEMPTS, CAP, RECIPIENTS
from tests.storage.test_contract_positions import assert_one_by_one

ROOT = Path(__file__).parents[2]
Rival = subprocess.Popen[str]


class Rivals:
    """Starts processes of ``tests.storage.rivals``."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.running: list[Rival] = []

    def start(self, program: str, count: int) -> list[Rival]:
        """Starts so many, waits until each has opened the store, then lets them run."""
        for number in range(count):
            command = [sys.executable, "-m", "tests.storage.rivals", program, self._url, str(number)]
            self.running.append(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
        for rival in self.running:
            assert rival.stdout is not None
            assert rival.stdout.readline() == "ready\n"
        for rival in self.running:
            assert rival.stdin is not None
            rival.stdin.write("go\n")
            rival.stdin.flush()
        return self.running


@pytest.fixture
def rivals(database_url: str) -> Iterator[Rivals]:
    started = Rivals(database_url)
    yield started
    for rival in started.running:
        close(rival)


def lines(rival: Rival, count: int) -> list[str]:
    """The next lines that a process says."""
    assert rival.stdout is not None
    return [rival.stdout.readline().rstrip("\n") for _ in range(count)]


def kill(rival: Rival) -> list[str]:
    """Kills a process and returns the whole lines that it had said by then."""
    rival.send_signal(signal.SIGKILL)
    assert rival.stdout is not None
    rest = rival.stdout.read()
    assert rival.wait() == -signal.SIGKILL
    close(rival)
    return [line.rstrip("\n") for line in rest.splitlines(keepends=True) if line.endswith("\n")]


def close(rival: Rival) -> None:
    """Makes sure that nothing of a process is left."""
    rival.kill()
    rival.wait()
    for pipe in (rival.stdin, rival.stdout):
        if pipe is not None:
            pipe.close()


def test_processes_that_open_an_empty_database_together_and_race_for_caps_never_exceed_them(
    rivals: Rivals, store_factory: StoreFactory
) -> None:
    running = rivals.start("reserve", 4)
    said = [rival.communicate(timeout=120)[0].split() for rival in running]
    assert [rival.returncode for rival in running] == [0] * 4
    acknowledged = {decision_id for ids in said for decision_id in ids}

    with store_factory().read() as reader:
        logged = {d.decision_id: d for d in reader.decisions(WORKSPACE, limit=4 * ATTEMPTS).items}
        held = reader.messages(WORKSPACE, [f"u{n}" for n in range(RECIPIENTS)], at(-100), at(100))
    assert set(logged) == acknowledged
    assert Counter(d.recipient_id for d in logged.values()) == {f"u{n}": CAP for n in range(RECIPIENTS)}
    assert {recipient_id: len(messages) for recipient_id, messages in held.items()} == {
        f"u{n}": CAP for n in range(RECIPIENTS)
    }


def test_positions_ascend_in_the_order_of_commits_of_two_processes(rivals: Rivals, store: Store) -> None:
    running = rivals.start("tell", 2)
    for rival in running:
        rival.communicate(timeout=120)
    assert [rival.returncode for rival in running] == [0, 0]
    assert_one_by_one(store, 200)


def test_nothing_acknowledged_is_lost_when_a_process_is_killed(rivals: Rivals, store_factory: StoreFactory) -> None:
    victim, survivor = rivals.start("log", 2)
    acknowledged = lines(victim, 150) + lines(survivor, 50)
    acknowledged += kill(victim)
    acknowledged += lines(survivor, 100)  # it goes on: the dead process holds no lock
    acknowledged += kill(survivor)

    store = store_factory()
    store.check()
    with store.read() as reader:
        found = reader.decisions_by_id(WORKSPACE, acknowledged)
        assert set(found) == set(acknowledged)
        assert len(acknowledged) >= 300
        for decision_id, decision in found.items():
            events = [event.event_id for event in reader.events(WORKSPACE, decision)]
            assert events == [decision_id.replace("dec", "ev")]
        whole = reader.decisions(WORKSPACE, limit=100_000).items
        assert all(reader.events(WORKSPACE, decision) for decision in whole), "no half of a transaction"


def test_no_policy_is_half_published_when_the_publisher_is_killed(rivals: Rivals, store: Store) -> None:
    (publisher,) = rivals.start("publish", 1)
    said = lines(publisher, 20) + kill(publisher)

    with store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
        assert pointer is not None
        assert pointer.generation in (len(said), len(said) + 1)
        for generation in range(pointer.generation):
            policy = reader.policy(WORKSPACE, f"pol_0_{generation}")
            artifact = reader.artifact(WORKSPACE, f"art_0_{generation}")
            assert policy is not None
            assert artifact is not None
            assert artifact.blob == f"0_{generation}".encode() * 50_000
        assert reader.policy(WORKSPACE, f"pol_0_{pointer.generation}") is None
        assert reader.artifact(WORKSPACE, f"art_0_{pointer.generation}") is None
    store.check()
