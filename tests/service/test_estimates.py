"""Estimates side by side: against a hand table, the estimators by themselves, and what they say of their own limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import pytest

from optimizer.bandit import ope
from optimizer.bandit.clusters import clusters
from optimizer.bandit.cressieread import Bounds, cressie_read_interval
from optimizer.bandit.intervals import Difference, difference_bound
from optimizer.service.estimates import (
    NO_OVERLAP,
    NO_REWARD,
    NONE_EARNED,
    TOO_HEAVY,
    Judged,
    as_logged,
    by_group,
    difference,
    estimates,
    support,
)


def table() -> Judged:
    """Four rows of two recipients; weights 2, 0, 1, 1."""
    return Judged(
        reward=np.array([1.0, 0.0, 1.0, 0.0]),
        weight=np.array([2.0, 0.0, 1.0, 1.0]),
        cluster=clusters(np.array([0, 0, 1, 1]), 4),
        q_logged=np.array([0.5, 0.5, 0.5, 0.25]),
        q_policy=np.array([0.75, 0.5, 0.5, 0.25]),
    )


def made_up(n: int, seed: int = 3) -> Judged:
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.2, 1.0, 3.0], n, p=[0.4, 0.4, 0.2])
    return Judged(
        rng.binomial(1, 0.3, n).astype(float),
        weight,
        clusters(rng.integers(0, n // 3, n), n),
        np.full(n, 0.3),
        np.full(n, 0.3),
    )


class TestValues:
    def test_the_hand_table(self) -> None:
        found = {name: one["value"] for name, one in estimates(table()).items()}
        assert found == {
            "ips": pytest.approx(3 / 4),
            "snips": pytest.approx(3 / 4),
            "dm": pytest.approx(2 / 4),
            # .75 + 2·.5, .5, .5 + .5, .25 − .25
            "dr": pytest.approx((1.75 + 0.5 + 1.0 + 0.0) / 4),
            "switch_dr": pytest.approx((1.75 + 0.5 + 1.0 + 0.0) / 4),
        }

    def test_they_are_those_of_the_estimators(self) -> None:
        j = made_up(600)
        found = estimates(j)
        assert j.q_logged is not None
        assert j.q_policy is not None
        assert found["snips"]["standard_error"] == ope.snips(j.reward, j.weight, j.cluster).standard_error
        dr = ope.doubly_robust(j.reward, j.weight, j.q_logged, j.q_policy, j.cluster)
        assert (found["dr"]["value"], found["dr"]["low"], found["dr"]["high"]) == (dr.value, dr.low, dr.high)

    def test_without_predictions_only_weights_speak(self) -> None:
        j = made_up(300)
        bare = Judged(j.reward, j.weight, j.cluster)
        assert list(estimates(bare)) == ["ips", "snips"]
        assert difference(bare, None)["estimator"] == "ips"

    def test_cressie_read_speaks_only_where_no_recipient_repeats(self) -> None:
        j = made_up(300)
        assert all(one["cressie_read"] is None for one in estimates(j).values())
        own = Judged(j.reward, j.weight, clusters(None, 300), j.q_logged, j.q_policy)
        found = estimates(own)
        ends = cressie_read_interval(j.reward, j.weight, Bounds((0.0, 1.0)))
        assert found["ips"]["cressie_read"] == found["snips"]["cressie_read"] == list(ends)
        assert found["dr"]["cressie_read"] is None

    def test_of_a_policy_that_is_never_drawn_nothing_is_told_but_the_models_own_word(self) -> None:
        """Every weight is 0: the value, its error and the width of every interval would be 0, too."""
        j = made_up(300)
        bare = Judged(j.reward, np.zeros(300), j.cluster)
        found = estimates(bare)
        assert list(found) == ["ips", "snips"]
        for one in found.values():
            figures = {name: figure for name, figure in one.items() if name not in ("n", "withheld")}
            assert figures.pop("effective_sample_size") == 0.0
            assert set(figures.values()) == {None}
            assert one["withheld"] == NO_OVERLAP
        for other in (None, j):
            told = difference(bare, other)
            assert (told["value"], told["low"], told["minimum_detectable_effect"]) == (None, None, None)
            assert told["withheld"] == NO_OVERLAP
        assert difference(Judged(j.reward, j.weight, j.cluster), bare)["withheld"] == f"of the other, {NO_OVERLAP}"
        whole = estimates(Judged(j.reward, np.zeros(300), j.cluster, j.q_logged, j.q_policy))
        assert {name for name, one in whole.items() if one["withheld"] is None} == {"dm"}
        (group,) = by_group({"policy": bare}, "plan", ["a"] * 300, 50)
        assert (group["policy"]["value"], group["policy"]["withheld"]) == (None, NO_OVERLAP)
        assert group["logged"]["value"] == pytest.approx(float(j.reward.mean()))

    def test_weights_alone_tell_nothing_where_none_of_their_rows_was_rewarded(self) -> None:
        j = made_up(300)
        weight = np.where(j.reward == 0.0, j.weight, 0.0)
        found = estimates(Judged(j.reward, weight, j.cluster, j.q_logged, j.q_policy))
        assert {name for name, one in found.items() if one["withheld"] == NO_REWARD} == {"ips", "snips"}
        assert found["dr"]["standard_error"] > 0.0
        assert difference(Judged(j.reward, weight, j.cluster), None)["withheld"] == NO_REWARD

    def test_costs_alone_tell_nothing_of_what_is_earned(self) -> None:
        """Each message costs .0004 and nothing came of any: the spread of costs bounds no reward."""
        weight = made_up(500).weight
        cost = np.where(np.arange(500) % 3 == 0, 0.0, -0.0004)
        j = Judged(cost, weight, clusters(None, 500), worth=np.zeros(500, dtype=np.bool_))
        assert {one["withheld"] for one in estimates(j).values()} == {NO_REWARD}
        assert difference(j, None)["withheld"] == NO_REWARD
        logged = as_logged(j)
        assert (logged["value"], logged["low"], logged["withheld"]) == (pytest.approx(cost.mean()), None, NONE_EARNED)
        (group,) = by_group({"policy": j}, "plan", ["a"] * 500, 50)
        assert (group["logged"]["high"], group["policy"]["withheld"]) == (None, NO_REWARD)
        unpaid = Judged(np.zeros(500), weight, clusters(None, 500), worth=np.ones(500, dtype=np.bool_))
        assert estimates(unpaid)["ips"]["withheld"] == NO_REWARD, "what happened is worth nothing"
        once = replace(j, worth=np.arange(500) == np.argmax(weight))
        assert {one["withheld"] for one in estimates(once).values()} == {None}
        assert as_logged(once)["low"] < as_logged(once)["high"]

    def test_what_was_logged_without_any_reward_has_no_bounds(self) -> None:
        j = made_up(300)
        found = as_logged(Judged(np.zeros(300), j.weight, j.cluster))
        assert (found["value"], found["standard_error"], found["low"], found["high"]) == (0.0, None, None, None)
        assert found["withheld"] == NONE_EARNED

    def test_of_probabilities_that_are_no_policys_nothing_is_told(self) -> None:
        """1 for each logged action, of two equally likely ones: every weight is 2."""
        j = made_up(300)
        bare = Judged(j.reward, np.full(300, 2.0), clusters(None, 300))
        for one in estimates(bare).values():
            assert (one["value"], one["low"], one["withheld"]) == (None, None, TOO_HEAVY)
        assert difference(bare, None)["withheld"] == TOO_HEAVY
        assert difference(Judged(j.reward, np.ones(300), j.cluster), None)["withheld"] is None

    def test_a_policys_weights_are_hardly_ever_taken_for_no_policys(self) -> None:
        """Of 2,000 logs of a policy that takes 1 in 2, 20 or 200 actions, few or many rows a log."""
        rng = np.random.default_rng(5)
        for chance in (0.5, 0.05, 0.005):
            for n in (20, 200):
                taken = rng.random((2_000, n)) < chance
                alone = clusters(None, n)
                alarms = sum(Judged(np.ones(n), row / chance, alone).lacking("ips") == TOO_HEAVY for row in taken)
                assert alarms <= 2

    def test_what_switches_every_weight_off_is_the_model_alone(self) -> None:
        j = made_up(300)
        weight = np.where(np.arange(300) % 30 == 0, 30.0, 0.0)
        found = estimates(Judged(j.reward + 1.0, weight, j.cluster, j.q_logged, j.q_policy))
        assert {name for name, one in found.items() if one["withheld"] is not None} == {"switch_dr"}


class TestIntervals:
    def test_all_of_them_hold_the_value_and_resemble_each_other(self) -> None:
        found = estimates(made_up(3000))
        for name, one in found.items():
            if name == "dm":  # constant predictions
                continue
            width = one["high"] - one["low"]
            for kind in ("bootstrap", "empirical_likelihood", "confidence_sequence"):
                if one[kind] is None:
                    continue
                low, high = one[kind]
                assert low <= one["value"] <= high
                assert 0.7 <= (high - low) / width <= (2.5 if kind == "confidence_sequence" else 1.4), (name, kind)
        assert found["ips"]["confidence_sequence"] is not None
        assert found["snips"]["confidence_sequence"] is None

    def test_recipients_with_many_rows_widen_them(self) -> None:
        j = made_up(300)
        thrice = np.repeat(np.arange(300), 3)
        repeated = Judged(j.reward[thrice], j.weight[thrice], clusters(thrice, 900))
        single = Judged(j.reward, j.weight, clusters(None, 300))
        assert estimates(repeated)["ips"]["standard_error"] == pytest.approx(estimates(single)["ips"]["standard_error"])

    def test_the_sequence_is_widened_with_them(self) -> None:
        """Each row three times tells a third of what as many rows of different people tell."""
        j = made_up(1_000)
        thrice = np.repeat(np.arange(1_000), 3)
        widths = []
        for group in (clusters(thrice, 3_000), clusters(None, 3_000)):
            found = estimates(Judged(j.reward[thrice], j.weight[thrice], group))["ips"]
            low, high = found["confidence_sequence"]
            assert (low + high) / 2.0 == pytest.approx(found["value"])
            widths.append(high - low)
        assert widths[0] / widths[1] == pytest.approx(np.sqrt(3.0), rel=1e-3)

    def test_it_is_json_and_the_same_each_time(self) -> None:
        first, again = (orjson.dumps(estimates(made_up(400))) for _ in range(2))
        assert first == again


class TestTrust:
    def test_support_tells_what_is_missing(self) -> None:
        j = made_up(900)
        found = support(j)
        assert found["largest_weight"] == 3.0
        assert found["never_taken"] == 0.0
        assert abs(found["mean_weight_z"]) < 4
        assert {c["name"]: c["passed"] for c in found["conditions"]} == {
            "support.weight": True,
            "support.effective_rows": False,
            "support.rewarded_rows": True,
        }

    def test_costs_alone_are_no_reward(self) -> None:
        j = made_up(900)
        happened = np.arange(900) < 7
        found = support(Judged(j.reward - 0.5, j.weight, j.cluster, worth=happened))
        assert found["effective_rewarded_rows"] < 8.0

    def test_the_minimum_detectable_effect_is_found_with_its_power(self) -> None:
        """400 logs whose true gain is the stated one: shown in .8 of them, within 4 standard errors."""
        rng = np.random.default_rng(9)

        def log(gain: float) -> Judged:
            better = rng.random(2000) < 0.5
            reward = rng.random(2000) < 0.2 + gain * better
            return Judged(
                reward.astype(float),
                np.where(better, 2.0, 0.0),
                clusters(None, 2000),
                np.full(2000, 0.2),
                np.full(2000, 0.2),
            )

        effect = difference(log(0.0), None)["minimum_detectable_effect"]
        # always choosing the better half gains half of its advantage
        shown = np.mean([difference(log(2 * effect), None)["low"] > 0 for _ in range(400)])
        assert 0.7 <= shown <= 0.88

    def test_a_difference_has_the_error_that_the_gate_judges_by(self) -> None:
        one, other = made_up(500), made_up(500)
        other.weight[:] = np.roll(other.weight, 7)
        q, v = one.q_logged, one.q_policy
        assert q is not None
        assert v is not None
        for rival, weight, value in ((other, other.weight, v), (None, np.ones(500), q)):
            _, error = difference_bound(Difference(v - value, one.weight - weight, one.reward - q), one.cluster, 1.0)
            assert difference(one, rival)["standard_error"] == pytest.approx(error, rel=1e-12)

    def test_a_paired_difference_to_itself_is_nothing(self) -> None:
        j = made_up(500)
        found = difference(j, j)
        assert (found["value"], found["low"], found["high"]) == (0.0, 0.0, 0.0)

    def test_a_group_of_one_person_has_no_bounds_and_is_left_out(self) -> None:
        j = made_up(900)
        one = replace(j, cluster=clusters(np.concatenate((np.zeros(300), np.arange(1, 601))).astype(np.int64), 900))
        found = by_group({"policy": one}, "plan", ["vip"] * 300 + ["other"] * 600, 50)
        assert [(g["group"], g["recipients"]) for g in found] == [("other", 600)]

    def test_of_what_is_no_policy_no_group_is_told_anything(self) -> None:
        """1 for each logged action: most weigh 24, a group of rarely drawn ones too unevenly to show it."""
        rng = np.random.default_rng(4)
        likely = rng.random(900) < 0.9
        weight = np.where(likely, 24.0, rng.choice([0.5, 60.0], 900, p=[0.97, 0.03]))
        j = Judged(rng.binomial(1, 0.3, 900).astype(float), weight, clusters(None, 900))
        part = j.take(~likely)
        assert Judged(part.reward, part.weight, part.cluster).lacking("ips") is None
        found = by_group({"policy": j}, "likely", ["yes" if one else "no" for one in likely], 50)
        assert [(g["group"], g["policy"]["value"], g["policy"]["withheld"]) for g in found] == [
            ("no", None, TOO_HEAVY),
            ("yes", None, TOO_HEAVY),
        ]
        assert {g["difference"]["withheld"] for g in found} == {TOO_HEAVY}

    def test_groups_are_parts_of_the_rows(self) -> None:
        j = made_up(900)
        labels = ["a" if i % 3 else "b" for i in range(890)] + ["tiny"] * 10
        found = by_group({"policy": j}, "plan", labels, 50)
        assert [(g["group"], g["rows"]) for g in found] == [("a", 593), ("b", 297)]
        chosen = np.array([label == "b" for label in labels])
        assert found[1]["logged"]["value"] == as_logged(j.take(chosen))["value"] == float(j.reward[chosen].mean())
