"""How the rows of the goals table are read: each function yields a scenario's or a study's, from its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

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
        gate: whether gate and canary were on.
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


def uci(read: Read) -> Iterator[Goal]:
    """Classification sets as bandits."""
    found = read("uci")
    for row in found["rows"]:
        goal, ours, best = found["goals"][row["set"]], row["errors"]["sendtide"], row["best"]
        stretch = 0.28 if row["set"] == "letter" else None
        yield Goal(
            "uci",
            f"UCI as bandits, mean error of 10,000: {row['set']}",
            _shown(ours, 5),
            f"≤ {goal:g}",
            ours["mean"] <= goal,
            f"{best} {_shown(row['errors'][best], 5)}; lints {_shown(row['errors']['lints'], 5)}",
            "" if stretch is None else f"≤ {stretch:g}",
            stretch is not None and ours["mean"] <= stretch,
        )
    mean = found["geometric_mean_ratio"]
    yield Goal(
        "uci",
        "the same, geometric mean of the errors over those of the best Vowpal Wabbit",
        _shown(mean, 3),
        f"≤ {found['ratio_goal']:g}",
        mean["mean"] <= found["ratio_goal"],
        "best of four settings of Vowpal Wabbit a set, each tuned for it",
        "≤ 0.3",
        mean["mean"] <= 0.30,
    )


def stationary(read: Read) -> Iterator[Goal]:
    """504 actions."""
    found = read("stationary")
    yield _ratio(found, "stationary", "504 actions, regret over 10,000 decisions against the best-tuned VW", 0.55, 0.45)
    ours, rival = _standing(found, "ours"), _standing(found, found["reference"])
    yield _way("share of the way to the informed oracle, decisions 9,000 to 10,000", ours, rival, 9, 0.86, 0.92)


def long(read: Read) -> Iterator[Goal]:
    """The same world for three times as long."""
    found = read("long")
    ours, rival = _standing(found, "ours"), _standing(found, found["reference"])
    yield _way("the same around 20,000 (18,000 to 21,000)", ours, rival, 6, 0.92, 0.95)
    yield _way("the same up to 30,000 (from 27,000)", ours, rival, 9, 0.94, 0.97)


def many_slots(read: Read) -> Iterator[Goal]:
    """3,024 actions."""
    fine, coarse = (_standing(read(name), "ours")["regret"] for name in ("many-slots", "stationary"))
    ratio = figure_of([a / b for a, b in zip(fine["per_seed"], coarse["per_seed"], strict=True)])
    rival = _standing(read("many-slots"), read("many-slots")["reference"])
    beside = f"regret {_shown(fine, 0)} for {_shown(coarse, 0)}; {rival['policy']} {_shown(rival['regret'], 0)}"
    what = "3,024 actions: regret over that among 504"
    yield Goal("many-slots", what, _of(ratio, 3), "≤ 1.2", ratio.mean <= 1.2, beside, "≤ 1.1", ratio.mean <= 1.1)


def misspecified(name: str, about: str, must: float, stretch: float | None) -> Callable[[Read], Iterator[Goal]]:
    """A world that the model can't draw."""

    def rows(read: Read) -> Iterator[Goal]:
        found = read(name)
        yield _ratio(found, name, f"{about}: regret against the best-tuned VW", must, stretch)
        ours, network = _standing(found, "ours")["regret"], _standing(found, "network")["regret"]
        ratio = figure_of([a / b for a, b in zip(ours["per_seed"], network["per_seed"], strict=True)])
        beside = f"network {_shown(network, 0)}"
        yield Goal(name, f"{about}: against an unstructured network", _of(ratio, 3), "≤ 0.8", ratio.mean <= 0.8, beside)

    return rows


def base_rates(read: Read) -> Iterator[Goal]:
    """Realistic base rates."""
    found = read("base-rates")
    ours, static = _standing(found, "ours")["reward"], _standing(found, "best-static")["reward"]
    more = figure_of([a - b for a, b in zip(ours["per_seed"], static["per_seed"], strict=True)])
    what = "realistic base rates, 50,000 decisions: expected reward a decision above the best static arm's"
    beside = f"{_shown(ours, 4)} for {_shown(static, 4)}; more in {sum(d > 0 for d in more.per_seed)} of "
    beside += f"{len(more.per_seed)} worlds"
    yield Goal("base-rates", what, _of(more, 4), "> 0", more.low > 0.0, beside)
    yield _ratio(found, "base-rates", "the same: regret against the best-tuned VW", 0.7, None)


