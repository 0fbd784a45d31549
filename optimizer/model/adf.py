"""Serving side of a contextual bandit whose actions come with each request and are known by their features.

One linear model of the reward over hashed features: those of the context, those of the action, and the products of
every two of them, across and within both. A column is a bucket of the hash; a model keeps weights for the columns that
it has seen and 0 for all others. Beside the mean it holds a bank of draws from its posterior, from which actions are
chosen (``optimizer.bandit.explorers``). numpy alone: about a third of a millisecond for 50 actions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import BadArtifact
from optimizer.model.artifact import pack, unpack
from optimizer.model.plain import Plain
from optimizer.model.scales import AS_CATEGORY, Scales
from optimizer.model.tokens import Keys, Tokens, Values, mixed, tokens
from storage.records import JsonObject

#: Version of what the artifact's meta and arrays mean.
FORMAT = 1
KIND = "adf"
#: Buckets of the hash.
BITS = 20
#: So many tokens of each side are multiplied with others; longer lists keep their own weights and no products.
MAX_CROSSED = 64
#: Bytes of encoded actions that a model remembers. Most loops ask about the same ones again and again; of those whose
#: actions are never the same twice (a price, a counter among their features) none is worth its memory.
REMEMBERED = 16 << 20
_TO_BUCKET = np.uint64(64 - BITS)
#: Added to the sum of two names, or keys, of one side where they are multiplied.
WITHIN = np.uint64(0x9E3779B97F4A7C15)
_ROUND = 1 << 64

Columns = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One side of a request, ready to be multiplied.

    Attributes:
        key, value, name: (t,) of what may be crossed with the other side.
        column, weight, group: (m,) columns that this side has by itself, products within included.
    """

    key: Keys
    value: Values
    name: Keys
    column: Columns
    weight: Values
    group: Keys

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        arrays = (self.key, self.value, self.name, self.column, self.weight, self.group)
        return _OVERHEAD + sum(array.nbytes for array in arrays)


#: Bytes of six array objects, a dictionary's entry, and the object that holds them.
_OVERHEAD = 1_000


def bucket(keys: Keys) -> Columns:
    """The column of each hash."""
    return (mixed(keys) >> _TO_BUCKET).astype(np.int64)


def encode(told: Tokens, scales: Scales, *, products: bool, within: bool = True) -> Encoded:
    """Encodes one side: numbers are scaled and binned, products of tokens with different names are added."""
    key, value, name = scales.apply(told)
    crossed = slice(0, MAX_CROSSED)
    column, weight, group = bucket(key), value, name
    if products and within and len(key) > 1:
        first, second = _pairs(min(len(key), MAX_CROSSED))
        other = name[first] != name[second]
        first, second = first[other], second[other]
        column = np.concatenate([column, bucket(key[first] + key[second] + WITHIN)])
        weight = np.concatenate([weight, value[first] * value[second]])
        group = np.concatenate([group, name[first] + name[second] + WITHIN])
    return Encoded(key[crossed], value[crossed], name[crossed], column, weight, group)


_PAIRS: dict[int, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}


def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if count not in _PAIRS:
        _PAIRS[count] = np.triu_indices(count, 1)
    return _PAIRS[count]


def crossed(context: Encoded, action: Encoded) -> tuple[Columns, Values, Keys]:
    """The products of a context's tokens with an action's: columns, weights and groups, (c · t,) each."""
    return (
        bucket((context.key[:, None] + action.key[None, :]).ravel()),
        (context.value[:, None] * action.value[None, :]).ravel(),
        (context.name[:, None] + action.name[None, :]).ravel(),
    )


class GroupNames:
    """Which features a group of columns belongs to: one, or the two that are multiplied."""

    def __init__(self, told: Iterable[Tokens]) -> None:
        """Knows the features of these tokens."""
        texts = {int(h): text for one in told for h, text in zip(one.name.tolist(), one.texts, strict=True)}
        binned = {(h + int(AS_CATEGORY)) % _ROUND: text for h, text in texts.items()}
        self._texts = {**texts, **binned}

    def of(self, group: int) -> tuple[str, ...]:
        """The names of a group's features, the context's first; empty where they are unknown."""
        if group in self._texts:
            return (self._texts[group],)
        for one, text in self._texts.items():
            for apart in (0, int(WITHIN)):
                other = self._texts.get((group - one - apart) % _ROUND)
                if other is not None:
                    return (text, other)
        return ()


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """An action as asked about: its id, its features, and bytes that name both (None = not to be remembered)."""

    id: str
    features: Sequence[Any]
    raw: bytes | None = None


