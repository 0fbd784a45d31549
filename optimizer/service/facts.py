"""Reading what the eligible sets of a chunk of requests depend on, in few queries, and only what some rule asks for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from optimizer.bandit.eligibility import usage_spans
from optimizer.errors import Invalid
from optimizer.service.answers import read_answers, required_campaigns
from optimizer.service.catalog import View
from optimizer.service.record import Ask, request_window
from optimizer.service.rows import Reads
from optimizer.service.shared import NOTHING_SHARED, Shared, dearest_of
from storage.log import Answer, Message
from storage.port import Reader
from storage.records import Campaign

Window = tuple[datetime, datetime]


def gather(reader: Reader, view: View, asks: Sequence[Ask], now: datetime) -> Reads:
    """Reads for all rows at once.

    Recipients' rhythms, messages within the caps' reach, what is used of shared limits, counts of unanswered messages
    if a cap adapts to them, answers to earlier messages for campaigns whose variants require some. What may be
    displaced is read by the row that asks for it.
    """
    workspace_id = view.workspace.workspace_id
    ids = list({a.request.recipient_id for a in asks})
    placed = [
        (a, campaign, window)
        for a in asks
        if (campaign := _campaign(reader, view, a)) is not None and (window := _window(a, campaign, now)) is not None
    ]
    windows = [window for _, _, window in placed]
    named = [a.decision_id for a in asks if a.repeatable]
    return Reads(
        view=view,
        now=now,
        known=reader.decisions_by_id(workspace_id, named) if named else {},
        stored=reader.recipients(workspace_id, ids),
        messages=_messages(reader, view, ids, windows),
        shared=_shared(reader, view, windows, [campaign for _, campaign, _ in placed]),
        unanswered=reader.unanswered(workspace_id, ids) if view.adaptive else {},
        rhythms=reader.rhythms(workspace_id, ids),
        answers=_answers(reader, view, [(a.request.recipient_id, campaign) for a, campaign, _ in placed], now),
    )


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
