"""What is at stake in a canary: which wagers are held, how large an increment can be, and the increments of a row.

With π_c and π_i the canary and what it is to replace, α the canary's share and p the logged probability of action a,
the weights are w_c = π_c(a)/p ≤ 1/α and w_i = π_i(a)/p ≤ 1/(1 − α). Every increment has mean ≥ 0 while the canary is
not worse:

- ``reward``: Σ (π_c − π_i)·q̂ + (w_c − w_i)·(r − q̂), rewards and q̂ clipped to what is usual (99.8 % of what was logged
  before, or more where the rest is a good part of what there is to gain), since a bound that only a complaint reaches
  would blind the wager. With rewards within a range of R the first
  part is at most R, the second at most R·max(1/α, 1/(1 − α)): either weight may be the larger one;
- ``reward_full``: the same within the objective's own bounds, where it has any: rare and grave losses show here;
- ``NAME.rate``: w_c·(max_rate·sent − happened), the canary's rate a message within its limit;
- ``NAME.increase``: max_increase − (w_c − w_i)·happened, its increase a decision within its limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.sequences import Wager
from optimizer.service.feedback import Logged
from storage.records import Campaign, JsonObject

Floats = NDArray[np.float64]

#: Earlier rewards are clipped at the first of these quantiles that leaves their mean where it is, within ``_MOST_LOST``
#: of their mean distance from the median, if there are enough of them. A purchase in 2,000 messages of which each costs
#: something is clipped away at the first: a canary that sold twice as much looked worse, and was taken back in 100 runs
#: of 100.
_TAILS = (0.001, 0.0003, 0.0001, 0.0)
_MOST_LOST = 0.1
_LEAST_ROWS = 200


@dataclass(frozen=True)
class Compared:
    """One logged row under both.

    Attributes:
        action: the logged action.
        propensity: its logged probability.
        canary, before: (K,) probabilities under the canary and under what it is to replace.
        predicted: (K,) q̂ of every action, from a model that is older than the row.
        alpha: the canary's share.
    """

    action: int
    propensity: float
    canary: Floats
    before: Floats
    predicted: Floats
    alpha: float

    @property
    def error(self) -> float:
        """|recomputed − logged| propensity."""
        mixed = self.alpha * float(self.canary[self.action]) + (1.0 - self.alpha) * float(self.before[self.action])
        return abs(mixed - self.propensity)

    @property
    def weights(self) -> tuple[float, float]:
        """(w_c, w_i), within their bounds: a machine that rounds otherwise may have logged a little less than either
        part alone makes of it."""
        return (
            min(float(self.canary[self.action]) / self.propensity, 1.0 / self.alpha),
            min(float(self.before[self.action]) / self.propensity, 1.0 / (1.0 - self.alpha)),
        )

    def difference(self, reward: float, low: float, high: float) -> float:
        """The doubly robust difference of the two with rewards clipped to [low, high]."""
        predicted = np.clip(self.predicted, low, high)
        ours, theirs = self.weights
        model = float((self.canary - self.before) @ predicted)
        return model + (ours - theirs) * (min(high, max(low, reward)) - float(predicted[self.action]))


@dataclass(frozen=True)
class Stakes:
    """Bounds of the rewards, fixed when the watch begins.

    Attributes:
        asked: hash of objective, windows and guardrails.
        usual: clipping bounds of ``reward``; None = all rewards are alike so far.
        full: bounds of ``reward_full``; None = the objective has none, or they are the usual ones.
    """

    asked: str
    usual: tuple[float, float] | None
    full: tuple[float, float] | None

    @classmethod
    def from_json(cls, data: JsonObject) -> Stakes:
        """What ``dataclasses.asdict`` and JSON made of one."""
        usual, full = (None if data[name] is None else (data[name][0], data[name][1]) for name in ("usual", "full"))
        return cls(data["asked"], usual, full)

    def wagers(self, campaign: Campaign, alpha: float) -> dict[str, Wager]:
        """The wagers before the first row, by name."""
        found = {}
        for name, bounds in (("reward", self.usual), ("reward_full", self.full)):
            if bounds is not None:
                found[name] = Wager((bounds[1] - bounds[0]) * (1.0 + max(1.0 / alpha, 1.0 / (1.0 - alpha))))
        for name, kind, limit in _limits(campaign):
            most = least(limit) / alpha if kind == "rate" else limit + 1.0 / (1.0 - alpha)
            found[f"{name}.{kind}"] = Wager(most)
        return found

    def increments(self, campaign: Campaign, row: Logged, compared: Compared) -> dict[str, float]:
        """What a row adds to each wager."""
        found = {}
        for name, bounds in (("reward", self.usual), ("reward_full", self.full)):
            if bounds is not None:
                found[name] = compared.difference(row.reward, *bounds)
        ours, theirs = compared.weights
        sent = float(row.decision.send_at is not None and row.trainable)
        for name, kind, limit in _limits(campaign):
            outcome = row.outcomes.get(name)
            happened = float(outcome is not None and outcome.happened)
            if kind == "rate":
                found[f"{name}.{kind}"] = ours * (limit * sent - happened)
            else:
                found[f"{name}.{kind}"] = limit - (ours - theirs) * happened
        return found


def least(limit: float) -> float:
    """A rate's limit as a bound of increments. One of 0 leaves no room to bet with; a thousandth is as good as none."""
    return max(limit, 1e-3)


def asked_of(campaign: Campaign) -> str:
    """What is watched, as a hash: the objective, its windows and the guardrails."""
    parts = (campaign.objective, campaign.attribution_hours, campaign.guardrails)
    text = repr([sorted((name, repr(value)) for name, value in part.items()) for part in parts])
    return blake2b(text.encode(), digest_size=8).hexdigest()


def stakes_of(campaign: Campaign, earlier: Floats, asked: str) -> Stakes:
    """The bounds for a watch that begins now.

    Args:
        campaign: for the objective's own bounds.
        earlier: (n,) rewards logged before the canary.
        asked: hash of what is watched.
    """
    full = reward_bounds(campaign)
    usual = full
    if earlier.size >= _LEAST_ROWS or (full is None and earlier.size):
        low, high = _usual(earlier)
        usual = (low, high) if low < high else full
    return Stakes(asked, usual, None if full is None or full == usual else full)


def _usual(earlier: Floats) -> tuple[float, float]:
    """Bounds that hold nearly all rewards and nearly all of what they are worth."""
    spread = float(np.mean(np.abs(earlier - np.median(earlier))))
    for tail in _TAILS:
        low, high = (float(q) for q in np.quantile(earlier, (tail, 1.0 - tail)))
        lost = abs(float(np.mean(np.clip(earlier, low, high) - earlier)))
        if lost <= _MOST_LOST * spread:
            break
    return low, high


def reward_bounds(campaign: Campaign) -> tuple[float, float] | None:
    """The lowest and highest possible reward; None where a value counts, since values have no bound below."""
    if any(weight.per_value for weight in campaign.objective.values()):
        return None
    fixed = [weight.fixed for weight in campaign.objective.values()]
    cost = max((v.cost for v in campaign.variants), default=0.0) + max((c.cost for c in campaign.channels), default=0.0)
    low, high = sum(min(0.0, x) for x in fixed) - cost, sum(max(0.0, x) for x in fixed)
    return (low, high) if low < high else None


def _limits(campaign: Campaign) -> Iterator[tuple[str, str, float]]:
    for name, guardrail in campaign.guardrails.items():
        if guardrail.max_rate is not None:
            yield name, "rate", guardrail.max_rate
        if guardrail.max_increase is not None:
            yield name, "increase", guardrail.max_increase
