"""From a request to a logged decision: ids, hashes, windows and the record itself. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec
import numpy as np

from optimizer.bandit.capacity import micros
from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.errors import Conflict, Invalid, SendtideError
from optimizer.service.choose import Drawn, Plan, Situation, named
from optimizer.service.ids import decision_id, derived_many, fresh
from optimizer.service.requests import DecisionRequest
from storage.log import COUNTED, Decision, Message, Reason, ShadowChoice, Snapshot, Status
from storage.records import Campaign
from storage.swift import swift

#: Bytes of the hash of a request, and of that of a batch.
_HASH = 16


@swift
@dataclass(frozen=True, slots=True)
class Ask:
    """A request with its ids and the hash that tells a repetition from another request.

    The hash of a row that is named by its batch's key is followed by that of the batch. ``repeatable``: its id is the
    caller's or follows from a run, so it may have been answered before.
    """

    request: DecisionRequest
    request_id: str
    decision_id: str
    request_hash: bytes
    repeatable: bool


def named_request(salt: bytes, workspace_id: str, request: DecisionRequest, default_id: str | None = None) -> Ask:
    """Names a request; one without a ``request_id`` gets the default, or else a random one."""
    known = request.request_id or default_id
    request_id = known or fresh("req")
    name = decision_id(salt, workspace_id, request_id)
    return Ask(request, request_id, name, _content_hash(request), repeatable=known is not None)


def named_rows(
    salt: bytes, workspace_id: str, run_id: str, requests: Sequence[DecisionRequest | SendtideError]
) -> list[Ask | SendtideError]:
    """Names the rows of a run; one without a ``request_id`` gets that of its place in the run."""
    unnamed = [
        (row.campaign_id.encode(), row.recipient_id.encode(), str(number).encode())
        for number, row in enumerate(requests)
        if isinstance(row, DecisionRequest) and not row.request_id
    ]
    return _all_named(salt, workspace_id, run_id, requests, unnamed)


def named_batch(
    salt: bytes, workspace_id: str, key: str, requests: Sequence[DecisionRequest | SendtideError]
) -> list[Ask | SendtideError]:
    """Names the rows of a whole batch under its idempotency key.

    One without a ``request_id`` is named by its place alone, so that whatever another batch says there meets it, and
    its hash tells of the whole batch, since an equal row in another batch is no repetition.
    """
    unnamed = [
        (str(number).encode(),)
        for number, row in enumerate(requests)
        if isinstance(row, DecisionRequest) and not row.request_id
    ]
    rows = _all_named(salt, workspace_id, key, requests, unnamed)
    batch = _batch_hash(rows)
    return [
        row
        if isinstance(row, SendtideError) or row.request.request_id
        else replace(row, request_hash=row.request_hash + batch)
        for row in rows
    ]


def _all_named(
    salt: bytes,
    workspace_id: str,
    run_id: str,
    requests: Sequence[DecisionRequest | SendtideError],
    unnamed: Sequence[Sequence[bytes]],
) -> list[Ask | SendtideError]:
    """Names rows; ``unnamed`` says of each that has no ``request_id`` what names it within the run."""
    places = iter(derived_many(salt, (workspace_id, run_id), unnamed))
    ids = [row.request_id or f"req{next(places)}" for row in requests if isinstance(row, DecisionRequest)]
    names = iter(zip(ids, derived_many(salt, (workspace_id,), [(one.encode(),) for one in ids]), strict=True))
    return [
        row if isinstance(row, SendtideError) else _named(row, *next(names))  # decisions' ids come without their prefix
        for row in requests
    ]


def _batch_hash(rows: Sequence[Ask | SendtideError]) -> bytes:
    """What tells a batch from another: its rows in their order, and the ids that they name. What can't be read is the
    same wherever it stands: nothing is recorded of it."""
    digest = hashlib.blake2b(digest_size=_HASH)
    for row in rows:
        told = b"" if isinstance(row, SendtideError) else row.request_hash + (row.request.request_id or "").encode()
        digest.update(len(told).to_bytes(4, "big") + told)
    return digest.digest()


def _named(request: DecisionRequest, request_id: str, bare: str) -> Ask:
    return Ask(request, request_id, f"dec{bare}", _content_hash(request), repeatable=True)


def _content_hash(request: DecisionRequest) -> bytes:
    """What tells a request from another under the same id: all that it says but that id and whether it is a preview."""
    told = request
    if request.request_id is not None or request.preview:
        told = DecisionRequest(
            campaign_id=request.campaign_id,
            recipient_id=request.recipient_id,
            window=request.window,
            context=request.context,
            variants=request.variants,
            channels=request.channels,
            metadata=request.metadata,
            recipient=request.recipient,
            immediate=request.immediate,
            override_rules=request.override_rules,
        )
    content = msgspec.json.encode(told, order="deterministic")
    return hashlib.blake2b(content, digest_size=_HASH).digest()


def request_window(request: DecisionRequest, default_hours: float, now: datetime) -> tuple[datetime, datetime]:
    """The window that is decided over: the request's, clipped to now, else the campaign's default from now.

    Raises:
        Invalid: it is over; or the message is to go out now, and the window begins later than clocks differ.
    """
    start, end = request.window or (now, now + timedelta(hours=default_hours))
    if end <= now:
        raise Invalid.field("window.end", f"{end.isoformat()} is in the past; allowed: after {now.isoformat()}")
    if request.immediate and start > now + CLOCK_SKEW:
        allowed = f"at most {CLOCK_SKEW.total_seconds():.0f} s after now ({now.isoformat()}), or without immediate"
        raise Invalid.field("window.start", f"{start.isoformat()} is ahead; allowed with immediate: {allowed}")
    return max(start, now), end


def answered(decision: Decision, ask: Ask) -> Decision:
    """A stored decision as the answer to a repetition; ``Conflict`` when the request is another one, or can't be
    compared since its person was erased."""
    if decision.snapshot.erased:
        raise Conflict(f"request_id {ask.request_id!r} was about a person who was erased", code="erased")
    if not is_repetition(decision, ask):
        raise Conflict(
            f"request_id {ask.request_id!r} was used for another request",
            code="request_id_reused",
            errors={"request_id": [f"{ask.request_id!r} belongs to {decision.decision_id} with another body"]},
        )
    return decision


def is_repetition(decision: Decision, ask: Ask) -> bool:
    """Whether the same was asked for before; a row of a batch may also be asked for alone, by the id it was given."""
    stored, asked = decision.request_hash, ask.request_hash
    batches = stored[_HASH:], asked[_HASH:]
    return stored[:_HASH] == asked[:_HASH] and (batches[0] == batches[1] or not all(batches))


def message_of(decision: Decision) -> Message | None:
    """The message that a decision holds against caps, capacity and budget (None = none): at its real time once sent,
    else at its planned one."""
    if decision.send_at is None or decision.channel is None or decision.status not in COUNTED:
        return None
    return Message(
        workspace_id=decision.workspace_id,
        recipient_id=decision.recipient_id,
        at=decision.sent_at or decision.send_at,
        message_ref=decision.decision_id,
        channel=decision.channel,
        category=decision.category,
        campaign_id=decision.campaign_id,
        variant_id=decision.variant_id,
        decision_id=decision.decision_id,
        cost=decision.snapshot.cost,
    )


@swift
@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is true at the commit beside the choice: the recipient's count of unanswered messages where a cap adapts to
    it (None = none does), and whose place the decision takes."""

    recipient_id: str
    unanswered: int | None = None
    displaced: tuple[str, ...] = ()


