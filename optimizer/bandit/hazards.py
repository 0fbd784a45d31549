"""How much of an outcome is seen by when: the share G(e) of its happenings known e hours after the clock began.

A row that is e hours old and shows no outcome yet says 1 − p·G(e), not "no" (Chapelle 2014; Vernade et al. 2020). G is
estimated from the delays of what has happened. Those are truncated on the right: of young rows only quick outcomes are
known, so plain frequencies would call every outcome quick. The product-limit estimate runs backwards in time for that
(Lynden-Bell 1971; Kalbfleisch & Lawless 1989): the reverse hazard of a bin is the share that it holds of the events up
to its end, among rows old enough to have shown the whole bin. Between edges G is linear in log time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Edges of the bins in hours, as far as they lie below the attribution window, which is the next one.
EDGES_HOURS = (5.0 / 60.0, 0.5, 2.0, 6.0, 24.0, 72.0, 168.0)
#: The last edge, in windows: what occurred within the window may become known after it, and delays are followed so far.
FOLLOWED = 2.0
#: Events that the curve one starts from weighs as much as, in every bin: equal bins for an outcome's own curve, the
#: outcome's own for a channel's.
PRIOR_EVENTS = 20.0
CHANNEL_EVENTS = 100.0


@dataclass(frozen=True)
class Delays:
    """What has happened of one outcome: m events with how long they took to be known, from which rows.

    Attributes:
        hours: (m,) hours from the start of the clock until the event was known (0 when it was known before).
        age: (m,) hours from the start of the row's clock until now.
        channel: the m rows' channels; "" without a message.
    """

    hours: Floats
    age: Floats
    channel: Sequence[str]


@dataclass(frozen=True)
class Curve:
    """G at the edges: hours (k,) ascending, share (k,) in (0, 1], 1 at the last edge. ``events`` it rests on."""

    hours: Floats
    share: Floats
    events: int

    def at(self, age: ArrayLike) -> Floats:
        """G at ages in hours: linear in time up to the first edge (0 at 0), in log time after it, 1 past the last."""
        given = np.asarray(age, dtype=np.float64)
        later = np.interp(np.log(np.maximum(given, self.hours[0])), np.log(self.hours), self.share)
        first = self.share[0] * np.maximum(given, 0.0) / self.hours[0]
        share: Floats = np.where(given < self.hours[0], first, later)
        return share


@dataclass(frozen=True)
class Hazard:
    """The curves of one outcome with one attribution window (hours): over all channels, and by channel."""

    window: float
    pooled: Curve
    channels: Mapping[str, Curve]

    def seen(self, age: ArrayLike, channel: str) -> Floats:
        """Share in [0, 1] of what happens that is known by an age in hours; 1 from the window on, as for the reward."""
        given = np.asarray(age, dtype=np.float64)
        curve = self.channels.get(channel, self.pooled)
        share: Floats = np.where(given >= self.window, 1.0, curve.at(given))
        return share

    def to_json(self) -> dict[str, Any]:
        """For people: hours, and the share known by then, over all channels and by channel."""
        return {
            "window_hours": self.window,
            "events": self.pooled.events,
            "hours": np.round(self.pooled.hours, 4).tolist(),
            "seen": np.round(self.pooled.share, 4).tolist(),
            "channels": {name: np.round(c.share, 4).tolist() for name, c in sorted(self.channels.items())},
        }


def edges(window: float) -> Floats:
    """Edges of the bins in hours: those of ``EDGES_HOURS`` below the window, the window, and the last one."""
    return np.array([*(edge for edge in EDGES_HOURS if edge < window), window, FOLLOWED * window])


def fit_hazard(delays: Delays, window: float) -> Hazard:
    """The curves of one outcome with an attribution window in hours (> 0).

    Without events every bin up to the window has the same share, and nothing is known later than that.
    """
    bins = edges(window)
    equal = np.minimum(np.arange(1, bins.size + 1) / (bins.size - 1), 1.0)
    pooled = fit_curve(delays.hours, delays.age, bins, equal, PRIOR_EVENTS)
    names = np.asarray(delays.channel, dtype=np.str_)
    own = {}
    for name in np.unique(names).tolist():
        here = names == name
        own[str(name)] = fit_curve(delays.hours[here], delays.age[here], bins, pooled.share, CHANNEL_EVENTS)
    return Hazard(window, pooled, own)


def fit_curve(hours: Floats, age: Floats, bins: Floats, start: Floats, weight: float) -> Curve:
    """G by the reverse product limit: G(e_k) = Π_{j>k} (1 − q_j), q_j = (n_j + w·q⁰_j) / (N_j + w).

    n_j are the events of bin (e_{j−1}, e_j] from rows of age e_j at least, N_j those of all bins up to it from such
    rows. An age within a bin counts as the bin's start: what came after that is left out.

    Args:
        hours: (m,) delays. age: (m,) of each one's row.
        bins: (k,) edges. start: (k,) G of the curve to start from, which gives q⁰. weight: w, in events.
    """
    place = np.searchsorted(bins, hours, side="left")  # bin j holds (e_{j−1}, e_j]
    reached = np.searchsorted(bins, age, side="right") - 1  # the last edge that the row has passed
    used = place <= reached
    before = np.concatenate(([0.0], start[:-1]))
    reverse = np.empty(bins.size)
    for j in range(bins.size):
        at_risk = used & (place <= j) & (reached >= j)
        inside = float(np.count_nonzero(at_risk & (place == j)))
        prior = 1.0 - before[j] / start[j]
        reverse[j] = (inside + weight * prior) / (float(np.count_nonzero(at_risk)) + weight)
    later = np.cumprod((1.0 - reverse[1:])[::-1])[::-1]
    return Curve(bins, np.concatenate((later, [1.0])), int(np.count_nonzero(used)))
