"""One of the racing processes: takes tickets from a shared counter, decides, gives half of its reservations back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from unittest import mock

from optimizer.config import Settings
from optimizer.service import decide, settle
from optimizer.service.requests import DecisionRequest
from optimizer.service.rows import Draft, same_set
from optimizer.service.wiring import Services, open_services
from simulations.drills.scene import CAMPAIGNS, CHANNELS, PLANS, VARIANTS, WORKSPACE, recipient_name
from storage.errors import StoreUnavailable
from storage.log import Decision

#: Consecutive tickets for one recipient, so that the threads of all processes want the same caps at the same
#: time: one process serves its callers in groups, and only another process's decision can come in between.
BURST = 48
#: Windows start within this many days, so that some caps are full and others not.
DAYS = 5
WINDOW = timedelta(hours=30)
RELEASED = 0.5
#: Tries of a request while the store is too busy to take it.
TRIES = 20


@dataclass(frozen=True)
class Job:
    """What every racing process is told."""

    database: str
    threads: int
    decisions: int
    recipients: int
    start: datetime
    seed: int
    mutant: str | None = None


@dataclass(frozen=True)
class Run:
    """What one process did: the decisions as they were answered, refusals of a busy store."""

    answers: list[Decision]
    busy: int


@dataclass
class _Shared:
    tickets: Synchronized[int]
    ready: Barrier


_shared: list[_Shared] = []


def share(tickets: Synchronized[int], ready: Barrier) -> None:
    """Hands a new process what it shares with the others."""
    _shared[:] = [_Shared(tickets, ready)]


def request(job: Job, ticket: int) -> DecisionRequest:
    """The request of a ticket: the same in every run of a seed."""
    chance = random.Random(f"{job.seed}/{ticket}")
    start = job.start + timedelta(hours=chance.randrange(24 * DAYS))
    return DecisionRequest(
        campaign_id=chance.choice(CAMPAIGNS),
        recipient_id=recipient_name(ticket // BURST % job.recipients),
        request_id=f"race-{ticket}",
        window=(start, start + WINDOW),
        context={"plan": chance.choice(PLANS)},
        variants=chance.choice((None, VARIANTS[:1], VARIANTS[1:])),
        channels=chance.choice((None, CHANNELS[:1], CHANNELS[1:])),
    )


def race(job: Job) -> Run:
    """Runs one process's share of the race; starts when all processes are ready."""
    shared = _shared[0]
    services = open_services(Settings(database=job.database), watch=False)
    answers: list[list[Decision]] = [[] for _ in range(job.threads)]
    busy = [0] * job.threads
    try:
        shared.ready.wait()
        with _mutated(job.mutant), ThreadPoolExecutor(job.threads) as pool:
            running = [pool.submit(_work, services, job, shared, answers[i], busy, i) for i in range(job.threads)]
            for one in running:
                one.result()
    finally:
        services.close()
    return Run([answer for some in answers for answer in some], sum(busy))


def _next(counter: Synchronized[int]) -> int:
    with counter.get_lock():
        counter.value += 1
        return counter.value


def _work(services: Services, job: Job, shared: _Shared, answers: list[Decision], busy: list[int], me: int) -> None:
    while (ticket := _next(shared.tickets) - 1) < job.decisions:
        for _ in range(TRIES):
            try:
                answer, _created = services.decider.decide(WORKSPACE, request(job, ticket))
            except StoreUnavailable:
                busy[me] += 1  # nothing was recorded; the same request may be made again
                continue
            answers.append(answer)
            break
        else:
            raise StoreUnavailable(f"request {ticket} was refused {TRIES} times")
        if answer.status == "reserved" and random.Random(f"{job.seed}/{ticket}/release").random() < RELEASED:
            settle.release(services, WORKSPACE, answer.decision_id, "drill")


@contextlib.contextmanager
def _mutated(mutant: str | None) -> Iterator[None]:
    """Builds a fault into this process's re-check; None leaves it alone."""
    faults = {"action-keyed": _action_is_open, "no-recheck": lambda draft, newer: True}  # noqa: ARG005
    if mutant is None:
        yield
        return
    with mock.patch.object(decide, "same_set", faults[mutant]):
        yield


def _action_is_open(draft: Draft, newer: Draft) -> bool:
    """The tempting mistake: keep the draw while its own action is still eligible, though the set has changed."""
    action = draft.decision.action
    return same_set(draft, newer) if action is None else bool(newer.plan.mask[action])
