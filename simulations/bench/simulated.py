"""A retrain of the simulator's log: 504 actions, a dozen numbers that matter, no network; nothing is read from a store.

The log is of uniform choices in the world of the ``stationary`` scenario. Played and fitted in a process of its own,
whose peak of memory counts.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

from simulations.bench.figure import Figure
from simulations.game import Game
from simulations.play import Play
from simulations.pure import Schedule, Sendtide
from simulations.scenarios import CAMPAIGN, START, WORKSPACE, scenario

SCENARIO = "stationary"
#: A seed of its own, beside those that are compared and those that rivals are tuned on.
SEED = 2_000_001
_GIB = 1 << 30


@dataclass(frozen=True)
class Fitted:
    """Seconds of the fit by the clock and of CPU; the process's bytes before it and at its peak; encoded columns."""

    seconds: float
    cpu: float
    before: int
    peak: int
    columns: int


@dataclass(frozen=True)
class _Never(Schedule):
    """Nothing is learned on the way."""

    def due(self, rows: int, retrained: int, refreshed: int) -> str | None:
        """None."""
        del rows, retrained, refreshed
        return None


@dataclass
class _Logger(Sendtide):
    schedule: Schedule = field(default_factory=_Never)


def measure(decisions: int) -> list[Figure]:
    """One retrain of ``decisions``."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(fitted, decisions).result()
    actions = scenario(SCENARIO).actions
    return [
        Figure(
            f"retrain of the simulator's {decisions:,} decisions, {actions} actions, {found.columns} encoded columns",
            f"{found.seconds:.0f} s, {found.cpu:.0f} s of CPU",
            "",
            "",
            "<= 60 s",
            found.seconds <= 60.0,
        ),
        Figure(
            "its peak of memory, the log included",
            f"{found.peak / _GIB:.2f} GiB",
            f"the log and its process before: {found.before / _GIB:.2f} GiB",
            "",
            "<= 2 GiB",
            found.peak <= 2 * _GIB,
        ),
    ]


def fitted(decisions: int) -> Fitted:
    """Plays, and fits what was logged."""
    from optimizer.model.training.quality import examine
    from optimizer.service.feedback import Log, examples
    from optimizer.service.fitting import Fitting

    game = Game(scenario(SCENARIO), SEED, decisions)
    player = _Logger(game)
    Play(game, player).run("log")
    rows = player.rows(START + timedelta(days=game.scenario.days + 1))
    log = Log({CAMPAIGN: game.campaigns[0]}, tuple(rows))
    before = _peak()
    started, used = time.perf_counter(), time.process_time()
    registry = examine(examples(rows, log.campaigns), game.attributes).registry(game.attributes, WORKSPACE)
    trained = Fitting(log=log, attributes=registry).fit(rows, network=False)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    return Fitted(seconds, cpu, before, _peak(), trained.report["encoded_width"])


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
