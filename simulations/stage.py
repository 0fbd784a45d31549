"""Where a simulation plays: the app in this process on a clock that is moved, or a real server on the real clock.

A stage gives a client with a fresh key, the time, a way to let outcomes mature, and a way to have the service learn.
The database is a temporary one and goes with the stage, unless a file is named for it.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from optimizer.config import Settings
from optimizer.errors import SendtideError
from optimizer.model.policy import LivePolicy
from optimizer.service.ids import COLD_POLICY
from optimizer.service.serving import load_policy
from optimizer.service.setup import create_key
from optimizer.service.wiring import Services, open_services
from simulations.client import AppClient, Client, HttpClient
from simulations.clock import SteppingClock
from simulations.server import Server, free_port
from simulations.training_runs import carried_out
from storage.open import open_store
from storage.records import Campaign

WORKSPACE = "simulation"
SCOPES = ("admin",)
#: Where simulated time starts: a Monday morning.
START = datetime(2026, 3, 2, 10, tzinfo=UTC)
#: Outcomes mature in simulated time until the same moment of a later week: a decision's place in day and week stays the
#: same, so that time of day can't explain what it has no part in.
MATURING_SECONDS = 7 * 86_400.0
#: How long a training run of a real server may take.
LONGEST_RUN_SECONDS = 300.0
#: What became of a run that gave more of the traffic to a part of a mixture, whatever else it did.
CLIMBED = "climbed"


class LearningError(SendtideError):
    """A training run failed or didn't end in time."""

    code = "learning_failed"


class Stage(Protocol):
    """What a simulation needs of the service."""

    client: Client
    settings: Settings
    #: Attribution window in hours that fits how time passes here.
    attribution_hours: float

    def now(self) -> datetime:
        """The present time, aware UTC."""

    def pass_until(self, moment: datetime) -> bool:
        """Lets time pass until then, where it passes as the simulation says; False where nobody can wait so long."""

    def mature(self) -> None:
        """Lets every outcome that has been reported so far mature."""

    def learn(self, campaign_id: str, *, full: bool) -> str:
        """A retrain (``full``) or a refresh; returns what became of it (``publish``, ``reject``, …, ``CLIMBED``)."""


@dataclass
class AppStage:
    """``create_app`` in this process; time passes when the simulation says so."""

    client: Client
    settings: Settings
    services: Services
    clock: SteppingClock
    attribution_hours: float = 1.0

    def now(self) -> datetime:
        """See ``Stage``."""
        return self.clock()

    def pass_until(self, moment: datetime) -> bool:
        """See ``Stage``."""
        self.clock.advance((moment - self.now()).total_seconds())
        return True

    def mature(self) -> None:
        """See ``Stage``."""
        passed = (self.now() - START).total_seconds()
        weeks = math.ceil((passed + self.attribution_hours * 3600) / MATURING_SECONDS)
        self.clock.advance(weeks * MATURING_SECONDS - passed)

    def learn(self, campaign_id: str, *, full: bool) -> str:
        """See ``Stage``; the new policy is served when it returns."""
        told = carried_out(self.services, WORKSPACE, campaign_id, "retrain" if full else "refresh")
        self.services.policies.refresh_now()
        if any(one["decision"] == "publish" for one in told if "looks" in one):
            return CLIMBED
        return str(told[-1]["decision"]) if told else "nothing"


