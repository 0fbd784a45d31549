"""A policy at work: risk limits, prices, and the risks that are reported."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace, Spaces
from optimizer.bandit.tolls import Price
from optimizer.model.inference import RewardModel, Scores
from optimizer.model.policy import (
    Asked,
    Choice,
    LivePolicy,
    distribution,
    distributions,
    own_widths,
    risk_mask,
    young_below,
    young_variants,
)
from optimizer.model.training.train import train
from storage.policies import Component
from storage.records import ExplorationMethod, Guardrail
from storage.rules import RiskLimit
from tests.model.conftest import campaign, contexts, made_up

DAY_START = 20_000 * 86_400
SEND_AT = DAY_START + np.arange(6, dtype=np.int64) * 4 * 3_600
SPACE = ActionSpace(("a", "b"), ("email", "sms"), SEND_AT, SEND_AT, True)
EVERYTHING = np.ones(SPACE.size, dtype=np.bool_)
PERSON = contexts(np.random.default_rng(9), 1)[0]
NUMBERS = {"anneal": 1.0, "matured_rows": {"a": 900, "b": 900}}


@pytest.fixture(scope="module")
def models() -> tuple[RewardModel, RewardModel]:
    """Two models of different rows."""
    first, second = (train(made_up(1_500, seed), attributes=(), seed=seed, network=False) for seed in (4, 5))
    return RewardModel.load(first.blob), RewardModel.load(second.blob)


def policy(*models: RewardModel | None, **numbers: Any) -> LivePolicy:
    """A mixture of equal parts."""
    parts = tuple(Component(1.0 / len(models), None if m is None else f"art{i}") for i, m in enumerate(models))
    return LivePolicy("pol", parts, models, NUMBERS | numbers)


def chosen(live: LivePolicy, mask: NDArray[np.bool_] = EVERYTHING, **arguments: Any) -> Choice:
    owner = arguments.pop("owner", campaign())
    return distribution(live, owner, Asked(SPACE, mask, PERSON, **arguments))


def scores_of(model: RewardModel) -> Scores:
    return model.score(model.embed([PERSON])[0], SPACE, campaign(), {})


def cube(values: NDArray[Any]) -> NDArray[Any]:
    """The message actions as (V, S, C)."""
    return values[: SPACE.messages].reshape(SPACE.shape)


def test_a_limit_masks_the_admitted_channels_actions_above_it(models: tuple[RewardModel, RewardModel]) -> None:
    chance = scores_of(models[0]).outcome["clicked"]
    middle = float(np.median(chance[:-1]))
    choice = chosen(policy(models[0]), limits=(RiskLimit("f", "clicked", middle, ("sms",)),))
    expected = EVERYTHING.copy()
    cube(expected)[:, :, 1] = cube(chance)[:, :, 1] <= middle
    assert np.array_equal(choice.unmasked, expected)
    assert 0 < np.count_nonzero(~expected) < SPACE.messages // 2
    assert choice.probability[~expected].sum() == 0.0
    everywhere = chosen(policy(models[0]), limits=(RiskLimit("f", "clicked", middle),)).unmasked
    assert np.array_equal(everywhere[:-1], chance[:-1] <= middle)


def test_the_strictest_of_limits_and_guardrails_holds(models: tuple[RewardModel, RewardModel]) -> None:
    risk = scores_of(models[0]).risk["unsubscribed"][:-1]
    low, high = np.quantile(risk, [0.3, 0.7])
    guarded = campaign(guardrails={"unsubscribed": Guardrail(max_rate=float(high))})
    one = chosen(policy(models[0]), owner=guarded, limits=(RiskLimit("f", "unsubscribed", float(low)),))
    assert np.array_equal(one.unmasked[:-1], risk <= low)
    other = chosen(policy(models[0]), owner=guarded, limits=(RiskLimit("f", "unsubscribed", 1.0),))
    assert np.array_equal(other.unmasked[:-1], risk <= high)


def test_a_limit_on_an_outcome_without_a_head_masks_nothing(models: tuple[RewardModel, RewardModel]) -> None:
    choice = chosen(policy(models[0]), limits=(RiskLimit("f", "never_seen", 0.0),))
    assert choice.unmasked.all()
    assert choice.risks_of(0) == {"never_seen": (None,)}


def test_where_every_action_is_too_risky_the_least_excess_stays_open(models: tuple[RewardModel, RewardModel]) -> None:
    scores = scores_of(models[0])
    mask = EVERYTHING.copy()
    mask[[-1, int(scores.outcome["clicked"][:-1].argmin())]] = False
    open_ = risk_mask(scores.chances, campaign(), mask[None], (RiskLimit("f", "clicked", 0.0),))[0]
    assert np.flatnonzero(open_).tolist() == [int(np.where(mask, scores.outcome["clicked"], np.inf).argmin())]


def test_each_component_has_its_own_risk_mask_and_reports_its_own_risk(models: tuple[RewardModel, RewardModel]) -> None:
    first, second = (scores_of(m).outcome["clicked"] for m in models)
    limit = RiskLimit("f", "clicked", float(np.quantile(np.minimum(first, second)[:-1], 0.6)))
    mixed = chosen(policy(*models, None), limits=(limit,))
    alone = [chosen(policy(m), limits=(limit,)).probability for m in (*models, None)]
    assert np.allclose(mixed.probability, np.mean(alone, axis=0))
    parted = (first[:-1] <= limit.max_risk) & (second[:-1] > limit.max_risk)
    between = int(np.flatnonzero(parted & (alone[0][:-1] > 0.0))[0])
    assert alone[1][between] == 0.0 < alone[0][between]
    assert mixed.risks_of(between) == {"clicked": (float(first[between]), float(second[between]), None)}
    assert mixed.risks_of(SPACE.size - 1) == {"clicked": (0.0, 0.0, None)}


def test_a_guarded_outcome_is_reported_without_a_limit(models: tuple[RewardModel, RewardModel]) -> None:
    guarded = campaign(guardrails={"unsubscribed": Guardrail(max_rate=1.0)})
    risk = scores_of(models[0]).outcome["unsubscribed"]
    assert chosen(policy(models[0]), owner=guarded).risks_of(3) == {"unsubscribed": (float(risk[3]),)}


def test_a_toll_moves_the_choice_and_no_prices_change_no_bit(models: tuple[RewardModel, RewardModel]) -> None:
    plain = chosen(policy(*models))
    assert np.array_equal(chosen(policy(*models, prices=[])).probability, plain.probability)
    free = Price("r", "capacity", ("email", "sms"), (0.0,))
    assert np.array_equal(chosen(policy(*models, prices=[free.as_json()])).probability, plain.probability)
    dear = Price("r", "capacity", ("email", "sms"), (1e3,))
    stored = orjson.loads(orjson.dumps(policy(*models, prices=[dear.as_json()]).exploration))
    priced = chosen(LivePolicy("pol", policy(*models).mixture, models, stored))
    assert priced.greedy == SPACE.size - 1 != plain.greedy
    assert priced.probability[-1] > 0.9 > plain.probability[-1]


def test_the_toll_is_taken_off_reward_and_draws(models: tuple[RewardModel, RewardModel]) -> None:
    scores, live = scores_of(models[0]), policy(models[0])
    best = chosen(live).greedy
    assert best is not None
    _, s, c = SPACE.factors(best) or (0, 0, 0)
    channel = SPACE.channels[c]
    dear = Price(
        "r", "capacity", (channel,), (0.0,), starts=(int(SEND_AT[s]),), values=(1e3,), until=int(SEND_AT[s]) + 1
    )
    choice = chosen(policy(models[0], prices=[dear.as_json()]))
    rest = scores.reward.copy()
    cube(rest)[:, s, c] = -np.inf
    assert choice.greedy == int(rest.argmax())
    assert choice.unmasked[best]
    assert cube(choice.probability)[:, s, c].sum() < 0.05


def test_a_cold_component_pays_no_toll() -> None:
    dear = Price("r", "capacity", ("email", "sms"), (1e3,)).as_json()
    cold = policy(None)
    priced = dataclasses.replace(cold, exploration={**cold.exploration, "prices": [dear]})
    assert np.array_equal(chosen(priced).probability, chosen(cold).probability)


@pytest.mark.parametrize(
    ("matured", "young"),
    [
        ({}, {"a", "b", "c"}),
        ({"a": 70, "b": 60, "c": 40}, set()),
        ({"a": 900, "b": 900, "c": 100}, {"c"}),
        ({"a": 9_000, "b": 600}, {"c"}),
        ({"a": 9_000, "b": 600, "c": 499}, {"c"}),
    ],
)
def test_young_is_who_came_later_than_others(matured: dict[str, int], young: set[str]) -> None:
    numbers = {"matured_rows": matured, "young_below": young_below(matured)}
    assert young_variants(numbers, ("a", "b", "c")).keys() == young


def test_a_young_variant_keeps_its_share_and_an_old_policy_its_limit(models: tuple[RewardModel, RewardModel]) -> None:
    owner = campaign(exploration_method="epsilon_greedy", exploration_parameter=0.01, exploration_rate=0.0)
    best = int(cube(scores_of(models[0]).reward).max(axis=(1, 2)).argmax())
    greedy, other = SPACE.variants[best], SPACE.variants[1 - best]

    def least(matured: dict[str, int], **limit: float) -> float:
        live = policy(models[0], matured_rows=matured, **limit)
        return float(cube(chosen(live, owner=owner).probability).sum(axis=(1, 2)).min())

    together, later = {"a": 90, "b": 90}, {greedy: 900, other: 90}
    assert least(together, young_below=young_below(together)) < 0.01
    assert least(later, young_below=young_below(later)) == pytest.approx(0.03)
    assert least(together) == pytest.approx(0.03), "a policy of before the limit replays as it decided"


@pytest.mark.parametrize(
    ("late", "widths"),
    [
        (None, {}),  # numbers of an older policy, or of one whose campaign has just begun
        ({"a": None, "b": None}, {"c": 1.0}),
        ({"a": None, "b": 0}, {"b": 1.0, "c": 1.0}),
        ({"a": None, "b": 300, "gone": 20}, {"b": 0.5, "c": 1.0}),
    ],
)
def test_who_came_late_is_drawn_as_wide_as_its_own_rows_leave_it(
    late: dict[str, int | None] | None, widths: dict[str, float]
) -> None:
    assert own_widths({"late_rows": late}, ("a", "b", "c")) == pytest.approx(widths)


def test_only_what_a_late_variant_has_of_its_own_is_drawn_wider() -> None:
    model, owner = RewardModel.load(train(made_up(1_500, 4), attributes=(), seed=4, network=False).blob), campaign()
    spread = {}
    for name, own in (("usual", {}), ("wide", {"b": 1.0}), ("narrow", {"b": 0.01})):
        scored = model.score_rows(model.embed([PERSON]), Spaces.stacked([SPACE]), owner, [{}], own)
        spread[name] = scored.drawing.actions[0].std(axis=0)
    first, second = cube(np.arange(SPACE.size))
    assert np.array_equal(spread["wide"][first], spread["usual"][first]), "the other variant's draws stay"
    assert spread["wide"][-1] == spread["usual"][-1], "not sending has nothing of a variant"
    assert (spread["wide"][second] > 1.2 * spread["usual"][second]).all()
    assert np.array_equal(spread["narrow"], spread["usual"]), "never narrower than the model"
    model._width = 0.0
    still = model.score_rows(model.embed([PERSON]), Spaces.stacked([SPACE]), owner, [{}], {"a": 0.0, "b": 1.0})
    assert still.drawing.actions[0].std(axis=0).max() < 1e-5, "what doesn't explore doesn't explore the late one either"


def test_a_late_variant_is_tried_more_than_by_the_models_own_width(models: tuple[RewardModel, RewardModel]) -> None:
    """By the people who are seldom offered it: where two are as good as each other, doubt about one changes nothing."""
    owner, people = campaign(exploration_rate=0.0), contexts(np.random.default_rng(9), 120)
    rows = [Asked(SPACE, EVERYTHING, person) for person in people]
    late = {SPACE.variants[0]: None, SPACE.variants[1]: 0}

    def shares(**numbers: Any) -> NDArray[np.float64]:
        made = distributions(policy(models[0], **numbers), owner, rows)
        return np.array([cube(choice.probability)[1].sum() for choice in made])

    usual = shares()
    seldom = usual < 0.25
    assert np.count_nonzero(seldom) >= 10
    assert shares(late_rows=late)[seldom].mean() > usual[seldom].mean() + 0.02
    assert np.array_equal(shares(late_rows={**late, SPACE.variants[1]: 10**6}), usual)


def test_widths_that_change_with_every_revision_fill_no_cache() -> None:
    model = RewardModel.load(train(made_up(300, 6), attributes=(), seed=6, network=False).blob)
    for n in range(9):
        model.prepare(campaign(), ("a", "b"), ("email",), {"b": 0.9**n})
        model.prepare(campaign(), ("a", "b"), ("sms",))
    assert len(model._prepared) == 3


@pytest.mark.parametrize("method", ["posterior_bank", "epsilon_greedy", "uniform"])
def test_a_row_of_many_gets_the_very_bits_that_it_gets_alone(
    models: tuple[RewardModel, RewardModel], method: ExplorationMethod
) -> None:
    """Of spaces of two shapes, with limits and without, in blocks that hold many rows and the rest of them."""
    rng = np.random.default_rng(3)
    owner = campaign(exploration_method=method, guardrails={"unsubscribed": Guardrail(max_rate=0.02)})
    dear = Price("r", "capacity", ("sms",), (0.02,)).as_json()
    live = policy(*models, None, prices=[dear], matured_rows={"a": 900})
    asked = []
    for i, person in enumerate(contexts(rng, 400)):
        at = SEND_AT[: 6 - i % 2] + int(rng.integers(86_400))
        space = ActionSpace(("a", "b"), ("email", "sms"), at, at + 3_600 * int(rng.integers(-11, 12)), bool(i % 3))
        mask = rng.random(space.size) < rng.choice([0.1, 0.5, 1.0])
        mask[int(rng.integers(space.size))] = True
        limits = (RiskLimit("f", "clicked", 0.3),) if i % 5 == 0 else ()
        asked.append(Asked(space, mask, person, limits=limits))
    for together, row in zip(distributions(live, owner, asked), asked, strict=True):
        alone = distribution(live, owner, row)
        assert np.array_equal(together.probability, alone.probability)
        assert np.array_equal(together.unmasked, alone.unmasked)
        assert together.greedy == alone.greedy
        assert together.risks_of(0) == alone.risks_of(0)
        assert together.probability.sum() == pytest.approx(1.0, abs=1e-9)
        assert not together.probability[~row.mask].any()
