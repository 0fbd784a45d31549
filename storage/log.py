"""The records of what happened: decisions, messages, events, changes.

Set-up (campaigns, recipients, rules) is in ``storage.records``, what was learned in ``storage.policies``. Every time is
an aware UTC ``datetime``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, Literal, TypeVar

from storage.records import JsonObject, Mode
from storage.rules import RiskLimit
from storage.swift import swift

T = TypeVar("T")
Group = Literal["treated", "random", "baseline", "holdout"]
Status = Literal[
    "reserved", "no_send", "withheld", "claimed", "sent", "assumed_sent", "released", "revoked", "displaced", "expired"
]
ChangeKind = Literal["revoked", "displaced", "expired", "promoted", "rolled_back"]

#: Statuses in which a decision holds a place in the recipient's caps.
COUNTED: frozenset[str] = frozenset({"reserved", "claimed", "sent", "assumed_sent"})
#: Statuses in which a message may still be called off.
OPEN: frozenset[str] = frozenset({"reserved", "claimed"})
#: Why a message was assumed sent where its campaign doesn't say so: an event says that it went out, known before the
#: reservation ended (its place was never given back), or once it had expired.
HEARD: Final = "heard"
HEARD_LATE: Final = "heard:late"


@swift
@dataclass(frozen=True, slots=True)
class Message:
    """A message that counts against caps: a reservation, a sent one, or one of another system.

    ``at`` is the planned send time, or the real one once known. ``message_ref`` is the decision's id, or the id that
    another system gave. ``decision_id`` is None for other systems' messages. ``cost`` is in micros of money: what the
    campaign said when the message was decided or, by another system, reported (0 without a campaign). ``known_after``:
    for another system's message, the position (see ``Decision``) of the last decision that was committed before it was
    reported; the store assigns it.
    """

    workspace_id: str
    recipient_id: str
    at: datetime
    message_ref: str
    channel: str
    category: str
    campaign_id: str | None = None
    variant_id: str | None = None
    decision_id: str | None = None
    cost: int = 0
    known_after: int = field(default=0, compare=False)


@swift
@dataclass(frozen=True, slots=True)
class Answer:
    """What a recipient did with the last message of a variant that was sent to them: when each outcome first happened.

    Automated events are no answer.
    """

    campaign_id: str
    variant_id: str
    sent_at: datetime
    outcomes: Mapping[str, datetime] = field(default_factory=dict)


@swift
@dataclass(frozen=True, slots=True)
class Happening:
    """Something in a recipient's past: a message that went out (``kind`` "sent") or an event (``kind`` its type).

    ``ref`` is the message's reference or the event's id. Channel, campaign and variant are those of the message, or of
    the decision that the event answers.
    """

    at: datetime
    ref: str
    kind: str
    channel: str | None = None
    campaign_id: str | None = None
    variant_id: str | None = None
    properties: JsonObject = field(default_factory=dict)


@swift
@dataclass(frozen=True, slots=True)
class Reason:
    """Why actions were masked: which rule, how many actions, when the first of them may open again.

    ``dry_run``: the rule only reports, nothing was masked. ``note`` says in words what the numbers don't ("limit 0:
    never").
    """

    rule_id: str
    kind: str
    masked: int
    next_eligible_at: datetime | None = None
    dry_run: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class ShadowChoice:
    """What the policy would have chosen in shadow mode."""

    variant_id: str | None
    channel: str | None
    send_at: datetime | None
    propensity: float
    policy_id: str


@swift
@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision was computed from, beside the campaign version and the policy: enough to replay it.

    ``context`` is what the model saw (recipient attributes overlaid with the request's context, before encoding; under
    ``@history`` the recipient's last messages and events, in the form of ``optimizer.model.history``);
    ``effects`` are the recipient effects used; ``variants`` and ``channels`` are the factors of the action space in
    order; ``attempt`` counts draws (a re-draw after the eligible set changed has attempt 1, 2, …).
    ``cost`` is that of the chosen message, in micros; ``unanswered`` the recipient's count that adaptive caps used
    (None = no such cap). ``limits`` are the fatigue rules that bound the policy; ``risks`` the predicted chance of each
    limited outcome for the chosen action, by component of the policy's mixture (None = a component without a model).
    ``displaced`` are the decisions whose place this one took. ``erased``: the person asked to be forgotten, so context
    and effects are gone and nothing can be replayed or learned from it; it still counts. ``floored``: a cold start
    around the campaign's baseline kept the floor, as it does since there is this field.
    """

    window_start: datetime
    window_end: datetime
    variants: tuple[str, ...]
    channels: tuple[str, ...]
    timezone: str
    timezone_source: Literal["recipient", "campaign", "default"]
    context: JsonObject = field(default_factory=dict)
    effects: JsonObject = field(default_factory=dict)
    attempt: int = 0
    immediate: bool = False
    shadow: ShadowChoice | None = None
    overridden_rules: tuple[str, ...] = ()
    cost: int = 0
    unanswered: int | None = None
    limits: tuple[RiskLimit, ...] = ()
    risks: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    displaced: tuple[str, ...] = ()
    erased: bool = False
    floored: bool = False


