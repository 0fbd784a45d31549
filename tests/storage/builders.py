"""Records with everything at a sensible value, so that a test names only what it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from storage.log import COUNTED, Decision, Event, Message, Snapshot
from storage.policies import Artifact, Component, Policy, TrainingRun
from storage.records import (
    ApiKey,
    Attribute,
    Campaign,
    Channel,
    Consent,
    OutcomeWeight,
    Recipient,
    Suppression,
    Variant,
    Workspace,
)
from storage.rules import Cap, Rule, Selector

WORKSPACE = "w1"
#: Noon of an ordinary day, with microseconds, so that nothing may round.
NOON = datetime(2026, 3, 10, 12, 0, 0, 123456, tzinfo=UTC)


def at(hours: float = 0.0) -> datetime:
    """So many hours after ``NOON``."""
    return NOON + timedelta(hours=hours)


def make_workspace(**changes: Any) -> Workspace:
    return replace(Workspace(WORKSPACE, "First", "live", NOON), **changes)


def make_key(**changes: Any) -> ApiKey:
    return replace(ApiKey(WORKSPACE, "key_1", "ci", b"\x00" * 31 + b"\xff", ("decide", "read"), NOON), **changes)


def make_campaign(**changes: Any) -> Campaign:
    campaign = Campaign(
        workspace_id=WORKSPACE,
        campaign_id="spring",
        variants=(Variant("mens", features={"discount": 0.1}, text="Hello"), Variant("womens", cost=0.01)),
        channels=(Channel("email", 0.0004), Channel("sms", 0.03)),
        created_at=NOON,
        updated_at=NOON,
        objective={"clicked": OutcomeWeight(1.0), "converted": OutcomeWeight(per_value=1.0, max_value=500.0)},
        attribution_hours={"clicked": 72.0},
    )
    return replace(campaign, **changes)


def make_rule(**changes: Any) -> Rule:
    rule = Rule(WORKSPACE, "weekly", "cap", Cap(3, rolling_hours=168.0), counts=Selector(channels=("email",)))
    return replace(rule, **changes)


def make_attribute(**changes: Any) -> Attribute:
    return replace(Attribute(WORKSPACE, "age", "number"), **changes)


def make_recipient(**changes: Any) -> Recipient:
    recipient = Recipient(
        workspace_id=WORKSPACE,
        recipient_id="u1",
        version=1,
        timezone="Europe/Berlin",
        attributes={"country": "DE", "age": 33, "score": 0.25, "plan": None, "tags": ["a", "b"]},
        channels={"email": Consent(True), "push": Consent(False, "app", NOON)},
        suppressed=(Suppression("sms", "marketing", "import", NOON), Suppression()),
        updated_at=NOON,
    )
    return replace(recipient, **changes)


def make_decision(**changes: Any) -> Decision:
    """A reserved decision, its send time six hours after it was made."""
    decision = Decision(
        workspace_id=WORKSPACE,
        decision_id="dec_1",
        request_id="order-1",
        request_hash=b"\x01" * 32,
        campaign_id="spring",
        campaign_version=1,
        recipient_id="u1",
        status="reserved",
        group="treated",
        mode="live",
        decided_at=NOON,
        propensity=0.1,
        policy_id="pol_1",
        action=5,
        actions=97,
        eligible_actions=25,
        eligible=b"\xff\x00" * 6,
        snapshot=Snapshot(
            window_start=NOON,
            window_end=NOON + timedelta(hours=24),
            variants=("mens", "womens"),
            channels=("email", "sms"),
            timezone="Europe/Berlin",
            timezone_source="recipient",
            context={"country": "DE", "age": 33},
        ),
        variant_id="mens",
        channel="email",
        send_at=NOON + timedelta(hours=6),
    )
    return replace(decision, **changes)


def make_message(decision: Decision) -> Message | None:
    """The message that a decision holds against the caps; None when it holds none."""
    when = decision.sent_at or decision.send_at
    if decision.status not in COUNTED or decision.channel is None or when is None:
        return None
    return Message(
        workspace_id=decision.workspace_id,
        recipient_id=decision.recipient_id,
        at=when,
        message_ref=decision.decision_id,
        channel=decision.channel,
        category=decision.category,
        campaign_id=decision.campaign_id,
        variant_id=decision.variant_id,
        decision_id=decision.decision_id,
        cost=decision.snapshot.cost,
    )


def foreign_message(**changes: Any) -> Message:
    """A message that another system sent."""
    return replace(Message(WORKSPACE, "u1", at(1), "crm-1", "email", "marketing"), **changes)


def make_event(**changes: Any) -> Event:
    """An opening of ``dec_1`` seven hours after it was decided."""
    event = Event(WORKSPACE, "ev_1", "opened", at(7), at(7.5), matched=True, decision_id="dec_1")
    return replace(event, **changes)


def make_artifact(**changes: Any) -> Artifact:
    return replace(Artifact(WORKSPACE, "art_1", NOON, b"\x02" * 32, "abcd", b"\x00blob\xff" * 100), **changes)


def make_policy(**changes: Any) -> Policy:
    policy = Policy(
        workspace_id=WORKSPACE,
        policy_id="pol_1",
        campaign_id="spring",
        created_at=NOON,
        mixture=(Component(0.7, None), Component(0.3, "art_1")),
        exploration={"rate": 0.02, "rows": {"mens": 120}},
        verdict={"decision": "publish", "conditions": [{"name": "support", "passed": True}]},
    )
    return replace(policy, **changes)


def make_run(**changes: Any) -> TrainingRun:
    return replace(TrainingRun(WORKSPACE, "run_1", "retrain", "queued", NOON, "spring"), **changes)
