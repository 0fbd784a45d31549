"""A short mark of a decision as it was answered, for comparing a million answers with what is stored."""

from __future__ import annotations

import hashlib

from storage.log import Decision


def fingerprint(decision: Decision) -> int:
    """64 bits over what never changes after the answer; what becomes of the message is left out."""
    d, s = decision, decision.snapshot
    choice = (
        (d.decision_id, d.request_id, d.campaign_id, d.campaign_version, d.recipient_id, d.group, d.mode, d.policy_id),
        (d.decided_at, d.propensity, d.action, d.actions, d.eligible, d.variant_id, d.channel, d.category, d.send_at),
        (s.attempt, s.timezone, s.window_start, s.window_end, s.cost, s.unanswered, s.displaced, s.overridden_rules),
        [(reason.rule_id, reason.masked) for reason in d.reasons],
    )
    return int.from_bytes(hashlib.blake2b(repr(choice).encode(), digest_size=8).digest(), "big")
