"""Deciding: one read, a pure middle, one write transaction.

The write transaction reads again what the eligible set depends on. Where that has changed, the eligible set is computed
anew; if the **set** differs from the one the draw was made over (not: if the drawn action fell out of it), the draw is
thrown away and made again with fresh randomness over the new set. Testing the drawn action instead would bias every
propensity. A single decision is a batch of one: there is one path.

A batch is not cut where the first set changed, to commit what lies before and start again behind it. Its rows are
re-checked in their order inside the transaction, each after the earlier ones, and only those whose own set changed are
drawn anew: the same answers, in one commit, and no row is drawn again because of another recipient's.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from optimizer.errors import Conflict, SendtideError, Unrecorded
from optimizer.service.catalog import Catalog
from optimizer.service.drafting import Drafter, rivals_of
from optimizer.service.facts import gather
from optimizer.service.ids import fresh
from optimizer.service.logbook import log
from optimizer.service.record import Ask, answered, is_repetition, named_batch, named_request, named_rows
from optimizer.service.requests import DecisionRequest
from optimizer.service.rows import Draft, Moment, Read, Reads, Row, answers, carry_forward, same_set, to_log
from optimizer.service.serving import PolicyServer
from optimizer.service.together import Together
from storage.errors import ArchiveUnreadable, StoreError, StoreUnavailable
from storage.log import Decision
from storage.port import Reader, Store, Writer

logger = logging.getLogger("sendtide.decide")

#: How many rows of a batch share one write transaction: long enough to amortise the commit, short enough that
#: single decisions beside the batch don't wait for it.
CHUNK = 250
#: How many single decisions that come together are decided together.
GROUP = 32

#: An answer, and whether it is new.
Outcome = tuple[Decision | SendtideError, bool]
#: The outcomes of a chunk, and the decisions that were closed by it.
Decided = tuple[list[Outcome], dict[str, Decision]]
#: Decides a chunk of a workspace's requests.
Decide = Callable[[str, Sequence[Ask | SendtideError]], Decided]

_UNREADABLE: Final = (
    "this request was answered before, and its decision is in the archive, which can't be read right now: ask again"
)


class Decider:
    """Answers decision requests for every workspace of one store."""

    def __init__(
        self,
        store: Store,
        policies: PolicyServer,
        catalog: Catalog,
        salt: bytes,
        clock: Callable[[], datetime],
        real: Callable[[], datetime] | None = None,
    ) -> None:
        """``real``: what time it is where ``clock`` gives that of a run that began earlier (None = ``clock``)."""
        self._store = store
        self._drafter = Drafter(policies, salt)
        self._catalog = catalog
        self._salt = salt
        self._clock = clock
        self._real = real or clock
        self._groups: dict[str, Together[Ask, Outcome]] = {}

    def decide(self, workspace_id: str, request: DecisionRequest) -> tuple[Decision, bool]:
        """Decides one request; True when it was new, False when the same request had been answered before.

        Raises:
            Invalid: the request can't be answered as it stands.
            Conflict: its ``request_id`` was used for another request.
            Unrecorded: it was answered before, and that answer can't be read.
            StoreUnavailable: nothing was recorded.
        """
        ask = named_request(self._salt, workspace_id, request)
        if request.preview:
            outcome, created = self._decide_rows(workspace_id, [ask])[0]
        else:
            outcome, created = self._together(workspace_id)(ask)
        if isinstance(outcome, SendtideError):
            raise outcome
        return outcome, created

    def decide_batch(
        self, workspace_id: str, requests: Sequence[DecisionRequest | SendtideError], run_id: str
    ) -> list[Decision | SendtideError]:
        """Decides rows in order; a recipient named twice sees the first reservation, a bad row spoils no other.

        A row's default request id is (run id, campaign, recipient, row): the same batch again answers the same.

        Raises:
            StoreError: what came before the chunk that failed was recorded; the same batch again goes on from there.
        """
        asks = named_rows(self._salt, workspace_id, run_id, requests)
        decided, closed, fault = self._by_chunks(self._decide_chunk, workspace_id, asks)
        if fault is not None:
            raise fault
        return self._as_they_stand(workspace_id, decided, closed)

    def answer_batch(
        self, workspace_id: str, requests: Sequence[DecisionRequest | SendtideError], key: str | None = None
    ) -> list[Decision | SendtideError]:
        """``decide_batch`` for a caller who may not ask for the same batch again: where the store fails behind the
        first chunk, the answers until then, and ``Unrecorded`` for every row from there on. A row that repeats one
        whose decision lies in a file of the archive that can't be read is ``Unrecorded`` alone.

        With an idempotency ``key`` the same batch again answers the same.

        Raises:
            Conflict: the key was used for another batch.
            StoreError: nothing was recorded.
        """
        if key is None:
            asks = named_rows(self._salt, workspace_id, fresh("run"), requests)
        else:
            asks = named_batch(self._salt, workspace_id, key, requests)
            self._require_same_batch(workspace_id, key, asks)
        decided, closed, fault = self._by_chunks(self._decide_apart, workspace_id, asks)
        if fault is None:
            return self._as_far_as_known(workspace_id, decided, closed)
        if not decided:
            raise fault
        logger.error("store unavailable from row %d of a batch on: %s", len(decided), fault)
        lost = _unrecorded(requests[len(decided) :], fault)
        return [*self._as_far_as_known(workspace_id, decided, closed), *lost]

    def _by_chunks(
        self, decide: Decide, workspace_id: str, asks: Sequence[Ask | SendtideError]
    ) -> tuple[list[Decision | SendtideError], set[str], StoreError | None]:
        """The answers, the ids of decisions that were closed on the way, and what the store failed with: then the
        answers are those of the chunks before."""
        decided: list[Decision | SendtideError] = []
        closed: set[str] = set()
        for start in range(0, len(asks), CHUNK):
            try:
                outcomes, gone = decide(workspace_id, asks[start : start + CHUNK])
            except StoreError as fault:
                return decided, closed, fault
            decided += [answer for answer, _ in outcomes]
            closed.update(gone)
        return decided, closed, None

    def _require_same_batch(self, workspace_id: str, key: str, asks: Sequence[Ask | SendtideError]) -> None:
        """Refuses a batch before any of its rows is decided where another one was recorded under its key."""
        named = {a.decision_id: a for a in asks if isinstance(a, Ask) and not a.request.request_id}
        ids = list(named)
        for start in range(0, len(ids), CHUNK):
            with self._store.read() as reader:
                known = reader.decisions_by_id(workspace_id, ids[start : start + CHUNK])
            for stored in known.values():
                if stored.snapshot.erased:  # who it was is gone, and so is what was asked
                    continue
                if is_repetition(stored, named[stored.decision_id]):
                    return  # one row tells of all
                raise Conflict(
                    f"Idempotency-Key {key!r} was used for another batch; allowed: the same one again",
                    code="request_id_reused",
                    errors={"header.Idempotency-Key": [f"{key!r} belongs to a batch with another body."]},
                )

    def _as_far_as_known(
        self, workspace_id: str, decided: list[Decision | SendtideError], closed: set[str]
    ) -> list[Decision | SendtideError]:
        """The answers as they stand; as they were given where the store can't be asked, since they are recorded."""
        try:
            return self._as_they_stand(workspace_id, decided, closed)
        except StoreError as fault:
            logger.error("store unavailable behind the last row of a batch: %s", fault)
            return decided

    def _as_they_stand(
        self, workspace_id: str, decided: list[Decision | SendtideError], closed: set[str]
    ) -> list[Decision | SendtideError]:
        """The answers with what later chunks closed of earlier ones."""
        stale = [d.decision_id for d in decided if isinstance(d, Decision) and d.decision_id in closed]
        if not stale:
            return decided
        with self._store.read() as reader:
            stored = reader.decisions_by_id(workspace_id, stale)
        return [stored.get(d.decision_id, d) if isinstance(d, Decision) else d for d in decided]

    def _decide_rows(self, workspace_id: str, asks: Sequence[Ask | SendtideError]) -> list[Outcome]:
        """Drafts, then commits."""
        return self._decide_apart(workspace_id, asks)[0]

    def _decide_apart(self, workspace_id: str, asks: Sequence[Ask | SendtideError]) -> Decided:
        """As ``_decide_chunk``, but a row whose decision is in a file of the archive that can't be read fails alone:
        the halves of a chunk are decided one after the other, down to that row."""
        try:
            return self._decide_chunk(workspace_id, asks)
        except ArchiveUnreadable as fault:
            if len(asks) == 1:
                logger.error("a decision in the archive can't be read: %s", fault)
                return [(Unrecorded(_UNREADABLE), False)], {}
        half = len(asks) // 2
        outcomes, closed = self._decide_apart(workspace_id, asks[:half])
        try:
            more, later = self._decide_apart(workspace_id, asks[half:])
        except StoreError as fault:  # the first half is recorded
            logger.error("store unavailable in the midst of a chunk: %s", fault)
            more, later = [(one, False) for one in _unrecorded(asks[half:], fault)], {}
        return [*outcomes, *more], closed | later

    def _decide_chunk(self, workspace_id: str, asks: Sequence[Ask | SendtideError]) -> Decided:
        """Drafts, then commits; the answers, and the decisions that were closed by it."""
        as_of = self._clock()
        at = Moment(as_of, max(as_of, self._real()))
        with self._store.read() as reader:
            reads = self._gather(reader, workspace_id, [a for a in asks if isinstance(a, Ask)], at, keep=True)
            drafts = self._drafter.draft_all(reader, asks, reads)
        new = to_log(drafts)
        if not new:
            return answers(drafts), {}
        pairs = [(workspace_id, d.ask.request.recipient_id) for d in new]
        rows, closed = self._store.write(
            lambda writer: self._commit(writer, workspace_id, drafts, at), recipients=pairs
        )
        return answers(rows), closed

    def _together(self, workspace_id: str) -> Together[Ask, Outcome]:
        """Who asks for one decision of a workspace while others do is served with them."""
        found = self._groups.get(workspace_id)
        if found is None:
            found = self._groups.setdefault(workspace_id, Together(partial(self._decide_rows, workspace_id), GROUP))
        return found

    def _gather(self, reader: Reader, workspace_id: str, asks: Sequence[Ask], at: Moment, *, keep: bool) -> Reads:
        reads = gather(reader, self._catalog, workspace_id, self._salt, asks, at, drafting=keep)
        named = Counter([ask.request.recipient_id for ask in asks])
        reads.once = frozenset([one for one, rows in named.items() if rows == 1])
        return reads

    def _commit(
        self, writer: Writer, workspace_id: str, drafts: Sequence[Row], at: Moment
    ) -> tuple[list[Row], dict[str, Decision]]:
        """Inside the write transaction: re-check each draft, re-draw where its eligible set has changed, log them."""
        reads = self._gather(writer, workspace_id, [d.ask for d in to_log(drafts)], at, keep=False)
        results: list[Row] = []
        for draft in drafts:
            if not isinstance(draft, Draft) or draft.ask.request.preview:
                results.append(draft)
                continue
            try:
                results.append(self._settle_draft(writer, draft, reads))
            except SendtideError as error:
                results.append(error)
                continue
            carry_forward(reads, results[-1])
        closed = log(writer, workspace_id, to_log(results), at.real)
        return ([_as_left(row, closed) for row in results] if closed else results), closed

    def _settle_draft(self, writer: Writer, draft: Draft, reads: Reads) -> Draft | Decision:
        repeated = reads.known.get(draft.ask.decision_id)
        if repeated is not None:
            return answered(repeated, draft.ask)
        reads.require_present(draft.ask.request.recipient_id)
        if _read_again(writer, draft, reads).same_as(draft.read, draft.question):
            return draft
        return self._recheck(writer, draft, reads)

    def _recheck(self, writer: Writer, draft: Draft, reads: Reads) -> Draft:
        drafter = self._drafter
        newer = drafter.plan(writer, drafter.prepare(writer, draft.ask, reads), reads)
        if same_set(draft, newer):
            return drafter.keep(draft, newer)
        return drafter.finish(newer, draft.decision.snapshot.attempt + 1)


