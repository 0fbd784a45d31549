"""The conditions of the gate, one function each: evidence and limits in, named pass or fail with its number out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.calibration import Calibration
from optimizer.bandit.clusters import Clusters, Floats, clusters
from optimizer.bandit.evidence import Condition, GateLimits, Harm, Integrity
from optimizer.bandit.intervals import (
    Difference,
    difference_bound,
    lower_bound,
    one_sided_quantile,
    rate_upper,
    upper_bound,
)
from optimizer.bandit.ope import effective_sample_size

#: Standard errors of cross-fitted gains, in those of independent rows: see ``evaluate.cross_fit_gain``.
CROSS_FITTED = math.sqrt(2.0)


def condition(name: str, passed: bool, figure: float | None, limit: float | None, detail: str) -> Condition:
    """A condition whose numbers can be written as JSON: plain Python types, nothing infinite."""
    return Condition(name, bool(passed), _finite(figure), _finite(limit), detail)


def integrity(found: Integrity, limits: GateLimits) -> list[Condition]:
    """Recomputed propensities equal the logged ones, on enough rows; logged actions balance their propensities."""
    needed = min(limits.replay_rows, found.replayable)
    exact = needed == 0 or (found.max_error is not None and found.max_error <= limits.max_replay_error)
    replay = condition(
        "integrity.replay",
        exact and found.checked >= needed,
        found.max_error,
        limits.max_replay_error,
        f"{found.checked} of {found.replayable} replayable rows recomputed, {needed} needed",
    )
    if found.balance is None:
        return [replay, condition("integrity.balance", True, None, limits.balance_level, "no subset to test")]
    worst = min(found.balance.subsets, key=lambda s: s.p_holm, default=None)
    detail = "no subset to test"
    if worst is not None:
        detail = f"most out of balance: {worst.name}, {worst.observed} logged against {worst.expected:.1f} expected"
    p = found.balance.minimum_p
    return [replay, condition("integrity.balance", p > limits.balance_level, p, limits.balance_level, detail)]


def support(
    weight: Floats, rewarded: NDArray[np.bool_], limits: GateLimits, incumbent_weight: Floats | None = None
) -> list[Condition]:
    """The log holds enough of what π_α would do otherwise: bounded weights, enough effective rows, enough of them
    rewarded.

    What is estimated is a paired difference, in which a row weighs π_α/π_b − π_incumbent/π_b: nothing where both would
    do alike, however seldom whoever logged the row would have. Refreshes make the incumbent another policy than
    those that logged, so its own weights grow heavy in time, and no share of a candidate lowers them. The same weights
    around 1 are π_α's own where the incumbent logged the row; effective rows are counted by these or by π_α's,
    whichever are more: what shares the traffic is better told by its own.

    Args:
        weight: (n,) of π_α. rewarded: (n,). limits: what is asked. incumbent_weight: (n,); None = judged alone.
    """
    change, detail = weight, "largest importance weight"
    if incumbent_weight is not None:
        change = weight - incumbent_weight
        own = _largest(incumbent_weight)
        detail = f"largest difference from the incumbent's importance weight, itself {own:.1f} at most"
    heaviest = _largest(np.abs(change))
    told = weight if incumbent_weight is None else 1.0 + change
    effective = _effective(weight, told)
    floor = max(limits.min_effective_rows, limits.min_effective_share * weight.size)
    earned = _effective(weight[rewarded], told[rewarded])
    return [
        condition("support.weight", heaviest <= limits.max_weight, heaviest, limits.max_weight, detail),
        condition(
            "support.effective_rows",
            effective >= floor,
            effective,
            floor,
            f"effective sample size of {weight.size} rows",
        ),
        condition(
            "support.rewarded_rows",
            earned >= limits.min_rewarded_rows,
            earned,
            limits.min_rewarded_rows,
            f"effective sample size of {int(np.count_nonzero(rewarded))} rewarded rows",
        ),
    ]


def _effective(weight: Floats, other: Floats) -> float:
    return max(effective_sample_size(weight), effective_sample_size(other))


def _largest(values: Floats) -> float:
    return float(np.max(values, initial=0.0))


def calibrated(heads: Mapping[str, Calibration], limits: GateLimits) -> list[Condition]:
    """No head is *shown* to be off: its slope from 1, its intercept from 0, by more than the tolerance.

    The figure is the miscalibration that remains after the interval (Bonferroni over all slopes and intercepts) is
    given the benefit of the doubt. A head that can't be tested (one kind of outcome, constant predictions) passes and
    says so.
    """
    if not heads:
        return []
    z = one_sided_quantile(limits.calibration_error / (2.0 * 2.0 * len(heads)))
    found: list[Condition] = []
    for name, head in sorted(heads.items()):
        for what, value, error, target, tolerance in (
            ("slope", head.slope, head.slope_se, 1.0, limits.slope_tolerance),
            ("intercept", head.intercept, head.intercept_se, 0.0, limits.intercept_tolerance),
        ):
            if math.isfinite(value) and math.isfinite(error):
                shown = max(0.0, abs(value - target) - z * error)
                detail = f"{value:.3f} ± {error:.3f} on {head.n} rows, {head.events} events"
            else:
                shown, detail = 0.0, f"can't be tested on {head.n} rows, {head.events} events"
            found.append(condition(f"calibration.{name}.{what}", shown <= tolerance, shown, tolerance, detail))
    return found


def likelihood(gain: Floats | None, groups: Clusters, limits: GateLimits) -> list[Condition]:
    """The candidate's heads don't predict held-out rows clearly worse than the incumbent's."""
    if gain is None:
        return []
    known = ~np.isnan(gain)
    best = math.inf
    if np.any(known):
        z = one_sided_quantile(limits.calibration_error)
        best = upper_bound(gain[known], _some(groups, known), z)
    mean = float(np.mean(gain[known])) if np.any(known) else math.nan
    detail = f"upper bound of the log-likelihood gain over the incumbent, mean {mean:.5f} nats a row"
    return [condition("calibration.likelihood", best >= 0.0, best, 0.0, detail)]


