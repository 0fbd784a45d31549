"""``sendtide estimator-study``: whether off-policy intervals hold the truth, and what the gate's value test can see.

Logs of an incumbent are drawn from a world in which everything is known. Of each log every estimate of a candidate's
value is made, and the paired difference that the gate judges by, with reward models that are cross-fitted as a retrain
does it, and once more with the true reward model in their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import orjson
from numpy.typing import NDArray
from rich.console import Console

from optimizer.bandit.clusters import clusters
from optimizer.bandit.conditions import support
from optimizer.bandit.evidence import GateLimits
from optimizer.bandit.gate import spend
from optimizer.bandit.intervals import Difference, difference_bound, one_sided_quantile, quantile
from optimizer.bandit.sequences import confidence_sequence
from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from optimizer.service.estimates import SEQUENCE_START, Judged, estimates
from simulations.fragments import leave, played, table
from simulations.gate_study import most_by_chance
from simulations.parallel import in_processes
from simulations.report_study import lower_bound

if TYPE_CHECKING:
    from simulations.estimator_worlds import Drawn, Pool

Floats = NDArray[np.float64]

#: What must be shown: the lower bound (one-sided, 95 %) of the share of intervals that hold the truth; the power beside
#: that with the true reward model.
LEAST_COVERAGE, LEAST_POWER = 0.93, 0.9
#: A campaign without anything to learn is judged so often, with so many rows more each time.
LOOKS, STEP = 40, 250
#: Repetitions in one call of a process.
BLOCK = 10
#: Of its figures and its fragment.
NAME = "estimators"
_STREAM = 204


@dataclass(frozen=True)
class Seen:
    """What one log said: of each estimate whether its interval held the truth and how wide it was; of the difference
    the gate's lower bound, with cross-fitted reward models and with the true one."""

    held: Mapping[str, bool]
    width: Mapping[str, float]
    low: float
    low_with_truth: float


@dataclass(frozen=True)
class Null:
    """What a campaign without anything to learn ever met at its looks: the value test, and at one look both it and the
    conditions on the log's support, without which the gate publishes nothing, not even on the smallest rung."""

    valued: bool
    promoted: bool


@click.command("estimator-study", epilog=EXIT_CODES)
@option("--repetitions", type=click.IntRange(20, 100_000), default=200, show_default=True, help="Logs of each world.")
@option("--world", help="Only this world; in --out the others' figures stay as they are.")
@option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Logs at a time.")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of estimators.json and .md.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(*, repetitions: int, world: str | None, processes: int, out: Path | None, as_json: bool) -> None:
    """Measure off-policy estimates: do their 95 % intervals hold, what does the gate see, what does it let through.

    \b
    Power: the share of logs in which a candidate that is better is shown to be, at the
    level of a campaign's first try; beside it that with the true reward model.
    Null: a candidate that chooses otherwise and earns the same, judged 40 times while the
    log grows by 250 rows; a campaign in which it ever meets the value test and the gate's
    conditions on the log's support, as a promotion needs, is a wrong one.
    """
    from simulations.estimator_worlds import SETTINGS

    if world is not None and world not in SETTINGS:
        raise click.BadParameter(f"{world!r}; allowed: {', '.join(SETTINGS)}", param_hint="--world")
    with reported(as_json=as_json):
        started = time.perf_counter()
        found = [_study(name, repetitions, processes) for name in ((world,) if world else SETTINGS)]
        if out is not None:
            told = _beside(out, found)
            leave(out, NAME, told, markdown(told))
        if as_json:
            click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
            return
        for one in found:
            click.echo("\n".join(lines(one)))
        click.echo(f"{time.perf_counter() - started:.0f} s")


def _study(world: str, repetitions: int, processes: int) -> dict[str, Any]:
    console = Console(stderr=True)
    blocks = [(world, first, min(BLOCK, repetitions - first)) for first in range(0, repetitions, BLOCK)]

    def each(work: Callable[..., list[Any]], label: str) -> list[Any]:
        done = in_processes(work, blocks, processes=processes, console=console, label=label, total=BLOCK)
        return [one for part in done for one in part]

    return {**figures(world, each(look, f"{world}, intervals"), each(wrong, f"{world}, null")), "played": played()}


