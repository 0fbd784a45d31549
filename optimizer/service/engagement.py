"""How many messages a recipient has left unanswered: what adaptive caps look at.

The store keeps one count for each recipient. A message adds one when it first counts as sent (confirmed or assumed),
and takes it back should an assumed one turn out not to have gone out. An engagement with a message (``opened``,
``clicked``, ``converted``, or what its campaign maps to one of them) sets the count to 0. A message whose answer is
known before its confirm adds nothing, so that the order of reports doesn't matter. What names a recipient only is no
answer to a message.
"""

from __future__ import annotations

from collections.abc import Iterable

from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from storage.log import Decision, Event, Status
from storage.port import Writer

#: Outcomes by which a recipient shows to have read a message. A machine's (``automated``) shows nothing.
ENGAGING = frozenset({"opened", "clicked", "converted"})
#: Statuses in which a message counts as having gone out.
OUT: frozenset[Status] = frozenset({"sent", "assumed_sent"})


def note_engagement(writer: Writer, decision: Decision, events: Iterable[Event]) -> None:
    """Clears the recipient's count if one of these events, new to ``decision``, is an engagement."""
    if any(engages(writer, decision, event) for event in events):
        writer.clear_unanswered(decision.workspace_id, decision.recipient_id)


def note_sent(writer: Writer, before: Decision, after: Decision) -> None:
    """Counts a message that has come to count as sent, takes back one that no longer does.

    Args:
        writer: the transaction in which ``after`` was stored and joined with the events that awaited it.
        before: the decision as it was.
        after: as it is now.
    """
    change = (after.status in OUT) - (before.status in OUT)
    if change and not _answered(writer, after):
        writer.add_unanswered(after.workspace_id, after.recipient_id, change)


def _answered(writer: Writer, decision: Decision) -> bool:
    return any(
        event.decision_id == decision.decision_id and engages(writer, decision, event)
        for event in writer.events(decision.workspace_id, decision)
    )


def engages(writer: Writer, decision: Decision, event: Event) -> bool:
    """Whether an event of a decision's message shows that a person read it."""
    if event.automated or event.type in ENGAGING:
        return not event.automated
    if event.type in MESSAGE_OUTCOMES:  # the common case, and no campaign needs to be read for it
        return False
    campaign = writer.campaign(decision.workspace_id, decision.campaign_id)
    mapping = None if campaign is None else campaign.event_mapping.get(event.type)
    return mapping is not None and mapping.outcome in ENGAGING
