"""From logged rows to the gate's evidence, and its verdict: for a campaign's first policy, and for a later one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.balance import Balance, balance_test
from optimizer.bandit.calibration import Calibration, calibration
from optimizer.bandit.evidence import FirstEvidence, GateLimits, Harm, Integrity, PairedEvidence, Verdict
from optimizer.bandit.gate import judge, judge_first
from optimizer.model.funnel import AFTER, TITLES, told_apart
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.model.training.evaluate import cross_fit_gain, log_likelihood
from optimizer.service.evidence import Paired, Replayed, check_integrity, clusters, policy_probability
from optimizer.service.feedback import Logged, examples, judgeable
from optimizer.service.replay import Replayer
from optimizer.service.runs import LEAST_RECIPIENTS
from storage.port import Reader
from storage.records import Attribute, Campaign

Floats = NDArray[np.float64]

_LIMITS = GateLimits()
#: An attribute with 2 to this many values can name segments.
MOST_SEGMENTS = 20


def first_rows(logged: Sequence[Logged], campaign: Campaign) -> list[Logged]:
    """The rows of a campaign that its first policy is judged on: guardrails need to know how likely an action was, and
    see harms of messages of which nobody knows otherwise that they went out."""
    known = [r for r in judgeable(logged, campaign) if r.matured and (r.drawn or not campaign.guardrails)]
    return [r for r in known if r.trainable or any(_harmed(r, name) == 1.0 for name in campaign.guardrails)]


def first_verdict(
    replayer: Replayer,
    logged: Sequence[Logged],
    campaign: Campaign,
    attributes: tuple[Attribute, ...],
    tries: int,
    policy_for: Callable[[Sequence[Logged]], Callable[[Logged], LivePolicy]],
) -> Verdict:
    """Judges a campaign's first policy by cross-fitted likelihood, integrity and guardrails.

    Args:
        replayer: for the log's own probabilities.
        logged: all rows of the campaign; its ``first_rows`` must be of at least ``LEAST_RECIPIENTS``.
        campaign: as it is now.
        attributes: the registry.
        tries: this is the campaign's k-th judged candidate.
        policy_for: cross-fitted candidates; called only where there are guardrails to judge.
    """
    rows = first_rows(logged, campaign)
    data, _ = told_apart(examples(rows, {campaign.campaign_id: campaign}))
    found = cross_fit_gain(data, LEAST_RECIPIENTS, attributes=attributes)
    gains = {k: _of_all(rows, gain) for k, gain in found.items()}
    of_worth = {k: gains[k] for k in campaign.objective if k in gains}
    before = {AFTER[k] for k in of_worth if k in AFTER}
    weight = None
    if campaign.guardrails:
        policies = policy_for(rows)
        propensity = np.array([r.decision.propensity for r in rows], dtype=np.float64)
        weight = policy_probability(replayer, rows, campaign, policies) / propensity
    evidence = FirstEvidence(
        gains=of_worth,
        steps={TITLES[k]: gains[k] for k in sorted(before & gains.keys())},
        cluster=clusters(rows),
        integrity=_integrity(check_integrity(replayer, logged), logged),
        tries=tries,
        harms=_harms(campaign, rows),
        weight=weight,
    )
    return replace(judge_first(evidence), tries=tries)


def too_few(rows: Sequence[Logged], campaign: Campaign, limits: GateLimits = _LIMITS) -> str | None:
    """Why these rows let no candidate beside an incumbent through, however good it is; None = they may.

    The gate asks for effective rows, and no weights make more of them than there are rows. A verdict that is known
    beforehand is none: it would be a try, and spend error that a later one needs.
    """
    count, earned = len(rows), int(np.count_nonzero(rewarded(campaign, rows)))
    if count >= limits.min_effective_rows and earned >= limits.min_rewarded_rows:
        return None
    return (
        f"{count:,} rows to judge a candidate on, of which {earned:,} brought something that counts: "
        f"{limits.min_effective_rows:,.0f} and {limits.min_rewarded_rows:,.0f} are needed"
    )


def later_verdict(
    replayer: Replayer,
    rows: Sequence[Logged],
    campaign: Campaign,
    paired: Paired,
    tries: int,
    rung: float | None,
    models: tuple[RewardModel | None, RewardModel],
    *,
    limits: GateLimits = _LIMITS,
    without: Collection[str] = (),
) -> Verdict:
    """Judges a candidate against the incumbent on judgeable rows that it was not trained on.

    ``models`` are the incumbent's heaviest model (None = cold start) and the candidate's; ``rung``: see
    ``PairedEvidence``; ``without``: attributes by which segments aren't made (see ``untold``).
    """
    evidence = PairedEvidence(
        reward=paired.reward,
        propensity=paired.propensity,
        p_incumbent=paired.p_incumbent,
        p_candidate=paired.p_candidate,
        q_logged=paired.q_logged,
        v_incumbent=paired.value_incumbent,
        v_candidate=paired.value_candidate,
        cluster=paired.cluster,
        integrity=_integrity(check_integrity(replayer, rows), rows),
        calibration=_calibrations(paired),
        tries=tries,
        rung=rung,
        likelihood_gain=likelihood_gain(rows, campaign, models),
        harms=_harms(campaign, rows),
        segments=segment_labels(rows, without),
        rewarded=rewarded(campaign, rows),
    )
    return replace(judge(evidence, limits), tries=tries)


def _integrity(found: Replayed, rows: Sequence[Logged]) -> Integrity:
    replayable = sum(r.drawn and not r.decision.imported for r in rows)
    balance: Balance | None = None
    if found.names:
        balance = balance_test(found.drawn, found.expected, names=found.names)
    return Integrity(found.largest_error if found.checked else None, found.checked, replayable, balance)


def _calibrations(paired: Paired) -> dict[str, Calibration]:
    found = {}
    for kind, chance in paired.predicted.items():
        known = np.isfinite(chance) & np.isfinite(paired.outcome[kind])
        if known.any():
            found[kind] = calibration(chance[known], paired.outcome[kind][known], paired.cluster[known])
    return found


def likelihood_gain(
    rows: Sequence[Logged],
    campaign: Campaign,
    models: tuple[RewardModel | None, RewardModel],
    kinds: Collection[str] | None = None,
) -> Floats | None:
    """How much likelier judgeable rows' outcomes (of these kinds; None = all) are to the second of two models than to
    the first.

    Returns:
        (n,) nats, summed over the outcomes that both predict; NaN where nothing came of the action or is known of it.
        None where there is no first model, or no outcome that both predict.
    """
    incumbent, candidate = models
    if incumbent is None:
        return None
    data = examples([r for r in rows if r.trainable], {campaign.campaign_id: campaign})
    ours, theirs = log_likelihood(candidate, data), log_likelihood(incumbent, data)
    differences = [ours[k] - theirs[k] for k in ours if k in theirs and (kinds is None or k in kinds)]
    if not differences:
        return None
    stacked = np.stack(differences)
    known = np.isfinite(stacked)
    return _of_all(rows, np.where(known.any(axis=0), np.where(known, stacked, 0.0).sum(axis=0), np.nan))


def _of_all(rows: Sequence[Logged], told: Floats) -> Floats:
    """(n,) what is told of the trainable rows, at their places; NaN elsewhere."""
    values: Floats = np.full(len(rows), np.nan)
    values[np.array([r.trainable for r in rows], np.bool_)] = told
    return values


def _harms(campaign: Campaign, rows: Sequence[Logged]) -> tuple[Harm, ...]:
    """Guardrail outcomes, per message: rows without a message say nothing of them."""
    return tuple(
        Harm(name, np.array([_harmed(r, name) for r in rows], dtype=np.float64), g.max_rate, g.max_increase)
        for name, g in campaign.guardrails.items()
    )


def _harmed(row: Logged, name: str) -> float:
    outcome = row.outcomes.get(name)
    if outcome is None or not outcome.matured or row.decision.send_at is None:
        return float("nan")
    # A harm counts of whatever message it is; that there was none says something only of those known to have gone out.
    return float(outcome.happened) if outcome.happened or row.trainable else float("nan")


def rewarded(campaign: Campaign, rows: Sequence[Logged]) -> NDArray[np.bool_]:
    """Whether something of worth happened; costs alone don't make a row informative."""
    return np.array([any(o.happened for k, o in r.outcomes.items() if k in campaign.objective) for r in rows], np.bool_)


