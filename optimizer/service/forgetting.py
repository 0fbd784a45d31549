"""Forgetting: once outcomes have changed, rows from before the change fade out of training.

Row number k before the change (the newest is 0) is kept with probability 2^(−k/250), by a keyed hash of its decision,
so each row's fate is the same at every retrain and refresh and the kept rows are those of exponential weights, in the
mean: some 360 old rows stay, however many there were. What fades also widens the posterior, and so explores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from optimizer.service.feedback import Logged

#: Old rows of a campaign after which the chance of being kept has fallen to a half.
HALF_LIFE_ROWS = 250.0


def remembered(rows: Sequence[Logged], changed: Mapping[str, float]) -> list[Logged]:
    """The rows that training still reads, in order.

    Args:
        rows: in order of time.
        changed: campaign -> time of the last change of its outcomes, in epoch seconds; others forget nothing.
    """
    if not changed:
        return list(rows)
    kept: list[Logged] = []
    age: dict[str, int] = {}
    for row in reversed(rows):
        decision = row.decision
        change = changed.get(decision.campaign_id)
        if change is None or decision.decided_at.timestamp() >= change:
            kept.append(row)
            continue
        k = age.get(decision.campaign_id, 0)
        age[decision.campaign_id] = k + 1
        if _share(decision.decision_id) < 2.0 ** (-k / HALF_LIFE_ROWS):
            kept.append(row)
    return kept[::-1]


def _share(name: str) -> float:
    """A number in [0, 1) that belongs to this decision."""
    digest = blake2b(name.encode(), digest_size=8, person=b"sendtide.forget").digest()
    return float(int.from_bytes(digest, "little")) * 2.0**-64
