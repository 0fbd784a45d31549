"""Reading what the eligible sets of a chunk of requests depend on, in few queries, and only what some rule asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from optimizer.bandit.eligibility import usage_spans
from optimizer.errors import Invalid
from optimizer.model.history import LENGTH
from optimizer.service.answers import read_answers, required_campaigns
from optimizer.service.catalog import Catalog, View
from optimizer.service.erased import any_erased, gone
from optimizer.service.record import Ask, request_window
from optimizer.service.rows import Moment, Reads
from optimizer.service.shared import NOTHING_SHARED, Shared, dearest_of
from storage.log import Answer, Message
from storage.port import Reader
from storage.records import Campaign

Window = tuple[datetime, datetime]


def gather(
    reader: Reader,
    catalog: Catalog,
    workspace_id: str,
    salt: bytes,
    asks: Sequence[Ask],
    at: Moment,
    *,
    drafting: bool,
) -> Reads:
    """Reads for all rows at once.

    Recipients' rhythms, messages within the caps' reach, what is used of shared limits, counts of unanswered messages
    if a cap adapts to them, answers to earlier messages for campaigns whose variants require some, who was erased; for
    ``drafting``, what happened to them before, too. What may be displaced is read by the row that asks for it. Set-up
    hardly ever changes, so all of this is asked in one go with whether it has.
    """
    likely = catalog.newest(workspace_id)
    if likely is not None and all(likely.knows(a.request.campaign_id) for a in asks):
        version = reader.ask(partial(reader.config_version, workspace_id))
        answer = _asked(reader, likely, salt, asks, at, drafting=drafting)
        if version() == likely.version:
            return answer()
    return _asked(reader, catalog.view(reader, workspace_id, keep=drafting), salt, asks, at, drafting=drafting)()


def _asked(
    reader: Reader, view: View, salt: bytes, asks: Sequence[Ask], at: Moment, *, drafting: bool
) -> Callable[[], Reads]:
    """Asks for all that is wanted; what is given back answers."""
    workspace_id, now = view.workspace.workspace_id, at.as_of
    ids = list({a.request.recipient_id for a in asks})
    placed = [
        (a, campaign, window)
        for a in asks
        if (campaign := _campaign(reader, view, a)) is not None
        and (window := _window(a, campaign, at.real)) is not None
    ]
    windows = [window for _, _, window in placed]
    named = [a.decision_id for a in asks if a.repeatable]
    archived = reader.ask(lambda: bool(named) and reader.has_archive(workspace_id))
    known = reader.ask(lambda: reader.decisions_by_id(workspace_id, named) if named else {})
    stored = reader.ask(lambda: reader.recipients(workspace_id, ids))
    messages = reader.ask(lambda: _messages(reader, view, ids, windows))
    shared = reader.ask(lambda: _shared(reader, view, windows, [campaign for _, campaign, _ in placed]))
    unanswered = reader.ask(lambda: reader.unanswered(workspace_id, ids) if view.adaptive else {})
    rhythms = reader.ask(lambda: reader.rhythms(workspace_id, ids))
    erased = reader.ask(lambda: any_erased(reader, workspace_id))
    pasts = reader.ask(lambda: reader.pasts(workspace_id, ids, now, limit=LENGTH) if drafting else {})

    def answer() -> Reads:
        archived()  # what is not among the decisions is looked for there, if there is one
        reads = Reads(
            view=view,
            now=now,
            real=at.real,
            known=known(),
            stored=stored(),
            messages=messages(),
            shared=shared(),
            unanswered=unanswered(),
            rhythms=rhythms(),
            answers=_answers(reader, view, [(a.request.recipient_id, campaign) for a, campaign, _ in placed], now),
        )
        missing = set(ids) - reads.stored.keys()
        if missing and erased():
            reads.gone = gone(reader, salt, workspace_id, missing)
        if drafting and any(a.decision_id not in reads.known for a in asks):
            found = pasts()
            reads.pasts = {one: found.get(one, ()) for one in ids}
        return reads

    return answer


def _campaign(reader: Reader, view: View, ask: Ask) -> Campaign | None:
    try:
        return view.campaign(reader, ask.request.campaign_id)
    except Invalid:
        return None  # the row's own error is raised where the row is drafted


def _window(ask: Ask, campaign: Campaign, now: datetime) -> Window | None:
    try:
        return request_window(ask.request, campaign.default_window_hours, now)
    except Invalid:
        return None  # likewise


def _messages(
    reader: Reader, view: View, ids: Sequence[str], windows: Sequence[Window]
) -> dict[str, tuple[Message, ...]]:
    if not windows or not view.reach:
        return {}
    since, until = min(w[0] for w in windows) - view.reach, max(w[1] for w in windows) + 2 * view.reach
    return reader.messages(view.workspace.workspace_id, ids, since, until)


def _shared(reader: Reader, view: View, windows: Sequence[Window], campaigns: Sequence[Campaign]) -> Shared:
    if not windows or not view.scarce:
        return NOTHING_SHARED
    first, last = min(w[0] for w in windows), max(w[1] for w in windows)
    spans = usage_spans(view.scarce, int(first.timestamp()), -int(-last.timestamp() // 1))
    own = {campaign.campaign_id: campaign for campaign in campaigns}
    return Shared.of(view.scarce, reader.usage(view.workspace.workspace_id, spans), dearest_of(own.values()))


def _answers(
    reader: Reader, view: View, rows: Sequence[tuple[str, Campaign]], now: datetime
) -> dict[str, tuple[Answer, ...]]:
    """Of the recipients that are asked for by campaigns with conditions."""
    required = {campaign.campaign_id: required_campaigns(campaign) for _, campaign in rows}
    ids = list({recipient_id for recipient_id, campaign in rows if required[campaign.campaign_id]})
    return read_answers(
        reader,
        view.workspace.workspace_id,
        ids,
        frozenset().union(*required.values()),
        lambda campaign_id: view.standing(reader, campaign_id),
        now,
    )
