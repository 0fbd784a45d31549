"""What a decision was worth: its outcomes and its reward as a function of the *set* of events, whatever their order.

Events come late, twice and in any order. So nothing here is counted up as events arrive: outcomes are computed from all
events at hand, an event id counts once, and sums are rounded the same in every order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from optimizer.bandit.spoken import outcome_names, speaks_of
from storage.log import COUNTED, Decision, Event
from storage.records import Campaign
from storage.rules import MICROS
from storage.swift import swift

#: Outcomes that need a message; no other decision can have them.
MESSAGE_OUTCOMES = frozenset({"delivered", "opened", "clicked", "bounced", "failed", "complained", "unsubscribed"})
#: Opened or clicked: what happened to a message before anybody could click. The model learns it beside the outcomes
#: that callers name; none of theirs can have this name, since theirs have no control characters.
LOOKED = "opened\x1fclicked"
#: Outcomes that are a harm to the recipient.
HARMFUL = frozenset({"unsubscribed", "complained"})
#: How far another system's clock and ours may be apart before its time is called wrong.
CLOCK_SKEW = timedelta(minutes=5)
#: What an event is worth at most, either sign. A log may hold more, from a mapped property for instance, and the sum of
#: such values overflow.
LARGEST_VALUE = 1e9


@swift
@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one outcome of a decision.

    Attributes:
        happened: whether an event of it counted so far.
        at: the first of those events.
        value: the sum of their values, each of at most ``LARGEST_VALUE``; None if none has one.
        matured: whether its attribution window has passed, so that ``happened`` is final but for late arrivals.
        heard: when the first of those events was known here, which may be long after it occurred.
    """

    happened: bool
    at: datetime | None
    value: float | None
    matured: bool
    heard: datetime | None = None


def clock_start(decision: Decision) -> datetime:
    """When attribution windows of messages start: at the send, else the planned send; without one, at the decision.

    Never before the decision: a sender's clock may lag behind ours, or tell whole seconds.
    """
    if decision.variant_id is None or decision.sent_at is None:
        return planned_start(decision)
    return max(decision.sent_at, decision.decided_at)


def planned_start(decision: Decision) -> datetime:
    """When they would if it was sent as planned."""
    if decision.variant_id is None:
        return decision.decided_at
    return decision.send_at or decision.decided_at


def latest_start(decision: Decision) -> datetime:
    """When they would at the latest, whatever had been drawn: the last moment that a message could be planned for."""
    snapshot = decision.snapshot
    latest = snapshot.window_start if snapshot.immediate else snapshot.window_end
    return max(latest, decision.decided_at)


def planned_end(campaign: Campaign, decision: Decision) -> datetime:
    """When the last of them ends if it was sent as planned."""
    return max(_ends(campaign, decision, planned_start(decision)).values(), default=planned_start(decision))


def outcome_ends(campaign: Campaign, decision: Decision) -> dict[str, datetime]:
    """When the window of each outcome ends."""
    return _ends(campaign, decision, clock_start(decision))


def _ends(campaign: Campaign, decision: Decision, start: datetime) -> dict[str, datetime]:
    """When the window of each outcome ends, if those of messages start at ``start``.

    What needs no message happens by itself, too. So it is looked for as long whatever was drawn: were it counted from
    the send, those who get a message tomorrow would seem to buy more than those who get one now or none at all.
    """
    latest = latest_start(decision)
    windows = speaks_of(campaign).windows
    return {name: (start if name in MESSAGE_OUTCOMES else latest) + window for name, window in windows.items()}