def untold(reader: Reader, workspace_id: str) -> frozenset[str]:
    """The attributes that nobody is grouped by: sensitive ones, and those that are not for the model."""
    return frozenset(a.name for a in reader.attributes(workspace_id) if a.sensitive or not a.use_in_model)


def segment_labels(rows: Sequence[Logged], without: Collection[str]) -> NDArray[np.int64] | None:
    """(n,) segments by the categorical attribute that divides the rows most evenly, ``without`` some; None where there
    is none."""
    found = segments(rows, without)
    return None if found is None else np.unique(found[1], return_inverse=True)[1].astype(np.int64).reshape(-1)


def segments(rows: Sequence[Logged], without: Collection[str]) -> tuple[str, list[str]] | None:
    """The categorical attribute that divides the rows most evenly, ``without`` some, and its value in each row
    ("" = none)."""
    names = {k for r in rows for k, v in r.decision.snapshot.context.items() if isinstance(v, str)}
    best: tuple[float, str, list[str]] | None = None
    for name in sorted(names.difference(without)):
        values = values_of(rows, name)
        counts = np.unique(values, return_counts=True)[1]
        if not 2 <= len(counts) <= MOST_SEGMENTS:
            continue
        share = counts / counts.sum()
        entropy = -float(share @ np.log(share))
        if best is None or entropy > best[0]:
            best = (entropy, name, values)
    return None if best is None else best[1:]


def values_of(rows: Sequence[Logged], name: str) -> list[str]:
    """An attribute's value in each row, as text; "" where there is none."""
    found = (r.decision.snapshot.context.get(name) for r in rows)
    return ["" if value is None else str(value) for value in found]


def fold_of(rows: Sequence[Logged], folds: int) -> dict[str, int]:
    """Recipient -> fold, for cross-fitting clustered by recipient."""
    return {r.decision.recipient_id: int(k) for r, k in zip(rows, clusters(rows) % folds, strict=True)}
