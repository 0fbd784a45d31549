"""The gate: every condition can fail, the ladder climbs as it says, verdicts are JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.balance import balance_test
from optimizer.bandit.calibration import Calibration
from optimizer.bandit.evidence import Replays, replay_error
from optimizer.bandit.gate import (
    Condition,
    FirstEvidence,
    GateLimits,
    Harm,
    Integrity,
    PairedEvidence,
    Verdict,
    judge,
    judge_first,
    next_rung,
    spend,
)
from optimizer.bandit.intervals import one_sided_quantile
from tests.bandit.gate_world import BETTER, FINE, GOOD, HONEST, NULL, good, logged


def named(verdict: Verdict, name: str) -> Condition:
    return next(c for c in verdict.conditions if c.name == name)


def with_heavy_rows(evidence: PairedEvidence, every: int) -> PairedEvidence:
    """The same, but one row in so many is what candidate and incumbent do alike and whoever logged hardly ever did."""
    alike = np.arange(evidence.propensity.size) % every == 0
    return dataclasses.replace(
        evidence,
        propensity=np.where(alike, 0.5 / 887, evidence.propensity),
        p_incumbent=np.where(alike, 0.5, evidence.p_incumbent),
        p_candidate=np.where(alike, 0.5, evidence.p_candidate),
    )


def failed(verdict: Verdict) -> list[str]:
    return [c.name for c in verdict.conditions if not c.passed]


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([], 0.0),
        ([0.5], 0.0),
        ([0.5, 1e-12], 1e-12),
        ([0.5, 0.25, 0.0], 0.25),
        ([0.5, *[0.0] * 998], 0.0),
        ([0.5] * 3 + [1e-9] * 2_997, 1e-9),
        ([0.5] * 4 + [1e-9] * 2_996, 0.5),
    ],
)
def test_one_row_in_a_thousand_may_replay_otherwise(errors: list[float], told: float) -> None:
    assert replay_error(errors, len(errors)) == told


def test_rows_that_do_not_replay_are_counted_from_look_to_look() -> None:
    one = Replays().after([0.5])
    assert one.error == 0.0
    assert one.after([0.0, 0.25]).error == 0.25
    honest = one.after([0.0] * 999)
    assert honest.error == 0.0
    assert honest.after([0.25]).error == 0.0  # another thousand
    assert Replays().after([0.5] * 5_000).error == 0.5
    assert Replays.from_json(dataclasses.asdict(one)) == one


class TestSpending:
    def test_the_spent_error_never_exceeds_the_family_s(self) -> None:
        spent = sum(spend(k, 0.05) for k in range(1, 2001))
        rest = 0.05 / 3.93195 * 2000.5**-0.3 / 0.3  # Σ_{k>2000} k^−1.3 < ∫ from 2000.5, the function being convex
        assert spent + rest <= 0.05
        assert spent > 0.04

    def test_each_try_is_stricter_than_the_one_before(self) -> None:
        levels = [spend(k, 0.05) for k in range(1, 60)]
        assert all(a > b > 0 for a, b in itertools.pairwise(levels))
        assert one_sided_quantile(levels[0]) == pytest.approx(2.2348, abs=1e-3)
        assert one_sided_quantile(levels[39]) == pytest.approx(3.7064, abs=1e-3)

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="tries: 0"):
            spend(0, 0.05)
        with pytest.raises(ValueError, match="alpha: 1"):
            spend(1, 1.0)


class TestLadder:
    def test_a_new_candidate_starts_as_a_canary(self) -> None:
        verdict = judge(good())
        assert (verdict.decision, verdict.alpha) == ("publish", 0.1)
        assert [r.alpha for r in verdict.rungs] == [1.0, 0.6, 0.3, 0.1]
        assert [r.passed for r in verdict.rungs] == [False, False, False, True]
        assert verdict.rungs[2].failed == ("canary",)
        assert "0.3 is held back by canary" in verdict.reason

    @pytest.mark.parametrize(("rung", "allowed"), [(0.0, 0.1), (0.05, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1), (1.0, 1)])
    def test_a_lineage_climbs_one_rung_a_retrain(self, rung: float, allowed: float) -> None:
        assert next_rung(rung) == allowed
        assert judge(good(20_000, rung=rung)).alpha == allowed

    def test_support_holds_the_higher_rungs_back(self) -> None:
        # rare action: π_b = .01, candidate .97: w = 97 whole, 58.6 at .6, 29.8 at .3 with the incumbent's 1 mixed in
        n = 20_000
        propensity = np.where(np.arange(n) % 100 == 0, 0.01, 0.5)
        p_candidate = np.where(propensity < 0.1, 0.97, 0.5)
        verdict = judge(good(n, rung=1.0, propensity=propensity, p_incumbent=propensity, p_candidate=p_candidate))
        assert [("support.weight" in r.failed) for r in verdict.rungs] == [True, True, False, False]

    def test_rows_that_both_would_draw_alike_veto_nothing_however_heavy(self) -> None:
        """Earlier revisions hardly ever did what both do now: nobody learns from these rows which one is better."""
        verdict = judge(with_heavy_rows(good(20_000), every=2_000))
        assert (verdict.decision, verdict.alpha) == ("publish", 0.1), verdict.reason
        assert named(verdict, "support.weight").detail.endswith("itself 887.0 at most")

    def test_few_heavy_rows_without_a_case_prove_no_low_rate(self) -> None:
        """20 of 20,000 rows stand for half of what both do: that none of them did harm proves no low rate."""
        evidence = with_heavy_rows(good(20_000, rung=1.0), every=1_000)
        harms = (Harm("unsubscribed", np.zeros(20_000), max_rate=0.05),)
        verdict = judge(dataclasses.replace(evidence, harms=harms))
        assert verdict.alpha == 0.1, "undecided, so a canary alone"
        figure = named(verdict, "guardrails.unsubscribed.rate").figure
        assert figure is not None
        assert figure > 0.05

    def test_the_value_test_is_the_same_on_every_rung(self) -> None:
        evidence = good()
        full = named(judge(evidence), "value").figure
        assert full is not None
        for alpha in (0.1, 0.6):
            mixed = dataclasses.replace(
                evidence,
                p_candidate=(1 - alpha) * evidence.p_incumbent + alpha * evidence.p_candidate,
                v_candidate=(1 - alpha) * evidence.v_incumbent + alpha * evidence.v_candidate,
            )
            assert named(judge(mixed), "value").figure == pytest.approx(alpha * full)


class TestConditions:
    def test_a_good_candidate_meets_all(self) -> None:
        n = 6000
        verdict = judge(
            good(
                likelihood_gain=np.full(n, 0.01),
                segments=np.arange(n) % 3,
                harms=(Harm("unsubscribed", (np.arange(n) % 500 == 0).astype(float), 0.01, 0.02),),
            )
        )
        assert failed(verdict) == []
        assert {c.name.split(".")[0] for c in verdict.conditions} == {
            "integrity", "support", "value", "guardrails", "calibration", "canary"
        }  # fmt: skip
        assert verdict.level == spend(1, 0.05)

    def test_no_difference_leaves_the_incumbent(self) -> None:
        verdict = judge(good(p_candidate=good().p_incumbent))
        assert (verdict.decision, verdict.alpha) == ("reject", 0.0)
        assert failed(verdict) == ["value"]
        assert "no improvement shown" in verdict.reason

    def test_mean_and_lower_bound_are_told_apart(self) -> None:
        promised = good().v_incumbent + np.where(np.arange(6000) % 2 == 0, 0.101, -0.1)
        verdict = judge(good(p_candidate=good().p_incumbent, v_candidate=promised))
        value = named(verdict, "value")
        assert value.figure is not None
        assert value.figure < 0
        assert "(candidate − incumbent a decision: 0.000500 ± " in verdict.reason
        assert f"(standard error), lower bound {value.figure:.6f} at z 2.23)" in verdict.reason

    def test_a_model_s_own_opinion_passes_nothing(self) -> None:
        # q̂ believes in .4 for the candidate's actions: direct .394 against .22, where the logged rewards are all .2
        n = 6000
        promised = logged(np.random.default_rng(62), n, NULL).evidence(GOOD)
        q = np.where(promised.p_candidate > 0.5, 0.4, 0.2)
        verdict = judge(
            dataclasses.replace(promised, q_logged=q, v_incumbent=np.full(n, 0.22), v_candidate=np.full(n, 0.394))
        )
        assert "value" in failed(verdict)

    @pytest.mark.parametrize(
        "integrity",
        [
            Integrity(1e-5, 5000, 8000, None),
            Integrity(math.nan, 5000, 8000, None),
            Integrity(0.0, 4999, 8000, None),
            Integrity(None, 0, 10, None),
        ],
        ids=["error", "nan", "too_few", "none_checked"],
    )
    def test_propensities_that_can_t_be_recomputed(self, integrity: Integrity) -> None:
        assert failed(judge(good(integrity=integrity))) == ["integrity.replay"]

    def test_imported_rows_need_no_recomputing(self) -> None:
        assert judge(good(integrity=Integrity(None, 0, 0, None))).decision == "publish"

    def test_draws_out_of_balance(self) -> None:
        tails = balance_test(np.arange(400)[:, None] < 300, np.full((400, 1), 0.5), names=("sms",))
        verdict = judge(good(integrity=dataclasses.replace(HONEST, balance=tails)))
        assert failed(verdict) == ["integrity.balance"]
        assert "sms, 300 logged against 200.0 expected" in named(verdict, "integrity.balance").detail

    def test_a_balance_by_chance_is_let_through(self) -> None:
        heads = balance_test(np.arange(400)[:, None] < 225, np.full((400, 1), 0.5))  # z = 2.5
        assert judge(good(integrity=dataclasses.replace(HONEST, balance=heads))).decision == "publish"

    def test_too_few_effective_rows(self) -> None:
        assert "support.effective_rows" in failed(judge(good(900)))

    def test_effective_rows_grow_with_the_log(self) -> None:
        verdict = judge(good(6000), GateLimits(min_effective_share=0.999))
        assert named(verdict, "support.effective_rows").limit == pytest.approx(5994)

    def test_too_few_rewards(self) -> None:
        rewarded = np.zeros(6000, dtype=bool)
        rewarded[:90] = True
        assert failed(judge(good(rewarded=rewarded))) == ["support.rewarded_rows"]

    def test_a_segment_clearly_worse(self) -> None:
        rng = np.random.default_rng(63)
        evidence = logged(rng, 12_000, BETTER).evidence(GOOD)
        small = rng.random(12_000) < 0.1
        hurt = np.where(evidence.p_candidate > 0.5, 0.0, 1.0)
        reward = np.where(small, hurt, evidence.reward)
        verdict = judge(dataclasses.replace(evidence, reward=reward, segments=small.astype(np.int64)))
        assert failed(verdict) == ["guardrails.segments"]
        assert "segment 1" in named(verdict, "guardrails.segments").detail

    def test_small_segments_are_not_looked_at(self) -> None:
        verdict = judge(good(segments=np.arange(6000)))
        assert not [c for c in verdict.conditions if c.name == "guardrails.segments"]

    @pytest.mark.parametrize(
        ("head", "name"),
        [
            (dataclasses.replace(FINE, slope=0.5), "calibration.opened.slope"),
            (dataclasses.replace(FINE, intercept=0.6), "calibration.opened.intercept"),
        ],
    )
    def test_a_head_off_the_mark(self, head: Calibration, name: str) -> None:
        assert failed(judge(good(calibration={"clicked": FINE, "opened": head}))) == [name]

    def test_a_head_that_can_t_be_tested_passes_and_says_so(self) -> None:
        head = Calibration(math.nan, math.nan, math.inf, math.inf, -0.1, 100, 0, -3.0)
        verdict = judge(good(calibration={"converted": head}))
        assert verdict.decision == "publish"
        assert "can't be tested" in named(verdict, "calibration.converted.slope").detail

    def test_held_out_likelihood_clearly_worse(self) -> None:
        gain = np.random.default_rng(64).normal(-0.1, 0.5, 6000)
        gain[::7] = math.nan
        assert failed(judge(good(likelihood_gain=gain))) == ["calibration.likelihood"]

    def test_no_rows_are_rejected(self) -> None:
        none = np.zeros(0)
        verdict = judge(
            PairedEvidence(none, none, none, none, none, none, none, np.zeros(0, dtype=np.int64), HONEST, {}, 1)
        )
        assert verdict.decision == "reject"
        assert verdict.minimum_detectable_effect is None


class TestGuardrails:
    def harmful(self, happened: np.ndarray, **limits: float) -> tuple[Harm, ...]:
        return (Harm("unsubscribed", happened.astype(float), **limits),)

    def test_a_candidate_whose_actions_drive_people_away(self) -> None:
        evidence = good()
        happened = evidence.p_candidate > 0.5  # every person that gets the candidate's action leaves
        verdict = judge(dataclasses.replace(evidence, harms=self.harmful(happened, max_rate=0.15, max_increase=0.05)))
        assert failed(verdict) == ["guardrails.unsubscribed.rate", "guardrails.unsubscribed.increase"]

    def test_the_rate_is_the_mixture_s(self) -> None:
        # incumbent takes the harmful actions at .1, candidate at .97: .1 + α·.87 on the rungs
        evidence = good(rung=1.0)
        harms = self.harmful(evidence.p_candidate > 0.5, max_rate=0.5)
        verdict = judge(dataclasses.replace(evidence, harms=harms))
        assert verdict.alpha == 0.3
        assert named(verdict, "guardrails.unsubscribed.rate").figure == pytest.approx(0.361 + 1.645 * 0.02, abs=0.03)

    def test_no_case_and_few_rows_pass_as_canary_only(self) -> None:
        harms = self.harmful(np.zeros(6000), max_rate=0.0001)
        canary, climbing = judge(good(harms=harms)), judge(good(harms=harms, rung=0.3))
        assert canary.alpha == 0.1
        assert "undecided" in named(canary, "guardrails.unsubscribed.rate").detail
        assert climbing.alpha == 0.1
        assert climbing.rungs[1].failed == ("guardrails.unsubscribed.rate",)

    def test_no_case_in_enough_rows_is_proof(self) -> None:
        assert judge(good(20_000, harms=self.harmful(np.zeros(20_000), max_rate=0.01), rung=1.0)).alpha == 1.0

    def test_a_few_cases_above_what_rows_can_prove_are_no_canary(self) -> None:
        happened = np.arange(6000) == 17
        assert judge(good(harms=self.harmful(happened, max_rate=0.0001))).decision == "reject"

    def test_rates_are_per_known_row(self) -> None:
        happened = np.full(6000, math.nan)
        happened[::2] = 0.0
        happened[:600:2] = 1.0  # 300 of 3,000 messages
        figure = named(judge(good(harms=self.harmful(happened, max_rate=0.5))), "guardrails.unsubscribed.rate").figure
        assert figure == pytest.approx(0.1 + 1.645 * math.sqrt(0.1 * 1.2 / 3000), abs=0.02)


class TestFirstPolicy:
    def first(self, n: int = 2000, gain: float = 0.02, **changes: Any) -> FirstEvidence:
        rng = np.random.default_rng(65)
        evidence = FirstEvidence(
            gains={"opened": rng.normal(gain, 0.1, n), "clicked": np.where(np.arange(n) < n / 2, math.nan, 0.001)},
            cluster=np.arange(n) // 2,
            integrity=HONEST,
            tries=1,
        )
        return dataclasses.replace(evidence, **changes)

    def test_better_than_base_rates_goes_live_whole(self) -> None:
        verdict = judge_first(self.first())
        assert (verdict.decision, verdict.alpha) == ("publish", 1.0)
        assert "clicked 0.00100, opened 0.0" in named(verdict, "calibration.gain").detail

    def test_no_gain_is_rejected(self) -> None:
        assert failed(judge_first(self.first(gain=-0.001))) == ["calibration.gain"]

    def test_gains_of_rows_that_taught_each_other_are_less_sure(self) -> None:
        # by 1,000 people; the first try's z is 2.23: .1/√2000·√2·2.23 = .0071 is needed and not .0050
        twice = np.tile(np.random.default_rng(67).permuted(np.repeat([-0.1, 0.1], 500)), 2)
        cluster = np.arange(2000)
        assert failed(judge_first(self.first(gains={"opened": twice + 0.0062}, cluster=cluster))) == [
            "calibration.gain"
        ]
        assert judge_first(self.first(gains={"opened": twice + 0.0080}, cluster=cluster)).decision == "publish"

    def test_outcomes_are_judged_together(self) -> None:
        # each gain .0003 ± .1/√2000 alone says nothing; eight independent ones together do
        rng = np.random.default_rng(66)
        gains = {f"o{k}": rng.normal(0.004, 0.1, 2000) for k in range(8)}
        alone = [judge_first(self.first(gains={name: gain})).decision for name, gain in gains.items()]
        assert alone.count("reject") >= 6
        assert judge_first(self.first(gains=gains)).decision == "publish"

    def test_steps_to_what_is_of_worth_count_unless_they_are_all_that_is_predicted(self) -> None:
        # clicks alone are 1.3 standard errors (.1/√2000·√2) from 0, where 2.23 are asked for; with looks they are 3.2
        rng = np.random.default_rng(68)
        noise = (rng.permuted(np.repeat([-0.1, 0.1], 1000)) for _ in range(2))
        clicked, looked = (one + 0.0042 for one in noise)
        worth = {"clicked": clicked}
        assert failed(judge_first(self.first(gains=worth))) == ["calibration.gain"]
        verdict = judge_first(self.first(gains=worth, steps={"looked": looked + 0.01}))
        assert verdict.decision == "publish"
        assert "looked 0.01420" in named(verdict, "calibration.gain").detail
        lured = self.first(gains={"clicked": clicked - 0.004}, steps={"looked": looked + 0.02})
        assert failed(judge_first(lured)) == ["calibration.worth"]

    def test_rows_without_any_outcome_known_don_t_count(self) -> None:
        gain = np.full(2000, math.nan)
        gain[:199] = 0.5
        assert failed(judge_first(self.first(gains={"opened": gain}))) == ["rows"]
        assert failed(judge_first(self.first(gains={"opened": np.full(2000, math.nan)}))) == [
            "rows",
            "calibration.gain",
        ]

    def test_broken_propensities(self) -> None:
        verdict = judge_first(self.first(integrity=Integrity(0.1, 5000, 5000, None)))
        assert failed(verdict) == ["integrity.replay"]

    def test_no_harm_shown_passes_and_tells_what_proof_needs(self) -> None:
        harm = Harm("unsubscribed", np.zeros(2000), 0.0001, 0.0001)
        verdict = judge_first(self.first(harms=(harm,), weight=np.ones(2000)))
        assert verdict.decision == "publish"
        assert "proof needs 27056 rows" in named(verdict, "guardrails.unsubscribed.rate").detail

    def test_harm_shown_is_rejected(self) -> None:
        # random .05 overall; the candidate takes the fifth of rows where it is .25
        weight = np.where(np.arange(2000) % 5 == 0, 5.0, 0.0)
        harm = Harm("unsubscribed", (np.arange(2000) % 20 == 0).astype(float), 0.1, 0.05)
        verdict = judge_first(self.first(harms=(harm,), weight=weight))
        assert failed(verdict) == ["guardrails.unsubscribed.rate", "guardrails.unsubscribed.increase"]

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="weight: needed"):
            self.first(harms=(Harm("complained", np.zeros(2000)),))
        with pytest.raises(ValueError, match=r"gains\.opened: shape"):
            self.first(gains={"opened": np.zeros(3)})
        with pytest.raises(ValueError, match="at least one outcome"):
            self.first(gains={})


class TestEvidence:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"propensity": np.append(np.full(5999, 0.5), 0.0)}, "propensity: row 5999 is 0.0"),
            ({"p_candidate": np.full(6000, 1.5)}, "p_candidate: row 0 is 1.5"),
            ({"reward": np.full(6000, math.nan)}, "reward: row 0 is nan"),
            ({"v_candidate": np.zeros(3)}, r"v_candidate: shape \(3,\)"),
            ({"cluster": np.zeros(3, dtype=np.int64)}, r"cluster: shape \(3,\)"),
            ({"rung": 1.1}, "rung: 1.1"),
            ({"harms": (Harm("complained", np.full(6000, 2.0)),)}, "harms.complained: row 0 is 2.0"),
        ],
    )
    def test_refused_with_field_and_value(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            good(**change)

    @pytest.mark.parametrize("ladder", [(), (0.0, 1.0), (1.5,)])
    def test_a_ladder_outside_the_unit_interval(self, ladder: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match="ladder"):
            GateLimits(ladder=ladder)

    def test_verdicts_are_json(self) -> None:
        one = good(cluster=np.zeros(6000, dtype=np.int64))  # infinite errors
        for verdict in (judge(good()), judge(one), judge_first(TestFirstPolicy().first())):
            told = json.loads(json.dumps(dataclasses.asdict(verdict), allow_nan=False))
            assert told["decision"] == verdict.decision
            assert len(told["conditions"]) == len(verdict.conditions)

    def test_one_recipient_is_no_evidence(self) -> None:
        assert "value" in failed(judge(good(cluster=np.zeros(6000, dtype=np.int64))))
