"""Displacement: a message of higher priority takes the place of lower ones that are reserved but not yet sent.

It is looked at only where the recipient's own caps and gaps leave no message action eligible. Then the eligible set is
that of the ledger without *all* that may be displaced: it depends on the state alone, not on what is drawn, so every
propensity stays exact. After the draw, whatever the drawn action can stand is put back; only the rest is displaced.

Limits that all recipients share (capacity, budget) don't displace: the set is computed with the places of those that
may go still taken, and they are free for the next decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from optimizer.bandit.eligibility import Eligibility, Question, eligible
from storage.log import Decision, Message
from storage.records import Campaign
from storage.rules import Rule
from storage.usage import Usage

#: The kinds of rules whose places may be taken over: those that count one recipient's messages.
PERSONAL = frozenset({"cap", "gap"})

#: The campaign of an id as it is now; None when there is none.
Standing = Callable[[str], Campaign | None]

#: How the closing reason of a displaced decision begins.
BY = "displaced by "


def wanted(question: Question, ruled: Eligibility) -> bool:
    """Whether displacing could help: no message action is eligible, and a cap or a gap is among what masks."""
    space = question.space
    if not space.messages or np.count_nonzero(ruled.mask[: space.messages]):
        return False
    return any(reason.kind in PERSONAL and not reason.dry_run for reason in ruled.reasons)


def weaker(
    decisions: Iterable[Decision], campaign: Campaign, standing: Standing, now: datetime
) -> tuple[Decision, ...]:
    """Which of a recipient's open decisions a message of ``campaign`` may displace.

    Reserved (not claimed), planned after now, of a campaign that allows it and has a strictly lower priority as it is
    now. In the order in which they are put back: highest priority first, then the earliest send, then by id.
    """
    found: list[tuple[int, datetime, str, Decision]] = []
    for decision in decisions:
        if decision.status != "reserved" or decision.send_at is None or decision.send_at <= now:
            continue
        theirs = standing(decision.campaign_id)
        if theirs is not None and theirs.displaceable and theirs.priority < campaign.priority:
            found.append((-theirs.priority, decision.send_at, decision.decision_id, decision))
    return tuple(decision for *_, decision in sorted(found, key=lambda one: one[:3]))


def without(messages: Iterable[Message], decisions: Iterable[Decision]) -> tuple[Message, ...]:
    """The messages that are none of these decisions'."""
    gone = {decision.decision_id for decision in decisions}
    return tuple(message for message in messages if message.decision_id not in gone)


def displaced(
    question: Question, rules: Sequence[Rule], usage: Usage, action: int | None, decisions: Sequence[Decision]
) -> tuple[Decision, ...]:
    """Which of ``decisions`` must go for a drawn action.

    Args:
        question: with the full ledger.
        rules: as the eligible set was computed with.
        usage: likewise.
        action: what was drawn over the set without all of ``decisions``; None or ``no_send`` displaces nothing.
        decisions: what may be displaced, in the order in which it is put back.
    """
    if action is None or action >= question.space.messages:
        return ()
    held = {message.decision_id: message for message in question.messages}
    kept = without(question.messages, decisions)
    gone: list[Decision] = []
    for decision in decisions:
        message = held.get(decision.decision_id)
        if message is None:  # out of the caps' reach
            continue
        trial = (*kept, message)
        if eligible(replace(question, messages=trial), rules, usage).mask[action]:
            kept = trial
        else:
            gone.append(decision)
    return tuple(gone)


def reason(by: str) -> str:
    """What a displaced decision is closed with."""
    return BY + by
