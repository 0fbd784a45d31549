"""Typed columns: how one context feature becomes numbers. Each column is learned once from data and then frozen.

Every column is *centred*: zero means "like the average", which is also what a value never seen or missing for the first
time becomes. Two encoders give the same numbers: ``row`` (plain Python, a few µs, for one decision) and ``bulk``
(vectorised, for training).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optimizer.model.hashing import signed_bucket, text_vector
from optimizer.model.reading import HUGE, parse_boolean, parse_category, parse_number, parse_timestamp
from storage.records import JsonObject

#: Standardised numbers are clipped here: one absurd value must not swing a decision.
CLIP = 5.0
#: A rank is uniform on [0, 1]; times √12 it has unit variance like the standardised column.
RANK_SCALE = math.sqrt(12.0)
#: Entry of a context that says when the decision was made (epoch seconds); timestamps become ages before it.
MOMENT = "@moment"
#: What columns with a ``reference`` read for it. Only callers ever said it, so most of their ages were those at the end
#: of the training rows; another name, so that what such columns chose replays as it was chosen.
_MOMENT_BEFORE = "@decided_at"
_DAY = 86_400.0
#: What numpy reads as ``parse_number`` does, None as NaN; but for whole numbers that no float can hold.
_PLAIN = {float, int, bool, type(None)}
#: What ``parse_category`` leaves as it is.
_TEXTS = {str, type(None)}


@dataclass(frozen=True)
class NumberColumn:
    """Standardised value + rank + piecewise-linear bins (Gorishniy et al. 2022) + missing flag.

    ``knots`` are quantiles (k+1 of them for k bins; empty for a two-valued number), ``ranks`` their mid-ranks.
    With ``age`` set, the raw value is a timestamp, and the number is its age at the decision, in days; missing where
    the context doesn't say when that was (``model.moment``). Artifacts of before have ``reference`` instead, the newest
    value among their training rows, and count the days before that.
    """

    kind: ClassVar[str] = "number"
    name: str
    mean: float
    scale: float
    knots: tuple[float, ...]
    ranks: tuple[float, ...]
    centre: tuple[float, ...]
    missing: float | None
    reference: float | None = None
    age: bool = False
    within: tuple[float, float] | None = None

    @property
    def timestamp(self) -> bool:
        """Whether the raw value is a timestamp."""
        return self.age or self.reference is not None

    @property
    def labels(self) -> tuple[str, ...]:
        """One name a number that comes out."""
        bins = tuple(f"bin{i}" for i in range(len(self.knots) - 1))
        return ("value", *(("rank", *bins) if bins else ()), *(("missing",) if self.missing is not None else ()))

    @property
    def plain(self) -> tuple[bool, ...]:
        """Whether each number is a broad effect (value, rank, missing) or detail (bins)."""
        return tuple(not label.startswith("bin") for label in self.labels)

    def parse(self, context: JsonObject) -> float | None:
        """The number in a context, or None."""
        value = context.get(self.name)
        if not self.timestamp:
            number = parse_number(value)
            return None if number is None or not self._believed(number) else number
        moment = parse_timestamp(value)
        if moment is None:
            return None
        now = parse_timestamp(context.get(MOMENT if self.age else _MOMENT_BEFORE))
        now = self.reference if now is None else now
        return None if now is None else (now - moment) / _DAY

    def _believed(self, number: float) -> bool:
        return self.within is None or self.within[0] <= number <= self.within[1]

    @cached_property
    def _absent(self) -> tuple[float, ...]:
        flag = () if self.missing is None else (1.0 - self.missing,)
        return (0.0,) * len(self.centre) + flag

    @cached_property
    def _templates(self) -> tuple[tuple[float, ...], ...]:
        """Centred bins with the first i full, and the rest of the row after them."""
        bins = len(self.knots) - 1
        tail = () if self.missing is None else (-self.missing,)
        centre = self.centre[2:]
        return tuple(tuple((j < i) - centre[j] for j in range(bins)) + tail for i in range(bins))

    def row(self, context: JsonObject) -> tuple[float, ...]:
        """The numbers of one context."""
        x = self.parse(context)
        if x is None:
            return self._absent
        z = min(CLIP, max(-CLIP, (x - self.mean) / self.scale)) - self.centre[0]
        if not self.knots:
            return (z,) if self.missing is None else (z, -self.missing)
        knots = self.knots
        i = min(max(bisect_right(knots, x) - 1, 0), len(knots) - 2)
        part = min(1.0, max(0.0, (x - knots[i]) / (knots[i + 1] - knots[i])))
        rank = self.ranks[i] + part * (self.ranks[i + 1] - self.ranks[i])
        template = self._templates[i]
        return (
            z,
            rank * RANK_SCALE - self.centre[1],
            *template[:i],
            part - self.centre[2 + i],
            *template[i + 1 :],
        )

    def bulk(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """The numbers of many contexts: (n, width)."""
        x = self.parsed(contexts)
        raw = self.raw(x)
        out = np.where(np.isnan(x)[:, None], 0.0, raw - np.asarray(self.centre))
        return out if self.missing is None else np.column_stack((out, np.isnan(x) - self.missing))

    def parsed(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """``parse`` of many contexts, NaN for None; quick where all are numbers, as they mostly are."""
        given = [context.get(self.name) for context in contexts]
        if not self.timestamp and {*map(type, given)} <= _PLAIN:
            with suppress(OverflowError):
                x = np.array(given, dtype=np.float64)
                low, high = self.within or (-math.inf, math.inf)
                return np.where(np.isfinite(x) & (x >= low) & (x <= high), x.clip(-HUGE, HUGE), math.nan)
        parsed = [self.parse(context) for context in contexts]
        return np.array([math.nan if value is None else value for value in parsed], dtype=np.float64)

    def raw(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Columns before centring, without the missing flag; NaN stays NaN."""
        columns = [np.clip((x - self.mean) / self.scale, -CLIP, CLIP)]
        if self.knots:
            knots, ranks = np.asarray(self.knots), np.asarray(self.ranks)
            i = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
            part = np.clip((np.clip(x, knots[0], knots[-1]) - knots[i]) / (knots[i + 1] - knots[i]), 0.0, 1.0)
            columns.append((ranks[i] + part * (ranks[i + 1] - ranks[i])) * RANK_SCALE)
            columns.extend(np.where(j == i, part, (j < i).astype(np.float64)) for j in range(len(knots) - 1))
        return np.column_stack(columns)


