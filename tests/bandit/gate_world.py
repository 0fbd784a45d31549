"""A small world for the gate's tests: two contexts, four actions, rows logged by the incumbent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.bandit.calibration import Calibration
from optimizer.bandit.gate import Integrity, PairedEvidence

HONEST = Integrity(max_error=1e-12, checked=5000, replayable=8000, balance=None)
FINE = Calibration(1.02, 0.01, 0.05, 0.03, -0.4, 5000, 900, -1.5)
INCUMBENT = np.array([[0.65, 0.15, 0.1, 0.1], [0.1, 0.65, 0.15, 0.1]])
#: The rewards' means where a better policy exists, and where all are worth the same.
BETTER = np.array([[0.1, 0.1, 0.3, 0.1], [0.1, 0.1, 0.1, 0.3]])
NULL = np.full((2, 4), 0.2)


def sharp(first: int, second: int) -> np.ndarray:
    """A candidate that takes one action in each context, but for a floor of 1 % on the others."""
    policy = np.full((2, 4), 0.01)
    policy[(0, 1), (first, second)] = 0.97
    return policy


GOOD = sharp(2, 3)


@dataclass(frozen=True)
class Log:
    """Rows logged by the incumbent, four a recipient."""

    context: np.ndarray
    action: np.ndarray
    reward: np.ndarray

    def evidence(self, candidate: np.ndarray, n: int | None = None, **changes: Any) -> PairedEvidence:
        """What the first n rows say of a candidate; q̂ is a constant, so it can't help much."""
        x, a, reward = self.context[:n], self.action[:n], self.reward[:n]
        flat = np.full(x.size, 0.2)
        found = PairedEvidence(
            reward=reward,
            propensity=INCUMBENT[x, a],
            p_incumbent=INCUMBENT[x, a],
            p_candidate=candidate[x, a],
            q_logged=flat,
            v_incumbent=flat,
            v_candidate=flat,
            cluster=np.arange(x.size) // 4,
            integrity=HONEST,
            calibration={"clicked": FINE},
            tries=1,
        )
        return dataclasses.replace(found, **changes)


def logged(rng: np.random.Generator, n: int, mean: np.ndarray, rare_cost: float = 0.0) -> Log:
    """n rows with rewards of 1 at the given chances; 2 % of rows cost ``rare_cost`` instead."""
    x = rng.integers(2, size=n)
    action = (rng.random((n, 1)) > np.cumsum(INCUMBENT[x], axis=1)[:, :-1]).sum(axis=1)
    reward = (rng.random(n) < mean[x, action]).astype(float)
    if rare_cost:
        reward = np.where(rng.random(n) < 0.02, -rare_cost, reward)
    return Log(x, action, reward)


def good(n: int = 6000, **changes: Any) -> PairedEvidence:
    """Evidence of a candidate that is clearly better."""
    return logged(np.random.default_rng(61), n, BETTER).evidence(GOOD, **changes)
