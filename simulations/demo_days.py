"""The demo's course: a made-up audience lives through some days while the service decides, listens and learns.

Each day is planned at its own hours in the recipients' zones. On simulated time it passes, and the sender reports every
message as sent at its planned time. On a real clock days are compressed: every message is reported as sent at once, so
that outcomes mature in a second; the service sees planned hours and outcomes, but not when things happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from optimizer.bandit.intervals import quantile
from simulations.audience import CHANNELS, VARIANTS, Person, audience, hours_off, respond
from simulations.client import Call
from simulations.rivals import Floats
from simulations.stage import Stage, put_campaign

CAMPAIGN = "demo"
#: What an open and a click are worth.
WORTH = {"opened": 0.1, "clicked": 1.0}
SLOT_MINUTES = 120
#: Of every so many messages one is claimed before it is sent, as a careful sender would do with all.
CLAIM_EVERY = 10
#: How long after its message each outcome happens.
AFTER = {"opened": timedelta(minutes=10), "clicked": timedelta(minutes=12)}

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One decision of a day: whose, in which group, what it earned; ``hours_off`` None = nothing was sent."""

    recipient_id: str
    group: str
    reward: float
    hours_off: float | None


@dataclass(frozen=True)
class Day:
    """A day's decisions and what the training run at its end came to."""

    number: int
    rows: tuple[Row, ...]
    learned: str

    def rewards(self, group: str) -> Floats:
        """Rewards of a group's decisions."""
        return np.array([row.reward for row in self.rows if row.group == group], dtype=np.float64)

    def hours_off(self, group: str) -> Floats:
        """Hours between a group's messages and their readers' best hours."""
        return np.array(
            [row.hours_off for row in self.rows if row.group == group and row.hours_off is not None], dtype=np.float64
        )


@dataclass(frozen=True)
class Lift:
    """Mean reward a decision of the treated and of the random group, and the difference with its 95 % interval."""

    treated: float
    random: float
    difference: float
    low: float
    high: float
    first_day: int
    last_day: int

    def sentence(self) -> str:
        """The lift in words."""
        share = f", {self.difference / self.random:+.0%}" if self.random > 0 else ""
        return (
            f"Lift over the random group, days {self.first_day}–{self.last_day}: {self.difference:+.3f} a decision "
            f"(95 % interval {self.low:+.3f} to {self.high:+.3f}; {self.treated:.3f} against {self.random:.3f}{share})"
        )


def set_up(stage: Stage, people: Sequence[Person]) -> None:
    """The campaign and its recipients, over the API."""
    put_campaign(
        stage,
        CAMPAIGN,
        {
            "name": "Demo",
            "variants": [{"id": v, "features": {"topic": v}} for v in VARIANTS],
            "channels": list(CHANNELS),
            "slot_minutes": SLOT_MINUTES,
            "objective": WORTH,
            "attribution_hours": dict.fromkeys(WORTH, stage.attribution_hours),
            "groups": {"holdout": 0.05, "random": 0.3, "baseline": 0.0},
        },
    )
    rows = [
        {
            "recipient_id": p.recipient_id,
            "timezone": p.timezone,
            "attributes": p.attributes,
            "channels": dict.fromkeys(CHANNELS, True),
        }
        for p in people
    ]
    stage.client.call("POST", "/v1/recipients/batch", {"recipients": rows})


def live(
    stage: Stage, *, recipients: int, days: int, seed: int, tell: Tell, on_day: Callable[[Day], None]
) -> list[Day]:
    """Sets everything up and lives through the days.

    Args:
        stage: where the service runs.
        recipients: size of the audience.
        days: how many.
        seed: of the audience and of what it does.
        tell: told what goes on.
        on_day: told of every day at its end.
    """
    rng = np.random.default_rng(seed)
    people = audience(recipients, rng)
    tell("campaign and recipients")
    set_up(stage, people)
    lived: list[Day] = []
    for number in range(1, days + 1):
        tell(f"day {number}: deciding, sending, listening")
        rows = _day(stage, people, number, rng)
        tell(f"day {number}: training and judging")
        stage.mature()
        day = Day(number, tuple(rows), stage.learn(CAMPAIGN, full=True))
        lived.append(day)
        on_day(day)
    return lived


