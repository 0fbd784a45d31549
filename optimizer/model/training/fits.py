"""Posteriors of a model's heads, and weights that move from one layout to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from optimizer.model.heads import Heads, Links
from optimizer.model.layout import Layout
from optimizer.model.training.doubt import in_doubt
from optimizer.model.training.posterior import Posterior

#: Draws in the frozen bank. M = 16 is as good for regret as 64; more give finer propensities and cost time a decision.
DRAWS = 32

Weights = TypeVar("Weights", NDArray[np.float64], NDArray[np.float32])


@dataclass(frozen=True)
class Fits:
    """Posteriors by outcome, of one kind, over one layout.

    Attributes:
        layout: what weights mean. posteriors: by outcome.
        centres: prior means of an anchored model's weights, by outcome.
        links: how much of what earlier outcomes tell holds for later ones a priori (see ``links``).
    """

    layout: Layout
    posteriors: Mapping[str, Posterior]
    centres: Mapping[str, NDArray[np.float64]] | None = None
    links: Links = field(default_factory=dict)

    def middle(self, name: str) -> NDArray[np.float64]:
        """(d,) prior mean of a head's weights, once the heads that it is linked to are fitted: its centre, and its
        share of what they are, or of what has become different in them."""
        out = np.zeros(self.layout.size) if self.centres is None else self.centres[name].copy()
        for first, share in self.links.get(name, {}).items():
            moved = self.posteriors[first].mean - (0.0 if self.centres is None else self.centres[first])
            out += share * self._beside_base_rate(moved)
        return out

    def heads(self, kind: str, seed: int) -> Heads:
        """The heads to serve; draws are keyed by (seed, kind, outcome). What is in doubt of an earlier outcome is in
        doubt of one that is linked to it."""
        names = tuple(sorted(self.posteriors))
        parts = [self.posteriors[name] for name in names]
        keys = {name: _key(seed, kind, name) for name in names}
        own = {name: self.posteriors[name].draws(DRAWS, keys[name]) for name in names}
        doubt = {name: in_doubt(self.posteriors[name], self.layout, own[name], keys[name]) for name in names}
        size, groups = self.layout.size, len(self.layout.groups)
        return Heads(
            outcomes=names,
            layout=self.layout,
            mean=np.array([part.mean for part in parts]).reshape(len(names), size),
            bank=self._linked(own).reshape(len(names), DRAWS, size),
            doubt=self._linked(doubt).reshape(len(names), DRAWS, size).astype(np.float16),
            precision=np.array([part.precision for part in parts]).reshape(len(names), groups),
            offset=np.array([part.offset for part in parts]),
            seed=_key(seed, kind, "unseen"),
            centre=None if self.centres is None else np.array([self.centres[n] for n in names]).reshape(-1, size),
            links=self.links,
        )

    def _linked(self, own: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Draws of all heads, by name, each with its shares of the heads that it is linked to."""
        draws = {name: drawn.copy() for name, drawn in own.items()}
        for name, shares in self.links.items():
            for first, share in shares.items():
                draws[name] += np.float32(share) * self._beside_base_rate(own[first])
        return np.array(list(draws.values()), dtype=np.float32)

    def _beside_base_rate(self, weights: Weights) -> Weights:
        """Weights (…, d) without the intercept: base rates are each head's own."""
        out = weights.copy()
        for block in self.layout.blocks:
            if block.name == "one*one":
                out[..., block.start : block.start + block.size] = 0.0
        return out


def carried(
    layout: Layout, old: Layout, weights: NDArray[np.float64], only: frozenset[str] | None = None
) -> NDArray[np.float64]:
    """Weights (d,) of an old layout moved into a new one by block, key and column; what is new is 0."""
    out = np.zeros(layout.size)
    blocks = {block.name: block for block in old.blocks if only is None or block.name in only}
    for block in layout.blocks:
        before = blocks.get(block.name)
        if before is None:
            continue
        place = {column: i for i, column in enumerate(old.columns(block.segment))}
        columns = layout.columns(block.segment)
        shared = [(i, place[column]) for i, column in enumerate(columns) if column in place]
        for row, key in enumerate(block.keys):
            then = before.position.get(key)
            if then is not None:
                for to, source in shared:
                    out[block.start + row * block.width + to] = weights[before.start + then * before.width + source]
    return out


def precisions(layout: Layout, old: Layout, precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The prior precisions (groups,) of an old layout moved into a new one; a new group has its starting one. So has
    one of a single variant, channel or campaign that is joined by a second: nothing had told how far they differ."""
    keys = {block.name: len(block.keys) for block in old.blocks if block.unit != "one" and block.segment == "one"}
    alone = {name for name, count in keys.items() if count == 1}
    joined = alone & {block.name for block in layout.blocks if len(block.keys) > 1}
    before = {name: float(value) for (name, _), value in zip(old.groups, precision, strict=True) if name not in joined}
    return np.array([before.get(name, first) for name, first in layout.groups])


def may_differ(layout: Layout, centre: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(groups,) whether a group was in use, or can't be idle: what only a context adds may be."""
    used = np.bincount(layout.group, np.abs(centre), len(layout.groups)) > 0.0
    return np.asarray(used | np.array([":" not in name for name, _ in layout.groups]))


def _key(seed: int, kind: str, name: str) -> int:
    """A 63-bit seed of its own for every (seed, kind, name)."""
    digest = blake2b(f"{seed}|{kind}|{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
