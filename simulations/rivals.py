"""What the service is measured against on one stream of customers: a Thompson sampler without context, chance, one arm.

Each rival replays the same customers in the same order as the service does (Li et al. 2011, "Unbiased offline
evaluation"): it chooses, and a customer whose recorded assignment is another one is passed over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def thompson(assigned: Ints, reward: Floats, *, arms: int, wanted: int, every: int, rng: np.random.Generator) -> Floats:
    """Beta–Bernoulli Thompson sampling (Thompson 1933; Chapelle & Li 2011), Beta(1, 1) priors, updated in batches.

    Args:
        assigned: (n,) the recorded arm of each customer, in order of arrival.
        reward: (n,) 0 or 1 under that arm.
        arms: how many arms there are.
        wanted: how many accepted customers end the replay.
        every: accepted customers from one update to the next.
        rng: draws one value an arm and customer.

    Returns:
        Rewards of the accepted customers in order; fewer than ``wanted`` when the stream ends before.
    """
    wins, losses = np.ones(arms), np.ones(arms)
    taken: list[Floats] = []
    have, at = 0, 0
    while have < wanted and at < assigned.size:
        missing = min(every, wanted - have)
        rows, at = _until_accepted(assigned, at, missing, wins, losses, rng)
        won = reward[rows]
        wins += np.bincount(assigned[rows], weights=won, minlength=arms)
        losses += np.bincount(assigned[rows], weights=1 - won, minlength=arms)
        taken.append(won)
        have += rows.size
    return np.concatenate(taken) if taken else np.zeros(0)


def _until_accepted(
    assigned: Ints, at: int, missing: int, wins: Floats, losses: Floats, rng: np.random.Generator
) -> tuple[Ints, int]:
    """Positions of the next ``missing`` accepted customers under one posterior, and where the stream stands then."""
    found: list[Ints] = []
    while missing > 0 and at < assigned.size:
        chunk = assigned[at : at + 4 * missing]
        drawn = rng.beta(wins, losses, size=(chunk.size, wins.size))
        accepted = np.flatnonzero(np.argmax(drawn, axis=1) == chunk)[:missing]
        found.append(at + accepted)
        missing -= accepted.size
        at += int(accepted[-1]) + 1 if missing == 0 else chunk.size
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64), at


def uniform(assigned: Ints, reward: Floats, *, arms: int, wanted: int, rng: np.random.Generator) -> Floats:
    """Rewards of the customers that a uniformly random choice accepts, in order, at most ``wanted``."""
    return np.asarray(reward[rng.integers(arms, size=assigned.size) == assigned][:wanted])


def static(assigned: Ints, reward: Floats, *, arm: int, wanted: int) -> Floats:
    """Rewards of the customers that were assigned ``arm``, in order, at most ``wanted``."""
    return np.asarray(reward[assigned == arm][:wanted])


def best_static(assigned: Ints, reward: Floats, *, arms: int) -> int:
    """The arm with the highest mean over the whole experiment: what could be known only afterwards."""
    means = [reward[assigned == arm].mean() if (assigned == arm).any() else -np.inf for arm in range(arms)]
    return int(np.argmax(means))