def _beside(folder: Path, found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The figures of every world that lie in a folder, these in place of older ones, in the order of the settings."""
    from simulations.estimator_worlds import SETTINGS

    path = folder / f"{NAME}.json"
    lying = orjson.loads(path.read_bytes()) if path.exists() else []
    by_world = {one["world"]: one for one in (*lying, *found)}
    return [by_world[name] for name in SETTINGS if name in by_world]


def look(world: str, first: int, count: int, tell: Callable[[int], None] | None = None) -> list[Seen]:
    """What the logs ``first`` … say; log i is the same whatever their number."""
    from simulations.estimator_worlds import SETTINGS, draw_log, pool_of

    pool = pool_of(world)
    found = []
    for i in range(first, first + count):
        rng = np.random.default_rng([_STREAM, sum(world.encode()), i])
        log = draw_log(pool, "incumbent", SETTINGS[world].rows, rng)
        found.append(_seen(pool, log))
        if tell is not None:
            tell(i + 1 - first)
    return found


def _seen(pool: Pool, log: Drawn) -> Seen:
    q = cross_fitted(pool, log)
    candidate = _judged(pool, log, q)
    truth = pool.value("candidate")
    held, width = {}, {}
    for name, one in estimates(candidate).items():
        if one["withheld"] is not None:
            continue
        ends = {
            "normal": (one["low"], one["high"]),
            **{kind: one[kind] for kind in ("bootstrap", "empirical_likelihood") if one[kind] is not None},
        }
        for kind, (low, high) in ends.items():
            held[f"{name} {kind}"], width[f"{name} {kind}"] = low <= truth <= high, high - low
    # What is watched all along: a sequence holds when it holds at every row from SEQUENCE_START on; of a log that ends
    # there that is one look.
    terms = candidate.terms()["dr"]
    sequence = confidence_sequence(terms, start=SEQUENCE_START)
    held["dr sequence"] = bool(((sequence.low <= truth) & (truth <= sequence.high)).all())
    width["dr sequence"] = float(sequence.high[-1] - sequence.low[-1])
    low, error = value_test(pool, log, "candidate", q, tries=1)
    difference = _difference(pool, log, "candidate", q).rows
    middle, real = float(difference.mean()), truth - pool.value("incumbent")
    held["difference, gate's error"] = abs(middle - real) <= quantile(0.95) * error
    width["difference, gate's error"] = 2 * quantile(0.95) * error
    return Seen(held, width, low, value_test(pool, log, "candidate", pool.told[log.place], tries=1)[0])


def cross_fitted(pool: Pool, log: Drawn) -> Floats:
    """(n, K) predicted rewards, each row's by a model of the candidate's rows and of other people's in the log."""
    from optimizer.model.inference import RewardModel
    from optimizer.model.training.train import train
    from optimizer.service.fitting import FOLDS
    from simulations.estimator_worlds import joined, predicted

    rows = log.examples(pool)
    q = np.empty((len(rows), pool.truth.shape[1]))
    for fold in range(FOLDS):
        mine = log.cluster % FOLDS == fold
        data = joined(pool.earlier, rows.take(~mine))
        trained = train(data, attributes=pool.attributes, seed=len(data), network=False, calibrated=False)
        q[mine] = predicted(RewardModel.load(trained.blob), pool, log.place[mine])
    return q


def _judged(pool: Pool, log: Drawn, q: Floats) -> Judged:
    """The candidate on a log, by predicted rewards (n, K)."""
    n = np.arange(len(log.place))
    vector, logged_by = (pool.policies[name][log.place] for name in ("candidate", "incumbent"))
    weight = vector[n, log.action] / logged_by[n, log.action]
    return Judged(log.reward, weight, clusters(log.cluster, len(n)), q[n, log.action], (vector * q).sum(axis=1))


def _difference(pool: Pool, log: Drawn, policy: str, q: Floats) -> Difference:
    n = np.arange(len(log.place))
    mine, theirs = (pool.policies[name][log.place] for name in (policy, "incumbent"))
    chance = theirs[n, log.action]
    return Difference(
        ((mine - theirs) * q).sum(axis=1),
        mine[n, log.action] / chance - 1.0,
        log.reward - q[n, log.action],
    )


def value_test(pool: Pool, log: Drawn, policy: str, q: Floats, *, tries: int) -> tuple[float, float]:
    """The gate's lower bound of a policy's difference to the incumbent at a campaign's k-th try, and its error."""
    z = one_sided_quantile(spend(tries, GateLimits().family_error))
    return difference_bound(_difference(pool, log, policy, q), log.cluster, z)


def wrong(world: str, first: int, count: int, tell: Callable[[int], None] | None = None) -> list[Null]:
    """What the policy that is no better ever meets, by campaign. The reward model is the candidate's own, which has
    seen no row of the log."""
    from simulations.estimator_worlds import draw_log, pool_of, predicted

    pool = pool_of(world)
    q = predicted(pool.before, pool, np.arange(len(pool.truth)))
    found = []
    for i in range(first, first + count):
        rng = np.random.default_rng([_STREAM, 1, sum(world.encode()), i])
        log = draw_log(pool, "incumbent", LOOKS * STEP, rng)
        met = [
            part
            for k, part in enumerate(log.first((k + 1) * STEP) for k in range(LOOKS))
            if value_test(pool, part, "equal", q[part.place], tries=k + 1)[0] > 0.0
        ]
        found.append(Null(bool(met), any(supported(pool, part, "equal") for part in met)))
        if tell is not None:
            tell(i + 1 - first)
    return found


def supported(pool: Pool, log: Drawn, policy: str) -> bool:
    """Whether a log of the incumbent supports the smallest share of a policy that the gate publishes."""
    limits = GateLimits()
    n, share = np.arange(len(log.place)), min(limits.ladder)
    mine, theirs = (pool.policies[name][log.place][n, log.action] for name in (policy, "incumbent"))
    found = support((1.0 - share) + share * mine / theirs, log.reward != 0.0, limits, np.ones(len(n)))
    return all(condition.passed for condition in found)


def figures(world: str, seen: Sequence[Seen], null: Sequence[Null]) -> dict[str, Any]:
    """The figures of one world."""
    from simulations.estimator_worlds import SETTINGS, pool_of

    pool, count = pool_of(world), len(seen)
    reference = float(np.mean([one.width["dr normal"] for one in seen]))
    intervals = []
    for name in seen[0].held:
        held = sum(one.held[name] for one in seen)
        intervals.append(
            {
                "interval": name,
                "held": held,
                "coverage": held / count,
                "coverage_lower_bound": lower_bound(held, count),
                "relative_width": float(np.mean([one.width[name] for one in seen])) / reference,
            }
        )
    power = float(np.mean([one.low > 0.0 for one in seen]))
    with_truth = float(np.mean([one.low_with_truth > 0.0 for one in seen]))
    error, promoted = GateLimits().family_error, sum(one.promoted for one in null)
    return {
        "world": world,
        "about": SETTINGS[world].about,
        "repetitions": count,
        "rows": SETTINGS[world].rows,
        "values": {name: pool.value(name) for name in pool.policies},
        "unseen": {name: pool.unseen(name) for name in pool.policies},
        "intervals": intervals,
        "power": power,
        "power_with_the_true_model": with_truth,
        "power_passed": power >= LEAST_POWER * with_truth,
        "campaigns": len(null),
        "wrong": promoted,
        "wrong_by_value": sum(one.valued for one in null),
        "stated_rate": error,
        "most_by_chance": most_by_chance(len(null), error),
        "null_passed": promoted <= most_by_chance(len(null), error),
    }


def _sentences(one: Mapping[str, Any]) -> list[str]:
    values, unseen = one["values"], one["unseen"]
    return [
        f"{one['world']}: {one['about']}. The incumbent earns {values['incumbent']:.4f} a decision, the candidate "
        f"{values['candidate']:.4f}; {one['rows']:,} rows a log, {one['repetitions']:,} logs. "
        f"{unseen['candidate']:.0%} of what the candidate does the incumbent never does, and there the reward "
        "model's word is all there is.",
        f"Power of the gate's value test: {one['power']:.3f}; with the true reward model "
        f"{one['power_with_the_true_model']:.3f} (asked: {LEAST_POWER:g} of it): {_said(one['power_passed'])}.",
        f"Null, {LOOKS} looks: {one['wrong']} of {one['campaigns']:,} campaigns would have had a wrong promotion; "
        f"stated family-wise rate {one['stated_rate']:g}, under which up to {one['most_by_chance']} are within chance: "
        f"{_said(one['null_passed'])}. {one['wrong_by_value']} met the value test, were it asked alone.",
    ]


def _said(passed: bool) -> str:
    return "passed" if passed else "NOT passed"


def _rows(one: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            part["interval"],
            f"{part['coverage']:.3f}",
            f"{part['coverage_lower_bound']:.3f}",
            f"{part['relative_width']:.2f}",
            "yes" if part["coverage_lower_bound"] >= LEAST_COVERAGE else "no",
        )
        for part in one["intervals"]
    ]