@swift
@dataclass(frozen=True, slots=True)
class Decision:
    """One choice, as logged. ``propensity`` is exact under the policy, this eligible set and this group.

    ``action`` is the index in the action space (None when withheld); ``eligible`` is the mask of that space as
    ``numpy.packbits`` bytes, ``actions`` its length and ``eligible_actions`` its count of ones.
    ``propensity`` is None only for imported history that does not know it.

    ``position`` is the order of commits among the workspace's decisions, assigned by the store. Whatever else changes
    what counts notes the position of the last decision that was committed before it: ``sent_after`` of the
    confirm, or of what made an expired message count until then, ``closed_after`` of the last closing (None = none
    yet, or noted by a version that didn't). ``counted_at`` is when, by our clock, the message last came to count as
    sent, confirmed or assumed, while ``sent_at`` is the sender's word (None likewise, or it was logged as sent).
    ``joined_at`` and ``joined_after`` are of the confirm that events had waited for (None likewise, or none had).
    """

    workspace_id: str
    decision_id: str
    request_id: str
    request_hash: bytes
    campaign_id: str
    campaign_version: int
    recipient_id: str
    status: Status
    group: Group
    mode: Mode
    decided_at: datetime
    propensity: float | None
    policy_id: str
    action: int | None
    actions: int
    eligible_actions: int
    eligible: bytes
    snapshot: Snapshot
    variant_id: str | None = None
    channel: str | None = None
    category: str = "marketing"
    send_at: datetime | None = None
    reasons: tuple[Reason, ...] = ()
    metadata: JsonObject = field(default_factory=dict)
    claimed_at: datetime | None = None
    sent_at: datetime | None = None
    provider: str | None = None
    message_id: str | None = None
    closed_at: datetime | None = None
    close_reason: str | None = None
    imported: bool = False
    position: int = field(default=0, compare=False)
    sent_after: int | None = field(default=None, compare=False)
    closed_after: int | None = field(default=None, compare=False)
    counted_at: datetime | None = None
    joined_at: datetime | None = None
    joined_after: int | None = field(default=None, compare=False)


@swift
@dataclass(frozen=True, slots=True)
class Named:
    """What an event needs to know of the decision that it names. ``at`` is when its message went out or is to;
    ``timezone`` is that of the decision, ``erased`` as of its snapshot."""

    workspace_id: str
    decision_id: str
    recipient_id: str
    campaign_id: str
    status: Status
    at: datetime | None
    timezone: str
    erased: bool = False

    @classmethod
    def of(cls, decision: Decision) -> Named:
        """Of a decision that is known whole."""
        d = decision
        at = d.sent_at or d.send_at
        zone, erased = d.snapshot.timezone, d.snapshot.erased
        return cls(d.workspace_id, d.decision_id, d.recipient_id, d.campaign_id, d.status, at, zone, erased)


@dataclass(frozen=True, slots=True)
class Reply:
    """An event that names its decision, in short. ``told`` by a vendor: its label may yet change."""

    type: str
    automated: bool
    told: bool


@swift
@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as reported. The decision it belongs to is ``decision_id``, known or still awaited.

    ``matched`` is False while that decision (or the confirm that names ``message_id``) has not been seen.
    ``recipient_id`` alone is for outcomes that need no message; such an event counts for every open decision.
    ``known_after`` is the position (see ``Decision``) of the last decision that was committed before it was reported.

    ``confidence`` is how sure it is that a machine did it, from 0 to 1, and ``reason`` what speaks for that; None and
    "" where nobody judged it and ``automated`` is what the reporter said. Labels change as more is known of a decision:
    ``flipped_after`` are the positions at which ``automated`` changed to its opposite, in order.
    """

    workspace_id: str
    event_id: str
    type: str
    occurred_at: datetime
    received_at: datetime
    matched: bool
    decision_id: str | None = None
    recipient_id: str | None = None
    campaign_id: str | None = None
    provider: str | None = None
    message_id: str | None = None
    value: float | None = None
    automated: bool = False
    properties: JsonObject = field(default_factory=dict)
    known_after: int = field(default=0, compare=False)
    confidence: float | None = None
    reason: str = ""
    flipped_after: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the change feed. Positions of a workspace have no gaps that are filled later.

    Of policies ``policy_id`` is what serves from then on, and ``replaced_id`` what the feed had named as serving until
    then; None in entries of versions that did not note it.
    """

    workspace_id: str
    position: int
    kind: ChangeKind
    at: datetime
    decision_id: str | None = None
    campaign_id: str | None = None
    policy_id: str | None = None
    detail: str = ""
    replaced_id: str | None = None


@swift
@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """One logged decision with every event that may count for it: the raw material of rewards."""

    decision: Decision
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A slice of a list; ``cursor`` continues it, None at its end."""

    items: tuple[T, ...]
    cursor: str | None


def items_of(page_of: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """The items of a whole list, page after page. ``page_of`` takes a cursor, None for the first page; a page is asked
    for when the one before it was used up."""
    cursor: str | None = None
    while True:
        page = page_of(cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
