"""How records become column values, for every backend: times, codes, and JSON documents.

Times are stored as integer microseconds since 1970-01-01 UTC, words of a fixed vocabulary as small integers, and what
is irregular as JSON (through msgspec, which decodes straight into the frozen dataclasses). The documents that are
stored once a decision or a recipient have short keys and leave out what is at its default.
The numbers and keys in this module are on disk: they may grow, and never change their meaning.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import msgspec

from storage.endpoints import Delivery, Endpoint
from storage.log import Group, Status
from storage.policies import Policy, PolicyStatus, TrainingRun
from storage.records import ApiKey, Attribute, Campaign, Consent, JsonObject, Mode, Recipient, Suppression, Workspace
from storage.rules import (
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    Rule,
    RuleKind,
    RuleParameters,
    Selector,
)
from storage.webhooks import WebhookSource

R = TypeVar("R")
H = TypeVar("H", bound=Hashable)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

STATUS_CODES: Final[dict[Status, int]] = {
    "reserved": 0,
    "claimed": 1,
    "sent": 2,
    "assumed_sent": 3,
    "no_send": 4,
    "withheld": 5,
    "released": 6,
    "revoked": 7,
    "displaced": 8,
    "expired": 9,
}
STATUSES: Final[dict[int, Status]] = {code: word for word, code in STATUS_CODES.items()}
GROUP_CODES: Final[dict[Group, int]] = {"treated": 0, "random": 1, "baseline": 2, "holdout": 3}
GROUPS: Final[dict[int, Group]] = {code: word for word, code in GROUP_CODES.items()}
MODE_CODES: Final[dict[Mode, int]] = {"live": 0, "shadow": 1, "baseline_only": 2, "paused": 3}
MODES: Final[dict[int, Mode]] = {code: word for word, code in MODE_CODES.items()}


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of an aware time; exact. A naive time raises ``TypeError``."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@lru_cache(1024)
def from_micros(micros: int) -> datetime:
    """The aware UTC time of ``to_micros``. Equal times that come shortly after one another are one object: those of a
    batch are, and a decision's own."""
    return _EPOCH + timedelta(microseconds=micros)


def maybe_micros(moment: datetime | None) -> int | None:
    """``to_micros``, with None for None."""
    return None if moment is None else to_micros(moment)


def maybe_time(micros: int | None) -> datetime | None:
    """``from_micros``, with None for None."""
    return None if micros is None else from_micros(micros)


class _Same(Protocol):
    def __call__(self, value: H, /) -> H: ...


#: The first of equal values, instead of the next copy of it: a long log names few variants, zones and masks, and read
#: into memory it needs half the room. (What ``lru_cache`` makes is called as it is, and told its type: some twenty
#: values a row go through it.)
shared: Final = cast(_Same, lru_cache(4096)(lambda value: value))


@lru_cache(8192)
def shared_number(value: int) -> int:
    """``shared`` of whole numbers, which must not meet a bool that is equal to them."""
    return value


#: Longer words are hardly ever those of somebody else.
_WORD: Final = 32


def with_shared_words(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, in which short texts are ``shared``, by names that are: a long log's features take few values,
    and of its names the decoder knows only some again."""
    return {
        intern(name): shared(value) if type(value) is str and len(value) <= _WORD else value
        for name, value in values.items()
    }


def _plain(value: object) -> object:
    """Lets any mapping be written as a JSON object (msgspec itself knows only ``dict``)."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} can't be stored as JSON: {value!r}")


#: Any value that JSON knows, as bytes; dataclasses and msgspec's structs are objects.
encode: Final = msgspec.json.Encoder(enc_hook=_plain).encode


class Document(Generic[R]):
    """One record type as one whole JSON document."""

    def __init__(self, record: type[R]) -> None:
        self._decoder = msgspec.json.Decoder(record)

    def pack(self, record: R) -> bytes:
        """The record as JSON."""
        return encode(record)

    def unpack(self, document: bytes) -> R:
        """The record of ``pack``."""
        return self._decoder.decode(document)


