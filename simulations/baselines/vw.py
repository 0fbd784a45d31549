"""Vowpal Wabbit's contextual bandits (``cb_explore_adf``) on the same stream and features.

Every decision is one multi-line example: a shared line with the context, a line for each eligible action with its
variant, time and channel, quadratic interactions between them. The action is drawn from Vowpal Wabbit's own vector with
the decision's own random number, and learned from with that probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.errors import ConfigError
from optimizer.service.choose import Drawn
from simulations.baselines.features import Encoding, make_features
from simulations.game import Game, Turn
from simulations.oracle import drawn, hour_of_week
from simulations.play import Result
from simulations.policyoptions import refused

Floats = NDArray[np.float64]
Cost = Literal["zero_one", "negative"]
Crossing = Literal["first", "second", "third", "pairs"]
Algorithm = Literal["squarecb", "large", "bag", "cover", "regcb", "rnd", "egreedy"]
Kind = Literal["mtr", "ips", "dr", "dm", "sm"]

#: Which namespaces are multiplied: context (u), variant (v), time (s), channel (c).
CROSSINGS: Mapping[Crossing, tuple[str, ...]] = {
    "first": ("uv", "us", "uc"),
    "second": ("uv", "us", "uc", "vs", "vc", "sc"),
    "third": ("uv", "us", "uc", "vs", "vc", "sc", "vsc", "uvs", "uvc", "usc"),
    "pairs": ("uv", "us", "uc", "uuv"),
}
#: Exploration algorithms by our names.
ALGORITHMS: Mapping[Algorithm, str] = {
    "squarecb": "--squarecb --gamma_scale {scale} --gamma_exponent {exponent}",
    "large": "--squarecb --gamma_scale {scale} --gamma_exponent {exponent} --large_action_space --max_actions {most}",
    "bag": "--bag {policies} --epsilon {epsilon}",
    "cover": "--cover {policies} --nounif --psi {psi}",
    "regcb": "--regcb --mellowness {mellowness} --cb_min_cost {low} --cb_max_cost {high}",
    "rnd": "--rnd {policies} --epsilon {epsilon} --rnd_alpha {alpha} --rnd_invlambda {invlambda}",
    "egreedy": "--epsilon {epsilon}",
}
BITS = 22
#: How costs may be estimated (``--cb_type``), where an algorithm doesn't take every way.
_KINDS: Mapping[Algorithm, tuple[Kind, ...]] = {
    "squarecb": ("mtr",),
    "large": ("mtr",),
    "regcb": ("mtr",),
    "cover": ("mtr", "ips", "dr"),
}


@dataclass(frozen=True)
class VwOptions:
    """What a grid varies. ``rate`` is the learning rate; ``unit`` what rewards are divided by: Vowpal Wabbit is at home
    with costs in [0, 1], and a purchase may be worth twenty clicks."""

    algorithm: Algorithm = "squarecb"
    cost: Cost = "zero_one"
    unit: float = 1.0
    features: Encoding = "raw"
    crossing: Crossing = "first"
    rate: float = 0.5
    power: float = 0.5
    l2: float = 0.0
    scale: float = 10.0
    exponent: float = 0.5
    epsilon: float = 0.05
    policies: int = 5
    psi: float = 1.0
    mellowness: float = 0.1
    alpha: float = 0.1
    invlambda: float = 0.1
    most: int = 20
    kind: Kind = "mtr"

    def __post_init__(self) -> None:
        allowed = _KINDS.get(self.algorithm, get_args(Kind))
        if self.kind not in allowed:
            raise refused("kind", self.kind, f"one of: {', '.join(allowed)} (of {self.algorithm})")

    def arguments(self, seed: int) -> str:
        """Vowpal Wabbit's command line."""
        return command_line(asdict(self), CROSSINGS[self.crossing], seed)


def command_line(options: Mapping[str, Any], crossed: Sequence[str], seed: int) -> str:
    """Vowpal Wabbit's command line for the fields of ``VwOptions``, namespaces crossed."""
    low, high = (0.0, 1.0) if options["cost"] == "zero_one" else (-1.0, 0.0)
    explore = ALGORITHMS[options["algorithm"]].format(**options, low=low, high=high)
    interactions = " ".join(f"--interactions {namespaces}" for namespaces in crossed)
    return (
        f"--cb_explore_adf {explore} --cb_type {options['kind']} {interactions} -b {BITS} "
        f"--learning_rate {options['rate']} --power_t {options['power']} --l2 {options['l2']} "
        f"--random_seed {seed} --quiet"
    )


