"""Policies by name, as ``sendtide simulate --policies`` takes them: a name, and options after a colon.

``ours``, ``vw-squarecb``, ``vw-squarecb:scale=1000,crossing=second``. Options that are not given have the values that
were found best for the rival on separate seeds (``baselines/tuned.json``), else its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optimizer.errors import Invalid
from optimizer.model.history import Encoder
from simulations.baselines import tuned
from simulations.baselines.linear import Linear, LinearOptions
from simulations.baselines.network import Network, NetworkOptions
from simulations.baselines.simple import Simple, SimpleOptions
from simulations.baselines.vw import ALGORITHMS, Algorithm, VowpalWabbit, VwOptions
from simulations.game import Game
from simulations.oracle import BestStatic, Chance, Oracle
from simulations.play import Player
from simulations.policyoptions import Range, refused, with_options
from simulations.pure import Schedule, Sendtide
from simulations.scenarios import Feedback, Scenario
from simulations.through_service import Lie, open_service
from storage.records import EXPLORATION_PARAMETERS, ExplorationMethod

#: What a run always has: without both ends there is no scale.
ENDS = ("random", "informed-oracle")
#: What the one number of a method of exploration may be, as a campaign's.
_PARAMETERS: Mapping[ExplorationMethod, Range] = {
    "inverse_gap": Range(0.0, 1e6, above=True),
    "softmax": Range(1e-3, 1e3),
    "epsilon_greedy": Range(0.0, 1.0),
}


@dataclass(frozen=True)
class OursOptions:
    """How Sendtide is played; see ``simulations.pure``. The model's own defaults are the service's.

    ``opens`` False: told of no opens, so that clicks are learned from clicks alone, as rivals learn them. ``method``
    and ``parameter`` are a campaign's choice of exploration; a parameter of 0 = the method's default.
    """

    retrain: float = Schedule.retrain
    refresh: float = Schedule.refresh
    step: int = Schedule.step
    early: float = Schedule.early
    naive: bool = False
    network: bool = True
    encoder: Encoder = "auto"
    history: bool = True
    opens: bool = True
    method: ExplorationMethod = "posterior_bank"
    parameter: float = 0.0

    def __post_init__(self) -> None:
        if self.parameter == 0.0:
            return
        if self.method not in EXPLORATION_PARAMETERS:
            raise refused("parameter", f"{self.parameter:g}", f"left out: {self.method} has none")
        if self.parameter not in _PARAMETERS[self.method]:
            name, allowed = EXPLORATION_PARAMETERS[self.method], _PARAMETERS[self.method]
            raise refused("parameter", f"{self.parameter:g}", f"a number, {allowed} ({self.method}'s {name})")


@dataclass(frozen=True)
class ServiceOptions:
    """How the whole service is played; see ``simulations.through_service``."""

    retrain: float = Schedule.retrain
    refresh: float = Schedule.refresh
    step: int = Schedule.step
    gate: bool = True
    lie: Lie = "none"


@dataclass(frozen=True)
class Family:
    """A kind of policy: its default options (None = it has none), and how a player is made of them.

    ``feedback``: when it is told outcomes, if not as the scenario says; players are paired all the same.
    """

    about: str
    options: Any
    make: Callable[[Game, Any], Player]
    feedback: Feedback | None = None


def _ours(game: Game, options: OursOptions) -> Player:
    schedule = Schedule(options.retrain, options.refresh, options.step, options.early)
    return Sendtide(
        game,
        schedule,
        naive=options.naive,
        network=options.network,
        encoder=options.encoder,
        history=options.history,
        opens=options.opens,
        method=options.method,
        parameter=options.parameter or None,
    )


def _service(game: Game, options: ServiceOptions) -> Player:
    schedule = Schedule(options.retrain, options.refresh, options.step, early=options.retrain)
    return open_service(game, schedule, gate=options.gate, lie=options.lie)


def _vw(name: Algorithm) -> Family:
    return Family(f"Vowpal Wabbit, {name}", VwOptions(algorithm=name), VowpalWabbit)


FAMILIES: Mapping[str, Family] = {
    "ours": Family("Sendtide with its defaults, gate and canary off", OursOptions(), _ours),
    "ours-naive": Family("the same, taking what has not happened yet for a no", OursOptions(naive=True), _ours),
    "ours-at-send": Family("the same, told every outcome when the message goes out", OursOptions(), _ours, "at_send"),
    "ours-at-once": Family("the same, told every outcome with the decision", OursOptions(), _ours, "immediate"),
    "service": Family("the whole service on SQLite, gate and canary on", ServiceOptions(), _service),
    "service-false-numbers": Family(
        "the same, with wrong propensities in its log", ServiceOptions(lie="numbers"), _service
    ),
    "service-false-draws": Family(
        "the same, with messages moved after they were drawn", ServiceOptions(lie="draws"), _service
    ),
    "random": Family("every eligible action alike", None, lambda game, _: Chance(game)),
    "best-static": Family("the best single action for all, in hindsight", None, lambda game, _: BestStatic(game)),
    "informed-oracle": Family(
        "the best by what features, events and the past tell", None, lambda game, _: Oracle(game, personal=False)
    ),
    "full-oracle": Family("the best action", None, lambda game, _: Oracle(game, personal=True)),
    **{f"vw-{name}": _vw(name) for name in ALGORITHMS},
    "network": Family("one plain network over context and action, inverse-gap weighting", NetworkOptions(), Network),
    "linucb": Family("LinUCB, an arm an action", LinearOptions(rule="ucb"), Linear),
    "lints": Family("linear Thompson sampling, an arm an action", LinearOptions(rule="ts", alpha=0.1), Linear),
    "linucb-crossed": Family("LinUCB on crossed factors", LinearOptions(rule="ucb", shape="crossed"), Linear),
    "histogram": Family("each recipient's own send-time rates", SimpleOptions(kind="histogram"), Simple),
    "shrunk-histogram": Family("the same, drawn to everybody's", SimpleOptions(kind="shrunk"), Simple),
    "segment-best": Family("the best of each factor by segment", SimpleOptions(kind="segment"), Simple),
    "static-ab": Family("an A/B test, then its winner for all", SimpleOptions(kind="ab"), Simple),
}


@dataclass(frozen=True)
class PolicySpec:
    """A policy as it was asked for: the text, its family, its options."""

    text: str
    family: str
    options: Any

    def scenario(self, one: Scenario) -> Scenario:
        """The scenario as this policy meets it."""
        feedback = FAMILIES[self.family].feedback
        return one if feedback is None else replace(one, feedback=feedback)

    def player(self, game: Game) -> Player:
        """A fresh player."""
        return FAMILIES[self.family].make(game, self.options)


def parse(text: str, scenario: str) -> PolicySpec:
    """A policy from its text; ``Invalid`` names what is unknown and what is allowed."""
    name, _, tail = text.partition(":")
    family = FAMILIES.get(name)
    if family is None:
        raise Invalid.field("policies", f"{name!r} is none; there are: {', '.join(FAMILIES)}")
    given = dict(_pair(part, text) for part in tail.split(",") if part)
    if family.options is None:
        if given:
            raise Invalid.field("policies", f"{name!r} has no options")
        return PolicySpec(text, name, None)
    found = tuned.options(name, scenario)
    return PolicySpec(text, name, with_options(with_options(family.options, found), given))


def _pair(part: str, text: str) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    if not equals:
        raise Invalid.field("policies", f"{text!r}: {part!r} must be name=value")
    return key.strip(), value.strip()
