"""The two places where a simulation calls the service's pure middle for one decision: its eligible set, its record."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.bandit.eligibility import Question
from optimizer.service.choose import Drawn, Plan, Situation, plan, policy_space
from optimizer.service.record import Ask, Circumstances, decision_record
from storage.log import Decision, Message
from storage.records import Recipient
from storage.rules import Rule


def plan_for(s: Situation, recipient: Recipient, rules: Sequence[Rule], messages: Sequence[Message]) -> Plan:
    """The action space and eligible set of a situation. Scenarios have no limits that are shared between recipients."""
    question = Question(policy_space(s), s.campaign, recipient, messages, s.zone, now=int(s.decided_at.timestamp()))
    return plan(s, question, rules, {})


def record(ask: Ask, s: Situation, made: Plan, drawn: Drawn, recipient: Recipient) -> Decision:
    """The log's record of a draw."""
    return decision_record(ask, s, made, drawn, Circumstances(recipient.recipient_id), 0)
