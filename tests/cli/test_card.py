"""``sendtide card`` and ``sendtide insights``: in tables for people, in JSON for programs."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from optimizer.bandit.rates import ANY_RATE, rate_bounds
from optimizer.service import learning, setup
from optimizer.service.publish import new_policy, reject
from optimizer.service.wiring import Services
from storage.log import Event
from storage.policies import Policy
from storage.records import Channel, OutcomeWeight, Variant
from tests.cli.conftest import Sendtide
from tests.service.campaigns import decision
from tests.service.conftest import campaign
from tests.service.trained import publish_model

WIDE = {"COLUMNS": "160"}


@pytest.fixture
def served(services: Services) -> Policy:
    """A model that serves ``spring``, after forty closed decisions of which half were clicked."""
    setup.ensure_workspace(services, "default")
    made = campaign(
        workspace_id="default",
        variants=(Variant("mens", text="New boots"), Variant("womens", text="Sale now")),
        channels=(Channel("email"),),
        objective={"converted": OutcomeWeight(fixed=1.0), "clicked": OutcomeWeight(fixed=0.1)},
    )
    stored, _ = setup.put_campaign(services, made)
    rows = [decision(number, "treated", workspace_id="default") for number in range(40)]
    rows = [
        replace(
            one,
            actions=3,
            eligible=b"\xe0",
            eligible_actions=3,
            snapshot=replace(one.snapshot, context={"plan": ("pro", "free")[number // 2 % 2]}, immediate=True),
        )
        for number, one in enumerate(rows)
    ]
    clicks = [
        Event(
            "default",
            f"click{one.decision_id}",
            "clicked",
            one.decided_at + timedelta(minutes=1),
            one.decided_at,
            matched=True,
            decision_id=one.decision_id,
        )
        for one in rows[::2]
    ]
    services.store.write(lambda writer: writer.add_decisions([(one, None) for one in rows]))
    services.store.write(lambda writer: writer.add_events(clicks))
    return publish_model(services, stored)


def test_a_card_is_readable(sendtide: Sendtide, served: Policy) -> None:
    (follows,) = sendtide.json("card", served.policy_id)["model"]["follows"]
    share = follows["share"]
    assert (follows["outcome"], follows["earlier"], share > 0.1) == ("converted", "clicked", True)
    text = sendtide.ok("card", served.policy_id, env=WIDE)
    for part in (
        f"{served.policy_id}, a policy of spring: live",
        "by a retrain, the campaign's first",
        "The gate's verdict: publish.",
        "by the gate.",
        "Trained on 2,000 rows of the workspace, to predict clicked, converted.",
        f"What moves converted begins at {share:.2f} of clicked; its own rows tell the rest.",
        "Measured on 40 closed decisions, some of which it was trained on, from 2026-03-02 09:00 UTC",
        "plan",
        "█",
        "Predictions of clicked and what came of them",
    ):
        assert part in text, part


def test_a_card_says_when_the_policy_came_into_service_and_out_of_it(
    sendtide: Sendtide, services: Services, served: Policy
) -> None:
    other = replace(served, policy_id="pol_other", parent_id=served.policy_id, status="retired")
    services.store.write(lambda writer: writer.add_policy(other))
    learning.promote(services, "default", "pol_other", "key key_1 (ann)")
    for _ in range(2):
        learning.rollback(services, "default", "spring", "key key_2 (bob)")
    text, theirs = (sendtide.ok("card", name, env={"COLUMNS": "200"}) for name in (served.policy_id, "pol_other"))
    at = r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    for found, told in (
        (text, rf"Promoted {at} by the gate\."),
        (text, rf"Replaced {at} by pol_other, promoted by key key_1 \(ann\)\."),
        (text, rf"Put back into service by a rollback {at}: key key_2 \(bob\)\."),
        (text, rf"Taken back {at}, to the cold start: key key_2 \(bob\)\."),
        (theirs, rf"Promoted {at} by key key_1 \(ann\)\."),
        (theirs, rf"Taken back {at}, to {served.policy_id}: key key_2 \(bob\)\."),
    ):
        assert len(re.findall(told, found)) == 1, told


def test_a_card_is_json_for_programs(sendtide: Sendtide, served: Policy) -> None:
    found = sendtide.json("card", served.policy_id)
    assert found["model"]["rows"] == 2_000
    assert datetime.fromisoformat(found["created_at"]).tzinfo == UTC
    clicked = next(one for one in found["calibration"] if one["outcome"] == "clicked")
    assert sum(one["observed"] * one["rows"] for one in clicked["bins"]) == pytest.approx(20)


def test_a_rejected_policy_has_a_card_with_what_the_gate_asked(sendtide: Sendtide, services: Services) -> None:
    setup.ensure_workspace(services, "default")
    failed = {"name": "gain", "passed": False, "figure": -0.25, "limit": 0.0, "detail": "lower bound"}
    verdict = {"decision": "reject", "reason": "no clear gain", "conditions": [failed]}
    at = datetime(2026, 3, 2, tzinfo=UTC)
    made = new_policy("default", "spring", at, (), parent=None, exploration={}, verdict=verdict, run_id=None)
    text = sendtide.ok("card", reject(services, made).policy_id, env=WIDE)
    for part in ("spring: rejected", "It has never been in service.", "reject: no clear gain", "failed", "-0.25"):
        assert part in text, part
    result = sendtide("card", "pol_none")
    assert result.exit_code == 1
    assert "no policy 'pol_none'" in result.stderr


def test_insights_are_readable_and_say_how_much_is_left_out(sendtide: Sendtide, served: Policy) -> None:
    text = sendtide.ok("insights", "spring", "--all", env=WIDE)
    assert f"spring, by the model of {served.policy_id}" in text
    assert "“boots”" in text
    assert "What goes with converted" in text
    assert "say nothing yet" not in text
    found = sendtide.json("insights", "spring")["insights"]
    unsure = [one for one in found if 0.1 < one["probability_higher"] < 0.9]
    short = sendtide.ok("insights", "spring", env=WIDE)
    assert (f"{len(unsure)} more say nothing yet" in short) == bool(unsure)
    assert short.count("higher") + short.count("lower") == len(found) - len(unsure)


def test_insights_show_what_was_seen_beside_what_the_model_believes(sendtide: Sendtide, served: Policy) -> None:
    """Twenty messages each; all of mens were clicked, none of womens."""
    text = sendtide.ok("insights", "spring", "--all", env={"COLUMNS": "240"})
    low, high = rate_bounds(20, 20, prior=ANY_RATE)
    assert f"100.00% of 20 ({low:.1%} … {high:.1%})" in text
    assert "seen with (95%)" in text
    assert "model: with" in text
    found = sendtide.json("insights", "spring")
    (boots,) = [one for one in found["insights"] if one["outcome"] == "clicked" and "boots" in one["words"]]
    assert (boots["variants"], found["averaged_over"]) == (["mens"], 40)
    counts = [(boots[side]["messages"], boots[side]["count"]) for side in ("observed_with", "observed_without")]
    assert counts == [(20, 20), (20, 0)]


def test_insights_of_a_campaign_that_learned_nothing_are_refused(sendtide: Sendtide, services: Services) -> None:
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, campaign(workspace_id="default"))
    result = sendtide("insights", "spring")
    assert result.exit_code == 1
    assert "serves no learned policy yet; train one first (`sendtide retrain`" in result.stderr
