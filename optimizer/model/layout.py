"""The linear structure of a head: which weights exist, and which of them act on a given (variant, channel).

A row's features are Σ over blocks of unit(action) ⊗ segment(context, time). *Units* say what an action shares with
others: everything ("one"), its campaign, channel, variant, the variant's features, the (variant, channel) pair.
*Segments* say what the weight multiplies: 1, parts of the context f(x) (its plain numbers, the details such as bins,
the network's columns: each with prior precisions of its own, so that detail is only believed where it pays), the time
harmonics τ, the weekday, plain numbers x short harmonics, the hour of the day, the hour of the week. So for a fixed
(variant, channel) — a *cell* — a head is linear in one short *base* row, and ``Cell`` maps the head's weights to that
base row's coefficients. Training accumulates its Hessian per cell, serving computes coefficients per cell: both rest on
this map.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.model.cell import Cell
from optimizer.model.timefeatures import (
    HOURS_OF_DAY,
    SHORT,
    TIME_NAMES,
    WEEKDAYS,
    WEEKEND_DAYS,
    harmonics,
    hour_of_week,
)
from storage.records import JsonObject

Unit = Literal["one", "campaign", "channel", "feature", "variant", "pair"]
Segment = Literal["one", "plain", "detail", "network", "time", "weekday", "plain_time", "hour", "week"]
SEGMENTS: tuple[Segment, ...] = ("one", "plain", "detail", "network", "time", "weekday", "plain_time", "hour", "week")

#: Blocks of a message head and the prior precision each starts with; empirical Bayes moves it from there.
MESSAGE_BLOCKS: tuple[tuple[Unit, Segment, float], ...] = (
    ("one", "one", 0.1),
    ("campaign", "one", 5.0),
    ("channel", "one", 5.0),
    ("feature", "one", 5.0),
    ("variant", "one", 5.0),
    ("pair", "one", 10.0),
    ("one", "plain", 10.0),
    ("feature", "plain", 30.0),
    ("variant", "plain", 30.0),
    ("channel", "plain", 30.0),
    ("one", "detail", 30.0),
    ("variant", "detail", 100.0),
    ("channel", "detail", 100.0),
    ("one", "network", 10.0),
    ("feature", "network", 30.0),
    ("variant", "network", 30.0),
    ("channel", "network", 30.0),
    ("one", "time", 5.0),
    ("feature", "time", 10.0),
    ("variant", "time", 10.0),
    ("channel", "time", 10.0),
    ("pair", "time", 10.0),
    ("one", "weekday", 10.0),
    ("variant", "weekday", 10.0),
    ("channel", "weekday", 10.0),
    ("one", "plain_time", 30.0),
    ("one", "hour", 10.0),
    ("one", "week", 10.0),
)
#: Blocks of a no_send head: nothing is sent, so neither variant nor channel nor send time exists.
NO_SEND_BLOCKS: tuple[tuple[Unit, Segment, float], ...] = (
    ("one", "one", 0.1),
    ("campaign", "one", 5.0),
    ("one", "plain", 10.0),
    ("one", "detail", 30.0),
    ("one", "network", 10.0),
)
#: The units that a variant shares with no other.
OWN: frozenset[Unit] = frozenset({"variant", "pair"})
#: Segments of context: which of its features matter is learned, and what doesn't may rest.
CONTEXTUAL: frozenset[Segment] = frozenset({"plain", "detail", "network", "plain_time"})
#: Columns of a layout, by the names of its fields.
PARTS = ("plain", "detail", "network", "time", "weekday", "hour", "week", "owner")
#: Time columns are stored by name; format 2 stored these numbers.
_TIMES_2: dict[Any, str] = dict(
    enumerate(name for i, name in enumerate(TIME_NAMES) if i not in (*WEEKEND_DAYS, *WEEKDAYS))
)


def variant_key(campaign_id: str, variant_id: str) -> str:
    """Key of a variant across campaigns."""
    return f"{campaign_id}\x1f{variant_id}"


@dataclass(frozen=True)
class Action:
    """What a cell is about: keys of its units, and the variant's feature coordinates. None = no_send."""

    campaign_id: str
    variant_id: str | None = None
    channel: str | None = None
    feature: tuple[float, ...] = ()

    def key(self, unit: Unit) -> str | None:
        """Key of the one unit of that kind this action has; None where it has none."""
        if unit == "one":
            return ""
        if unit == "campaign":
            return self.campaign_id
        if self.variant_id is None or self.channel is None:
            return None
        variant = variant_key(self.campaign_id, self.variant_id)
        return {"channel": self.channel, "variant": variant, "pair": f"{variant}\x1f{self.channel}"}[unit]