def outcomes(campaign: Campaign, decision: Decision, events: Iterable[Event], now: datetime) -> Mapping[str, Outcome]:
    """The outcomes of a decision, one for each of ``outcome_names(campaign)``.

    An event counts for an outcome if it has that type (after the campaign's ``event_mapping``), is not automated, lies
    within its window (both ends included), and belongs to the decision:

    - it names the decision; or
    - it names no decision and no message but the decision's recipient, the outcome needs no message, and it names
      either no campaign or this one.

    An outcome that needs a message never counts for a decision without one. Its window is [decided_at, clock start +
    window]; that of others is [decided_at, latest start + window], whatever was drawn. What names the decision and is
    dated up to ``CLOCK_SKEW`` before it happened at it. The same event id counts once; of several events with one id
    the first received is taken, as the store does. ``now`` decides maturity alone: matured from the window's end on.

    Args:
        campaign: objective, guardrails, windows and mapping.
        decision: the decision.
        events: any superset of the events that may count, in any order, with repetitions.
        now: aware UTC.
    """
    return outcomes_and_look(campaign, decision, events, now)[0]


def looked(campaign: Campaign, decision: Decision, events: Iterable[Event], now: datetime) -> Outcome | None:
    """Whether a message was opened or clicked within the window of clicks, by the same rules; None in a campaign that
    doesn't speak of clicks. Opens need not be among the campaign's outcomes."""
    return outcomes_and_look(campaign, decision, events, now)[1]


def outcomes_and_look(
    campaign: Campaign, decision: Decision, events: Iterable[Event], now: datetime
) -> tuple[Mapping[str, Outcome], Outcome | None]:
    """``outcomes`` and ``looked``, from one pass over the events."""
    start = clock_start(decision)
    if events == () and now >= max(start, latest_start(decision)) + speaks_of(campaign).reach:
        return _never(campaign)
    ends = _ends(campaign, decision, start)
    end = ends.get("clicked")
    latest = ends if end is None else {**ends, "opened": max(end, ends.get("opened", end))}
    found = _found(campaign, decision, events, latest)
    look = None
    if end is not None:
        opens = found.get("opened", [])
        look = _summary([one for one in opens if one[0] <= end] + found.get("clicked", []), now >= end)
        if opens and "opened" in ends:
            found["opened"] = [one for one in opens if one[0] <= ends["opened"]]
    if not found:
        return _nothing(tuple(ends), tuple(now >= until for until in ends.values())), look
    return {name: _summary(found.get(name), now >= until) for name, until in ends.items()}, look


def needs_message(outcome: str) -> bool:
    """Whether an outcome can't happen without a message."""
    return outcome in MESSAGE_OUTCOMES or outcome == LOOKED


_Found = dict[str, list[tuple[datetime, datetime, float | None]]]


def _found(campaign: Campaign, decision: Decision, events: Iterable[Event], ends: Mapping[str, datetime]) -> _Found:
    """(occurred, received, value) of the events that count for outcomes whose windows end at ``ends``."""
    found: _Found = {}
    for event in _once(events):
        name, value = _meaning(campaign, event)
        end = ends.get(name)
        if (
            end is not None
            and not event.automated
            and decision.decided_at <= (at := happened_at(decision, event)) <= end
            and _belongs(campaign, decision, event, name)
        ):
            found.setdefault(name, []).append((at, event.received_at, value))
    return found


def happened_at(decision: Decision, event: Event) -> datetime:
    """When an event happened: one that names the decision at it, if it is dated no more than ``CLOCK_SKEW`` before.

    A sender's clock may lag behind ours, or tell whole seconds: of an immediate message it then says that it was
    delivered before it was decided.
    """
    early = decision.decided_at - event.occurred_at
    named = event.decision_id == decision.decision_id
    return decision.decided_at if named and timedelta(0) < early <= CLOCK_SKEW else event.occurred_at


def matured(campaign: Campaign, outcomes: Mapping[str, Outcome]) -> bool:
    """Whether every outcome of the campaign is matured, so that the reward is final."""
    return all(name in outcomes and outcomes[name].matured for name in outcome_names(campaign))


