"""A retrain of the simulator's log: 504 actions, people's histories, a dozen numbers that matter.

The log is of uniform choices in the world of the ``stationary`` scenario. It lies in a database, from which ``sendtide
retrain`` reads it as it does a service's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from optimizer.config import Settings
from optimizer.service.record import message_of
from optimizer.service.wiring import open_services
from simulations.bench.figure import Figure
from simulations.bench.files import ran
from simulations.game import Game, Turn
from simulations.play import Play
from simulations.pure import Schedule, Sendtide
from simulations.scenarios import CAMPAIGN, START, WORKSPACE, scenario
from storage.log import Decision, Event
from storage.port import Store, Writer
from storage.records import Workspace

SCENARIO = "stationary"
#: A seed of its own, beside those that are compared and those that rivals are tuned on.
SEED = 2_000_001
#: The log spans so many days, however long it is: all of it must have happened before today.
DAYS = 180.0
#: Decisions that are written together.
PAGE = 1_000
_GIB = 1 << 30
_RETRAIN = ("retrain", "--campaign", CAMPAIGN, "--no-gate", "--encoder", "none")


@dataclass(frozen=True)
class _Never(Schedule):
    """Nothing is learned on the way."""

    def due(self, rows: int, retrained: int, refreshed: int) -> str | None:
        """None."""
        del rows, retrained, refreshed
        return None


@dataclass(kw_only=True)
class _Scribe(Sendtide):
    """Chooses as a service does before it has learned, and writes what it would remember into a store."""

    store: Store
    schedule: Schedule = field(default_factory=_Never)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._told: list[Event] = []
        self.store.write(self._set_up)

    def decided(self, turn: Turn, decision: Decision) -> None:
        """See ``Logging``."""
        super().decided(turn, decision)
        if len(self._decisions) >= PAGE:
            self.turn_page()

    def heard(self, event: Event) -> None:
        """See ``Logging``."""
        super().heard(event)
        self._events.clear()
        self._told.append(event)

    def turn_page(self) -> None:
        """Writes what waits: events may be about decisions that wait."""
        self.store.write(self._write)
        self._decisions, self._told = [], []

    def _set_up(self, writer: Writer) -> None:
        writer.put_workspace(Workspace(WORKSPACE, "Simulation", "live", START))
        writer.put_campaign(self.game.campaigns[0])
        for attribute in self.game.attributes:
            writer.put_attribute(attribute)
        writer.put_recipients(self.game.recipients)

    def _write(self, writer: Writer) -> None:
        writer.add_decisions([(decision, message_of(decision)) for decision in self._decisions])
        writer.add_events(self._told)


def measure(decisions: int) -> list[Figure]:
    """One retrain of ``decisions``."""
    with TemporaryDirectory(prefix="sendtide-simulated-") as folder:
        settings = replace(Settings(), database=f"sqlite:///{Path(folder)}/simulated.db")
        logged(settings, decisions)
        ended = ran(settings, WORKSPACE, *_RETRAIN)
    actions = scenario(SCENARIO).actions
    return [
        Figure(
            f"retrain on the simulator's {decisions:,} decisions, {actions} actions",
            f"{ended.seconds:.0f} s",
            "",
            "",
            "<= 60 s",
            ended.seconds <= 60.0,
        ),
        Figure(
            "its peak of memory",
            f"{ended.peak_bytes / _GIB:.2f} GiB",
            "",
            "",
            "<= 2 GiB",
            ended.peak_bytes <= 2 * _GIB,
        ),
    ]


def logged(settings: Settings, decisions: int) -> None:
    """Plays so many decisions into a new database."""
    world = scenario(SCENARIO)
    game = Game(replace(world, days=DAYS * world.decisions / decisions), SEED, decisions)
    services = open_services(settings, seed=game.seed, watch=False)
    try:
        scribe = _Scribe(game, store=services.store)
        Play(game, scribe).run("log")
        scribe.turn_page()
    finally:
        services.close()