@dataclass
class VowpalWabbit:
    """One Vowpal Wabbit learner as a player."""

    game: Game
    options: VwOptions = field(default_factory=VwOptions)
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._vw = Learner(self.options.arguments(self.game.seed))
        self._features = make_features(self.options.features, self.game.attributes)
        self._lines: dict[tuple[Any, ...], list[str]] = {}
        self._asked: dict[str, str] = {}
        self._variants = {v.id: _variant_text(v.id, v.features) for v in self.game.campaigns[-1].variants}
        self.notes["arguments"] = self.options.arguments(self.game.seed)

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        named = self._features.of(turn.seen_by_rivals)
        shared = "shared |u " + " ".join(f"{plain(name)}:{value:.5g}" for name, value in named.items())
        self._asked[turn.situation.decision_id] = shared
        lines = self._action_lines(turn.space)
        places = np.flatnonzero(turn.plan.mask)
        pmf = self._vw.predict([shared, *(lines[i] for i in places.tolist())])
        vector = np.zeros(turn.space.size)
        vector[places] = pmf.clip(0.0)
        return drawn(turn, vector / vector.sum(), self.game.salt, "vw")

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        decision = result.decision
        shared = self._asked.pop(decision.decision_id)
        if decision.action is None or decision.propensity is None:
            return
        reward = result.reward / self.options.unit
        cost = -reward if self.options.cost == "negative" else 1.0 - reward
        lines = self._action_lines(result.turn.space)
        places = np.flatnonzero(result.turn.plan.mask).tolist()
        label = f"0:{cost:.6g}:{decision.propensity:.8g} "
        self._vw.learn([shared, *(label + lines[i] if i == decision.action else lines[i] for i in places)])

    def _action_lines(self, space: ActionSpace) -> list[str]:
        key = (space.variants, space.channels, (space.local % (7 * 86_400)).tobytes(), space.no_send)
        if key not in self._lines:
            if len(self._lines) >= 64:
                self._lines.clear()
            slots = [_slot_text(hour) for hour in hour_of_week(space.local).tolist()]
            channels = [f"|c {plain(c)}" for c in space.channels]
            lines = [f"{self._variants[v]} {s} {c}" for v in space.variants for s in slots for c in channels]
            self._lines[key] = [*lines, "|n none"] if space.no_send else lines
        return self._lines[key]


class Learner:
    """A Vowpal Wabbit that takes multi-line examples as text.

    Its Python package makes an object of each line, with an action a line two thirds of the time of a decision; this
    calls what lies beneath, which does the same for a third of it (a test holds the two to the same numbers).
    """

    def __init__(self, arguments: str) -> None:
        self._workspace = make_workspace(arguments)

    def predict(self, lines: Sequence[str]) -> Floats:
        """The probability of each action line."""
        return np.asarray(self._told("predict_multi", lines), dtype=np.float64)

    def learn(self, lines: Sequence[str]) -> None:
        """Learns from an example with one labelled line."""
        self._told("learn_multi", lines)

    def _told(self, what: Literal["predict_multi", "learn_multi"], lines: Sequence[str]) -> Sequence[float]:
        base: Any = type(self._workspace).__mro__[1]
        examples = base._parse(self._workspace, "\n".join(lines))
        getattr(base, what)(self._workspace, examples)
        scores: Sequence[float] = examples[0].get_action_scores()
        base._finish_example_multi_ex(self._workspace, examples)
        return scores


def make_workspace(arguments: str) -> Any:
    """A Vowpal Wabbit with these arguments; says what to install where it is missing."""
    try:
        from vowpalwabbit import Workspace
    except ImportError as missing:
        raise ConfigError("this rival needs Vowpal Wabbit: install sendtide[rivals]") from missing
    return Workspace(arguments)


def _variant_text(name: str, features: Mapping[str, Any]) -> str:
    told = " ".join(
        f"{plain(key)}:{value}" if isinstance(value, float) else f"{plain(f'{key}={value}')}"
        for key, value in features.items()
    )
    return f"|v {plain(name)} {told}"


def _slot_text(hour: int) -> str:
    """Time of the week: hour of the day as a category and as two waves, weekday as a category, the weekend."""
    day, of_day = divmod(hour, 24)
    angle = 2 * np.pi * of_day / 24
    waves = " ".join(
        f"w{k}{name}:{value:.5f}"
        for k in (1, 2)
        for name, value in (("c", np.cos(k * angle)), ("s", np.sin(k * angle)))
    )
    return f"|s hour{of_day} day{day} {'weekend ' if day >= 5 else ''}{waves}"


def plain(name: str) -> str:
    """A feature's name without what means something in Vowpal Wabbit's format."""
    return name.replace(" ", "_").replace(":", "_").replace("|", "_")
