"""Random questions about random rules of every kind: zones whose clocks change, windows around the changes, histories
on whole hours (often a microsecond off), so that windows' ends meet messages and slots exactly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import strategies as st

from optimizer.bandit.actions import ActionSpace, build_space
from optimizer.bandit.localtime import zone
from storage.log import Answer, Message
from storage.records import Campaign, Channel, Consent, Recipient, Requirement, Suppression, Variant
from storage.rules import (
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    QuietHours,
    Rule,
    RuleKind,
    RuleParameters,
    Selector,
    WarmUpStep,
    Weekday,
)
from tests.bandit.rules_reference import US, Case

WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CHANNELS = ("email", "push", "sms")
ALL = Selector()
KINDS: dict[type[RuleParameters], RuleKind] = {
    Cap: "cap",
    QuietHours: "quiet_hours",
    Blackout: "blackout",
    Capacity: "capacity",
    Budget: "budget",
}
#: Zones, each with instants around which something happens to its clock.
PLACES: dict[str, tuple[str, ...]] = {
    "UTC": ("2026-02-28T20:00", "2027-12-31T12:00", "2028-02-28T20:00"),
    "Europe/Berlin": ("2026-03-28T20:00", "2026-10-24T21:00", "2026-11-30T18:00"),
    "Pacific/Apia": ("2011-12-29T20:00", "2026-05-31T05:00"),
    "Pacific/Kwajalein": ("1993-08-20T20:00",),
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
    st.just(ALL),
    st.just(ALL),
    st.builds(Selector, channels=subsets),
    st.builds(Selector, except_channels=subsets),
    st.builds(Selector, categories=kinds, except_campaigns=origins),
    st.builds(Selector, campaigns=origins, except_categories=kinds),
    st.builds(Selector, subsets, subsets, kinds, kinds, origins, origins),
)
clocks = st.sampled_from(["00:00", "02:00", "02:30", "08:00", "09:15", "12:00", "21:00", "22:45"])
limits = st.sampled_from([0, 1, 1, 1, 2, 2, 2, 3])
adapts = st.sampled_from([None, None, Adapt(0, 1), Adapt(2, 0), Adapt(3, 1), Adapt(4, 2)])
lengths = st.sampled_from([0.5, 1.0, 4.0, 23.5, 24.0, 72.0, 168.0])
rolling = st.builds(Cap, limits, lengths, adapt=adapts)
gaps = st.builds(Cap, st.just(1), lengths)
calendar = st.builds(
    Cap, limits, st.none(), st.sampled_from(["day", "week", "month"]), st.sampled_from(WEEK), adapt=adapts
)
nights = st.builds(QuietHours, clocks, clocks, st.sets(st.sampled_from(WEEK), min_size=1).map(tuple) | st.just(WEEK))
budgets = st.builds(
    Budget,
    st.sampled_from([0, 400, 31_000, 60_000, 100_000]),
    st.sampled_from(["day", "week", "month"]),
    st.sampled_from(sorted(PLACES)),
    st.sampled_from(WEEK),
)
flags = st.sampled_from([(True, False, False)] * 8 + [(False, False, False), (True, True, False), (True, False, True)])


@st.composite
def blackouts(draw: st.DrawFn, around: date) -> Blackout:
    days = st.sets(st.integers(-2, 4) | st.integers(-2, 34), max_size=4)
    dates = tuple(sorted((around + timedelta(days=n)).isoformat() for n in draw(days)))
    return Blackout(dates, draw(st.booleans()), draw(st.sampled_from([None, "DE", "us", ""])))


@st.composite
def capacities(draw: st.DrawFn, around: date) -> Capacity:
    limit, minutes = draw(limits), draw(st.sampled_from([1, 60, 60, 360, 1440, 1440, 10_000]))
    steps = sorted(draw(st.sets(st.integers(1, 5), max_size=3)))
    if not steps:
        return Capacity(limit, minutes)
    starts = (around + timedelta(days=draw(st.integers(-4, 3)))).isoformat()
    return Capacity(limit, minutes, tuple(WarmUpStep(day, draw(limits)) for day in steps), starts)


@st.composite
def rules_of(draw: st.DrawFn, n: int, around: date) -> Rule:
    parameters = draw(st.one_of(rolling, calendar, gaps, nights, blackouts(around), capacities(around), budgets))
    enabled, dry_run, archived = draw(flags)
    applies_to, counts = draw(selectors), draw(selectors)
    return Rule("w", f"r{n}", KINDS[type(parameters)], parameters, applies_to, counts, enabled, dry_run, archived)


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
    country = draw(st.sampled_from([None, "DE", "de", "US", "XX", 7, ""]))
    return Recipient(
        "w",
        "u",
        attributes={} if country is None else {"country": country},
        channels={c: Consent(s) for c, s in states.items()},
        suppressed=(draw(refusals),) * draw(st.sampled_from([0, 0, 1])),
    )


requirements = st.builds(
    Requirement,
    st.sampled_from(["welcome", "welcome", "spring"]),
    st.sampled_from(["opened", "clicked"]),
    st.booleans(),
    st.sampled_from([1.0, 24.0, 72.0]),
    st.sampled_from([None, None, "hello", "bye"]),
)


@st.composite
def campaigns(draw: st.DrawFn) -> Campaign:
    asked = st.sampled_from([0, 0, 0, 0, 1, 2])
    made = campaign(*(tuple(draw(requirements) for _ in range(draw(asked))) for _ in range(2)))
    if draw(st.sampled_from([False, False, True])):
        made = replace(made, campaign_id="other", category="news", variants=made.variants[::-1])
    if draw(st.sampled_from([False, False, True])):
        made = replace(made, channels=tuple(replace(channel, cost=0.0004) for channel in made.channels))
    return made


def campaign(a: tuple[Requirement, ...] = (), b: tuple[Requirement, ...] = ()) -> Campaign:
    """Variants a and b, of which b costs something, on channels that cost nothing, a little, much."""
    then = datetime(2026, 1, 1, tzinfo=UTC)
    variants = (Variant("a", requires=a), Variant("b", cost=0.03, requires=b))
    return Campaign(
        "w", "spring", variants, (Channel("email"), Channel("push", 0.0004), Channel("sms", 0.03)), then, then
    )


# Whole hours around the window, often to the microsecond: then a window's ends meet messages and slots exactly.
jitters = st.sampled_from([timedelta(0), timedelta(0), US, -US, timedelta(minutes=17, seconds=5)])


SOURCES = [
    (channel, category, campaign_id)
    for channel in CHANNELS
    for category in ("marketing", "transactional")
    for campaign_id in (None, "spring", "welcome")
]


@st.composite
def messages(draw: st.DrawFn, start: datetime, count: int, *, cost: int = 0) -> list[Message]:
    hours = st.one_of(*[st.integers(-30, 60)] * 4, st.integers(-1000, 1000))
    places = st.tuples(hours, jitters, st.sampled_from(SOURCES), st.sampled_from([0, 400, 30_000]))
    found = draw(st.lists(places, min_size=count, max_size=count))
    return [
        Message("w", "u", start + timedelta(hours=hour) + jitter, f"m{i}", *source, cost=price if cost else 0)
        for i, (hour, jitter, source, price) in enumerate(found)
    ]


@st.composite
def answers(draw: st.DrawFn, now: datetime) -> tuple[Answer, ...]:
    found = []
    for campaign_id, variant_id in (("welcome", "hello"), ("welcome", "bye"), ("spring", "a")):
        if draw(st.sampled_from([True, True, False])):
            sent = now - timedelta(hours=draw(st.sampled_from([0, 1, 1, 23, 24, 30, 72, 100, -1]))) + draw(jitters)
            after = st.none() | st.sampled_from([-1, 0, 1, 24, 71, 72, 73])
            times = {name: draw(after) for name in ("opened", "clicked")}
            happened = {n: sent + timedelta(hours=h) + draw(jitters) for n, h in times.items() if h is not None}
            found.append(Answer(campaign_id, variant_id, sent, happened))
    return tuple(found)


@st.composite
def spaces(draw: st.DrawFn, start: datetime, where: str) -> ActionSpace:
    return build_space(
        variants=("a", "b")[: draw(st.integers(1, 2))],
        channels=CHANNELS[: draw(st.sampled_from([1, 2, 3, 3]))],
        window=(start, start + timedelta(hours=draw(st.sampled_from([1, 6, 24, 50])))),
        slot_minutes=draw(st.sampled_from([30, 60, 180])),
        spread=draw(st.booleans()),
        immediate=draw(st.sampled_from([False, False, False, True])),
        no_send=draw(st.booleans()),
        decision_id="dec",
        zone=zone(where),
    )


@st.composite
def cases(draw: st.DrawFn, parameters: st.SearchStrategy[RuleParameters] | None = None) -> Case:
    """One question; the rule's parameters may be given, then it is the only one."""
    name = draw(st.sampled_from(sorted(PLACES)))
    start = datetime.fromisoformat(draw(st.sampled_from(PLACES[name])) + "Z") + timedelta(
        hours=draw(st.integers(-60, 12))
    )
    if parameters is None:
        rules = [draw(rules_of(i, start.date())) for i in range(draw(st.sampled_from([1, 3, 4, 6])))]
    else:
        chosen = draw(parameters)
        rules = [Rule("w", "r", KINDS[type(chosen)], chosen, counts=draw(st.just(ALL) | selectors))]
    counts = st.sampled_from([0, 2, 4, 6, 8, 11, 14])
    near = [start.date() + timedelta(days=n) for n in draw(st.sets(st.integers(-1, 3), max_size=2))]
    return Case(
        draw(spaces(start, name)),
        draw(campaigns()),
        draw(recipients()),
        rules,
        draw(messages(start, draw(counts))),
        name,
        now=start,
        unanswered=draw(st.integers(0, 5)),
        answers=draw(answers(start)),
        holidays={"DE": frozenset(near), "US": frozenset(near[:1])},
        shared=tuple(draw(messages(start, draw(counts), cost=1))),
    )


@st.composite
def crowds(draw: st.DrawFn) -> list[Case]:
    """Up to nine questions under the same rules: most of one shape, about other people, and some of another."""
    first = draw(cases())
    crowd = [first]
    for _ in range(draw(st.integers(1, 6))):
        where = draw(st.sampled_from([first.zone, first.zone, "Asia/Kathmandu", "America/St_Johns"]))
        local = first.space.send_at + zone(where).offsets(first.space.send_at)
        alike = replace(
            first,
            space=replace(first.space, local=local),
            recipient=draw(recipients()),
            messages=draw(messages(first.now, draw(st.integers(0, 9)))),
            zone=where,
            unanswered=draw(st.integers(0, 5)),
            answers=draw(answers(first.now)),
        )
        crowd.append(alike)
    others = draw(st.lists(cases(), max_size=2))
    crowd += [replace(other, rules=first.rules, shared=first.shared) for other in others]
    return draw(st.permutations(crowd))
