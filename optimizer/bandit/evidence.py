"""What the gate is told and what it answers: evidence in, limits beside it, a verdict out. Plain frozen data.

Rows are matured, logged by treated or random recipients, and were not trained on by the models judged (``gains`` and q̂
cross-fitted or later in time). They must be chosen by time or policy, never by the action taken or its weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.balance import Balance
from optimizer.bandit.calibration import Calibration
from optimizer.bandit.clusters import Floats
from optimizer.bandit.ope import check_propensity

#: A logged propensity further than this from the recomputed one doesn't replay.
LARGEST_ERROR = 1e-6
#: Rows of which one may be off; and differences that are remembered, more than a look's worth of such rows.
STRETCH, MOST_OFF = 1_000, 50


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The numbers that a candidate is held to.

    Attributes:
        family_error: chance of ever publishing something that isn't better, over all tries of a campaign.
        power: the power that the minimum detectable effect is stated for.
        ladder: shares α of the candidate that are tried; the smallest is the canary.
        max_weight: largest allowed |π_α − π_incumbent|/π_b; over it, π_α/π_b makes guardrails' bounds wider.
        min_effective_rows: floor of the effective sample size of π_α.
        min_effective_share: and as a share of all rows.
        min_rewarded_rows: floor of the effective sample size among rows with a reward.
        max_replay_error: largest difference of a recomputed propensity from the logged one, see ``replay_error``.
        replay_rows: how many of the replayable rows must have been recomputed (all, if there are fewer).
        balance_level: Holm-adjusted p of the balance test that is still accepted. Far below .05, since it is asked at
            every retrain on mostly the same rows and a false alarm stops learning; real faults are beyond it at once.
        guardrail_error: one-sided error of each guardrail bound. Not spent over retrains: a false alarm only delays.
        calibration_error: two-sided error over all slopes and intercepts together.
        slope_tolerance: a head fails when its slope is shown to be further than this from 1.
        intercept_tolerance: and when its intercept is shown to be further than this from 0, in logits.
        segment_share: segments of at least this share of the rows are looked at.
        segment_error: one-sided error over all segments together.
        first_rows: matured rows that a first policy needs.
        watch_error: chance of ever rolling back a canary that is not worse, over all that is watched of it.
    """

    family_error: float = 0.05
    power: float = 0.8
    ladder: tuple[float, ...] = (1.0, 0.6, 0.3, 0.1)
    max_weight: float = 30.0
    min_effective_rows: float = 1000.0
    min_effective_share: float = 0.05
    min_rewarded_rows: float = 100.0
    max_replay_error: float = LARGEST_ERROR
    replay_rows: int = 5000
    balance_level: float = 0.001
    guardrail_error: float = 0.05
    calibration_error: float = 0.05
    slope_tolerance: float = 0.3
    intercept_tolerance: float = 0.3
    segment_share: float = 0.05
    segment_error: float = 0.05
    first_rows: int = 200
    watch_error: float = 0.05

    def __post_init__(self) -> None:
        if not self.ladder or not all(0.0 < a <= 1.0 for a in self.ladder):
            raise ValueError(f"ladder: {self.ladder} must be shares in (0, 1]")


@dataclass(frozen=True, slots=True)
class Integrity:
    """Whether the log can be trusted.

    Attributes:
        max_error: ``replay_error`` of the |recomputed − logged| propensities; None when nothing could be recomputed.
        checked: rows recomputed.
        replayable: rows that could have been (imported ones can't).
        balance: the balance test over variants, channels and dayparts; None when there is nothing to test.
    """

    max_error: float | None
    checked: int
    replayable: int
    balance: Balance | None


