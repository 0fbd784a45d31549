"""Which actions are allowed: consent, suppression and rules, turned into a mask over the action space with reasons.

This is the promise of the service: an action whose mask is False has propensity 0, whatever a model says. The mask
depends on the recipient, the rules and the messages only, on no policy. It is computed for all slots and channels at
once; the variant plays no part in a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import caps, quiet
from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.caps import MICRO, Counted
from optimizer.bandit.localtime import DAY, Zone
from storage.log import Message, Reason
from storage.records import ANY, Campaign, Cap, Recipient, Rule, Selector

#: Channels that need a recorded yes; on any other only a recorded no closes.
CONSENT_CHANNELS = frozenset({"sms", "push", "whatsapp", "voice"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Blocked = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Eligibility:
    """What is allowed: ``mask`` (K,) bool over the action space, and one reason for each rule that masks something."""

    mask: NDArray[np.bool_]
    reasons: tuple[Reason, ...]


def span(rules: Sequence[Rule], space: ActionSpace) -> tuple[datetime, datetime]:
    """From when to when (inclusive) the recipient's messages must be known for ``eligible`` to be exact.

    With r the longest reach of an active cap (the length of a rolling window; 2, 8 or 32 days for a calendar day, week
    or month): first slot - r to last slot + 2 r. The mask needs one r on each side; the second one lets a reason say
    when its cap opens again, since reservations after that time count too. A space without slots: an empty span.
    """
    if not space.slots:
        return _EPOCH, _EPOCH
    reach = longest_reach(rules) // timedelta(microseconds=1)
    first, last = int(space.send_at[0]), int(space.send_at[-1])
    start, end = first * MICRO - reach, last * MICRO + 2 * reach
    return _moment(start) or datetime.min.replace(tzinfo=UTC), _moment(end) or datetime.max.replace(tzinfo=UTC)


def longest_reach(rules: Sequence[Rule]) -> timedelta:
    """How far from a send time the active caps look; zero where there is none."""
    reaches = (caps.reach_us(r.parameters) for r in rules if _active(r) and isinstance(r.parameters, Cap))
    return timedelta(microseconds=max(reaches, default=0))


def eligible(
    space: ActionSpace,
    *,
    campaign: Campaign,
    recipient: Recipient,
    rules: Sequence[Rule],
    messages: Sequence[Message],
    zone: Zone,
) -> Eligibility:
    """The eligible set of one decision.

    A message action is masked by

    - consent: sms, push, whatsapp and voice need a recorded yes; other channels are closed by a recorded no;
    - suppression: a recorded refusal of its channel and the campaign's category (``*`` = any);
    - a cap: some window of the cap that holds the send time would hold more than ``limit`` messages, this one included.
      Windows are half-open and lie before, around and after the send time (reservations of the future count). The new
      message is tested as one more even if the rule's ``counts`` does not admit it: a cap that is full blocks all that
      ``applies_to`` binds, and a limit of 0 always does;
    - quiet hours: the send time is in a quiet night on the recipient's wall clock.

    A rule acts if it is enabled, not archived, not a dry run, and its ``applies_to`` admits the action's channel, the
    campaign's category and its id. ``no_send`` is always eligible.

    Args:
        space: the actions; its send times are the very ones that would be answered.
        campaign: gives category and id.
        recipient: gives consent and suppressions.
        rules: all of the workspace; reasons keep their order.
        messages: the recipient's, at least within ``span(rules, space)``, in any order; those outside change nothing.
        zone: the recipient's.

    Returns:
        The mask and the reasons: consent and suppression first, then one per rule that masks an action. A reason's
        ``masked`` counts the message actions that this rule alone masks; ``next_eligible_at`` is the first time, from
        its first masked slot on, at which it alone would not mask: None if never, or if that is further away than the
        messages are known.
    """
    refused = np.zeros((space.slots, len(space.channels)), np.bool_)
    reasons: list[Reason] = []
    if space.messages:
        _refuse(space, campaign, recipient, refused, reasons)
        timeline = _timeline(messages, span(rules, space), zone)
        for rule in rules:
            bound = _bound(rule.applies_to, space.channels, campaign) if _active(rule) else []
            if any(bound):
                _apply(rule, space, bound, timeline, zone, refused, reasons)
    mask = np.ones(space.size, np.bool_)
    mask[: space.messages].reshape(space.shape)[...] = ~refused
    return Eligibility(mask, tuple(reasons))


@dataclass(frozen=True, slots=True, eq=False)
class _Timeline:
    """The messages inside the span, in order of time. ``kinds`` are the distinct (channel, category, campaign) and
    ``kind`` (n,) int64 points into them, so that a selector is asked once a kind and not once a message."""

    all: Counted
    kinds: tuple[tuple[str, str, str | None], ...]
    kind: NDArray[np.int64]

    def counted(self, counts: Selector) -> Counted:
        """The messages that a selector admits."""
        admitted = [
            counts.admits(channel=channel, category=category, campaign_id=campaign_id)
            for channel, category, campaign_id in self.kinds
        ]
        if all(admitted):
            return self.all
        chosen = np.array(admitted)[self.kind]
        return Counted(self.all.at[chosen], self.all.local[chosen])


def _timeline(messages: Iterable[Message], within: tuple[datetime, datetime], zone: Zone) -> _Timeline:
    start, end = within
    kinds: dict[tuple[str, str, str | None], int] = {}
    times: list[tuple[int, int]] = []
    for message in messages:
        since = message.at - _EPOCH if start <= message.at <= end else None
        if since is not None:
            kind = kinds.setdefault((message.channel, message.category, message.campaign_id), len(kinds))
            # Not timestamp(): a float would lose the last microsecond.
            times.append(((since.days * DAY + since.seconds) * MICRO + since.microseconds, kind))
    times.sort()
    rows = np.array(times, np.int64).reshape(-1, 2)
    at = rows[:, 0]
    seconds = at // MICRO
    return _Timeline(Counted(at, seconds + zone.offsets(seconds)), tuple(kinds), rows[:, 1])


def _active(rule: Rule) -> bool:
    return rule.enabled and not rule.archived and not rule.dry_run


def _bound(selector: Selector, channels: tuple[str, ...], campaign: Campaign) -> list[bool]:
    """(C,) whether the rule binds a message of the campaign on each channel."""
    category, campaign_id = campaign.category, campaign.campaign_id
    return [selector.admits(channel=c, category=category, campaign_id=campaign_id) for c in channels]


def _refuse(
    space: ActionSpace, campaign: Campaign, recipient: Recipient, refused: Blocked, reasons: list[Reason]
) -> None:
    """Close the channels that the recipient did not agree to, or refused for the campaign's category."""
    no_consent = [not _agreed(recipient, channel) for channel in space.channels]
    suppressed = [
        any(s.channel in (ANY, channel) and s.category in (ANY, campaign.category) for s in recipient.suppressed)
        for channel in space.channels
    ]
    per_channel = len(space.variants) * space.slots
    for kind, closed in (("consent", no_consent), ("suppression", suppressed)):
        if any(closed):
            refused |= np.array(closed)
            reasons.append(Reason(kind, kind, per_channel * sum(closed)))