def _day(stage: Stage, people: Sequence[Person], number: int, rng: np.random.Generator) -> list[Row]:
    midnight = stage.now().replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + timedelta(days=number)
    end = start + timedelta(days=1)
    body = {
        "campaign_id": CAMPAIGN,
        "window": {"start": start.isoformat(), "end": end.isoformat()},
        "recipients": [
            {"recipient_id": p.recipient_id, "request_id": f"day-{number}/{p.recipient_id}"} for p in people
        ],
    }
    decisions = stage.client.call("POST", "/v1/decisions/batch", body)["decisions"]
    sent = [d for d in decisions if d["action"] is not None]
    stage.client.call_all([_call(d, "claim") for d in sent[::CLAIM_EVERY]])
    in_time = stage.pass_until(end + max(AFTER.values()))
    at = {d["decision_id"]: d["action"]["send_at"] if in_time else d["decided_at"] for d in sent}
    stage.client.call_all([_call(d, "confirm", sent_at=at[d["decision_id"]]) for d in sent])
    rows, events = [], []
    for person, decision in zip(people, decisions, strict=True):
        outcomes, off = _reaction(person, decision, rng)
        events += [_event(decision, outcome, at[decision["decision_id"]], in_time=in_time) for outcome in outcomes]
        rows.append(Row(person.recipient_id, decision["group"], sum(WORTH[o] for o in outcomes), off))
    if events:
        stage.client.call("POST", "/v1/events", {"events": events})
    return rows


def _call(decision: Mapping[str, Any], what: str, **body: Any) -> Call:
    return Call("POST", f"/v1/decisions/{decision['decision_id']}/{what}", body)


def _reaction(person: Person, decision: Mapping[str, Any], rng: np.random.Generator) -> tuple[list[str], float | None]:
    """The outcomes of a decision, and how many hours off the person's best hour it came (None = nothing was sent)."""
    action = decision["action"]
    if action is None:
        return [], None
    at = datetime.fromisoformat(action["send_at_local"])
    hour = at.hour + at.minute / 60
    response = respond(person, variant=action["variant_id"], channel=action["channel"], hour=hour, rng=rng)
    happened = [name for name, did in (("opened", response.opened), ("clicked", response.clicked)) if did]
    return happened, hours_off(person, hour)


def _event(decision: Mapping[str, Any], outcome: str, sent_at: str, *, in_time: bool) -> dict[str, Any]:
    occurred = datetime.fromisoformat(sent_at) + (AFTER[outcome] if in_time else timedelta(0))
    return {
        "event_id": f"{decision['decision_id']}/{outcome}",
        "decision_id": decision["decision_id"],
        "type": outcome,
        "occurred_at": occurred.isoformat(),
    }


def lift(days: Sequence[Day]) -> Lift:
    """The lift over the later half of the days, when there was something learned; by intention to treat.

    A recipient's days are averaged first: people, not decisions, were put into groups at random, so people are counted.
    """
    later = days[len(days) // 2 :]
    treated, random = (_by_person(later, group) for group in ("treated", "random"))
    difference = mean(treated) - mean(random)
    half = quantile(0.95) * float(np.sqrt(_variance(treated) + _variance(random)))
    return Lift(
        treated=mean(treated),
        random=mean(random),
        difference=difference,
        low=difference - half,
        high=difference + half,
        first_day=later[0].number,
        last_day=later[-1].number,
    )


def _by_person(days: Sequence[Day], group: str) -> Floats:
    rewards: dict[str, list[float]] = {}
    for row in (row for day in days for row in day.rows if row.group == group):
        rewards.setdefault(row.recipient_id, []).append(row.reward)
    return np.array([np.mean(one) for one in rewards.values()], dtype=np.float64)


def mean(values: Floats) -> float:
    """The mean; NaN of nothing."""
    return float(values.mean()) if values.size else float("nan")


def _variance(values: Floats) -> float:
    """Squared standard error of a mean."""
    return float(values.var(ddof=1) / values.size) if values.size > 1 else float("nan")
