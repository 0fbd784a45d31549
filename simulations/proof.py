"""Whether one reservation kept one rule: plain, slow and obviously right, in the words of the contract.

Written from the contract alone, for the audit. It shares no code with what enforces the rules, neither the arithmetic
nor the selectors: a mistake there must not be repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from simulations.holdings import Counting, Held, Times
from storage.records import Cap, QuietHours, Recipient, Rule, Selector

Verdict = Literal["kept", "violated", "unknown"]
#: Channels on which only a recorded yes allows a message.
NEEDS_YES = ("sms", "push", "whatsapp", "voice")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MIDNIGHT_AFTER = "24:00"

Inside = Callable[[datetime], bool]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and in a few words why; ``others`` are the messages that filled the cap."""

    verdict: Verdict
    detail: str = ""
    others: tuple[str, ...] = ()


KEPT = Judgement("kept")


def in_force(rule: Rule) -> bool:
    """Whether a rule masks anything as it stands."""
    return rule.enabled and not rule.archived and not rule.dry_run


def selects(selector: Selector, message: Held) -> bool:
    """Whether a selector speaks of this message: each list that is given must agree."""
    wanted = (
        (selector.channels, message.channel),
        (selector.categories, message.category),
        (selector.campaigns, message.campaign_id),
    )
    unwanted = (
        (selector.except_channels, message.channel),
        (selector.except_categories, message.category),
        (selector.except_campaigns, message.campaign_id),
    )
    if any(names is not None and value not in names for names, value in wanted):
        return False
    return not any(names is not None and value in names for names, value in unwanted)


def binds(rule: Rule, message: Held) -> bool:
    """Whether the rule had to be kept by this reservation."""
    return message.judged and rule.rule_id not in message.overridden and selects(rule.applies_to, message)


def judge_rule(rule: Rule, judged: Held, others: Sequence[Held], counting: Counting) -> Judgement:
    """Judges a cap or quiet hours.

    Args:
        rule: one that binds ``judged``.
        judged: the reservation.
        others: the recipient's other messages, whenever they are.
        counting: tells which of them counted at the reservation.
    """
    if isinstance(rule.parameters, QuietHours):
        return judge_quiet(rule.parameters, judged)
    counted = [o for o in others if selects(rule.counts, o) and _may_share(rule.parameters, o, judged)]
    own_counts = selects(rule.counts, judged)
    known = [(o.ref, counting.times(o, judged, mutual=own_counts and binds(rule, o))) for o in counted]
    return judge_cap(rule.parameters, judged.planned, ZoneInfo(judged.timezone), known)


def _may_share(cap: Cap, other: Held, judged: Held) -> bool:
    """Saves asking for messages that are so far off that no window of the cap can hold both."""
    reach = timedelta(days=33) if cap.rolling_hours is None else timedelta(hours=min(cap.rolling_hours, 1e6))
    return any(abs(at - judged.planned) <= reach for at in (other.planned, other.sent_at) if at is not None)


def judge_cap(cap: Cap, at: datetime, zone: ZoneInfo, others: Sequence[tuple[str, Times]]) -> Judgement:
    """Whether every window of the cap that holds ``at`` stays within the limit, the new message included.

    A message whose place is not certain speaks against a reservation only where each of its possible places lies in
    the window. If the limit would be broken by counting it at some of them only, the answer is "unknown".
    """
    doubtful: tuple[str, ...] = ()
    for label, inside in _windows(cap, at, zone, others):
        certain = tuple(ref for ref, times in others if all(t is not None and inside(t) for t in times))
        if len(certain) + 1 > cap.limit:
            return Judgement("violated", f"{len(certain) + 1} in {label}, limit {cap.limit}", certain)
        possible = tuple(ref for ref, times in others if any(t is not None and inside(t) for t in times))
        if len(possible) + 1 > cap.limit:
            doubtful = doubtful or possible
    if doubtful:
        return Judgement("unknown", "the log doesn't tell which messages counted at the reservation", doubtful)
    return KEPT