def new_variant(read: Read) -> Iterator[Goal]:
    """A variant that comes at half time."""
    found = read("new-variant")
    each = [one["to_final"] for one in found["recovery"]["ours"]]
    pooled, oracle = (found["recovery_together"][name]["to_final"] for name in ("ours", "full-oracle"))
    what = "a new variant at half time: decisions until 90 % of its final share, share averaged over the worlds"
    beside = f"by world {_list(each)}; the full oracle, which needs none, {oracle or '–'} and by world "
    beside += f"{_list([one['to_final'] for one in found['recovery']['full-oracle']])}"
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


def send_times(read: Read) -> Iterator[Goal]:
    """Send times on public logs."""
    for log in [one for one in read("send-times")["logs"] if "," not in one["log"]]:
        rates = {way["way"]: way["hit_rate"] for way in log["ways"]}
        new, paired = log["new_recipient"], log["paired"]["rhythm − shrunk"]
        name, stretch = log["log"], 0.265 if log["log"] == "completejourney" else 0.175
        yield Goal(
            f"send-times {name}",
            f"send time on real logs, {name}: hit within two hours above the shrunk histogram's",
            f"{rates['rhythm']['mean']:.3f}: {paired['mean']:+.4f} ({paired['z']:.1f} standard errors)",
            "2 standard errors",
            paired["z"] >= 2.0,
            f"shrunk {rates['shrunk']['mean']:.3f}, own {rates['own histogram']['mean']:.3f}, global best hour "
            f"{rates['global best']['mean']:.3f}",
            f"≥ {stretch:g}",
            rates["rhythm"]["mean"] >= stretch,
        )
        yield Goal(
            f"new-recipient {name}",
            f"a recipient with ten events, {name}: above the global best hour",
            f"{new['mean']:+.4f} ({new['z']:.1f} standard errors)",
            "> 0",
            new["mean"] > 0.0,
            f"{log['people']:,} people",
        )


def hillstrom(read: Read) -> Iterator[Goal]:
    """The replay of an e-mail experiment."""
    found = read("hillstrom")
    first = found["spans"][0]
    paired = first["against_thompson"]
    yield Goal(
        "hillstrom",
        "Hillstrom replay, first 10,000 accepted: visits a mail above three-arm Thompson sampling's",
        f"{paired['mean']:+.4f} ± {paired['error']:.4f}",
        "≥ -0.002",
        paired["mean"] >= -0.002,
        f"{first['service']['mean']:.4f} for {first['thompson']['mean']:.4f}; best static "
        f"{first['static']['mean']:.4f}",
        "≥ 0",
        paired["mean"] >= 0.0,
        "on" if found["options"]["gate"] else "off",
    )


def delays(read: Read) -> Iterator[Goal]:
    """Outcomes that come late."""
    found = read("delays")
    naive = _standing(found, "ours-naive")["regret"]
    goal = _ratio(
        found, "delays", "outcomes that come late: regret over that with outcomes known at the send", 1.2, 1.1
    )
    yield replace(goal, beside=f"{goal.beside}; “not yet” taken for “no” {_shown(naive, 0)}")


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
        f"{_shown(ours, 0)} for {_shown(sums, 0)}",
    )


