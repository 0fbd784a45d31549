"""A made-up shop's last weeks, lived through the API day by day: what the console is looked at with.

The service decides, listens and learns as it would in the field, on a clock that is moved. The audience is that of the
demo; on top of it people buy, by themselves and after clicks, and some have enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from optimizer.service.ids import fresh
from optimizer.service.runs import kept, start_now
from optimizer.service.training import carry_out
from optimizer.service.upkeep import expire
from optimizer.service.wiring import Services
from simulations.audience import CHANNELS, Person, audience, click_chance, respond
from simulations.client import Client
from simulations.clock import SteppingClock

WORKSPACE: Final = "default"
SEASON, CART = "spring", "cart"
DAY: Final = timedelta(days=1)
#: What a training run takes on the shop's clock.
TRAINING: Final = timedelta(seconds=40)
#: How much of the last day has passed.
EVENING: Final = timedelta(hours=6)
#: Of every so many messages one is confirmed by hand; the others count as sent once their time has passed.
_CONFIRM_EVERY: Final = 4
#: The part of the audience that each campaign asks about on a day.
_ASKED: Final = {SEASON: 0.3, CART: 0.06}
_OBJECTIVE: Final = {
    "opened": 0.1,
    "clicked": 0.5,
    "converted": {"per_value": 0.2, "max_value": 200},
    "unsubscribed": -5,
}
_HOURS: Final = {"opened": 24, "clicked": 24, "converted": 48, "unsubscribed": 48}

CAMPAIGNS: Final[Mapping[str, Mapping[str, Any]]] = {
    SEASON: {
        "name": "Spring collection",
        "variants": [
            {
                "id": "offer",
                "text": "Twenty percent off the new collection, until Sunday.",
                "features": {"discount": 0.2},
            },
            {"id": "story", "text": "How our linen is made, from the field to the shirt.", "features": {"discount": 0}},
            {"id": "tips", "text": "Three ways to wear one shirt.", "features": {"discount": 0}},
        ],
        "channels": [{"id": "email", "cost": 0.0004}, {"id": "push"}],
        "slot_minutes": 120,
        "objective": _OBJECTIVE,
        "attribution_hours": _HOURS,
        "groups": {"holdout": 0.1, "random": 0.1, "baseline": 0.1},
        "baseline": {"variant_id": "offer", "channel": "email", "local_time": "09:00"},
        "guardrails": {"unsubscribed": {"max_rate": 0.02}},
    },
    CART: {
        "name": "Abandoned cart",
        "priority": 70,
        "variants": [
            {"id": "tips", "text": "Your cart is waiting. Need help with the size?"},
            {"id": "offer", "text": "Your cart is waiting, and delivery is free today."},
        ],
        "channels": [{"id": "email", "cost": 0.0004}, {"id": "push"}],
        "slot_minutes": 60,
        "default_window_hours": 12,
        "objective": _OBJECTIVE,
        "attribution_hours": _HOURS,
        "groups": {"holdout": 0.1, "random": 0.0, "baseline": 0.0},
    },
    "winback": {
        "name": "Win back",
        "mode": "paused",
        "variants": [
            {"id": "miss-you", "text": "We have not seen you for a while."},
            {"id": "survey", "text": "Why did you leave?"},
        ],
        "channels": ["email"],
        "objective": _OBJECTIVE,
    },
}
RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    "three-a-week": {"kind": "cap", "limit": 3, "window": {"rolling_hours": 168}},
    "four-hours-apart": {"kind": "gap", "minutes": 240},
    "no-sundays": {"kind": "quiet_hours", "start": "00:00", "end": "00:00", "days": ["sun"], "dry_run": True},
}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Shop:
    """Where the shop lives: the API as its systems call it, and the service behind it for what no call brings about."""

    client: Client
    services: Services
    clock: SteppingClock


def set_up(shop: Shop, people: Sequence[Person]) -> None:
    """Campaigns, rules and recipients."""
    for campaign_id, body in CAMPAIGNS.items():
        shop.client.call("PUT", f"/v1/campaigns/{campaign_id}", body)
    for rule_id, rule in RULES.items():
        shop.client.call("PUT", f"/v1/rules/{rule_id}", rule)
    rows = [
        {
            "recipient_id": p.recipient_id,
            "timezone": p.timezone,
            # As shops do it: beside what tells something, a number of its own for each and one that all share.
            "attributes": {**p.attributes, "customer_no": f"C{100_000 + number}", "currency": "EUR"},
            "channels": {c: {"state": True, "source": "sign-up"} for c in CHANNELS},
        }
        for number, p in enumerate(people)
    ]
    shop.client.call("POST", "/v1/recipients/batch", {"recipients": rows})


def live(shop: Shop, *, people: int, days: int, trained_on: Sequence[int], seed: int, tell: Tell) -> None:
    """Lives through the days; on those of ``trained_on`` every campaign is trained.

    The last day is today: what was asked this morning is still reserved.
    """
    rng = np.random.default_rng(seed)
    crowd = audience(people, rng)
    tell("campaigns, rules, recipients")
    set_up(shop, crowd)
    pending: list[dict[str, Any]] = []
    for number in range(days):
        tell(f"day {number + 1} of {days}")
        asked = _morning(shop, crowd, number, rng)
        pending += [event for person, decision in asked for event in _reaction(person, decision, rng)]
        if number in trained_on:
            tell(f"day {number + 1} of {days}: training")
            _train(shop)
        shop.clock.advance(DAY.total_seconds() if number < days - 1 else EVENING.total_seconds())
        _confirm(shop, [decision for _, decision in asked][::_CONFIRM_EVERY])
        expire(shop.services, WORKSPACE, 100_000)
        pending = _report(shop, pending)


def _morning(
    shop: Shop, crowd: Sequence[Person], number: int, rng: np.random.Generator
) -> list[tuple[Person, Mapping[str, Any]]]:
    """Asks for the day's messages."""
    found: list[tuple[Person, Mapping[str, Any]]] = []
    for campaign_id, part in _ASKED.items():
        asked = [p for p in crowd if rng.random() < part]
        rows = [
            {"recipient_id": p.recipient_id, "request_id": f"{campaign_id}/{number}/{p.recipient_id}"} for p in asked
        ]
        body = {"campaign_id": campaign_id, "recipients": rows}
        decisions = shop.client.call("POST", "/v1/decisions/batch", body)["decisions"]
        found += zip(asked, decisions, strict=True)
    return found


