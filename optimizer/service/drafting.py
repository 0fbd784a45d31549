"""From what was read to drafts of decisions: the pure middle of a chunk, row after row.

The eligible sets of a chunk are asked for in one go, and so are the policy's distributions over them. A row whose
state an earlier row of the chunk changed (the same recipient, or a shared limit of which little is left) is asked again
by itself, so that it sees that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.eligibility import Eligibility, Question, eligible_many
from optimizer.bandit.groups import assign
from optimizer.errors import SendtideError
from optimizer.model.policy import Choice, LivePolicy, distributions
from optimizer.service import displace
from optimizer.service import recipients as people
from optimizer.service.catalog import View, stricter
from optimizer.service.choose import (
    Plan,
    Situation,
    asked,
    asks_policy,
    displaced_by,
    draw,
    draw_shadow,
    plan,
    policy_space,
    space_of,
)
from optimizer.service.framing import factors, resolve_zone, seen_context
from optimizer.service.holidays import holidays_of
from optimizer.service.past import with_past
from optimizer.service.record import (
    Ask,
    Circumstances,
    answered,
    decision_record,
    kept_record,
    message_of,
    request_window,
)
from optimizer.service.rhythms import effects_of
from optimizer.service.rows import Draft, Planned, Read, Reads, Repeat, Row, carry_forward
from optimizer.service.serving import PolicyServer
from storage.log import Decision, ShadowChoice
from storage.port import Reader
from storage.records import Campaign, Recipient
from storage.swift import swift


@swift
@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a policy makes of an eligible set, worked out together with other rows'."""

    live: LivePolicy
    mask: NDArray[np.bool_]
    choice: Choice


@swift
@dataclass(frozen=True, slots=True)
class Prepared:
    """A row's question before its eligible set is known."""

    ask: Ask
    read: Read
    situation: Situation
    recipient: Recipient
    question: Question


@dataclass
class Ahead:
    """A row as if it were the first of its chunk: an earlier one may still change any of it.

    ``ready`` None = answered before. ``ruled`` is the eligible set where it was asked in one go with others,
    ``foreseen`` the policy's distribution over it.
    """

    ready: Prepared | SendtideError | None
    ruled: Eligibility | None = None
    foreseen: Foreseen | None = None


