"""``sendtide explain``: in words with bars, and for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from optimizer.cli.explain import _lines
from optimizer.service import setup
from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.service.wiring import Services
from storage.records import Channel, OutcomeWeight, Variant
from tests.cli.conftest import Sendtide
from tests.service.conftest import campaign
from tests.service.trained import publish_model


def test_comparisons_with_the_same_action_are_told_once_under_all_their_names() -> None:
    def compared(to: str, variant: str | None) -> dict[str, Any]:
        told = {
            "variant_id": variant,
            "channel": variant and "email",
            "send_at_local": datetime(2026, 3, 2, 9, tzinfo=UTC),
        }
        return {"to": to, "action": told, "difference": 0.25, "contributions": [], "residual": 0.0}

    kinds = ("runner_up", "other_variant", "other_channel", "no_send")
    one = [compared(kind, variant) for kind, variant in zip(kinds, ("a", "a", "a", None), strict=True)]
    headings = [line for line in _lines({"sentence": "So.", "chosen": None, "comparisons": one}) if line][1:]
    assert headings == [
        "Score against the best other action, the best of another variant and the best on another channel: a by email "
        "on Monday at 09:00: +0.25",
        "Score against not sending: +0.25",
    ]
    silent = [compared("runner_up", None), compared("other_variant", "b"), compared("no_send", None)]
    headings = [line for line in _lines({"sentence": "So.", "chosen": None, "comparisons": silent}) if line][1:]
    assert headings[0] == "Score against the best other action and not sending: +0.25"
    assert len(headings) == 2


@pytest.mark.parametrize(("count", "told"), [(9, "1 smaller one"), (10, "2 smaller ones")])
def test_contributions_that_are_not_shown_are_counted(count: int, told: str) -> None:
    part = {"kind": "hour", "feature": "hour of the day", "through": None, "value": None, "contribution": 0.5}
    action = {"variant_id": None, "channel": None, "send_at_local": None}
    one = {"to": "no_send", "action": action, "difference": 1.0, "contributions": [part] * count, "residual": 0.0}
    assert list(_lines({"sentence": "So.", "chosen": None, "comparisons": [one]}))[-1].endswith(f" {told}")


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
    assert f"the best of another variant: {against['action']['variant_id']} by email" in text
    headings = [line for line in text.splitlines() if line.startswith("Score against ")]
    assert len(headings) == len({str(one["action"]) for one in found["comparisons"]}), "each comparison is told once"
    result = sendtide("explain", "dec_none")
    assert result.exit_code == 1
    assert "no decision 'dec_none'" in result.stderr