@dataclass(eq=False)
class AdfModel:
    """A trained model. Its weights never change, so threads share it.

    Attributes:
        columns: (d,) ascending, the columns with weights.
        weights: (d, 1 + M) float32: the mean, then M draws.
        precision: (d,) of each weight given the others, prior included: what a later model starts from.
        scales: how numbers are read. products: whether features are multiplied.
        rows: how many rows it learned from. noise: variance of the reward around the model.
        facts: what the trainer wants to find again, and who reads the model.
        plain: what serves in its place where all actions are known by their ids alone; None = nothing does.
    """

    columns: Columns
    weights: NDArray[np.float32]
    precision: NDArray[np.float32]
    scales: Scales
    products: bool
    rows: int
    noise: float
    facts: JsonObject = field(default_factory=dict)
    plain: Plain | None = None

    def __post_init__(self) -> None:
        self._place = np.zeros(1 << BITS, np.int32)
        self._place[self.columns] = np.arange(1, len(self.columns) + 1, dtype=np.int32)
        nothing = np.zeros((1, self.weights.shape[1]), np.float32)
        self._table = np.concatenate([nothing, self.weights])
        self._known: dict[bytes, Encoded] = {}
        self._held = 0

    @property
    def draws(self) -> int:
        """M."""
        return int(self.weights.shape[1]) - 1

    def score(self, context: Sequence[Any], actions: Sequence[Action]) -> NDArray[np.float64]:
        """Reward of every action, (K, 1 + M): the mean and the draws, up to what all actions share."""
        told = encode(tokens(context, "c"), self.scales, products=self.products, within=False)
        encoded = [self._encoded(action) for action in actions]
        own = self._summed([e.column for e in encoded], [e.weight for e in encoded])
        if not self.products or not len(told.key):
            return own.astype(np.float64)
        keys = np.concatenate([e.key for e in encoded])
        values = np.concatenate([e.value for e in encoded]).astype(np.float32)
        places = self._place[bucket((told.key[:, None] + keys[None, :]).ravel())].reshape(len(told.key), -1)
        by_token = np.einsum("ctm,c->tm", self._table[places], told.value.astype(np.float32))
        by_token *= values[:, None]
        starts = np.cumsum([0, *(len(e.key) for e in encoded[:-1])])
        return (own + np.add.reduceat(by_token, starts, axis=0)).astype(np.float64)

    def means(self, columns: Columns) -> Values:
        """(m,) the mean weight of each column; 0 for one that was never seen."""
        return np.asarray(self._table[self._place[columns], 0], np.float64)

    def _summed(self, columns: list[Columns], weights: list[Values]) -> NDArray[np.float32]:
        starts = np.cumsum([0, *(len(c) for c in columns[:-1])])
        found = self._table[self._place[np.concatenate(columns)]]
        found *= np.concatenate(weights).astype(np.float32)[:, None]
        return np.asarray(np.add.reduceat(found, starts, axis=0), np.float32)

    def _encoded(self, action: Action) -> Encoded:
        known = None if action.raw is None else self._known.get(action.raw)
        if known is None:
            known = encode(tokens(action.features, "a", action.id), self.scales, products=self.products)
            if action.raw is not None:
                self._remember(action.raw, known)
        return known

    def _remember(self, raw: bytes, encoded: Encoded) -> None:
        size = len(raw) + encoded.nbytes
        if self._held + size > REMEMBERED:
            self._known.clear()
            self._held = 0
        self._known[raw] = encoded
        self._held += size

    def to_blob(self) -> bytes:
        """The model as bytes: JSON and safetensors under a checksum, never pickle."""
        arrays: dict[str, NDArray[Any]] = {
            "columns": self.columns,
            "weights": self.weights,
            "precision": self.precision,
            **self.scales.arrays(),
        }
        meta = {
            "kind": KIND,
            "format": FORMAT,
            "bits": BITS,
            "products": self.products,
            "rows": self.rows,
            "noise": self.noise,
            "facts": dict(self.facts),
            **({} if self.plain is None else {"plain": dict(self.plain.meta)}),
        }
        return pack(b"" if self.plain is None else self.plain.graph, arrays, meta)

    @classmethod
    def from_blob(cls, blob: bytes, *, linear: bool = False) -> AdfModel:
        """The model of ``to_blob``; ``linear``: without its network, whose graph is run as it is: one that anybody may
        have made could ask for any file or any time.

        Raises:
            BadArtifact: not a model of this kind, or parts that don't fit together.
        """
        graph, arrays, meta = unpack(blob)
        if meta.get("kind") != KIND or meta.get("format") != FORMAT or meta.get("bits") != BITS:
            raise BadArtifact(f"artifact is of kind {meta.get('kind')!r}, format {meta.get('format')!r}")
        try:
            made = _from_parts(arrays, meta)
            made.plain = Plain(graph, meta["plain"]) if "plain" in meta and not linear else None
        except (KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"model is incomplete: {error!r}") from error
        return made


_LARGEST = 1e12
_EXTREME = 1e30


def _from_parts(arrays: Mapping[str, NDArray[Any]], meta: JsonObject) -> AdfModel:
    columns = arrays["columns"]
    weights, precision = arrays["weights"], arrays["precision"]
    if columns.ndim != 1 or columns.dtype != np.int64 or weights.ndim != 2 or weights.shape[1] < 1:
        raise ValueError("columns must be (d,) int64 and weights (d, 1 + M)")
    if len(weights) != len(columns) or precision.shape != columns.shape:
        raise ValueError(f"{len(columns)} columns, {len(weights)} weights, {len(precision)} precisions")
    if len(columns) and (columns[0] < 0 or columns[-1] >= 1 << BITS or (np.diff(columns) <= 0).any()):
        raise ValueError(f"columns must ascend within [0, {1 << BITS})")
    if weights.dtype != np.float32 or precision.dtype != np.float32:
        raise ValueError("weights and precision must be float32")
    # Negated, so that NaN is refused too. Rewards are at most 1e9, so what was trained stays far within these.
    if not (np.abs(weights) < _LARGEST).all() or not ((precision > 1 / _EXTREME) & (precision < _EXTREME)).all():
        raise ValueError("weights and precisions must be of a size that rewards can have")
    rows, noise, facts = meta["rows"], float(meta["noise"]), meta["facts"]
    if type(rows) is not int or rows < 0 or not 1 / _EXTREME < noise < _EXTREME or not isinstance(facts, dict):
        raise ValueError("rows, noise or facts are out of range")
    return AdfModel(columns, weights, precision, Scales.of(arrays), bool(meta["products"]), rows, noise, facts)
