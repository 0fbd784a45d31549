"""Which actions are allowed: consent, suppression and rules, turned into a mask over the action space with reasons.

This is the promise of the service: an action whose mask is False has propensity 0, whatever a model says. The mask
depends on the recipient, the rules, the messages and what is used of shared limits, on no policy. It is computed for
all actions of many recipients at once; one recipient is a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import blackout, capacity, caps
from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.blackout import NO_HOLIDAYS
from optimizer.bandit.capacity import cost_micros
from optimizer.bandit.findings import moment
from optimizer.bandit.judge import closed_by_shared_limits, judge
from optimizer.bandit.questions import Batch, Question, batches
from optimizer.bandit.rulebook import acts, binds, reports
from optimizer.bandit.stretches import MICRO
from storage.log import Reason
from storage.records import Campaign, Recipient
from storage.rules import Blackout, Budget, Cap, Capacity, Fatigue, RiskLimit, Rule
from storage.swift import swift
from storage.usage import Usage

__all__ = [
    "NO_HOLIDAYS",
    "NO_USAGE",
    "Eligibility",
    "Question",
    "cost_micros",
    "countries",
    "eligible",
    "eligible_many",
    "longest_reach",
    "needs_holidays",
    "needs_unanswered",
    "risk_limits",
    "scarcity",
    "span",
    "usage_spans",
]

NO_USAGE: Usage = MappingProxyType({})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@swift
@dataclass(frozen=True, slots=True, eq=False)
class Eligibility:
    """What is allowed: ``mask`` (K,) bool over the action space, and one reason for each rule that masks something."""

    mask: NDArray[np.bool_]
    reasons: tuple[Reason, ...]


def eligible(question: Question, rules: Sequence[Rule], usage: Usage = NO_USAGE) -> Eligibility:
    """The eligible set of one decision.

    A message action is masked by

    - consent: sms, push, whatsapp and voice need a recorded yes; other channels are closed by a recorded no;
    - suppression: a recorded refusal of its channel and the campaign's category (``*`` = any);
    - requires: its variant asks for something that the recipient did, or did not do, with an earlier message;
    - a cap: some window of the cap that holds the send time would hold more than ``limit`` messages, this one included.
      Windows are half-open and lie before, around and after the send time (reservations of the future count). The new
      message is tested as one more even if the rule's ``counts`` does not admit it: a cap that is full blocks all that
      ``applies_to`` binds, and a limit of 0 always does;
    - quiet hours: the send time is in a quiet night on the recipient's wall clock;
    - blackout: the send time's local date is one of the rule's, or a public holiday of the recipient's country;
    - capacity: the period of the send time is full;
    - budget: the action costs something, and more than what is left in the period of the send time.

    A rule acts if it is enabled, not archived, not a dry run, and its ``applies_to`` admits the action's channel, the
    campaign's category and its id. ``no_send`` is always eligible. Fatigue rules are the policy's (``risk_limits``).

    Args:
        question: the action space, the recipient and what is known of them.
        rules: all of the workspace; reasons keep their order.
        usage: what is used of capacity and budget, at least within ``usage_spans``.

    Returns:
        The mask and the reasons: consent, suppression and requires first, then one per rule that masks an action (a dry
        run masks none and says what it would have masked). A reason's ``masked`` counts the message actions that this
        rule alone masks. Its ``next_eligible_at`` is the first time, from its first masked slot on, at which it alone
        would not mask the cheapest action that it masks there: None if never, or if that is further away than what is
        known or looked at (caps: their reach after the last slot; quiet hours and blackouts: 32 days after it; capacity
        and budget: two periods after it). That of ``requires`` is when a masked variant opens if nothing more happens.
    """
    if not question.space.messages:
        return _nothing_to_mask(question)
    masks, reasons = judge(Batch([question]), rules, usage)
    return Eligibility(masks[0], reasons[0])


def eligible_many(questions: Sequence[Question], rules: Sequence[Rule], usage: Usage = NO_USAGE) -> list[Eligibility]:
    """``eligible`` of each question, in order: each is judged on its own messages and the same usage.

    Questions of the same campaign, variants, channels and number of slots are judged together.
    """
    answers = [_nothing_to_mask(q) if not q.space.messages else None for q in questions]
    for places, batch in batches(questions):
        masks, reasons = judge(batch, rules, usage)
        for place, mask, told in zip(places, masks, reasons, strict=True):
            answers[place] = Eligibility(mask, told)
    return [answer for answer in answers if answer is not None]


def _nothing_to_mask(question: Question) -> Eligibility:
    return Eligibility(np.ones(question.space.size, np.bool_), ())


def scarcity(question: Question, rules: Sequence[Rule], usage: Usage) -> bytes:
    """Which actions capacity and budget rules close: equal bytes mean the same ones (of the same space)."""
    if not question.space.messages or not any(acts(r) and isinstance(r.parameters, Capacity | Budget) for r in rules):
        return b""
    closed = closed_by_shared_limits(Batch([question]), rules, usage)
    return np.packbits(closed).tobytes() if closed.any() else b""


def span(rules: Sequence[Rule], space: ActionSpace) -> tuple[datetime, datetime]:
    """From when to when (inclusive) the recipient's messages must be known for ``eligible`` to be exact.

    With r the longest reach of a cap (the length of a rolling window; 2, 8 or 32 days for a calendar day, week or
    month): first slot - r to last slot + 2 r. The mask needs one r on each side; the second one lets a reason say when
    its cap opens again, since reservations after that time count too. A space without slots: an empty span.
    """
    if not space.slots:
        return _EPOCH, _EPOCH
    reach = longest_reach(rules) // timedelta(microseconds=1)
    first, last = int(space.send_at[0]), int(space.send_at[-1])
    start, end = first * MICRO - reach, last * MICRO + 2 * reach
    return moment(start) or datetime.min.replace(tzinfo=UTC), moment(end) or datetime.max.replace(tzinfo=UTC)


def longest_reach(rules: Sequence[Rule]) -> timedelta:
    """How far from a send time the caps look; zero where there is none."""
    reaches = (caps.reach_us(r.parameters) for r in rules if reports(r) and isinstance(r.parameters, Cap))
    return timedelta(microseconds=max(reaches, default=0))


def usage_spans(rules: Sequence[Rule], first: int, last: int) -> list[tuple[str, int, int]]:
    """What ``usage`` must know for send times ``first`` … ``last`` (seconds since 1970): (rule id, period, period).

    Both periods are included; the last lies two beyond that of ``last``, so that a reason can say what opens next.
    """
    return [
        (rule.rule_id, *capacity.periods_to_read(rule.parameters, first, last))
        for rule in rules
        if reports(rule) and isinstance(rule.parameters, Capacity | Budget)
    ]


def countries(rules: Sequence[Rule], recipient: Recipient) -> tuple[str, ...]:
    """The countries whose holidays must be known: upper case codes, each once."""
    blackouts = [r.parameters for r in rules if reports(r) and isinstance(r.parameters, Blackout)]
    found = (blackout.country_of(one, recipient) for one in blackouts)
    return tuple(dict.fromkeys(country for country in found if country))


def needs_holidays(rules: Sequence[Rule]) -> bool:
    """Whether a blackout looks at public holidays."""
    blackouts = (r.parameters for r in rules if reports(r) and isinstance(r.parameters, Blackout))
    return any(one.country_holidays for one in blackouts)


def needs_unanswered(rules: Sequence[Rule]) -> bool:
    """Whether a cap adapts to the recipient's count of unanswered messages."""
    return any(reports(r) and isinstance(r.parameters, Cap) and r.parameters.adapt is not None for r in rules)


def risk_limits(rules: Sequence[Rule], campaign: Campaign, *, dry_run: bool = False) -> tuple[RiskLimit, ...]:
    """The limits that active fatigue rules put on a policy of the campaign, or would (``dry_run``), in the rules'
    order."""
    channels = tuple(channel.id for channel in campaign.channels)
    limits = []
    for rule in rules:
        if reports(rule) and rule.dry_run == dry_run and isinstance(rule.parameters, Fatigue):
            admitted = tuple(c for c, bound in zip(channels, binds(rule, channels, campaign), strict=True) if bound)
            if admitted:
                fatigue = rule.parameters
                which = None if len(admitted) == len(channels) else admitted
                limits.append(RiskLimit(rule.rule_id, fatigue.outcome, fatigue.max_risk, which))
    return tuple(limits)
