"""``requires``: variants that are open only after a recipient did, or did not, do something with an earlier message."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.bandit.caps import length_us
from optimizer.bandit.stretches import MICRO, NEVER, micros
from storage.log import Answer
from storage.records import Requirement


def opening(requires: Sequence[Requirement], answers: Sequence[Answer], now: int) -> int:
    """When all of a variant's requirements hold, if nothing more happens than that time passes.

    Args:
        requires: the variant's; each is about the last message of its campaign (and variant) sent by ``now``.
        answers: the last message of each (campaign, variant) that was sent to the recipient by ``now``.
        now: seconds since 1970.

    Returns:
        Microseconds since 1970: at or before ``now`` if they hold, later if some still wait for the absence of an
        outcome, ``NEVER`` if time alone does not make them hold.
    """
    return max((_opening(requirement, answers, now) for requirement in requires), default=now * MICRO)


def _opening(requirement: Requirement, answers: Sequence[Answer], now: int) -> int:
    sent = [
        (micros(answer.sent_at), answer.variant_id, answer)
        for answer in answers
        if answer.campaign_id == requirement.campaign_id
        and requirement.variant_id in (None, answer.variant_id)
        and micros(answer.sent_at) <= now * MICRO
    ]
    if not sent:
        return NEVER
    # Of two sent at the same microsecond the one with the greater id, so that the order of ``answers`` plays no part.
    start, _, last = max(sent, key=lambda one: one[:2])
    end = start + length_us(requirement.within_hours)
    happened = last.outcomes.get(requirement.outcome)
    within = happened is not None and start <= micros(happened) <= end
    if requirement.happened:
        return start if within else NEVER
    return NEVER if within else end
