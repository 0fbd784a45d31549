"""Policy cards and insights into copy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.rates import ANY_RATE, rate_bounds
from optimizer.errors import Conflict, NotFound
from optimizer.model.training.train import train
from optimizer.service import card as card_module
from optimizer.service import learning, setup
from optimizer.service.card import card
from optimizer.service.ids import COLD_POLICY
from optimizer.service.insights import insights
from optimizer.service.publish import new_policy, reject
from optimizer.service.settle import release
from optimizer.service.wiring import Services
from storage.log import Event
from storage.policies import Policy
from storage.records import Campaign, JsonObject, OutcomeWeight, Variant
from tests.service.conftest import START, WORKSPACE, FakeClock
from tests.service.test_explain import asked, shop
from tests.service.trained import publish_blob, publish_model, rows

COPY = (
    Variant("mens", features={"tone": "warm"}, text="New boots"),
    Variant("plain", features={"tone": "warm"}, text="New things"),
    Variant("womens", features={"tone": "warm"}, text="Sale now"),
)


@pytest.fixture
def served(services: Services) -> tuple[Campaign, Policy]:
    made, _ = setup.put_campaign(services, shop(attribution_hours={"converted": 1.0, "clicked": 1.0}))
    return made, publish_model(services, made)


def live_through(services: Services, clock: FakeClock, count: int, chance: float) -> None:
    """Decisions a minute apart, some of whose recipients buy within the hour of the send, and a quiet week."""
    rng = np.random.default_rng(2)
    for number in range(count):
        clock.forward(minutes=1)
        decision = asked(services, f"u{number}", ("pro", "free")[number % 2])
        at = (decision.send_at or decision.decided_at) + timedelta(minutes=5)
        if rng.random() < chance:
            bought = Event(WORKSPACE, f"e{number}", "converted", at, at, matched=True, decision_id=decision.decision_id)
            services.store.write(lambda writer, event=bought: writer.add_event(event))  # type: ignore[misc]
    clock.forward(days=7)


def test_a_card_says_what_matters_and_how_predictions_hold(
    services: Services, clock: FakeClock, served: tuple[Campaign, Policy]
) -> None:
    _, policy = served
    live_through(services, clock, 60, chance=0.5)
    found = card(services, WORKSPACE, policy.policy_id)
    assert (found["model"]["rows"], found["status"]) == (2_000, "live")
    first, *_ = [one for one in found["model"]["importance"] if one["kind"] == "attribute"]
    assert first["feature"] == "plan", "the only attribute there is, and the planted one"
    assert sum(one["share"] for one in found["model"]["importance"]) == pytest.approx(1.0)
    assert [one["name"] for one in found["model"]["features"]] == ["plan"]
    assert found["evaluated_on"]["decisions"] == 60
    assert found["evaluated_on"]["unseen"]
    assert found["evaluated_on"]["first"] == START + timedelta(minutes=1)
    bought = next(one for one in found["calibration"] if one["outcome"] == "converted")
    assert sum(one["rows"] for one in bought["bins"]) == bought["rows"] == 60
    predicted = [one["predicted"] for one in bought["bins"]]
    assert predicted == sorted(predicted)
    for one in bought["bins"]:
        assert 0.0 <= one["low"] <= one["observed"] <= one["high"] <= 1.0
    share = sum(one["observed"] * one["rows"] for one in bought["bins"]) / 60
    assert share == pytest.approx(0.5, abs=0.2), "60 coins: three standard errors"


def test_predictions_are_those_of_the_slots_that_were_decided_over(
    services: Services, clock: FakeClock, served: tuple[Campaign, Policy]
) -> None:
    """Coarser slots from now on: the actions of before stay what they were."""
    made, policy = served
    live_through(services, clock, 60, chance=0.5)
    before = card(services, WORKSPACE, policy.policy_id)
    setup.put_campaign(services, replace(made, slot_minutes=2 * made.slot_minutes))
    after = card(services, WORKSPACE, policy.policy_id)
    assert after["calibration"] == before["calibration"]
    assert sum(one["rows"] for one in after["calibration"]) > 60


def test_decisions_that_are_still_open_hide_no_closed_ones(
    services: Services, clock: FakeClock, served: tuple[Campaign, Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are looked through, planned a day ahead, and counted for an hour more."""
    monkeypatch.setattr(card_module, "_PAGES", 8)
    monkeypatch.setattr(card_module, "_PAGE", 5)
    live_through(services, clock, 60, chance=0.5)
    before = card(services, WORKSPACE, served[1].policy_id)
    made = asked(services)
    clock.forward(days=3)
    for number in range(100):
        at = clock.now - timedelta(minutes=10.0 * number)
        snapshot = replace(made.snapshot, window_start=at, window_end=at + timedelta(days=1))
        again = replace(made, decision_id=f"dec_{number}", request_id=f"r{number}", decided_at=at, snapshot=snapshot)
        services.store.write(lambda writer, one=again: writer.add_decision(one, None))  # type: ignore[misc]
    after = card(services, WORKSPACE, served[1].policy_id)
    assert before["evaluated_on"]["decisions"] == 40, "eight pages of five"
    assert 15 <= after["evaluated_on"]["decisions"] < 40, "some of the pages were of open ones"
    assert after["calibration"]


