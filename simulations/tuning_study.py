"""``sendtide tuning-study``: whether the numbers of training must be tuned, or are good as they are.

In each world the whole service plays until its log has so many decisions. ``tune`` then searches on that log, as an
operator would have it, and the defaults and what it found best each learn a model of the same log. Both are asked the
questions that come next. What they choose is worth what the world says, so that a gain of likelihood is told in what it
brings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from simulations import fragments
from simulations.parallel import in_processes
from simulations.standings import figure_of

if TYPE_CHECKING:
    from optimizer.model.inference import RewardModel
    from optimizer.service.choose import Drawn
    from simulations.game import Turn
    from simulations.play import Result
    from simulations.through_service import Service
    from storage.log import Decision, Event

Floats = NDArray[np.float64]

#: Worlds that had no part in choosing the defaults, nor are those of the report.
FIRST = 201
SCENARIOS = ("stationary", "history")


@dataclass(frozen=True)
class Study:
    """What is repeated: so many decisions are logged, then so many more are asked."""

    scenario: str
    logged: int = 5_000
    asked: int = 1_000
    trials: int = 30


@dataclass(frozen=True)
class Searched:
    """One world.

    Attributes:
        decision: ``adopted`` or ``kept``.
        z: the gain in likelihood of what was found best, on rows that the search never saw, in standard errors; None
            where that was the defaults themselves.
        best: the numbers.
        defaults, found: the share of the way from chance to the informed oracle that the greedy choice goes, with the
            defaults and with what was found best.
    """

    seed: int
    decision: str
    z: float | None
    best: Mapping[str, float]
    defaults: float
    found: float
    seconds: float

    @property
    def held(self) -> float:
        """The share with the numbers that hold after the search."""
        return self.found if self.decision == "adopted" else self.defaults


@click.command("tuning-study", epilog=EXIT_CODES)
@option("--scenario", multiple=True, default=SCENARIOS, show_default=True, help="The worlds (repeatable).")
@option("--seeds", type=click.IntRange(2, 1000), default=4, show_default=True, help="Worlds of each.")
@option("--first", type=click.IntRange(1), default=FIRST, show_default=True, help="The first world's seed.")
@option("--decisions", type=click.IntRange(1_000), default=5_000, show_default=True, help="The log that is searched.")
@option("--trials", type=click.IntRange(1), default=30, show_default=True, help="Trials of each search.")
@option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Worlds at a time.")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of tuning.json and tuning.md.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    *,
    scenario: tuple[str, ...],
    seeds: int,
    first: int,
    decisions: int,
    trials: int,
    processes: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure what `sendtide tune` brings: the greedy choice of a model with the default numbers of training beside
    that of one with the numbers that a search finds on the same log, by exact expected rewards."""
    from simulations.scenarios import scenario as known

    with reported(as_json=as_json):
        studies = [Study(known(name).name, decisions, trials=trials) for name in scenario]
        found = {
            study.scenario: in_processes(
                searched,
                [(study, seed) for seed in range(first, first + seeds)],
                processes=processes,
                console=Console(stderr=True),
                label=study.scenario,
                total=study.logged + study.asked,
            )
            for study in studies
        }
        figures = {name: [asdict(one) for one in worlds] for name, worlds in found.items()}
        if out is not None:
            fragments.leave(out, "tuning", figures, markdown(studies[0], found))
        if as_json:
            click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2))
            return
        for name, worlds in found.items():
            click.echo(sentence(name, worlds))


def searched(study: Study, seed: int, on_progress: Callable[[int], None] | None = None) -> Searched:
    """Plays one world, has its log searched, and compares."""
    from simulations.game import Game
    from simulations.play import Play
    from simulations.scenarios import scenario
    from simulations.through_service import open_service

    started = time.perf_counter()
    game = Game(scenario(study.scenario), seed, study.logged + study.asked)
    player = _Searching(open_service(game), study)
    try:
        Play(game, player).run("service", on_progress)
        defaults, best = player.ways()
    finally:
        player.service.close()
    likelihood = player.told["likelihood"]
    return Searched(
        seed,
        player.told["decision"],
        None if likelihood is None else likelihood["z"],
        player.told["best"],
        defaults,
        best,
        time.perf_counter() - started,
    )


