"""The decisions that a report compares, and how estimates of them are answered.

A decision is compared once all its attribution windows have passed, counted from the latest moment that it could have
planned a message for: which rows are in hangs neither on what was drawn nor on what came of it. Looks are at midnight
UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np

from optimizer.bandit.lift import Estimate, Rows, mean_of
from optimizer.service.ledger import DAY, GROUPS, MODES, Floats, Ints, Ledger, Mask
from storage.log import Group
from storage.records import GroupShares

LEVEL: Final = 0.95
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Compared:
    """The decisions that groups are compared on.

    Attributes:
        ledger: all decisions of the period. chosen: (n,) which are compared.
        look: (n,) at which daily look each counts first. epoch: (n,) stretches of equal shares.
    """

    ledger: Ledger
    chosen: Mask
    look: Ints
    epoch: Ints
    today: int

    @cached_property
    def groups(self) -> Mapping[Group, Part]:
        """The compared ones of each group."""
        return {
            group: self.part(np.flatnonzero(self.chosen & (self.ledger.group == code)))
            for code, group in enumerate(GROUPS)
        }

    def part(self, rows: Ints) -> Part:
        """Some compared rows, by their places."""
        return Part(rows, self.ledger.recipient[rows], self.look[rows], self.epoch[rows])


@dataclass(frozen=True)
class Part:
    """Some compared decisions, k of them.

    Attributes:
        rows: (k,) their places in the ledger. unit, look, epoch: (k,) as in ``Rows``.
    """

    rows: Ints
    unit: Ints
    look: Ints
    epoch: Ints

    def of(self, value: Floats, worth: Floats) -> Rows:
        """A value, (n,) over the ledger, as the estimators take it."""
        return Rows(self.unit, self.look, value[self.rows], worth[self.rows], self.epoch)

    def mean(self, value: Floats, worth: Floats) -> dict[str, Any]:
        """Mean of a value with bounds; nulls for no rows."""
        if not self.rows.size:
            return {"estimate": None, "low": None, "high": None}
        return bounds(mean_of(self.of(value, worth), LEVEL))


def compared_of(ledger: Ledger, shares: Mapping[int, GroupShares], now: datetime) -> Compared:
    """What of a ledger is compared at the newest midnight, given the groups' shares at each version."""
    look = -(-ledger.closes // DAY)
    today = (midnight(now) - EPOCH) // timedelta(days=1)
    chosen = (look <= today) & (ledger.mode == MODES.index("live"))
    kinds = {one: code for code, one in enumerate(dict.fromkeys(shares.values()))}
    epoch_of = {version: kinds[one] for version, one in shares.items()}
    versions, place = np.unique(ledger.version, return_inverse=True)
    epoch = np.array([epoch_of[version] for version in versions.tolist()], dtype=np.int64)[place]
    first = int(look[chosen].min()) if chosen.any() else 0
    return Compared(ledger, chosen, look - first, epoch, today - first)


def midnight(now: datetime) -> datetime:
    """The newest midnight UTC."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def bounds(found: Estimate) -> dict[str, Any]:
    """An estimate for an answer: null where nothing can be stated."""
    return {name: finite(number) for name, number in zip(("estimate", "low", "high"), _three(found), strict=True)}


def _three(found: Estimate) -> tuple[float, float, float]:
    return float(found.value), float(found.low), float(found.high)


def finite(number: float) -> float | None:
    """The number; None for an infinite one."""
    return number if math.isfinite(number) else None
