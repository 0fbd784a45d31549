"""Recipients' weekly rhythms: what is tallied when something happens, and what a decision is told of it.

Tallied are, by local hour of the week:

* hours in which a recipient did something unprompted: events that name the recipient alone, once an hour;
* messages by the hour they went out, and those of them that were answered (opened, clicked, converted), once each.

Everything is exact in any order of reports: a message counts while its status says that it went out, an answer while
its message does, and what an earlier report had wrong is taken back. A weight doubles with every half-life, so that
the past fades without being touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from optimizer.bandit.localtime import Zone, known_zone
from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from optimizer.model.rhythm import EFFECT
from optimizer.model.timefeatures import DAY, hour_of_week_at
from optimizer.service.engagement import OUT, engages
from storage.bulk import NewEvents
from storage.errors import OneByOne
from storage.log import Decision, Event, Named
from storage.port import Writer
from storage.records import JsonObject
from storage.rhythm import RHYTHM_KINDS, RhythmKind, RhythmSum

#: Days in which a tally halves. On real logs likelihood hardly moved from 56 days to ever, where clocks could be relied
#: on; it wanted 14 where people's clocks jumped.
HALF_LIFE_DAYS = 90.0
#: The least of a count that is worth telling.
_LEAST = 0.01
#: Decimals of a count that is told.
_DIGITS = 3
_HOUR_MICROS = 3_600_000_000
_HOUR = 3_600


def note_active(writer: Writer, event: Event) -> None:
    """Tallies a stored event that names a recipient and no message, if it is the first of its kind in its hour.

    Someone of whom no zone is known is active at no local hour: neither the recipient's nor the campaign's, if any.
    Nor is someone whose zone this host doesn't know.
    """
    if event.recipient_id is None or not unprompted(event):
        return
    where = _zone_of(writer, event, event.recipient_id)
    if where is not None:
        _tally_hour(writer, (event.workspace_id, event.recipient_id), _hour(event), where, 1)


def note_all_active(writer: Writer, workspace_id: str, events: Sequence[Event]) -> None:
    """``note_active`` for events that were all stored before it is called."""
    hours: dict[tuple[str, int], list[Event]] = {}
    for event in events:
        if event.recipient_id is not None and unprompted(event):
            hours.setdefault((event.recipient_id, _hour(event)), []).append(event)
    people = writer.recipients(workspace_id, [recipient_id for recipient_id, _ in hours])
    for (recipient_id, start), there in hours.items():
        person = people.get(recipient_id)
        known = None if person is None else person.timezone
        where = _campaign_zone(writer, there[0]) if known is None else known_zone(known)
        if where is not None:
            _tally_hour(writer, (workspace_id, recipient_id), start, where, len(there))


def add_new_events(writer: Writer, workspace_id: str, events: NewEvents, zones: dict[str, str | None]) -> None:
    """Stores new events by column, none of them of ``MESSAGE_OUTCOMES``, and does what ``note_all_active`` does.

    Args:
        writer: the transaction.
        workspace_id: whose events they are.
        events: the events.
        zones: of recipients, as far as they were looked up before; those that weren't are added.

    Raises:
        OneByOne: the events are not all new, or an hour is to be read on the clock of an event's campaign.
    """
    unseen = [one for one in set(events.people) if one not in zones]
    zones.update(dict.fromkeys(unseen) | writer.timezones(workspace_id, unseen))
    known = list(map(zones.get, events.people))
    starts = [at - at % _HOUR_MICROS for at in events.occurred_at]
    hours = dict(zip(zip(events.people, starts, strict=True), known, strict=True))
    if None in known or True in events.automated:
        if any(name is None and one is not None for name, one in zip(known, events.campaigns, strict=True)):
            raise OneByOne("an event's campaign tells the hour")
        rows = zip(events.people, starts, known, events.automated, strict=True)
        hours = {(one, start): name for one, start, name, machine in rows if name is not None and not machine}
    before = writer.unprompted_hours(workspace_id, list(hours), MESSAGE_OUTCOMES)
    writer.add_new_events(workspace_id, events)
    places = {place: _place(*place) for place in {(start, name or "") for (_, start), name in hours.items()}}
    added = [
        (one, *place)
        for (one, start), name in hours.items()
        if (one, start) not in before and (place := places[start, name or ""]) is not None
    ]
    writer.add_to_rhythms(workspace_id, "active", added)


def _place(start: int, name: str) -> tuple[int, float] | None:
    """The hour of the week in a zone, and the weight, of what happened at a time in microseconds."""
    where = known_zone(name)
    if where is None:
        return None
    one = active_sum(start // 1_000_000, where)
    return one.hour, one.weight


def unprompted(event: Event) -> bool:
    """Whether someone did that by themselves."""
    of_nothing = event.decision_id is None and event.message_id is None and event.type not in MESSAGE_OUTCOMES
    return of_nothing and not event.automated


def _hour(event: Event) -> int:
    """The start of the hour in which it happened, in epoch seconds."""
    return int(event.occurred_at.timestamp()) // _HOUR * _HOUR


def _tally_hour(writer: Writer, person: tuple[str, str], start: int, where: Zone, new: int) -> None:
    """Tallies an hour in which a person was active, unless it is already: there was more than the ``new`` events."""
    since = datetime.fromtimestamp(start, UTC)
    types = writer.unprompted_types(*person, since, since + timedelta(hours=1))
    if sum(kind not in MESSAGE_OUTCOMES for kind in types) == new:
        writer.add_to_rhythm(*person, [active_sum(start, where)])


def note_message(writer: Writer, before: Decision, after: Decision, joined: Iterable[Event] = ()) -> None:
    """Tallies what has changed about a message: whether and when it went out, and whether it was answered.

    Args:
        writer: the transaction in which ``after`` and ``joined`` were stored.
        before: the decision as it was.
        after: as it is now.
        joined: events that were not the decision's before.
    """
    if before.status not in OUT and after.status not in OUT:
        return
    new = {event.event_id for event in joined if engages(writer, after, event)}
    if before == after and not new:
        return
    answers = [
        event.event_id
        for event in writer.events(after.workspace_id, after)
        if event.decision_id == after.decision_id and engages(writer, after, event)
    ]
    weights: dict[tuple[RhythmKind, int], float] = {}
    now = sums_of(after, answered=bool(answers))
    then = sums_of(before, answered=any(event_id not in new for event_id in answers))
    for sign, sums in ((1, now), (-1, then)):
        for one in sums:
            weights[one.kind, one.hour] = weights.get((one.kind, one.hour), 0.0) + sign * one.weight
    moved = [RhythmSum(*key, weight) for key, weight in weights.items() if weight != 0.0]
    if moved:
        writer.add_to_rhythm(after.workspace_id, after.recipient_id, moved)


def note_answered(writer: Writer, workspace_id: str, decisions: Iterable[Named]) -> None:
    """What ``note_message`` tallies of messages, of status ``OUT``, that were answered for the first time."""
    answered = [
        (one.recipient_id, _sum("answered", int(one.at.timestamp()), where))
        for one in decisions
        if one.at is not None and (where := known_zone(one.timezone)) is not None
    ]
    added = [(recipient_id, one.hour, one.weight) for recipient_id, one in answered]
    writer.add_to_rhythms(workspace_id, "answered", added)


def note_answer_changed(writer: Writer, decision: Decision, *, answered: bool) -> None:
    """Tallies that a message's answers turned out to be a person's after all (``answered``), or a machine's."""
    sums = [one for one in sums_of(decision, answered=True) if one.kind == "answered"]
    sign = 1.0 if answered else -1.0
    moved = [RhythmSum(one.kind, one.hour, sign * one.weight) for one in sums]
    if moved:
        writer.add_to_rhythm(decision.workspace_id, decision.recipient_id, moved)


