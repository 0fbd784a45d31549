"""What the learned columns of f(x) owe to each feature: integrated gradients from the average context (Sundararajan,
Taly & Yan 2017).

The path runs straight from the centred encoding's 0, the average context, to the context, without a history; at its end
the history in its order is put in at once. The gradient along a group of inputs is a central difference of the graph's
own outputs in the middle of each step; so any graph serves. What is left of the sum is told, never spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.model.embedding import Embedder
from storage.records import JsonObject

Floats = NDArray[np.float64]

#: Steps of the path, and how far to either side of a step's middle the difference is taken, in steps.
STEPS = 128
_ASIDE = 0.05


@dataclass(frozen=True)
class LearnedParts:
    """The L learned columns of one context, in parts that add up to them.

    Attributes:
        owners: G features. average: (1, L) at the average context. by_owner: (G, L). history: (1, L) what reading the
            history in its order changes. residual: (L,) of the path.
    """

    owners: tuple[str, ...]
    average: Floats
    by_owner: Floats
    history: Floats
    residual: Floats


def learned_parts(embedder: Embedder, context: JsonObject, x: NDArray[np.float32]) -> LearnedParts | None:
    """The parts of the learned columns of an embedded context (F,); None where the graph has none."""
    spec = embedder.spec
    if embedder.width == spec.width:
        return None
    end = spec.encode_row(context)
    groups = _groups(spec.owner, len(spec.owners))
    middles = (np.arange(STEPS)[:, None] + 0.5) / STEPS * end.astype(np.float64)
    rows = [np.zeros((1, spec.width)), end[None, :].astype(np.float64)]
    for group in groups:
        aside = np.where(group, end, 0.0) * (_ASIDE / STEPS)
        rows += [middles + aside, middles - aside]
    out = embedder.run(np.concatenate(rows).astype(np.float32))[:, spec.width :].astype(np.float64)
    average, reached, moved = out[:1], out[1], out[2:].reshape(len(groups), 2, STEPS, -1)
    by_owner = (moved[:, 0] - moved[:, 1]).sum(axis=1) / (2.0 * _ASIDE)
    whole = x[spec.width :].astype(np.float64)
    history = whole - reached if embedder.reads_history else np.zeros_like(whole)
    residual = whole - history - average[0] - by_owner.sum(axis=0)
    return LearnedParts(spec.owners, average, by_owner, history[None, :], residual)


def _groups(owner: Sequence[int], count: int) -> list[NDArray[np.bool_]]:
    """The inputs of each feature."""
    place = np.array(owner, dtype=np.int64)
    return [place == one for one in range(count)]
