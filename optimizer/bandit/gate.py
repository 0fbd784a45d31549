"""The gate: may this candidate go live, and with what share? Pure: arrays in, a verdict with its figures out.

A sharp candidate can't be judged from a flat log, so the ladder π_α = (1 − α)·incumbent + α·candidate is judged and the
largest share that passes is published. The doubly robust rows are linear in the policy, so φ_α − φ_incumbent =
α·(φ_candidate − φ_incumbent): the value test is one and the same test on every rung, and climbing the ladder costs no
multiplicity. What the rungs differ in is support and guardrails.

What follows for guardrails: with no harmful case seen, an upper bound of a rate needs z²/max_rate effective rows
(z = 1.645: 271 for .01, 2,706 for .001); see ``conditions.guardrails`` and ``conditions.first_guardrails`` for what
happens below that.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from optimizer.bandit import conditions
from optimizer.bandit.clusters import clusters, robust_error
from optimizer.bandit.evidence import (
    Condition,
    FirstEvidence,
    GateLimits,
    Harm,
    Integrity,
    PairedEvidence,
    Rung,
    Verdict,
)
from optimizer.bandit.intervals import Difference, difference_bound, one_sided_quantile
from optimizer.bandit.sequences import Wager

__all__ = [
    "Condition",
    "FirstEvidence",
    "GateLimits",
    "Harm",
    "Integrity",
    "PairedEvidence",
    "Rung",
    "Verdict",
    "judge",
    "judge_first",
    "next_rung",
    "spend",
    "watch",
    "watched",
]

_DECAY = 1.3
#: ζ(1.3) = Σ k^−1.3, rounded up so that the spent sum never exceeds α.
_ZETA = 3.93195
_DEFAULT = GateLimits()


def spend(k: int, alpha: float) -> float:
    """The error that the k-th try may make: α·k^−1.3/ζ(1.3), so Σ_k spend(k, α) ≤ α however long it goes on.

    By the union bound the family-wise error is at most α whatever the dependence between tries. The slow decay suits
    tests whose data grows: the first try gets z = 2.23 (at 1.96 skewed rows were measured to let through several times
    the stated error), the 40th 3.71; 6/(π²k²) would give 1.87 and 4.12.

    Args:
        k: number of the try, from 1.
        alpha: family-wise error, in (0, 1).
    """
    if k < 1:
        raise ValueError(f"tries: {k} must be at least 1")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: {alpha} must lie in (0, 1)")
    return float(alpha * math.pow(k, -_DECAY) / _ZETA)


def next_rung(rung: float | None, limits: GateLimits = _DEFAULT) -> float:
    """The largest share allowed now: the smallest of the ladder for a new lineage, else the one above ``rung``; any for
    what shares the traffic (None)."""
    if rung is None:
        return max(limits.ladder)
    if rung <= 0.0:
        return min(limits.ladder)
    return min((a for a in limits.ladder if a > rung + 1e-9), default=max(limits.ladder))


def judge_first(evidence: FirstEvidence) -> Verdict:
    """Judges a campaign's first policy, which replaces random choices: integrity, calibration, guardrails.

    There is no incumbent to lose value to, so no value test: predictions must be clearly better than base rates
    (one-sided at the level spent on this try), propensities honest, no harm shown. It goes live whole.
    """
    level = spend(evidence.tries, _DEFAULT.family_error)
    z = one_sided_quantile(level)
    found = conditions.integrity(evidence.integrity, _DEFAULT)
    found += conditions.gain(evidence.judged, evidence.cluster, z, _DEFAULT)
    if evidence.steps:
        found.append(conditions.of_worth(evidence.gains, evidence.cluster))
    found += conditions.calibrated(evidence.calibration, _DEFAULT)
    groups = clusters(evidence.cluster, evidence.cluster.size)
    if evidence.weight is not None:
        for harm in evidence.harms:
            found += conditions.first_guardrails(harm, evidence.weight, groups, _DEFAULT)
    failed = [c for c in found if not c.passed]
    effect = _detectable(_gain_error(evidence), z, _DEFAULT)
    if failed:
        return Verdict("reject", 0.0, tuple(found), _because(failed), level, effect)
    reason = "predictions are clearly better than base rates, nothing speaks against: the first policy goes live whole"
    return Verdict("publish", 1.0, tuple(found), reason, level, effect)


def judge(evidence: PairedEvidence, limits: GateLimits = _DEFAULT) -> Verdict:
    """Judges a candidate against the incumbent and publishes the largest share of the ladder that meets all conditions.

    The value condition is the lower bound of the paired doubly robust difference candidate − incumbent, clustered by
    recipient, one-sided at the level spent on this try, with the cautious error of ``intervals.difference_bound``.
    """
    level = spend(evidence.tries, limits.family_error)
    z = one_sided_quantile(level)
    groups = clusters(evidence.cluster, evidence.reward.size)
    w_incumbent, w_candidate = evidence.p_incumbent / evidence.propensity, evidence.p_candidate / evidence.propensity
    rewarded = evidence.reward != 0.0 if evidence.rewarded is None else evidence.rewarded
    shared = conditions.integrity(evidence.integrity, limits)
    difference = Difference(
        evidence.v_candidate - evidence.v_incumbent, w_candidate - w_incumbent, evidence.reward - evidence.q_logged
    )
    low, error = difference_bound(difference, groups, z)
    shared.append(_value(difference, low, error, z))
    shared += conditions.segments(difference, evidence.segments, groups, limits)
    shared += conditions.calibrated(evidence.calibration, limits)
    shared += conditions.likelihood(evidence.likelihood_gain, groups, limits)
    allowed, smallest = next_rung(evidence.rung, limits), min(limits.ladder)
    by_rung: dict[float, list[Condition]] = {}
    for alpha in sorted(limits.ladder, reverse=True):
        weight = (1.0 - alpha) * w_incumbent + alpha * w_candidate
        own = conditions.support(weight, rewarded, limits, w_incumbent)
        for harm in evidence.harms:
            own += conditions.guardrails(harm, weight, w_incumbent, groups, limits, canary=alpha <= smallest)
        held = "both share the traffic" if evidence.rung is None else f"the lineage holds {evidence.rung:g} now"
        detail = f"{held}, so at most {allowed:g}"
        own.append(conditions.condition("canary", alpha <= allowed + 1e-9, alpha, allowed, detail))
        by_rung[alpha] = shared + own
    return _verdict(by_rung, level, _detectable(error, z, limits))


def watch(increments: ArrayLike, highest: float, limits: GateLimits = _DEFAULT) -> Condition:
    """Watches a canary: fails as soon as it is clearly worse, and then it must be rolled back.

    The test is a wager (``sequences.Wager``), so this may be asked after every decision without raising the error: a
    canary that is not worse is ever rolled back with probability at most ``watch_error``, whatever the sample size and
    however rare the rewards.

    Args:
        increments: (n,) in order of time, the doubly robust difference of the canary and what it is to replace, one for
            each decision logged since it went live; q̂ from a model that is older than the row.
        highest: the largest increment that is possible.
        limits: for the error.
    """
    return watched("canary.reward", Wager(highest).after(increments), limits.watch_error)


def watched(name: str, wager: Wager, error: float) -> Condition:
    """A wager as a condition: its anytime-valid p-value must stay above the error."""
    detail = f"anytime-valid p that it is not worse; mean difference {wager.mean:.6f} over {wager.rows} decisions"
    return conditions.condition(name, not wager.worse(error), wager.p, error, detail)


def _value(difference: Difference, low: float, error: float, z: float) -> Condition:
    mean = float(np.mean(difference.rows)) if difference.residual.size else math.nan
    figures = f"{mean:.6f} ± {error:.6f} (standard error), lower bound {low:.6f} at z {z:.2f}"
    detail = f"candidate − incumbent a decision: {figures}"
    return conditions.condition("value", low > 0.0, low, 0.0, detail)


def _detectable(error: float, z: float, limits: GateLimits) -> float | None:
    """The effect found with the stated power by a one-sided test at z: (z + z_power) standard errors."""
    effect = (z + one_sided_quantile(1.0 - limits.power)) * error
    return effect if math.isfinite(effect) else None


def _gain_error(evidence: FirstEvidence) -> float:
    joint, known = conditions.joint_gain(evidence.judged)
    if joint.size == 0:
        return math.inf
    alone = robust_error(joint - float(np.mean(joint)), clusters(evidence.cluster[known], joint.size))
    return conditions.CROSS_FITTED * alone


def _verdict(by_rung: dict[float, list[Condition]], level: float, effect: float | None) -> Verdict:
    rungs = tuple(
        Rung(alpha, all(c.passed for c in found), tuple(c.name for c in found if not c.passed))
        for alpha, found in by_rung.items()
    )
    best = max((rung.alpha for rung in rungs if rung.passed), default=None)
    if best is None:
        smallest = by_rung[min(by_rung)]
        reason = _because([c for c in smallest if not c.passed])
        return Verdict("reject", 0.0, tuple(smallest), reason, level, effect, rungs)
    above = [rung for rung in rungs if rung.alpha > best]  # in falling order: the last is the next one up
    held = f"; {above[-1].alpha:g} is held back by {', '.join(above[-1].failed)}" if above else ""
    reason = f"better than the incumbent, published at {best:g}{held}"
    return Verdict("publish", best, tuple(by_rung[best]), reason, level, effect, rungs)


def _because(failed: list[Condition]) -> str:
    """The failed conditions in words; a value that fails alone says that no difference was shown."""
    if [c.name for c in failed] == ["value"]:
        return f"no improvement shown ({failed[0].detail}); the incumbent stays"
    told = ("unbounded" if c.figure is None else f"{c.figure:.6g}" for c in failed)
    return "failed: " + "; ".join(
        f"{c.name} is {figure}, limit {c.limit:g}" if c.limit is not None else f"{c.name} is {figure}"
        for c, figure in zip(failed, told, strict=True)
    )
