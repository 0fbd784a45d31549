"""How a decision's snapshot, reasons and metadata become one JSON document: all of a decision that no query asks for.

It is stored once a decision, so its keys are short and what is at its default is left out. Keys are on disk: they may
be added, with a default for the documents that lack them, and never change their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from storage.codec import encode, from_micros, maybe_micros, maybe_time, shared, to_micros, with_shared_words
from storage.log import Reason, ShadowChoice, Snapshot
from storage.records import JsonObject
from storage.rules import RiskLimit
from storage.unread import Unread


class _Limit(msgspec.Struct, frozen=True, array_like=True):
    rule_id: str
    outcome: str
    max_risk: float
    channels: tuple[str, ...] | None


class _Shadow(msgspec.Struct, frozen=True, array_like=True):
    variant_id: str | None
    channel: str | None
    send_at: int | None
    propensity: float
    policy_id: str


class _DecisionDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    window: tuple[int, int] = msgspec.field(name="w")
    variants: tuple[str, ...] = msgspec.field(name="v")
    channels: tuple[str, ...] = msgspec.field(name="c")
    timezone: str = msgspec.field(name="z")
    timezone_source: Literal["recipient", "campaign", "default"] = msgspec.field(default="recipient", name="s")
    context: dict[str, Any] = msgspec.field(default_factory=dict, name="x")
    effects: dict[str, Any] = msgspec.field(default_factory=dict, name="e")
    attempt: int = msgspec.field(default=0, name="n")
    immediate: bool = msgspec.field(default=False, name="i")
    shadow: _Shadow | None = msgspec.field(default=None, name="h")
    overridden_rules: tuple[str, ...] = msgspec.field(default=(), name="o")
    #: Each: rule, kind, masked, when the first opens; then dry run and note, unless both are at their default.
    reasons: tuple[tuple[Any, ...], ...] = msgspec.field(default=(), name="r")
    metadata: dict[str, Any] = msgspec.field(default_factory=dict, name="m")
    cost: int = msgspec.field(default=0, name="p")
    unanswered: int | None = msgspec.field(default=None, name="u")
    limits: tuple[_Limit, ...] = msgspec.field(default=(), name="l")
    risks: dict[str, tuple[float | None, ...]] = msgspec.field(default_factory=dict, name="k")
    displaced: tuple[str, ...] = msgspec.field(default=(), name="d")
    erased: bool = msgspec.field(default=False, name="g")
    floored: bool = msgspec.field(default=False, name="f")


_NO_TEXT = msgspec.Raw(b"")


class _ReadDocument(_DecisionDocument, frozen=True):
    """The same as it is read: effects stay a text."""

    effects: msgspec.Raw = msgspec.field(default=_NO_TEXT, name="e")  # type: ignore[assignment]


_decision_decoder = msgspec.json.Decoder(_ReadDocument)


class _Outline(msgspec.Struct, frozen=True, gc=False):
    """The parts of a document that ``outline`` tells; the rest is skipped unread."""

    window: tuple[int, int] = msgspec.field(name="w")
    timezone: str = msgspec.field(name="z")
    immediate: bool = msgspec.field(default=False, name="i")
    reasons: tuple[tuple[Any, ...], ...] = msgspec.field(default=(), name="r")
    cost: int = msgspec.field(default=0, name="p")


class _Whose(msgspec.Struct, frozen=True, gc=False):
    """The parts of a document that ``zone_of_decision`` tells."""

    timezone: str = msgspec.field(name="z")
    erased: bool = msgspec.field(default=False, name="g")


_whose_decoder = msgspec.json.Decoder(_Whose)
_outline_decoder = msgspec.json.Decoder(_Outline)


def _pack_shadow(choice: ShadowChoice | None) -> _Shadow | None:
    if choice is None:
        return None
    send_at = maybe_micros(choice.send_at)
    return _Shadow(choice.variant_id, choice.channel, send_at, choice.propensity, choice.policy_id)


def _unpack_shadow(choice: _Shadow | None) -> ShadowChoice | None:
    if choice is None:
        return None
    send_at = maybe_time(choice.send_at)
    return ShadowChoice(choice.variant_id, choice.channel, send_at, choice.propensity, choice.policy_id)


def _pack_reason(reason: Reason) -> tuple[Any, ...]:
    always = (reason.rule_id, reason.kind, reason.masked, maybe_micros(reason.next_eligible_at))
    return (*always, reason.dry_run, reason.note) if reason.dry_run or reason.note else always


def _unpack_reason(parts: tuple[Any, ...]) -> Reason:
    rule_id, kind, masked, next_eligible_at, *rest = parts
    return Reason(rule_id, kind, masked, maybe_time(next_eligible_at), *rest)


def pack_detail(snapshot: Snapshot, reasons: tuple[Reason, ...], metadata: JsonObject) -> bytes:
    """A decision's snapshot, reasons and metadata as one document."""
    return encode(
        _DecisionDocument(
            (to_micros(snapshot.window_start), to_micros(snapshot.window_end)),
            snapshot.variants,
            snapshot.channels,
            snapshot.timezone,
            snapshot.timezone_source,
            dict(snapshot.context),
            dict(snapshot.effects),
            snapshot.attempt,
            snapshot.immediate,
            _pack_shadow(snapshot.shadow),
            snapshot.overridden_rules,
            tuple(_pack_reason(reason) for reason in reasons),
            dict(metadata),
            snapshot.cost,
            snapshot.unanswered,
            tuple(_Limit(limit.rule_id, limit.outcome, limit.max_risk, limit.channels) for limit in snapshot.limits),
            dict(snapshot.risks),
            snapshot.displaced,
            snapshot.erased,
            snapshot.floored,
        )
    )


