"""Is the log fit to learn from at all? Absurd data is refused with a reason, and the incumbent stays.

Asked of each campaign by itself, before anything is trained or refreshed; the rows of a refused campaign teach no other
either, since one model is trained for the whole workspace. These are faults of the data; weak evidence is the gate's
business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from optimizer.bandit.conditions import condition
from optimizer.bandit.evidence import Condition
from optimizer.bandit.ope import TINY_PROPENSITY
from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.service.feedback import Log, Logged
from optimizer.service.runs import LEAST_ROWS
from storage.records import Campaign

#: More than this share of rows with times in the wrong order is no skew of clocks.
MOST_DISORDERED = 0.01
#: More than this share of the contexts' values that are not finite means that their source is broken. Null is no value:
#: it says that nothing is known, which is ordinary.
MOST_ENDLESS = 0.5
#: Values are counted in about so many rows, evenly spread: what is broken at its source is so everywhere.
_ROWS_FINITE = 20_000
#: Share of rows that a single impossible propensity already exceeds: the log is the service's own, or was checked.
_NONE = 0.0


def sound(log: Log) -> tuple[Log, dict[str, list[Condition]]]:
    """The log without the campaigns whose data is absurd, and what is wrong with those that have enough rows."""
    refused = {}
    for name, campaign in log.campaigns.items():
        rows = log.of(name)
        failed = [c for c in soundness(campaign, rows) if not c.passed] if rows else []
        # Too few rows to show anything yet is no fault of the data; they may teach, and are checked again later.
        if failed and len(rows) >= LEAST_ROWS:
            refused[name] = failed
    return log.without(refused), refused


def soundness(campaign: Campaign, rows: Sequence[Logged]) -> list[Condition]:
    """What is asked of a campaign's rows; training is refused when a condition fails.

    Args:
        campaign: as it is now.
        rows: its rows, in order of time.
    """
    learned = [row for row in rows if row.trainable and row.matured]
    return [
        _rewarded(campaign, learned, unconfirmed(rows)),
        _share("data.propensities", rows, _impossible, _NONE, "have a propensity outside (0, 1], or below 1 alone"),
        _share("data.rewards", rows, lambda r: not math.isfinite(r.reward), _NONE, "have a reward that isn't finite"),
        _share("data.times", rows, _disordered, MOST_DISORDERED, "were sent before they were decided"),
        _finite(rows),
    ]


def unconfirmed(rows: Sequence[Logged]) -> str:
    """What to say of messages that teach nothing because nobody has said whether they went out; "" = there are none."""
    count = sum(row.decision.status in ("expired", "assumed_sent") and not row.trainable for row in rows)
    if not count:
        return ""
    return f"; {count} messages more teach nothing: nobody confirmed them or told that they were delivered"


def _rewarded(campaign: Campaign, learned: Sequence[Logged], lacking: str) -> Condition:
    """Some outcome of the objective happened in some rows and not in others; ``lacking``: see ``unconfirmed``."""
    cases = {name: sum(_happened(row, name) for row in learned) for name in sorted(campaign.objective)}
    most = max((min(count, len(learned) - count) for count in cases.values()), default=0)
    told = ", ".join(f"{name} in {count}" for name, count in cases.items()) or "the objective names no outcome"
    detail = f"rows of the rarer kind of the most varied outcome; of {len(learned)} matured rows: {told}{lacking}"
    return condition("data.outcomes", most >= 1, most, 1, detail)


def _happened(row: Logged, name: str) -> bool:
    outcome = row.outcomes.get(name)
    return outcome is not None and outcome.happened


def _impossible(row: Logged) -> bool:
    """A propensity that no distribution over the eligible set gives. None means not known, and is not judged."""
    p, decision = row.decision.propensity, row.decision
    if p is None:
        return False
    alone = decision.eligible_actions == 1 and not decision.imported and not abs(p - 1.0) <= 1e-6
    # Imports kept whatever was positive once. What is too small to weigh by is another system's, and spoils nothing:
    # off-policy evaluation leaves such rows out (``Logged.drawn``).
    least = 0.0 if decision.imported else TINY_PROPENSITY
    return alone or not least <= p <= 1.0 + 1e-9


def _disordered(row: Logged) -> bool:
    """The times of one clock, ours, are in the wrong order, or a sender's lies further back than clocks go apart."""
    decision = row.decision
    planned = decision.send_at is not None and decision.send_at < decision.decided_at
    really = decision.sent_at is not None and decision.sent_at < decision.decided_at - CLOCK_SKEW
    return planned or really or decision.snapshot.window_end < decision.snapshot.window_start


def _share(name: str, rows: Sequence[Logged], bad: Callable[[Logged], bool], limit: float, what: str) -> Condition:
    found = [row.decision.decision_id for row in rows if bad(row)]
    share = len(found) / len(rows) if rows else 0.0
    first = f", first {found[0]}" if found else ""
    return condition(name, share <= limit, share, limit, f"{len(found)} of {len(rows)} rows {what}{first}")


def _finite(rows: Sequence[Logged]) -> Condition:
    cells = endless = 0
    for row in rows[:: max(1, len(rows) // _ROWS_FINITE)]:
        for name, value in row.decision.snapshot.context.items():
            if value is None or name.startswith("@"):  # ours, such as the history
                continue
            cells += 1
            endless += isinstance(value, float) and not math.isfinite(value)
    share = endless / cells if cells else 0.0
    detail = f"{endless} of {cells} values in the contexts looked at are not finite"
    return condition("data.values", share <= MOST_ENDLESS, share, MOST_ENDLESS, detail)
