"""A recipient: what is stored of the person, what they got and did, when they are there, what is open to them now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from flask import Response, request

from optimizer.bandit.groups import assign
from optimizer.errors import NotFound, SendtideError
from optimizer.model.rhythm import EFFECT
from optimizer.service import erasing, exports
from optimizer.service.erased import is_pseudonym
from optimizer.service.feedback import all_campaigns
from optimizer.service.ids import COLD_POLICY
from optimizer.service.requests import DecisionRequest
from optimizer.service.rhythms import effects_of
from optimizer.web.console.charts import Cell, intensity
from optimizer.web.console.decisions import group_about, local_time
from optimizer.web.console.pages import Visit, console, see
from optimizer.web.operation import ORJSON
from storage.log import OPEN, Decision, Event, Group, Message
from storage.port import Reader
from storage.records import Campaign, Recipient

#: Decisions whose story is told; older ones are found among the decisions.
_TOLD: Final = 40
#: Campaigns that are asked what is open to the recipient.
_ASKED: Final = 5
_EVER: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


@console.page("/recipients")
def recipients(visit: Visit) -> Response:
    """Looks a recipient up by id."""
    asked = request.args.get("recipient_id", "").strip()
    if asked:
        return see("recipient", recipient_id=asked)
    return _asked_for(visit)


def _asked_for(visit: Visit, unknown: str | None = None) -> Response:
    """The form, with whom was decided for; ``unknown``: an id that was looked for and that nothing is stored of."""
    with visit.services.store.read() as reader:
        newest = reader.decisions(visit.workspace_id, limit=50).items
    shown = list(dict.fromkeys(one.recipient_id for one in newest))[:12]
    return visit.show("recipients.html", 200 if unknown is None else 404, newest=shown, unknown=unknown)


@console.page("/recipients/<any_id:recipient_id>")
def recipient(visit: Visit, recipient_id: str) -> Response:
    """One recipient."""
    workspace_id = visit.workspace_id
    with visit.services.store.read() as reader:
        person = reader.recipient(workspace_id, recipient_id)
        page = reader.decisions(workspace_id, limit=_TOLD, recipient_id=recipient_id)
        told = Story.read(reader, workspace_id, recipient_id, page.items)
        if not erasing.is_known(reader, workspace_id, recipient_id):
            return _asked_for(visit, recipient_id)
        reserved = reader.open_decisions(workspace_id, recipient_id)
        sums = reader.rhythms(workspace_id, [recipient_id]).get(recipient_id, ())
        unanswered = reader.unanswered(workspace_id, [recipient_id]).get(recipient_id, 0)
        campaigns = _live_campaigns(reader, workspace_id)
        groups = _groups(visit, reader, recipient_id, page.items)
    return visit.show(
        "recipient.html",
        recipient_id=recipient_id,
        person=person,
        groups=groups,
        reserved=[(one, local_time(one)) for one in reserved if one.status in OPEN],
        entries=told.entries(),
        more=page.cursor is not None,
        rhythm=_rhythm(effects_of(sums, visit.now)),
        unanswered=unanswered,
        nobody=(nobody := is_pseudonym(recipient_id)),
        openings=[] if nobody else [_opening(visit, one, recipient_id) for one in campaigns],
        consents=_consents(person, campaigns),
    )


@console.page("/export/<any_id:recipient_id>", scope="admin")
def export_recipient(visit: Visit, recipient_id: str) -> Response:
    """Everything that is stored of the person, as a file for them."""
    told = exports.of_recipient(visit.services, visit.workspace_id, recipient_id)
    raw = orjson.dumps(told, option=ORJSON | orjson.OPT_INDENT_2)
    # The person's id is no part of the file's name: downloads lie about.
    headers = {"Content-Disposition": 'attachment; filename="recipient.json"'}
    return Response(raw, content_type="application/json", headers=headers)


@console.page("/erase/<any_id:recipient_id>", scope="admin")
def confirm_erase(visit: Visit, recipient_id: str) -> Response:
    """Asks whether it is meant."""
    with visit.services.store.read() as reader:
        known = erasing.is_known(reader, visit.workspace_id, recipient_id)
    if not known:
        raise NotFound(f"nothing is stored of recipient {recipient_id!r} in this workspace")
    return visit.show("confirm_erase.html", recipient_id=recipient_id)


@console.action("/erase/<any_id:recipient_id>")
def erase_recipient(visit: Visit, recipient_id: str) -> Response:
    """Erases the person."""
    done = erasing.erase(visit.services, visit.workspace_id, recipient_id)
    return visit.show("erased.html", done=done)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something on the time line. ``kind`` is ``decision``, ``message`` (another system's) or ``event``."""

    at: datetime
    kind: str
    decision: Decision | None = None
    event: Event | None = None
    message: Message | None = None


