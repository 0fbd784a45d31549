"""When outcomes come: log-normal hours after the send; and which come too late to count."""

from __future__ import annotations

import math

from simulations.world.spec import Delays


def hours_until(delays: Delays, outcome: str, normal: float) -> float:
    """Hours from the send to an outcome, for a standard normal number."""
    median: float = getattr(delays, outcome)
    return median * math.exp(delays.spread * normal)


def within(delays: Delays, outcome: str, window_hours: float) -> float:
    """The share of outcomes that come within the attribution window."""
    median: float = getattr(delays, outcome)
    z = math.log(window_hours / median) / delays.spread
    return 0.5 * math.erfc(-z / math.sqrt(2.0))