_HEAD = ("95 % interval", "holds the truth", "lower bound", "width / dr normal", f">= {LEAST_COVERAGE:g}")


def lines(one: Mapping[str, Any]) -> list[str]:
    """For the terminal."""
    told = [f"{name:<26} {held:>8} {low:>8} {width:>8}  {fine}" for name, held, low, width, fine in _rows(one)]
    return [*_sentences(one), f"{'95 % interval':<26} {'holds':>8} {'at least':>8} {'width':>8}  enough", *told, ""]


_ABOUT = (
    "Logs are drawn from worlds in which every chance is known. `dr` and the gate's difference are what verdicts rest "
    "on, with the error that the gate judges by, which allows for luck in few heavy rows; values have it since a study "
    "of these same logs in which differences had it and values had the spread of their rows. `dm` and `switch_dr` take "
    "the model's word, and `ips` counts what the log can't show as nothing; they stand here to show what that costs. "
    "The null's reward model is the candidate's own; a retrain's are also fitted to the half of the log that they "
    f"don't judge. `dr sequence` says nothing before row {SEQUENCE_START:,} and holds the truth if it does so at each "
    "row from there on; in a log that ends there that is one look. A promotion of the null: the gate's value test and "
    "its conditions on the log's support at one look, every other condition left out. Power: the value test alone."
)


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """The fragment for the report of results."""
    parts = ["## estimators: intervals, power and wrong promotions where the truth is known", _ABOUT]
    for one in found:
        parts += [*_sentences(one), table(_HEAD, _rows(one)), one["played"]]
    return "\n\n".join(parts) + "\n"
