"""A campaign's decisions by variant, by channel and by local hour of the week.

The treated got what the policy chose for them: those who got one variant differ from those who got another, so their
row says what happened and not which is better. The random group's row does: chance chose there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optimizer.bandit.rates import rate_bounds
from optimizer.bandit.rewards import HARMFUL
from optimizer.service.compared import LEVEL, Compared
from optimizer.service.ledger import NONE, Ints
from storage.rules import WEEKDAYS

_WEEK = 168


def breakdowns(compared: Compared) -> dict[str, Any]:
    """Lists ``by_variant``, ``by_channel`` (each value with ``treated`` and ``random``) and ``by_hour``."""
    ledger = compared.ledger
    return {
        "by_variant": _by(compared, "variant", ledger.variants, ledger.variant),
        "by_channel": _by(compared, "channel", ledger.channels, ledger.channel),
        "by_hour": _by_hour(compared),
    }


def _by(compared: Compared, kind: str, names: tuple[str, ...], codes: Any) -> list[dict[str, Any]]:
    """Rows in the order of their number of decisions; what was not sent has the name null."""
    found = []
    for code, name in [*enumerate(names), (NONE, None)]:
        mine = codes == code
        if not mine.any():
            continue
        row: dict[str, Any] = {kind: name, "decisions": int(mine.sum())}
        for group in ("treated", "random"):
            rows = compared.groups[group].rows
            row[group] = _figures(compared, rows[mine[rows]])
        found.append(row)
    return sorted(found, key=lambda row: (-row["decisions"], row[kind] is None, row[kind] or ""))


def _figures(compared: Compared, chosen: Ints) -> dict[str, Any] | None:
    """What came of some compared decisions; None for none."""
    if not chosen.size:
        return None
    ledger, rows = compared.ledger, int(chosen.size)
    counts = {name: int(np.count_nonzero(found.happened[chosen])) for name, found in ledger.outcomes.items()}
    return {
        "compared": rows,
        "value": compared.part(chosen).mean(ledger.reward, ledger.worth),
        "outcomes": counts,
        "harms": {
            name: dict(zip(("low", "high"), rate_bounds(counts[name], rows, LEVEL), strict=True))
            for name in sorted(HARMFUL)
        },
    }


def _by_hour(compared: Compared) -> list[dict[str, Any]]:
    """Messages of the treated by the local hour that they were planned for; hours without any are left out."""
    ledger = compared.ledger
    treated = compared.groups["treated"].rows
    rows = treated[ledger.variant[treated] != NONE]
    hour = ledger.hour[rows]
    count = np.bincount(hour, minlength=_WEEK)
    value = np.bincount(hour, weights=ledger.reward[rows], minlength=_WEEK)
    happened = {
        name: np.bincount(hour[found.happened[rows]], minlength=_WEEK) for name, found in ledger.outcomes.items()
    }
    return [
        {
            "weekday": WEEKDAYS[h // 24],
            "hour": h % 24,
            "compared": int(count[h]),
            "value": float(value[h] / count[h]),
            "outcomes": {name: int(bins[h]) for name, bins in happened.items()},
        }
        for h in np.flatnonzero(count).tolist()
    ]
