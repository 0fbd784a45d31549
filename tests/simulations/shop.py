"""A shop with a rule of every kind, run through the real service by a clock and chance of its own."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from optimizer.config import Settings
from optimizer.errors import Conflict
from optimizer.service import ingest, settle, setup, upkeep
from optimizer.service.requests import DecisionRequest, EventInput, RecipientPatch
from optimizer.service.wiring import Services, open_services
from storage.log import Decision, Message
from storage.records import Campaign, Channel, Consent, Recipient, Requirement, Suppression, Variant
from storage.rules import Adapt, Blackout, Budget, Cap, Capacity, QuietHours, Rule, Selector, WarmUpStep
from tests.simulations.planted import NOW, SHOP

PEOPLE = 12
MARKETING = Selector(except_categories=("transactional",))
RULES = (
    Rule(SHOP, "fortnight", "cap", Cap(4, rolling_hours=336.0), MARKETING, MARKETING),
    Rule(SHOP, "day", "cap", Cap(2, calendar="day", adapt=Adapt(3, 1))),
    Rule(SHOP, "gap", "gap", Cap(1, rolling_hours=5.0)),
    Rule(SHOP, "night", "quiet_hours", QuietHours("21:00", "07:30"), Selector(channels=("push",))),
    Rule(SHOP, "holidays", "blackout", Blackout(tuple(f"2026-03-{day:02}" for day in range(4, 32, 3)), True, "DE")),
    Rule(SHOP, "sender", "capacity", Capacity(3, 360, (WarmUpStep(1, 1), WarmUpStep(4, 2)), "2026-03-03")),
    Rule(SHOP, "money", "budget", Budget(60_000, "day", "Europe/Berlin")),
    Rule(SHOP, "trial", "cap", Cap(0, calendar="day"), dry_run=True),
)
OPENED = Requirement("news", "opened", happened=True, within_hours=400)


class Shop:
    """The shop at work; ``reasons`` counts the decisions in which each kind masked something."""

    def __init__(self, database: str, seed: int) -> None:
        self.now = NOW
        self.chance = random.Random(seed)
        self.services: Services = open_services(Settings(database=database), lambda: self.now, seed=seed, watch=False)
        self.reasons: Counter[str] = Counter()
        self.decided: list[Decision] = []
        setup.ensure_workspace(self.services, SHOP)
        channels = (Channel("email", 0.01), Channel("push"))
        for name, category, priority, needs in (
            ("news", "marketing", 20, ()),
            ("sequel", "marketing", 30, (OPENED,)),
            ("receipt", "transactional", 90, ()),
        ):
            variants = (Variant("a", cost=0.01), Variant("b", requires=needs))
            made = Campaign(SHOP, name, variants, channels, NOW, NOW, category=category, priority=priority)
            setup.put_campaign(self.services, replace(made, slot_minutes=360, displaceable=name != "receipt"))
        for rule in RULES:
            setup.put_rule(self.services, rule)
        setup.put_recipients(self.services, SHOP, [self._person(i) for i in range(PEOPLE)])

    def _person(self, i: int) -> Recipient:
        return Recipient(
            SHOP,
            f"u{i}",
            timezone=("Europe/Berlin", "America/New_York", "Pacific/Auckland")[i % 3],
            attributes={} if i % 4 else {"country": "NZ"},
            channels={"push": Consent(i % 5 != 0)},
            suppressed=(Suppression("email", "marketing"),) if i % 7 == 0 else (),
        )

    def run(self, steps: int) -> None:
        """So many random things happen, some minutes apart."""
        for step in range(steps):
            self.now += timedelta(minutes=self.chance.choice((10, 60, 120, 240)))
            what = self.chance.random()
            if what < 0.2:
                asked = replace(self._request(), request_id=f"one{step}")  # else its id, so what is drawn, is by chance
                self._take(self.services.decider.decide(SHOP, asked)[0])
            elif what < 0.6:
                rows = [self._request() for _ in range(self.chance.randrange(2, 12))]
                for made in self.services.decider.decide_batch(SHOP, rows, f"run{step}"):
                    if isinstance(made, Decision):
                        self._take(made)
            elif what < 0.9 and self.decided:
                due = [made for made in self.decided if made.send_at is not None and made.send_at <= self.now]
                self._settle(self.chance.choice(due[-20:] or self.decided))
                self._settle(self.chance.choice(self.decided[-20:]))
            elif what < 0.93:
                sent = Message(SHOP, self._who(), self.now - timedelta(hours=1), f"their{step}", "email", "marketing")
                settle.record_send(self.services, sent)
            elif what < 0.95:
                self._change_a_rule()
            else:
                upkeep.expire(self.services, SHOP)

    def _take(self, made: Decision) -> None:
        self.reasons.update({reason.kind for reason in made.reasons if not reason.dry_run})
        if made.status == "reserved":
            self.decided.append(made)

    def _who(self) -> str:
        return f"u{self.chance.randrange(PEOPLE)}"

    def _request(self) -> DecisionRequest:
        start = self.now + timedelta(hours=self.chance.randrange(60))
        patch = RecipientPatch(timezone="Asia/Kolkata") if self.chance.random() < 0.02 else None
        return DecisionRequest(
            self.chance.choices(("news", "sequel", "receipt"), (6, 3, 3))[0],
            self._who(),
            window=(start, start + timedelta(hours=self.chance.choice((5, 20, 40)))),
            recipient=patch,
            override_rules=self.chance.random() < 0.02,
        )

    def _settle(self, made: Decision) -> None:
        kind = self.chance.random()
        sent_at: datetime | None = None
        if made.send_at is not None and made.send_at <= self.now:
            sent_at = made.send_at + timedelta(minutes=self.chance.randrange(3))
        if kind < 0.4:
            settle.confirm(self.services, SHOP, made.decision_id, sent_at, "p", f"m-{made.decision_id}")
            kind = self.chance.uniform(0.4, 0.8)
        if 0.4 < kind < 0.72:
            opened = EventInput(self.chance.choice(("opened", "opened", "opened", "delivered")), self.now)
            ingest.ingest(self.services, SHOP, [replace(opened, decision_id=made.decision_id)])
        elif 0.72 < kind < 0.74:
            ingest.ingest(self.services, SHOP, [EventInput("unsubscribed", self.now, decision_id=made.decision_id)])
        elif kind > 0.8:
            self._call_off(made)

    def _call_off(self, made: Decision) -> None:
        with self.services.store.read() as reader:
            stored = reader.decision(SHOP, made.decision_id)
        if stored is not None and stored.status == "reserved":
            if self.chance.random() < 0.2:
                with suppress(Conflict):  # overdue: settled there and then
                    settle.claim(self.services, SHOP, made.decision_id)
            else:
                settle.release(self.services, SHOP, made.decision_id, None)

    def _change_a_rule(self) -> None:
        rule = self.chance.choice(RULES)
        changed = self.chance.choice((rule, rule, replace(rule, enabled=False), replace(rule, dry_run=True)))
        setup.put_rule(self.services, changed)
