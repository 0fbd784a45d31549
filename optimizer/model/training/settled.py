"""What settled rows say of every head's weights, kept so that a refresh reads only the rows since.

A row is settled once its outcomes are final. Around the weights at which it was taken the log-likelihood of all settled
rows is very nearly a quadratic (Laplace): a gradient and an information matrix a head stand for a million of them. The
weights move little between two retrains, and the next refresh of the whole log takes the quadratic anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.model.layout import Layout
from optimizer.model.training.symmetric import mirror
from optimizer.model.values import joined
from storage.records import JsonObject

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

_VECTORS = ("mean", "precision", "known", "gradient")


@dataclass(frozen=True)
class SettledHead:
    """The settled rows of one head, as a quadratic in its d weights.

    Attributes:
        mean: (d,) where it was taken. precision: (groups,) prior precisions.
        known: (k,) the weights that it speaks of, sorted: those that aren't 0 or may become something else.
        gradient, information: (k,), (k, k) of the log-likelihood at ``mean``.
        offset: of the intercept. rows, positives: settled rows with a known outcome, and where it happened.
    """

    mean: Floats
    precision: Floats
    known: NDArray[np.int64]
    gradient: Floats
    information: Floats
    offset: float
    rows: int
    positives: int

    def around(self, weights: Floats, wanted: NDArray[np.int64]) -> tuple[float, Floats, Floats]:
        """Log-likelihood (0 at ``mean``) at ``weights`` (d,); gradient and information of the ``wanted`` among the
        known weights (sorted)."""
        moved = (weights - self.mean)[self.known]
        pull = self.information @ moved
        gradient, at = self.gradient - pull, np.searchsorted(self.known, wanted)
        likelihood = float(moved @ (self.gradient - 0.5 * pull))
        if len(at) == len(self.known):
            return likelihood, gradient, self.information
        return likelihood, gradient[at], self.information[np.ix_(at, at)]

    def __add__(self, more: SettledHead) -> SettledHead:
        """With further rows, taken at later weights, of which both speak from here on."""
        _, gradient, _ = self.around(more.mean, self.known)
        return replace(
            more,
            gradient=gradient + more.gradient,
            information=self.information + more.information,
            rows=self.rows + more.rows,
            positives=self.positives + more.positives,
        )


@dataclass(frozen=True)
class SettledKind:
    """The heads of one kind over their layout, by outcome."""

    layout: Layout
    heads: Mapping[str, SettledHead]

    def __add__(self, more: SettledKind) -> SettledKind:
        """With further rows of the same layout."""
        heads = {name: head + more.heads[name] for name, head in self.heads.items()}
        return SettledKind(self.layout, heads)


@dataclass(frozen=True)
class Settled:
    """Everything that a model's refresh needs of the settled rows.

    Attributes:
        message, no_send: the heads of each kind.
        rows: how many rows. told: outcome -> final rows that they are worth (see ``Examples.told``).
        values: sketches of the values that came with their outcomes (see ``model.values``).
    """

    message: SettledKind
    no_send: SettledKind
    rows: int
    told: Mapping[str, float]
    values: JsonObject

    def __add__(self, more: Settled) -> Settled:
        """With further rows of the same lineage."""
        return Settled(
            self.message + more.message,
            self.no_send + more.no_send,
            self.rows + more.rows,
            {name: self.told.get(name, 0.0) + more.told.get(name, 0.0) for name in {**self.told, **more.told}},
            joined(self.values, more.values),
        )

    def save(self, prefix: str) -> tuple[Arrays, dict[str, Any]]:
        """Arrays under names that begin with ``prefix``, and the rest as JSON. Matrices in single precision."""
        arrays: Arrays = {}
        kinds = {}
        for kind, part in (("message", self.message), ("no_send", self.no_send)):
            heads = {}
            for i, (name, head) in enumerate(sorted(part.heads.items())):
                where = f"{prefix}.{kind}.{i}"
                arrays |= {f"{where}.{vector}": getattr(head, vector) for vector in _VECTORS}
                arrays[f"{where}.information"] = head.information.astype(np.float32)[np.tril_indices(len(head.known))]
                heads[name] = {"offset": head.offset, "rows": head.rows, "positives": head.positives}
            kinds[kind] = {"layout": part.layout.to_json(), "heads": heads}
        return arrays, {"kinds": kinds, "rows": self.rows, "told": dict(self.told), "values": dict(self.values)}

    @classmethod
    def load(cls, prefix: str, arrays: Arrays, about: JsonObject) -> Settled:
        """What ``save`` wrote; ``KeyError``, ``TypeError`` or ``ValueError`` on anything else."""
        kinds = {}
        for kind in ("message", "no_send"):
            told = about["kinds"][kind]
            heads = {}
            for i, (name, numbers) in enumerate(sorted(told["heads"].items())):
                where = f"{prefix}.{kind}.{i}"
                vectors: dict[str, Any] = {vector: arrays[f"{where}.{vector}"] for vector in _VECTORS}
                matrix = _symmetric(arrays[f"{where}.information"], len(vectors["known"]))
                heads[name] = SettledHead(**vectors, information=matrix, **numbers)
            kinds[kind] = SettledKind(Layout.from_json(told["layout"]), heads)
        return cls(**kinds, rows=about["rows"], told=about["told"], values=about["values"])


def _symmetric(triangle: NDArray[np.float32], size: int) -> Floats:
    """The (size, size) matrix of a lower triangle."""
    out = np.zeros((size, size))
    out[np.tril_indices(size)] = triangle
    return mirror(out)