WORKSPACE: Final = Document(Workspace)
API_KEY: Final = Document(ApiKey)
CAMPAIGN: Final = Document(Campaign)
ATTRIBUTE: Final = Document(Attribute)
POLICY: Final = Document(Policy)
TRAINING_RUN: Final = Document(TrainingRun)
ENDPOINT: Final = Document(Endpoint)
DELIVERY: Final = Document(Delivery)
WEBHOOK_SOURCE: Final = Document(WebhookSource)


class _Standing(msgspec.Struct, frozen=True, gc=False):
    status: PolicyStatus = "candidate"
    revision: bool = False


_standing_decoder = msgspec.json.Decoder(_Standing)


def is_judged_or_live(document: bytes) -> bool:
    """Whether a policy of ``POLICY.pack`` is live or no refreshed revision; the rest is skipped unread."""
    told = _standing_decoder.decode(document)
    return told.status == "live" or not told.revision


def pack_object(value: JsonObject) -> bytes | None:
    """A JSON object as bytes; None for an empty one."""
    return encode(value) if value else None


def unpack_object(document: bytes | None) -> JsonObject:
    """The object of ``pack_object``."""
    return {} if document is None else msgspec.json.decode(document, type=dict[str, Any])


def pack_positions(positions: tuple[int, ...]) -> bytes | None:
    """Positions as bytes; None for none."""
    return encode(positions) if positions else None


def unpack_positions(document: bytes | None) -> tuple[int, ...]:
    """The positions of ``pack_positions``."""
    return () if document is None else msgspec.json.decode(document, type=tuple[int, ...])


# --- rules: the parameters are decoded by the kind, since a JSON object does not say which dataclass it was


class _RuleDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    kind: RuleKind
    parameters: msgspec.Raw
    applies_to: Selector = Selector()
    counts: Selector = Selector()
    enabled: bool = True
    dry_run: bool = False
    archived: bool = False
    updated_at: int | None = None


_rule_decoder = msgspec.json.Decoder(_RuleDocument)
_PARAMETERS: Final[dict[RuleKind, type[RuleParameters]]] = {
    "cap": Cap,
    "gap": Cap,
    "quiet_hours": QuietHours,
    "blackout": Blackout,
    "capacity": Capacity,
    "budget": Budget,
    "fatigue": Fatigue,
}
_parameter_decoders: Final[dict[RuleKind, msgspec.json.Decoder[RuleParameters]]] = {
    kind: msgspec.json.Decoder(parameters) for kind, parameters in _PARAMETERS.items()
}


def pack_rule(rule: Rule) -> bytes:
    """A rule without its key and version."""
    return encode(
        _RuleDocument(
            kind=rule.kind,
            parameters=msgspec.Raw(encode(rule.parameters)),
            applies_to=rule.applies_to,
            counts=rule.counts,
            enabled=rule.enabled,
            dry_run=rule.dry_run,
            archived=rule.archived,
            updated_at=maybe_micros(rule.updated_at),
        )
    )


def unpack_rule(workspace_id: str, rule_id: str, version: int, document: bytes, changed_after: int = 0) -> Rule:
    """The rule of ``pack_rule``."""
    body = _rule_decoder.decode(document)
    return Rule(
        workspace_id=workspace_id,
        rule_id=rule_id,
        kind=body.kind,
        parameters=_parameter_decoders[body.kind].decode(body.parameters),
        applies_to=body.applies_to,
        counts=body.counts,
        enabled=body.enabled,
        dry_run=body.dry_run,
        archived=body.archived,
        version=version,
        updated_at=maybe_time(body.updated_at),
        changed_after=changed_after,
    )


# --- recipients


class _Consent(msgspec.Struct, frozen=True, array_like=True):
    state: bool
    source: str | None
    at: int | None


