"""Consent, suppression and ``requires`` as ``rules_reference`` has them: slow, obviously right, sharing no code."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from storage.log import Answer
from storage.records import Requirement

if TYPE_CHECKING:
    from tests.bandit.rules_reference import Case


def consents(case: Case, channel: str) -> bool:
    if channel in case.recipient.channels:
        return case.recipient.channels[channel].state
    return channel not in ("sms", "push", "whatsapp", "voice")


def suppressed(case: Case, channel: str) -> bool:
    return any(
        (s.channel == "*" or s.channel == channel) and (s.category == "*" or s.category == case.campaign.category)
        for s in case.recipient.suppressed
    )


def holds(requirement: Requirement, at: datetime, case: Case) -> bool:
    """Whether the requirement holds at this moment, if nothing has happened since ``now``."""
    last: Answer | None = None
    for answer in case.answers:
        if answer.campaign_id != requirement.campaign_id or answer.sent_at > case.now:
            continue
        if requirement.variant_id not in (None, answer.variant_id):
            continue
        # Two at the same moment: the greater id is taken for the last.
        if last is None or (answer.sent_at, answer.variant_id) > (last.sent_at, last.variant_id):
            last = answer
    if last is None:
        return False
    until = last.sent_at + timedelta(hours=requirement.within_hours)
    when = last.outcomes.get(requirement.outcome)
    did = when is not None and last.sent_at <= when <= until
    return did if requirement.happened else not did and until <= at


def variant_opens(variant: str, case: Case) -> datetime | None:
    requires = next(v.requires for v in case.campaign.variants if v.id == variant)
    ends = [a.sent_at + timedelta(hours=r.within_hours) for a in case.answers for r in requires]
    return next(
        (t for t in sorted([case.now, *ends]) if t >= case.now and all(holds(r, t, case) for r in requires)), None
    )
