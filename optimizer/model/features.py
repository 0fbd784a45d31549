"""The feature spec: which context features the model reads and how, learned once and frozen with the model.

``fit_spec`` types every feature (the attribute registry first, what the data look like second) and learns its columns;
``FeatureSpec.encode`` turns contexts into numbers and never fails on a value it has not seen. The hash of the spec is
kept with every decision and policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from optimizer.errors import BadArtifact
from optimizer.model import columns as typed
from optimizer.model.columns import CategoryColumn, Column, NumberColumn, TextColumn
from optimizer.model.extremes import believed
from optimizer.model.hashing import text_vector
from optimizer.model.history import HISTORY
from optimizer.model.historyspec import HistorySpec, fit_history
from optimizer.model.reading import shown_type
from storage.records import Attribute, AttributeType, JsonObject

#: Bins of a number are cut down until the whole encoding is about this wide: every column is multiplied by variants,
#: channels and times later on. Bumps and thresholds of a dozen numbers need the room: in two worlds of 504 actions
#: regret was 1,132 and 1,192 with 64 columns and 8 bins, 993 and 1,099 with 160 and 8, 963 and 1,064 with 256 and 14,
#: which took a third more time. What doesn't matter is shrunk away by feature.
TARGET_WIDTH = 240
#: Hard limit; the features present least often are left out beyond it, and ``describe`` says which.
MAX_WIDTH = 320
MAX_BINS = 14
#: Under this many rows half as many bins are all that can be learned.
FEW_ROWS = 2_000
MAX_LEVELS = 24
REST_BUCKETS = 4
TEXT_WIDTH = 8
#: Names up to which all are looked at. Of more those are left out that nobody declared and fewer contexts than one in
#: 500 have: names that never repeat say nothing, and each would cost a pass over all contexts.
MOST_NAMES = 2_000
#: Values looked at when a feature's type is inferred.
TYPING_SAMPLE = 1_000


@dataclass(frozen=True)
class Widths:
    """How wide an encoding may get.

    Attributes:
        target: width that the bins of numbers are cut down to.
        most: hard limit.
        bins: of a number at most; half of it under ``few_rows`` rows.
        few_rows: see ``bins``.
    """

    target: int = TARGET_WIDTH
    most: int = MAX_WIDTH
    bins: int = MAX_BINS
    few_rows: int = FEW_ROWS


@dataclass(frozen=True)
class Product:
    """Two encoded numbers of different features, multiplied and standardised: their places, mean and scale.

    ``through``: the part of the action in which residuals asked for it (``training.actionparts``); "" in older
    artifacts.
    """

    left: int
    right: int
    mean: float
    scale: float
    through: str = ""


@dataclass(frozen=True)
class FeatureSpec:
    """The frozen columns of a model, in order. ``dropped`` are features that were seen and left out.

    ``history``: how the recipient's history is read; its summary follows the columns. None = there was no history.
    ``products``: of the columns' numbers, behind all else; a training finds them (``training.products``).
    """

    columns: tuple[Column, ...]
    dropped: tuple[str, ...] = ()
    history: HistorySpec | None = None
    products: tuple[Product, ...] = ()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """One name an encoded number: ``age.rank``, ``plan.=pro``, ``@history.event.sent.7d``, ``age.rank × plan.=pro``
        for instance."""
        past = () if self.history is None else self.history.labels
        own = tuple(f"{column.name}.{label}" for column in self.columns for label in column.labels)
        pairs = tuple(f"{own[one.left]} × {own[one.right]}" for one in self.products)
        return own + tuple(f"{HISTORY}.{label}" for label in past) + pairs

    @cached_property
    def plain(self) -> tuple[int, ...]:
        """Positions of the numbers that carry a feature's broad effect; the rest is detail (bins, hashes, words, most
        of the history's summary: as a rule little of it matters, so it is not multiplied by times)."""
        marks = [mark for column in self.columns for mark in column.plain]
        past = () if self.history is None else self.history.plain
        return tuple(np.flatnonzero((*marks, *past, *(True for _ in self.products))).tolist())

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """Names of the features that numbers come from: the columns', those of the history's summary, and of each two
        that are multiplied."""
        return (*(column.name for column in self.columns), *dict.fromkeys((*self._counted, *self._multiplied)))

    @cached_property
    def owner(self) -> tuple[int, ...]:
        """For each number the position of its feature in ``owners``."""
        own = tuple(i for i, column in enumerate(self.columns) for _ in column.labels)
        rest = (*self._counted, *self._multiplied)
        place = {name: len(self.columns) + i for i, name in enumerate(dict.fromkeys(rest))}
        return own + tuple(place[name] for name in rest)

    def kind(self, owner: int) -> Literal["attribute", "history", "product"]:
        """What the feature at this position in ``owners`` is."""
        if owner < len(self.columns):
            return "attribute"
        counted = len(set(self._counted))
        return "history" if owner < len(self.columns) + counted else "product"

    @property
    def _counted(self) -> tuple[str, ...]:
        """For each number of the history's summary the feature that it belongs to."""
        return () if self.history is None else tuple(f"{HISTORY}.{name}" for name in self.history.counted)

    @property
    def _multiplied(self) -> tuple[str, ...]:
        """For each product the two features that it is of."""
        own = [column.name for column in self.columns for _ in column.labels]
        return tuple(f"{own[one.left]} × {own[one.right]}" for one in self.products)

    @property
    def width(self) -> int:
        """Numbers an encoded context has."""
        return len(self.labels)

    @cached_property
    def hash(self) -> str:
        """32 hex digits; two specs have the same hash exactly when they encode alike.

        Which numbers are believed is not part of it: a host of an older version can't tell, and must find the same.
        """
        told = {name: value for name, value in self.to_json().items() if name != "within"}
        return blake2b(orjson.dumps(told, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()

    def encode(self, contexts: Sequence[JsonObject]) -> NDArray[np.float32]:
        """Contexts as numbers: float32 (n, width), no NaN, centred. Unknown features are ignored."""
        return self.encode_row(contexts[0])[None] if len(contexts) == 1 else self.completed(self.numbers(contexts))

    def numbers(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """What contexts tell by themselves, before products: (n, numbers of the columns and of the history)."""
        past = () if self.history is None else (self.history.summary(contexts),)
        own = (column.bulk(contexts) for column in self.columns)
        return np.concatenate((np.zeros((len(contexts), 0)), *own, *past), axis=1)

    def completed(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        """Encoded contexts (n, width), of their ``numbers``."""
        pairs = [(numbers[:, one.left] * numbers[:, one.right] - one.mean) / one.scale for one in self.products]
        return np.column_stack((numbers, *pairs)).astype(np.float32)

    def encode_row(self, context: JsonObject) -> NDArray[np.float32]:
        """One context as numbers: float32 (width,); the fast path of a decision."""
        out: list[float] = []
        for column in self.columns:
            out.extend(column.row(context))
        if self.history is not None:
            out.extend(self.history.summary([context])[0].tolist())
        out += [(out[one.left] * out[one.right] - one.mean) / one.scale for one in self.products]
        return np.array(out, dtype=np.float32)

    def describe(self) -> list[dict[str, Any]]:
        """One entry a feature: its name, type and the names of its numbers; left-out features at the end."""
        entries: list[dict[str, Any]] = [
            {"name": column.name, "type": kind_of(column), "numbers": list(column.labels)} for column in self.columns
        ]
        if self.history is not None:
            entries.append({"name": HISTORY, "type": "history", "numbers": list(self.history.labels)})
        numbers = self.labels[self.width - len(self.products) :]
        for pair in dict.fromkeys(self._multiplied):
            own = [label for label, name in zip(numbers, self._multiplied, strict=True) if name == pair]
            entries.append({"name": pair, "type": "product", "numbers": own})
        return entries + [{"name": name, "type": "dropped", "numbers": []} for name in self.dropped]

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON; ``from_json`` gives an equal one."""
        told: dict[str, Any] = {
            "columns": [typed.to_json(column) for column in self.columns],
            "dropped": list(self.dropped),
        }
        if self.history is not None:
            told["history"] = self.history.to_json()
        within = {c.name: list(c.within) for c in self.columns if isinstance(c, NumberColumn) and c.within is not None}
        if within:
            told["within"] = within
        if self.products:
            # What older artifacts don't have isn't written either: the hash of a stored spec must not change.
            told["products"] = [list(astuple(one))[: 5 if one.through else 4] for one in self.products]
        return told

    @classmethod
    def from_json(cls, data: JsonObject) -> FeatureSpec:
        """The spec written by ``to_json``.

        Raises:
            BadArtifact: anything else.
        """
        try:
            past = HistorySpec.from_json(data["history"]) if "history" in data else None
            pairs = tuple(Product(*one) for one in data.get("products", ()))
            within = dict(data.get("within", {}))
            columns = tuple(typed.from_json(column, within.get(column["name"])) for column in data["columns"])
            return cls(columns, tuple(data["dropped"]), past, pairs)
        except (KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"feature spec can't be read: {error!r}") from error


def fit_spec(
    contexts: Sequence[JsonObject], attributes: Sequence[Attribute], widths: Widths | None = None
) -> FeatureSpec:
    """Learns a spec from contexts (n) and the attribute registry.

    A registered type wins over what the values look like; ``use_in_model=False`` keeps a feature out. Features are in
    alphabetical order, so the order of rows doesn't matter. A feature without variation gets no column. A history
    (``model.history``) is always summarised. Timestamps are ages, so contexts must say when they were decided upon
    (``model.moment``). ``widths`` are the reward model's unless another model says how wide its
    own input may be.
    """
    widths = widths or Widths()
    registry = {attribute.name: attribute for attribute in attributes}
    present = Counter(name for context in contexts for name, value in context.items() if value is not None)
    least = max(5, len(contexts) // 500) if len(present) > MOST_NAMES else 0
    names = [
        name
        for name in sorted(present)
        if not name.startswith("@") and (registry[name].use_in_model if name in registry else present[name] >= least)
    ]
    types: dict[str, AttributeType | None] = {
        name: registry[name].type if name in registry else _infer(contexts, name) for name in names
    }
    fitted = _fit_columns(contexts, names, types, widths)
    kept: list[Column] = []
    width = 0
    for column in sorted(fitted, key=lambda column: (-present[column.name], column.name)):
        if width + len(column.labels) <= widths.most:
            kept.append(column)
            width += len(column.labels)
    kept.sort(key=lambda column: column.name)
    used = {column.name for column in kept}
    return FeatureSpec(tuple(kept), tuple(name for name in names if name not in used), fit_history(contexts))


def kind_of(column: Column) -> AttributeType:
    """The type that a column reads values as."""
    if isinstance(column, NumberColumn):
        return "timestamp" if column.timestamp else "number"
    if isinstance(column, CategoryColumn):
        return "boolean" if column.boolean else "category"
    return "text"


def _infer(contexts: Sequence[JsonObject], name: str) -> AttributeType | None:
    """The type that the first values of a feature look like; None when they are lists or objects."""
    return shown_type(list(islice((c[name] for c in contexts if c.get(name) is not None), TYPING_SAMPLE)))


def _fit_columns(
    contexts: Sequence[JsonObject], names: Sequence[str], types: dict[str, AttributeType | None], widths: Widths
) -> list[Column]:
    """All columns but the constant ones; numbers share what width the others leave."""
    out: list[Column] = []
    for name in names:
        column: Column | None = None
        if types[name] in ("category", "boolean"):
            column = _fit_category(contexts, name, boolean=types[name] == "boolean")
        elif types[name] == "text":
            column = _fit_text(contexts, name)
        if column is not None:
            out.append(column)
    numbers = [name for name in names if types[name] in ("number", "timestamp")]
    spare = widths.target - sum(len(column.labels) for column in out)
    limit = widths.bins if len(contexts) >= widths.few_rows else widths.bins // 2
    bins = max(2, min(limit, spare // max(1, len(numbers)) - 2))
    for name in numbers:
        number = _fit_number(contexts, name, bins, timestamp=types[name] == "timestamp")
        if number is not None:
            out.append(number)
    return out


def _fit_number(contexts: Sequence[JsonObject], name: str, bins: int, *, timestamp: bool) -> NumberColumn | None:
    probe = NumberColumn(name, 0.0, 1.0, (), (), (0.0,), None, age=timestamp)
    x = probe.parsed(contexts)
    x = x[~np.isnan(x)]
    within = None if timestamp or not len(x) else believed(x)
    x = x if within is None else x[(x >= within[0]) & (x <= within[1])]
    missing = 1.0 - len(x) / len(contexts) if len(x) < len(contexts) else None
    if len(x) == 0 or (x.min() == x.max() and missing is None):
        return None
    scale = float(x.std()) or 1.0
    distinct = np.unique(x)
    knots = np.unique(np.quantile(x, np.linspace(0.0, 1.0, bins + 1))) if len(distinct) > 2 else distinct[:0]
    knots = knots if len(knots) >= 3 else knots[:0]
    ordered = np.sort(x)
    ranks = (np.searchsorted(ordered, knots, "left") + np.searchsorted(ordered, knots, "right")) / (2.0 * len(x))
    draft = NumberColumn(name, float(x.mean()), scale, _floats(knots), _floats(ranks), (), None, age=timestamp)
    centre = _floats(draft.raw(x).mean(axis=0))
    return NumberColumn(name, draft.mean, scale, draft.knots, draft.ranks, centre, missing, None, timestamp, within)


def _fit_category(contexts: Sequence[JsonObject], name: str, *, boolean: bool) -> CategoryColumn | None:
    probe = CategoryColumn(name, (), 0, (), None, boolean)
    counts = Counter(probe.parsed(contexts))
    absent = counts.pop(None, 0)
    n, total = len(contexts), sum(counts.values())
    missing = absent / n if absent else None
    if total == 0 or (len(counts) == 1 and missing is None):
        return None
    enough = max(5, n // 500)
    frequent = sorted((level for level, count in counts.items() if count >= enough), key=lambda v: (-counts[v], v))
    levels = ("true",) if boolean else tuple(sorted(cast("list[str]", frequent[:MAX_LEVELS])))
    buckets = 0 if boolean or len(levels) == len(counts) else REST_BUCKETS
    draft = CategoryColumn(name, levels, buckets, (0.0,) * (len(levels) + buckets), None, boolean)
    share = sum((np.array(draft.encode(level)) * count for level, count in counts.items()), start=np.zeros(1)) / total
    return CategoryColumn(name, levels, buckets, _floats(share), missing, boolean)


def _fit_text(contexts: Sequence[JsonObject], name: str) -> TextColumn | None:
    texts = [context[name] for context in contexts if isinstance(context.get(name), str)]
    if not texts:
        return None
    mean = np.mean([text_vector(text, TEXT_WIDTH) for text in texts], axis=0)
    return TextColumn(name, _floats(mean))


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
