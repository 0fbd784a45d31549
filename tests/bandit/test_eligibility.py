"""Eligibility against a slow reference that is obviously right and shares no code with it.

The reference asks one send time at a time: it slides windows over instants for rolling caps, compares local dates from
``zoneinfo`` for calendar caps, and writes every night down for quiet hours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.actions import ActionSpace, build_space
from optimizer.bandit.eligibility import Eligibility, eligible, span
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

EXAMPLES = max(300, settings().max_examples)
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
selectors = st.builds(Selector, subsets, subsets, kinds, kinds, origins, origins) | st.just(Selector())
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
def cases(draw: st.DrawFn, parameters: st.SearchStrategy[Cap | QuietHours] | None = None) -> Case:
    name = draw(st.sampled_from(sorted(PLACES)))
    anchor = datetime.fromisoformat(draw(st.sampled_from(PLACES[name])) + "Z")
    start = anchor + timedelta(hours=draw(st.integers(-60, 12)))
    space = build_space(
        variants=("a", "b")[: draw(st.integers(1, 2))],
        channels=CHANNELS[: draw(st.integers(1, 3))],
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
            start + timedelta(hours=draw(st.integers(-80, 130) | st.integers(-1000, 1000))) + draw(jitter),
            f"m{i}",
            draw(st.sampled_from(CHANNELS)),
            draw(st.sampled_from(["marketing", "transactional"])),
            draw(st.sampled_from([None, "spring", "welcome"])),
        )
        for i in range(draw(st.integers(0, 9)))
    ]
    if parameters is None:
        rules = [draw(rules_of(i)) for i in range(draw(st.integers(0, 4)))]
    else:
        chosen = draw(parameters)
        rules = [Rule("w", "r", "cap" if isinstance(chosen, Cap) else "quiet_hours", chosen, counts=draw(selectors))]
    states = draw(st.dictionaries(st.sampled_from(CHANNELS), st.sampled_from([True, True, True, False]), max_size=3))
    refusals = st.builds(
        Suppression, st.sampled_from(["*", "email", "push"]), st.sampled_from(["*", "marketing", "news", "news"])
    )
    recipient = Recipient(
        "w",
        "u",
        channels={c: Consent(s) for c, s in states.items()},
        suppressed=tuple(draw(st.lists(refusals, max_size=1))),
    )
    return Case(space, campaign(), recipient, rules, messages, name)


def campaign() -> Campaign:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    return Campaign("w", "spring", (Variant("a"), Variant("b")), (Channel("email"),), then, then)


# --- the promise -----------------------------------------------------------------------------------------------------


@given(cases())
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None)
def test_the_mask_and_the_counts_equal_the_reference(case: Case) -> None:
    found, expected = case.run(), reference(case, with_opening=False)
    assert found.mask.dtype == np.bool_
    assert found.mask.tolist() == expected.mask
    assert [(r.rule_id, r.kind, r.masked) for r in found.reasons] == [r[:3] for r in expected.reasons]


@given(cases(rolling))
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None)
def test_rolling_caps_and_their_openings_equal_the_reference(case: Case) -> None:
    assert_equal_with_openings(case)


@given(cases(calendar))
@settings(max_examples=EXAMPLES // 4, derandomize=True, deadline=None)
def test_calendar_caps_and_their_openings_equal_the_reference(case: Case) -> None:
    assert_equal_with_openings(case)


@given(cases(nights))
@settings(max_examples=EXAMPLES // 4, derandomize=True, deadline=None)
def test_quiet_hours_and_their_openings_equal_the_reference(case: Case) -> None:
    assert_equal_with_openings(case)


def assert_equal_with_openings(case: Case) -> None:
    found, expected = case.run(), reference(case)
    assert found.mask.tolist() == expected.mask
    assert [(r.rule_id, r.kind, r.masked, r.next_eligible_at) for r in found.reasons] == expected.reasons


@given(cases())
@settings(max_examples=100, derandomize=True, deadline=None)
def test_messages_outside_the_span_and_their_order_change_nothing(case: Case) -> None:
    start, end = span(case.rules, case.space)
    inside = [m for m in case.messages if start <= m.at <= end]
    first, second = case.run(), replace(case, messages=inside[::-1]).run()
    assert first.mask.tolist() == second.mask.tolist()
    assert first.reasons == second.reasons


@given(cases())
@settings(max_examples=100, derandomize=True, deadline=None)
def test_another_message_never_opens_an_action_and_no_send_is_always_open(case: Case) -> None:
    fewer = replace(case, messages=case.messages[:-1]).run().mask
    assert not (case.run().mask & ~fewer).any()
    if case.space.no_send_index is not None:
        assert case.run().mask[case.space.no_send_index]


# --- spelled out -----------------------------------------------------------------------------------------------------

T0 = datetime(2026, 11, 24, 9, tzinfo=UTC)  # a Tuesday


def one(
    parameters: Cap | QuietHours,
    *ago: float,
    start: datetime = T0,
    hours: int = 1,
    where: str = "UTC",
    counts: Selector = ALL,
    enabled: bool = True,
    dry_run: bool = False,
    archived: bool = False,
) -> Case:
    """One email slot an hour, one rule, messages so many hours before the start."""
    space = build_space(
        variants=("a",),
        channels=("email",),
        window=(start, start + timedelta(hours=hours)),
        slot_minutes=60,
        spread=False,
        immediate=False,
        no_send=True,
        decision_id="d",
        zone=zone(where),
    )
    kind: RuleKind = "cap" if isinstance(parameters, Cap) else "quiet_hours"
    rule = Rule("w", "r", kind, parameters, ALL, counts, enabled, dry_run, archived)
    messages = [Message("w", "u", start - timedelta(hours=h), f"m{h}", "email", "marketing", "spring") for h in ago]
    return Case(space, campaign(), Recipient("w", "u"), [rule], messages, where)


def open_slots(case: Case) -> str:
    return "".join("+" if ok else "-" for ok in case.run().mask[:-1])


def opening(case: Case) -> datetime | None:
    (reason,) = case.run().reasons
    return reason.next_eligible_at


def test_a_rolling_window_is_half_open() -> None:
    assert open_slots(one(Cap(1, 24), 24)) == "+"
    assert open_slots(one(Cap(1, 24), 24 - 1e-6)) == "-"
    assert open_slots(one(Cap(1, 24), -24)) == "+"


def test_a_reservation_in_the_future_counts_too() -> None:
    # Two messages less than 24 h apart fill a window together with any time less than 24 h from both.
    assert open_slots(one(Cap(2, 24), 5, -5, hours=3)) == "---"
    assert open_slots(one(Cap(2, 24), 12, -12.5, hours=3)) == "+++"
    assert open_slots(one(Cap(2, 24), 12, -11.5, hours=3)) == "---"


def test_a_rolling_cap_opens_when_its_oldest_message_leaves_the_window() -> None:
    assert opening(one(Cap(2, 24), 20, 3)) == T0 + timedelta(hours=4)
    # A reservation 10 hours from now: with the message of 3 hours ago it blocks until 21 hours from now.
    assert opening(one(Cap(2, 24), 20, 3, -10)) == T0 + timedelta(hours=21)


def test_an_opening_beyond_what_is_known_is_unknown() -> None:
    # Chained reservations: each time that one leaves, the next fills the place.
    assert opening(one(Cap(1, 24), 20, -3, -26, -49)) is None


def test_a_limit_of_zero_never_opens() -> None:
    for cap in (Cap(0, 24), Cap(0, calendar="day")):
        assert open_slots(one(cap, hours=2)) == "--"
        assert opening(one(cap)) is None


def test_a_full_cap_blocks_a_bound_request_that_it_would_not_count() -> None:
    """``counts`` looks at transactional mail only, the campaign is marketing: it is bound all the same."""
    counts = Selector(categories=("transactional",))
    case = one(Cap(1, 24), 3, counts=counts)
    assert open_slots(case) == "+"
    mail = replace(case.messages[0], category="transactional")
    assert open_slots(replace(case, messages=[mail])) == "-"
    assert open_slots(one(Cap(0, 24), counts=counts)) == "-"


def test_a_calendar_day_ends_at_the_recipients_midnight() -> None:
    evening = datetime(2026, 11, 24, 21, tzinfo=UTC)
    assert open_slots(one(Cap(1, calendar="day"), 2, start=evening, hours=5, where="Europe/Berlin")) == "--+++"
    assert opening(one(Cap(1, calendar="day"), 2, start=evening, where="Europe/Berlin")) == evening + timedelta(hours=2)
    assert open_slots(one(Cap(1, calendar="day"), 2, start=evening, hours=5, where="Asia/Kathmandu")) == "-----"


def test_a_week_starts_on_the_day_that_the_rule_says() -> None:
    monday = datetime(2026, 11, 23, 12, tzinfo=UTC)
    for week_start, seen in (("mon", "+"), ("sun", "-"), ("tue", "-")):
        cap = Cap(1, calendar="week", week_start=week_start)  # type: ignore[arg-type] # mypy widens the literal
        assert open_slots(one(cap, 20, start=monday)) == seen


def test_a_month_opens_on_its_first_day() -> None:
    case = one(Cap(1, calendar="month"), 24 * 20, start=T0, where="America/St_Johns")
    assert opening(case) == datetime(2026, 12, 1, 3, 30, tzinfo=UTC)


def test_an_hour_that_the_clock_repeats_belongs_to_the_date_it_shows() -> None:
    # St. John's, 7 November 2010: at 00:01 back to 23:01 of the 6th. A message of the 6th fills that day twice.
    start = datetime(2010, 11, 7, 2, 30, tzinfo=UTC)  # 00:00 of the 7th, for one minute
    case = one(Cap(1, calendar="day"), 3, start=start, hours=2, where="America/St_Johns")
    assert open_slots(case) == "++"
    late = one(Cap(1, calendar="day"), 3, start=start + timedelta(minutes=10), where="America/St_Johns")
    assert open_slots(late) == "-"
    assert opening(late) == start + timedelta(hours=1)


def test_a_night_belongs_to_the_day_it_starts() -> None:
    friday = QuietHours("21:00", "08:00", ("fri",))
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)  # Thursday
    quiet = [noon + timedelta(hours=i) for i, s in enumerate(open_slots(one(friday, start=noon, hours=72))) if s == "-"]
    assert quiet == [datetime(2026, 11, 27, 21, tzinfo=UTC) + timedelta(hours=i) for i in range(11)]


def test_equal_ends_are_a_whole_day_from_start_to_start() -> None:
    saturday = QuietHours("06:00", "06:00", ("sat",))
    midnight = datetime(2026, 11, 28, tzinfo=UTC)
    assert open_slots(one(saturday, start=midnight, hours=36)) == "+" * 6 + "-" * 24 + "+" * 6
    assert opening(one(QuietHours("06:00", "06:00"))) is None
    assert opening(one(saturday, start=midnight, hours=36)) == midnight + timedelta(hours=30)


def test_a_night_over_a_clock_change_ends_by_the_wall_clock() -> None:
    start = datetime(2026, 3, 28, 21, tzinfo=UTC)  # 22:00 in Berlin; the night is an hour short
    assert opening(one(QuietHours("21:00", "08:00"), start=start, where="Europe/Berlin")) == start + timedelta(hours=9)


@pytest.mark.parametrize(
    ("enabled", "dry_run", "archived"), [(False, False, False), (True, True, False), (True, False, True)]
)
def test_a_rule_that_is_off_masks_nothing_and_gives_no_reason(enabled: bool, dry_run: bool, archived: bool) -> None:
    case = one(Cap(0, 24), enabled=enabled, dry_run=dry_run, archived=archived)
    assert open_slots(case) == "+"
    assert case.run().reasons == ()
    assert span(case.rules, case.space) == (T0, T0)


def test_the_span_is_the_widest_window_and_the_same_again_after_it() -> None:
    rules = [one(p).rules[0] for p in (Cap(1, 24), Cap(1, calendar="week"), QuietHours("21:00", "08:00"))]
    space = one(Cap(1, 24), hours=5).space
    last = T0 + timedelta(hours=4)
    assert span(rules, space) == (T0 - timedelta(days=8), last + timedelta(days=16))
    assert span(rules[:1], space) == (T0 - timedelta(days=1), last + timedelta(days=2))


def test_a_window_longer_than_time_itself_is_no_overflow() -> None:
    for hours in (1e7, 1e12, 1e300):
        case = one(Cap(1, hours), 24 * 365)
        assert span(case.rules, case.space)[0].year == (1 if hours > 1e8 else 886)
        assert open_slots(case) == "-"


def test_a_space_without_slots_or_channels_has_nothing_to_mask() -> None:
    case = one(Cap(0, 24), hours=0)
    assert case.run().mask.tolist() == [True]
    assert case.run().reasons == ()
    assert span(case.rules, case.space) == (datetime(1970, 1, 1, tzinfo=UTC),) * 2


def test_reasons_of_consent_and_suppression_come_first_and_count_their_actions() -> None:
    case = one(Cap(0, 24), hours=3)
    space = replace(case.space, variants=("a", "b"), channels=CHANNELS)
    recipient = Recipient(
        "w",
        "u",
        channels={"push": Consent(True)},
        suppressed=(Suppression("email", "marketing"), Suppression("*", "x")),
    )
    found = replace(case, space=space, recipient=recipient).run()
    assert [(r.rule_id, r.kind, r.masked, r.next_eligible_at) for r in found.reasons] == [
        ("consent", "consent", 6, None),
        ("suppression", "suppression", 6, None),
        ("r", "cap", 18, None),
    ]
    assert found.mask.tolist() == [False] * 18 + [True]
