"""``sendtide drill kill``: SIGKILL to workers and the scheduler of a real server, at random moments, under load."""

from __future__ import annotations

import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import psutil

from optimizer.config import Settings
from optimizer.errors import BadArtifact
from optimizer.service.serving import load_policy
from simulations.audit import Report, audit
from simulations.drills import scene
from simulations.drills.load import Acknowledged, decision_body, work
from simulations.drills.victims import Kill, Probe, Role, arbiter, family, wait_until_whole
from simulations.server import Server
from storage.log import Decision
from storage.open import open_store
from storage.port import Reader

RECIPIENTS = 1000
CAP = 4
WORKERS = 2
#: Load before the first kill and after the last, in seconds.
LEAD_IN, LEAD_OUT = 3.0, 4.0
#: Seconds between kills, drawn uniformly.
PAUSES = (0.5, 5.0)
#: No kill begins after this many seconds: a drill has an end.
LONGEST_SECONDS = 200.0
#: The service must answer again within so many seconds.
ANSWERS_WITHIN = 5.0
#: Of the victims so many are workers; the rest is the scheduler.
WORKER_SHARE = 0.6
_PROMOTED = ("published", "failed", "rejected", "running", "queued")

Note = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What was left after the kills."""

    kills: tuple[Kill, ...]
    seconds: float
    heard: Acknowledged
    stored_decisions: int
    lost_decisions: tuple[str, ...]
    lost_closings: tuple[str, ...]
    lost_events: tuple[str, ...]
    policies: int
    broken_policies: tuple[str, ...]
    runs: dict[str, int]
    report: Report
    left_running: int
    wanted: int

    @property
    def slowest_answer(self) -> float:
        """Seconds from a kill to the first answer, at most."""
        return max((kill.answered_seconds for kill in self.kills), default=0.0)

    @property
    def nothing_lost(self) -> bool:
        """Whether all that was acknowledged is there, and the same request got the same decision."""
        return not (self.lost_decisions or self.lost_closings or self.lost_events or self.heard.contradictions)

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        whole = not self.broken_policies and self.report.clean and not self.heard.errors and self.left_running == 0
        enough = len(self.kills) == self.wanted and self.heard.answers > 0
        return whole and enough and self.nothing_lost and self.slowest_answer <= ANSWERS_WITHIN


def run(times: int, clients: int, seed: int, *, note: Note = lambda line: None) -> Result:  # noqa: ARG005 - says nothing
    """Runs the drill.

    Args:
        times: how many processes are killed.
        clients: how many clients keep up the load.
        seed: of the moments, the victims and the requests.
        note: is told of each kill.
    """
    with tempfile.TemporaryDirectory(prefix="sendtide-kill-") as name:
        folder = Path(name)
        settings = Settings(
            database=f"sqlite:///{folder / 'kill.db'}",
            bind=f"127.0.0.1:{_free_port()}",
            workers=WORKERS,
            retrain_minutes=0.1,
            refresh_seconds=2.0,
            expire_seconds=1.0,
            reload_seconds=0.2,
            gate=False,
            log_level="warning",
        )
        secret = scene.prepare(settings, RECIPIENTS, CAP, seed)
        with Server(settings, folder):
            main = arbiter()
            began = time.monotonic()
            kills, heard = _attack(main, settings.bind, secret, (times, clients, seed), note)
            seconds = time.monotonic() - began
            members = main.children(recursive=True)
        gone, left = psutil.wait_procs(members, timeout=5)
        del gone
        store = open_store(settings.database)
        try:
            with store.read() as reader:
                return _judged(reader, kills, heard, seconds, len(left), times)
        finally:
            store.close()


def _attack(
    main: psutil.Process, address: str, secret: str, size: tuple[int, int, int], note: Note
) -> tuple[list[Kill], Acknowledged]:
    """Load, kills, and the probe that measures how soon the service answers again."""
    times, clients, seed = size
    stop = threading.Event()
    body = {**decision_body("", RECIPIENTS, random.Random(seed)), "preview": True}
    del body["request_id"]
    probe = Probe(address, secret, orjson.dumps(body))
    wait_until_whole(main, WORKERS)
    with ThreadPoolExecutor(clients, thread_name_prefix="client") as pool:
        working = [pool.submit(work, address, secret, i, RECIPIENTS, seed, stop) for i in range(clients)]
        probe.start()
        try:
            time.sleep(LEAD_IN)
            kills = _kill_all(main, times, random.Random(f"{seed}/kills"), working, note)
            time.sleep(LEAD_OUT)
        finally:
            stop.set()
            probe.stop()
        heard = _together([one.result() for one in working])
    return [replace(kill, answered_seconds=probe.seconds_to_answer(kill.at)) for kill in kills], heard


def _kill_all(
    main: psutil.Process, times: int, chance: random.Random, working: Sequence[Future[Acknowledged]], note: Note
) -> list[Kill]:
    until = time.monotonic() + LONGEST_SECONDS
    kills: list[Kill] = []
    watchers: list[Future[float]] = []
    with ThreadPoolExecutor(max(1, times), thread_name_prefix="watch") as pool:
        while len(kills) < times and time.monotonic() < until and not any(one.done() for one in working):
            time.sleep(chance.uniform(*PAUSES))
            victim = _victim(family(main), chance)
            if victim is None:
                continue
            role, process = victim
            moment = time.monotonic()
            process.kill()
            kills.append(Kill(role, moment))
            watchers.append(pool.submit(_replaced, main, process, role))
            note(f"{len(kills)} of {times}: {role} {process.pid} killed")
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


def _judged(
    reader: Reader, kills: Sequence[Kill], heard: Acknowledged, seconds: float, left: int, wanted: int
) -> Result:
    stored: dict[str, Decision] = {}
    events: set[tuple[str, str | None]] = set()
    for row in reader.feedback(scene.WORKSPACE):
        stored[row.decision.decision_id] = row.decision
        events |= {(event.event_id, event.decision_id) for event in row.events}
    pointers = [p for p in reader.pointers() if p.workspace_id == scene.WORKSPACE]
    runs = reader.training_runs(scene.WORKSPACE, limit=1000).items
    return Result(
        kills=tuple(kills),
        seconds=seconds,
        heard=heard,
        stored_decisions=len(stored),
        lost_decisions=tuple(n for n, a in heard.decisions.items() if not _kept(a, stored.get(a["decision_id"]))),
        lost_closings=tuple(ref for ref, how in heard.closed.items() if ref not in stored or stored[ref].status != how),
        lost_events=tuple(ref for ref, decision in heard.events.items() if (ref, decision) not in events),
        policies=sum(1 for run in runs if run.status == "published"),
        broken_policies=tuple(p.policy_id for p in pointers if not _loads(reader, p.policy_id)),
        runs={status: n for status in _PROMOTED if (n := sum(run.status == status for run in runs))},
        report=audit(reader, scene.WORKSPACE),
        left_running=left,
        wanted=wanted,
    )


def _kept(answer: dict[str, Any], stored: Decision | None) -> bool:
    """Whether the store holds the decision that was answered."""
    if stored is None or stored.propensity != answer["propensity"] or stored.policy_id != answer["policy_id"]:
        return False
    action = answer["action"] or {}
    return (stored.variant_id, stored.channel) == (action.get("variant_id"), action.get("channel"))


def _loads(reader: Reader, policy_id: str) -> bool:
    """Whether a policy is there with every artifact, each passing its checks."""
    try:
        load_policy(reader, scene.WORKSPACE, policy_id, {})
    except BadArtifact:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def document(result: Result) -> dict[str, Any]:
    """The result for programs."""
    return {
        "passed": result.passed,
        "seconds": round(result.seconds, 1),
        "kills": [asdict(kill) for kill in result.kills],
        "slowest_answer_seconds": result.slowest_answer,
        "answers": result.heard.answers,
        "acknowledged": {
            "decisions": len(result.heard.decisions),
            "events": len(result.heard.events),
            "closings": len(result.heard.closed),
        },
        "broken_connections": result.heard.broken,
        "busy": result.heard.busy,
        "retried_decisions": len(result.heard.retried),
        "refused": result.heard.refused,
        "slowest_request_seconds": result.heard.slowest_seconds,
        "lost_decisions": result.lost_decisions,
        "lost_closings": result.lost_closings,
        "lost_events": result.lost_events,
        "contradictions": result.heard.contradictions,
        "errors": result.heard.errors,
        "stored_decisions": result.stored_decisions,
        "training_runs": result.runs,
        "broken_policies": result.broken_policies,
        "violations": len(result.report.breaches),
        "not_judged": result.report.unknown,
        "left_running": result.left_running,
    }


def lines(result: Result) -> Iterator[str]:
    """The result for people: a table of figures."""
    by_role = {role: [k for k in result.kills if k.role == role] for role in ("worker", "scheduler")}
    heard = result.heard
    rows: list[tuple[str, object]] = [
        ("kills (workers, scheduler)", f"{len(by_role['worker'])}, {len(by_role['scheduler'])} of {result.wanted}"),
        ("seconds under load", f"{result.seconds:.0f}"),
        ("answers to clients", f"{heard.answers} ({heard.answers / result.seconds:.0f}/s)"),
        ("broken connections, refusals of a busy store", f"{heard.broken}, {heard.busy}"),
        ("decisions acknowledged, lost", f"{len(heard.decisions)}, {len(result.lost_decisions)}"),
        ("events acknowledged, lost", f"{len(heard.events)}, {len(result.lost_events)}"),
        ("confirms and releases acknowledged, lost", f"{len(heard.closed)}, {len(result.lost_closings)}"),
        ("requests repeated after a broken connection", len(heard.retried)),
        ("  answered differently", len(heard.contradictions)),
        ("requests refused (4xx), failed (5xx)", f"{heard.refused}, {len(heard.errors)}"),
        ("slowest answer after a kill", f"{result.slowest_answer:.2f} s (at most {ANSWERS_WITHIN:g})"),
        ("slowest request, all tries together", f"{heard.slowest_seconds:.2f} s"),
        *((f"{role} replaced within", _slowest(kills)) for role, kills in by_role.items()),
        ("training runs", ", ".join(f"{n} {status}" for status, n in result.runs.items()) or "none"),
        ("policies that can't be loaded", len(result.broken_policies)),
        ("audit: violations, not judged", f"{len(result.report.breaches)}, {result.report.unknown}"),
        ("processes left running", result.left_running),
    ]
    yield from (f"{name:<48}{figure}" for name, figure in rows)
    yield from (f"  error: {error}" for error in heard.errors[:5])
    yield "passed" if result.passed else "failed"


def _slowest(kills: Sequence[Kill]) -> str:
    return f"{max(k.replaced_seconds for k in kills):.2f} s" if kills else "not killed"
