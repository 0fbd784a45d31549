"""Deciding: one read, a pure middle, one write transaction.

The write transaction reads again what the eligible set depends on. Where that has changed, the eligible set is computed
anew; if the **set** differs from the one the draw was made over (not: if the drawn action fell out of it), the draw is
thrown away and made again with fresh randomness over the new set. Testing the drawn action instead would bias every
propensity. A single decision is a batch of one: there is one path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from optimizer.bandit.eligibility import longest_reach
from optimizer.bandit.groups import assign
from optimizer.errors import Invalid, SendtideError
from optimizer.service import recipients as people
from optimizer.service.catalog import Catalog, View, stricter
from optimizer.service.choose import (
    Situation,
    draw,
    draw_shadow,
    factors,
    plan,
    policy_space,
    resolve_zone,
    seen_context,
    space_of,
)
from optimizer.service.ids import derived
from optimizer.service.optout import apply_opt_outs
from optimizer.service.record import Ask, answered, decision_record, message_of, named_request, request_window
from optimizer.service.requests import DecisionRequest
from optimizer.service.rows import (
    Draft,
    Read,
    Reads,
    Repeat,
    Row,
    answers,
    carry_forward,
    same_set,
    to_log,
    told,
)
from optimizer.service.serving import PolicyServer
from storage.log import Decision, Message
from storage.port import Reader, Store, Writer
from storage.records import Recipient

#: How many rows of a batch share one write transaction: long enough to amortise the commit, short enough that
#: single decisions beside the batch don't wait for it.
CHUNK = 250


class Decider:
    """Answers decision requests for every workspace of one store."""

    def __init__(
        self, store: Store, policies: PolicyServer, catalog: Catalog, salt: bytes, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._policies = policies
        self._catalog = catalog
        self._salt = salt
        self._clock = clock

    def decide(self, workspace_id: str, request: DecisionRequest) -> tuple[Decision, bool]:
        """Decides one request; True when it was new, False when the same request had been answered before.

        Raises:
            Invalid: the request can't be answered as it stands.
            Conflict: its ``request_id`` was used for another request.
            StoreUnavailable: nothing was recorded.
        """
        outcome, created = self._decide_rows(workspace_id, [request])[0]
        if isinstance(outcome, SendtideError):
            raise outcome
        return outcome, created

    def decide_batch(
        self, workspace_id: str, requests: Sequence[DecisionRequest | SendtideError], run_id: str
    ) -> list[Decision | SendtideError]:
        """Decides rows in order; a recipient named twice sees the first reservation, a bad row spoils no other.

        A row's default request id is (run id, campaign, recipient, row): the same batch again answers the same.
        """
        decided: list[Decision | SendtideError] = []
        for start in range(0, len(requests), CHUNK):
            rows = [
                r if isinstance(r, SendtideError) else self._named(workspace_id, r, run_id, start + i)
                for i, r in enumerate(requests[start : start + CHUNK])
            ]
            decided += [answer for answer, _ in self._decide_rows(workspace_id, rows)]
        return decided

    def _named(self, workspace_id: str, request: DecisionRequest, run_id: str, row: int) -> DecisionRequest:
        if request.request_id is not None:
            return request
        parts = (workspace_id, run_id, request.campaign_id, request.recipient_id, str(row))
        return replace(request, request_id=derived("req", self._salt, *parts))

    def _decide_rows(
        self, workspace_id: str, requests: Sequence[DecisionRequest | SendtideError]
    ) -> list[tuple[Decision | SendtideError, bool]]:
        now = self._clock()
        asks = [r if isinstance(r, SendtideError) else named_request(self._salt, workspace_id, r) for r in requests]
        with self._store.read() as reader:
            reads = self._gather(reader, workspace_id, [a for a in asks if isinstance(a, Ask)], now, keep=True)
            drafts = self._draft_all(reader, workspace_id, asks, reads, now)
        fresh_rows = to_log(drafts)
        if fresh_rows:
            pairs = [(workspace_id, d.ask.request.recipient_id) for d in fresh_rows]
            drafts = self._store.write(lambda w: self._commit(w, workspace_id, drafts, now), recipients=pairs)
        return answers(drafts)

    def _gather(self, reader: Reader, workspace_id: str, asks: Sequence[Ask], now: datetime, *, keep: bool) -> Reads:
        view = self._catalog.view(reader, workspace_id, keep=keep)
        ids = list({a.request.recipient_id for a in asks})
        stored = reader.recipients(workspace_id, ids)
        windows = [w for a in asks if (w := self._window_or_none(reader, view, a.request, now)) is not None]
        messages: dict[str, tuple[Message, ...]] = {}
        if windows and (reach := longest_reach(view.rules)):
            since, until = min(w[0] for w in windows) - reach, max(w[1] for w in windows) + 2 * reach
            messages = reader.messages(workspace_id, ids, since, until)
        known = reader.decisions_by_id(workspace_id, [a.decision_id for a in asks if a.request.request_id is not None])
        return Reads(view, known, stored, messages)

    @staticmethod
    def _window_or_none(
        reader: Reader, view: View, request: DecisionRequest, now: datetime
    ) -> tuple[datetime, datetime] | None:
        try:
            return request_window(request, view.campaign(reader, request.campaign_id).default_window_hours, now)
        except Invalid:
            return None  # the row's own error is raised where the row is drafted

    def _draft_all(
        self,
        reader: Reader,
        workspace_id: str,
        asks: Sequence[Ask | SendtideError],
        reads: Reads,
        now: datetime,
    ) -> list[Row]:
        """Drafts in order; each sees the messages and the recipient as earlier rows of the chunk leave them."""
        drafts: list[Row] = []
        for ask in asks:
            if isinstance(ask, SendtideError):
                drafts.append(ask)
                continue
            try:
                drafts.append(self._draft_one(reader, workspace_id, ask, reads, now))
            except SendtideError as error:
                drafts.append(error)
                continue
            carry_forward(reads, drafts[-1])
        return drafts

    def _draft_one(
        self, reader: Reader, workspace_id: str, ask: Ask, reads: Reads, now: datetime
    ) -> Draft | Repeat | Decision:
        repeated = reads.known.get(ask.decision_id)
        if repeated is not None:
            return answered(repeated, ask)
        if ask.decision_id in reads.drafted:
            return Repeat(ask)
        recipient_id = ask.request.recipient_id
        read = Read(
            view=reads.view,
            stored=reads.stored.get(recipient_id, people.unknown(workspace_id, recipient_id)),
            messages=reads.messages.get(recipient_id, ()),
        )
        return self.draft(reader, ask, read, now, attempt=0)

    def draft(self, reader: Reader, ask: Ask, read: Read, now: datetime, attempt: int) -> Draft:
        """Computes a decision from what was read; writes nothing."""
        recipient = people.patched(read.stored, ask.request.recipient)
        situation = self._situation(reader, ask, read.view, recipient, now)
        made = plan(
            situation,
            space_of(situation),
            recipient,
            read.view.rules,
            read.messages,
            override_rules=ask.request.override_rules,
        )
        live = self._policies.current(recipient.workspace_id, situation.campaign.campaign_id)
        drawn = draw(situation, made, live, self._salt, attempt)
        if situation.mode == "shadow" and situation.group != "holdout":
            shadowed = plan(situation, policy_space(situation), recipient, read.view.rules, read.messages)
            drawn = replace(drawn, shadow=draw_shadow(situation, shadowed, live, self._salt))
        decision = decision_record(ask, situation, made, drawn, recipient.recipient_id, attempt)
        return Draft(ask, read, situation, recipient, made, decision, message_of(decision))

    def _situation(self, reader: Reader, ask: Ask, view: View, recipient: Recipient, now: datetime) -> Situation:
        request = ask.request
        campaign = view.campaign(reader, request.campaign_id)
        where, source = resolve_zone(recipient, campaign)
        variants, channels = factors(campaign, request.variants, request.channels)
        workspace_id = recipient.workspace_id
        in_model = {name: a.use_in_model for name, a in view.attributes.items()}
        return Situation(
            decision_id=ask.decision_id,
            campaign=campaign,
            variants=variants,
            channels=channels,
            window=request_window(request, campaign.default_window_hours, now),
            zone=where,
            zone_source=source,
            group=assign(self._salt, workspace_id, campaign.campaign_id, recipient.recipient_id, campaign.groups),
            mode=stricter(view.workspace.mode, campaign.mode),
            decided_at=now,
            immediate=request.immediate,
            context=seen_context(recipient, request.context, in_model),
        )

    def _commit(self, writer: Writer, workspace_id: str, drafts: Sequence[Row], now: datetime) -> list[Row]:
        """Inside the write transaction: re-check each draft, re-draw where its eligible set has changed, log them."""
        rows = to_log(drafts)
        reads = self._gather(writer, workspace_id, [d.ask for d in rows], now, keep=False)
        results: list[Row] = []
        for draft in drafts:
            if not isinstance(draft, Draft) or draft.ask.request.preview:
                results.append(draft)
                continue
            try:
                results.append(self._settle_draft(writer, workspace_id, draft, reads, now))
            except SendtideError as error:
                results.append(error)
                continue
            carry_forward(reads, results[-1])
        self._log(writer, workspace_id, to_log(results), now)
        return results

    def _settle_draft(
        self, writer: Writer, workspace_id: str, draft: Draft, reads: Reads, now: datetime
    ) -> Draft | Decision:
        repeated = reads.known.get(draft.ask.decision_id)
        if repeated is not None:
            return answered(repeated, draft.ask)
        recipient_id = draft.ask.request.recipient_id
        read = Read(
            view=reads.view,
            stored=reads.stored.get(recipient_id, people.unknown(workspace_id, recipient_id)),
            messages=reads.messages.get(recipient_id, ()),
        )
        if read.same_as(draft.read):
            return draft
        return self._recheck(writer, draft, read, now)

    def _recheck(self, writer: Writer, draft: Draft, read: Read, now: datetime) -> Draft:
        attempt = draft.decision.snapshot.attempt
        newer = self.draft(writer, draft.ask, read, now, attempt + 1)
        if same_set(draft, newer):
            recipient = people.patched(read.stored, draft.ask.request.recipient)
            return replace(draft, read=read, recipient=recipient)
        return newer

    def _log(self, writer: Writer, workspace_id: str, rows: Sequence[Draft], now: datetime) -> None:
        for row in rows:
            if row.ask.request.recipient is not None:
                people.store(writer, row.read.stored, row.recipient, now)
        if rows:
            seen = [told(r.ask.request) for r in rows]
            people.sight(writer, workspace_id, rows[0].read.view.attributes, seen)
        writer.add_decisions([(row.decision, row.message) for row in rows])
        for row in rows:
            if row.ask.request.request_id is not None and row.decision.status == "reserved":
                joined = writer.match_events(workspace_id, row.decision)
                apply_opt_outs(writer, row.decision, joined, now)