def reward(campaign: Campaign, decision: Decision, outcomes: Mapping[str, Outcome]) -> float:
    """Worth of a decision in units of the objective: the sum over outcomes that happened, minus the message's cost.

    An outcome adds ``fixed`` + ``per_value`` x its value, the value clipped to ± ``max_value`` (no value: 0).
    The cost of variant and channel is paid while the message is held or once it went out, not after it was given back;
    what it was then where the campaign no longer has one of them.
    """
    terms = [-_cost(campaign, decision)]
    for name, weight in campaign.objective.items():
        outcome = outcomes.get(name)
        if outcome is None or not outcome.happened:
            continue
        least, most = weight.bounds
        terms.append(weight.fixed + weight.per_value * min(max(outcome.value or 0.0, least), most))
    return math.fsum(terms)


def _once(events: Iterable[Event]) -> Iterable[Event]:
    """One event an id. The choice between different events of one id must not hang on their order."""
    first: dict[str, Event] = {}
    for event in events:
        other = first.setdefault(event.event_id, event)
        if other is not event and other != event and _rank(event) < _rank(other):
            first[event.event_id] = event
    return first.values()


def _rank(event: Event) -> tuple[datetime, datetime, str]:
    """Order among events of one id: the first received; its whole content settles what is left."""
    return event.received_at, event.occurred_at, repr(event)


def _meaning(campaign: Campaign, event: Event) -> tuple[str, float | None]:
    """Outcome and value of an event under the campaign's mapping; an unmapped event means its own type."""
    mapping = campaign.event_mapping.get(event.type)
    if mapping is None:
        return event.type, event.value
    if mapping.value is None:
        return mapping.outcome, event.value
    found = amount(event.properties.get(mapping.value))
    return mapping.outcome, event.value if found is None else found


def amount(told: object) -> float | None:
    """The finite number that a property tells; None = none. Shops often send amounts as text."""
    if isinstance(told, bool) or not isinstance(told, int | float | str):
        return None
    try:
        number = float(told)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _belongs(campaign: Campaign, decision: Decision, event: Event, outcome: str) -> bool:
    needs_message = outcome in MESSAGE_OUTCOMES
    if needs_message and decision.variant_id is None:
        return False
    if event.decision_id is not None:
        return event.decision_id == decision.decision_id
    return (
        not needs_message
        and event.message_id is None
        and event.recipient_id == decision.recipient_id
        and event.campaign_id in (None, campaign.campaign_id)
    )


def _never(campaign: Campaign) -> tuple[Mapping[str, Outcome], Outcome | None]:
    """Nothing happened and nothing can any more, as in most decisions of a long log."""
    told = speaks_of(campaign)
    return _nothing(told.names, (True,) * len(told.names)), _NOT_HAPPENED[True] if "clicked" in told.windows else None


@lru_cache(1024)
def _nothing(names: tuple[str, ...], are_matured: tuple[bool, ...]) -> Mapping[str, Outcome]:
    """Nothing happened: one mapping for all decisions alike, since most of a log are these."""
    return {name: _NOT_HAPPENED[matured] for name, matured in zip(names, are_matured, strict=True)}


#: By whether it is matured.
_NOT_HAPPENED = tuple(Outcome(happened=False, at=None, value=None, matured=matured) for matured in (False, True))


def _summary(found: list[tuple[datetime, datetime, float | None]] | None, is_matured: bool) -> Outcome:
    if not found:
        return _NOT_HAPPENED[is_matured]
    values = [max(-LARGEST_VALUE, min(value, LARGEST_VALUE)) for *_, value in found if value is not None]
    # fsum rounds once, so the sum is the same in every order.
    total = math.fsum(values) if values else None
    at, heard = min(at for at, *_ in found), min(max(at, received) for at, received, _ in found)
    return Outcome(happened=True, at=at, value=total, matured=is_matured, heard=heard)


def _cost(campaign: Campaign, decision: Decision) -> float:
    if decision.variant_id is None or decision.status not in COUNTED:
        return 0.0
    told = speaks_of(campaign)
    variant, channel = told.variants.get(decision.variant_id), told.channels.get(decision.channel)
    if variant is None or channel is None:  # no longer offered, so it costs what it did
        return decision.snapshot.cost / MICROS
    return variant + channel
