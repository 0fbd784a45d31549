"""How the rows of the goals table that studies and benchmarks tell of are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median

from optimizer.bandit.intervals import quantile
from simulations.bounds import RETRAINS, SPREAD, WIDER
from simulations.goalrows import Goal, Read, shown
from simulations.standings import figure_of

#: The row before which the confidence sequences of the study say nothing (``service.estimates.SEQUENCE_START``).
_FROM = 1_000
#: How the benchmark's row begins that the goal is about.
_RETRAIN = "retrain on the simulator's 200,000 decisions"


def uci(read: Read) -> Iterator[Goal]:
    """Classification sets as bandits."""
    found = read("uci")
    for row in found["rows"]:
        goal, ours, best = found["goals"][row["set"]], row["errors"]["sendtide"], row["best"]
        stretch = 0.28 if row["set"] == "letter" else None
        yield Goal(
            "uci",
            f"UCI as bandits, mean error of 10,000: {row['set']}",
            shown(ours, 5),
            f"≤ {goal:g}",
            ours["mean"] <= goal,
            f"{best} {shown(row['errors'][best], 5)}; lints {shown(row['errors']['lints'], 5)}",
            "" if stretch is None else f"≤ {stretch:g}",
            stretch is not None and ours["mean"] <= stretch,
        )
    mean = found["geometric_mean_ratio"]
    yield Goal(
        "uci",
        "the same, geometric mean of the errors over those of the best Vowpal Wabbit",
        shown(mean, 3),
        f"≤ {found['ratio_goal']:g}",
        mean["mean"] <= found["ratio_goal"],
        "best of four settings of Vowpal Wabbit a set, each tuned for it",
        "≤ 0.3",
        mean["mean"] <= 0.30,
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
            f"the half-life chosen, not the service's: {rates['rhythm, chosen']['mean']:.3f}; shrunk "
            f"{rates['shrunk']['mean']:.3f}, own {rates['own histogram']['mean']:.3f}, global best hour "
            f"{rates['global best']['mean']:.3f}",
            f"≥ {stretch:g}",
            rates["rhythm"]["mean"] >= stretch,
        )
        low, high = (new["mean"] + sign * quantile(0.95) * new["error"] for sign in (-1.0, 1.0))
        yield Goal(
            f"new-recipient {name}",
            f"a recipient with ten events, {name}: above the global best hour",
            f"{new['mean']:+.4f} ({low:+.4f} … {high:+.4f}; {new['z']:.1f} standard errors)",
            "> 0 with all of its 95 % interval",
            low > 0.0,
            f"{log['people']:,} people",
        )


def hillstrom(read: Read) -> Iterator[Goal]:
    """The replay of an e-mail experiment."""
    found = read("hillstrom")
    first = found["spans"][0]
    paired = figure_of(first["against_thompson"]["per_seed"])
    yield Goal(
        "hillstrom",
        "Hillstrom replay, first 10,000 accepted: visits a mail above three-arm Thompson sampling's",
        f"{paired.mean:+.4f} ({paired.low:+.4f} … {paired.high:+.4f})",
        "≥ -0.002",
        paired.mean >= -0.002,
        f"{first['service']['mean']:.4f} for {first['thompson']['mean']:.4f}; best static "
        f"{first['static']['mean']:.4f}",
        "≥ 0",
        paired.mean >= 0.0,
        "on" if found["options"]["gate"] else "off",
    )


#: Intervals of a single look that verdicts rest on.
_ONE_LOOK: Mapping[str, str] = {
    "dr normal": "95 % intervals of doubly robust estimates",
    "difference, gate's error": "95 % intervals of a candidate's lead by the gate's error",
}


def _by_world(counts: Iterable[int]) -> str:
    """One number where all worlds have the same, else each world's."""
    told = [f"{count:,}" for count in counts]
    return told[0] if len(set(told)) == 1 else ", ".join(told)


