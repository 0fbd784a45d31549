"""The grids that rivals are tuned by: one option after the other, each kept at the best value before the next is tried.

A full grid of Vowpal Wabbit's options would be hundreds of runs of a minute; taking turns, with what matters most first
and the first option looked at again at the end, is a tenth of it. Every setting that was tried is kept with its regret.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
    ("crossing", ("first", "second", "third", "pairs")),
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


#: Options that are tried beyond their grid as long as the best value lies at its edge: the most and the least of a grid
#: are where somebody stopped, not where the rival is at its best. Left out are switches and what ends by its nature.
OPEN = frozenset(
    {"scale", "rate", "unit", "mellowness", "psi", "alpha", "ridge", "prior", "decay", "policies", "test", "width"}
)
#: So many values beyond an edge.
MOST_BEYOND = 4


def search(
    start: Any,
    turns: Turns,
    score: Score,
    change: Callable[[Any, Mapping[str, Any]], Any],
    before: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Takes turns over the options and keeps the best value of each; then goes beyond the edges of the grid.

    Args:
        start: the options to start from.
        turns: options with the values to try, in order.
        score: mean regret of some options.
        change: options with some of them replaced.
        before: what an earlier search tried that ended at ``start``; it goes on there, with values not tried yet.

    Returns:
        ``options`` (those that the grid speaks of, at their best), ``regret``, and ``tried``: every setting with its
        regret, in order.
    """
    tried = list(before) or [{"option": "start", "value": None, "regret": score(start)}]
    best, lowest = start, min(one["regret"] for one in tried)
    known = {(one["option"], one["value"]) for one in before}

    def attempt(name: str, value: Any) -> bool:
        nonlocal best, lowest
        candidate = change(best, {name: value})
        if candidate == best or (name, value) in known:
            return False
        regret = score(candidate)
        tried.append({"option": name, "value": value, "regret": regret})
        if regret >= lowest:
            return False
        best, lowest = candidate, regret
        return True

    for name, values in turns:
        for value in values:
            attempt(name, value)
    named = {name: None for name, _ in turns}
    for name in [one for one in named if one in OPEN]:
        gridded = {getattr(start, name), *(value for other, some in turns if other == name for value in some)}
        for _ in range(MOST_BEYOND):
            further = beyond(gridded, getattr(best, name))
            if further is None or not attempt(name, further):
                break
            gridded.add(further)
    return {"options": {k: v for k, v in asdict(best).items() if k in named}, "regret": lowest, "tried": tried}


def beyond(values: Collection[float], best: float) -> float | None:
    """The next value beyond the edge at which the best of some values lies, as far from it as its neighbour is by
    ratio; None where it lies between others, or nothing lies beyond."""
    ordered = sorted(value for value in values if value > 0)
    if len(ordered) < 2 or best not in (ordered[0], ordered[-1]):
        return None
    ratio = best / (ordered[1] if best == ordered[0] else ordered[-2])
    value = float(f"{best * ratio:.3g}")
    if not isinstance(best, int):
        return value
    return None if round(value) in (0, best) else round(value)
