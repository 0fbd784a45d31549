"""Every off-policy estimate of one policy on the same rows, side by side, as JSON.

Each has a value with its standard error clustered by recipient, and intervals at 95 %: the normal one, the cluster
bootstrap's, the empirical likelihood's and Cressie–Read's (for inverse propensities, whose weights have a known mean;
the latter only where no recipient repeats), and a confidence sequence's (rows in order of time; wider by as much as
recipients who repeat make the standard error larger), which may be looked at again and again. How much they can be
trusted is told beside them: effective sample size, weights, the smallest difference that these rows would have shown.

Where the rows tell nothing of a policy, an estimate and whatever is made of it are withheld (None, with the reason as
``withheld``): without overlap every weight is 0, and so would be the value, its error and the width of its intervals.
Where nothing of worth happened there is no spread but that of costs, which says nothing of what might be earned.
Weights that average clearly more than 1 are no policy's, in no group of the rows either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import ope
from optimizer.bandit.clusters import Clusters, clusters, robust_error
from optimizer.bandit.conditions import support as gate_support
from optimizer.bandit.cressieread import Bounds, cressie_read_interval
from optimizer.bandit.evidence import GateLimits
from optimizer.bandit.intervals import TooFewRows, bootstrap_interval, one_sided_quantile, quantile
from optimizer.bandit.likelihood import empirical_likelihood_interval
from optimizer.bandit.sequences import confidence_sequence
from optimizer.service.runs import LEAST_RECIPIENTS

Floats = NDArray[np.float64]

#: Importance weights above this are dropped by Switch-DR, and the model believed instead.
SWITCH_AT = 10.0
LEVEL = 0.95
#: Power that the minimum detectable effect is stated for.
POWER = 0.8
#: Bootstrap samples; the ends of the interval are then good to a few hundredths of its width.
REPETITIONS = 400
_DIFFERENCE = ("value", "standard_error", "low", "high", "minimum_detectable_effect")
_INTERVALS = ("bootstrap", "empirical_likelihood", "cressie_read", "confidence_sequence")
_SEED = 20_260
#: Standard errors by which weights may average more than 1, as a policy's do in expectation.
_HEAVY = 4.0
#: What rounded probabilities make of a mean of 1.
_ROUNDING = 1e-6
#: Rows before the confidence sequence says anything. Where rewards are rare the normal approximation needs so many: of
#: 400 logs with clicks in 9 of 100 rows, sequences from row 200, 500 and 1,000 on held the truth all along in .91, .94
#: and .97.
SEQUENCE_START = 1_000
#: Why estimates are withheld.
NO_OVERLAP = "the policy gives every logged action the probability 0: these rows tell nothing of what it earns"
NO_REWARD = (
    "no reward was earned in any row whose action the policy takes: weights alone put no bound on what it earns, and "
    "an interval would have no width, or that of costs alone"
)
NONE_EARNED = "no reward was earned in any row: bounds would have no width, or that of costs alone"
TOO_HEAVY = (
    "the importance weights average more than 1 by over 4 standard errors: these probabilities are no policy's, or "
    "rows are left out by what was done in them"
)
ALL_SWITCHED = f"every weight is above {SWITCH_AT:g}: nothing but the model's own word (dm) would be left"


@dataclass(frozen=True)
class Judged:
    """One policy on n rows in order of time.

    Attributes:
        reward: (n,). weight: (n,) π/π_b of the logged action. cluster: recipients.
        q_logged, q_policy: (n,) predicted reward of the logged action, and its mean under the policy; None = not known.
        worth: (n,) whether something of worth happened (see ``judging.rewarded``); None = the reward is not 0.
        of_none: the weights of the rows that these are a part of are no policy's.
    """

    reward: Floats
    weight: Floats
    cluster: Clusters
    q_logged: Floats | None = None
    q_policy: Floats | None = None
    worth: NDArray[np.bool_] | None = None
    of_none: bool = False

    @property
    def rewarded(self) -> NDArray[np.bool_]:
        """(n,) in which something of worth happened; costs alone are no reward."""
        return self.reward != 0.0 if self.worth is None else self.worth

    def terms(self) -> dict[str, Floats]:
        """The rows whose mean each estimate is (SNIPS is a ratio, and has none)."""
        found = {"ips": self.weight * self.reward}
        if self.q_logged is not None and self.q_policy is not None:
            kept = np.where(self.weight <= SWITCH_AT, self.weight, 0.0)
            found["dm"] = self.q_policy
            found["dr"] = ope.dr_terms(self.reward, self.weight, self.q_logged, self.q_policy)
            found["switch_dr"] = ope.dr_terms(self.reward, kept, self.q_logged, self.q_policy)
        return found

    def lacking(self, estimator: str) -> str | None:
        """Why an estimate is withheld, if it is. The direct method asks the model alone, and needs no weights."""
        if estimator == "dm":
            return None
        if not self.weight.any():
            return NO_OVERLAP
        if self._too_heavy:
            return TOO_HEAVY
        if estimator == "switch_dr" and not self.weight[self.weight <= SWITCH_AT].any():
            return ALL_SWITCHED
        if estimator in ("ips", "snips") and not (self.weight * self.reward)[self.rewarded].any():
            return NO_REWARD
        return None

    @cached_property
    def _too_heavy(self) -> bool:
        """Whether the weights are no policy's: those of rows that were all kept average 1, whatever the policy does.

        Less than 1 is no such sign: rows may lack what the policy rarely does. Their own spread is none where all are
        equal; beside it stands what a policy with these weights would have, E[w²] = E[w²] / E[w] at a mean of 1.
        """
        mean = float(np.mean(self.weight))
        if self.of_none or mean <= 1.0:
            return self.of_none
        expected = max(0.0, float(np.mean(self.weight**2)) / mean - 1.0)
        alone = ope.ips(self.weight, np.ones(self.weight.size), self.cluster).standard_error
        error = max(alone, math.sqrt(expected / self.cluster.count))
        return mean - 1.0 > max(_HEAVY * error, _ROUNDING)

    def take(self, chosen: NDArray[np.bool_]) -> Judged:
        """The chosen rows. What is no policy's in all is none in a part, where fewer rows may not show it."""
        some = clusters(self.cluster.code[chosen], int(np.count_nonzero(chosen)))
        logged, policy = (None if q is None else q[chosen] for q in (self.q_logged, self.q_policy))
        rewarded, heavy = self.rewarded[chosen], self._too_heavy
        return Judged(self.reward[chosen], self.weight[chosen], some, logged, policy, rewarded, heavy)


