"""What recipients did with the last messages that went to them: what a variant's ``requires`` is judged by.

A message counts as sent from its real time on once that is known, else from its planned one: an unconfirmed message
whose time has passed is taken to have gone out until it is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from optimizer.bandit.rewards import MESSAGE_OUTCOMES, happened_at
from storage.log import Answer, Decision, Event, Message
from storage.port import Reader
from storage.records import Campaign

#: How far back a last message is looked for. Older ones are forgotten: no condition speaks of more than a year.
LOOKBACK = timedelta(days=400)
_INSTANT = timedelta(microseconds=1)

#: The campaign of an id as it is now; None when there is none.
Standing = Callable[[str], Campaign | None]


def required_campaigns(campaign: Campaign) -> frozenset[str]:
    """The campaigns whose messages the active variants of ``campaign`` make a condition of."""
    if not any(v.requires for v in campaign.variants):
        return frozenset()
    return frozenset(requirement.campaign_id for v in campaign.active_variants for requirement in v.requires)


def read_answers(
    reader: Reader,
    workspace_id: str,
    recipient_ids: Sequence[str],
    campaigns: frozenset[str],
    standing: Standing,
    now: datetime,
) -> dict[str, tuple[Answer, ...]]:
    """The last message of each of these campaigns and its variants sent to each recipient by ``now``, with what
    happened since (absent = none), by campaign and variant."""
    if not campaigns or not recipient_ids:
        return {}
    ledger = reader.messages(workspace_id, recipient_ids, now - LOOKBACK, judged_at(now) + _INSTANT)
    latest = {recipient_id: last_messages(ledger[recipient_id], campaigns) for recipient_id in ledger}
    ids = [m.decision_id for messages in latest.values() for m in messages if m.decision_id is not None]
    decisions = reader.decisions_by_id(workspace_id, ids)
    found: dict[str, tuple[Answer, ...]] = {}
    for recipient_id, messages in latest.items():
        answers = [
            _answer(message, decision, reader.events(workspace_id, decision), standing(decision.campaign_id))
            for message in messages
            if message.decision_id is not None and (decision := decisions.get(message.decision_id)) is not None
        ]
        if answers:
            found[recipient_id] = tuple(answers)
    return found


def judged_at(now: datetime) -> datetime:
    """The moment that conditions are judged at: ``now`` in whole seconds, as ``Question.now`` has it."""
    return now.replace(microsecond=0)


def last_messages(messages: Iterable[Message], campaigns: frozenset[str]) -> list[Message]:
    """The last message of each (campaign, variant) of these campaigns, sorted by them."""
    last: dict[tuple[str, str], Message] = {}
    for message in messages:
        if message.campaign_id in campaigns and message.variant_id is not None and message.decision_id is not None:
            key = (message.campaign_id or "", message.variant_id)
            if key not in last or _order(last[key]) < _order(message):
                last[key] = message
    return [last[key] for key in sorted(last)]


def with_message(answers: Sequence[Answer], message: Message) -> tuple[Answer, ...]:
    """The answers as they are once ``message`` went out too; nothing can have happened to it yet."""
    if message.campaign_id is None or message.variant_id is None:
        return tuple(answers)
    fresh = Answer(message.campaign_id, message.variant_id, message.at)
    others = [a for a in answers if (a.campaign_id, a.variant_id) != (fresh.campaign_id, fresh.variant_id)]
    if any(a.sent_at > fresh.sent_at for a in answers if a not in others):
        return tuple(answers)
    return tuple(sorted((*others, fresh), key=lambda a: (a.campaign_id, a.variant_id)))


def _order(message: Message) -> tuple[datetime, str]:
    return message.at, message.message_ref


def _answer(message: Message, decision: Decision, events: Iterable[Event], campaign: Campaign | None) -> Answer:
    """When each outcome first happened after the message went out; what happened before is no answer to it.

    An open of this very message is one whatever its time: the message went out before it was planned to, or before the
    moment that a late confirm took for its time. It counts from the decision on, as for rewards, and as at the send.
    What needs no message counts from the planned time on, if that is the earlier one: else who bought before a late
    confirm would be told that they didn't.
    """
    answerable = min(message.at, decision.send_at or message.at)
    first: dict[str, datetime] = {}
    for event in events:
        outcome = _outcome(event, campaign)
        earliest = decision.decided_at if outcome in MESSAGE_OUTCOMES else answerable
        at = happened_at(decision, event)
        if event.automated or at < earliest or not _belongs(event, decision, outcome):
            continue
        at = max(at, message.at)
        first[outcome] = min(first.get(outcome, at), at)
    return Answer(decision.campaign_id, decision.variant_id or "", message.at, first)


def _outcome(event: Event, campaign: Campaign | None) -> str:
    mapping = None if campaign is None else campaign.event_mapping.get(event.type)
    return event.type if mapping is None else mapping.outcome


def _belongs(event: Event, decision: Decision, outcome: str) -> bool:
    """As for rewards: it names the decision, or only its recipient where the outcome needs no message."""
    if event.decision_id is not None:
        return event.decision_id == decision.decision_id
    return (
        outcome not in MESSAGE_OUTCOMES
        and event.message_id is None
        and event.campaign_id in (None, decision.campaign_id)
    )
