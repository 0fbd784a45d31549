"""Eligibility as a slow reference that is obviously right and shares no code with it.

The reference asks one action at a time: it slides windows over instants for rolling caps, compares local dates from
``zoneinfo`` for calendar caps, blackouts and budgets, writes every night down for quiet hours, and counts the messages
of all recipients one by one for capacity and budget. An opening is found by trying every moment that may be one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.eligibility import Eligibility, Question, eligible, usage_spans
from optimizer.bandit.localtime import zone
from storage.log import Answer, Message
from storage.records import Campaign, Recipient
from storage.rules import Blackout, Budget, Cap, Capacity, QuietHours, Rule, Selector
from storage.usage import Usage, taken
from tests.bandit.consent_reference import consents, suppressed, variant_opens

WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
DAYS = timedelta(days=1)
#: Furthest that the reason of a calendar cap looks beyond the last slot.
REACH = {"day": 2 * DAYS, "week": 8 * DAYS, "month": 32 * DAYS}

Told = tuple[str, str, int, datetime | None, bool, str]


@dataclass(frozen=True)
class Case:
    """One question, the rules, and the messages of everybody (``shared``) that capacity and budget count."""

    space: ActionSpace
    campaign: Campaign
    recipient: Recipient
    rules: list[Rule]
    messages: list[Message]
    zone: str
    now: datetime = EPOCH
    unanswered: int = 0
    answers: tuple[Answer, ...] = ()
    holidays: dict[str, frozenset[date]] = field(default_factory=dict)
    shared: tuple[Message, ...] = ()

    @property
    def slots(self) -> list[datetime]:
        return [datetime.fromtimestamp(int(t), UTC) for t in self.space.send_at]

    def question(self) -> Question:
        numbered = {c: frozenset((d - EPOCH.date()).days for d in days) for c, days in self.holidays.items()}
        now = int((self.now - EPOCH).total_seconds())
        asked = Question(self.space, self.campaign, self.recipient, self.messages, zone(self.zone), now)
        return replace(asked, unanswered=self.unanswered, answers=self.answers, holidays=numbered)

    def usage(self) -> Usage:
        """What a store would tell: no more than ``usage_spans`` asks for."""
        used: dict[tuple[str, int], int] = {}
        if not self.space.slots:
            return used
        spans = usage_spans(self.rules, int(self.space.send_at[0]), int(self.space.send_at[-1]))
        for rule in self.rules:
            for rule_id, first, last in spans:
                for message in self.shared if rule_id == rule.rule_id else ():
                    found = taken(rule, message)
                    if found is not None and first <= found[0] <= last:
                        used[rule_id, found[0]] = used.get((rule_id, found[0]), 0) + found[1]
        return used

    def run(self) -> Eligibility:
        return eligible(self.question(), self.rules, self.usage())


def told(found: Eligibility) -> list[Told]:
    return [(r.rule_id, r.kind, r.masked, r.next_eligible_at, r.dry_run, r.note) for r in found.reasons]


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


def counted(rule: Rule, messages: list[Message] | tuple[Message, ...]) -> list[Message]:
    return [m for m in messages if admits(rule.counts, m.channel, m.category, m.campaign_id)]


def period(per: str | None, week_start: str, at: datetime, name: str) -> date:
    """The first day of the local day, week or month."""
    day = local_date(at, name)
    if per == "month":
        return day.replace(day=1)
    while per == "week" and WEEK[day.weekday()] != week_start:
        day -= DAYS
    return day


@lru_cache(maxsize=200_000)
def local_date(at: datetime, name: str) -> date:
    return at.astimezone(ZoneInfo(name)).date()


# --- what each kind blocks -------------------------------------------------------------------------------------------


def limit_of(cap: Cap, unanswered: int) -> int:
    if cap.adapt is not None and unanswered >= cap.adapt.after_unengaged and cap.adapt.limit < cap.limit:
        return cap.adapt.limit
    return cap.limit


def cap_blocks(cap: Cap, limit: int, at: datetime, times: list[datetime], name: str) -> bool:
    if cap.rolling_hours is None:
        own = period(cap.calendar, cap.week_start, at, name)
        return sum(period(cap.calendar, cap.week_start, m, name) == own for m in times) + 1 > limit
    length = timedelta(hours=cap.rolling_hours)
    # Sliding a half-open window changes what it holds only where an end of it meets an instant.
    starts = [x + shift for x in [*times, at] for shift in (-length, -length + US, timedelta(0), US)]
    return any(sum(s <= m < s + length for m in times) + 1 > limit for s in starts if s <= at < s + length)


def quiet_blocks(hours: QuietHours, at: datetime, name: str) -> bool:
    now = at.astimezone(ZoneInfo(name)).replace(tzinfo=None)
    for night in (now.date() - DAYS, now.date()):
        if WEEK[night.weekday()] not in hours.days:
            continue
        start = datetime.combine(night, time.fromisoformat(hours.start))
        end = datetime.combine(night, time.fromisoformat(hours.end))
        if end <= start:
            end += DAYS
        if start <= now < end:
            return True
    return False


def blackout_blocks(blackout: Blackout, at: datetime, case: Case) -> bool:
    today = local_date(at, case.zone)
    if today.isoformat() in blackout.dates:
        return True
    country = case.recipient.attributes.get("country")
    if not isinstance(country, str) or country == "":
        country = blackout.default_country
    return blackout.country_holidays and country is not None and today in case.holidays.get(country.upper(), ())


def slice_of(capacity: Capacity, at: datetime) -> int:
    return (at - EPOCH) // timedelta(minutes=capacity.per_minutes)


def capacity_blocks(rule: Rule, capacity: Capacity, at: datetime, case: Case) -> bool:
    now = slice_of(capacity, at)
    used = sum(slice_of(capacity, m.at) == now for m in counted(rule, case.shared))
    limit = capacity.limit
    if capacity.warm_up and capacity.starts_on is not None:
        started = EPOCH + now * timedelta(minutes=capacity.per_minutes)
        day = (started.date() - date.fromisoformat(capacity.starts_on)).days + 1
        if day <= capacity.warm_up[-1].day:
            limit = capacity.warm_up[0].limit
            for step in capacity.warm_up:
                if day >= step.day:
                    limit = step.limit
    return used + 1 > limit


def budget_blocks(rule: Rule, budget: Budget, at: datetime, cost: int, case: Case) -> bool:
    def when(moment: datetime) -> date:
        return period(budget.per, budget.week_start, moment, budget.timezone)

    used = sum(m.cost for m in counted(rule, case.shared) if when(m.at) == when(at))
    return cost > 0 and used + cost > budget.amount


def cost_of(case: Case, variant: str, channel: str) -> int:
    of_variant = next(v.cost for v in case.campaign.variants if v.id == variant)
    return round(1_000_000 * (of_variant + next(c.cost for c in case.campaign.channels if c.id == channel)))


def blocks(rule: Rule, at: datetime, variant: str, channel: str, case: Case) -> bool:
    """Whether the rule, as it stands alone, lets no message of this variant out at this time on this channel."""
    parameters = rule.parameters
    if not admits(rule.applies_to, channel, case.campaign.category, case.campaign.campaign_id):
        return False
    if isinstance(parameters, Cap):
        limit = limit_of(parameters, case.unanswered)
        return cap_blocks(parameters, limit, at, [m.at for m in counted(rule, case.messages)], case.zone)
    if isinstance(parameters, QuietHours):
        return quiet_blocks(parameters, at, case.zone)
    if isinstance(parameters, Blackout):
        return blackout_blocks(parameters, at, case)
    if isinstance(parameters, Capacity):
        return capacity_blocks(rule, parameters, at, case)
    if isinstance(parameters, Budget):
        return budget_blocks(rule, parameters, at, cost_of(case, variant, channel), case)
    return False


# --- when it opens again ---------------------------------------------------------------------------------------------


def quarters(first: datetime) -> Iterator[datetime]:
    """Local midnights, ends of nights and clock changes of the zones in use lie on a quarter of an hour, or one minute
    after it (St. John's until 2011)."""
    quarter = first.replace(minute=0, second=0, microsecond=0)
    while True:
        yield quarter
        yield quarter + timedelta(minutes=1)
        quarter += timedelta(minutes=15)


def tries(
    rule: Rule, first: datetime, last: datetime, case: Case
) -> tuple[Iterator[datetime], Callable[[datetime], bool]]:
    """Moments, ascending, among which each opening is, and whether one of them is close enough to be known."""
    parameters = rule.parameters
    if isinstance(parameters, Cap) and parameters.rolling_hours is not None:
        length = timedelta(hours=parameters.rolling_hours)
        ends = sorted(x for m in case.messages for x in (m.at - length, m.at, m.at + length))
        return iter(ends), lambda moment: moment <= last + length
    if isinstance(parameters, Capacity):
        minutes = timedelta(minutes=parameters.per_minutes)
        now, end = slice_of(parameters, first), slice_of(parameters, last) + 2
        return (EPOCH + i * minutes for i in range(now, end + 1)), lambda _: True
    if isinstance(parameters, Budget):
        budget = parameters
        latest = period(budget.per, budget.week_start, last, budget.timezone)
        for _ in range(2):
            more = {"day": 1, "week": 7, "month": 31}[budget.per]
            latest = (latest + more * DAYS).replace(day=1) if budget.per == "month" else latest + more * DAYS
        return quarters(first), lambda m: period(budget.per, budget.week_start, m, budget.timezone) <= latest
    beyond = REACH[parameters.calendar] if isinstance(parameters, Cap) and parameters.calendar else 32 * DAYS
    return quarters(first), lambda moment: moment <= last + beyond


def opens(rule: Rule, masked: list[tuple[str, datetime, str]], case: Case) -> datetime | None:
    """First moment from the first masked slot on at which one of the actions masked there is not; found by trying."""
    first = min(at for _, at, _ in masked)
    actions = {(cost_of(case, v, c), v, c) for v, at, c in masked if at == first}
    _, variant, channel = min(actions)  # if any of them opens, the cheapest does
    moments, known = tries(rule, first, case.slots[-1], case)
    for moment in moments:
        if moment <= first:
            continue
        if not known(moment):
            return None
        if not blocks(rule, moment, variant, channel, case):
            return moment
    return None


def note(rule: Rule, case: Case) -> str:
    parameters = rule.parameters
    limits = [1]
    if isinstance(parameters, Cap):
        limits = [limit_of(parameters, case.unanswered)]
    elif isinstance(parameters, Capacity):
        limits = [parameters.limit, *(step.limit for step in parameters.warm_up)]
    elif isinstance(parameters, Budget):
        limits = [parameters.amount]
    return "" if any(limits) else "limit 0: never"


# --- the whole -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    mask: list[bool]
    reasons: list[Told]


def reference(case: Case) -> Expected:
    space, slots = case.space, case.slots
    sends = [(v, at, c) for v in space.variants for at in slots for c in space.channels]
    allowed = dict.fromkeys(sends, True)
    reasons: list[Told] = []
    opening = {v: variant_opens(v, case) for v in space.variants}
    waiting = {v: at for v, at in opening.items() if at is None or at > case.now}
    refused = {
        "consent": [(v, at, c) for v, at, c in sends if not consents(case, c)],
        "suppression": [(v, at, c) for v, at, c in sends if suppressed(case, c)],
        "requires": [(v, at, c) for v, at, c in sends if v in waiting],
    }
    for kind, closed in refused.items():
        allowed.update(dict.fromkeys(closed, False))
        if closed:
            later = [at for at in waiting.values() if at is not None] if kind == "requires" else []
            reasons.append((kind, kind, len(closed), min(later, default=None), False, ""))
    for rule in case.rules:
        if rule.archived or not rule.enabled:
            continue
        closed = [(v, at, c) for v, at, c in sends if blocks(rule, at, v, c, case)]
        if not rule.dry_run:
            allowed.update(dict.fromkeys(closed, False))
        if closed:
            at = opens(rule, closed, case)
            reasons.append((rule.rule_id, rule.kind, len(closed), at, rule.dry_run, note(rule, case)))
    return Expected([*allowed.values()] + [True] * space.no_send, reasons)
