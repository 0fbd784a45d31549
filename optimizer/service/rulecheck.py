"""Reserved messages that break the rules as they stand now.

A rule binds what is reserved after it. So a new or tighter rule leaves reservations behind that it would not have
allowed, and so does a recipient who moved or withdrew a consent. This report finds them; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.eligibility import Eligibility, Question, eligible_many, longest_reach, needs_unanswered
from optimizer.bandit.localtime import zone
from optimizer.errors import Invalid, NotFound
from optimizer.service import recipients as people
from optimizer.service.excess import CHUNK, OPEN_STATUSES, Overfull, excess
from optimizer.service.framing import resolve_zone
from optimizer.service.holidays import holidays_of
from optimizer.service.wiring import Services
from storage import usage
from storage.cursors import decode_cursor, encode_cursor
from storage.log import Decision, Message, Page, Reason, Status
from storage.port import Reader
from storage.records import Campaign, Channel, Recipient, Variant
from storage.rules import Rule

#: How many reserved messages one call judges at most: about a second's work.
SCAN = 5000
_LISTING = "breaches"


@dataclass(frozen=True, slots=True)
class Breach:
    """A reserved, not yet sent message that breaks one rule (``consent`` and ``suppression`` stand for rules too).

    ``next_eligible_at`` is when that rule alone would let it out; None = not known, or never.
    """

    decision_id: str
    recipient_id: str
    campaign_id: str
    channel: str
    status: Status
    send_at: datetime
    rule_id: str
    kind: str
    detail: str
    dry_run: bool = False
    next_eligible_at: datetime | None = None


def breaches(
    services: Services, workspace_id: str, rule_id: str | None = None, *, limit: int, cursor: str | None = None
) -> Page[Breach]:
    """A page of breaches, the newest decisions first, a message once for each rule that it breaks.

    A message is judged as if it were reserved now: at its planned time, beside the recipient's other messages, itself
    taken out. Of a capacity or budget the last reserved ones of an overfull period are named (see ``excess``). A
    variant's conditions (``requires``) and ``fatigue`` are matters of the decision and never broken afterwards.

    Args:
        services: the wired service.
        workspace_id: whose.
        rule_id: only this rule, even if it is a dry run; None = every rule that acts, consent and suppression.
        limit: how many at most. A page may hold fewer, even none, before the end.
        cursor: that of the page before.

    Raises:
        NotFound: there is no such rule, or it is archived.
        ValueError: the cursor is none of this list.
    """
    place, skip, at = _place(cursor)
    found: list[Breach] = []
    judged = 0
    with services.store.read() as reader:
        bench = _bench(reader, workspace_id, rule_id, services.clock())
        while place < len(OPEN_STATUSES) and judged < SCAN:
            listed = {"cursor": at, "status": OPEN_STATUSES[place]}
            page = reader.decisions(workspace_id, limit=CHUNK, **listed)
            for number, broken in enumerate(bench.judge(reader, page.items)):
                room = limit - len(found)
                if len(broken) - skip > room:
                    if number:  # the place right before this decision
                        at = reader.decisions(workspace_id, limit=number, **listed).cursor
                    return Page((*found, *broken[skip : skip + room]), _cursor(place, skip + room, at))
                found += broken[skip:]
                skip = 0
            judged += len(page.items)
            place, at = (place, page.cursor) if page.cursor is not None else (place + 1, None)
    return Page(tuple(found), _cursor(place, 0, at) if place < len(OPEN_STATUSES) else None)


def _cursor(place: int, skip: int, at: str | None) -> str:
    return encode_cursor(_LISTING, (place, skip, at or ""))


def _place(cursor: str | None) -> tuple[int, int, str | None]:
    """Where to go on: which status, how many breaches of the first decision were told, the cursor of the decisions."""
    if cursor is None:
        return 0, 0, None
    place, skip, at = decode_cursor(_LISTING, cursor, (int, int, str))
    if int(place) not in range(len(OPEN_STATUSES)) or int(skip) < 0:
        raise ValueError(f"{cursor[:80]!r} is not a cursor that this list gave")
    return int(place), int(skip), str(at) or None


@dataclass(frozen=True)
class _Bench:
    """What messages are judged by: the rules of one recipient, and what is beyond shared limits."""

    workspace_id: str
    rules: tuple[Rule, ...]
    only: bool
    beyond: Mapping[str, tuple[Overfull, ...]]
    now: datetime

    def judge(self, reader: Reader, decisions: Sequence[Decision]) -> list[list[Breach]]:
        """The breaches of each decision, in its place."""
        questions = self._questions(reader, decisions)
        return [
            [
                *(_broken(d, r.rule_id, r.kind, _told(r), r) for r in answer.reasons if self._speaks(r)),
                *(_broken(d, o.rule.rule_id, o.rule.kind, o.told, dry_run=o.rule.dry_run) for o in self._over(d)),
            ]
            for d, answer in zip(decisions, self._answers(questions), strict=True)
        ]

    def _answers(self, questions: Sequence[Question]) -> list[Eligibility]:
        return eligible_many(questions, self.rules) if questions else []

    def _over(self, decision: Decision) -> tuple[Overfull, ...]:
        return self.beyond.get(decision.decision_id, ())

    def _speaks(self, reason: Reason) -> bool:
        return not self.only or any(r.rule_id == reason.rule_id and r.kind == reason.kind for r in self.rules)

    def _questions(self, reader: Reader, decisions: Sequence[Decision]) -> list[Question]:
        ids = sorted({d.recipient_id for d in decisions})
        stored = reader.recipients(self.workspace_id, ids)
        unanswered = reader.unanswered(self.workspace_id, ids) if needs_unanswered(self.rules) else {}
        messages = self._messages(reader, decisions, ids)
        campaigns: dict[str, Campaign | None] = {}
        questions = []
        for d in decisions:
            if d.campaign_id not in campaigns:
                campaigns[d.campaign_id] = reader.campaign(self.workspace_id, d.campaign_id)
            recipient = stored.get(d.recipient_id, people.unknown(self.workspace_id, d.recipient_id))
            others = [m for m in messages.get(d.recipient_id, ()) if m.decision_id != d.decision_id]
            asked = question_of(d, campaigns[d.campaign_id], recipient, others)
            days = holidays_of(self.rules, recipient, asked.space)
            questions.append(
                replace(
                    asked, unanswered=unanswered.get(d.recipient_id, 0), now=int(self.now.timestamp()), holidays=days
                )
            )
        return questions

    def _messages(
        self, reader: Reader, decisions: Sequence[Decision], ids: Sequence[str]
    ) -> Mapping[str, Sequence[Message]]:
        reach = longest_reach(self.rules)
        times = [d.send_at for d in decisions if d.send_at is not None]
        if not reach or not times:
            return {}
        return reader.messages(
            self.workspace_id, ids, min(times) - reach, max(times) + 2 * reach + timedelta(seconds=1)
        )


def _bench(reader: Reader, workspace_id: str, rule_id: str | None, now: datetime) -> _Bench:
    present = [r for r in reader.rules(workspace_id) if not r.archived]
    if rule_id is not None and not any(r.rule_id == rule_id for r in present):
        raise NotFound(f"no rule {rule_id!r} in this workspace")
    acting = [r for r in present if r.enabled and (r.rule_id == rule_id or (rule_id is None and not r.dry_run))]
    own = tuple(r for r in acting if not usage.scarce(r) and r.kind != "fatigue")
    return _Bench(workspace_id, own, rule_id is not None, excess(reader, workspace_id, acting), now)


def question_of(d: Decision, stored: Campaign | None, recipient: Recipient, others: Sequence[Message]) -> Question:
    """The decision's own action as the only one, of a campaign without the conditions that were judged back then."""
    variant, channel, send_at = _planned(d)
    variants, channels = (Variant(variant),), (Channel(channel),)
    known = stored or Campaign(d.workspace_id, d.campaign_id, variants, channels, d.decided_at, d.decided_at)
    campaign = replace(known, variants=variants, channels=channels, category=d.category)
    try:
        where, _ = resolve_zone(recipient, campaign)
    except Invalid:  # a zone that this host doesn't know; caps and gaps can be judged all the same
        where = zone("UTC")
    at = np.array([int(send_at.timestamp())], np.int64)
    space = ActionSpace((variant,), (channel,), at, at + where.offsets(at), no_send=False)
    return Question(space=space, campaign=campaign, recipient=recipient, messages=others, zone=where)