@dataclass(frozen=True)
class CategoryColumn:
    """One-hot of the frequent levels, hashed buckets for the rest, a missing flag; a boolean has the one level "true".

    A level never seen falls into a bucket when the column has buckets, else it is neutral.
    """

    kind: ClassVar[str] = "category"
    name: str
    levels: tuple[str, ...]
    buckets: int
    centre: tuple[float, ...]
    missing: float | None
    boolean: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """One name a number that comes out."""
        rest = tuple(f"other{i}" for i in range(self.buckets))
        return (*(f"={level}" for level in self.levels), *rest, *(("missing",) if self.missing is not None else ()))

    @property
    def plain(self) -> tuple[bool, ...]:
        """Whether each number is a broad effect (a level, missing) or detail (a bucket of rare levels)."""
        named, rest = len(self.levels), self.buckets
        return (True,) * named + (False,) * rest + (True,) * (len(self.labels) - named - rest)

    def parse(self, context: JsonObject) -> str | None:
        """The level in a context, or None."""
        value = context.get(self.name)
        if not self.boolean:
            return parse_category(value)
        truth = parse_boolean(value)
        return None if truth is None else ("true" if truth else "false")

    def parsed(self, contexts: Sequence[JsonObject]) -> list[str | None]:
        """``parse`` of many contexts; quick where all are texts, as they mostly are."""
        if not self.boolean:
            given = [context.get(self.name) for context in contexts]
            return given if {*map(type, given)} <= _TEXTS else [parse_category(value) for value in given]
        return [self.parse(context) for context in contexts]

    @cached_property
    def _rows(self) -> dict[str | None, tuple[float, ...]]:
        """Finished rows by level; None is missing."""
        tail = () if self.missing is None else (-self.missing,)
        rows: dict[str | None, tuple[float, ...]] = {
            level: tuple((i == j) - c for j, c in enumerate(self.centre)) + tail for i, level in enumerate(self.levels)
        }
        if self.boolean:
            rows["false"] = tuple(-c for c in self.centre) + tail
        rows[None] = (0.0,) * len(self.centre) + (() if self.missing is None else (1.0 - self.missing,))
        return rows

    def encode(self, level: str | None) -> tuple[float, ...]:
        """The numbers of one level."""
        row = self._rows.get(level)
        if row is not None:
            return row
        tail = () if self.missing is None else (-self.missing,)
        if not self.buckets:
            return (0.0,) * len(self.centre) + tail
        hit = len(self.levels) + signed_bucket(f"{self.name}={level}", self.buckets)[0]
        return tuple((hit == j) - c for j, c in enumerate(self.centre)) + tail

    def row(self, context: JsonObject) -> tuple[float, ...]:
        """The numbers of one context."""
        return self.encode(self.parse(context))

    def bulk(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """The numbers of many contexts: (n, width); each distinct level is encoded once."""
        index: dict[str | None, int] = {}
        which = [index.setdefault(level, len(index)) for level in self.parsed(contexts)]
        table = np.array([self.encode(level) for level in index], dtype=np.float64).reshape(len(index), -1)
        return table[np.asarray(which, dtype=np.int64)]


@dataclass(frozen=True)
class TextColumn:
    """Hashed words and word pairs of a free text in a few dimensions, centred."""

    kind: ClassVar[str] = "text"
    name: str
    centre: tuple[float, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """One name a number that comes out."""
        return tuple(f"word{i}" for i in range(len(self.centre)))

    @property
    def plain(self) -> tuple[bool, ...]:
        """Words are detail."""
        return (False,) * len(self.centre)

    def row(self, context: JsonObject) -> tuple[float, ...]:
        """The numbers of one context; anything but a text is neutral."""
        value = context.get(self.name)
        if not isinstance(value, str):
            return (0.0,) * len(self.centre)
        return tuple((text_vector(value, len(self.centre)) - np.asarray(self.centre)).tolist())

    def bulk(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """The numbers of many contexts: (n, width)."""
        return np.array([self.row(context) for context in contexts], dtype=np.float64).reshape(len(contexts), -1)


Column = NumberColumn | CategoryColumn | TextColumn
_KINDS: dict[str, type[NumberColumn] | type[CategoryColumn] | type[TextColumn]] = {
    column.kind: column for column in (NumberColumn, CategoryColumn, TextColumn)
}


def to_json(column: Column) -> dict[str, Any]:
    """A column as JSON; ``from_json`` gives an equal one, but for ``within``, which older versions can't read there."""
    told = {"kind": column.kind, **asdict(column)}
    told.pop("within", None)
    if not told.get("age", True):
        # As it was written before there were ages: the hash of a stored spec must not change.
        del told["age"]
    return told


def from_json(data: JsonObject, within: Sequence[float] | None = None) -> Column:
    """The column written by ``to_json``; raises ``KeyError`` or ``TypeError`` on anything else.

    ``within``: which numbers are believed, two of them."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key != "kind"}
    if within is not None:
        low, high = within
        fields["within"] = (float(low), float(high))
    kind: Any = _KINDS[data["kind"]]
    column: Column = kind(**fields)
    return column
