"""Serving side of a plain K-way bandit: one context, K actions that have no features of their own, one reward each.

The artifact holds the feature spec, an ONNX graph from the encoded context to K expected rewards, and what it learned
from: rows, and how often each action was tried and what it earned. Actions are drawn by inverse-gap weighting of
optimistic scores, so propensities are exact. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.exploration import Mask, Vector, inverse_gap
from optimizer.bandit.schedules import inverse_gap_gamma
from optimizer.errors import BadArtifact
from optimizer.model.artifact import unpack
from optimizer.model.embedding import Embedder
from optimizer.model.features import FeatureSpec
from storage.records import JsonObject

#: Version of what the artifact's meta means (its container has one of its own).
FORMAT = 2
#: What tells this artifact from that of the reward model of messages.
KIND = "kway"
#: So many tries, times K, count like a reward of 1: an action that never earns isn't hoped in for ever.
TRIES = 4.0


class KwayModel:
    """A trained K-way model, ready to decide. Immutable once loaded, so threads share it; load it after a fork."""

    def __init__(self, graph: bytes, meta: JsonObject) -> None:
        if meta.get("kind") != KIND or meta.get("format") != FORMAT:
            raise BadArtifact(
                f"artifact is of kind {meta.get('kind')!r}, format {meta.get('format')!r}; "
                f"this release reads {KIND!r}, {FORMAT}"
            )
        try:
            spec = FeatureSpec.from_json(meta["spec"])
            self.actions = int(meta["actions"])
            self.rows = int(meta["rows"])
            self.gamma = inverse_gap_gamma(self.rows, float(meta["gamma_scale"]))
            tried, earned = (np.asarray(meta[name], np.float64) for name in ("tried", "earned"))
            self.hope = hope(tried, earned, float(meta["optimism"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"model is incomplete: {error!r}") from error
        self._embedder = Embedder(spec, graph)
        if self._embedder.width != self.actions:
            raise BadArtifact(f"the graph scores {self._embedder.width} actions, the meta say {self.actions}")
        if self.hope.shape != (self.actions,):
            raise BadArtifact(f"tries are of {self.hope.shape} actions, the meta say {self.actions}")

    @classmethod
    def load(cls, blob: bytes) -> KwayModel:
        """A model from its blob.

        Raises:
            BadArtifact: the blob fails its checksum, is of another kind, or its parts don't fit together.
        """
        graph, _, meta = unpack(blob)
        return cls(graph, meta)

    @property
    def feature_hash(self) -> str:
        """Hash of the feature spec, to be kept with every decision."""
        return self._embedder.spec.hash

    def scores(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """Expected reward of every action, (n, K) in [0, 1]; a row never depends on the others."""
        return self._embedder.embed(contexts).astype(np.float64)

    def distribution(self, context: JsonObject, mask: Mask | None = None) -> Vector:
        """The probability of every action, (K,) float64: 0 outside ``mask`` (None = all K are eligible).

        Raises:
            ValueError: the mask is not (K,), or nothing is eligible.
        """
        return distribution(self.scores([context])[0], mask, self.gamma, self.hope)


def hope(tried: Vector, earned: Vector, optimism: float) -> Vector:
    """How far the estimate of each action is still to be mistrusted, (K,).

    It falls as one over the root of what an action has earned, as an estimate's error does (compare Auer, Cesa-Bianchi
    & Fischer 2002, whose bound counts tries). Tries without a reward count for little here: what is seldom right has
    been tried where it wasn't.

    Args:
        tried: (K,) how often each was chosen. earned: (K,) the sum of what it earned.
        optimism: of an action that was never tried.
    """
    fallen: Vector = optimism / np.sqrt(1.0 + earned + tried / (TRIES * len(tried)))
    return fallen


def distribution(score: Vector, mask: Mask | None, gamma: float, hope: Vector) -> Vector:
    """Inverse-gap weighting over the eligible of K actions: what serving and training both draw from.

    It weighs optimistic scores: an action may earn more than is expected of it by its ``hope`` times the variance of
    the best one's reward, were it 0 or 1. Where the best is sure of 1 there is nothing to hope for, and where all earn
    little a little is hoped for.

    Args:
        score: (K,) expected rewards.
        mask: (K,) eligible actions (None = all).
        gamma: ``inverse_gap_gamma`` of the rows that the scores were learned from.
        hope: (K,), see ``hope``.

    Raises:
        ValueError: the mask has another length, or nothing is eligible.
    """
    eligible = np.ones(len(score), np.bool_) if mask is None else mask
    if eligible.shape != score.shape:
        raise ValueError(f"mask has shape {eligible.shape}, expected {score.shape}")
    if not eligible.any():
        raise ValueError("no action is eligible")
    best = score[eligible].max()
    return inverse_gap(score + best * (1.0 - best) * hope, eligible, gamma)