def _agreed(recipient: Recipient, channel: str) -> bool:
    consent = recipient.channels.get(channel)
    return channel not in CONSENT_CHANNELS if consent is None else consent.state


def _apply(
    rule: Rule,
    space: ActionSpace,
    bound: list[bool],
    timeline: _Timeline,
    zone: Zone,
    refused: Blocked,
    reasons: list[Reason],
) -> None:
    """Close the slots that one rule closes, on the channels it binds, and add its reason if it closes any."""
    parameters = rule.parameters
    opens: int | None
    if isinstance(parameters, Cap):
        counted = timeline.counted(rule.counts)
        closed = caps.blocked(parameters, counted, space.send_at, space.local)
    else:
        closed = quiet.blocked(parameters, space.local)
    slots = int(np.count_nonzero(closed))
    if not slots:
        return
    first = int(space.send_at[closed.argmax()])
    if isinstance(parameters, Cap):
        opens = caps.first_open(parameters, counted, first, int(space.send_at[-1]), zone)
    else:
        seconds = quiet.first_open(parameters, first, zone)
        opens = None if seconds is None else seconds * MICRO
    refused |= closed[:, None] if all(bound) else closed[:, None] & np.array(bound)
    masked = slots * sum(bound) * len(space.variants)
    reasons.append(Reason(rule.rule_id, rule.kind, masked, None if opens is None else _moment(opens)))


def _moment(us: int) -> datetime | None:
    """The instant, None if it lies outside what ``datetime`` can say (years 1 to 9999)."""
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return None
