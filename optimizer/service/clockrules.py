"""Quiet hours and blackouts at the moment of a claim: a late message may no longer go out when it could have."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from optimizer.bandit.eligibility import eligible
from optimizer.bandit.rulebook import acts
from optimizer.service import recipients as people
from optimizer.service.holidays import holidays_of
from optimizer.service.rulecheck import question_of
from storage.log import Decision, Reason
from storage.port import Reader

#: Rules that go by the recipient's clock alone.
_KINDS: Final = frozenset({"quiet_hours", "blackout"})


def closed_now(reader: Reader, decision: Decision, now: datetime) -> Reason | None:
    """The rule that closes the message's channel at ``now``; None = none does, or its planned time, at which rules were
    asked, has not passed. A rule that the decision overrode is not asked."""
    if decision.send_at is None or now <= decision.send_at:
        return None
    overridden = decision.snapshot.overridden_rules
    asked = [one for one in reader.rules(decision.workspace_id) if one.kind in _KINDS and one.rule_id not in overridden]
    rules = [one for one in asked if acts(one)]
    if not rules:
        return None
    recipient = reader.recipient(decision.workspace_id, decision.recipient_id)
    recipient = recipient or people.unknown(decision.workspace_id, decision.recipient_id)
    campaign = reader.campaign(decision.workspace_id, decision.campaign_id)
    question = question_of(replace(decision, send_at=now), campaign, recipient, ())
    question = replace(question, now=int(now.timestamp()), holidays=holidays_of(rules, recipient, question.space))
    return next((one for one in eligible(question, rules).reasons if one.kind in _KINDS), None)
