"""The numbers that a policy's exploration is computed with: how far annealed, which variants are young or late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optimizer.model.policy import LATE_FROM, young_below
from optimizer.service.driftstate import Drift
from optimizer.service.feedback import Logged
from optimizer.service.settledrows import Facts
from storage.records import JsonObject

#: Rows over which the exploration rate falls to a half: rate x 1 / (1 + n / ANNEAL_ROWS).
ANNEAL_ROWS = 20_000


def exploration_numbers(rows: Sequence[Logged], drift: Drift | None = None, before: Facts | None = None) -> JsonObject:
    """The numbers that a policy's exploration is computed with: annealing, which variants are still young, and which
    came late.

    ``rows`` are the campaign's, ``before`` what is counted of earlier ones; matured ones count. ``told`` is what all of
    them have told, for the next refresh.

    Once outcomes have changed, only later rows count: what was settled is open again, and so are its variants. While an
    alarm stands nothing is annealed; the alarm stands beside the numbers.
    """
    found = Facts.of(rows, drift.changed if drift is not None else None)
    found = found if before is None else before + found
    matured = dict(found.matured or {})
    numbers: dict[str, Any] = {
        "anneal": 1.0 if drift is not None and drift.raised else 1.0 / (1.0 + found.known / ANNEAL_ROWS),
        "matured_rows": matured,
        "young_below": young_below(matured),
        "late_rows": _late(found, matured),
        "rows": found.rows,
        "told": found.told,
    }
    return {**numbers, "drift": drift.told()} if drift is not None and drift.alarms else numbers


def _late(found: Facts, matured: Mapping[str, int]) -> dict[str, int | None] | None:
    """For each variant that anything is known of the matured rows that count, if it came late, else None; None for all
    while whoever comes is early."""
    if found.rows < LATE_FROM:
        return None
    return {v: matured.get(v, 0) if n >= LATE_FROM else None for v, n in (found.before or {}).items()}
