"""How the rows of the goals table are read: each function yields a scenario's, from its figures; studies' are in
``goalstudies``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optimizer.errors import Invalid
from simulations.standings import Figure, figure_of

Json = Mapping[str, Any]
#: Reads the figures that lie under a name.
Read = Callable[[str], Any]


@dataclass(frozen=True)
class Goal:
    """One row.

    Attributes:
        key: of ``BOUNDS``; rows that one thing bounds share it.
        what: what is measured. figure: what it came to, with its interval.
        must: what was asked; met: whether it was reached. stretch: what was to be gone after ("" = nothing).
        further: whether that was reached.
        beside: the rival's figure, or what else the row is to be read with.
        gate: whether gate and canary were on. played: on which day, in which worlds.
    """

    key: str
    what: str
    figure: str
    must: str
    met: bool
    beside: str
    stretch: str = ""
    further: bool = False
    gate: str = "off"
    played: str = ""


def stationary(read: Read) -> Iterator[Goal]:
    """504 actions."""
    found = read("stationary")
    yield _ratio(found, "stationary", "504 actions, regret over 10,000 decisions against the best-tuned VW", 0.55, 0.45)
    ours, rival = _standing(found, "ours"), _standing(found, found["reference"])
    what = "share of the way to the informed oracle in the last fifth, decisions 8,000 to 10,000"
    yield _way(what, ours, rival, slice(8, 10), 0.86, 0.92)


def long(read: Read) -> Iterator[Goal]:
    """The same world for three times as long."""
    found = read("long")
    ours, rival = _standing(found, "ours"), _standing(found, found["reference"])
    # Shares are kept by tenths, here of 3,000: two of them have the last fifth of 20,000 in their middle.
    yield _way("the same of 20,000 (15,000 to 21,000)", ours, rival, slice(5, 7), 0.92, 0.95)
    yield _way("the same of 30,000 (24,000 to 30,000)", ours, rival, slice(8, 10), 0.94, 0.97)


def many_slots(read: Read) -> Iterator[Goal]:
    """3,024 actions."""
    worlds = [read(name)["options"] for name in ("many-slots", "stationary")]
    if len({(one["first"], one["seeds"]) for one in worlds}) > 1:
        raise Invalid.field("many-slots", "was played in other worlds than stationary: play one of them anew")
    fine, coarse = (_standing(read(name), "ours")["regret"] for name in ("many-slots", "stationary"))
    ratio = figure_of([a / b for a, b in zip(fine["per_seed"], coarse["per_seed"], strict=True)])
    rival = _standing(read("many-slots"), read("many-slots")["reference"])
    beside = f"regret {shown(fine, 0)} for {shown(coarse, 0)}; {rival['policy']} {shown(rival['regret'], 0)}"
    what = "3,024 actions: regret over that among 504"
    yield Goal("many-slots", what, _of(ratio, 3), "≤ 1.2", ratio.mean <= 1.2, beside, "≤ 1.1", ratio.mean <= 1.1)


def misspecified(name: str, about: str, must: float, stretch: float | None) -> Callable[[Read], Iterator[Goal]]:
    """A world that a sum of features can't draw."""

    def rows(read: Read) -> Iterator[Goal]:
        found = read(name)
        goal = _ratio(found, name, f"{about}: regret against the best VW", must, stretch)
        yield replace(goal, beside=f"{goal.beside}, tuned in *{found['tuning'][found['reference']]['scenario']}*")
        ours, network = _standing(found, "ours")["regret"], _standing(found, "network")["regret"]
        ratio = figure_of([a / b for a, b in zip(ours["per_seed"], network["per_seed"], strict=True)])
        beside = f"network {shown(network, 0)}, tuned in *{found['tuning']['network']['scenario']}*"
        yield Goal(name, f"{about}: against an unstructured network", _of(ratio, 3), "≤ 0.8", ratio.mean <= 0.8, beside)

    return rows


def base_rates(read: Read) -> Iterator[Goal]:
    """Realistic base rates."""
    found = read("base-rates")
    ours, static = _standing(found, "ours")["reward"], _standing(found, "best-static")["reward"]
    more = figure_of([a - b for a, b in zip(ours["per_seed"], static["per_seed"], strict=True)])
    what = "realistic base rates, 50,000 decisions: expected reward a decision above the best static arm's"
    beside = f"{shown(ours, 4)} for {shown(static, 4)}; more in {sum(d > 0 for d in more.per_seed)} of "
    beside += f"{len(more.per_seed)} worlds"
    yield Goal("base-rates", what, _of(more, 4), "> 0", more.low > 0.0, beside)
    yield _ratio(found, "base-rates", "the same: regret against the best-tuned VW", 0.7, None)


