"""A canary's increments: unbiased by enumeration, never above their bound, and bounds that are not blind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.bandit.evidence import LARGEST_ERROR, GateLimits
from optimizer.bandit.rewards import Outcome
from optimizer.service.feedback import Logged
from optimizer.service.stakes import Compared, Stakes, reward_bounds, stakes_of
from storage.log import Decision, Snapshot
from storage.records import Campaign, Channel, Guardrail, OutcomeWeight, Variant
from tests.service.conftest import START, WORKSPACE, campaign

SHOP = campaign(guardrails={"unsubscribed": Guardrail(max_rate=0.02, max_increase=0.01)})
ALPHA = 0.1
#: What a canary's share may be.
LADDER = [share for share in GateLimits().ladder if share < 1.0]


def row(reward: float, *, left: bool = False) -> Logged:
    decision = Decision(
        workspace_id=WORKSPACE,
        decision_id="dec_1",
        request_id="r",
        request_hash=b"",
        campaign_id="spring",
        campaign_version=1,
        recipient_id="u",
        status="sent",
        group="treated",
        mode="live",
        decided_at=START,
        propensity=0.5,
        policy_id="pol_1",
        action=0,
        actions=3,
        eligible_actions=3,
        eligible=b"\xe0",
        snapshot=Snapshot(START, START, ("mens",), ("email",), "UTC", "default"),
        variant_id="mens",
        channel="email",
        send_at=START,
    )
    return Logged(decision, {"unsubscribed": Outcome(left, None, None, True)}, reward, matured=True)


def compared(rng: np.random.Generator, alpha: float = ALPHA) -> list[Compared]:
    """One context of six actions: what each action would give if it were the logged one."""
    canary, before = rng.dirichlet(np.full(6, 0.3)), rng.dirichlet(np.full(6, 0.3))
    mixed = alpha * canary + (1 - alpha) * before
    predicted = rng.uniform(0.0, 1.0, 6)
    return [Compared(a, float(mixed[a]), canary, before, predicted, alpha) for a in range(6)]


class TestIncrements:
    @pytest.mark.parametrize("seed", range(20))
    def test_the_reward_difference_is_unbiased(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rows, true = compared(rng), rng.uniform(0.0, 1.0, 6)
        mean = sum(c.propensity * c.difference(float(true[c.action]), 0.0, 1.0) for c in rows)
        assert mean == pytest.approx(float((rows[0].canary - rows[0].before) @ true))

    @pytest.mark.parametrize("seed", range(20))
    def test_harm_is_counted_without_bias(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        stakes = stakes_of(SHOP, np.array([]), "")
        rows, leaves = compared(rng), rng.random(6) < 0.5
        told = [stakes.increments(SHOP, row(0.0, left=bool(leaves[c.action])), c) for c in rows]
        rate = sum(c.propensity * t["unsubscribed.rate"] for c, t in zip(rows, told, strict=True))
        assert rate == pytest.approx(0.02 - float(rows[0].canary @ leaves))
        increase = sum(c.propensity * t["unsubscribed.increase"] for c, t in zip(rows, told, strict=True))
        assert increase == pytest.approx(0.01 - float((rows[0].canary - rows[0].before) @ leaves))

    @pytest.mark.parametrize("alpha", LADDER)
    def test_no_increment_exceeds_its_bound(self, alpha: float) -> None:
        rng = np.random.default_rng(3)
        stakes = Stakes("", (0.0, 1.0), (-2.0, 1.5))
        wagers = stakes.wagers(SHOP, alpha)
        assert set(wagers) == {"reward", "reward_full", "unsubscribed.rate", "unsubscribed.increase"}
        for _ in range(300):
            for c in compared(rng, alpha):
                told = stakes.increments(SHOP, row(float(rng.uniform(-2, 1.5)), left=bool(rng.random() < 0.5)), c)
                assert all(value <= wagers[name].highest + 1e-9 for name, value in told.items())

    @pytest.mark.parametrize("alpha", LADDER)
    def test_where_the_two_never_choose_alike_an_increment_comes_near_the_bound(self, alpha: float) -> None:
        """An unexpected success of the canary's, or an unexpected failure of the rest's: either may be the larger."""
        canary, before = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 1e-6, 1.0 - 1e-6])
        paid = Compared(0, alpha * 0.5, canary, before, np.array([0.0, 1.0, 0.0, 0.0]), alpha)
        missed = Compared(2, (1 - alpha) * 1e-6, canary, before, np.array([1.0, 1.0, 1.0, 0.0]), alpha)
        found = paid.difference(1.0, 0.0, 1.0), missed.difference(0.0, 0.0, 1.0)
        assert found == pytest.approx((0.5 + 1 / alpha, 1.0 + 1 / (1 - alpha)), abs=1e-5)
        assert max(found) <= Stakes("", (0.0, 1.0), None).wagers(SHOP, alpha)["reward"].highest

    def test_a_row_of_the_rest_at_three_fifths_can_be_wagered_on(self) -> None:
        """The rest's own action, thought good, gave nothing, while the canary's is thought as good."""
        canary, before = np.array([0.0, 0.0, 1.0]), np.array([0.3, 0.7, 0.0])
        one = Compared(0, 0.4 * 0.3, canary, before, np.array([0.98, 0.4, 0.98]), 0.6)
        stakes = Stakes("", (0.0, 1.0), None)
        found = stakes.increments(SHOP, row(0.0), one)["reward"]
        assert found > 1.0 + 1.0 / 0.6
        assert stakes.wagers(SHOP, 0.6)["reward"].after([found]).rows == 1

    @pytest.mark.parametrize("alpha", LADDER)
    @pytest.mark.parametrize("action", [0, 1])
    def test_a_propensity_that_another_machine_rounded_down_can_be_wagered_on(self, alpha: float, action: int) -> None:
        """It is off by less than what is let pass, and each part alone makes more of the action."""
        mixed = (alpha, 1 - alpha)[action]
        parts = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        one = Compared(action, mixed - 0.9 * LARGEST_ERROR, *parts, np.array([0.0, 1.0]), alpha)
        assert 0.0 < one.error < LARGEST_ERROR
        stakes = Stakes("", (0.0, 1.0), None)
        for left in (False, True):
            told = stakes.increments(SHOP, row(0.0, left=left), one)
            for name, wager in stakes.wagers(SHOP, alpha).items():
                assert wager.after([told[name]]).rows == 1


class TestBounds:
    def shop(self, **weights: OutcomeWeight) -> Campaign:
        return replace(SHOP, objective=weights)

    def test_the_objective_bounds_the_reward(self) -> None:
        made = self.shop(clicked=OutcomeWeight(1.0), opened=OutcomeWeight(0.1), complained=OutcomeWeight(-50.0))
        assert reward_bounds(made) == pytest.approx((-50.0, 1.1))
        dear = replace(made, variants=(Variant("a", cost=0.2),), channels=(Channel("sms", cost=0.05),))
        assert reward_bounds(dear) == pytest.approx((-50.25, 1.1))

    def test_a_value_has_no_bound(self) -> None:
        assert reward_bounds(self.shop(bought=OutcomeWeight(0.0, per_value=1.0, max_value=9.0))) is None

    def test_rare_costs_do_not_blind_the_wager_on_what_is_usual(self) -> None:
        made = self.shop(clicked=OutcomeWeight(1.0), complained=OutcomeWeight(-50.0))
        found = stakes_of(made, np.repeat([0.0, 1.0, -50.0], [8000, 1999, 1]), "h")
        assert found == Stakes("h", (0.0, 1.0), (-50.0, 1.0))

    def test_rare_gains_that_are_most_of_what_there_is_are_not_clipped(self) -> None:
        made = self.shop(clicked=OutcomeWeight(0.05), bought=OutcomeWeight(0.0, per_value=1.0))
        earlier = np.repeat([-0.03, 0.0, 0.05, 100.0], [5_000, 44_000, 980, 20])
        assert stakes_of(made, earlier, "h").usual == (-0.03, 100.0)
        assert stakes_of(made, np.repeat([0.0, 0.05, 100.0], [40_000, 9_950, 1]), "h").usual == (0.0, 100.0)
        frequent = stakes_of(made, np.repeat([0.0, 50.0, 90.0], [9_800, 195, 5]), "h").usual
        assert frequent == (0.0, 50.0)

    def test_without_a_history_the_objective_speaks(self) -> None:
        assert stakes_of(SHOP, np.zeros(3), "h") == Stakes("h", (0.0, 1.0), None)
        valued = self.shop(bought=OutcomeWeight(0.0, per_value=1.0))
        assert stakes_of(valued, np.zeros(500), "h") == Stakes("h", None, None)
        assert Stakes("h", None, None).wagers(replace(SHOP, guardrails={}), ALPHA) == {}

    def test_json_round_trip(self) -> None:
        for stakes in (Stakes("h", (0.0, 1.0), None), Stakes("h", None, (-1.0, 2.0))):
            data = {
                "asked": "h",
                **{n: list(b) if b else None for n, b in (("usual", stakes.usual), ("full", stakes.full))},
            }
            assert Stakes.from_json(data) == stakes