def _confirm(shop: Shop, decisions: Sequence[Mapping[str, Any]]) -> None:
    """Confirms messages whose time has come, with the id that the mailer gave them."""
    now = shop.clock()
    for decision in decisions:
        action = decision["action"]
        if action is not None and datetime.fromisoformat(action["send_at"]) <= now:
            sent = {"sent_at": action["send_at"], "provider": "mailer", "message_id": f"m-{decision['decision_id']}"}
            shop.client.call("POST", f"/v1/decisions/{decision['decision_id']}/confirm", sent)


def _reaction(person: Person, decision: Mapping[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    """What a person does: buys by themselves now and then, reads, clicks, buys, has enough."""
    action, found = decision["action"], []
    spend = float(np.round(rng.lognormal(3.4, 0.35), 2))
    chances = rng.random(3)
    decided = datetime.fromisoformat(decision["decided_at"])
    clicked = False
    if action is not None:
        at = datetime.fromisoformat(action["send_at"]) + timedelta(minutes=int(rng.integers(3, 90)))
        local = datetime.fromisoformat(action["send_at_local"])
        where = {"variant": action["variant_id"], "channel": action["channel"], "hour": local.hour + local.minute / 60}
        response = respond(person, **where, rng=rng)
        clicked = response.clicked
        happened = [name for name, did in (("opened", response.opened), ("clicked", clicked)) if did]
        if chances[1] < 0.012 * (1.0 - click_chance(person, **where)):
            happened.append("unsubscribed")
        found += [_event(decision, name, at) for name in happened]
    if chances[0] < (0.16 if clicked else 0.025):
        at = decided + timedelta(hours=float(4 + 14 * chances[2]))
        bought = {"event_id": f"order/{decision['decision_id']}", "type": "converted", "value": spend}
        found.append({**bought, "recipient_id": person.recipient_id, "occurred_at": at.isoformat()})
    return found


def _event(decision: Mapping[str, Any], name: str, at: datetime) -> dict[str, Any]:
    about = {"decision_id": decision["decision_id"], "type": name, "occurred_at": at.isoformat()}
    return {**about, "event_id": f"{decision['decision_id']}/{name}"}


def _report(shop: Shop, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reports what has happened by now; returns what has not."""
    now = shop.clock()
    past = [one for one in events if datetime.fromisoformat(one["occurred_at"]) <= now]
    for start in range(0, len(past), 2_000):
        shop.client.call("POST", "/v1/events", {"events": past[start : start + 2_000]})
    return [one for one in events if datetime.fromisoformat(one["occurred_at"]) > now]


def _train(shop: Shop) -> None:
    holder = fresh("showcase")
    run = start_now(shop.services, WORKSPACE, None, holder, trigger="schedule")
    with kept(shop.services, run, holder) as end:
        ended = carry_out(shop.services, run)
        shop.clock.advance(TRAINING.total_seconds())
        end(ended)
    if ended.status == "failed":
        raise RuntimeError(f"training failed: {ended.error}")
    shop.services.policies.refresh_now()