def new_variant(read: Read) -> Iterator[Goal]:
    """A variant that comes at half time."""
    found = read("new-variant")
    each = [one["to_final"] for one in found["recovery"]["ours"]]
    rival = found["reference"]
    pooled, oracle, chance, rivals = (
        found["recovery_together"][name]["to_final"] for name in ("ours", "full-oracle", "random", rival)
    )
    what = "a new variant at half time: decisions until 90 % of its final share, share averaged over the worlds"
    beside = f"by world {_list(each)}; {rival} {_list([rivals])}; those who give it its share from its first decision "
    beside += f"on: the full oracle {_list([oracle])} (by world "
    beside += (
        f"{_list([one['to_final'] for one in found['recovery']['full-oracle']])}), random choice {_list([chance])}"
    )
    reached = pooled is not None
    yield Goal(
        "new-variant",
        what,
        f"{pooled:,}" if reached else "not before the end",
        "≤ 1,500",
        reached and pooled <= 1_500,
        beside,
        "≤ 500",
        reached and pooled <= 500,
    )


def delays(read: Read) -> Iterator[Goal]:
    """Outcomes that come late."""
    found = read("delays")
    naive = _standing(found, "ours-naive")["regret"]
    goal = _ratio(
        found, "delays", "outcomes that come late: regret over that with outcomes known at the send", 1.2, 1.1
    )
    at_once = _standing(found, "ours-at-once")["regret"]
    yield replace(goal, beside=f"{goal.beside}; “not yet” taken for “no” {shown(naive, 0)}")
    pairs = zip(_standing(found, "ours")["regret"]["per_seed"], at_once["per_seed"], strict=True)
    ratio = figure_of([late / known for late, known in pairs])
    yield Goal(
        "delays",
        "the same over that with outcomes known with the decision, before anything is sent",
        _of(ratio, 3),
        "≤ 1.2",
        ratio.mean <= 1.2,
        f"regret {shown(at_once, 0)}",
        "≤ 1.1",
        ratio.mean <= 1.1,
        found["gate"],
    )


def drift(read: Read) -> Iterator[Goal]:
    """Tastes that swap."""
    found = read("drift")
    ours, rival = (found["recovery_together"][name] for name in ("ours", found["reference"]))
    reached = ours["to_informed"]
    yield Goal(
        "drift",
        "tastes swap at half time of 20,000: decisions until 90 % of the new informed lift, averaged over the worlds",
        "not within 10,000" if reached is None else f"{reached:,}",
        "≤ 4,000",
        reached is not None and reached <= 4_000,
        f"until 90 % of what was held before: {_list([ours['to_before']])} (from {ours['before']:.2f}, to "
        f"{ours['after']:.2f} at the end); {found['reference']} {_list([rival['to_before']])} (from "
        f"{rival['before']:.2f}, to {rival['after']:.2f})",
        "≤ 2,000",
        reached is not None and reached <= 2_000,
    )


def history(read: Read) -> Iterator[Goal]:
    """Order effects."""
    found = read("history")
    ours, sums = (_standing(found, name)["regret"] for name in ("ours", "ours:encoder=none"))
    less = figure_of([b - a for a, b in zip(ours["per_seed"], sums["per_seed"], strict=True)])
    error = float(np.std(less.per_seed, ddof=1) / np.sqrt(len(less.per_seed)))
    yield Goal(
        "history",
        "order effects: the chosen encoder's regret below that of sums of the history",
        f"{_of(less, 0)}: {less.mean / error:.1f} standard errors",
        "3 standard errors",
        less.mean >= 3.0 * error,
        f"{shown(ours, 0)} for {shown(sums, 0)}",
    )


def _ratio(found: Json, key: str, what: str, must: float, stretch: float | None) -> Goal:
    """Our regret over that of the scenario's reference, paired by world."""
    ours, rival = _standing(found, "ours"), _standing(found, found["reference"])
    ratio = ours["ratio"]["mean"]
    return Goal(
        key,
        what,
        shown(ours["ratio"], 3),
        f"≤ {must:g}",
        ratio <= must,
        f"{shown(ours['regret'], 0)} for {rival['policy']}'s {shown(rival['regret'], 0)}",
        "" if stretch is None else f"≤ {stretch:g}",
        stretch is not None and ratio <= stretch,
        found["gate"],
    )


def _way(what: str, ours: Json, rival: Json, tenths: slice, must: float, stretch: float) -> Goal:
    """The share of the way in some tenths of the decisions, the mean of theirs."""
    share = figure_of([float(np.mean(path[tenths])) for path in ours["paths"]])
    beside = f"{rival['policy']} {np.mean(rival['path'][tenths]):.3f}"
    return Goal(
        "way", what, _of(share, 3), f"≥ {must:g}", share.mean >= must, beside, f"≥ {stretch:g}", share.mean >= stretch
    )


def _standing(found: Json, policy: str) -> Json:
    one: Json = next(one for one in found["standings"] if one["policy"] == policy)
    return one


def _of(figure: Figure, digits: int) -> str:
    return shown({"mean": figure.mean, "low": figure.low, "high": figure.high}, digits)


def shown(figure: Json, digits: int) -> str:
    """A mean with its interval."""
    return f"{figure['mean']:,.{digits}f} ({figure['low']:,.{digits}f} … {figure['high']:,.{digits}f})"


def _list(values: Sequence[int | None]) -> str:
    return ", ".join("–" if one is None else f"{one:,}" for one in values)
