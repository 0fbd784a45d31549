"""Why a decision is what it is: of every kind of decision, in numbers that add up and in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from optimizer.bandit.tolls import Price
from optimizer.errors import NotFound
from optimizer.service import setup
from optimizer.service.explain import explain
from optimizer.service.explainwords import action, feature
from optimizer.service.publish import new_policy, publish
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.settle import release
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Component
from storage.records import Baseline, Campaign, Channel, Consent, GroupShares, Guardrail, Mode, OutcomeWeight, Variant
from storage.rules import Cap
from tests.service.asking import ask, put_rule
from tests.service.conftest import WORKSPACE, campaign
from tests.service.trained import publish_model

VARIANTS = (
    Variant("mens", features={"tone": "warm"}, text="New boots", cost=0.02),
    Variant("womens", features={"tone": "cool"}, text="New coats"),
)


def shop(**changes: Any) -> Campaign:
    values: dict[str, Any] = {
        "variants": VARIANTS,
        "channels": (Channel("email", 0.001), Channel("push")),
        "objective": {"converted": OutcomeWeight(fixed=1.0), "clicked": OutcomeWeight(fixed=0.1)},
        **changes,
    }
    return campaign(**values)


@pytest.fixture
def learned(services: Services) -> Services:
    made, _ = setup.put_campaign(services, shop())
    publish_model(services, made)
    return services


def explained(services: Services, decision: Decision) -> dict[str, Any]:
    return explain(services, WORKSPACE, decision.decision_id)


def asked(services: Services, recipient: str = "u1", plan: str = "pro", **fields: Any) -> Decision:
    """A decision for a recipient who takes everything."""
    patch = RecipientPatch(attributes={"plan": plan}, channels={"push": Consent(True)})
    request = DecisionRequest(campaign_id="spring", recipient_id=recipient, recipient=patch, **fields)
    return services.decider.decide(WORKSPACE, request)[0]


def decisions(services: Services, count: int = 8) -> Iterator[Decision]:
    for number in range(count):
        yield asked(services, f"u{number}", ("pro", "free")[number % 2])


def sent(services: Services) -> Decision:
    """The first decision that is a message: exploration leaves somebody in peace now and then."""
    return next(one for one in (asked(services, f"u{number}") for number in range(100)) if one.send_at is not None)


def test_contributions_add_up_to_the_difference_of_the_scores(learned: Services) -> None:
    compared = set()
    for decision in decisions(learned):
        found = explained(learned, decision)
        assert found["kind"] == "learned"
        assert found["chosen"]["variant_id"] == decision.variant_id
        assert found["chosen"]["probability"] == pytest.approx(decision.propensity)
        assert found["exploration"]["probability_of_chosen"] == pytest.approx(decision.propensity)
        for one in found["comparisons"]:
            compared.add(one["to"])
            assert one["difference"] == pytest.approx(found["chosen"]["score"] - one["action"]["score"], abs=1e-12)
            total = sum(part["contribution"] for part in one["contributions"])
            assert total == pytest.approx(one["difference"], abs=1e-9)
            assert abs(one["residual"]) < 1e-9
            assert one["path_residual"] == 0.0
            sizes = [abs(part["contribution"]) for part in one["contributions"]]
            assert sizes == sorted(sizes, reverse=True)
    assert compared >= {"runner_up", "other_variant", "no_send"}


def test_the_attribute_that_decides_is_named_with_its_value(learned: Services) -> None:
    """Planted: "pro" people buy by mens. Of what the recipient is, nothing else can speak for it."""
    for decision in decisions(learned):
        found = explained(learned, decision)
        other = next((one for one in found["comparisons"] if one["to"] == "other_variant"), None)
        if other is None:
            continue
        (plan,) = [one for one in other["contributions"] if (one["kind"], one["feature"]) == ("attribute", "plan")]
        pro_by_mens = (plan["value"] == "pro") == (decision.variant_id == "mens")
        assert plan["through"] == "variant"
        assert (plan["contribution"] > 0.0) == pro_by_mens
        cost = next(one for one in other["contributions"] if one["kind"] == "cost")
        assert cost["contribution"] == pytest.approx(-0.02 if decision.variant_id == "mens" else 0.02, abs=2e-3)


def test_the_sentence_says_what_exploration_did(learned: Services) -> None:
    sentences = {}
    for decision in decisions(learned, 40):
        found = explained(learned, decision)
        sentences[found["exploration"]["greedy_was_chosen"]] = found["sentence"]
        assert (found["greedy"]["score"] > found["chosen"]["score"]) != found["exploration"]["greedy_was_chosen"]
        assert found["sentence"].startswith(f"{found['chosen']['variant_id'] or 'Not sending'} ")
    assert "to learn; the most valued action was " in sentences[False]
    assert " was the most valued action and was chosen with probability " in sentences[True]
    assert "mostly because of " in sentences[False]
    assert ". The chosen one's score is " in sentences[False]
    assert " below that of " in sentences[False]
    assert ". Its score is " in sentences[True]


def test_reasons_against_a_message_that_was_not_sent_are_told_as_the_messages_own(services: Services) -> None:
    dear = tuple(replace(one, cost=9.0) for one in VARIANTS)
    made, _ = setup.put_campaign(services, shop(variants=dear))
    publish_model(services, made)
    found = explained(services, next(one for one in decisions(services, 40) if one.send_at is None))
    (against,) = [one for one in found["comparisons"] if one["to"] == "runner_up"]
    words = {feature(one, silent=True).rpartition(" (")[0] for one in against["contributions"]}
    assert "plan = pro with the other's variant" in words
    assert not [one for one in words if "this variant" in one or "this channel" in one]
    assert "this variant" not in found["sentence"]


def test_what_was_masked_is_told_with_its_rule(learned: Services) -> None:
    put_rule(learned, "weekly", "cap", Cap(1, rolling_hours=30.0))
    first = sent(learned)
    assert first.send_at is not None
    start = first.send_at + timedelta(hours=25)
    second = asked(learned, first.recipient_id, window=(start, start + timedelta(hours=24)))
    found = explained(learned, second)
    (masked,) = [one for one in found["masked"] if one["rule_id"] == "weekly"]
    assert masked["masked"] > 0
    assert f"weekly (cap, {masked['masked']})" in found["sentence"]
    assert found["eligible_actions"] < found["actions"]


def test_actions_left_out_for_their_risk_are_counted(services: Services) -> None:
    made, _ = setup.put_campaign(
        services, shop(guardrails={"clicked": Guardrail(max_rate=0.9), "unsubscribed": Guardrail(max_rate=0.5)})
    )
    publish_model(services, made)
    found = explained(services, next(decisions(services)))
    assert found["masked_by_risk"] == {"actions": 0, "limits": []}


def test_prices_of_scarce_things_are_contributions_of_their_rule(services: Services) -> None:
    made, _ = setup.put_campaign(services, shop())
    trained = publish_model(services, made)
    price = Price("sms-budget", "capacity", ("email", "push"), (0.05,))
    dear = new_policy(
        WORKSPACE,
        "spring",
        services.clock() + timedelta(seconds=1),
        trained.mixture,
        parent=None,
        exploration={**trained.exploration, "prices": [price.as_json()]},
        verdict={},
        run_id=None,
    )
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    publish(services, [], dear, pointer, services.clock())
    services.policies.refresh_now()
    found = explained(services, sent(services))
    silence = [one for one in found["comparisons"] if one["to"] == "no_send"]
    assert silence, found["sentence"]
    (toll,) = [one for one in silence[0]["contributions"] if one["kind"] == "price"]
    assert (toll["feature"], toll["contribution"]) == ("sms-budget", pytest.approx(-0.05))
    assert sum(one["contribution"] for one in silence[0]["contributions"]) == pytest.approx(silence[0]["difference"])


def test_a_cold_start_says_that_nothing_is_learned(services: Services) -> None:
    setup.put_campaign(services, shop())
    found = explained(services, ask(services))
    assert (found["kind"], found["comparisons"], found["greedy"]) == ("cold_start", [], None)
    told = action(found["chosen"])
    assert found["sentence"].startswith(f"Nothing has been learned yet: {told} was drawn with probability ")
    assert found["chosen"]["score"] is None


def test_a_mixture_is_explained_by_the_model_in_it(services: Services) -> None:
    made, _ = setup.put_campaign(services, shop())
    whole = publish_model(services, made)
    parts = (Component(0.9, None), Component(0.1, whole.mixture[0].artifact_id))
    canary = new_policy(
        WORKSPACE,
        "spring",
        services.clock() + timedelta(seconds=1),
        parts,
        parent=None,
        exploration={},
        verdict={},
        run_id=None,
    )
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    publish(services, [], canary, pointer, services.clock())
    services.policies.refresh_now()
    found = explained(services, ask(services))
    assert found["exploration"]["component_weight"] == pytest.approx(0.1)
    assert found["comparisons"]


@pytest.mark.parametrize("group", ["holdout", "baseline", "random"])
def test_control_groups_are_explained_by_what_they_are_for(services: Services, group: str) -> None:
    shares = GroupShares(**{group: 1.0})
    made, _ = setup.put_campaign(services, shop(groups=shares, baseline=Baseline("mens", "email", "09:00")))
    publish_model(services, made)
    found = explained(services, ask(services))
    assert found["kind"] == group
    assert f"group {group}" in found["sentence"]
    assert bool(found["comparisons"]) == (group == "random")
    if group == "random":
        assert f" eligible actions: {action(found['chosen'])}. The recipient is in the group" in found["sentence"]


def test_a_withheld_decision_says_why(services: Services) -> None:
    setup.put_campaign(services, shop())
    put_rule(services, "never", "cap", Cap(0, rolling_hours=24.0))
    found = explained(services, ask(services))
    assert (found["kind"], found["chosen"]) == ("withheld", None)
    assert found["sentence"].startswith("Withheld: no message was eligible. Masked by rules: ")
    assert "never (cap, 96), of 97 actions." in found["sentence"]


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("paused", "the workspace is paused."),
        ("baseline_only", "the baseline was to answer, and the campaign has none."),
    ],
)
def test_a_mode_in_which_nothing_is_chosen_is_told(services: Services, mode: Mode, why: str) -> None:
    setup.put_campaign(services, shop())
    setup.set_mode(services, WORKSPACE, mode)
    found = explained(services, ask(services))
    assert (found["kind"], found["sentence"].startswith(f"Withheld: {why}")) == ("withheld", True)


def test_a_campaign_that_is_paused_by_itself_is_told(services: Services) -> None:
    setup.put_campaign(services, shop(mode="paused"))
    assert explained(services, ask(services))["sentence"].startswith("Withheld: the campaign is paused.")


def test_a_baseline_that_was_released_is_not_said_to_have_been_sent(services: Services) -> None:
    setup.put_campaign(services, shop(mode="baseline_only", baseline=Baseline("mens", "email", "09:00")))
    made = ask(services)
    release(services, WORKSPACE, made.decision_id, "not now")
    sentence = explained(services, made)["sentence"]
    assert sentence == "The baseline was chosen at its first eligible time, since the mode is baseline_only."


def test_a_baseline_that_was_not_asked_for_is_told(services: Services) -> None:
    setup.put_campaign(services, shop(mode="baseline_only", baseline=Baseline("mens", "email", "09:00")))
    sentence = explained(services, ask(services, variants=("womens",)))["sentence"]
    assert sentence.startswith("Withheld: the baseline is not among the variants and channels that were asked for.")


def test_shadow_mode_is_explained_by_the_baseline(services: Services) -> None:
    made, _ = setup.put_campaign(services, shop(mode="shadow", baseline=Baseline("mens", "email", "09:00")))
    publish_model(services, made)
    found = explained(services, ask(services))
    assert (found["kind"], "the mode is shadow" in found["sentence"]) == ("baseline", True)


def test_a_decision_of_another_workspace_is_not_found(learned: Services) -> None:
    decision = ask(learned)
    for workspace, name in (("other", decision.decision_id), (WORKSPACE, "dec_none")):
        with pytest.raises(NotFound):
            explain(learned, workspace, name)


def test_what_was_chosen_on_a_clock_that_this_host_lacks_is_not_explained_on_another(learned: Services) -> None:
    made = asked(learned)
    snapshot = replace(made.snapshot, timezone="America/Nowhere")
    afar = replace(made, decision_id="dec_afar", request_id="afar", snapshot=snapshot)
    learned.store.write(lambda writer: writer.add_decision(afar, None))
    with pytest.raises(NotFound, match="this host knows no zone 'America/Nowhere': dec_afar can't be replayed"):
        explained(learned, afar)
