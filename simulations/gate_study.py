"""``sendtide gate-study``: how often the gate lets through what is nothing, and how soon what is something.

Null: the outcomes of the Hillstrom experiment dealt out anew, so that every promotion is a wrong one. Later: the same
once a first policy serves, with a refresh before each step, so that models share the traffic. Power: the true outcomes.
All run the production retrain on a store of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from simulations.fragments import leave, played

if TYPE_CHECKING:
    from simulations.gate_runs import Part, Run

PARTS: tuple[Part, ...] = ("null", "later", "power")
#: By how many matured rows a true difference is to be promoted, and in which share of runs.
POWER_ROWS, POWER_SHARE = 5000, 0.9
#: The study calls the gate too lenient when so few wrong promotions as were seen would be this improbable.
LEVEL = 0.95


@click.command("gate-study", epilog=EXIT_CODES)
@option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the Hillstrom file.")
@option("--runs", type=click.IntRange(1, 1000), default=20, show_default=True, help="Runs of each part.")
@option("--retrains", type=click.IntRange(1, 200), default=40, show_default=True, help="Retrains of a null run.")
@option("--step-rows", type=click.IntRange(50), default=250, show_default=True, help="Rows from retrain to retrain.")
@option("--part", type=click.Choice(["all", *PARTS]), default="all", show_default=True, help="What to run.")
@option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Runs at a time.")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of gate.json and gate.md.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    *,
    data: Path,
    runs: int,
    retrains: int,
    step_rows: int,
    part: str,
    processes: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure the gate: wrong promotions when nothing can be learned, and promotions when something can.

    A run ends with its first promotion. The error rate of the gate is spent over all retrains of a campaign, so the
    share of null runs with any promotion is what must not exceed it.
    """
    with reported(as_json=as_json):
        found = _run(data, runs, retrains, step_rows, part, processes, as_json=as_json)
        if as_json:
            click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        if out is not None:
            leave(out, "gate", found, markdown(found, step_rows))


def _run(
    data: Path, runs: int, retrains: int, step_rows: int, part: str, processes: int, *, as_json: bool
) -> dict[str, Any]:
    from simulations.gate_runs import Study, run_once
    from simulations.hillstrom import load
    from simulations.parallel import in_processes

    load(data)  # each run reads it by itself; what is wrong with it is said before the first begins
    console = Console(stderr=True)
    power_retrains = -(-POWER_ROWS // step_rows)
    found: dict[str, Any] = {}
    for name in PARTS if part == "all" else [one for one in PARTS if one == part]:
        study = Study(data, name, power_retrains if name == "power" else retrains, step_rows)
        started = time.perf_counter()
        done = in_processes(
            run_once,
            [(study, seed) for seed in range(1, runs + 1)],
            processes=processes,
            console=console,
            label=name,
            total=study.retrains,
        )
        figures = power_figures(done) if name == "power" else null_figures(done)
        found[name] = {**figures, "seconds": time.perf_counter() - started, "each": [asdict(run) for run in done]}
        if not as_json:
            click.echo(f"{figures['sentence']} ({found[name]['seconds']:.0f} s)")
    return found


def markdown(found: Mapping[str, Any], step_rows: int) -> str:
    """The fragment for the report of results."""
    told = (
        f"The production retrain with the gate on, every {step_rows} rows, on Hillstrom's uniformly logged experiment: "
        "outcomes dealt out anew, so that nothing can be learned (null), the same once a first policy serves, with a "
        "refresh before every step (later), and the true ones (power)."
    )
    sentences = [one["sentence"] for one in found.values()]
    return "\n\n".join(["## gate: wrong promotions and power", told, *sentences, played()]) + "\n"


def null_figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Runs with a wrong promotion against the stated rate; passed unless there are more than chance explains."""
    from optimizer.bandit.evidence import GateLimits

    stated = GateLimits().family_error
    wrong = sum(run.promoted_at is not None for run in runs)
    most = most_by_chance(len(runs), stated)
    retrains = sum(len(run.results) for run in runs)
    judged = sum(result in ("publish", "reject") for run in runs for result in run.results)
    shared = sum(run.shared for run in runs)
    passed = wrong <= most
    name = runs[0].part.capitalize()
    freed = sum(run.freed for run in runs)
    between = (
        f", two models had shared the traffic before {shared}, and before {freed} refreshed models, shown to foresee "
        "the changed outcomes better, were no longer held near the first policy"
        if runs[0].part == "later"
        else ""
    )
    return {
        "runs": len(runs),
        "retrains": retrains,
        "judged": judged,
        "shared": shared,
        "freed": freed,
        "wrong": wrong,
        "stated_rate": stated,
        "most_by_chance": most,
        "passed": passed,
        "sentence": (
            f"{name}: {wrong} of {len(runs)} runs had a wrong promotion. Of {retrains} retrains {judged} judged a "
            f"candidate{between}. Stated family-wise rate {stated:g}, under which up to {most} are within "
            f"{LEVEL:.0%} of binomial chance: {'passed' if passed else 'NOT passed'}"
        ),
    }


def power_figures(runs: Sequence[Run]) -> dict[str, Any]:
    """The share of runs that were promoted by ``POWER_ROWS`` matured rows."""
    at = sorted(run.promoted_at for run in runs if run.promoted_at is not None and run.promoted_at <= POWER_ROWS)
    share = len(at) / len(runs)
    passed = share >= POWER_SHARE
    median = f"; median {at[len(at) // 2]:,} rows" if at else ""
    return {
        "runs": len(runs),
        "promoted": len(at),
        "share": share,
        "rows_at_promotion": at,
        "passed": passed,
        "sentence": (
            f"Power: {len(at)} of {len(runs)} runs were promoted by {POWER_ROWS:,} matured rows ({share:.0%}{median}); "
            f"asked for {POWER_SHARE:.0%}: {'passed' if passed else 'NOT passed'}"
        ),
    }


def most_by_chance(runs: int, rate: float) -> int:
    """The most runs out of ``runs`` with an event of probability ``rate`` that lie within ``LEVEL`` of the binomial."""
    from scipy.stats import binom

    return int(binom.ppf(LEVEL, runs, rate))
