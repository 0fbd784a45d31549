"""The grids that rivals are tuned by: one option after the other, each kept at the best value before the next is tried.

A full grid of Vowpal Wabbit's options would be hundreds of runs of a minute; taking turns, with what matters most first
and the first option looked at again at the end, is a tenth of it. Every setting that was tried is kept with its regret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

Turns = Sequence[tuple[str, tuple[Any, ...]]]
#: Mean regret, by what it is for: policy options -> regret on the tuning seeds.
Score = Callable[[Any], float]

_VW: Turns = (
    ("rate", (0.02, 0.1, 0.5, 2.0)),
    ("unit", (1.0, 5.0, 20.0)),
    ("cost", ("zero_one", "negative")),
    ("features", ("raw", "encoded")),
    ("crossing", ("first", "second", "third")),
    ("power", (0.0, 0.5)),
)
_SCALE = ("scale", (10.0, 100.0, 1_000.0, 10_000.0))
_FINER = ("scale", (300.0, 3_000.0, 30_000.0))
GRIDS: Mapping[str, Turns] = {
    "vw-squarecb": (
        _SCALE,
        ("exponent", (0.25, 0.5)),
        *_VW,
        _FINER,
    ),
    "vw-large": (
        _SCALE,
        ("most", (10, 20, 50)),
        *_VW,
        _FINER,
    ),
    "vw-bag": (("policies", (3, 5, 10)), ("epsilon", (0.0, 0.02, 0.1)), *_VW, ("policies", (2, 5))),
    "vw-cover": (("policies", (3, 8)), ("psi", (0.01, 0.1, 1.0)), *_VW),
    "vw-regcb": (("mellowness", (0.001, 0.01, 0.1)), *_VW, ("mellowness", (0.0001, 0.003))),
    "vw-rnd": (("policies", (3, 6)), ("alpha", (0.02, 0.1, 0.5)), ("epsilon", (0.0, 0.02)), *_VW),
    "vw-egreedy": (("epsilon", (0.02, 0.05, 0.1, 0.2)), *_VW, ("epsilon", (0.01, 0.05, 0.1))),
    "network": (
        ("scale", (3.0, 10.0, 30.0, 100.0, 300.0)),
        ("rate", (3e-4, 1e-3, 3e-3)),
        ("decay", (0.0, 1e-2, 1e-1, 1.0)),
        ("width", (32, 128, 256)),
        ("layers", (1, 3)),
        ("steps", (2, 4)),
        ("features", ("raw", "encoded")),
        ("scale", (3.0, 30.0, 100.0, 1_000.0)),
    ),
    "linucb": (("alpha", (0.01, 0.03, 0.1, 0.3)), ("ridge", (0.3, 1.0, 10.0)), ("features", ("raw", "encoded"))),
    "lints": (("alpha", (0.01, 0.03, 0.1, 0.3)), ("ridge", (0.3, 1.0, 10.0)), ("features", ("raw", "encoded"))),
    "linucb-crossed": (("alpha", (0.01, 0.03, 0.1, 0.3)), ("ridge", (1.0, 10.0)), ("features", ("raw", "encoded"))),
    "histogram": (("epsilon", (0.02, 0.05, 0.1, 0.2)), ("prior", (5.0, 20.0, 100.0))),
    "shrunk-histogram": (("epsilon", (0.02, 0.05, 0.1, 0.2)), ("prior", (5.0, 20.0, 100.0))),
    "segment-best": (("epsilon", (0.02, 0.05, 0.1, 0.2)), ("prior", (5.0, 20.0, 100.0))),
    "static-ab": (("test", (250, 500, 1_000, 2_000)), ("prior", (5.0, 20.0))),
}


def search(start: Any, turns: Turns, score: Score, change: Callable[[Any, Mapping[str, Any]], Any]) -> dict[str, Any]:
    """Takes turns over the options and keeps the best value of each.

    Args:
        start: the options to start from.
        turns: options with the values to try, in order.
        score: mean regret of some options.
        change: options with some of them replaced.

    Returns:
        ``options`` (those that the grid speaks of, at their best), ``regret``, and ``tried``: every setting with its
        regret, in order.
    """
    best, lowest = start, score(start)
    tried = [{"option": "start", "value": None, "regret": lowest}]
    for name, values in turns:
        for value in values:
            candidate = change(best, {name: value})
            if candidate == best:
                continue
            regret = score(candidate)
            tried.append({"option": name, "value": value, "regret": regret})
            if regret < lowest:
                best, lowest = candidate, regret
    named = {name for name, _ in turns}
    return {"options": {k: v for k, v in asdict(best).items() if k in named}, "regret": lowest, "tried": tried}
