"""The scenarios of ``sendtide simulate``: which world, which campaign, how time passes, and what happens on the way.

The strengths were set so that random choice, Vowpal Wabbit at its defaults and the best tuned one lie about as far
apart as in the measurements behind the project's goals (504 actions, 10,000 decisions: regret 3,700, 3,300 and
2,100–2,500), and so that features tell a good part of what can be known and not all of it. ``World`` is written without
the model's code; but a click is a look that pleases in both, and both add tastes up on the logit scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from optimizer.errors import NotFound
from simulations.world.spec import Personal, Tiring, Twists, WorldSpec
from storage.records import OutcomeWeight
from storage.rules import Cap, Rule

WORKSPACE = "simulation"
CAMPAIGN = "messages"
#: Where simulated time starts: a Monday morning.
START = datetime(2026, 3, 2, 10, tzinfo=UTC)

#: ``week``: the next full week on the recipient's clock, from Monday 02:00, so that a slot is the same in every
#: decision (policies with an arm a slot need that). ``now``: a week from the decision on.
Window = Literal["week", "now"]
#: When outcomes are known: with the decision; when the message goes out; when they happen, and are final when their
#: windows are over.
Feedback = Literal["immediate", "at_send", "delayed"]


@dataclass(frozen=True)
class Scenario:
    """One scenario. Its seeds are ``seed`` + 1, 2, …; those that rivals are tuned on lie elsewhere.

    Attributes:
        decisions, days: how many decisions when nothing else is said, and over how many days.
        slot_minutes, window: the send slots.
        objective: what outcomes are worth; attribution_hours: how long after the send they count.
        allow_no_send: whether not sending is an action.
        rules: what masks actions.
        drift_at, launch_at: the share of the decisions after which tastes swap, a new variant becomes active.
        leaving: whether who unsubscribes is never asked for again.
    """

    name: str
    about: str
    world: WorldSpec = field(default_factory=WorldSpec)
    seed: int = 0
    decisions: int = 10_000
    days: float = 28.0
    slot_minutes: int = 360
    window: Window = "week"
    feedback: Feedback = "immediate"
    objective: Mapping[str, OutcomeWeight] = field(default_factory=lambda: {"clicked": OutcomeWeight(fixed=1.0)})
    attribution_hours: Mapping[str, float] = field(default_factory=lambda: {"clicked": 72.0})
    allow_no_send: bool = False
    rules: tuple[Rule, ...] = ()
    drift_at: float | None = None
    launch_at: float | None = None
    leaving: bool = False

    @property
    def actions(self) -> int:
        """Actions of a decision over a whole week, once every variant is active."""
        slots = 7 * 24 * 60 // self.slot_minutes
        return self.world.variants * slots * 3 + self.allow_no_send


_STATIONARY = Scenario(
    "stationary",
    "tastes stand still: 6 variants x 28 slots x 3 channels, 2,000 recipients",
)
_MONEY = {
    "clicked": OutcomeWeight(fixed=1.0),
    "converted": OutcomeWeight(fixed=2.0, per_value=0.1, max_value=200.0),
    "unsubscribed": OutcomeWeight(fixed=-10.0),
}
_THREE_DAYS = dict.fromkeys(("opened", "clicked", "converted", "unsubscribed"), 72.0)


def _cap(rule_id: str, limit: int, days: float) -> Rule:
    return Rule(WORKSPACE, rule_id, "cap", Cap(limit=limit, rolling_hours=24 * days))


def _twisted(name: str, about: str, **twist: float) -> Scenario:
    return replace(_STATIONARY, name=name, about=about, world=replace(_STATIONARY.world, twists=Twists(**twist)))


SCENARIOS: Mapping[str, Scenario] = {
    one.name: one
    for one in (
        _STATIONARY,
        replace(
            _STATIONARY, name="early", about="the same world, its first 1,000 decisions", decisions=1_000, days=2.8
        ),
        replace(_STATIONARY, name="exploration", about="the same world, for each way to explore"),
        replace(_STATIONARY, name="gated", about="the same world, for the whole service as it is by default"),
        replace(_STATIONARY, name="long", about="the same world for three times as long", decisions=30_000, days=84.0),
        replace(_STATIONARY, name="many-slots", about="the same world with 168 slots: 3,024 actions", slot_minutes=60),
        replace(
            _STATIONARY,
            name="cold-start",
            about="every decision is for a recipient never seen before",
            world=WorldSpec(recipients=20_000),
            decisions=2_000,
            days=7.0,
        ),
        replace(
            _STATIONARY,
            name="new-variant",
            about="a sixth variant becomes active at half time; only its features tell what it is like",
            launch_at=0.5,
        ),
        replace(_STATIONARY, name="drift", about="tastes swap at half time", drift_at=0.5, decisions=20_000),
        replace(
            _STATIONARY,
            name="delays",
            about="outcomes come log-normal hours after the send, count for 72 h; 30 % not matured at the end",
            feedback="delayed",
            window="now",
            days=22.0,
        ),
        replace(
            _STATIONARY,
            name="cap-pressure",
            about="at most one message in two days and two a week; not sending is allowed",
            window="now",
            days=35.0,
            rules=(_cap("two-days", 1, 2), _cap("week", 2, 7)),
            allow_no_send=True,
        ),
        replace(
            _STATIONARY,
            name="fatigue",
            about="every message tires; who unsubscribes is lost: twenty decisions a recipient, not sending allowed",
            world=WorldSpec(
                recipients=500,
                organic=0.02,
                unsubscribe=-5.0,
                tiring=Tiring(strength=0.5, half_life_hours=96.0, repetition=0.4, unsubscribe=0.6),
            ),
            window="now",
            days=60.0,
            objective=_MONEY,
            attribution_hours=_THREE_DAYS,
            allow_no_send=True,
            leaving=True,
        ),
        _twisted("three-way", "variant x channel x part of the day is a free table", three_way=0.9),
        _twisted("xor", "the product of the signs of two features turns liking round", xor=0.9),
        _twisted("jagged", "each hour of the week differs from its neighbours by chance", jagged=0.8),
        replace(
            _STATIONARY,
            name="base-rates",
            about="opens 20 %, clicks 2 %, conversions .3 %, unsubscribes .1 % under random choice",
            world=WorldSpec(
                recipients=20_000,
                content=0.6,
                channel=0.6,
                rhythm=0.6,
                look=-2.25,
                like=-2.6,
                floor=0.0,
                convert=0.075,
                organic=0.0012,
                unsubscribe=-8.0,
                personal=Personal(content=0.4, channel=0.3, rhythm=0.3, level=0.4),
            ),
            decisions=50_000,
            days=60.0,
            objective=_MONEY,
            attribution_hours=_THREE_DAYS,
            allow_no_send=True,
        ),
        replace(
            _STATIONARY,
            name="history",
            about="what is wanted follows from the order of the last two things viewed, not from how often",
            world=WorldSpec(content=0.5, twists=Twists(order=2.2)),
        ),
        replace(
            _STATIONARY,
            name="cross-sell",
            about="what was bought last says what is wanted next; events alone tell it, rivals are told it by hand",
            world=WorldSpec(content=0.5, twists=Twists(bought=2.2)),
        ),
        replace(
            _STATIONARY,
            name="broken-propensities",
            about="the log lies about propensities: the gate must refuse every candidate",
            decisions=3_000,
        ),
    )
}


def scenario(name: str) -> Scenario:
    """The scenario of that name; ``NotFound`` names those that there are."""
    found = SCENARIOS.get(name)
    if found is None:
        raise NotFound(f"no scenario {name!r}; there are: {', '.join(SCENARIOS)}")
    return found
