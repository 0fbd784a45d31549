"""Clicks after looks: the chances, their slopes, what the heads learn from, and what it is worth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.rewards import LOOKED
from optimizer.model import funnel
from optimizer.model.artifact import unpack
from optimizer.model.examples import Examples
from optimizer.model.funnel import (
    LEAST,
    blind_of,
    chances,
    deemed,
    hidden,
    is_blind,
    joined,
    slopes,
    steps,
    taught,
    told_apart,
    visible,
    without,
)
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Action
from optimizer.model.prepared import doubt_factor
from optimizer.model.terms import Seen, message_terms
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.train import refresh, train
from storage.records import OutcomeWeight
from tests.model.conftest import MONDAY, campaign, made_up

Floats = NDArray[np.float64]

LOCAL = MONDAY + np.array([9 * 3_600, 20 * 3_600, 4 * 86_400], dtype=np.int64)
SPACE = ActionSpace(("a", "b"), ("email", "sms"), LOCAL, LOCAL, True)
NAMES = ("clicked", "converted", LOOKED)


def looking(n: int, seed: int, taste: float = 0.06) -> Examples:
    """``made_up`` where people look by channel and hour, and click by variant and age once they have looked."""
    examples = made_up(n, seed, no_send=0.1)
    rng = np.random.default_rng(seed + 100)
    sent = examples.sent
    hour = examples.local % 86_400 / 86_400 * 2 * np.pi
    seen = 0.5 * (0.5 + 0.3 * np.cos(hour)) * np.where(examples.channel == 1, 1.6, 0.8)
    age = np.array([context["age"] for context in examples.contexts])
    liked = 1.0 / (1.0 + np.exp(1.6 - taste * (age - 40.0) * np.where(examples.variant == 1, 1.0, -1.0)))
    looked = rng.random(n) < seen
    clicked = looked & (rng.random(n) < liked)
    outcome = {
        **examples.outcome,
        "clicked": np.where(sent, clicked.astype(float), np.nan),
        LOOKED: np.where(sent, looked.astype(float), np.nan),
    }
    return dataclasses.replace(examples, outcome=outcome)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return RewardModel.load(train(looking(2_000, 3), attributes=(), seed=3, network=False).blob)


def test_slopes_are_those_of_the_chances() -> None:
    rng = np.random.default_rng(1)
    eta, worth = rng.normal(size=(3, 50)), np.array([1.0, 0.4, 0.0])
    order = steps(NAMES)
    assert order == ((0, 2),)
    for head in range(3):
        moved = eta.copy()
        moved[head] += 1e-6
        measured = (worth @ chances(moved, order) - worth @ chances(eta, order)) / 1e-6
        assert np.allclose(slopes(eta, worth, order)[head], measured, atol=1e-5)


def test_joined_log_odds_are_those_of_the_chances() -> None:
    eta = np.array([[-30.0, -2.0, 0.0, 3.0, 40.0], [0.0] * 5, [-3.0, 0.5, 40.0, 40.0, 40.0]])
    told = chances(eta, steps(NAMES))
    assert np.allclose(1.0 / (1.0 + np.exp(-joined(eta, NAMES))), told, rtol=1e-12)
    alone = eta[:2]
    assert joined(alone, NAMES[:2]) is alone, "without looks nothing changes"


def test_a_click_head_learns_from_looks_alone_and_counts_what_is_still_to_come() -> None:
    examples = looking(400, 5)
    share = np.full(400, 0.5)
    young = dataclasses.replace(examples, seen={"clicked": 0.5 * share, LOOKED: share})
    column, seen = taught(young, "clicked")
    looked = examples.outcome[LOOKED] == 1.0
    assert np.array_equal(np.isfinite(column), looked)
    assert np.array_equal(column[looked], examples.outcome["clicked"][looked])
    assert (seen[looked] == 0.5).all(), "half of the clicks that follow looks which would be known by now"
    plain, _ = taught(without(examples), "clicked")
    assert np.array_equal(plain, examples.outcome["clicked"], equal_nan=True)


def test_chances_are_products_and_callers_see_no_looks(model: RewardModel) -> None:
    assert LOOKED in model.message.outcomes
    assert LOOKED not in model.no_send.outcomes
    assert model.outcomes == visible(model.message.outcomes) == ("clicked", "converted", "unsubscribed")
    x = model.embed([{"age": 61.0, "plan": "pro"}])[0]
    scored = model.score(x, SPACE, campaign(), {})
    assert LOOKED not in scored.outcome
    looked, clicked = scored.chances.of(LOOKED), scored.chances.of("clicked")
    assert looked is not None
    assert clicked is not None
    assert (clicked[0, : SPACE.messages] < looked[0, : SPACE.messages]).all()
    assert clicked[0, SPACE.messages] == 0.0


def test_draws_move_by_both_heads(model: RewardModel) -> None:
    shop = campaign(objective={"clicked": OutcomeWeight(1.0)}, version=2)
    x = model.embed([{"age": 25.0, "plan": "free"}])[0]
    scored = model.score(x, SPACE, shop, {})
    heads, layout = model.message, model.message.layout
    both = np.array([heads.outcomes.index("clicked"), heads.outcomes.index(LOOKED)])
    width = float(unpack_width(model))
    owners = {variant.id: variant for variant in shop.variants}
    for action in range(SPACE.messages):
        place = SPACE.factors(action)
        assert place is not None
        variant = owners[SPACE.variants[place[0]]]
        cell = Action("spring", variant.id, SPACE.channels[place[2]], model.basis.coordinates(variant))
        row = layout.base_rows(x[None], LOCAL[place[1] : place[1] + 1]).astype(np.float64)[0]
        eta = heads.coefficients(cell)[both] @ row
        moves = width * heads.deviations(cell, both, doubt=doubt_factor(width)) @ row
        slope = slopes(eta, np.array([1.0, 0.0]), ((0, 1),))
        expected = scored.reward[action] + slope @ moves
        assert np.allclose(scored.draws[:, action], expected, atol=2e-5)


def unpack_width(model: RewardModel) -> float:
    return float(model.artifact_meta["width"])


def test_too_few_looks_without_a_click_make_no_head() -> None:
    examples = looking(300, 7)
    spare = np.flatnonzero((examples.outcome[LOOKED] == 1.0) & (examples.outcome["clicked"] == 0.0))[LEAST - 1 :]
    looked = examples.outcome[LOOKED].copy()
    looked[spare] = 0.0
    few = dataclasses.replace(examples, outcome={**examples.outcome, LOOKED: looked})
    blob = train(few, attributes=(), seed=1, network=False).blob
    assert LOOKED not in RewardModel.load(blob).message.outcomes
    assert blob == train(without(examples), attributes=(), seed=1, network=False).blob


def test_a_refresh_keeps_the_meaning_of_the_heads(model: RewardModel) -> None:
    more = looking(2_200, 3)
    plain = train(without(more), attributes=(), seed=3, network=False).blob
    assert RewardModel.load(refresh(plain, more).blob).message.outcomes == RewardModel.load(plain).message.outcomes
    apart = train(more, attributes=(), seed=3, network=False).blob
    assert RewardModel.load(refresh(apart, more).blob).message.outcomes == model.message.outcomes


def test_clicks_are_better_predicted_where_looks_are_known() -> None:
    """Planted: channel and hour decide on looks, variant and age on clicks after a look."""
    gains = []
    for seed in (11, 12, 13):
        examples, unseen = looking(1_500, seed), looking(6_000, seed + 50)
        told = train(examples, attributes=(), seed=1, network=False, calibrated=False).blob
        untold = train(without(examples), attributes=(), seed=1, network=False, calibrated=False).blob
        nats = [np.nansum(log_likelihood(blob, unseen)["clicked"]) for blob in (told, untold)]
        gains.append((nats[0] - nats[1]) / len(unseen))
    assert min(gains) > 0.0, gains
    assert np.mean(gains) > 0.001, gains


def test_the_report_speaks_of_looks_in_words() -> None:
    trained = train(looking(600, 2), attributes=(), seed=2, network=False, calibrated=False)
    named = [head["outcome"] for head in trained.report["heads"] if head["kind"] == "message"]
    assert "opened or clicked" in named
    assert not any("\x1f" in name for name in named)
    assert LOOKED in unpack(trained.blob)[2]["message"]["outcomes"]


def unreported(examples: Examples, rows: NDArray[np.bool_]) -> Examples:
    """Where no opens are reported, whoever is known to have looked has clicked."""
    looked = np.where(rows, examples.outcome["clicked"], examples.outcome[LOOKED])
    return dataclasses.replace(examples, outcome={**examples.outcome, LOOKED: looked})


def by_sms(n: int, seed: int, taste: float = 0.06) -> Examples:
    examples = looking(n, seed, taste)
    return unreported(examples, examples.channel == 1)


def test_channels_and_campaigns_that_report_no_opens_are_found() -> None:
    examples = looking(6_000, 3)
    assert blind_of(examples) == {}
    assert blind_of(by_sms(2_000, 3)) == {"sms": None}
    autumn = examples.campaign == 1
    blind = blind_of(unreported(examples, autumn))
    assert blind == {"email": ("autumn",), "sms": ("autumn",)}
    asked = [("autumn", "email"), ("spring", "email"), ("autumn", "push"), ("autumn", None)]
    assert [is_blind(blind, *one) for one in asked] == [True, False, False, False]
    assert blind_of(by_sms(60, 3)) == {}, "too few clicks to tell"
    some = by_sms(2_000, 3)
    clicks = np.flatnonzero((some.channel == 1) & (some.outcome["clicked"] == 1.0))
    others = np.flatnonzero((some.channel == 1) & (some.outcome["clicked"] == 0.0))[: len(clicks) // 10 + 1]
    looked = some.outcome[LOOKED].copy()
    looked[others] = 1.0
    assert blind_of(dataclasses.replace(some, outcome={**some.outcome, LOOKED: looked})) == {}, "some are reported"


def test_what_is_blind_teaches_no_looks_and_all_of_its_clicks() -> None:
    examples = by_sms(2_000, 3)
    told, blind = told_apart(examples)
    sms = examples.channel == 1
    assert blind == {"sms": None}
    assert np.isnan(told.outcome[LOOKED][sms]).all()
    assert np.array_equal(told.outcome[LOOKED][~sms], examples.outcome[LOOKED][~sms], equal_nan=True)
    assert np.array_equal(deemed(told, "clicked"), sms)
    share = np.full(len(examples), 0.5)
    column, seen = taught(
        dataclasses.replace(told, seen={"clicked": share, LOOKED: 0.8 * np.ones(len(share))}), "clicked"
    )
    assert np.array_equal(column[sms], examples.outcome["clicked"][sms])
    assert (seen[sms] == 0.5).all()
    assert hidden(examples, {}) is examples
    everywhere, none = told_apart(unreported(examples, examples.sent))
    assert LOOKED not in everywhere.outcome
    assert none == {}


@pytest.fixture(scope="module")
def texting() -> RewardModel:
    return RewardModel.load(train(by_sms(2_000, 3), attributes=(), seed=3, network=False).blob)


def test_whoever_is_written_to_where_nobody_can_tell_is_taken_to_have_looked(texting: RewardModel) -> None:
    assert texting.message.blind == {"sms": None}
    x = texting.embed([{"age": 61.0, "plan": "pro"}])[0]
    chances_of = texting.score(x, SPACE, campaign(), {}).chances.of(LOOKED)
    assert chances_of is not None
    sms = np.array([SPACE.factors(action)[2] == 1 for action in range(SPACE.messages)])  # type: ignore[index]
    assert (chances_of[0, : SPACE.messages][sms] > 0.9999).all()
    assert (chances_of[0, : SPACE.messages][~sms] < 0.9).all()


def test_a_refresh_knows_what_is_blind() -> None:
    blob = train(by_sms(1_500, 3), attributes=(), seed=3, network=False, calibrated=False).blob
    refreshed = RewardModel.load(refresh(blob, by_sms(1_600, 3)).blob)
    assert refreshed.message.blind == {"sms": None}
    block = next(b for b in refreshed.message.layout.blocks if (b.unit, b.segment) == ("channel", "one"))
    sms = refreshed.message.mean[refreshed.message.outcomes.index(LOOKED), block.start + block.keys.index("sms")]
    assert sms == pytest.approx(0.0, abs=1e-6), "no look was learned from a text message"


def test_named_terms_add_up_where_nobody_can_tell_of_looks(texting: RewardModel) -> None:
    owner = campaign()
    x = texting.embed([{"age": 61.0, "plan": "pro"}])[0]
    seen = Seen(x.astype(np.float64), None, {})
    variant, local = owner.variants[0], int(LOCAL[1])
    for channel in ("email", "sms"):
        cell = Action("spring", variant.id, channel, texting.basis.coordinates(variant))
        row = texting.message.layout.base_rows(x[None], np.array([local])).astype(np.float64)[0]
        terms = message_terms(texting, seen, "spring", variant, channel, local)
        assert np.allclose(sum(terms.values()), texting.message.coefficients(cell) @ row, atol=1e-5)


def test_clicks_without_opens_are_better_predicted_where_they_are_not_taken_for_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gains = []
    for seed in (11, 12, 13):
        examples, unseen = by_sms(1_500, seed, 0.2), by_sms(6_000, seed + 50, 0.2)
        blob = train(examples, attributes=(), seed=1, network=False, calibrated=False).blob
        with monkeypatch.context() as patched:
            patched.setattr(funnel, "blind_of", lambda _: {})
            taken = train(examples, attributes=(), seed=1, network=False, calibrated=False).blob
        sms = unseen.channel == 1
        nats = [np.nansum(log_likelihood(one, unseen)["clicked"][sms]) for one in (blob, taken)]
        gains.append((nats[0] - nats[1]) / np.count_nonzero(sms))
    assert min(gains) > 0.0, gains
    assert np.mean(gains) > 0.005, gains
