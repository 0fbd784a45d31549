"""How long after the end of an attribution window it is still reported what happened within it.

Who reports from a file once a week, or a night's orders the morning after, tells of some of it only when the window has
long passed. A row is a "no" for a detector of drift once nearly all of that is in; before, it would say that outcomes
happen less often than they do. The share known by then is estimated as that of ``bandit.hazards`` is, from rows old
enough to have shown it, with the same weight on "nothing comes late".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final

import numpy as np

from optimizer.bandit.hazards import PRIOR_EVENTS, Curve, fit_curve
from optimizer.bandit.rewards import clock_start, outcome_ends
from optimizer.bandit.spoken import window_hours
from optimizer.model.training.findings import Finding
from optimizer.model.training.quality import Quality
from optimizer.service.feedback import Log

#: Edges in hours after the end of a window, as far as they lie below the last one.
EDGES_HOURS: Final = (0.0, 0.5, 2.0, 6.0, 24.0, 72.0, 168.0)
#: The last edge: so many windows, and a week at least.
FOLLOWED: Final = 2.0
LEAST_FOLLOWED: Final = 168.0
#: Outcomes are taken as known once this share of what happened within the window is.
KNOWN: Final = 0.95
#: An outcome is called late where less than this share is known when the window ends, by so many events.
LEAST_PROMPT: Final = 0.9
LEAST_EVENTS: Final = 20
#: Of each campaign and outcome, the share known by hours after the end of the window.
Lateness = Mapping[str, Mapping[str, Curve]]


def lateness_of(log: Log) -> dict[str, dict[str, Curve]]:
    """How late the outcomes in a log that was read whole became known (imported rows tell nothing of it)."""
    heard: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in log.rows:
        if row.decision.imported or not row.trainable or not row.started:
            continue
        told = [(name, one.heard) for name, one in row.outcomes.items() if one.heard is not None]
        if not told:
            continue
        start = clock_start(row.decision)
        ends = outcome_ends(log.campaigns[row.decision.campaign_id], row.decision)
        for name, at in told:
            late, age = _hours(at - ends[name]), row.age - _hours(ends[name] - start)
            heard.setdefault((row.decision.campaign_id, name), []).append((max(0.0, late), age))
    found: dict[str, dict[str, Curve]] = {}
    for (campaign_id, name), times in heard.items():
        last = max(LEAST_FOLLOWED, FOLLOWED * window_hours(log.campaigns[campaign_id], name))
        bins = np.array([*(edge for edge in EDGES_HOURS if edge < last), last])
        late, ages = np.array(times).T
        found.setdefault(campaign_id, {})[name] = fit_curve(late, ages, bins, np.ones(bins.size), PRIOR_EVENTS)
    return found


def known_after(curve: Curve) -> float:
    """Hours after the end of the window until an outcome is taken as known: an edge of the curve."""
    return float(curve.hours[int(np.argmax(curve.share >= KNOWN))])


def waits(late: Lateness) -> dict[str, float]:
    """Hours after the end of its windows until all outcomes of a campaign are taken as known; 0 where nothing is."""
    return {name: max(map(known_after, curves.values()), default=0.0) for name, curves in late.items()}


def with_late(quality: Quality, log: Log) -> Quality:
    """What was found in the data, with the outcomes that are mostly reported after their windows."""
    found = sorted((*quality.findings, *_late(log)), key=lambda one: (one.feature, one.problem))
    return replace(quality, findings=tuple(found))


def _late(log: Log) -> Iterable[Finding]:
    for campaign_id, curves in lateness_of(log).items():
        for name, curve in curves.items():
            share = float(curve.share[0])
            if share < LEAST_PROMPT and curve.events >= LEAST_EVENTS:
                window = window_hours(log.campaigns[campaign_id], name)
                detail = (
                    f"of what happens within {window:g} hours in campaign {campaign_id}, {share:.0%} is reported "
                    f"by their end, and {KNOWN:.0%} {known_after(curve):g} hours later"
                )
                yield Finding(name, "late", share, LEAST_PROMPT, left_out=False, detail=detail)


def _hours(span: timedelta) -> float:
    return span / timedelta(hours=1)