@dataclass
class _Searching:
    """The service as a player that is interrupted once, for the search; what it is asked afterwards is kept."""

    service: Service
    study: Study
    told: dict[str, Any] = field(default_factory=dict)
    models: tuple[RewardModel, ...] = ()
    asked: list[tuple[Turn, Floats]] = field(default_factory=list)

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        if turn.arrival.index >= self.study.logged:
            if not self.models:
                self._search(turn)
            game = self.service.game
            self.asked.append((turn, game.values(game.chances(turn, personal=False), turn)))
        return self.service.choose(turn)

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        self.service.learn(result)

    def decided(self, turn: Turn, decision: Decision) -> None:
        """See ``Logging``."""
        self.service.decided(turn, decision)

    def heard(self, event: Event) -> None:
        """See ``Logging``."""
        self.service.heard(event)

    def _search(self, turn: Turn) -> None:
        # Imported here: torch takes seconds, and the command line's help must not wait for it.
        from optimizer.model.inference import RewardModel
        from optimizer.model.training.options import DEFAULTS, TrainOptions
        from optimizer.service.feedback import load
        from optimizer.service.fitting import Job
        from optimizer.service.tuning import Budget, tune
        from simulations.play import AT_ONCE
        from simulations.scenarios import WORKSPACE

        service = self.service
        known_now = service.game.scenario.feedback == "immediate"
        service.clock.now = turn.arrival.at + (AT_ONCE if known_now else timedelta(0))
        journal = service.database.with_name("tuning.journal")
        self.told = tune(service.services, WORKSPACE, journal, Budget(math.inf, self.study.trials))
        with service.services.store.read() as reader:
            log = load(reader, WORKSPACE, service.clock())
            job = Job.of(service.services, reader, WORKSPACE, log)
        self.models = tuple(
            RewardModel.load(replace(job, options=options).fit(log.rows, calibrated=False).blob)
            for options in (DEFAULTS, TrainOptions.from_json(self.told["best"]))
        )
        service.clock.now = turn.arrival.at

    def ways(self) -> tuple[float, float]:
        """How far the greedy choices of the defaults and of the best numbers go from chance to the informed oracle."""
        first, second = (self._way(model) for model in self.models)
        return first, second

    def _way(self, model: RewardModel) -> float:
        from optimizer.model.policy import Asked, LivePolicy, distributions
        from simulations.scenarios import WORKSPACE
        from storage.policies import Component

        live = LivePolicy("study", (Component(1.0, "study"),), (model,))
        ids = [turn.situation.decision_id for turn, _ in self.asked]
        with self.service.services.store.read() as reader:
            seen = reader.decisions_by_id(WORKSPACE, ids)
        snapshots = [seen[one].snapshot for one in ids]
        rows = [
            Asked(turn.space, turn.plan.mask, told.context, told.effects)
            for (turn, _), told in zip(self.asked, snapshots, strict=True)
        ]
        choices = distributions(live, self.asked[0][0].situation.campaign, rows)
        greedy = np.array([choice.greedy for choice in choices], dtype=np.int64)
        chance = best = got = 0.0
        for (turn, value), action in zip(self.asked, greedy.tolist(), strict=True):
            eligible = value[turn.plan.mask]
            chance, best, got = chance + eligible.mean(), best + eligible.max(), got + value[action]
        return float((got - chance) / (best - chance))


def sentence(name: str, worlds: Sequence[Searched]) -> str:
    """What a scenario's worlds say together."""
    adopted = sum(world.decision == "adopted" for world in worlds)
    more = figure_of([world.held - world.defaults for world in worlds])
    best = figure_of([world.found - world.defaults for world in worlds])
    way = figure_of([world.defaults for world in worlds])
    return (
        f"{name}: with the defaults {way.mean:.3f} of the way; what the searches found best goes {best.mean:+.4f} "
        f"({best.low:+.4f} … {best.high:+.4f}) further. {adopted} of {len(worlds)} searches adopted it; what holds "
        f"after them goes {more.mean:+.4f} ({more.low:+.4f} … {more.high:+.4f}) further than the defaults."
    )


def markdown(study: Study, found: Mapping[str, Sequence[Searched]]) -> str:
    """The fragment for the report of results."""
    about = (
        f"The whole service, gate off, logs {study.logged:,} decisions; `tune` searches that log with {study.trials} "
        "trials; models of the log with the default numbers and with the best that were found are asked the next "
        f"{study.asked:,} questions. Shares are of the way from chance to the informed oracle that the greedy choice "
        "goes, by exact expected rewards; *z* is the gain of likelihood on rows that the search never saw, in standard "
        "errors (adopted above 2, where values don't veto)."
    )
    head = ["scenario", "seed", "found best", "z", "search", "defaults", "found best", "what holds"]
    rows = [
        [
            name,
            str(world.seed),
            ", ".join(f"{key} {value:.3g}" for key, value in world.best.items()),
            "–" if world.z is None else f"{world.z:.1f}",
            world.decision,
            *(f"{share:.3f}" for share in (world.defaults, world.found, world.held)),
        ]
        for name, worlds in found.items()
        for world in worlds
    ]
    sentences = [sentence(name, worlds) for name, worlds in found.items()]
    told = ["## tuning: what searching the numbers of training brings", about, *sentences]
    return "\n\n".join([*told, fragments.table(head, rows), fragments.played()]) + "\n"