def _planned(d: Decision) -> tuple[str, str, datetime]:
    """Variant, channel and planned time of an open decision's message."""
    if d.variant_id is None or d.channel is None or d.send_at is None:
        raise AssertionError(f"decision {d.decision_id} is {d.status} but has no message")
    return d.variant_id, d.channel, d.send_at


def _broken(
    d: Decision, rule_id: str, kind: str, detail: str, reason: Reason | None = None, *, dry_run: bool = False
) -> Breach:
    _, channel, send_at = _planned(d)
    return Breach(
        decision_id=d.decision_id,
        recipient_id=d.recipient_id,
        campaign_id=d.campaign_id,
        channel=channel,
        status=d.status,
        send_at=send_at,
        rule_id=rule_id,
        kind=kind,
        detail=detail,
        dry_run=dry_run if reason is None else reason.dry_run,
        next_eligible_at=None if reason is None else reason.next_eligible_at,
    )


_WORDS = {
    "cap": "with it, one of the cap's windows holds more messages than allowed",
    "gap": "another message of this recipient is too near",
    "quiet_hours": "its time is in the recipient's quiet hours",
    "blackout": "its date is blacked out",
    "consent": "the recipient's consent to this channel is missing or withdrawn",
    "suppression": "the recipient refuses this channel and category",
}


def _told(reason: Reason) -> str:
    said = _WORDS.get(reason.kind, f"the rule closes its time ({reason.kind})")
    return f"{said} ({reason.note})" if reason.note else said