def estimators(read: Read) -> Iterator[Goal]:
    """Intervals, wrong promotions and power where the truth is known."""
    worlds = read("estimators")
    held = [next(i for i in world["intervals"] if i["interval"] == "dr sequence") for world in worlds]
    coverage, width = [one["coverage_lower_bound"] for one in held], [one["relative_width"] for one in held]
    logs = f"{worlds[0]['repetitions']:,} logs in each of {len(worlds)} worlds"
    yield Goal(
        "estimators",
        "95 % confidence sequences: lower bound of how often they hold the truth",
        ", ".join(f"{one:.3f}" for one in coverage),
        "≥ 0.93",
        min(coverage) >= 0.93,
        logs,
        gate="the gate's own",
    )
    yield Goal(
        "estimators",
        "their width over that of fixed-time intervals",
        ", ".join(f"{one:.2f}" for one in width),
        "≤ 1.5",
        max(width) <= 1.5,
        logs,
        gate="the gate's own",
    )
    wrong = [world["wrong"] for world in worlds]
    yield Goal(
        "estimators",
        "campaigns with a wrong promotion in 40 looks where nothing is better",
        ", ".join(f"{one} of {world['campaigns']:,}" for one, world in zip(wrong, worlds, strict=True)),
        f"stated {worlds[0]['stated_rate']:.0%}: up to {worlds[0]['most_by_chance']} by chance",
        all(world["null_passed"] for world in worlds),
        f"by the value test alone {', '.join(str(world['wrong_by_value']) for world in worlds)}",
        gate="the gate's own",
    )
    power = [world["power"] / world["power_with_the_true_model"] for world in worlds]
    yield Goal(
        "estimators",
        "power over that with the true reward model",
        ", ".join(f"{one:.2f}" for one in power),
        "≥ 0.9",
        min(power) >= 0.9,
        ", ".join(f"{world['power']:.3f} of {world['power_with_the_true_model']:.3f}" for world in worlds),
        gate="the gate's own",
    )


def gate(read: Read) -> Iterator[Goal]:
    """Wrong promotions and power of production retrains."""
    found = read("gate")
    wrong = [found[part] for part in ("null", "later") if part in found]
    yield Goal(
        "gate",
        "production retrains on dealt-out outcomes: runs with a wrong promotion, before and after a first policy",
        ", ".join(f"{one['wrong']} of {one['runs']}" for one in wrong),
        f"stated {found['null']['stated_rate']:.0%}: up to {found['null']['most_by_chance']} by chance",
        all(one["passed"] for one in wrong),
        f"{sum(one['retrains'] for one in wrong):,} retrains",
        gate="on",
    )
    power = found["power"]
    rows = power["rows_at_promotion"]
    yield Goal(
        "gate",
        "the same with the true outcomes: promoted by 5,000 rows",
        f"{power['promoted']} of {power['runs']}",
        "90 %",
        power["passed"],
        f"median {median(rows):,.0f} rows" if rows else "none",
        gate="on",
    )


def _ratio(found: Json, key: str, what: str, must: float, stretch: float | None) -> Goal:
    """Our regret over that of the scenario's reference, paired by world."""
    ours, rival = _standing(found, "ours"), _standing(found, found["reference"])
    ratio = ours["ratio"]["mean"]
    return Goal(
        key,
        what,
        _shown(ours["ratio"], 3),
        f"≤ {must:g}",
        ratio <= must,
        f"{_shown(ours['regret'], 0)} for {rival['policy']}'s {_shown(rival['regret'], 0)}",
        "" if stretch is None else f"≤ {stretch:g}",
        stretch is not None and ratio <= stretch,
        found["gate"],
    )


def _way(what: str, ours: Json, rival: Json, tenth: int, must: float, stretch: float) -> Goal:
    share = ours["path"][tenth]
    beside = f"{rival['policy']} {rival['path'][tenth]:.3f}"
    return Goal("way", what, f"{share:.3f}", f"≥ {must:g}", share >= must, beside, f"≥ {stretch:g}", share >= stretch)


def _standing(found: Json, policy: str) -> Json:
    one: Json = next(one for one in found["standings"] if one["policy"] == policy)
    return one


def _of(figure: Figure, digits: int) -> str:
    return _shown({"mean": figure.mean, "low": figure.low, "high": figure.high}, digits)


def _shown(figure: Json, digits: int) -> str:
    return f"{figure['mean']:,.{digits}f} ({figure['low']:,.{digits}f} … {figure['high']:,.{digits}f})"


def _list(values: Sequence[int | None]) -> str:
    return ", ".join("–" if one is None else f"{one:,}" for one in values)
