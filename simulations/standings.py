"""Figures over paired seeds: regret, share of the way from chance to the informed oracle, reward, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.play import Played

Floats = NDArray[np.float64]

#: The last part of the decisions in which a policy's share is taken, and the spans in which its way there is shown.
LAST = 5
SPANS = 10
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A mean over seeds with its 95 % interval (Student's t; NaN for a single seed), and each seed's value."""

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]


@dataclass(frozen=True)
class Standing:
    """One policy.

    Attributes:
        regret, full_regret: cumulative loss against the informed and against the full oracle.
        share: of the way from chance to the informed oracle, in the last fifth.
        reward: mean expected reward a decision of the whole stream; 0 where nobody could be asked.
        ratio: regret over that of the reference, paired by seed (None = it is the reference).
        asked: share of the stream that could be asked (1 = nobody left, none withheld).
        path: the share in each tenth of the decisions, averaged over seeds.
        seconds: of one seed.
        paths: each seed's path.
    """

    policy: str
    regret: Figure
    full_regret: Figure
    share: Figure
    reward: Figure
    ratio: Figure | None
    asked: float
    path: tuple[float, ...]
    seconds: float
    paths: tuple[tuple[float, ...], ...] = ()


def figure_of(values: Sequence[float]) -> Figure:
    """Mean and interval of independent values."""
    from scipy.stats import t

    array = np.array(values, dtype=np.float64)
    mean = float(array.mean())
    half = float("nan")
    if array.size > 1:
        half = float(t.ppf(0.5 + LEVEL / 2, array.size - 1) * array.std(ddof=1) / np.sqrt(array.size))
    return Figure(mean, mean - half, mean + half, tuple(float(v) for v in array))


def share_of(played: Played, part: slice) -> float:
    """The share of the way from chance to the informed oracle in a part of the decisions."""
    numbers = played.numbers
    informed, chance = numbers["informed"][part], numbers["chance"][part]
    way = float(np.nansum(informed - chance))
    return 1.0 - float(np.nansum(informed - numbers["value"][part])) / way if way > 0 else float("nan")


def last_part(played: Played) -> slice:
    """The last fifth."""
    count = played.regret.size
    return slice(count - max(1, count // LAST), count)


def standings(played: Mapping[str, Sequence[Played]], reference: str | None) -> list[Standing]:
    """Every policy's figures, the least regret first.

    Args:
        played: by policy, its seeds in one order for all.
        reference: whose regret others are compared with (None = nobody's).
    """
    against = [float(p.regret.sum()) for p in played[reference]] if reference is not None else []
    found = [_standing(name, seeds, against if name != reference else []) for name, seeds in played.items()]
    return sorted(found, key=lambda standing: standing.regret.mean)


def best_rival(played: Mapping[str, Sequence[Played]]) -> str | None:
    """Vowpal Wabbit's policy with the least mean regret; None where it has none."""
    rivals = {n: float(np.mean([p.regret.sum() for p in s])) for n, s in played.items() if n.startswith("vw-")}
    return min(rivals, key=lambda name: rivals[name]) if rivals else None


def as_json(found: Sequence[Standing]) -> list[dict[str, Any]]:
    """The figures as plain data."""
    return [asdict(standing) for standing in found]


def asked_of_all(found: Sequence[Standing]) -> bool:
    """Whether under every policy everybody of the stream could be asked."""
    return all(one.asked == 1.0 for one in found)


def asked_share(share: float) -> str:
    """A share of the stream in percent; near all of it, rounded down to a hundredth, so that only all of it is 100."""
    return f"{math.floor(1e4 * share) / 100:.2f} %" if 0.9995 <= share < 1.0 else f"{100 * share:.1f} %"


def _standing(name: str, seeds: Sequence[Played], against: Sequence[float]) -> Standing:
    regret = [float(p.regret.sum()) for p in seeds]
    count = seeds[0].regret.size
    spans = [slice(a, b) for a, b in pairwise(np.linspace(0, count, SPANS + 1).astype(int))]
    paths = tuple(tuple(share_of(p, span) for span in spans) for p in seeds)
    return Standing(
        policy=name,
        regret=figure_of(regret),
        full_regret=figure_of([float(p.full_regret.sum()) for p in seeds]),
        share=figure_of([share_of(p, last_part(p)) for p in seeds]),
        reward=figure_of([float(np.nansum(p.numbers["value"])) / count for p in seeds]),
        ratio=figure_of([a / b for a, b in zip(regret, against, strict=True)])
        if against and min(against) > 0
        else None,
        asked=float(np.mean([np.isfinite(p.numbers["value"]).mean() for p in seeds])),
        path=tuple(float(np.mean(shares)) for shares in zip(*paths, strict=True)),
        seconds=float(np.mean([p.seconds for p in seeds])),
        paths=paths,
    )