@dataclass
class ServerStage:
    """``sendtide serve`` with its workers and its scheduler, over HTTP, on the real clock."""

    client: Client
    settings: Settings
    attribution_hours: float = 1.0 / 3600

    def now(self) -> datetime:
        """See ``Stage``."""
        return datetime.now(UTC)

    def pass_until(self, moment: datetime) -> bool:
        """See ``Stage``: never, as days of a demo would take days."""
        del moment
        return False

    def mature(self) -> None:
        """See ``Stage``: an immediate send is planned on the next whole second, and its window starts there."""
        time.sleep(self.attribution_hours * 3600 + 1.2)

    def learn(self, campaign_id: str, *, full: bool) -> str:
        """See ``Stage``: asks for a training run and waits for its end (a refresh comes by schedule, here as there)."""
        del full
        run = self.client.call("POST", "/v1/training-runs", {"campaign_id": campaign_id})
        until = time.monotonic() + LONGEST_RUN_SECONDS
        while run["status"] in ("queued", "running"):
            if time.monotonic() > until:
                raise LearningError(f"training run {run['run_id']} is {run['status']} after {LONGEST_RUN_SECONDS:g} s")
            time.sleep(0.1)
            run = self.client.call("GET", f"/v1/training-runs/{run['run_id']}")
        if run["status"] == "failed":
            raise LearningError(f"training run {run['run_id']} failed: {run['error']}")
        time.sleep(2 * self.settings.reload_seconds)  # until every worker serves what was published
        return {"published": "publish", "rejected": "reject"}.get(run["status"], str(run["status"]))


@contextlib.contextmanager
def app_stage(*, seed: int, gate: bool, database: Path | None = None) -> Iterator[AppStage]:
    """The app on a temporary database, or one in a file that stays; ids, groups and draws follow from ``seed``."""
    from optimizer.web.app import create_app

    with tempfile.TemporaryDirectory(prefix="sendtide-", ignore_cleanup_errors=True) as folder:
        clock = SteppingClock(START)
        where = _database(folder) if database is None else f"sqlite:///{database}"
        settings = Settings(database=where, gate=gate, reload_seconds=60.0, log_level="error")
        app = create_app(settings, clock=clock, seed=seed)
        holder = app.extensions["sendtide"]
        services: Services = holder.get()
        try:
            _, secret = create_key(services, WORKSPACE, "simulation", SCOPES)
            yield AppStage(AppClient(app, secret), settings, services, clock)
        finally:
            holder.close()


@contextlib.contextmanager
def server_stage(*, seed: int, gate: bool, workers: int = 2) -> Iterator[ServerStage]:
    """A real server with its scheduler on a free port and a temporary database; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="sendtide-", ignore_cleanup_errors=True) as folder:
        settings = Settings(
            database=_database(folder),
            bind=f"127.0.0.1:{free_port()}",
            workers=workers,
            gate=gate,
            seed=str(seed),
            retrain_minutes=60.0,
            refresh_seconds=30.0,
            reload_seconds=0.25,
            log_level="warning",
            log_format="text",
        )
        secret = _first_key(settings)
        host, port = settings.bind.split(":")
        with Server(settings, Path(folder)):
            client = HttpClient(host, int(port), secret)
            try:
                yield ServerStage(client, settings)
            finally:
                client.close()


def _first_key(settings: Settings) -> str:
    services = open_services(settings, watch=False)
    try:
        return create_key(services, WORKSPACE, "simulation", SCOPES)[1]
    finally:
        services.close()


def _database(folder: str) -> str:
    return f"sqlite:///{Path(folder) / 'simulation.db'}"


def served(stage: Stage, campaign_id: str) -> tuple[LivePolicy, Campaign]:
    """The policy that a campaign serves now, loaded from the stage's database, and the campaign."""
    store = open_store(stage.settings.database)
    try:
        with store.read() as reader:
            campaign = reader.campaign(WORKSPACE, campaign_id)
            if campaign is None:
                raise LearningError(f"campaign {campaign_id!r} is not stored")
            pointer = reader.pointer(WORKSPACE, campaign_id)
            policy_id = COLD_POLICY if pointer is None else pointer.policy_id
            return load_policy(reader, WORKSPACE, policy_id, {}), campaign
    finally:
        store.close()


def put_campaign(stage: Stage, campaign_id: str, body: dict[str, Any]) -> None:
    """Sets up a campaign over the API."""
    stage.client.call("PUT", f"/v1/campaigns/{campaign_id}", body)
