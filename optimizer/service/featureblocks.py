"""Blocks of newly decided contexts against the rows that a model was trained on.

What the training rows looked like is in the model's feature spec: a number's quantiles, a category's shares, how often
a value is missing. So where a workspace has one campaign nothing else has to be kept, and the comparison is with
exactly what the model knows. Of several campaigns that share a model each is compared with its own training rows, whose
counts the model keeps (``model.featurebins.own_counts``): they differ in what they send, and that is no change.

Who is decided for changes with the hour: regions wake one after the other, and a caller goes through a list country by
country. So a block covers whole days, with all rows of theirs. And rows of one person are alike: a block is worth as
many independent rows as (Σn)² / Σn² of the rows n that each person has in it (Kish 1965).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from optimizer.bandit.drift import compare
from optimizer.model.columns import Column
from optimizer.model.featurebins import Floats, counts, expected_shares
from optimizer.model.features import FeatureSpec
from storage.records import JsonObject

#: Decisions of a block, at least.
BLOCK_ROWS: Final = 1_000
#: Seconds that a block covers, at least; it covers a whole number of them.
BLOCK_SECONDS: Final = 86_400.0
#: Chance that a block of unchanged features raises an alarm, over all features together.
BLOCK_ERROR: Final = 0.001
#: Rows are counted by person in so many slots, into which people fall by a hash: Σn² is known to √(2/256) = 9 %, and
#: nothing is stored that names anybody.
_SLOTS: Final = 256
#: Rows that are counted together.
_CHUNK: Final = 1_000
#: Where a stored block keeps its days and slots: among the counts, beside features, whose names can't begin so. A
#: version that knows only rows and counts reads such a block too.
_DAYS_KEY, _SLOTS_KEY = "@days", "@slots"


@dataclass(frozen=True)
class Block:
    """A block that is being filled.

    Attributes:
        spec: hash of the spec that it is read by.
        rows: how many it has.
        counts: of each feature's bins.
        since: time of its first row, until: end of the last day that it has reached, in epoch seconds (0 before its
            first row).
        slots: rows by slot of their recipients.
    """

    spec: str
    rows: int
    counts: Mapping[str, Sequence[float]]
    since: float = 0.0
    until: float = 0.0
    slots: Sequence[int] = field(default=(0,) * _SLOTS)

    def to_json(self) -> dict[str, Any]:
        """For the run's verdict; ``from_json`` gives an equal one."""
        more = {_DAYS_KEY: [self.since, self.until], _SLOTS_KEY: list(self.slots)}
        return {"spec": self.spec, "rows": self.rows, "counts": {**self.counts, **more}}

    @classmethod
    def from_json(cls, data: JsonObject) -> Block:
        """What ``to_json`` wrote; one that doesn't say which days it covers begins anew."""
        found = dict(data["counts"])
        days, slots = found.pop(_DAYS_KEY, None), found.pop(_SLOTS_KEY, None)
        if days is None or slots is None:
            return empty_block(str(data["spec"]))
        return cls(str(data["spec"]), int(data["rows"]), found, float(days[0]), float(days[1]), tuple(map(int, slots)))


def empty_block(spec: str) -> Block:
    """A block before its first row."""
    return Block(spec, 0, {})


class Filling:
    """Fills blocks with contexts, in order of time, and compares each that is full at the end of a day of its.

    Attributes:
        shifts: of each feature in the last full block (stability index, limit): it has shifted where the index is
            above its limit; empty while no block became full.
    """

    def __init__(
        self, block: Block, spec: FeatureSpec, trained: int, own: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        """Goes on with a block.

        Args:
            block: the one that is being filled; one of another spec is thrown away.
            spec: the served model's features.
            trained: rows that it was trained on.
            own: of each column how many training rows of this campaign are in each bin; none = nothing to compare with
                (None = as the spec says of all rows).
        """
        self._spec = spec
        self._older = {c.name: _older(c, trained, own) for c in spec.columns}
        self.shifts: dict[str, tuple[float, float]] = {}
        self._begin(block if block.spec == spec.hash else empty_block(spec.hash))

    def take(self, at: float, recipient_id: str, context: JsonObject) -> None:
        """Takes a newly decided context with its moment (``model.moment``), decided for whom and when."""
        self._reach(at)
        if self._rows == 0:
            self._since, self._until = at, at + BLOCK_SECONDS
        self._rows += 1
        self._slots[blake2b(recipient_id.encode(), digest_size=1).digest()[0]] += 1
        self._waiting.append(context)
        if len(self._waiting) == _CHUNK:
            self._count()

    def at(self, now: float) -> Block:
        """The block that is being filled as of then."""
        self._reach(now)
        self._count()
        found = {name: [float(x) for x in count] for name, count in self._counts.items()}
        return Block(self._spec.hash, self._rows, found, self._since, self._until, tuple(self._slots.tolist()))

    def _begin(self, block: Block) -> None:
        self._rows, self._since, self._until = block.rows, block.since, block.until
        self._slots = np.array(block.slots, dtype=np.int64)
        self._counts = {name: np.asarray(count, dtype=np.float64) for name, count in block.counts.items()}
        self._waiting: list[JsonObject] = []

    def _reach(self, at: float) -> None:
        """Where a day of the block is over: compares the block if it is full, else lets it go on for a day."""
        if self._rows == 0 or at < self._until:
            return
        if self._rows < BLOCK_ROWS:
            self._until += BLOCK_SECONDS * (1.0 + (at - self._until) // BLOCK_SECONDS)
            return
        self._count()
        error = BLOCK_ERROR / max(1, len(self._spec.columns))
        worth = self._independent() / self._rows
        for name, newer in self._counts.items():
            found = compare(self._older[name], worth * newer, error)
            self.shifts[name] = (found.stability, found.limit)
        self._begin(empty_block(self._spec.hash))

    def _count(self) -> None:
        if not self._waiting:
            return
        for column in self._spec.columns:
            more = counts(column, self._waiting)
            self._counts[column.name] = self._counts[column.name] + more if column.name in self._counts else more
        self._waiting = []

    def _independent(self) -> float:
        """How many rows of different people the block is worth, at most its rows.

        A slot's rows are those of its people, so the squares of slots come to Σn² and a chance share of the rest.
        """
        chance = self._rows**2 / _SLOTS
        squares = (float(self._slots @ self._slots) - chance) / (1.0 - 1.0 / _SLOTS)
        return self._rows / max(1.0, squares / self._rows)


def _older(column: Column, trained: int, own: Mapping[str, Sequence[float]] | None) -> Floats:
    expected = expected_shares(column)
    if own is None:
        return trained * expected
    return np.asarray(own.get(column.name, np.zeros(len(expected))), dtype=np.float64)