def replay_error(errors: Sequence[float], rows: int) -> float:
    """The largest |recomputed − logged| propensity of so many rows, one in a thousand (and at least one) left out.

    What computes on another machine may round otherwise. Between the compiled loops and NumPy 3 of 960,000 draws of a
    bank fell to another action, which moves two propensities of that row by a whole draw. A log that lies does so more
    often.

    Args:
        errors: differences, of the rows or of those alone that are off. rows: how many were recomputed.
    """
    spared = max(1, rows // STRETCH)
    return sorted(errors)[-1 - spared] if len(errors) > spared else 0.0


@dataclass(frozen=True, slots=True)
class Replays:
    """Rows of one look after another, as ``replay_error`` takes them; after ``STRETCH`` rows it begins anew.

    Attributes:
        rows: recomputed in this stretch. off: differences above ``LARGEST_ERROR``, the largest ``MOST_OFF``.
    """

    rows: int = 0
    off: tuple[float, ...] = ()

    def after(self, errors: Sequence[float]) -> Replays:
        """With the rows of another look."""
        before = Replays() if self.rows >= STRETCH else self
        off = sorted((*before.off, *(error for error in errors if error > LARGEST_ERROR)))
        return Replays(before.rows + len(errors), tuple(off[-MOST_OFF:]))

    @property
    def error(self) -> float:
        """``replay_error`` of the stretch."""
        return replay_error(self.off, self.rows)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Replays:
        """What ``asdict`` makes of one; None = kept before there were any."""
        return cls() if data is None else cls(int(data["rows"]), tuple(float(error) for error in data["off"]))


@dataclass(frozen=True, slots=True, eq=False)
class Harm:
    """A harmful outcome and its limits. Its rate is per row that is known.

    Attributes:
        outcome: its name.
        happened: (n,) 0 or 1, NaN = not known or not asked. NaN on rows without a message makes it a rate per message.
        max_rate: highest rate allowed, or None.
        max_increase: highest increase over the incumbent's (a first policy: over the log's) rate allowed, or None.
    """

    outcome: str
    happened: Floats
    max_rate: float | None = None
    max_increase: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FirstEvidence:
    """What is known of a campaign's first policy, which is to replace random choices.

    Attributes:
        gains: outcome → (n,) cross-fitted log-likelihood gain of each row over the training folds' base rates, in nats;
            NaN where the outcome is not known. Pass the outcomes that the objective rewards.
        steps: the same of what comes before them (a look before a click); may be empty.
        cluster: (n,) recipient of each row.
        integrity: of the log.
        tries: k, this is the campaign's k-th verdict, from 1.
        calibration: head → its recalibration on cross-fitted predictions; may be empty.
        harms: guardrails; may be empty.
        weight: (n,) importance weights of the candidate; needed when there are harms.
    """

    gains: Mapping[str, Floats]
    cluster: NDArray[np.int64]
    integrity: Integrity
    tries: int
    steps: Mapping[str, Floats] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    harms: tuple[Harm, ...] = ()
    weight: Floats | None = None

    def __post_init__(self) -> None:
        n = self.cluster.size
        if not self.gains:
            raise ValueError("gains: needs at least one outcome")
        for outcome, gain in self.judged.items():
            _check(f"gains.{outcome}", gain, n, lowest=-math.inf, unknown=True)
        _check_harms(self.harms, n)
        if self.harms and self.weight is None:
            raise ValueError("weight: needed to judge harms")
        if self.weight is not None:
            _check("weight", self.weight, n, lowest=0.0)

    @property
    def judged(self) -> dict[str, Floats]:
        """The gains whose sum is tested."""
        return {**self.steps, **self.gains}


@dataclass(frozen=True, slots=True, eq=False)
class PairedEvidence:
    """What is known of a candidate beside the incumbent that it wants to join or replace.

    Attributes:
        reward: (n,) reward of each row.
        propensity: (n,) logged probability of the logged action, in (0, 1].
        p_incumbent: (n,) probability of the logged action under the incumbent (its whole mixture).
        p_candidate: (n,) and under the candidate.
        q_logged: (n,) predicted reward of the logged action, cross-fitted.
        v_incumbent: (n,) Σ_a π_incumbent(a|x)·q̂(x, a).
        v_candidate: (n,) Σ_a π_candidate(a|x)·q̂(x, a).
        cluster: (n,) recipient of each row.
        integrity: of the log.
        calibration: head → recalibration of the candidate's heads on rows that they didn't see.
        tries: k, this is the campaign's k-th verdict, from 1.
        rung: share that the candidate's lineage holds in the incumbent's mixture now; 0 = none, and the first share is
            a canary's. None = the rows were drawn by a mixture of the two: no step is skipped unseen.
        likelihood_gain: (n,) held-out log-likelihood of the candidate's heads minus the incumbent's, summed over heads,
            NaN = not known; None when the incumbent has no model.
        harms: guardrails; may be empty.
        segments: (n,) segment label of each row, or None.
        rewarded: (n,) whether the row earned something; None = reward ≠ 0. Give it when messages cost something, since
            then every row has a reward.
    """

    reward: Floats
    propensity: Floats
    p_incumbent: Floats
    p_candidate: Floats
    q_logged: Floats
    v_incumbent: Floats
    v_candidate: Floats
    cluster: NDArray[np.int64]
    integrity: Integrity
    calibration: Mapping[str, Calibration]
    tries: int
    rung: float | None = 0.0
    likelihood_gain: Floats | None = None
    harms: tuple[Harm, ...] = ()
    segments: NDArray[np.int64] | None = None
    rewarded: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n = self.reward.size
        check_propensity(self.propensity)
        for name in ("reward", "propensity", "q_logged", "v_incumbent", "v_candidate"):
            _check(name, getattr(self, name), n, lowest=-math.inf)
        for name in ("p_incumbent", "p_candidate"):
            _check(name, getattr(self, name), n, lowest=0.0, highest=1.0 + 1e-9)
        if self.likelihood_gain is not None:
            _check("likelihood_gain", self.likelihood_gain, n, lowest=-math.inf, unknown=True)
        for name in ("cluster", "segments", "rewarded"):
            labels = getattr(self, name)
            if labels is not None and labels.shape != (n,):
                raise ValueError(f"{name}: shape {labels.shape}, must be ({n},)")
        if self.rung is not None and not 0.0 <= self.rung <= 1.0:
            raise ValueError(f"rung: {self.rung} must lie in [0, 1]")
        _check_harms(self.harms, n)


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing asked: ``figure`` is what was compared with ``limit`` (None = infinite or not known)."""

    name: str
    passed: bool
    figure: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Rung:
    """One share of the ladder and the names of the conditions that fail there."""

    alpha: float
    passed: bool
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer; ``dataclasses.asdict`` of it is JSON.

    Attributes:
        decision: publish or reject.
        alpha: share to publish at, 0 when rejected.
        conditions: every condition, those that depend on the share at ``alpha``, or at the smallest share if rejected.
        reason: one sentence for people.
        level: one-sided error spent on this try.
        minimum_detectable_effect: the true difference that this evidence would have shown with the stated power, in
            the unit of the value condition (reward a decision; nats a row for a first policy); None = unknown.
        rungs: what held each share of the ladder back; empty for a first policy.
        tries: which of the campaign's tries this is.
    """

    decision: Literal["publish", "reject"]
    alpha: float
    conditions: tuple[Condition, ...]
    reason: str
    level: float
    minimum_detectable_effect: float | None
    rungs: tuple[Rung, ...] = ()
    tries: int | None = None


def _check_harms(harms: tuple[Harm, ...], n: int) -> None:
    for harm in harms:
        _check(f"harms.{harm.outcome}", harm.happened, n, lowest=0.0, highest=1.0, unknown=True)


def _check(
    name: str, values: Floats, n: int, *, lowest: float, highest: float = math.inf, unknown: bool = False
) -> None:
    if values.shape != (n,):
        raise ValueError(f"{name}: shape {values.shape}, must be ({n},)")
    fine = np.isfinite(values) & (values >= lowest) & (values <= highest)
    if unknown:
        fine |= np.isnan(values)
    bad = np.flatnonzero(~fine)
    if bad.size:
        row = int(bad[0])
        raise ValueError(f"{name}: row {row} is {float(values[row])!r}, must be finite and in [{lowest}, {highest:g}]")
