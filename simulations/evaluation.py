"""The value of a policy on customers that it never saw, by doubly robust estimation with the known propensity of 1/3.

Dudík et al. 2014, "Doubly robust policy evaluation and optimization". The reward model is a cross-fitted ridge
regression an arm; with true propensities it only takes variance away and can't bias the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from optimizer.bandit.actions import build_space
from optimizer.bandit.localtime import zone
from optimizer.model.moment import seen_at
from optimizer.model.policy import Asked, LivePolicy, distributions
from simulations.hillstrom import ARMS, PROPENSITY, Customers
from simulations.rivals import Floats
from storage.records import Campaign, JsonObject

FOLDS = 5
#: Penalty on standardised inputs, in rows: far below the thousands of rows of an arm.
RIDGE = 10.0
#: A difference is called clear when it is this many standard errors away from zero.
CLEAR = 1.96
#: Customers that a policy is asked about at a time.
_TOGETHER = 4_096


@dataclass(frozen=True)
class HeldOut:
    """Doubly robust values on held-out customers with standard errors; differences are to the best static arm.

    ``policy`` is the final policy as it is served, exploration included; ``greedy`` what it would earn without.
    """

    rows: int
    policy: float
    policy_error: float
    static: float
    static_error: float
    difference: float
    difference_error: float
    greedy_difference: float
    greedy_error: float

    @property
    def is_clear(self) -> bool:
        """Whether the difference is distinguishable from nothing."""
        return abs(self.difference) > CLEAR * self.difference_error


def choices(
    live: LivePolicy, campaign: Campaign, contexts: Sequence[JsonObject], at: datetime
) -> tuple[Floats, Floats]:
    """(n, 3) the policy's probabilities of ``ARMS`` as it would decide immediately at ``at``, and without exploring.

    A cold start has no best action: without exploring it is what it is.
    """
    space = build_space(
        variants=tuple(arm for arm in ARMS if arm is not None),
        channels=tuple(c.id for c in campaign.channels),
        window=(at, at + timedelta(hours=campaign.default_window_hours)),
        slot_minutes=campaign.slot_minutes,
        spread=campaign.spread_within_slot,
        immediate=True,
        no_send=True,
        decision_id="evaluation",
        zone=zone("UTC"),
    )
    mask = np.ones(space.size, dtype=np.bool_)
    served = np.zeros((len(contexts), space.size))
    greedy = np.zeros_like(served)
    for start in range(0, len(contexts), _TOGETHER):
        asked = [Asked(space, mask, seen_at(context, at)) for context in contexts[start : start + _TOGETHER]]
        for i, choice in enumerate(distributions(live, campaign, asked), start):
            served[i] = choice.probability
            if choice.greedy is None:
                greedy[i] = choice.probability
            else:
                greedy[i, choice.greedy] = 1.0
    return served, greedy


def evaluate(customers: Customers, policy: Floats, greedy: Floats, best_arm: int, seed: int) -> HeldOut:
    """Values on held-out customers.

    Args:
        customers: n customers, none of them among those that the policy learned from.
        policy: (n, 3) the policy's probabilities.
        greedy: (n, 3) those without exploration.
        best_arm: the static arm to compare with.
        seed: deals the customers into folds.
    """
    predicted = cross_fitted(customers, seed)
    static = np.zeros_like(policy)
    static[:, best_arm] = 1.0
    mine, best, other = (doubly_robust_rows(customers, predicted, p) for p in (policy, greedy, static))
    return HeldOut(
        rows=len(customers),
        policy=float(mine.mean()),
        policy_error=_error(mine),
        static=float(other.mean()),
        static_error=_error(other),
        difference=float((mine - other).mean()),
        difference_error=_error(mine - other),
        greedy_difference=float((best - other).mean()),
        greedy_error=_error(best - other),
    )


def doubly_robust_rows(customers: Customers, predicted: Floats, policy: Floats) -> Floats:
    """(n,) each customer's part: Σ_a π(a|x) q(x, a) + π(a_i|x) / p x (r − q(x, a_i)), p = 1/3."""
    row = np.arange(len(customers))
    logged = predicted[row, customers.assigned]
    weight = policy[row, customers.assigned] / PROPENSITY
    return np.asarray((policy * predicted).sum(axis=1) + weight * (customers.visit - logged))


def cross_fitted(customers: Customers, seed: int) -> Floats:
    """(n, 3) predicted chance of a visit under each arm, each customer's from folds without that customer."""
    inputs = encode(customers.contexts)
    fold = np.random.default_rng(seed).permutation(len(customers)) % FOLDS
    predicted = np.zeros((len(customers), len(ARMS)))
    for k in range(FOLDS):
        for arm in range(len(ARMS)):
            fit = (fold != k) & (customers.assigned == arm)
            predicted[fold == k, arm] = _ridge(inputs[fit], customers.visit[fit], inputs[fold == k])
    return predicted


def _ridge(inputs: Floats, target: Floats, wanted: Floats) -> Floats:
    mean = target.mean() if target.size else 0.0
    penalty = RIDGE * np.eye(inputs.shape[1])
    weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ (target - mean))
    return np.asarray(mean + wanted @ weights)


def encode(contexts: Sequence[JsonObject]) -> Floats:
    """(n, d) numbers standardised, their logarithms beside them, switches 0/1, words one-hot; columns are centred."""

    columns: list[Floats] = []
    for name in sorted(contexts[0]):
        values = [row[name] for row in contexts]
        if isinstance(values[0], str):
            words = sorted(set(values))[1:]
            columns += [np.array([v == word for v in values], dtype=np.float64) for word in words]
        else:
            numbers = np.array(values, dtype=np.float64)
            columns.append(numbers)
            if not isinstance(values[0], bool):
                columns.append(np.log1p(np.maximum(numbers, 0)))
    inputs = np.column_stack(columns)
    spread = inputs.std(axis=0)
    return np.asarray((inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _error(rows: Floats) -> float:
    return float(rows.std(ddof=1) / np.sqrt(rows.size)) if rows.size > 1 else float("inf")
