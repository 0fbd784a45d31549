"""What the eligible set costs: 6 variants x 24 slots x 3 channels under rules that really mask, alone and in batches.

Recipients live in twelve zones, have consented to most channels, and have about ten messages in sight of the caps, some
of them planned. Reasons with their next openings are part of what is measured.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from optimizer.bandit.actions import build_space
from optimizer.bandit.eligibility import Question, eligible, eligible_many, span
from optimizer.bandit.localtime import zone
from storage.log import Answer, Message
from storage.open import open_store
from storage.port import Store, Writer
from storage.records import Campaign, Channel, Consent, Recipient, Requirement, Variant
from storage.rules import Blackout, Budget, Cap, Capacity, QuietHours, Rule, Selector
from storage.usage import Usage

ROUNDS = 7
WORKSPACE = "bench"
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
CHANNELS = ("email", "push", "sms")
#: Recipients of a batch, and how many are asked about one at a time.
BATCH, ALONE = 10_000, 500
#: Past messages of a recipient in the last figures, spread over this time, and how many such recipients are read.
PAST, YEARS = (10, 1_000, 10_000), timedelta(days=5 * 365)
READ = 20
_DAY = 86_400
_ZONES = (
    "Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/Los_Angeles", "Asia/Tokyo", "Australia/Sydney",
    "Europe/London", "America/Sao_Paulo", "Africa/Cairo", "Asia/Kathmandu", "America/St_Johns", "Pacific/Auckland",
)  # fmt: skip
_EMAIL = Selector(channels=("email",))
#: Two rolling caps, a calendar cap, a gap, quiet hours and a capacity.
RULES = (
    Rule(WORKSPACE, "email-3-a-week", "cap", Cap(3, rolling_hours=168), _EMAIL, _EMAIL),
    Rule(WORKSPACE, "4-in-3-days", "cap", Cap(4, rolling_hours=72)),
    Rule(WORKSPACE, "2-a-day", "cap", Cap(2, calendar="day")),
    Rule(WORKSPACE, "gap-4-hours", "gap", Cap(1, rolling_hours=4)),
    Rule(WORKSPACE, "quiet", "quiet_hours", QuietHours("21:00", "08:00"), Selector(channels=("push", "sms"))),
    Rule(WORKSPACE, "email-an-hour", "capacity", Capacity(1000, 60), _EMAIL, _EMAIL),
)
MORE_RULES = (
    Rule(WORKSPACE, "blackout", "blackout", Blackout(("2026-03-03",), True)),
    Rule(WORKSPACE, "money-a-day", "budget", Budget(5_000_000_000, "day", "Europe/Berlin")),
)


@dataclass(frozen=True)
class Cost:
    """Median microseconds of CPU time of one recipient, and what they should be."""

    name: str
    microseconds: float
    goal: str = ""


def measure() -> tuple[list[Cost], dict[str, float]]:
    """The figures, and by rule the share of a batch's recipients for whom it masks something."""
    usage, more = used(), (*RULES, *MORE_RULES)
    asking = crowd(BATCH, requires=True)
    told = Counter(reason.rule_id for one in eligible_many(asking, more, usage) for reason in one.reasons)
    kinds = "+ blackout, budget, requires:"
    costs = [
        *_batch_and_alone("6 rules:", crowd(BATCH), RULES, usage, ("<= 25", "<= 200")),
        *_batch_and_alone(kinds, asking, more, usage, ("", "")),
        *_histories(usage),
    ]
    return costs, {rule_id: count / BATCH for rule_id, count in sorted(told.items())}


def _batch_and_alone(
    name: str, questions: Sequence[Question], rules: Sequence[Rule], usage: Usage, goals: tuple[str, str]
) -> list[Cost]:
    def many() -> int:
        return len(eligible_many(questions, rules, usage))

    def alone() -> int:
        return len([eligible(question, rules, usage) for question in questions[:ALONE]])

    return [
        Cost(f"{name} in a batch of {len(questions):,}", _median(many), goals[0]),
        Cost(f"{name} alone", _median(alone), goals[1]),
    ]


def _median(work: Callable[[], int]) -> float:
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        rows = work()
        taken.append((time.process_time() - started) / rows * 1e6)
    return statistics.median(taken)


