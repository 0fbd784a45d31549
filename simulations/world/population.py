"""The people of a world: what is known of them, and what is not.

Features are noisy signs of habits: they are drawn first, habits follow from them (``tastes``, ``rhythms``), and each
person deviates by a part of their own that is independent of every feature. That order is what makes the best choice by
the features exactly computable: the personal part has mean 0 and a known spread whatever the features are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.world.spec import CHANNEL_NAMES, ZONES, WorldSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WORKS = ("office", "shift", "student", "home", "retired")
DEVICES = ("desktop", "phone", "tablet")
TOPICS = ("savings", "culture", "practice", "outdoors")
CITIES = ("town", "village", "city")
SOURCES = ("shop", "web", "partner", "fair")
TIERS = ("none", "silver", "gold")
LANGUAGES = ("de", "en", "fr", "pl", "tr")
_WORK_SHARE = (0.36, 0.14, 0.18, 0.16, 0.16)
_AGE = {"office": (42, 10), "shift": (39, 11), "student": (23, 3), "home": (41, 12), "retired": (69, 6)}
#: Of four harmonics (once and twice a day, cosine and sine) a personal rhythm has this many coefficients.
RHYTHM = 4
#: What share of ``spend`` is missing.
MISSING = 0.2


@dataclass(frozen=True)
class Population:
    """N people.

    Attributes:
        work, device, zone, tier: (N,) positions in the tuples above.
        age, tenure, orders, morning, visits, noise: (N,) numbers.
        interest: (N, 4) noisy scores in [0, 1] of interest in each topic.
        content, channel, rhythm, level: (N, V), (N, C), (N, 4), (N, 2) personal parts; no feature tells of them.
        scanned: (N,) whether a machine opens this person's mail.
        attributes: N dictionaries: all that the service is told.
    """

    work: Ints
    device: Ints
    zone: Ints
    tier: Ints
    age: Floats
    tenure: Floats
    orders: Floats
    morning: Floats
    visits: Floats
    noise: Floats
    interest: Floats
    content: Floats
    channel: Floats
    rhythm: Floats
    level: Floats
    scanned: NDArray[np.bool_]
    attributes: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.work)

    def zone_name(self, person: int) -> str:
        """IANA name of a person's time zone."""
        return ZONES[int(self.zone[person])]


def populate(spec: WorldSpec, rng: np.random.Generator) -> Population:
    """Draws the people of a world; the same generator state gives the same people."""
    n = spec.recipients
    work = rng.choice(len(WORKS), size=n, p=_WORK_SHARE)
    age = np.array([rng.normal(*_AGE[WORKS[w]]) for w in work]).clip(16, 92).round()
    young = 1 / (1 + np.exp((age - 40) / 9))
    shares = np.stack([0.75 - 0.6 * young, 0.1 + 0.6 * young, np.full(n, 0.15)], axis=1)
    device = (rng.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, len(DEVICES) - 1)
    leaning = rng.gamma(1.2, size=(n, len(TOPICS)))
    interest = leaning / leaning.sum(axis=1, keepdims=True)
    interest = (np.sqrt(interest) + 0.05 * rng.standard_normal(interest.shape)).clip(0, 1).round(3)
    orders = rng.poisson(rng.gamma(1.0, 2.0, size=n)).astype(np.float64)
    drawn = {
        "work": work.astype(np.int64),
        "device": device.astype(np.int64),
        "zone": rng.choice(len(ZONES), size=n, p=(0.5, 0.25, 0.15, 0.1)).astype(np.int64),
        "tier": (rng.random(n) * 2 + np.tanh(orders / 6)).astype(np.int64).clip(0, len(TIERS) - 1),
        "age": age,
        "tenure": rng.lognormal(5.5, 1.0, n).round(),
        "orders": orders,
        "morning": (rng.standard_normal(n) + 0.6 * (work == WORKS.index("retired"))).round(3),
        "visits": rng.poisson(rng.gamma(2.0, 2.0, size=n)).astype(np.float64),
        "noise": rng.standard_normal(n).round(3),
        "interest": interest,
    }
    idle = _idle(n, orders, rng)
    own = spec.personal
    return Population(
        **drawn,
        content=own.content * rng.standard_normal((n, spec.variants)),
        channel=own.channel * rng.standard_normal((n, len(CHANNEL_NAMES))),
        rhythm=own.rhythm * rng.standard_normal((n, RHYTHM)) / np.sqrt(RHYTHM / 2),
        level=own.level * rng.standard_normal((n, 2)),
        scanned=rng.random(n) < spec.scanned,
        attributes=tuple({**_told(drawn, i), **idle[i]} for i in range(n)),
    )


def _told(drawn: dict[str, Any], i: int) -> dict[str, Any]:
    """What the service is told of person ``i`` that says something about their habits."""
    return {
        "work": WORKS[drawn["work"][i]],
        "device": DEVICES[drawn["device"][i]],
        "tier": TIERS[drawn["tier"][i]],
        "age": int(drawn["age"][i]),
        "tenure_days": int(drawn["tenure"][i]),
        "orders_90d": int(drawn["orders"][i]),
        "visits_30d": int(drawn["visits"][i]),
        "morningness": float(drawn["morning"][i]),
        "score": float(drawn["noise"][i]),
        **{f"interest_{topic}": float(drawn["interest"][i, k]) for k, topic in enumerate(TOPICS)},
    }


def _idle(n: int, orders: Floats, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Attributes that every customer database is full of and that say nothing here, or nothing that others don't."""
    spend = np.where(rng.random(n) < MISSING, np.nan, (25 * orders * rng.lognormal(0, 0.4, n)).round(2))
    satisfied = np.where(rng.random(n) < MISSING, np.nan, rng.integers(0, 11, n))
    drawn = {
        "city": [CITIES[k] for k in rng.integers(len(CITIES), size=n)],
        "source": [SOURCES[k] for k in rng.integers(len(SOURCES), size=n)],
        "language": [LANGUAGES[k] for k in rng.integers(len(LANGUAGES), size=n)],
        "household": rng.integers(1, 6, n).tolist(),
        "tickets": rng.poisson(0.4, n).tolist(),
        "referrals": rng.poisson(0.7, n).tolist(),
        "distance_km": rng.lognormal(2.0, 0.8, n).round(1).tolist(),
        "lead_score": rng.standard_normal(n).round(3).tolist(),
        "app_age_days": rng.exponential(200, n).round().tolist(),
        "spend_90d": spend.tolist(),
        "satisfaction": satisfied.tolist(),
    }
    return [{name: column[i] for name, column in drawn.items() if column[i] == column[i]} for i in range(n)]