def decision_record(ask: Ask, s: Situation, p: Plan, drawn: Drawn, at: Circumstances, attempt: int) -> Decision:
    """The log's record of a draw."""
    variant, channel, send_at = (None, None, None) if drawn.action is None else named(p.space, drawn.action)
    return Decision(
        workspace_id=s.campaign.workspace_id,
        decision_id=ask.decision_id,
        request_id=ask.request_id,
        request_hash=ask.request_hash,
        campaign_id=s.campaign.campaign_id,
        campaign_version=s.campaign.version,
        recipient_id=at.recipient_id,
        status=_status(drawn, send_at),
        group=s.group,
        mode=s.mode,
        decided_at=s.decided_at,
        propensity=drawn.propensity,
        policy_id=drawn.policy_id,
        action=drawn.action,
        actions=p.space.size,
        eligible_actions=int(np.count_nonzero(p.mask)),
        eligible=np.packbits(p.mask).tobytes(),
        snapshot=_snapshot(s, p, drawn, at, attempt, cost_of(s.campaign, variant, channel)),
        variant_id=variant,
        channel=channel,
        category=s.campaign.category,
        send_at=send_at,
        reasons=(*_reasons(s, p), *drawn.reasons),
        metadata=ask.request.metadata,
    )


def kept_record(decision: Decision, s: Situation, p: Plan, shadow: ShadowChoice | None, at: Circumstances) -> Decision:
    """A draw that stands although the state moved under it, since its set did not: with what is true of it now."""
    snapshot = replace(
        decision.snapshot,
        shadow=shadow,
        overridden_rules=p.overridden,
        unanswered=at.unanswered,
        displaced=at.displaced,
    )
    drawn = tuple(one for one in decision.reasons if one.kind == "fatigue")  # the policy's, which drew it
    return replace(decision, reasons=(*_reasons(s, p), *drawn), snapshot=snapshot)


def _reasons(s: Situation, p: Plan) -> tuple[Reason, ...]:
    if s.silenced is not None:
        return (Reason(rule_id="mode", kind=s.silenced, masked=p.space.messages), *p.reasons)
    return p.reasons


def _status(drawn: Drawn, send_at: datetime | None) -> Status:
    if drawn.action is None:
        return "withheld"
    return "no_send" if send_at is None else "reserved"


def cost_of(campaign: Campaign, variant: str | None, channel: str | None) -> int:
    """What one message costs, in micros; 0 for none."""
    if variant is None or channel is None:
        return 0
    return micros(campaign, variant, channel)


def _snapshot(s: Situation, p: Plan, drawn: Drawn, at: Circumstances, attempt: int, cost: int) -> Snapshot:
    return Snapshot(
        window_start=s.window[0],
        window_end=s.window[1],
        variants=s.variants,
        channels=s.channels,
        timezone=s.zone.name,
        timezone_source=s.zone_source,
        context=s.context,
        effects=s.effects,
        attempt=attempt,
        immediate=s.immediate,
        shadow=drawn.shadow,
        overridden_rules=p.overridden,
        cost=cost,
        unanswered=at.unanswered,
        limits=s.limits,
        risks=drawn.risks,
        displaced=at.displaced,
        floored=s.floored and s.campaign.cold_start == "around_baseline",
    )