def campaign(*, requires: bool = False) -> Campaign:
    """Six variants on three channels; with ``requires``, the last two ask for what happened to an earlier message."""
    variants = tuple(Variant(f"v{i}", cost=0.001 * i) for i in range(6))
    if requires:
        opened = replace(variants[4], requires=(Requirement("welcome", "opened", happened=True, within_hours=72),))
        silent = replace(variants[5], requires=(Requirement("welcome", "opened", happened=False, within_hours=72),))
        variants = (*variants[:4], opened, silent)
    channels = (Channel("email", 0.0004), Channel("push"), Channel("sms", 0.03))
    return Campaign(WORKSPACE, "spring", variants, channels, NOW, NOW)


def crowd(count: int, *, requires: bool = False) -> list[Question]:
    """One question of each of ``count`` recipients about the next day."""
    rng = np.random.default_rng(7)
    asked = campaign(requires=requires)
    holidays = {"DE": frozenset({20_514}), "US": frozenset({20_515})}
    return [_question(i, asked, _messages(rng, f"u{i}"), holidays) for i in range(count)]


def _question(i: int, asked: Campaign, messages: Sequence[Message], holidays: dict[str, frozenset[int]]) -> Question:
    where = zone(_ZONES[i % len(_ZONES)])
    space = build_space(
        variants=tuple(v.id for v in asked.variants),
        channels=CHANNELS,
        window=(NOW, NOW + timedelta(days=1)),
        slot_minutes=60,
        spread=True,
        immediate=False,
        no_send=True,
        decision_id=f"dec{i}",
        zone=where,
    )
    consent = {name: Consent(True) for name in CHANNELS[: 3 if i % 10 else 2]}
    recipient = Recipient(WORKSPACE, f"u{i}", 1, where.name, {"country": ("DE", "US", "IN")[i % 3]}, consent)
    sent = NOW - timedelta(hours=i % 200)
    answer = Answer("welcome", "hello", sent, {"opened": sent + timedelta(hours=1)} if i % 2 else {})
    return Question(
        space, asked, recipient, messages, where, int(NOW.timestamp()), i % 20, (answer,) if i % 5 else (), holidays
    )


def _messages(rng: np.random.Generator, recipient_id: str) -> list[Message]:
    """Eight of the last ten days and two planned for the next three, on average."""
    hours = np.sort(np.concatenate((-240 * rng.random(rng.poisson(8)), 72 * rng.random(rng.poisson(2)))))
    return [
        Message(WORKSPACE, recipient_id, NOW + timedelta(hours=h), f"{recipient_id}-{h}", CHANNELS[c], "marketing")
        for h, c in zip(hours.tolist(), rng.integers(3, size=len(hours)).tolist(), strict=True)
    ]


def used() -> Usage:
    """Every third hour is full, and money is left for the cheap channels only."""
    hour, day = int(NOW.timestamp()) // 3600, int(NOW.timestamp()) // _DAY
    hours = {("email-an-hour", hour + i): 1000 if i % 3 == 0 else 400 for i in range(28)}
    return {**hours, **{("money-a-day", day + i): 4_999_980_000 for i in range(4)}}


def _histories(usage: Usage) -> list[Cost]:
    """Reading from the store and judging one recipient, by how many messages they ever got.

    Ten lie in sight of the caps; the others are spread over the years before.
    """
    questions = crowd(ALONE)
    with TemporaryDirectory(prefix="sendtide-bench-") as folder:
        store = open_store(f"sqlite:///{Path(folder)}/bench.db")
        try:
            for past in PAST:
                store.write(partial(_fill, past=past))
            reads = [(past, _read(store, questions, past, usage)) for past in PAST]
        finally:
            store.close()
    least = reads[0][1]
    return [Cost(f"read and judged alone, {past:,} past messages", us, f"<= {1.2 * least:.0f}") for past, us in reads]


def _fill(writer: Writer, past: int) -> None:
    for i in range(READ):
        name = f"u{i}/{past}"
        recent = [NOW - timedelta(hours=15 * n + 5) for n in range(10)]
        older = [NOW - timedelta(days=21) - YEARS * (n / past) for n in range(past - len(recent))]
        for n, at in enumerate(recent + older):
            writer.add_message(Message(WORKSPACE, name, at, f"{name}-{n}", CHANNELS[n % 3], "marketing"))


def _read(store: Store, questions: Sequence[Question], past: int, usage: Usage) -> float:
    def work() -> int:
        for i, question in enumerate(questions):
            name = f"u{i % READ}/{past}"
            since, until = span(RULES, question.space)
            with store.read() as reader:
                messages = reader.messages(WORKSPACE, [name], since, until)[name]
            eligible(replace(question, messages=messages), RULES, usage)
        return len(questions)

    return _median(work)