def segments(
    difference: Difference, label: NDArray[np.int64] | None, groups: Clusters, limits: GateLimits
) -> list[Condition]:
    """No segment of at least ``segment_share`` of the rows is clearly worse off (Bonferroni over the segments)."""
    if label is None or label.size == 0:
        return []
    names, counts = np.unique(label, return_counts=True)
    large = names[counts >= limits.segment_share * label.size]
    if large.size == 0:
        return []
    z = one_sided_quantile(limits.segment_error / large.size)
    worse = difference.reversed()
    bounds = {int(s): -difference_bound(worse.take(label == s), _some(groups, label == s), z)[0] for s in large}
    worst = min(bounds, key=lambda s: bounds[s])
    detail = f"lowest upper bound of the difference, segment {worst} of {large.size} looked at"
    return [condition("guardrails.segments", bounds[worst] >= 0.0, bounds[worst], 0.0, detail)]


def guardrails(
    harm: Harm, weight: Floats, incumbent: Floats, groups: Clusters, limits: GateLimits, *, canary: bool
) -> list[Condition]:
    """Upper bounds of the rate under π_α, and of its increase over the incumbent's, lie within the limits.

    With no case at all no bound can be below z² over the effective rows (1,000 of them: .0027), whatever the candidate
    does. So a log without a single case is let through *on the canary's rung only*, where few people see the candidate
    and the next rung needs the proof from rows that the canary itself has logged.
    """
    known = ~np.isnan(harm.happened)
    happened = harm.happened[known]
    z = one_sided_quantile(limits.guardrail_error)
    cases = int(np.sum(happened))
    some = _some(groups, known)
    ours, theirs = _normalised(weight[known]), _normalised(incumbent[known])
    found: list[Condition] = []
    for what, limit, rows in (
        ("rate", harm.max_rate, ours),
        ("increase", harm.max_increase, None if ours is None or theirs is None else ours - theirs),
    ):
        if limit is None:
            continue
        # A case can weigh as much as the heaviest row, which the incumbent's limit no longer bounds.
        case = 0.0 if rows is None or _largest(rows) <= limits.max_weight else _largest(rows)
        bound = math.inf if rows is None else rate_upper(happened, rows, some, z, case)
        undecided = bound > limit and canary and cases == 0
        detail = f"upper bound, {cases} cases in {happened.size} rows"
        if undecided:
            detail += f"; undecided with no case and so few rows ({_needed(z, limit)} needed), let through as a canary"
        found.append(condition(f"guardrails.{harm.outcome}.{what}", bound <= limit or undecided, bound, limit, detail))
    return found


