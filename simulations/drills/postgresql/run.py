"""``sendtide drill postgresql``: two hosts on one server that goes down ten times; then it is proved what held."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil

from optimizer.config import Settings
from optimizer.service.wiring import utc_now
from simulations.drills import scene
from simulations.drills.aftermath import trained_after
from simulations.drills.load import Acknowledged, Client
from simulations.drills.postgresql.load import ANSWER_SECONDS, GIVE_UP_SECONDS, Work, ask, mark, serve
from simulations.drills.postgresql.proof import Attack, Restart, Result, judged
from simulations.drills.postgresql.size import CAP, Size, first_window, rules
from simulations.drills.postgresql.trainers import Watch
from simulations.pgserver import Blow, PostgresServer, running
from simulations.server import Server, free_port
from storage.open import open_store

#: Hosts, each with a scheduler, and the API processes of each.
HOSTS, WORKERS = 2, 2
#: How the server goes down, in turn.
BLOWS: tuple[Blow, ...] = ("fast", "immediate", "kill")
#: Units that are asked again once all is over.
ASKED_AGAIN = 400
#: Seconds that the schedule gets to train once more after the last restart: what is under way ends first.
TRAINED_WITHIN = 900.0
#: Seconds between two reports of progress.
REPORT_SECONDS = 10.0
_SERVER = {"max_connections": "300", "shared_buffers": "256MB", "max_wal_size": "2GB"}

Note = Callable[[str], None]


def run(size: Size, note: Note) -> Result:
    """Runs the drill; ``note`` is told how it goes."""
    with (
        tempfile.TemporaryDirectory(prefix="sendtide-hosts-") as name,
        running(PostgresServer, _SERVER) as server,
    ):
        settings = _settings(server.create(), size)
        start = first_window(utc_now())
        work = Work(size, start, scene.prepare(settings, size.recipients, CAP, size.seed, rules(size)))
        note(f"{size.recipients:,} people are stored")
        with ExitStack() as hosts:
            addresses, processes = [], []
            for number in range(HOSTS):
                folder = Path(name) / f"host{number}"
                folder.mkdir()
                own = replace(settings, bind=f"127.0.0.1:{free_port()}")
                processes.append(psutil.Process(hosts.enter_context(Server(own, folder)).pid))
                addresses.append(own.bind)
            attack = _attacked(server, work, addresses, processes, note)
            trained = trained_after(settings.database, attack.last, TRAINED_WITHIN)
        note("the hosts are stopped; now the proof")
        return _judged(settings.database, work, attack, trained)


def _judged(database: str, work: Work, attack: Attack, trained: float | None) -> Result:
    store = open_store(database)
    try:
        with store.read() as reader:
            return judged(reader, work, attack, trained)
    finally:
        store.close()


def _settings(database: str, size: Size) -> Settings:
    return Settings(
        database=database,
        workers=WORKERS,
        retrain_minutes=size.retrain_minutes,
        refresh_seconds=max(2.0, 10 * size.retrain_minutes),
        expire_seconds=1.0,
        gate=False,
        log_level="warning",
    )


def _attacked(
    server: PostgresServer,
    work: Work,
    addresses: Sequence[str],
    hosts: Sequence[psutil.Process],
    note: Note,
) -> Attack:
    """Load until every decision is made, and restarts meanwhile; then some requests once more."""
    clients, began = work.size.clients, time.monotonic()
    with Watch(hosts) as trainers:
        with ThreadPoolExecutor(clients + 1, thread_name_prefix="client") as pool:
            serving = [pool.submit(serve, work, addresses[i % len(addresses)], i) for i in range(clients)]
            telling = pool.submit(_tell, work, serving, note)
            try:
                restarts = _restarts(server, work, serving, note)
            except BaseException:
                work.stopped.set()
                raise
            for one in (*serving, telling):
                one.result()
        seconds = time.monotonic() - began
        note(f"decided in {seconds:.0f} s; some requests once more")
        again, differing = _asked_again(work, addresses)
    return Attack(tuple(restarts), seconds, again, tuple(differing), trainers.most, len(trainers.seen))


def _tell(work: Work, serving: Sequence[Future[None]], note: Note) -> None:
    """Tells how far the run is."""
    began, last = time.monotonic(), 0.0
    while not all(one.done() for one in serving):
        time.sleep(0.2)
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            made = len(work.heard.marks)
            note(f"{made:,} of {work.size.decisions:,} decisions, {made / (last - began):,.0f}/s")
        if any(one.done() and one.exception() is not None for one in serving):
            work.stopped.set()


def _restarts(server: PostgresServer, work: Work, serving: Sequence[Future[None]], note: Note) -> list[Restart]:
    """Takes the server down at even distances of the run, each time while clients are at work."""
    made: list[Restart] = []
    size = work.size
    for number in range(size.restarts):
        due = (number + 1) * size.decisions // (size.restarts + 1)
        while len(work.heard.marks) < due:
            if all(one.done() for one in serving):
                return made
            time.sleep(0.02)
        how, before, moment = BLOWS[number % len(BLOWS)], len(work.heard.marks), utc_now()
        began = time.monotonic()
        server.restart(how)
        up = time.monotonic()
        note(f"restart {number + 1} of {size.restarts} ({how}) took {up - began:.1f} s")
        during = len(work.heard.marks)
        while len(work.heard.marks) == during and not all(one.done() for one in serving):
            time.sleep(0.005)
        made.append(Restart(how, moment, before, up - began, time.monotonic() - up))
    return made


def _asked_again(work: Work, addresses: Sequence[str]) -> tuple[int, list[str]]:
    """How many decisions were asked for once more, of either host, and which were answered differently."""
    units = work.size.singles + work.size.batches
    chosen = random.Random(work.size.seed).sample(range(units), min(units, ASKED_AGAIN))
    differing: list[str] = []
    count = 0
    clients = [
        Client(one, work.secret, Acknowledged(), answer_seconds=ANSWER_SECONDS, give_up_seconds=GIVE_UP_SECONDS)
        for one in addresses
    ]
    for number in chosen:
        for answer in ask(clients[number % len(clients)], work.unit(number)):
            count += 1
            if "decision_id" not in answer or work.heard.marks.get(answer["request_id"]) != mark(answer):
                differing.append(str(answer.get("request_id", answer))[:200])
    for client in clients:
        client.close()
    return count, differing