def test_decisions_of_one_recipient_are_not_taken_for_as_many_recipients() -> None:
    """Predictions are the true chances; an order counts for each of a person's ten decisions."""
    rng = np.random.default_rng(0)
    off = total = 0
    for _ in range(60):
        chances = rng.beta(2.0, 6.0, 100)
        bought = rng.random(100) < chances
        held = [
            card_module._Held(float(chances[who]), bool(bought[who]), f"u{who}")
            for who in np.repeat(np.arange(100), 10)
        ]
        for one in card_module._bins(held):
            total += 1
            off += not one["low"] <= one["predicted"] <= one["high"]
    assert off / total < 0.1, "5 % and what ten people a bin let it miss; 57 % where rows are counted as people"


def test_a_card_leaves_out_who_was_asked_in_a_zone_that_this_host_lacks(
    services: Services, clock: FakeClock, served: tuple[Campaign, Policy]
) -> None:
    made = asked(services)
    snapshot = replace(made.snapshot, timezone="America/Nowhere")
    afar = replace(made, decision_id="dec_afar", request_id="afar", snapshot=snapshot)
    services.store.write(lambda writer: writer.add_decision(afar, None))
    clock.forward(days=7)
    assert card(services, WORKSPACE, served[1].policy_id)["evaluated_on"]["decisions"] == 1


def test_a_card_says_who_put_the_policy_into_service(services: Services, served: tuple[Campaign, Policy]) -> None:
    _, policy = served
    assert [(move["kind"], move["by"]) for move in card(services, WORKSPACE, policy.policy_id)["moves"]] == [
        ("promoted", "the gate")
    ]
    learning.rollback(services, WORKSPACE, "spring", "key key_1 (ann)")
    learning.promote(services, WORKSPACE, policy.policy_id, "key key_2 (bob)")
    moves = card(services, WORKSPACE, policy.policy_id)["moves"]
    assert [(move["by"], move["policy_id"], move["replaced_id"]) for move in moves] == [
        ("the gate", policy.policy_id, COLD_POLICY),
        ("key key_1 (ann)", COLD_POLICY, policy.policy_id),
        ("key key_2 (bob)", policy.policy_id, COLD_POLICY),
    ]


def test_a_card_without_decisions_or_model_says_so(services: Services, served: tuple[Campaign, Policy]) -> None:
    _, policy = served
    fresh = card(services, WORKSPACE, policy.policy_id)
    assert (fresh["evaluated_on"], fresh["calibration"], fresh["model"]["importance"]) == (None, [], [])
    candidate = new_policy(
        WORKSPACE, "spring", START, (), parent=None, exploration={}, verdict={"decision": "reject"}, run_id=None
    )
    rejected = card(services, WORKSPACE, reject(services, candidate).policy_id)
    assert (rejected["model"], rejected["verdict"], rejected["status"]) == (None, {"decision": "reject"}, "rejected")
    for workspace, name in ((WORKSPACE, "pol_none"), ("other", policy.policy_id)):
        with pytest.raises(NotFound):
            card(services, workspace, name)


def found_of(services: Services, outcome: str) -> list[dict[str, Any]]:
    return [one for one in insights(services, WORKSPACE, "spring")["insights"] if one["outcome"] == outcome]


