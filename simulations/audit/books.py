"""Whether the books of what counts agree with the decisions, and what senders did otherwise than was reserved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from simulations.audit.holdings import GONE, SETTLED_AFTER, Held, final_place
from simulations.audit.scarce import Sums, period_at
from simulations.audit.verdicts import Judgement
from storage.log import HEARD, FeedbackRow, Message
from storage.port import Reader
from storage.records import Campaign
from storage.rules import MICROS, Rule

#: A message that leaves within this time of its plan is on time.
ON_TIME = timedelta(minutes=5)
#: Events that only a message that went out can cause.
PROOFS_OF_SENDING = frozenset({"delivered", "opened", "clicked"})
#: Wider than any period that a date of the years 1 to 9999 falls into.
_ALL_PERIODS = (-(10**12), 10**12)


def done_otherwise(row: FeedbackRow) -> Iterator[str]:
    """Names of what was done with this decision other than what it reserved.

    ``sent_early``, ``sent_late``: confirmed with another time. ``sent_after_<closed>``: confirmed after the reservation
    had ended. ``sent_unreserved``: events show a message where none was reserved or none was left.
    """
    d = row.decision
    if d.imported:
        return
    if d.status == "sent" and d.sent_at is not None and d.send_at is not None:
        if d.sent_at < d.send_at - ON_TIME:
            yield "sent_early"
        if d.sent_at > d.send_at + ON_TIME:
            yield "sent_late"
        if d.closed_at is not None and not _was_assumed(d.closed_at, d.send_at, d.close_reason):
            yield "sent_after_close" if d.sent_at >= d.closed_at else "confirmed_after_close"
    went_out = any(e.decision_id == d.decision_id and e.type in PROOFS_OF_SENDING for e in row.events)
    if went_out and (d.send_at is None or d.status in GONE):
        yield "sent_unreserved"


def _was_assumed(closed_at: datetime, send_at: datetime, reason: str | None) -> bool:
    """A late confirm of a message that was assumed sent: its place was never given back."""
    return reason in (None, HEARD) and closed_at >= send_at + SETTLED_AFTER


def misbooked(held: Iterable[Held], stored: Sequence[Message]) -> Iterator[tuple[Held, str]]:
    """Decisions whose stored place differs from what they say: lost, kept after the end, elsewhere, at another cost."""
    booked = {m.message_ref: m for m in stored if m.decision_id is not None}
    for one in held:
        found = booked.get(one.ref)
        right = final_place(one)
        if (None if found is None else found.at) != right:
            yield one, f"{one.status}: counts {_when(found.at if found else None)}, must count {_when(right)}"
        elif found is not None and _contents(found) != (one.channel, one.category, one.campaign_id, one.cost):
            yield one, f"booked as {_contents(found)}, not as {(one.channel, one.category, one.campaign_id, one.cost)}"


def ownerless(held: Iterable[Held], stored: Iterable[Message]) -> Iterator[Message]:
    """Messages that count for a decision which reserved none, or is not in the log."""
    known = {one.ref for one in held}
    return (m for m in stored if m.decision_id is not None and m.decision_id not in known)


def _contents(message: Message) -> tuple[str, str, str | None, int]:
    return message.channel, message.category, message.campaign_id, message.cost


def _when(at: datetime | None) -> str:
    return "not at all" if at is None else f"at {at.isoformat()}"


def judge_cost(held: Held, campaign: Campaign | None) -> Judgement | None:
    """Whether the stored cost is that of the variant and the channel; None = it is, or can't be told."""
    if campaign is None:
        return None
    prices = [v.cost for v in campaign.variants if v.id == held.variant_id]
    prices += [c.cost for c in campaign.channels if c.id == held.channel]
    right = round(sum(prices) * MICROS)
    if held.cost == right:
        return None
    return Judgement("violated", f"logged at {held.cost / MICROS:g}, variant and channel cost {right / MICROS:g}")


def miscounted(reader: Reader, workspace_id: str, rule: Rule, messages: Iterable[Held]) -> Iterator[str]:
    """Periods of a capacity or budget whose stored sum differs from that of the messages that count by now.

    Periods before the first that the store has a sum of are not looked at: retention deletes old sums. Where it has
    deleted messages of a period that it keeps the sum of, more may be booked than is left, and nothing less.
    """
    sums = Sums(rule)
    for held in messages:
        place = final_place(held)
        if place is not None:
            sums.move(held, frozenset(), frozenset({place}))
    stored = {period: used for (_, period), used in reader.usage(workspace_id, [(rule.rule_id, *_ALL_PERIODS)]).items()}
    first = min(stored, default=None)
    forgotten = reader.forgotten_until(workspace_id)
    cut = None if forgotten is None else period_at(sums.parameters, forgotten)
    for period in sorted(stored.keys() | sums.certain.keys()):
        if first is not None and period < first:
            continue
        booked, left = stored.get(period, 0), sums.certain.get(period, 0)
        if booked < left or (booked > left and (cut is None or period > cut)):
            yield f"period {period}: {booked} booked, {left} by the messages"