def estimates(judged: Judged) -> dict[str, dict[str, Any]]:
    """Every estimate by name: ips, snips, and where predictions are known dm, dr, switch_dr.

    Each has ``withheld``: None, or why all its numbers but ``n`` and ``effective_sample_size`` are None.
    """
    terms = judged.terms()
    found: dict[str, dict[str, Any]] = {
        name: {**_value(name, judged), **dict.fromkeys(_INTERVALS)}
        for name in ("ips", "snips", "dm", "dr", "switch_dr")
        if name == "snips" or name in terms
    }
    for name, rows in terms.items():
        if found[name]["withheld"] is None:
            found[name]["bootstrap"] = _bootstrap(rows, None, judged.cluster)
            found[name]["confidence_sequence"] = _sequence(rows, judged.cluster)
    if found["ips"]["withheld"] is None:
        ends = empirical_likelihood_interval(judged.reward, judged.weight, judged.cluster, LEVEL)
        by_weights = {"empirical_likelihood": _pair(*ends), "cressie_read": _cressie_read(judged)}
        found["ips"] |= by_weights
        found["snips"] |= by_weights
        found["snips"]["bootstrap"] = _bootstrap(terms["ips"], judged.weight, judged.cluster)
    return found


def _value(name: str, judged: Judged) -> dict[str, Any]:
    """An estimate with its normal interval, or why there is none."""
    lacking = judged.lacking(name)
    if lacking is None:
        return {**asdict(_estimate(name, judged)), "withheld": None}
    weight = np.where(judged.weight <= SWITCH_AT, judged.weight, 0.0) if name == "switch_dr" else judged.weight
    known = {"n": judged.reward.size, "effective_sample_size": ope.effective_sample_size(weight)}
    return {**dict.fromkeys(("value", "standard_error", "low", "high")), **known, "withheld": lacking}


def _estimate(name: str, judged: Judged) -> ope.Estimate:
    reward, weight, group = judged.reward, judged.weight, judged.cluster
    if name == "snips":
        return ope.snips(reward, weight, group, LEVEL)
    if name == "ips" or judged.q_logged is None or judged.q_policy is None:
        return ope.ips(reward, weight, group, LEVEL)
    if name == "dm":
        return ope.direct(judged.q_policy, group, LEVEL)
    if name == "dr":
        return ope.doubly_robust(reward, weight, judged.q_logged, judged.q_policy, group, LEVEL)
    return ope.switch_dr(reward, weight, judged.q_logged, judged.q_policy, SWITCH_AT, group, LEVEL)


def as_logged(judged: Judged) -> dict[str, Any]:
    """The mean reward as it was, with its interval; ``withheld``: None, or why the error and the interval are None."""
    found = asdict(ope.ips(judged.reward, np.ones(judged.reward.size), judged.cluster, LEVEL))
    if judged.reward[judged.rewarded].any():
        return {**found, "withheld": None}
    return {**found, **dict.fromkeys(("standard_error", "low", "high")), "withheld": NONE_EARNED}


