"""What one rule masks, for many recipients at once, and the reasons that are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import NamedTuple

from optimizer.bandit.stretches import NEVER, Blocked, Times
from storage.log import Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What a reason notes of a limit that lets nothing out at any time.
NO_LIMIT = "limit 0: never"


class Finding(NamedTuple):
    """What a rule (or consent, suppression, requires) masks of N questions.

    Attributes:
        rule_id: as in the reason.
        kind: as in the reason.
        masked: (N,) int64, how many message actions it masks alone.
        opens: (N,) int64 microseconds since 1970, ``NEVER`` if not known.
        dry_run: whether it only reports.
        zero: (N,) bool, whether the limit is 0; None: nowhere.
    """

    rule_id: str
    kind: str
    masked: Times
    opens: Times
    dry_run: bool = False
    zero: Blocked | None = None


def reasons(findings: Sequence[Finding], count: int) -> list[tuple[Reason, ...]]:
    """The reasons of each of ``count`` questions, in the order of the findings."""
    told: list[list[Reason]] = [[] for _ in range(count)]
    for finding in findings:
        zeros = repeat(False, count) if finding.zero is None else finding.zero.tolist()
        known: dict[tuple[int, int, bool], Reason] = {}  # many recipients have the same reason
        numbers = zip(finding.masked.tolist(), finding.opens.tolist(), zeros, strict=True)
        for mine, key in zip(told, numbers, strict=True):
            if not key[0]:
                continue
            reason = known.get(key)
            if reason is None:
                masked, opens, zero = key
                note = NO_LIMIT if zero else ""
                reason = Reason(finding.rule_id, finding.kind, masked, moment(opens), finding.dry_run, note)
                known[key] = reason
            mine.append(reason)
    return [tuple(one) for one in told]


def moment(us: int) -> datetime | None:
    """The instant of so many microseconds since 1970; None if ``datetime`` can't say it (years 1 to 9999)."""
    if us == NEVER:
        return None
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return None