@dataclass(frozen=True)
class Block:
    """Weights of one unit kind times one segment: ``len(keys)`` rows of ``width``, from ``start`` on."""

    unit: Unit
    segment: Segment
    keys: tuple[str, ...]
    start: int
    width: int
    precision: float

    @property
    def name(self) -> str:
        """E.g. ``variant*context``."""
        return f"{self.unit}*{self.segment}"

    @property
    def size(self) -> int:
        """Number of weights."""
        return len(self.keys) * self.width

    @cached_property
    def position(self) -> dict[str, int]:
        """Row of each key."""
        return {key: i for i, key in enumerate(self.keys)}


@dataclass(frozen=True)
class Layout:
    """The weights of a head.

    Attributes:
        blocks: the weights in order.
        plain, detail, network: the parts of f(x), as positions in it.
        owner: for each position of f(x) the number of the feature that it comes from.
        time, weekday, hour, week: live columns of the time features: those that varied in training.
    """

    blocks: tuple[Block, ...]
    plain: tuple[int, ...]
    detail: tuple[int, ...]
    network: tuple[int, ...]
    time: tuple[int, ...]
    weekday: tuple[int, ...]
    hour: tuple[int, ...]
    week: tuple[int, ...]
    owner: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of weights of a head."""
        return sum(block.size for block in self.blocks)

    @property
    def context(self) -> tuple[int, ...]:
        """All positions in f(x) in the order in which base rows hold them."""
        return (*self.plain, *self.detail, *self.network)

    def columns(self, segment: Segment) -> tuple[object, ...]:
        """What each column of a segment is: positions in f(x), time columns, pairs of both, hours."""
        if segment == "one":
            return ("one",)
        if segment == "plain_time":
            return tuple((time, column) for time in self.short for column in self.plain)
        named: dict[str, tuple[int, ...]] = {
            "plain": self.plain,
            "detail": self.detail,
            "network": self.network,
            "time": self.time,
            "weekday": self.weekday,
            "hour": self.hour,
            "week": self.week,
        }
        return named[segment]

    @cached_property
    def groups(self) -> tuple[tuple[str, float], ...]:
        """Name and starting precision of every group of weights that share a prior precision (see ``group``)."""
        return tuple(
            (name, self.blocks[i].precision) for i, names in enumerate(self._owned) for name in dict.fromkeys(names)
        )

    @cached_property
    def group(self) -> NDArray[np.int64]:
        """(d,) the group of each weight.

        Weights of one block that multiply one feature of the context make a group: which features matter, and for what,
        is learned (automatic relevance determination; MacKay 1994, Neal 1996). Blocks without context are one group.
        """
        place = {name: i for i, (name, _) in enumerate(self.groups)}
        parts = [
            np.tile([place[name] for name in names], len(block.keys))
            for block, names in zip(self.blocks, self._owned, strict=True)
        ]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)

    def columns_of(self, block: Block) -> NDArray[np.int64]:
        """(width,) the group of each column of a block."""
        return self.group[block.start : block.start + block.width]

    @cached_property
    def _owned(self) -> tuple[tuple[str, ...], ...]:
        """For each block the name of each column's group."""
        return tuple(
            tuple(f"{b.name}:{self._owner(column)}" for column in self.columns(b.segment))
            if b.segment in CONTEXTUAL
            else (b.name,) * b.width
            for b in self.blocks
        )

    def _owner(self, column: Any) -> int:
        position = column[1] if isinstance(column, tuple) else column
        return self.owner[position]

    @cached_property
    def short(self) -> tuple[int, ...]:
        """Live time columns that context interacts with."""
        return tuple(i for i in self.time if i < SHORT)

    @cached_property
    def offsets(self) -> dict[Segment, slice]:
        """Where each segment lies in a base row."""
        widths = {segment: len(self.columns(segment)) for segment in SEGMENTS}
        out: dict[Segment, slice] = {}
        start = 0
        for segment in SEGMENTS:
            out[segment] = slice(start, start + widths[segment])
            start += widths[segment]
        return out

    @property
    def base(self) -> int:
        """Length of a base row."""
        return int(self.offsets[SEGMENTS[-1]].stop)

    def cell(self, action: Action, own: float = 1.0) -> Cell:
        """The map of one action; units that have no weights of that key are left out (their mean is 0).

        ``own`` multiplies what the action's variant has of its own (``OWN``).
        """
        runs = tuple(
            (
                block.start + row * block.width,
                self.offsets[block.segment].start,
                block.width,
                factor * own if block.unit in OWN else factor,
            )
            for block in self.blocks
            for row, factor in self.rows_of(block, action)
        )
        source = [np.arange(width) + first for first, _, width, _ in runs]
        target = [np.arange(width) + first for _, first, width, _ in runs]
        scale = [np.full(width, factor) for _, _, width, factor in runs]
        return Cell(np.concatenate(source), np.concatenate(target), np.concatenate(scale), runs)

    def base_rows(
        self, context: NDArray[np.float32], local: NDArray[np.int64], columns: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Base rows (n, base) of embedded contexts (n, F) and local seconds (n,); some ``columns`` (sorted) of them."""
        columns = np.arange(self.base) if columns is None else columns
        out = np.zeros((context.shape[0], len(columns)), dtype=np.float32)
        ends = np.searchsorted(columns, [self.offsets[segment].start for segment in SEGMENTS] + [self.base])
        at = {segment: slice(*ends[i : i + 2].tolist()) for i, segment in enumerate(SEGMENTS)}
        of = {segment: columns[at[segment]] - self.offsets[segment].start for segment in SEGMENTS}
        out[:, at["one"]] = 1.0
        first, parts = columns[at["plain"].start : at["network"].stop] - self.offsets["plain"].start, self.context
        out[:, at["plain"].start : at["network"].stop] = context.take(np.array(parts, np.int64)[first], axis=1)
        if len(of["time"]) or len(of["weekday"]) or len(of["plain_time"]):
            tau = harmonics(local).astype(np.float32)
            out[:, at["time"]] = tau.take(np.array(self.time, np.int64)[of["time"]], axis=1)
            out[:, at["weekday"]] = tau.take(np.array(self.weekday, np.int64)[of["weekday"]], axis=1)
            short, plain = np.divmod(of["plain_time"], max(1, len(self.plain)))
            bounds = at["plain_time"].start + np.searchsorted(short, np.arange(len(self.short) + 1))
            for i, column in enumerate(self.short):
                some = slice(*bounds[i : i + 2].tolist())
                numbers = context.take(np.array(self.plain, np.int64)[plain[short == i]], axis=1)
                np.multiply(numbers, tau[:, column, None], out=out[:, some])
        week = hour_of_week(local)
        _mark(out, at["hour"].start, np.array(self.hour, np.int64)[of["hour"]], week % HOURS_OF_DAY)
        _mark(out, at["week"].start, np.array(self.week, np.int64)[of["week"]], week)
        return out

    def to_json(self) -> dict[str, Any]:
        """The layout as JSON; ``from_json`` gives an equal one."""
        return {
            "blocks": [[b.unit, b.segment, list(b.keys), b.start, b.width, b.precision] for b in self.blocks],
            **{part: list(getattr(self, part)) for part in PARTS},
            **{part: [TIME_NAMES[column] for column in getattr(self, part)] for part in ("time", "weekday")},
        }

    @classmethod
    def from_json(cls, data: JsonObject) -> Layout:
        """The layout written by ``to_json``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on anything else."""
        blocks = tuple(
            Block(unit, segment, tuple(keys), start, width, precision)
            for unit, segment, keys, start, width, precision in data["blocks"]
        )
        parts = {part: tuple(data[part]) for part in PARTS if part != "weekday"}
        for part in ("time", "weekday"):  # older models know no weekdays
            parts[part] = tuple(TIME_NAMES.index(_TIMES_2.get(column, column)) for column in data.get(part, ()))
        return cls(blocks, **parts)

    def rows_of(self, block: Block, action: Action) -> list[tuple[int, float]]:
        """The rows of a block that act on an action, each with its factor."""
        if block.unit == "feature":
            return [(i, value) for i, value in enumerate(action.feature[: len(block.keys)]) if value != 0.0]
        key = action.key(block.unit)
        row = None if key is None else block.position.get(key)
        return [] if row is None else [(row, 1.0)]


def _mark(out: NDArray[np.float32], start: int, live: NDArray[np.int64], bucket: NDArray[np.int64]) -> None:
    """Writes the one-hot of ``bucket`` over the live buckets."""
    if not len(live):
        return
    place = np.full(max(int(bucket.max(initial=0)), int(live.max())) + 1, -1)
    place[live] = np.arange(len(live))
    hit = place[bucket]
    rows = np.flatnonzero(hit >= 0)
    out[rows, start + hit[rows]] = 1.0