def estimators(read: Read) -> Iterator[Goal]:
    """Intervals, wrong promotions and power where the truth is known."""
    worlds = read("estimators")
    held = [next(i for i in world["intervals"] if i["interval"] == "dr sequence") for world in worlds]
    coverage, width = [one["coverage_lower_bound"] for one in held], [one["relative_width"] for one in held]
    logs = f"{_by_world(world['repetitions'] for world in worlds)} logs a world"
    ends = [world["rows"] for world in worlds]
    looks = ", ".join("one look" if rows == _FROM else f"{rows - _FROM + 1:,} looks" for rows in ends)
    yield Goal(
        "estimators",
        f"95 % confidence sequences: lower bound of how often they hold the truth at all looks from row {_FROM:,} on",
        ", ".join(f"{one:.3f}" for one in coverage),
        "≥ 0.93",
        min(coverage) >= 0.93,
        f"{logs}; {looks}; what `sendtide evaluate` shows",
        gate="off",
    )
    yield Goal(
        "estimators",
        "their width over that of fixed-time intervals, by rows",
        ", ".join(f"{one:.2f} at {rows:,}" for one, rows in zip(width, ends, strict=True)),
        "≤ 1.5",
        max(width) <= 1.5,
        f"{logs}; {SPREAD}",
        gate="off",
    )
    yield Goal(
        "sequences",
        "the same of longer logs",
        ", ".join(f"{one:.2f} at {rows:,}" for rows, one in WIDER.items()),
        "≤ 1.5",
        max(WIDER.values()) <= 1.5,
        "measured apart",
        gate="off",
    )
    for name, what in _ONE_LOOK.items():
        found = [next(one for one in world["intervals"] if one["interval"] == name) for world in worlds]
        coverage = [one["coverage_lower_bound"] for one in found]
        held_in = ", ".join(f"{one['coverage']:.3f}" for one in found)
        yield Goal(
            "intervals",
            f"{what}, one look: lower bound of how often they hold the truth",
            ", ".join(f"{one:.3f}" for one in coverage),
            "≥ 0.93",
            min(coverage) >= 0.93,
            f"{logs}; they held it in {held_in}",
            gate="the gate's own",
        )
    wrong, by_chance = [world["wrong"] for world in worlds], _by_world(world["most_by_chance"] for world in worlds)
    yield Goal(
        "estimators",
        "campaigns with a wrong promotion in 40 looks where nothing is better",
        ", ".join(f"{one} of {world['campaigns']:,}" for one, world in zip(wrong, worlds, strict=True)),
        f"stated {worlds[0]['stated_rate']:.0%}: up to {by_chance} by chance",
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
        f"{sum(one['retrains'] for one in wrong):,} retrains, of which {sum(one['judged'] for one in wrong):,} judged",
        gate="on",
    )
    power = found["power"]
    rows = power["rows_at_promotion"]
    yield Goal(
        "gate",
        "the same with the true outcomes: a first policy promoted by 5,000 rows",
        f"{power['promoted']} of {power['runs']}",
        "90 %",
        power["passed"],
        f"median {median(rows):,.0f} rows" if rows else "none",
        gate="on",
    )


def retraining(bench: Path) -> Iterator[Goal]:
    """A retrain of a long log, from the report of the benchmarks; none where it doesn't tell of so many decisions."""
    text = bench.read_text(encoding="utf-8") if bench.exists() else ""
    machine, *lines = text.partition("\n## simulated\n")[2].partition("\n## ")[0].strip().splitlines() or [""]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    for time, memory in pairwise(cells):
        if time[0].startswith(_RETRAIN):
            yield Goal(
                "retraining",
                f"{_RETRAIN}, 504 actions, on two cores: time and memory",
                f"{time[1]}, {memory[1]}",
                "≤ 60 s, ≤ 2 GiB",
                time[-1] == memory[-1] == "yes",
                f"measured {machine}; {RETRAINS}",
            )