@dataclass(frozen=True)
class Details:
    """``pack_detail`` of decisions that differ in window and context alone, without reasons and metadata: the texts
    around these two."""

    front: str
    middle: str
    end: str
    without_context: str
    window: int

    @classmethod
    def of(cls, snapshot: Snapshot) -> Details:
        """Of decisions with this snapshot; their windows are as long as its own."""
        length = to_micros(snapshot.window_end) - to_micros(snapshot.window_start)
        at = replace(snapshot, window_start=from_micros(0), window_end=from_micros(length))
        mark = f"[0,{length}]"
        front, rest = pack_detail(replace(at, context={"@": 0}), (), {}).decode().split(mark, 1)
        middle, end = rest.split('{"@":0}', 1)
        bare = pack_detail(replace(at, context={}), (), {}).decode().split(mark, 1)[1]
        return cls(front, middle, end, bare, length)

    def pack(self, start: int, context: str) -> bytes:
        """The document of one with this window (its start in microseconds) and context (its members in JSON)."""
        rest = f"{self.middle}{{{context}}}{self.end}" if context else self.without_context
        return f"{self.front}[{start},{start + self.window}]{rest}".encode()


#: What most decisions have: one object for all.
_NONE: JsonObject = {}
_NO_RISKS: Mapping[str, tuple[float | None, ...]] = {}


def unpack_detail(document: bytes) -> tuple[Snapshot, tuple[Reason, ...], JsonObject]:
    """The parts of ``pack_detail``."""
    body = _decision_decoder.decode(document)
    snapshot = Snapshot(
        from_micros(body.window[0]),
        from_micros(body.window[1]),
        shared(body.variants),
        shared(body.channels),
        shared(body.timezone),
        shared(body.timezone_source),
        with_shared_words(body.context) if body.context else _NONE,
        _NONE if body.effects is _NO_TEXT else Unread(bytes(body.effects)),
        body.attempt,
        body.immediate,
        _unpack_shadow(body.shadow),
        body.overridden_rules,
        body.cost,
        body.unanswered,
        tuple(RiskLimit(limit.rule_id, limit.outcome, limit.max_risk, limit.channels) for limit in body.limits),
        body.risks or _NO_RISKS,
        body.displaced,
        body.erased,
        body.floored,
    )
    return snapshot, shared(tuple(_unpack_reason(parts) for parts in body.reasons)), body.metadata or _NONE


def outlines(
    documents: Sequence[bytes],
) -> tuple[list[int], list[str], list[tuple[tuple[str, str, int, bool], ...]], list[int]]:
    """Of many documents: the latest moments to plan for (microseconds), the zones, what masked actions (see
    ``storage.columns``), and what the messages cost (micros)."""
    bodies = list(map(_outline_decoder.decode, documents))
    return (
        [body.window[0] if body.immediate else body.window[1] for body in bodies],
        [body.timezone for body in bodies],
        [tuple(map(_masked, body.reasons)) if body.reasons else () for body in bodies],
        [body.cost for body in bodies],
    )


def _masked(parts: tuple[Any, ...]) -> tuple[str, str, int, bool]:
    return parts[0], parts[1], parts[2], len(parts) > 4 and parts[4]


def zone_of_decision(document: bytes) -> tuple[str, bool]:
    """The zone in a document of ``pack_detail``, and whether its person was erased; the rest is skipped unread."""
    body = _whose_decoder.decode(document)
    return body.timezone, body.erased