def _read_again(writer: Writer, draft: Draft, reads: Reads) -> Read:
    """What the draft was computed from, as it is now."""
    read = reads.of(draft.recipient.recipient_id)
    if draft.read.rivals is None:  # whether somebody asks for them depends on the rest
        return read
    found = rivals_of(writer, reads, draft.situation.campaign, draft.recipient)
    return replace(read, rivals=tuple(d.decision_id for d in found))


def _unrecorded(rows: Sequence[DecisionRequest | Ask | SendtideError], fault: StoreError) -> list[SendtideError]:
    """What the rows from a failed chunk on are answered; one that couldn't be read is answered so in any case."""
    lost = "the store can't be used right now; nothing of this row was recorded, the rows before are: ask for it again"
    doubtful = "the store went away during a commit: this row was recorded or not; the same request id again finds out"
    unknown = isinstance(fault, StoreUnavailable) and fault.fate_unknown
    return [
        row if isinstance(row, SendtideError) else Unrecorded(doubtful if unknown and number < CHUNK else lost)
        for number, row in enumerate(rows)
    ]


def _as_left(row: Row, closed: dict[str, Decision]) -> Row:
    """A row, new or answered before, as its chunk left it."""
    decision = row.decision if isinstance(row, Draft) else row
    gone = closed.get(decision.decision_id) if isinstance(decision, Decision) else None
    if not isinstance(decision, Decision) or gone is None:
        return row
    left = replace(decision, status=gone.status, closed_at=gone.closed_at, close_reason=gone.close_reason)
    return replace(row, decision=left, message=None) if isinstance(row, Draft) else left
