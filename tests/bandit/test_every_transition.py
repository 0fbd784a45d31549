"""Every zone of the time zone database, around every change of its clock from 2024 to 2030, and some odd ones before.

Slots lie every quarter of an hour from a day and two hours before the change to as long after it, and one second around
it. What must hold is said in words of ``zoneinfo``. The suite looks at every twelfth zone and the odd ones; with
``pytest tests/bandit/test_every_transition.py -n 0 --hypothesis-profile=thorough`` it is all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import settings

from optimizer.bandit.actions import ActionSpace, build_baseline_space, build_space
from optimizer.bandit.eligibility import Eligibility, Question, eligible_many
from optimizer.bandit.localtime import zone
from storage.log import Message
from storage.records import Baseline, Campaign, Channel, Recipient, Variant
from storage.rules import Blackout, Cap, QuietHours, Rule, RuleParameters, Selector
from tests.bandit.rules_reference import period, quiet_blocks

#: Zones with date lines, half hours, changes at midnight; with changes before 2024 that are worth a look.
ODD = {
    "Pacific/Apia": ["2011-12-30T10:00"],
    "Pacific/Kwajalein": ["1993-08-21T12:00"],
    "America/St_Johns": ["2010-11-07T02:31"],
    "America/Sao_Paulo": ["2018-11-04T03:00", "2018-02-18T02:00"],
    "Asia/Pyongyang": ["2018-05-04T15:00"],
    "Asia/Kathmandu": ["2028-02-28T18:15"],
    "Australia/Lord_Howe": [],
    "Africa/Casablanca": [],
    "Asia/Gaza": [],
    "Asia/Beirut": [],
    "America/Nuuk": [],
    "Antarctica/Troll": [],
    "Europe/Berlin": ["2028-02-28T23:00", "2024-02-28T23:00"],
}
NIGHT, JUMP = QuietHours("21:00", "08:00"), QuietHours("01:45", "02:30")
#: One rule a channel, so that one question tests all.
CHANNELS: dict[str, RuleParameters] = {
    "night": NIGHT,
    "jump": JUMP,
    "day": Cap(1, calendar="day"),
    "week": Cap(1, calendar="week"),
    "month": Cap(1, calendar="month"),
    "blackout": Blackout(country_holidays=True, default_country="ZZ"),
}
RULES = [
    Rule("w", name, "cap", parameters, Selector(channels=(name,)), Selector(channels=(name,)))
    for name, parameters in CHANNELS.items()
]
THEN = datetime(2026, 1, 1, tzinfo=UTC)
CAMPAIGN = Campaign("w", "c", (Variant("v"),), tuple(Channel(c) for c in CHANNELS), THEN, THEN)
AROUND = timedelta(hours=26)


@dataclass(frozen=True)
class Change:
    """A moment at which the clock of a zone changes (or could), and the message that was sent half an hour before."""

    zone: str
    at: datetime

    @property
    def sent(self) -> datetime:
        return self.at - timedelta(minutes=30)


@cache
def info(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def wall(at: datetime, name: str) -> datetime:
    return at.astimezone(info(name)).replace(tzinfo=None)


def offset(name: str, epoch: int) -> timedelta | None:
    return datetime.fromtimestamp(epoch, info(name)).utcoffset()


def transitions(name: str) -> list[datetime]:
    """Every change of 2024–2030, by ``zoneinfo`` alone; changes lie at least 6.9 days apart."""
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2024, 2031))
    found = []
    for low in range(first, last, 5 * 86_400):
        high = low + 5 * 86_400
        if offset(name, low) == offset(name, high):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(name, middle) == offset(name, low) else (low, middle)
        found.append(datetime.fromtimestamp(high, UTC))
    return found


@cache
def changes() -> tuple[Change, ...]:
    everything = settings().max_examples >= 20_000
    names = sorted(available_timezones() - {"localtime", "posixrules"})
    chosen = names if everything else sorted({*names[::12], *ODD})
    ordinary = ["2026-06-15T00:00"]  # a zone whose clock never moves is looked at too
    return tuple(
        Change(name, at)
        for name in chosen
        for at in [*transitions(name), *(datetime.fromisoformat(t + "Z") for t in ODD.get(name, []) + ordinary)]
    )


def space(change: Change) -> ActionSpace:
    at = int(change.at.timestamp())
    steps = range(-int(AROUND.total_seconds()), int(AROUND.total_seconds()) + 1, 900)
    send_at = np.array(sorted({at + step for step in [*steps, -1, 1]}), np.int64)
    local = send_at + zone(change.zone).offsets(send_at)
    return ActionSpace(("v",), tuple(CHANNELS), send_at, local, no_send=False)


def question(change: Change) -> Question:
    sent = [Message("w", "u", change.sent, name, name, "marketing") for name in CHANNELS]
    holiday = (wall(change.at, change.zone).date() - date(1970, 1, 1)).days
    holidays = {"ZZ": frozenset({holiday})}
    return Question(space(change), CAMPAIGN, Recipient("w", "u"), sent, zone(change.zone), holidays=holidays)


@pytest.fixture(scope="module")
def answers() -> list[tuple[Change, list[datetime], Eligibility]]:
    found = eligible_many([question(change) for change in changes()], RULES)
    slots = [[datetime.fromtimestamp(t, UTC) for t in space(change).send_at.tolist()] for change in changes()]
    return list(zip(changes(), slots, found, strict=True))


Answers = list[tuple[Change, list[datetime], Eligibility]]


def shut(change: Change, channel: str, at: datetime) -> bool:
    """Whether a channel must be closed at a moment."""
    name, parameters = change.zone, CHANNELS[channel]
    if isinstance(parameters, QuietHours):
        return quiet_blocks(parameters, at, name)
    if isinstance(parameters, Cap):
        per, start = parameters.calendar, parameters.week_start
        return period(per, start, at, name) == period(per, start, change.sent, name)
    return wall(at, name).date() == wall(change.at, name).date()


def test_exactly_the_slots_of_quiet_hours_full_periods_and_holidays_are_closed(answers: Answers) -> None:
    for change, slots, found in answers:
        expected = [[not shut(change, channel, at) for channel in CHANNELS] for at in slots]
        assert found.mask.reshape(len(slots), len(CHANNELS)).tolist() == expected, change


def test_what_is_closed_opens_at_the_very_second_that_is_told(answers: Answers) -> None:
    told = 0
    for change, slots, found in answers:
        for reason in found.reasons:
            opens = reason.next_eligible_at
            assert opens is not None, change
            first = next(at for at in slots if shut(change, reason.rule_id, at))
            assert opens > first
            assert not shut(change, reason.rule_id, opens), (change, reason)
            assert shut(change, reason.rule_id, opens - timedelta(seconds=1)), (change, reason)
            told += 1
    assert told > 4 * len(answers)


def test_one_message_a_day_is_one_for_every_local_date_and_no_more() -> None:
    """Takes the first open slot again and again: no date is lost, and one whose hour is repeated counts once."""
    daily = [Rule("w", "day", "cap", Cap(1, calendar="day"))]
    asked = [replace(question(change), messages=[]) for change in changes()]
    sent: list[list[datetime]] = [[] for _ in asked]
    for _ in range(5):
        for i, found in enumerate(eligible_many(asked, daily)):
            if found.mask.any():
                at = datetime.fromtimestamp(int(asked[i].space.send_at[int(found.mask.argmax()) // len(CHANNELS)]), UTC)
                sent[i].append(at)
                asked[i] = replace(asked[i], messages=[*asked[i].messages, Message("w", "u", at, str(at), "a", "b")])
    for change, one, times in zip(changes(), asked, sent, strict=True):
        slots = [datetime.fromtimestamp(t, UTC) for t in one.space.send_at.tolist()]
        dates = [wall(at, change.zone).date() for at in times]
        assert len(dates) == len(set(dates)), change
        assert set(dates) == {wall(at, change.zone).date() for at in slots}, change


def test_slots_are_instants_of_the_future_each_once_and_read_as_the_wall_clock_does() -> None:
    for change in changes():
        start = change.at - timedelta(hours=3, seconds=1.5)
        built = build_space(
            variants=("v",),
            channels=("email",),
            window=(start, change.at + timedelta(hours=3)),
            slot_minutes=15,
            spread=True,
            immediate=False,
            no_send=False,
            decision_id=change.zone,
            zone=zone(change.zone),
        )
        times = built.send_at.tolist()
        assert times == sorted(set(times))
        assert len(times) == 25
        assert times[0] >= start.timestamp()
        read = [datetime.fromtimestamp(local, UTC).replace(tzinfo=None) for local in built.local.tolist()]
        assert read == [wall(datetime.fromtimestamp(at, UTC), change.zone) for at in times]


def test_a_baseline_has_one_slot_for_every_date_whatever_the_clock_does() -> None:
    """A time that is skipped moves by the jump, one that is repeated is the first of the two."""
    for change in changes():
        before = wall(change.at - timedelta(seconds=1), change.zone)
        for shift in (-30, 30):
            clock = (before + timedelta(minutes=shift, seconds=1)).strftime("%H:%M")
            start, end = change.at - 3 * timedelta(days=1), change.at + 3 * timedelta(days=1)
            built = build_baseline_space(
                baseline=Baseline("v", "email", clock),
                window=(start, end),
                decision_id="d",
                zone=zone(change.zone),
                moves=False,
            )
            found = [datetime.fromtimestamp(t, UTC) for t in built.send_at.tolist()]
            hours, minutes = (int(part) for part in clock.split(":"))
            days = [start.date() + timedelta(days=n) for n in range(-3, 10)]
            naive = [datetime(d.year, d.month, d.day, hours, minutes, tzinfo=info(change.zone)) for d in days]
            expected = sorted({n.astimezone(UTC) for n in naive})
            assert found == [at for at in expected if start <= at < end], (change, clock)