def test_insights_tell_which_words_go_with_a_response_and_how_sure_that_is(services: Services) -> None:
    """Planted over both plans: mens .3, the last variant .2 (see ``trained.rows``)."""
    made, _ = setup.put_campaign(services, shop(variants=COPY, objective={"converted": OutcomeWeight(fixed=1.0)}))
    policy = publish_model(services, made, 6_000)
    assert insights(services, WORKSPACE, "spring")["policy_id"] == policy.policy_id
    found = found_of(services, "converted")
    words = {word: one for one in found for word in one["words"]}
    assert words["boots"] is words["new boots"], "what the same variants have can't be told apart"
    assert words["sale"]["variants"] == ["womens"]
    assert words["new"]["variants"] == ["mens", "plain"]
    assert all("tone=warm" not in one["features"] for one in found), "what all have tells nothing"
    boots, sale = words["boots"], words["sale"]
    assert boots["probability_higher"] > sale["probability_higher"]
    for one in found:
        assert one["low"] < one["odds_ratio"] < one["high"]
        assert (one["odds_ratio"] > 1.0) == (one["probability_higher"] > 0.5)
    surest = [abs(one["probability_higher"] - 0.5) for one in found]
    assert surest == sorted(surest, reverse=True)


def publish_rates(services: Services, made: Campaign, outcome: str, pro: float, free: float) -> None:
    """A model of messages that bring an outcome at these rates, whatever is sent."""
    data = rows(made, 4_000, 1)
    chance = np.array([pro if one["plan"] == "pro" else free for one in data.contexts])
    happened = (np.random.default_rng(2).random(len(chance)) < chance).astype(np.float64)
    trained = train(
        replace(data, outcome={outcome: np.where(data.sent, happened, np.nan)}), attributes=(), seed=1, network=False
    )
    publish_blob(services, made, trained.blob, trained.feature_hash, len(chance))


def test_insights_tell_what_came_of_the_messages_beside_what_the_model_believes(
    services: Services, clock: FakeClock
) -> None:
    """One in three who got womens unsubscribes, one in twelve of the others. What was called off is no message."""
    made, _ = setup.put_campaign(
        services, shop(allow_no_send=False, variants=COPY, objective={"unsubscribed": OutcomeWeight(fixed=-1.0)})
    )
    publish_rates(services, made, "unsubscribed", 0.02, 0.02)
    got: dict[str, list[bool]] = {variant.id: [] for variant in COPY}
    called_off = 0
    for number in range(200):
        decision = asked(services, f"u{number}", ("pro", "free")[number % 2])
        assert decision.variant_id is not None
        if number % 10 == 0:
            release(services, WORKSPACE, decision.decision_id, "not today")
            called_off += 1
            continue
        told = got[decision.variant_id]
        told.append(len(told) % (3 if decision.variant_id == "womens" else 12) == 0)
        if told[-1]:
            at = (decision.send_at or decision.decided_at) + timedelta(minutes=5)
            left = Event(
                WORKSPACE, f"e{number}", "unsubscribed", at, at, matched=True, decision_id=decision.decision_id
            )
            services.store.write(lambda writer, event=left: writer.add_event(event))  # type: ignore[misc]
    (early,) = [one for one in found_of(services, "unsubscribed") if "sale" in one["words"]]
    assert early["observed_with"] == {"messages": 0, "count": 0, "estimate": None, "low": None, "high": None}
    clock.forward(days=9)
    assert insights(services, WORKSPACE, "spring")["averaged_over"] == 200
    (sale,) = [one for one in found_of(services, "unsubscribed") if "sale" in one["words"]]
    assert sum(map(len, got.values())) == 200 - called_off
    for side, variants in (("observed_with", ("womens",)), ("observed_without", ("mens", "plain"))):
        happened = [one for name in variants for one in got[name]]
        low, high = rate_bounds(sum(happened), len(happened))
        expected = {"estimate": sum(happened) / len(happened), "low": low, "high": high}
        assert sale[side] == {"messages": len(happened), "count": sum(happened), **expected}
    assert sale["observed_with"]["low"] > sale["high"] * sale["chance_without"], "the model has not heard of it"


