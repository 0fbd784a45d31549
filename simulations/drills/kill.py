"""``sendtide drill kill``: SIGKILL to workers and the scheduler of a real server, at random moments, under load."""

from __future__ import annotations

import random
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import psutil

from optimizer.config import Settings
from optimizer.service.wiring import utc_now
from simulations.drills import scene
from simulations.drills.aftermath import Attack, Result, judged, trained_after
from simulations.drills.load import Acknowledged, decision_body, work
from simulations.drills.publisher import PAUSE_SECONDS
from simulations.drills.victims import Kill, Probe, Role, arbiter, family, wait_until_whole
from simulations.server import Server, free_port
from storage.open import open_store

RECIPIENTS = 1000
CAP = 4
WORKERS = 2
#: Seconds of load before the first kill.
LEAD_IN = 3.0
#: Seconds between kills, drawn uniformly.
PAUSES = (0.5, 5.0)
#: No kill begins after so many seconds: a drill has an end.
LONGEST_SECONDS = 120.0
#: Of the victims so many are workers; the rest is the scheduler.
WORKER_SHARE = 0.6
#: With so many kills the process that does nothing but publish dies as well.
PUBLISHER_SHARE = 0.5
#: Seconds that a publisher gets to come up and publish before it is killed all the same.
PUBLISHES_WITHIN = 30.0
#: Seconds that the schedule gets to publish after the last kill: a dead trainer's lease (20) and the pause before a
#: scheduler that died often is started again (30) run out first.
TRAINED_WITHIN = 90.0

Note = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How long and how hard; see the flags of the command."""

    times: int = 30
    clients: int = 8
    seed: int = 1


def run(size: Size, *, note: Note = lambda line: None) -> Result:  # noqa: ARG005 - says nothing
    """Runs the drill; ``note`` is told of each kill."""
    with tempfile.TemporaryDirectory(prefix="sendtide-kill-") as name:
        settings = Settings(
            database=f"sqlite:///{Path(name) / 'kill.db'}",
            bind=f"127.0.0.1:{free_port()}",
            workers=WORKERS,
            retrain_minutes=0.1,
            refresh_seconds=2.0,
            expire_seconds=1.0,
            reload_seconds=0.2,
            gate=False,
            log_level="warning",
            metrics_dir=str(Path(name) / "metrics"),
        )
        secret = scene.prepare(settings, RECIPIENTS, CAP, size.seed)
        with Server(settings, Path(name)), _Publisher(settings.database) as publisher:
            main = arbiter()
            attack = _attack(_Target(main, publisher, settings, secret), size, note)
            members = main.children(recursive=True)
        left = psutil.wait_procs(members, timeout=5)[1]
        store = open_store(settings.database)
        try:
            with store.read() as reader:
                return judged(reader, attack, len(left))
        finally:
            store.close()


class _Publisher:
    """The process that publishes without a pause; started again when it was killed."""

    def __init__(self, database: str) -> None:
        self._command = [sys.executable, "-P", "-m", "simulations.drills.publisher", database]
        self._process: subprocess.Popen[bytes] | None = None
        self.killed = 0

    def __enter__(self) -> _Publisher:
        self._process = subprocess.Popen(  # noqa: S603  our own program
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def kill(self) -> None:
        """Kills it at some moment after its first policy, and starts another.

        One that is still coming up has nothing to leave half done, and on a slow machine all would die so.
        """
        if self._process is not None and self._process.stdout is not None:
            select.select([self._process.stdout], [], [], PUBLISHES_WITHIN)
            time.sleep(random.SystemRandom().uniform(0, 2 * PAUSE_SECONDS))
        self._end()
        self.killed += 1
        self.__enter__()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@dataclass(frozen=True)
class _Target:
    main: psutil.Process
    publisher: _Publisher
    settings: Settings
    secret: str


def _attack(target: _Target, size: Size, note: Note) -> Attack:
    """Load, kills, and the probe that measures how soon the service answers again."""
    stop, address = threading.Event(), target.settings.bind
    body = {**decision_body("", RECIPIENTS, random.Random(size.seed)), "preview": True}
    del body["request_id"]
    probe = Probe(address, target.secret, orjson.dumps(body))
    wait_until_whole(target.main, WORKERS)
    began = time.monotonic()
    with ThreadPoolExecutor(size.clients, thread_name_prefix="client") as pool:
        working = [
            pool.submit(work, address, target.secret, i, RECIPIENTS, size.seed, stop) for i in range(size.clients)
        ]
        probe.start()
        try:
            time.sleep(LEAD_IN)
            kills = _kill_all(target, size, working, note)
            trained = trained_after(target.settings.database, utc_now(), TRAINED_WITHIN)
            if kills:
                probe.wait_for_answer(kills[-1].at)
        finally:
            stop.set()
            probe.stop()
        heard = _together([one.result() for one in working])
    timed = tuple(replace(kill, answered_seconds=probe.seconds_to_answer(kill.at)) for kill in kills)
    return Attack(timed, target.publisher.killed, time.monotonic() - began, heard, trained, size.times)


def _kill_all(target: _Target, size: Size, working: Sequence[Future[Acknowledged]], note: Note) -> list[Kill]:
    """Kills at random moments; ends early when time is up or a client has given up."""
    chance, until = random.Random(f"{size.seed}/kills"), time.monotonic() + LONGEST_SECONDS
    kills: list[Kill] = []
    watchers: list[Future[float]] = []
    with ThreadPoolExecutor(size.times, thread_name_prefix="watch") as pool:
        while len(kills) < size.times and time.monotonic() < until and not any(one.done() for one in working):
            time.sleep(chance.uniform(*PAUSES))
            if chance.random() < PUBLISHER_SHARE:
                target.publisher.kill()
            victim = _victim(family(target.main), chance)
            if victim is None:
                continue
            role, process = victim
            moment = time.monotonic()
            process.kill()
            kills.append(Kill(role, moment))
            watchers.append(pool.submit(_replaced, target.main, process, role))
            note(f"{len(kills)} of {size.times}: {role} {process.pid} killed")
        return [
            replace(kill, replaced_seconds=watcher.result() - kill.at)
            for kill, watcher in zip(kills, watchers, strict=True)
        ]


def _victim(living: dict[Role, list[psutil.Process]], chance: random.Random) -> tuple[Role, psutil.Process] | None:
    """A random process; of a role that has none at the moment, one of the other."""
    first: Role = "worker" if chance.random() < WORKER_SHARE else "scheduler"
    for role in (first, "worker" if first == "scheduler" else "scheduler"):
        if living[role]:
            return role, chance.choice(living[role])
    return None


def _replaced(main: psutil.Process, process: psutil.Process, role: Role) -> float:
    """Waits until the dead process is collected and its successor runs; returns when (monotonic)."""
    psutil.wait_procs([process], timeout=10)
    return wait_until_whole(main, WORKERS, (role,))


def _together(parts: Sequence[Acknowledged]) -> Acknowledged:
    """What all clients heard."""
    whole = Acknowledged()
    for part in parts:
        whole.decisions |= part.decisions
        whole.closed |= part.closed
        whole.events |= part.events
        whole.retried |= part.retried
        whole.contradictions += part.contradictions
        whole.errors += part.errors
        whole.refused += part.refused
        whole.broken += part.broken
        whole.busy += part.busy
        whole.answers += part.answers
        whole.slowest_seconds = max(whole.slowest_seconds, part.slowest_seconds)
    return whole