def counts_of(sums: Sequence[RhythmSum], now: datetime) -> list[RhythmSum]:
    """The sums with their weights faded to ``now``, as counts: of what happened now 1, of a half-life ago one half."""
    unit = _weight(int(now.timestamp()))
    return [RhythmSum(one.kind, one.hour, round(one.weight / unit, _DIGITS)) for one in sums]


def effects_of(sums: Sequence[RhythmSum], now: datetime) -> JsonObject:
    """What a decision at ``now`` is told: by kind, pairs of an hour of the week and its decayed count; {} = nothing."""
    if not sums:
        return {}
    told: dict[str, list[list[float]]] = {kind: [] for kind in RHYTHM_KINDS}
    for one in counts_of(sums, now):
        if one.weight >= _LEAST:
            told[one.kind].append([one.hour, one.weight])
    kept = {kind: pairs for kind, pairs in told.items() if pairs}
    return {EFFECT: kept} if kept else {}


def _zone_of(writer: Writer, event: Event, recipient_id: str) -> Zone | None:
    recipient = writer.recipient(event.workspace_id, recipient_id)
    if recipient is not None and recipient.timezone is not None:
        return known_zone(recipient.timezone)
    return _campaign_zone(writer, event)


def _campaign_zone(writer: Writer, event: Event) -> Zone | None:
    campaign = None if event.campaign_id is None else writer.campaign(event.workspace_id, event.campaign_id)
    return None if campaign is None or campaign.timezone is None else known_zone(campaign.timezone)


def sums_of(decision: Decision, *, answered: bool) -> list[RhythmSum]:
    """What a message adds to its recipient's tallies."""
    at = decision.sent_at or decision.send_at
    where = known_zone(decision.snapshot.timezone)
    if decision.status not in OUT or at is None or where is None:
        return []
    kinds: tuple[RhythmKind, ...] = ("sent", "answered") if answered else ("sent",)
    return [_sum(kind, int(at.timestamp()), where) for kind in kinds]


def active_sum(at: int, where: Zone) -> RhythmSum:
    """What an hour in which someone did something unprompted adds; it began at ``at``, in epoch seconds."""
    return _sum("active", at, where)


def _sum(kind: RhythmKind, at: int, where: Zone) -> RhythmSum:
    return RhythmSum(kind, hour_of_week_at(at + where.offset(at)), _weight(at))


def _weight(at: int) -> float:
    """2^(t / half-life): of today some 2^200, and finite for another two centuries."""
    return float(2.0 ** (at / (HALF_LIFE_DAYS * DAY)))