def support(judged: Judged, limits: GateLimits | None = None) -> dict[str, Any]:
    """Whether the log holds enough of what the policy would do; ``conditions`` are the gate's own for it."""
    weight, rewarded = judged.weight, judged.rewarded
    mean = float(np.mean(weight))
    return {
        "largest_weight": float(np.max(weight)),
        "mean_weight": mean,
        "mean_weight_z": _z(weight - 1.0, judged.cluster),
        "never_taken": float(np.mean(weight == 0.0)),
        "effective_rows": ope.effective_sample_size(weight),
        "effective_rewarded_rows": ope.effective_sample_size(weight[rewarded]),
        "conditions": [asdict(c) for c in gate_support(weight, rewarded, limits or GateLimits())],
    }


def difference(judged: Judged, other: Judged | None) -> dict[str, Any]:
    """The paired difference to another policy, or to what was logged (None), by dr, or by ips without predictions.

    ``minimum_detectable_effect`` is the true difference that these rows would show at 95 % with a power of .8.
    ``withheld``: None, or why all numbers are None, by the policy or by the other.
    """
    best = "dr" if "dr" in judged.terms() else "ips"
    theirs_lack = None if other is None else other.lacking(best)
    lacking = judged.lacking(best) or (None if theirs_lack is None else f"of the other, {theirs_lack}")
    if lacking is not None:
        return {"estimator": best, **dict.fromkeys(_DIFFERENCE), "withheld": lacking}
    theirs, weight = (judged.reward, 1.0) if other is None else (other.terms()[best], other.weight)
    rows, change = judged.terms()[best] - theirs, judged.weight - weight
    residual = judged.reward if judged.q_logged is None else judged.reward - judged.q_logged
    effective = ope.effective_sample_size(judged.weight)
    found = ope.cautious_mean(rows, change, residual, judged.cluster, LEVEL, effective)
    effect = (quantile(LEVEL) + one_sided_quantile(1.0 - POWER)) * found.standard_error
    return {
        "estimator": best,
        "value": found.value,
        "standard_error": found.standard_error,
        "low": found.low,
        "high": found.high,
        "minimum_detectable_effect": effect if math.isfinite(effect) else None,
        "withheld": None,
    }


def by_group(policies: Mapping[str, Judged], by: str, labels: Sequence[str], least: int) -> list[dict[str, Any]]:
    """The best estimate of each policy in each group with at least ``least`` rows, of ``LEAST_RECIPIENTS`` people."""
    values = np.array(labels)
    found = []
    for name in sorted(set(labels)):
        chosen = values == name
        if int(chosen.sum()) < least:
            continue
        parts = {policy: judged.take(chosen) for policy, judged in policies.items()}
        first = next(iter(parts.values()))
        if first.cluster.count < LEAST_RECIPIENTS:
            continue
        found.append(
            {
                "by": by,
                "group": name,
                "rows": int(chosen.sum()),
                "recipients": first.cluster.count,
                "logged": as_logged(first),
                **{policy: _best(judged) for policy, judged in parts.items()},
                "difference": difference(first, None),
            }
        )
    return found


def _best(judged: Judged) -> dict[str, Any]:
    name = "dr" if "dr" in judged.terms() else "ips"
    return {"estimator": name, **_value(name, judged)}


def _sequence(rows: Floats, cluster: Clusters) -> list[float] | None:
    """The confidence sequence's bounds by now.

    It takes rows for independent. Of 300 logs of 6,000 rows with ten or thirty a recipient, in order of time or not, so
    many missed the truth at some of nine looks: a fifth to two fifths by it alone, none to .05 when it is widened.
    """
    found = confidence_sequence(rows, LEVEL, start=SEQUENCE_START)
    mean, half = float(found.mean[-1]), float(found.high[-1] - found.mean[-1])
    alone = float(np.std(rows)) / math.sqrt(rows.size)
    if cluster.count < rows.size and alone > 0.0:
        half *= max(1.0, robust_error(rows - mean, cluster) / alone)
    return _pair(mean - half, mean + half)


def _cressie_read(judged: Judged) -> list[float] | None:
    """With the rewards' own range as bounds; None where a recipient has several rows, which it would count as new."""
    if judged.cluster.count < judged.reward.size:
        return None
    bounds = Bounds((min(0.0, float(judged.reward.min())), max(0.0, float(judged.reward.max()))))
    return _pair(*cressie_read_interval(judged.reward, judged.weight, bounds, LEVEL))


def _bootstrap(top: Floats, bottom: Floats | None, group: Clusters) -> list[float] | None:
    try:
        rng = np.random.default_rng(_SEED)
        low, high = bootstrap_interval(top, bottom, group, rng=rng, level=LEVEL, repetitions=REPETITIONS)
    except TooFewRows:
        return None
    return _pair(low, high)


def _pair(low: float, high: float) -> list[float] | None:
    return [float(low), float(high)] if math.isfinite(low) and math.isfinite(high) else None


def _z(rows: Floats, group: Clusters) -> float | None:
    found = ope.ips(rows, np.ones(rows.size), group)
    return found.value / found.standard_error if 0.0 < found.standard_error < math.inf else None
