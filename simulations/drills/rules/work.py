"""One of the processes of the rules drill: takes units of work from a shared counter and decides, one or many at once.

Units in a row are for the same few recipients, so that processes want the same places at the same time. Some of what is
reserved is then given back, claimed or confirmed, and some messages of other systems are told of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from typing import TypeVar

from optimizer.config import Settings
from optimizer.errors import Conflict, SendtideError
from optimizer.service import settle
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services, open_services
from simulations.drills.mutants import mutated
from simulations.drills.racers import TRIES
from simulations.drills.rules.marks import fingerprint
from simulations.drills.rules.scene import CAMPAIGNS, DAYS, RECEIPT, Size
from simulations.drills.scene import CHANNELS, PLANS, VARIANTS, WORKSPACE, recipient_name
from storage.errors import StoreUnavailable
from storage.log import Decision, Message

T = TypeVar("T")

#: Rows of a batch, and how many batches in a row are for the same recipients.
BATCH = 250
SAME_PEOPLE = 4
#: Consecutive single requests for one recipient.
BURST = 16
#: Hours of a window; a receipt's is short, so that a full cap leaves it nothing.
LONG, SHORT = timedelta(hours=30), timedelta(hours=7)
#: Shares of the reservations of which more is told.
RELEASED, CONFIRMED, CLAIMED = 0.08, 0.04, 0.03
#: Share of single requests after which another system tells of a message.
ELSEWHERE = 0.01


@dataclass(frozen=True)
class Job:
    """What every process is told."""

    database: str
    size: Size
    start: datetime
    mutant: str | None = None


@dataclass(frozen=True)
class Done:
    """What one process did: a fingerprint of each decision as it was answered, refusals of a busy store, errors."""

    answers: tuple[int, ...]
    busy: int
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """A piece of work: one request, or a batch of them (``run_id``)."""

    requests: tuple[DecisionRequest, ...]
    run_id: str | None


@dataclass
class _Shared:
    units: Synchronized[int]
    decided: Synchronized[int]
    ready: Barrier


_shared: list[_Shared] = []


def share(units: Synchronized[int], decided: Synchronized[int], ready: Barrier) -> None:
    """Hands a new process what it shares with the others."""
    _shared[:] = [_Shared(units, decided, ready)]


def count_units(size: Size) -> int:
    """How many units a run has."""
    return size.singles + _batches(size)


def _batches(size: Size) -> int:
    return -(-(size.decisions - size.singles) // BATCH)


def unit(job: Job, number: int) -> Unit:
    """A unit by its number: the same in every run of a seed. Batches lie evenly among the single requests."""
    batches, units = _batches(job.size), count_units(job.size)
    before = number * batches // units
    if (number + 1) * batches // units == before:
        single = number - before
        return Unit((_request(job, f"one-{single}", single // BURST),), None)
    rows = min(BATCH, job.size.decisions - job.size.singles - before * BATCH)
    first = before // SAME_PEOPLE * BATCH
    # From the far end, so that batches and single requests meet only now and then.
    people = [-1 - first - row for row in range(rows)]
    random.Random(f"{job.size.seed}/order/{before}").shuffle(people)
    requests = tuple(_request(job, f"many-{before}-{row}", who) for row, who in enumerate(people))
    return Unit(requests, f"run-{before}")


def _request(job: Job, name: str, who: int) -> DecisionRequest:
    chance = random.Random(f"{job.size.seed}/{name}")
    campaign = chance.choices(CAMPAIGNS, (4, 4, 2))[0]
    start = job.start + timedelta(hours=chance.randrange(24 * DAYS))
    return DecisionRequest(
        campaign_id=campaign,
        recipient_id=recipient_name(who % job.size.recipients),
        request_id=name,
        window=(start, start + (SHORT if campaign == RECEIPT else LONG)),
        context={"plan": chance.choice(PLANS)},
        variants=chance.choice((None, None, VARIANTS[:1])),
        channels=chance.choice((None, None, CHANNELS[:1])),
    )


def work(job: Job) -> Done:
    """Runs one process's share; starts when all processes are ready."""
    shared = _shared[0]
    services = open_services(Settings(database=job.database), watch=False)
    try:
        shared.ready.wait()
        threads = job.size.threads
        with mutated(job.mutant), ThreadPoolExecutor(threads) as pool:
            parts = [one.result() for one in [pool.submit(_Worker(services, job, shared).run) for _ in range(threads)]]
    finally:
        services.close()
    return Done(
        answers=tuple(mark for part in parts for mark in part.answers),
        busy=sum(part.busy for part in parts),
        refused=tuple(told for part in parts for told in part.refused),
    )


class _Worker:
    """One thread."""

    def __init__(self, services: Services, job: Job, shared: _Shared) -> None:
        self._services, self._job, self._shared = services, job, shared
        self.answers: list[int] = []
        self.busy = 0
        self.refused: list[str] = []

    def run(self) -> Done:
        """Takes units until none is left."""
        units = count_units(self._job.size)
        while (number := _next(self._shared.units)) < units:
            made = self._decide(unit(self._job, number))
            self.answers += [fingerprint(decision) for decision in made]
            with self._shared.decided.get_lock():
                self._shared.decided.value += len(made)
            self._follow_up(made)
        return Done(tuple(self.answers), self.busy, tuple(self.refused))

    def _decide(self, what: Unit) -> list[Decision]:
        decider = self._services.decider
        if what.run_id is None:
            return [self._patiently(lambda: decider.decide(WORKSPACE, what.requests[0])[0])]
        run_id = what.run_id
        rows = self._patiently(lambda: decider.decide_batch(WORKSPACE, what.requests, run_id))
        self.refused += [str(row) for row in rows if isinstance(row, SendtideError)]
        return [row for row in rows if isinstance(row, Decision)]

    def _patiently(self, call: Callable[[], T]) -> T:
        """Asks again while the store is too busy: nothing was recorded, and the same request may be made again."""
        for _ in range(TRIES):
            try:
                return call()
            except StoreUnavailable:
                self.busy += 1
        raise StoreUnavailable(f"refused {TRIES} times")

    def _follow_up(self, made: Sequence[Decision]) -> None:
        for decision in made:
            chance = random.Random(f"{self._job.size.seed}/{decision.request_id}/after")
            if decision.status == "reserved":
                self._settle(decision.decision_id, chance.random())
        if len(made) == 1 and chance.random() < ELSEWHERE:
            sent_at = self._services.clock() - timedelta(hours=chance.randrange(40))
            them = Message(
                WORKSPACE, made[0].recipient_id, sent_at, f"their-{made[0].request_id}", "email", "marketing"
            )
            with suppress(Conflict):  # told already, with an earlier time, by a process that was killed after it
                self._patiently(lambda: settle.record_send(self._services, them))

    def _settle(self, ref: str, share_of: float) -> None:
        services = self._services
        try:
            if share_of < RELEASED:
                self._patiently(lambda: settle.release(services, WORKSPACE, ref, "drill"))
            elif share_of < RELEASED + CONFIRMED:
                self._patiently(lambda: settle.confirm(services, WORKSPACE, ref, None, None, None))
            elif share_of < RELEASED + CONFIRMED + CLAIMED:
                self._patiently(lambda: settle.claim(services, WORKSPACE, ref))
        except Conflict:
            return  # displaced meanwhile


def _next(counter: Synchronized[int]) -> int:
    with counter.get_lock():
        counter.value += 1
        return counter.value - 1