def _windows(
    cap: Cap, at: datetime, zone: ZoneInfo, others: Sequence[tuple[str, Times]]
) -> Iterable[tuple[str, Inside]]:
    """The windows that hold ``at`` and may be the fullest ones: a label, and which times lie inside.

    Half-open rolling windows [s, s + length): moving s up to the next message loses none, so windows that start at a
    message, or at ``at`` itself, are enough.
    """
    if cap.rolling_hours is None:
        label = period(cap, at, zone)
        yield f"{cap.calendar} {label}", lambda t: period(cap, t, zone) == label
        return
    length = timedelta(microseconds=round(min(cap.rolling_hours, 1e7) * 3_600_000_000))
    starts = {t for _, times in others for t in times if t is not None and at - length < t <= at} | {at}
    for start in sorted(starts):
        yield f"{cap.rolling_hours:g} h from {start.isoformat()}", _within(start, start + length)


def _within(start: datetime, end: datetime) -> Inside:
    return lambda t: start <= t < end


def period(cap: Cap, at: datetime, zone: ZoneInfo) -> str:
    """The name of the local day, week or month that ``at`` falls into."""
    day = at.astimezone(zone).date()
    if cap.calendar == "day":
        return day.isoformat()
    if cap.calendar == "month":
        return f"{day.year:04}-{day.month:02}"
    return _week_start(day, WEEKDAYS.index(cap.week_start)).isoformat()


def _week_start(day: date, first: int) -> date:
    while day.weekday() != first:
        day -= timedelta(days=1)
    return day


def judge_quiet(hours: QuietHours, judged: Held) -> Judgement:
    """Whether the planned time lies outside the quiet nights on the recipient's wall clock."""
    local = judged.planned.astimezone(ZoneInfo(judged.timezone))
    if is_quiet(hours, local):
        return Judgement("violated", f"planned for {local.isoformat()}, quiet from {hours.start} to {hours.end}")
    return KEPT


def is_quiet(hours: QuietHours, local: datetime) -> bool:
    """Whether a wall clock time is quiet. A night that starts on a listed day ends where ``end`` next comes round."""
    return any(
        WEEKDAYS[night.weekday()] in hours.days and _in_night(hours, night, local.replace(tzinfo=None))
        for night in (local.date(), local.date() - timedelta(days=1))
    )


def _in_night(hours: QuietHours, night: date, clock: datetime) -> bool:
    start = _on(night, hours.start)
    end = _on(night, hours.end)
    if end <= start:
        end = _on(night + timedelta(days=1), hours.end)
    return start <= clock < end


def _on(day: date, clock: str) -> datetime:
    """``HH:MM`` of a day as a wall clock time without a zone; 24:00 is the next midnight."""
    if clock == _MIDNIGHT_AFTER:
        return datetime.combine(day + timedelta(days=1), time())
    hour, minute = clock.split(":")
    return datetime.combine(day, time(int(hour), int(minute)))


def judge_consent(judged: Held, recipient: Recipient | None, steady: bool) -> Judgement:
    """Whether the recipient had agreed to the channel; ``steady``: their record is as it was at the reservation."""
    consent = recipient.channels.get(judged.channel) if recipient is not None else None
    agreed = judged.channel not in NEEDS_YES if consent is None else consent.state
    if not steady:
        return Judgement("unknown", "the recipient's record has changed since")
    said = "no record of consent" if consent is None else "a recorded no"
    return KEPT if agreed else Judgement("violated", f"{said} for {judged.channel}")


def judge_suppression(judged: Held, recipient: Recipient | None, steady: bool, surely_before: datetime) -> Judgement:
    """Whether no recorded refusal covered the message.

    A refusal that an event recorded carries our own time and is never removed: it speaks whatever changed since.

    Args:
        judged: the reservation.
        recipient: the record as it is now.
        steady: whether that record is as it was at the reservation.
        surely_before: what was recorded until then was there at the reservation.
    """
    for refusal in recipient.suppressed if recipient is not None else ():
        covered = refusal.channel in ("*", judged.channel) and refusal.category in ("*", judged.category)
        own_time = refusal.at if (refusal.source or "").startswith("event:") else None
        if covered and (steady or (own_time is not None and own_time <= surely_before)):
            return Judgement("violated", f"refused: {refusal.channel}, {refusal.category} ({refusal.source})")
    return KEPT if steady else Judgement("unknown", "the recipient's record has changed since")
