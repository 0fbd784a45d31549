"""Rivals on the same stream: Vowpal Wabbit's contextual bandits and disjoint linear Thompson sampling and LinUCB.

Features are ``raw`` (one-hot categories, numbers standardised as they come) or ``encoded``: our own encoding, fitted to
the whole stream beforehand, which we don't allow ourselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.exploration import sample
from optimizer.errors import ConfigError
from optimizer.model.features import fit_spec
from optimizer.model.training.kway import KwayOptions
from simulations.baselines.features import Columns, Encoding, RawFeatures
from simulations.baselines.grids import Turns
from simulations.baselines.linear import Disjoint
from simulations.baselines.vw import Algorithm, Learner, command_line, plain
from simulations.uci.data import Classification

Floats = NDArray[np.float64]
#: A constant beside the features.
_CONSTANT = 1
_NOISE = 47


@dataclass(frozen=True)
class VwOptions:
    """What a grid varies. ``second`` also multiplies all pairs of features by the action."""

    algorithm: Algorithm
    rate: float = 0.5
    features: Encoding = "raw"
    cost: Literal["zero_one", "negative"] = "zero_one"
    crossing: Literal["first", "second"] = "first"
    kind: Literal["mtr", "ips", "dr"] = "mtr"
    power: float = 0.5
    l2: float = 0.0
    scale: float = 1_000.0
    exponent: float = 0.5
    epsilon: float = 0.02
    policies: int = 4
    psi: float = 0.1
    mellowness: float = 0.01

    def arguments(self, seed: int) -> str:
        """Vowpal Wabbit's command line."""
        return command_line(asdict(self), ("xa", "xxa") if self.crossing == "second" else ("xa",), seed)


@dataclass(frozen=True)
class LinearOptions:
    """What a grid varies: ``alpha`` widens draws or bounds, ``ridge`` is the prior precision."""

    rule: Literal["ts", "ucb"]
    alpha: float = 0.1
    ridge: float = 1.0
    features: Encoding = "raw"


RivalOptions = VwOptions | LinearOptions

_VW: Turns = (
    ("rate", (0.1, 2.0)),
    ("cost", ("negative",)),
    ("power", (0.0,)),
)
_LINEAR: Turns = (("features", ("encoded",)), ("alpha", (0.01, 0.03, 0.3)), ("ridge", (0.1, 10.0)))
_CROSSING: Turns = (("crossing", ("second",)),)
_SQUARECB: Turns = (*_VW, ("scale", (100.0, 10_000.0)), ("exponent", (0.25,)))
_EGREEDY: Turns = (*_VW, ("epsilon", (0.005, 0.05, 0.1)))
#: Where each rival starts and what its search tries, one option after the other. Only raw features are also paired:
#: bins are nonlinear already, and 150 encoded numbers make 10,000 pairs an action.
RIVALS: Mapping[str, tuple[RivalOptions, Turns]] = {
    "vw-squarecb": (VwOptions("squarecb"), (*_CROSSING, *_SQUARECB)),
    "vw-squarecb-encoded": (VwOptions("squarecb", features="encoded"), _SQUARECB),
    "vw-egreedy": (VwOptions("egreedy"), (*_CROSSING, *_EGREEDY)),
    "vw-egreedy-encoded": (VwOptions("egreedy", features="encoded"), _EGREEDY),
    "vw-cover": (VwOptions("cover"), (*_CROSSING, *_VW, ("psi", (0.01, 1.0)), ("policies", (8,)))),
    "lints": (LinearOptions("ts"), _LINEAR),
    "linucb": (LinearOptions("ucb"), _LINEAR),
}


def changed(options: RivalOptions, change: Mapping[str, Any]) -> RivalOptions:
    """The options with some of them replaced."""
    return replace(options, **change)


def play(stream: Classification, options: RivalOptions, seed: int) -> Floats:
    """The rewards (n,) of a rival on a stream, round by round."""
    if isinstance(options, VwOptions):
        return _play_vw(stream, options, seed)
    return _play_linear(stream, options, seed)


def _play_vw(stream: Classification, options: VwOptions, seed: int) -> Floats:
    vw = Learner(options.arguments(seed))
    rng = np.random.default_rng([_NOISE, seed])
    lines = [f"|a k{action}" for action in range(stream.classes)]
    reward = np.zeros(len(stream.contexts))
    for i, shared in enumerate(_texts(stream, options.features)):
        vector = vw.predict([shared, *lines]).clip(0.0)
        vector /= vector.sum()
        action = sample(vector, float(rng.random()))
        reward[i] = action == stream.label[i]
        cost = -reward[i] if options.cost == "negative" else 1.0 - reward[i]
        told = lines.copy()
        told[action] = f"0:{cost:g}:{vector[action]:.8g} {lines[action]}"
        vw.learn([shared, *told])
    return reward


def _texts(stream: Classification, features: Encoding) -> list[str]:
    """The shared line of every round."""
    if features == "raw":
        seen = RawFeatures(stream.attributes)
        named = [seen.of(context) for context in stream.contexts]
        rows = [" ".join(f"{plain(k)}:{v:.4g}" for k, v in one.items() if v) for one in named]
    else:
        rows = [" ".join(f"{j}:{v:.4g}" for j, v in enumerate(row)) for row in _encoded(stream).tolist()]
    return [f"shared |x {row}" for row in rows]


def _play_linear(stream: Classification, options: LinearOptions, seed: int) -> Floats:
    rng = np.random.default_rng([_NOISE, seed])
    rows = _vectors(stream, options.features)
    model = Disjoint(rows.shape[1], options.ridge)
    arms = model.places(list(range(stream.classes)))
    score: Callable[[Floats], Floats] = (
        partial(_sampled, model, arms, options.alpha, rng)
        if options.rule == "ts"
        else partial(_bounded, model, arms, options.alpha)
    )
    reward = np.zeros(len(rows))
    for i, x in enumerate(rows):
        action = int(score(x).argmax())
        reward[i] = action == stream.label[i]
        model.update(action, x, float(reward[i]))
    return reward


def _sampled(model: Disjoint, arms: NDArray[np.int64], alpha: float, rng: np.random.Generator, x: Floats) -> Floats:
    return model.sampled(arms, x, alpha, rng)


def _bounded(model: Disjoint, arms: NDArray[np.int64], alpha: float, x: Floats) -> Floats:
    mean, deviation = model.expected(arms, x)
    return np.asarray(mean + alpha * deviation)


def _vectors(stream: Classification, features: Encoding) -> Floats:
    """(n, d) features with a constant."""
    if features == "encoded":
        encoded = _encoded(stream).astype(np.float64)
        return np.concatenate([np.ones((len(encoded), _CONSTANT)), encoded], axis=1)
    seen = RawFeatures(stream.attributes)
    named = [seen.of(context) for context in stream.contexts]
    columns = Columns(_CONSTANT + len({name for one in named for name in one}))
    return np.stack([columns.vector(one) for one in named])


def _encoded(stream: Classification) -> NDArray[np.float32]:
    return fit_spec(stream.contexts, stream.attributes, KwayOptions().widths).encode(stream.contexts)


def named(policy: str) -> tuple[RivalOptions, Turns]:
    """A rival's start and grid.

    Raises:
        ConfigError: no such rival.
    """
    if policy not in RIVALS:
        raise ConfigError(f"rival {policy!r} is not one of {', '.join(RIVALS)}")
    return RIVALS[policy]
