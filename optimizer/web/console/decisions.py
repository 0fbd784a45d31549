"""Decisions: found by whose, by campaign, by status or by id; and one of them with why it is what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from flask import Response, request

from optimizer.bandit.localtime import at_zone
from optimizer.errors import NotFound
from optimizer.service.explain import explained
from optimizer.service.feedback import all_campaigns
from optimizer.service.ids import COLD_POLICY
from optimizer.web.console.charts import Scale
from optimizer.web.console.filters import Sayings
from optimizer.web.console.pages import Visit, console, see
from optimizer.web.console.whywords import contribution, why_told
from optimizer.web.paging import own_cursor
from storage.log import Decision, Group, Status

_ROWS = 50
_CONDITIONS = ("decision_id", "campaign_id", "recipient_id", "status")
#: Contributions that are drawn; the rest are summed up in one.
_DRAWN = 8
STATUSES: tuple[Status, ...] = get_args(Status)


@console.page("/decisions")
def decisions(visit: Visit) -> Response:
    """The newest decisions, all of them or those that were looked for."""
    asked = {name: request.args.get(name, "").strip() for name in _CONDITIONS}
    if asked["decision_id"]:
        return see("decision", decision_id=asked["decision_id"])
    return _listed(visit, asked)


def _listed(visit: Visit, asked: dict[str, str], unknown: str | None = None) -> Response:
    """The form with the decisions of its conditions; ``unknown``: an id that was looked for and that there is not."""
    status = asked["status"] if asked["status"] in STATUSES else None
    with own_cursor(), visit.services.store.read() as reader:
        page = reader.decisions(
            visit.workspace_id,
            limit=_ROWS,
            cursor=request.args.get("cursor") or None,
            campaign_id=asked["campaign_id"] or None,
            recipient_id=asked["recipient_id"] or None,
            status=status,
        )
        names = [c.campaign_id for c in all_campaigns(reader, visit.workspace_id)]
    kept = {name: value for name, value in asked.items() if value}
    return visit.show(
        "decisions.html",
        200 if unknown is None else 404,
        unknown=unknown,
        rows=[(one, local_time(one)) for one in page.items],
        cursor=page.cursor,
        asked=asked,
        kept=kept,
        first="cursor" not in request.args,
        campaign_ids=names,
        statuses=STATUSES,
    )


@console.page("/decisions/<id:decision_id>")
def decision(visit: Visit, decision_id: str) -> Response:
    """One decision and its explanation."""
    with visit.services.store.read() as reader:
        found = reader.decision(visit.workspace_id, decision_id)
        if found is None:
            return _listed(visit, dict.fromkeys(_CONDITIONS, ""), decision_id)
        events = reader.events(visit.workspace_id, found)
        campaign = reader.campaign(visit.workspace_id, found.campaign_id)
    say, why, sentence = Sayings(visit.language), None, None
    try:
        why, mode = explained(visit.services, visit.workspace_id, decision_id)
        sentence = why_told(say, why, mode)
    except NotFound:
        pass  # e.g. its policy or its campaign's version is no longer kept; the record is shown without
    return visit.show(
        "decision.html",
        decision=found,
        campaign=campaign,
        local=local_time(found),
        events=events,
        about=group_about(found.group, learned=found.policy_id != COLD_POLICY),
        why=why,
        sentence=sentence,
        comparisons=_comparisons(say, why),
        context={name: value for name, value in found.snapshot.context.items() if not name.startswith("@")},
    )


def group_about(group: Group, *, learned: bool) -> str:
    """The name of the words that say what a group gets: while nothing is learned, no policy chooses for the treated."""
    return "unlearned" if group == "treated" and not learned else group


def local_time(one: Decision) -> datetime | None:
    """When it is, or was, to be sent, in the zone that it was decided in; in UTC where this host doesn't know it."""
    at = one.sent_at or one.send_at
    return None if at is None else at_zone(at, one.snapshot.timezone)


@dataclass(frozen=True, slots=True)
class Bar:
    """A contribution as a bar to the left or to the right of the middle, in percent."""

    words: str
    size: float
    x: float
    width: float


def _comparisons(say: Sayings, why: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The comparisons, each rival once: the next best is often the best of another variant too."""
    found: dict[Any, dict[str, Any]] = {}
    for one in () if why is None else why["comparisons"]:
        rival = one["action"]
        found.setdefault((rival["variant_id"], rival["channel"], rival["send_at"]), _comparison(say, one))
    return list(found.values())


def _comparison(say: Sayings, told: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison with its largest contributions as bars."""
    shown: Sequence[Mapping[str, Any]] = told["contributions"][:_DRAWN]
    rest = sum(one["contribution"] for one in told["contributions"][_DRAWN:]) + told["residual"]
    largest = max((abs(one["contribution"]) for one in shown), default=0.0)
    largest = max(largest, abs(rest)) or 1.0
    x = Scale(-largest, largest, 0.0, 100.0)

    def bar(words: str, size: float) -> Bar:
        return Bar(words, size, min(x(size), 50.0), round(abs(x(size) - 50.0), 2))

    bars = [bar(contribution(say, one), one["contribution"]) for one in shown]
    return {**told, "bars": bars, "rest": bar("", rest)}
