"""What callers ask for, validated at the border and trusted from there on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, get_args

from optimizer.errors import Invalid
from storage.records import Consent, JsonObject
from storage.swift import swift

#: How much an event refuses: messages of its message's category on its channel, or whatever comes on that channel.
Breadth = Literal["category", "channel"]
#: What is said of a context's name that begins with ``@``, as those do that are added here.
NO_OWN_NAME: Final = "names that begin with '@' are Sendtide's own; allowed: any other"
BREADTHS: Final[tuple[Breadth, ...]] = get_args(Breadth)


@swift
@dataclass(frozen=True, slots=True)
class RecipientPatch:
    """What a request tells of its recipient: it updates the stored one, but never loosens a recorded refusal."""

    timezone: str | None = None
    attributes: JsonObject = field(default_factory=dict)
    channels: Mapping[str, Consent] = field(default_factory=dict)


@swift
@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """One question: what to send to this recipient in this window. Times are aware UTC.

    ``window`` None = from now for the campaign's ``default_window_hours``; ``variants`` and ``channels`` restrict the
    campaign's own (None = all active ones); ``immediate`` asks for now, one slot.
    """

    campaign_id: str
    recipient_id: str
    request_id: str | None = None
    window: tuple[datetime, datetime] | None = None
    context: JsonObject = field(default_factory=dict)
    variants: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    metadata: JsonObject = field(default_factory=dict)
    recipient: RecipientPatch | None = None
    immediate: bool = False
    preview: bool = False
    override_rules: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Who is scored: a stored recipient, what is told inline, or both (inline wins; nothing of it is stored)."""

    recipient_id: str | None = None
    context: JsonObject = field(default_factory=dict)
    recipient: RecipientPatch | None = None


@swift
@dataclass(frozen=True, slots=True)
class EventInput:
    """One reported event. It is correlated by the first that is given of decision_id, request_id, provider +
    message_id, recipient_id. ``event_id`` None = derived from the content, so that a repetition is recognised.
    ``hard`` and ``refuses`` say how much an opt-out refuses (``service.optout``)."""

    type: str
    occurred_at: datetime
    event_id: str | None = None
    decision_id: str | None = None
    request_id: str | None = None
    provider: str | None = None
    message_id: str | None = None
    recipient_id: str | None = None
    campaign_id: str | None = None
    value: float | None = None
    automated: bool = False
    hard: bool = True
    refuses: Breadth | None = None
    properties: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """What an event tells of its recipient. ``private`` names attributes that say who someone is, not what they are
    like: the model is kept from them unless they are declared otherwise."""

    patch: RecipientPatch
    private: frozenset[str] = frozenset()


@swift
@dataclass(frozen=True, slots=True)
class VendorEvent(EventInput):
    """An event that a vendor's webhook reported, with its own ``words`` for it: they are kept, so that it can be judged
    anew. It may name neither decision nor message; then it is kept for itself. ``opted_out``: a failure since the
    person had unsubscribed."""

    vendor: str = ""
    words: JsonObject = field(default_factory=dict)
    opted_out: bool = False


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A token that may be used for one event only in this installation, whichever source it comes to: two may have the
    key of one account. Whose, which, for what, and until when that must be remembered."""

    vendor: str
    token: str
    used_for: str
    until: datetime


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that was refused: its place in the envelope, a code for programs, a sentence for people, and by field
    everything that is wrong with it."""

    index: int
    code: str
    detail: str
    errors: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, index: int, error: Invalid) -> RejectedEvent:
        """The event at this place, refused for this."""
        return cls(index, error.code, error.detail, error.errors)


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of an envelope of events. Unmatched ones are among the accepted."""

    accepted: int
    duplicates: int
    unmatched: int
    rejected: tuple[RejectedEvent, ...]