class _Suppression(msgspec.Struct, frozen=True, array_like=True):
    channel: str
    category: str
    source: str | None
    at: int | None


class _RecipientDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    timezone: str | None = msgspec.field(default=None, name="z")
    attributes: dict[str, Any] = msgspec.field(default_factory=dict, name="a")
    channels: dict[str, _Consent] = msgspec.field(default_factory=dict, name="c")
    suppressed: tuple[_Suppression, ...] = msgspec.field(default=(), name="s")
    updated_at: int | None = msgspec.field(default=None, name="u")


#: Consents that say no more than yes or no: nearly all of those that come in bulk.
_PLAIN_CONSENTS = {state: _Consent(state, None, None) for state in (True, False)}


def _consent_row(consent: Consent) -> _Consent:
    if consent.source is None and consent.at is None:
        return _PLAIN_CONSENTS[consent.state]
    return _Consent(consent.state, consent.source, maybe_micros(consent.at))


_recipient_decoder = msgspec.json.Decoder(_RecipientDocument)


def pack_recipient(recipient: Recipient) -> bytes:
    """A recipient without its key and version."""
    return encode(
        _RecipientDocument(
            timezone=recipient.timezone,
            attributes=dict(recipient.attributes),
            channels={channel: _consent_row(consent) for channel, consent in recipient.channels.items()},
            suppressed=tuple(
                [_Suppression(s.channel, s.category, s.source, maybe_micros(s.at)) for s in recipient.suppressed]
            ),
            updated_at=maybe_micros(recipient.updated_at),
        )
    )


def pack_member(value: object, name: str | None = None) -> str:
    """A value in JSON, as it stands in a recipient's document; with a name as one more member: ``,"name":1``."""
    told = value if not isinstance(value, Consent) else _consent_row(value)
    return encode(told).decode() if name is None else f",{encode(name).decode()}:{encode(told).decode()}"


def pack_recipient_members(
    zones: Sequence[str], attributes: Sequence[str], channels: Sequence[str], updated_at: int
) -> list[bytes]:
    """``pack_recipient`` of many without refusals: zones by ``pack_member``, attributes and channels by ``pack_member``
    with names, one after the other; "" = none."""
    fronts = {zone: f'{{"z":{zone},' if zone else "{" for zone in set(zones)}
    end = f'"u":{updated_at}}}'
    rows = zip(map(fronts.__getitem__, zones), attributes, channels, strict=True)
    if all(attributes) and all(channels):
        texts = [f'{front}"a":{{{a[1:]}}},"c":{{{c[1:]}}},{end}' for front, a, c in rows]
    else:
        texts = [
            "".join((front, f'"a":{{{a[1:]}}},' if a else "", f'"c":{{{c[1:]}}},' if c else "", end))
            for front, a, c in rows
        ]
    return "\n".join(texts).encode().split(b"\n")  # a JSON text has no line break


class _Zone(msgspec.Struct, frozen=True, gc=False):
    timezone: str | None = msgspec.field(default=None, name="z")


_zone_decoder = msgspec.json.Decoder(_Zone)


def zone_of_recipient(document: bytes) -> str | None:
    """The zone in a document of ``pack_recipient``; the rest is skipped unread."""
    return _zone_decoder.decode(document).timezone


def unpack_recipient(
    workspace_id: str, recipient_id: str, version: int, document: bytes, changed_after: int = 0
) -> Recipient:
    """The recipient of ``pack_recipient``."""
    body = _recipient_decoder.decode(document)
    return Recipient(
        workspace_id,
        recipient_id,
        version,
        body.timezone,
        body.attributes,
        {channel: Consent(c.state, c.source, maybe_time(c.at)) for channel, c in body.channels.items()},
        tuple(Suppression(s.channel, s.category, s.source, maybe_time(s.at)) for s in body.suppressed),
        maybe_time(body.updated_at),
        changed_after,
    )
