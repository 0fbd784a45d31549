"""How many messages a recipient has left unanswered: what adaptive caps look at.

The store keeps one count for each recipient. A message adds one when it first counts as sent (confirmed or assumed),
and takes it back should an assumed one turn out not to have gone out. An engagement with a message (``opened``,
``clicked``, ``converted``, or what its campaign maps to one of them) sets the count to 0. A message whose answer is
known before its confirm adds nothing, so that the order of reports doesn't matter. What names a recipient only is no
answer to a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from optimizer.bandit.eligibility import needs_unanswered
from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from storage.log import HEARD, Decision, Event, Named, Reply, Status, items_of
from storage.port import Reader, Writer
from storage.records import Campaign
from storage.rules import Rule

#: Outcomes by which a recipient shows to have read a message. A machine's (``automated``) shows nothing.
ENGAGING = frozenset({"opened", "clicked", "converted"})
#: Types that do what their names say, whatever a campaign maps them to.
UNMAPPED = MESSAGE_OUTCOMES | ENGAGING
#: A position in the order of commits, and a time for what shares one.
_Moment = tuple[int, datetime]
_NEVER: _Moment = (-1, datetime.min.replace(tzinfo=UTC))
#: Statuses in which a message counts as having gone out.
OUT: frozenset[Status] = frozenset({"sent", "assumed_sent"})


def note_engagement(writer: Writer, decision: Decision, events: Iterable[Event]) -> None:
    """Clears the recipient's count if one of these events, new to ``decision``, is an engagement."""
    if any(engages(writer, decision, event) for event in events):
        writer.clear_unanswered(decision.workspace_id, decision.recipient_id)


def out_at(before: Decision, now: datetime) -> datetime | None:
    """When a message came to count that is known now to have gone out: it may have counted ``before``."""
    return before.counted_at if before.status in OUT else now


def note_sent(writer: Writer, before: Decision, after: Decision) -> None:
    """Counts a message that has come to count as sent, takes back one that no longer does: unless an engagement has
    cleared it since, which the log alone tells.

    Args:
        writer: the transaction in which ``after`` was stored and joined with the events that awaited it.
        before: the decision as it was.
        after: as it is now.
    """
    change = (after.status in OUT) - (before.status in OUT)
    if change < 0:
        recount(writer, after.workspace_id, after.recipient_id)
    elif change and not _answered(writer, after):
        writer.add_unanswered(after.workspace_id, after.recipient_id, change)


def recount(writer: Writer, workspace_id: str, recipient_id: str) -> None:
    """Brings the recipient's count to what the log says, after events were judged anew: what a machine's open had
    cleared counts again.

    The order of commits tells whether a message came to count before or after an engagement was known; within one
    position our clock does. What one write tells has one time; there engagements come last, as they do in it.
    """
    count = _Course.of(writer, workspace_id, recipient_id).unanswered()
    writer.clear_unanswered(workspace_id, recipient_id)
    if count:
        writer.add_unanswered(workspace_id, recipient_id, count)


def unanswered_then(reader: Reader, decisions: Iterable[Decision], rules: Sequence[Rule]) -> dict[str, int]:
    """By decision, how many messages its recipient had left unanswered when it was made, for rules to be tried on it.

    Decisions that no adaptive cap looked at have nothing stored: of these the log tells as it says now, which reads
    each recipient's whole log. 0 where none of the rules adapts.
    """
    if not needs_unanswered(rules):
        return {one.decision_id: 0 for one in decisions}
    courses: dict[str, _Course] = {}
    found = {}
    for one in decisions:
        if one.snapshot.unanswered is not None:
            found[one.decision_id] = one.snapshot.unanswered
            continue
        course = courses.get(one.recipient_id)
        if course is None:
            course = courses[one.recipient_id] = _Course.of(reader, one.workspace_id, one.recipient_id)
        found[one.decision_id] = course.unanswered(one.position)
    return found


@dataclass(frozen=True)
class _Course:
    """When each of a recipient's messages came to count as sent, and when each engagement was known, by decision."""

    sent: tuple[tuple[_Moment, str], ...]
    engaged: tuple[tuple[_Moment, str], ...]

    @classmethod
    def of(cls, reader: Reader, workspace_id: str, recipient_id: str) -> _Course:
        """What the log says."""
        theirs = items_of(lambda at: reader.decisions(workspace_id, limit=500, cursor=at, recipient_id=recipient_id))
        decisions = {decision.decision_id: decision for decision in theirs}
        named = (
            (event, decision)
            for event, _ in reader.events_about(workspace_id, recipient_id)
            if event.matched and (decision := decisions.get(event.decision_id or "")) is not None
        )
        return cls(
            tuple((_counted(decision), name) for name, decision in decisions.items() if decision.status in OUT),
            tuple((_known(e, decision), decision.decision_id) for e, decision in named if engages(reader, decision, e)),
        )

    def unanswered(self, before: int | None = None) -> int:
        """How many messages were out and unanswered right before the decision of this position (None = now)."""
        engaged = [(at, name) for at, name in self.engaged if before is None or at[0] < before]
        answered = {name for _, name in engaged}
        last = max((at for at, _ in engaged), default=_NEVER)
        return sum(at > last and name not in answered for at, name in self.sent if before is None or at[0] < before)


def _known(event: Event, decision: Decision) -> _Moment:
    """When an engagement cleared the count. One that came before its decision waited for that, one that named its
    message by the provider's id for the confirm."""
    known = event.known_after, event.received_at
    if 0 < event.known_after < decision.position:  # where it is 0, nothing may have been noted
        known = decision.position, _NEVER[1]
    if event.message_id is None:
        return known
    if decision.joined_at is not None:
        return max(known, (decision.joined_after or 0, decision.joined_at))
    # An earlier version didn't note that any had waited.
    waited = decision.sent_after if decision.counted_at is None else None
    return max(known[0], waited or 0), known[1]


def _counted(decision: Decision) -> _Moment:
    """When a message came to count as sent. An earlier version noted no time of it; then the sender's has to do."""
    assumed = decision.closed_after if decision.close_reason in (None, HEARD) else None
    position = decision.sent_after if assumed is None else assumed
    return position or 0, decision.counted_at or decision.sent_at or decision.send_at or decision.decided_at


def _answered(writer: Writer, decision: Decision) -> bool:
    return any(
        event.decision_id == decision.decision_id and engages(writer, decision, event)
        for event in writer.events(decision.workspace_id, decision)
    )


def engages(reader: Reader, decision: Decision | Named, event: Event | Reply) -> bool:
    """Whether an event of a decision's message shows that a person read it."""
    return not event.automated and meaning(reader, decision, event.type) in ENGAGING


def meaning(reader: Reader, decision: Decision | Named, type: str) -> str:
    """The outcome that an event of this type is in the decision's campaign."""
    if type in UNMAPPED:  # the common case, and no campaign needs to be read for it
        return type
    campaign = reader.campaign(decision.workspace_id, decision.campaign_id)
    return type if campaign is None else meant(campaign, type)


def meant(campaign: Campaign, type: str) -> str:
    """The outcome that an event of this type is in a campaign."""
    mapping = None if type in UNMAPPED else campaign.event_mapping.get(type)
    return type if mapping is None else mapping.outcome