@dataclass(frozen=True)
class Story:
    """What is known of a recipient's past."""

    decisions: Sequence[Decision]
    messages: Sequence[Message]
    events: dict[str, tuple[Event, Decision | None]] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader, workspace_id: str, recipient_id: str, decisions: Sequence[Decision]) -> Story:
        """The story of these decisions, with what other systems sent and what else was reported of the person, the
        newest of each."""
        known = reader.messages(workspace_id, [recipient_id], *_EVER).get(recipient_id, ())
        story = cls(decisions, [one for one in known if one.decision_id is None][-_TOLD:])
        for decision in decisions:
            for event in reader.events(workspace_id, decision):
                own = decision if event.decision_id == decision.decision_id else None
                story.events.setdefault(event.event_id, (event, own))
        about = [event for event, _ in reader.events_about(workspace_id, recipient_id) if event.decision_id is None]
        for event in sorted(about, key=lambda one: one.occurred_at)[-_TOLD:]:
            story.events.setdefault(event.event_id, (event, None))
        return story

    def entries(self) -> list[Entry]:
        """Everything, the newest first."""
        return sorted(self._all(), key=lambda one: one.at, reverse=True)

    def _all(self) -> Iterator[Entry]:
        for decision in self.decisions:
            yield Entry(decision.sent_at or decision.send_at or decision.decided_at, "decision", decision)
        for event, answered in self.events.values():
            yield Entry(event.occurred_at, "event", answered, event)
        for message in self.messages:
            yield Entry(message.at, "message", message=message)


def _groups(
    visit: Visit, reader: Reader, recipient_id: str, decisions: Sequence[Decision]
) -> list[tuple[str, Group, str]]:
    """The group that a request would find the recipient in now, in each campaign of these decisions that goes on, with
    what that means there: since they were made, its shares may have changed."""
    salt, workspace_id = visit.services.salt, visit.workspace_id
    known = [reader.campaign(workspace_id, name) for name in sorted({one.campaign_id for one in decisions})]
    active = [one for one in known if one is not None and one.status == "active"]
    pointers = [one for one in reader.pointers() if one.workspace_id == workspace_id]
    learned = {one.campaign_id for one in pointers if one.policy_id != COLD_POLICY}
    groups = [
        (one.campaign_id, assign(salt, workspace_id, one.campaign_id, recipient_id, one.groups)) for one in active
    ]
    return [(name, group, group_about(group, learned=name in learned)) for name, group in groups]


def _live_campaigns(reader: Reader, workspace_id: str) -> list[Campaign]:
    """The most urgent campaigns that would answer."""
    active = [one for one in all_campaigns(reader, workspace_id) if one.status == "active" and one.mode != "paused"]
    return sorted(active, key=lambda one: (-one.priority, one.campaign_id))[:_ASKED]


def _opening(visit: Visit, campaign: Campaign, recipient_id: str) -> dict[str, Any]:
    """What a request for this campaign would find open now; nothing is reserved and nothing logged by asking."""
    asked = DecisionRequest(campaign.campaign_id, recipient_id, preview=True)
    try:
        found, _ = visit.services.decider.decide(visit.workspace_id, asked)
    except SendtideError as fault:
        return {"campaign": campaign, "fault": fault.detail}
    return {"campaign": campaign, "fault": None, "decision": found}


def _rhythm(effects: Any) -> dict[str, Any] | None:
    """When the recipient answered and did things by themselves, by local hour of the week."""
    told = effects.get(EFFECT, {})
    weights, seen = [0.0] * 168, [0.0] * 168
    for kind in ("active", "answered"):
        for hour, count in told.get(kind, ()):
            weights[int(hour)] += count
    for hour, count in told.get("sent", ()):
        seen[int(hour)] += count
    if not any(weights) and not any(seen):
        return None
    cells: list[Cell] = intensity(weights)
    return {"cells": cells, "answers": sum(weights), "sent": sum(seen)}


def _consents(person: Recipient | None, campaigns: Sequence[Campaign]) -> list[tuple[str, bool | None, str]]:
    """Each channel with what the recipient said of it (None = nothing), and where."""
    if person is None:
        return []
    names = dict.fromkeys([*person.channels, *(channel.id for one in campaigns for channel in one.channels)])
    found: list[tuple[str, bool | None, str]] = []
    for name in names:
        consent = person.channels.get(name)
        found.append((name, None, "") if consent is None else (name, consent.state, consent.source or ""))
    return found