def first_guardrails(harm: Harm, weight: Floats, groups: Clusters, limits: GateLimits) -> list[Condition]:
    """A first policy is not *shown* to do harm: lower bounds of its rate, and of its increase over random, are within.

    Random choices are what goes on if it is refused, and a sharp policy has few effective rows in a random log (n/504
    with 504 actions), so an upper bound would refuse every first policy without protecting anyone. Asked is that the
    lower bounds stay within the limits; the upper bound and the rows that would prove it are told, and the risk
    mask of the policy acts on predicted risks meanwhile.
    """
    known = ~np.isnan(harm.happened)
    happened, ours, some = harm.happened[known], _normalised(weight[known]), _some(groups, known)
    z = one_sided_quantile(limits.guardrail_error)
    found: list[Condition] = []
    for what, limit, rows in (
        ("rate", harm.max_rate, ours),
        ("increase", harm.max_increase, None if ours is None else ours - 1.0),
    ):
        if limit is None:
            continue
        # No row, or no logged action that the policy takes: nothing is shown either way.
        low = -math.inf if rows is None else -rate_upper(happened, -rows, some, z)
        high = math.inf if rows is None else rate_upper(happened, rows, some, z)
        effective = effective_sample_size(weight[known])
        state = "proved" if high <= limit else f"not shown to be harmful; proof needs {_needed(z, limit)} rows like it"
        detail = f"lower bound; upper bound {high:.5f}, {int(np.sum(happened))} cases in {effective:.0f} effective rows"
        passed = low <= limit
        name = f"guardrails.{harm.outcome}.{what}"
        found.append(condition(name, passed, low, limit, f"{detail}; {state if passed else 'harmful'}"))
    return found


def gain(gains: Mapping[str, Floats], cluster: NDArray[np.int64], z: float, limits: GateLimits) -> list[Condition]:
    """Enough matured rows, and predictions clearly better than base rates.

    The rows' gains are summed over outcomes: the likelihood ratio of the joint prediction, one test without the price
    of a Bonferroni correction, and the stronger one when several outcomes can be predicted. The means of each are told.
    Their error is ``CROSS_FITTED`` times that of independent rows.
    """
    joint, known = joint_gain(gains)
    rows = int(joint.size)
    low, mean = -math.inf, math.nan
    if rows:
        low, mean = lower_bound(joint, cluster[known], CROSS_FITTED * z), float(np.mean(joint))
    each = ", ".join(f"{name} {_known_mean(values):.5f}" for name, values in sorted(gains.items()))
    detail = (
        "lower bound of what a tenth of the way from base rates to predictions gains, cross-fitted, nats a row, "
        f"z {z:.2f}; {mean:.5f} ({each})"
    )
    return [
        condition("rows", rows >= limits.first_rows, rows, limits.first_rows, "matured rows"),
        condition("calibration.gain", low > 0.0, low, 0.0, detail),
    ]


def of_worth(gains: Mapping[str, Floats], cluster: NDArray[np.int64]) -> Condition:
    """What is of worth is itself predicted better than by base rates, by more than the error of that.

    Asked where steps to it count in ``gain``: what makes people look need not make them click.
    """
    joint, known = joint_gain(gains)
    low = lower_bound(joint, cluster[known], CROSS_FITTED) if joint.size else -math.inf
    return condition("calibration.worth", low > 0.0, low, 0.0, "one standard error below the gain of what is of worth")


def joint_gain(gains: Mapping[str, Floats]) -> tuple[Floats, NDArray[np.bool_]]:
    """Gains summed over the outcomes that are known, of the (n,) rows where any is; and which rows those are."""
    stacked = np.column_stack(list(gains.values()))
    known = ~np.all(np.isnan(stacked), axis=1)
    return np.nansum(stacked[known], axis=1), known


def _finite(x: float | None) -> float | None:
    return float(x) if x is not None and math.isfinite(x) else None


def _known_mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else math.nan


def _some(groups: Clusters, chosen: NDArray[np.bool_]) -> Clusters:
    return clusters(groups.code[chosen], int(np.count_nonzero(chosen)))


def _normalised(weight: Floats) -> Floats | None:
    """Weights of mean 1; None when all are 0 or there is none."""
    mean = float(np.mean(weight)) if weight.size else 0.0
    return weight / mean if mean > 0.0 else None


def _needed(z: float, limit: float) -> str:
    return f"{math.ceil(z * z / limit)}" if limit > 0.0 else "infinitely many"
