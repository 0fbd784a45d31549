"""The scenarios of the report: which policies play each, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from optimizer.model.history import Encoder
from storage.records import ExplorationMethod

_SIMPLE = ("best-static", "static-ab", "segment-best", "shrunk-histogram", "full-oracle")
#: Tuned over a scenario's whole length, and best of those that were; bag, cover, regcb and rnd take a minute or more
#: for a thousand decisions, and play the first thousand.
_VW = ("vw-squarecb", "vw-large")
_ALL_VW = (*_VW, "vw-egreedy", "vw-bag", "vw-cover", "vw-regcb", "vw-rnd")
_LINEAR = ("linucb", "lints", "linucb-crossed")


@dataclass(frozen=True)
class Part:
    """One scenario of the report: the policies and what it answers.

    ``against``: whose regret others are compared with (None = the best Vowpal Wabbit).
    """

    scenario: str
    policies: tuple[str, ...]
    asks: str
    against: str | None = None


PARTS: tuple[Part, ...] = (
    Part(
        "early",
        ("ours", "ours:opens=false", *_ALL_VW, *_LINEAR, "network", "histogram", *_SIMPLE),
        "504 actions, the first decisions, against every rival",
    ),
    Part(
        "stationary",
        ("ours", *_VW, "vw-egreedy", "linucb-crossed", "network", *_SIMPLE),
        "504 actions, against rivals that learn from so many decisions in reasonable time",
    ),
    Part("long", ("ours", "vw-squarecb", "full-oracle"), "how near to the oracle 20,000 and 30,000 decisions lead"),
    Part("gated", ("service", "ours", "vw-squarecb", "full-oracle"), "what gate and canary cost while they protect"),
    Part(
        "exploration",
        ("ours", *(f"ours:method={name}" for name in get_args(ExplorationMethod) if name != "posterior_bank")),
        "what each way to explore costs, with its number as it is by default; ours is *posterior_bank*",
        against="ours",
    ),
    Part("many-slots", ("ours", "vw-squarecb", "best-static", "full-oracle"), "3,024 actions against the 504"),
    Part("cold-start", ("ours", *_VW, "linucb-crossed", *_SIMPLE), "recipients that nobody has met"),
    Part("three-way", ("ours", *_VW, "network", "full-oracle"), "a free three-way table, which no sum draws"),
    Part("jagged", ("ours", *_VW, "network", "full-oracle"), "hours that differ by chance, which no wave draws"),
    Part("xor", ("ours", *_VW, "network", "full-oracle"), "exclusive or of two features, which no sum draws"),
    Part("base-rates", ("ours", *_VW, "best-static", "full-oracle"), "realistic base rates, 50,000 decisions"),
    Part("new-variant", ("ours", "vw-squarecb", "full-oracle"), "a new variant at half time"),
    Part(
        "delays",
        ("ours", "ours-naive", "ours-at-send", "ours-at-once", "vw-squarecb", "full-oracle"),
        "outcomes that come late, and what knowing them at the send, or with the decision, would be worth",
        against="ours-at-send",
    ),
    Part("drift", ("ours", "vw-squarecb", "full-oracle"), "tastes that swap at half time"),
    Part("cap-pressure", ("ours", "vw-squarecb", "full-oracle"), "caps at work; not sending is allowed"),
    Part("fatigue", ("ours", "vw-squarecb", "best-static", "full-oracle"), "messages that tire"),
    Part(
        "history",
        ("ours", *(f"ours:encoder={name}" for name in get_args(Encoder) if name != "auto"), "vw-squarecb"),
        "order effects: what reads the history, and what goes by its sums",
        against="ours:encoder=none",
    ),
    Part(
        "cross-sell",
        ("ours", "ours:encoder=none", "ours:history=false", "vw-squarecb", "full-oracle"),
        "purchases that say what goes with them: learned from events, with and without an encoder of their order",
    ),
    Part(
        "broken-propensities",
        ("service", "service-false-numbers", "service-false-draws"),
        "the whole service, gate on: an honest log and two that lie",
    ),
)