def test_what_one_recipient_does_over_and_over_is_observed_once(services: Services, clock: FakeClock) -> None:
    made, _ = setup.put_campaign(services, shop(allow_no_send=False, variants=COPY))
    publish_rates(services, made, "clicked", 0.3, 0.3)
    for number in range(90):
        clock.forward(days=1)
        asked(services, f"u{number % 3}")
    clock.forward(days=9)
    (sale,) = [one for one in found_of(services, "clicked") if "sale" in one["words"]]
    assert sale["observed_with"]["messages"] > 10
    assert sale["observed_with"]["high"] == pytest.approx(rate_bounds(0, 3, prior=ANY_RATE)[1], abs=0.05)


def test_the_chance_of_an_insight_is_the_mean_of_the_recipients_chances(services: Services) -> None:
    """Half of them click at .55, half at .025: .29 of all, where the chance at the mean of their log odds is .15."""
    made, _ = setup.put_campaign(services, shop(allow_no_send=False, variants=COPY))
    publish_rates(services, made, "clicked", 0.55, 0.025)
    for number in range(60):
        asked(services, f"u{number}", ("pro", "free")[number % 2])
    for one in found_of(services, "clicked"):
        assert one["chance_with"] == pytest.approx(0.29, abs=0.04)
        assert one["chance_without"] == pytest.approx(0.29, abs=0.04)
        odds = [chance / (1.0 - chance) for chance in (one["chance_with"], one["chance_without"])]
        assert one["odds_ratio"] == pytest.approx(odds[0] / odds[1])


def test_numbers_of_variants_are_compared_by_their_upper_half(services: Services) -> None:
    priced: list[JsonObject] = [{"price": 10}, {"price": 15, "rank": 2}, {"price": 20.5, "rank": 2}]
    variants = tuple(Variant(one.id, features=told) for one, told in zip(COPY, priced, strict=True))
    made, _ = setup.put_campaign(services, shop(allow_no_send=False, variants=variants))
    publish_rates(services, made, "clicked", 0.3, 0.3)
    told = {feature: one for one in found_of(services, "clicked") for feature in one["features"]}
    assert set(told) == {"price ≥ 20.5", "rank"}, "ranks are alike, but not all have one"
    assert (told["price ≥ 20.5"]["variants"], told["price ≥ 20.5"]["others"]) == (["womens"], ["mens", "plain"])
    setup.put_campaign(services, replace(made, variants=(*variants[:2], Variant("womens", features={"rank": 3}))))
    told = {feature: one for one in found_of(services, "clicked") for feature in one["features"]}
    assert set(told) == {"price ≥ 15", "price", "rank", "rank ≥ 3"}
    assert (told["price ≥ 15"]["variants"], told["price ≥ 15"]["others"]) == (["plain"], ["mens"])


def test_a_campaign_without_an_active_variant_has_no_insights(
    services: Services, served: tuple[Campaign, Policy]
) -> None:
    made, _ = served
    paused = tuple(replace(variant, status="paused") for variant in made.variants)
    setup.put_campaign(services, replace(made, variants=paused))
    assert insights(services, WORKSPACE, "spring")["insights"] == []


def test_what_was_predicted_alike_is_in_one_bin_of_the_calibration(
    services: Services, clock: FakeClock, served: tuple[Campaign, Policy]
) -> None:
    """Two contexts, so few distinct chances: sorted by what happened, each would be told as off."""
    _, policy = served
    live_through(services, clock, 1_100, chance=0.5)
    (bought,) = (c for c in card(services, WORKSPACE, policy.policy_id)["calibration"] if c["outcome"] == "converted")
    predicted = [one["predicted"] for one in bought["bins"]]
    assert sum(one["rows"] for one in bought["bins"]) == bought["rows"] == 1_000
    assert predicted == sorted(set(predicted))
    large = [one["observed"] for one in bought["bins"] if one["rows"] >= 90]
    assert large
    assert all(0.25 < observed < 0.75 for observed in large), "a hundred fair coins: five standard errors"


def test_a_campaign_that_learned_nothing_has_no_insights(services: Services) -> None:
    setup.put_campaign(services, shop())
    with pytest.raises(Conflict) as raised:
        insights(services, WORKSPACE, "spring")
    assert raised.value.code == "no_model"
    with pytest.raises(NotFound):
        insights(services, WORKSPACE, "autumn")