class Drafter:
    """Computes decisions from what was read; writes nothing."""

    def __init__(self, policies: PolicyServer, salt: bytes) -> None:
        self._policies = policies
        self._salt = salt

    def draft_all(self, reader: Reader, asks: Sequence[Ask | SendtideError], reads: Reads) -> list[Row]:
        """Drafts in order; each row sees what the earlier ones of the chunk store."""
        rows: list[Row] = []
        for ask, ahead in zip(asks, self._ahead(reader, asks, reads), strict=True):
            if isinstance(ask, SendtideError):
                rows.append(ask)
                continue
            try:
                rows.append(self._row(reader, ask, ahead, reads))
            except SendtideError as error:
                rows.append(error)
                continue
            carry_forward(reads, rows[-1])
        return rows

    def _ahead(self, reader: Reader, asks: Sequence[Ask | SendtideError], reads: Reads) -> list[Ahead]:
        """Every row; eligible sets and distributions are asked for together."""
        new = [one for one in asks if isinstance(one, Ask) and one.decision_id not in reads.known]
        reads.read_pasts(reader, {one.request.recipient_id for one in new} - reads.gone)
        rows = [Ahead(self._ready(reader, ask, reads)) for ask in asks]
        alike: dict[tuple[str, int], list[tuple[Ahead, Prepared]]] = {}
        for row in rows:
            if isinstance(row.ready, Prepared) and row.ready.situation.group != "holdout":
                campaign = row.ready.situation.campaign
                alike.setdefault((campaign.campaign_id, campaign.version), []).append((row, row.ready))
        for together in alike.values():
            if len(together) > 1:
                self._foresee(together, reads)
        return rows

    def _ready(self, reader: Reader, ask: Ask | SendtideError, reads: Reads) -> Prepared | SendtideError | None:
        if isinstance(ask, SendtideError) or ask.decision_id in reads.known:
            return None
        try:
            return self.prepare(reader, ask, reads)
        except SendtideError as error:
            return error

    def _foresee(self, rows: Sequence[tuple[Ahead, Prepared]], reads: Reads) -> None:
        """Fills in what rules and policy say of rows of one campaign."""
        questions = [ready.question for _, ready in rows]
        for (row, _), ruled in zip(rows, eligible_many(questions, reads.view.rules, reads.shared.usage), strict=True):
            row.ruled = ruled
        campaign = rows[0][1].situation.campaign
        live = self._policies.current(campaign.workspace_id, campaign.campaign_id)
        likely = [(row, ready.situation, made) for row, ready in rows if (made := _likely_plan(row, ready)) is not None]
        found = distributions(live, campaign, [asked(s, made) for _, s, made in likely])
        for (row, _, made), choice in zip(likely, found, strict=True):
            row.foreseen = Foreseen(live, made.mask, choice)

    def _row(self, reader: Reader, ask: Ask, ahead: Ahead, reads: Reads) -> Draft | Repeat | Decision:
        repeated = reads.known.get(ask.decision_id)
        if repeated is not None:
            return answered(repeated, ask)
        if ask.decision_id in reads.drafted:
            return Repeat(ask)
        ready, ruled, foreseen = ahead.ready, ahead.ruled, ahead.foreseen
        if ready is None or ask.request.recipient_id in reads.touched:
            ready, ruled, foreseen = self.prepare(reader, ask, reads), None, None
        if isinstance(ready, SendtideError):
            raise ready
        if ready.read.shared is not reads.shared:
            if ready.read.shared.tight != reads.shared.tight:
                ruled = None  # shared limits may close something else by now
            ready = replace(ready, read=replace(ready.read, shared=reads.shared))
        return self.finish(self.plan(reader, ready, reads, ruled), attempt=0, foreseen=foreseen)

    def prepare(self, reader: Reader, ask: Ask, reads: Reads) -> Prepared:
        """A row's question, from what is known by now."""
        reads.require_present(ask.request.recipient_id)
        read = reads.of(ask.request.recipient_id)
        recipient = people.patched(read.stored, ask.request.recipient)
        situation = self._situation(reader, ask, reads, recipient)
        question = question_of(situation, space_of(situation), recipient, read)
        return Prepared(ask, read, situation, recipient, question)

    def plan(self, reader: Reader, ready: Prepared, reads: Reads, ruled: Eligibility | None = None) -> Planned:
        """A row's eligible set; ``ruled`` where it was asked already."""
        ask, read, s = ready.ask, ready.read, ready.situation
        rules, used, override = read.view.rules, read.shared.usage, ask.request.override_rules
        consulted: list[tuple[Decision, ...]] = []

        def rivals() -> tuple[Decision, ...]:
            if not consulted:
                consulted.append(rivals_of(reader, reads, s.campaign, ready.recipient))
            return consulted[0]

        made = plan(s, ready.question, rules, read.shared.usage, override_rules=override, ruled=ruled, rivals=rivals)
        shadowed: Plan | None = None
        if s.mode == "shadow" and s.group != "holdout":
            question = question_of(s, policy_space(s), ready.recipient, read)
            as_live = replace(s, mode="live")  # what would have been chosen, also where nothing is
            shadowed = plan(as_live, question, rules, used, override_rules=override, rivals=rivals)
        if consulted:
            read = replace(read, rivals=tuple(d.decision_id for d in consulted[0]))
        return Planned(ask, read, s, ready.recipient, ready.question, made, shadowed)

    def finish(self, planned: Planned, attempt: int, foreseen: Foreseen | None = None) -> Draft:
        """Draws from the row's distribution and makes the record of it."""
        s, made = planned.situation, planned.plan
        if foreseen is not None and (foreseen.mask is made.mask or np.array_equal(foreseen.mask, made.mask)):
            live, known = foreseen.live, foreseen.choice
        else:
            live, known = self._policies.current(planned.recipient.workspace_id, s.campaign.campaign_id), None
        drawn = draw(s, made, live, self._salt, attempt, known)
        if planned.shadowed is not None:
            drawn = replace(drawn, shadow=self._shadow(planned))
        gone = _gone(planned, drawn.action)
        decision = decision_record(planned.ask, s, made, drawn, _circumstances(planned, gone), attempt)
        return _draft(planned, s, decision, gone)

    def keep(self, draft: Draft, newer: Planned) -> Draft:
        """The draw of ``draft``, whose set is that of ``newer``, with what ``newer`` knows of the state."""
        gone = _gone(newer, draft.decision.action)
        at = _circumstances(newer, gone)
        decision = kept_record(draft.decision, draft.situation, newer.plan, self._shadow(newer), at)
        return _draft(newer, draft.situation, decision, gone)

    def _shadow(self, planned: Planned) -> ShadowChoice | None:
        if planned.shadowed is None:
            return None
        s = planned.situation
        live = self._policies.current(planned.recipient.workspace_id, s.campaign.campaign_id)
        return draw_shadow(s, planned.shadowed, live, self._salt)

    def _situation(self, reader: Reader, ask: Ask, reads: Reads, recipient: Recipient) -> Situation:
        request, view = ask.request, reads.view
        campaign = view.campaign(reader, request.campaign_id)
        where, source = resolve_zone(recipient, campaign)
        variants, channels = factors(campaign, request.variants, request.channels)
        seen = seen_context(recipient, request.context, view.hidden)
        groups = (recipient.workspace_id, campaign.campaign_id, recipient.recipient_id, campaign.groups)
        return Situation(
            decision_id=ask.decision_id,
            campaign=campaign,
            variants=variants,
            channels=channels,
            window=request_window(request, campaign.default_window_hours, reads.real),
            zone=where,
            zone_source=source,
            group=assign(self._salt, *groups),
            mode=stricter(view.workspace.mode, campaign.mode),
            decided_at=reads.now,
            immediate=request.immediate,
            context=with_past(seen, reads.past(reader, recipient.recipient_id), reads.now),
            effects=effects_of(reads.rhythms.get(recipient.recipient_id, ()), reads.now),
            limits=() if request.override_rules else view.limits(campaign),
            watched=() if request.override_rules else view.limits(campaign, dry_run=True),
        )


