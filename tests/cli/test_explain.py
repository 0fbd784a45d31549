"""``sendtide explain``: in words with bars, and for programs."""

from __future__ import annotations

from optimizer.service import setup
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.wiring import Services
from storage.records import Channel, OutcomeWeight, Variant
from tests.cli.conftest import Sendtide
from tests.service.conftest import campaign
from tests.service.trained import publish_model


def test_a_decision_is_explained_in_words_and_numbers(sendtide: Sendtide, services: Services) -> None:
    setup.ensure_workspace(services, "default")
    made = campaign(
        workspace_id="default",
        variants=(Variant("mens", text="New boots"), Variant("womens", text="New coats")),
        channels=(Channel("email"),),
        objective={"converted": OutcomeWeight(fixed=1.0)},
    )
    stored, _ = setup.put_campaign(services, made)
    publish_model(services, stored)
    plan = RecipientPatch(attributes={"plan": "pro"})
    asked = (DecisionRequest("spring", f"u{number}", recipient=plan) for number in range(100))
    made_of = (services.decider.decide("default", one)[0] for one in asked)
    decision = next(one for one in made_of if one.variant_id is not None)  # exploration may leave somebody in peace
    text = sendtide.ok("explain", decision.decision_id)
    assert "chosen with probability" in text
    assert "Score against the best other action: " in text
    assert "█" in text
    found = sendtide.json("explain", decision.decision_id)
    assert found["kind"] == "learned"
    against = next(one for one in found["comparisons"] if one["to"] == "other_variant")
    assert f"Score against the best of another variant: {against['action']['variant_id']} by email" in text
    result = sendtide("explain", "dec_none")
    assert result.exit_code == 1
    assert "no decision 'dec_none'" in result.stderr
