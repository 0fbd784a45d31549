"""Eligibility against a slow reference that is obviously right and shares no code with it.

The reference asks one send time at a time: it slides windows over instants for rolling caps, compares local dates from
``zoneinfo`` for calendar caps, and writes every night down for quiet hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from optimizer.bandit.actions import ActionSpace, build_space
from optimizer.bandit.eligibility import Eligibility, eligible
from optimizer.bandit.localtime import zone
from storage.log import Message
from storage.records import (
    Campaign,
    Cap,
    Channel,
    Consent,
    QuietHours,
    Recipient,
    Rule,
    RuleKind,
    Selector,
    Suppression,
    Variant,
    Weekday,
)

WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CHANNELS = ("email", "push", "sms")
US = timedelta(microseconds=1)
ALL = Selector()
#: Furthest that a reason looks beyond the last slot.
REACH = {"day": timedelta(days=2), "week": timedelta(days=8), "month": timedelta(days=32)}


# --- the reference ---------------------------------------------------------------------------------------------------


def admits(selector: Selector, channel: str, category: str, campaign_id: str | None) -> bool:
    checks: tuple[tuple[tuple[str, ...] | None, tuple[str, ...] | None, str | None], ...] = (
        (selector.channels, selector.except_channels, channel),
        (selector.categories, selector.except_categories, category),
        (selector.campaigns, selector.except_campaigns, campaign_id),
    )
    for only, without, value in checks:
        if only is not None and value not in only:
            return False
        if without is not None and value in without:
            return False
    return True


def period(cap: Cap, at: datetime, info: ZoneInfo) -> object:
    day = at.astimezone(info).date()
    if cap.calendar == "day":
        return day
    if cap.calendar == "month":
        return day.year, day.month
    while WEEK[day.weekday()] != cap.week_start:
        day -= timedelta(days=1)
    return day


def cap_blocks(cap: Cap, at: datetime, counted: list[datetime], info: ZoneInfo) -> bool:
    if cap.rolling_hours is None:
        return sum(period(cap, m, info) == period(cap, at, info) for m in counted) + 1 > cap.limit
    length = timedelta(hours=cap.rolling_hours)
    # Sliding a half-open window changes what it holds only where an end of it meets an instant.
    starts = [x + shift for x in [*counted, at] for shift in (-length, -length + US, timedelta(0), US)]
    return any(sum(s <= m < s + length for m in counted) + 1 > cap.limit for s in starts if s <= at < s + length)


def quiet_blocks(hours: QuietHours, at: datetime, info: ZoneInfo) -> bool:
    now = at.astimezone(info).replace(tzinfo=None)
    for night in (now.date() - timedelta(days=1), now.date()):
        if WEEK[night.weekday()] not in hours.days:
            continue
        start = datetime.combine(night, time.fromisoformat(hours.start))
        end = datetime.combine(night, time.fromisoformat(hours.end))
        if end <= start:
            end += timedelta(days=1)
        if start <= now < end:
            return True
    return False


def blocks(rule: Rule, at: datetime, messages: list[Message], info: ZoneInfo) -> bool:
    if isinstance(rule.parameters, QuietHours):
        return quiet_blocks(rule.parameters, at, info)
    counted = [m.at for m in messages if admits(rule.counts, m.channel, m.category, m.campaign_id)]
    return cap_blocks(rule.parameters, at, counted, info)


def opens(rule: Rule, first: datetime, last: datetime, messages: list[Message], info: ZoneInfo) -> datetime | None:
    """First instant from ``first`` on that the rule allows, found by trying."""
    times = [m.at for m in messages]
    parameters = rule.parameters
    if isinstance(parameters, Cap) and parameters.rolling_hours is not None:
        length = timedelta(hours=parameters.rolling_hours)
        tries = sorted(x for m in times for x in (m - length, m, m + length) if x > first)
        limit = last + length
    else:
        # Local midnights, ends of nights and clock changes of these zones lie on a quarter of an hour, or one minute
        # after it (St. John's until 2011).
        reach = REACH[parameters.calendar] if isinstance(parameters, Cap) and parameters.calendar else timedelta(days=9)
        limit = last + reach
        quarter = first.replace(minute=0, second=0, microsecond=0)
        count = int((limit - quarter) / timedelta(minutes=15)) + 2
        tries = [quarter + timedelta(minutes=15 * i + late) for i in range(count) for late in (0, 1)]
        tries = [t for t in tries if t > first]
    for moment in [first, *tries]:
        if moment > limit:
            return None
        if not blocks(rule, moment, messages, info):
            return moment
    return None


@dataclass(frozen=True)
class Expected:
    mask: list[bool]
    reasons: list[tuple[str, str, int, datetime | None]]


def reference(case: Case, *, with_opening: bool = True) -> Expected:
    space, info = case.space, ZoneInfo(case.zone)
    slots = [datetime.fromtimestamp(int(t), UTC) for t in space.send_at]
    sends = [(v, at, c) for v in space.variants for at in slots for c in space.channels]
    allowed = [True] * len(sends)
    reasons: list[tuple[str, str, int, datetime | None]] = []
    refused = {
        "consent": [not consents(case, c) for _, _, c in sends],
        "suppression": [suppressed(case, c) for _, _, c in sends],
    }
    for kind, closed in refused.items():
        allowed = [a and not b for a, b in zip(allowed, closed, strict=True)]
        if any(closed):
            reasons.append((kind, kind, sum(closed), None))
    for rule in case.rules:
        if rule.archived or rule.dry_run or not rule.enabled:
            continue
        shut = {at: blocks(rule, at, case.messages, info) for at in slots}
        closed = [
            shut[at] and admits(rule.applies_to, c, case.campaign.category, case.campaign.campaign_id)
            for _, at, c in sends
        ]
        allowed = [a and not b for a, b in zip(allowed, closed, strict=True)]
        if any(closed):
            first = min(at for at in slots if shut[at])
            opening = opens(rule, first, slots[-1], case.messages, info) if with_opening else None
            reasons.append((rule.rule_id, rule.kind, sum(closed), opening))
    return Expected(allowed + [True] * space.no_send, reasons)


def consents(case: Case, channel: str) -> bool:
    if channel in case.recipient.channels:
        return case.recipient.channels[channel].state
    return channel not in ("sms", "push", "whatsapp", "voice")


def suppressed(case: Case, channel: str) -> bool:
    return any(
        (s.channel == "*" or s.channel == channel) and (s.category == "*" or s.category == case.campaign.category)
        for s in case.recipient.suppressed
    )


# --- random cases ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    space: ActionSpace
    campaign: Campaign
    recipient: Recipient
    rules: list[Rule]
    messages: list[Message]
    zone: str

    def run(self) -> Eligibility:
        return eligible(
            self.space,
            campaign=self.campaign,
            recipient=self.recipient,
            rules=self.rules,
            messages=self.messages,
            zone=zone(self.zone),
        )


#: Zones, each with instants around which something happens to its clock.
PLACES: dict[str, tuple[str, ...]] = {
    "UTC": ("2026-02-28T20:00", "2027-12-31T12:00"),
    "Europe/Berlin": ("2026-03-28T20:00", "2026-10-24T21:00", "2026-11-30T18:00"),
    "Pacific/Apia": ("2011-12-29T20:00", "2026-05-31T05:00"),
    "Asia/Kathmandu": ("2026-02-28T10:15", "2026-08-15T18:15"),
    "America/St_Johns": ("2010-11-06T20:00", "2010-03-13T22:30", "2026-11-01T00:00"),
    "Australia/Lord_Howe": ("2026-04-04T06:00", "2026-10-03T09:30"),
    "Africa/Casablanca": ("2026-02-14T20:00", "2026-03-21T21:00"),
    "America/Santiago": ("2026-04-04T20:00", "2026-09-05T21:00"),
}

subsets = st.sampled_from([None, ("email",), ("push", "sms"), ("email", "push"), ("fax",)])
kinds = st.sampled_from([None, ("marketing",), ("transactional", "news")])
origins = st.sampled_from([None, ("spring",), ("other", "welcome")])
# Of six random conditions one nearly always excludes everything; most selectors look at one thing, so that rules act.
selectors = st.one_of(
    st.just(ALL),
    st.builds(Selector, channels=subsets),
    st.builds(Selector, except_channels=subsets),
    st.builds(Selector, categories=kinds, except_campaigns=origins),
    st.builds(Selector, campaigns=origins, except_categories=kinds),
    st.builds(Selector, subsets, subsets, kinds, kinds, origins, origins),
)
clocks = st.sampled_from(["00:00", "02:00", "02:30", "08:00", "09:15", "12:00", "21:00", "22:45"])
rolling = st.builds(Cap, st.integers(0, 3), st.sampled_from([0.5, 1.0, 4.0, 23.5, 24.0, 72.0, 168.0]))
calendar = st.builds(
    Cap, st.integers(0, 3), st.none(), st.sampled_from(["day", "week", "month"]), st.sampled_from(WEEK)
)
nights = st.builds(QuietHours, clocks, clocks, st.sets(st.sampled_from(WEEK), min_size=1).map(tuple) | st.just(WEEK))
flags = st.sampled_from([(True, False, False)] * 6 + [(False, False, False), (True, True, False), (True, False, True)])


@st.composite
def rules_of(draw: st.DrawFn, n: int) -> Rule:
    parameters = draw(st.one_of(rolling, calendar, nights))
    enabled, dry_run, archived = draw(flags)
    kind: RuleKind = "cap" if isinstance(parameters, Cap) else "quiet_hours"
    applies_to, counts = draw(selectors), draw(selectors)
    return Rule("w", f"r{n}", kind, parameters, applies_to, counts, enabled, dry_run, archived)


@st.composite
def recipients(draw: st.DrawFn) -> Recipient:
    states = {
        c: state
        for c in CHANNELS
        if (state := draw(st.sampled_from([True, True, True, True, False, None]))) is not None
    }
    refusals = st.builds(
        Suppression, st.sampled_from(["*", "email", "push"]), st.sampled_from(["*", "marketing", "news", "news"])
    )
    return Recipient(
        "w",
        "u",
        channels={c: Consent(s) for c, s in states.items()},
        suppressed=(draw(refusals),) * draw(st.sampled_from([0, 0, 1])),
    )


@st.composite
def cases(draw: st.DrawFn, parameters: st.SearchStrategy[Cap | QuietHours] | None = None) -> Case:
    name = draw(st.sampled_from(sorted(PLACES)))
    anchor = datetime.fromisoformat(draw(st.sampled_from(PLACES[name])) + "Z")
    start = anchor + timedelta(hours=draw(st.integers(-60, 12)))
    space = build_space(
        variants=("a", "b")[: draw(st.integers(1, 2))],
        channels=CHANNELS[: draw(st.sampled_from([1, 2, 3, 3]))],
        window=(start, start + timedelta(hours=draw(st.sampled_from([1, 6, 24, 50])))),
        slot_minutes=draw(st.sampled_from([30, 60, 180])),
        spread=draw(st.booleans()),
        immediate=draw(st.sampled_from([False, False, False, True])),
        no_send=draw(st.booleans()),
        decision_id="dec",
        zone=zone(name),
    )
    # Whole hours around the window, often to the microsecond: then a window's ends meet messages and slots exactly.
    jitter = st.sampled_from([timedelta(0), timedelta(0), US, -US, timedelta(minutes=17, seconds=5)])
    messages = [
        Message(
            "w",
            "u",
            start
            + timedelta(hours=draw(st.integers(-30, 60) | st.integers(-30, 60) | st.integers(-1000, 1000)))
            + draw(jitter),
            f"m{i}",
            draw(st.sampled_from(CHANNELS)),
            draw(st.sampled_from(["marketing", "transactional"])),
            draw(st.sampled_from([None, "spring", "welcome"])),
        )
        for i in range(draw(st.sampled_from([0, 1, 2, 4, 6, 9])))
    ]
    if parameters is None:
        rules = [draw(rules_of(i)) for i in range(draw(st.sampled_from([1, 2, 3, 5])))]
    else:
        chosen = draw(parameters)
        rules = [Rule("w", "r", "cap" if isinstance(chosen, Cap) else "quiet_hours", chosen, counts=draw(selectors))]
    return Case(space, campaign(), draw(recipients()), rules, messages, name)


def campaign() -> Campaign:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    return Campaign("w", "spring", (Variant("a"), Variant("b")), (Channel("email"),), then, then)