def _likely_plan(row: Ahead, ready: Prepared) -> Plan | None:
    """The plan that a row has unless something is displaced, rules are overridden or an earlier row changes it; None
    where the policy has no say in it."""
    if row.ruled is None:
        return None
    likely = Plan(ready.question.space, row.ruled.mask, row.ruled.reasons)
    return likely if asks_policy(ready.situation, likely) else None


def question_of(s: Situation, space: ActionSpace, recipient: Recipient, read: Read) -> Question:
    """All that the eligible set of a space depends on, for one recipient."""
    return Question(
        space=space,
        campaign=s.campaign,
        recipient=recipient,
        messages=read.messages,
        zone=s.zone,
        now=int(s.decided_at.timestamp()),
        unanswered=read.unanswered,
        answers=read.answers,
        holidays=holidays_of(read.view.rules, recipient, space) if read.view.dated else {},
    )


def rivals_of(reader: Reader, reads: Reads, campaign: Campaign, recipient: Recipient) -> tuple[Decision, ...]:
    """What a message of ``campaign`` may displace: stored reservations, and those of earlier rows of the chunk."""
    workspace_id, recipient_id = recipient.workspace_id, recipient.recipient_id
    stored = reader.open_decisions(workspace_id, recipient_id)
    candidates = [d for d in stored if d.decision_id not in reads.displaced]
    candidates += reads.placed.get(recipient_id, {}).values()
    view: View = reads.view
    return displace.weaker(candidates, campaign, lambda name: view.standing(reader, name), reads.real)


def _gone(planned: Planned, action: int | None) -> tuple[Decision, ...]:
    read = planned.read
    return displaced_by(planned.plan, action, planned.question, read.view.rules, read.shared.usage)


def _circumstances(planned: Planned, gone: Sequence[Decision]) -> Circumstances:
    return Circumstances(
        recipient_id=planned.recipient.recipient_id,
        unanswered=planned.read.unanswered if planned.read.view.adaptive else None,
        displaced=tuple(d.decision_id for d in gone),
    )


def _draft(planned: Planned, s: Situation, decision: Decision, gone: tuple[Decision, ...]) -> Draft:
    return Draft(
        ask=planned.ask,
        read=planned.read,
        situation=s,
        recipient=planned.recipient,
        question=planned.question,
        plan=planned.plan,
        shadowed=planned.shadowed,
        decision=decision,
        message=message_of(decision),
        displaced=gone,
    )
