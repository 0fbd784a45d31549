"""``sendtide uci``: the plain K-way learner on classification sets, beside Vowpal Wabbit and linear bandits.

Each set is a bandit: the context is a row, the actions are the classes, the reward is 1 if the class is right, and
nothing else is learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES

FOLDER = Path(__file__).parents[1] / "results"
SETS = ("shuttle", "mushroom", "adult", "covertype", "letter")
POLICIES = ("sendtide", "vw-squarecb", "vw-squarecb-encoded", "vw-egreedy", "vw-egreedy-encoded", "lints")
#: Orders that a rival's setting is tuned on.
TUNING_ORDERS = 2


@dataclass(frozen=True)
class Options:
    """What is played."""

    data: Path
    sets: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: int
    rounds: int
    processes: int


@click.command("uci", epilog=EXIT_CODES)
@option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder that holds uci/.")
@option("--seeds", type=click.IntRange(1, 1000), default=10, show_default=True, help="Orders of each set; paired.")
@option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Runs at a time.")
@option("--rounds", type=click.IntRange(10), default=10_000, show_default=True, help="Decisions of a run.")
@option("--set", "sets", multiple=True, help="Play this set alone (repeatable); others stay.")
@option(
    "--policies", default=",".join(POLICIES), show_default=True, help="Comma-separated; more: vw-cover, linucb, loop."
)
@option("--tune", is_flag=True, help="Search the rivals' grids on orders of their own instead, and keep the best.")
@option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, help="Folder of uci.json, .md, .png."
)
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    data: Path,
    seeds: int,
    processes: int,
    rounds: int,
    sets: tuple[str, ...],
    policies: str,
    tune: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Replay UCI classification sets as bandits and compare the error with rivals at their best settings."""
    from simulations.uci.data import file_of

    with reported(as_json=as_json):
        wanted = sets or SETS
        for name in wanted:
            file_of(data, name)
        options = Options(data, wanted, tuple(policies.split(",")), seeds, rounds, processes)
        console = Console(stderr=True)
        if tune:
            click.echo(orjson.dumps(_tune(options, console), option=orjson.OPT_INDENT_2))
        else:
            _compare(options, out, console, as_json=as_json)


def _tune(options: Options, console: Console) -> dict[str, dict[str, Any]]:
    from simulations.parallel import in_processes
    from simulations.uci.rivals import named
    from simulations.uci.run import OWN, store, tune_once

    rivals = [policy for policy in options.policies if policy not in OWN]
    pairs = [(name, policy) for name in options.sets for policy in rivals]
    for _, policy in pairs:
        named(policy)
    found = in_processes(
        tune_once,
        [(options.data, name, policy, TUNING_ORDERS, options.rounds) for name, policy in pairs],
        processes=options.processes,
        console=console,
        label="tuning",
        total=20,
    )
    by_set: dict[str, dict[str, Any]] = {name: {} for name in options.sets}
    for (name, policy), one in zip(pairs, found, strict=True):
        by_set[name][policy] = one
    store(by_set)
    return by_set


def _compare(options: Options, out: Path, console: Console, *, as_json: bool) -> None:
    from simulations.parallel import in_processes
    from simulations.uci.report import compare, kept, write
    from simulations.uci.rivals import named
    from simulations.uci.run import OWN, run_once

    for policy in options.policies:
        if policy not in OWN:
            named(policy)
    calls = [
        (options.data, name, policy, seed, options.rounds)
        for seed in range(1, options.seeds + 1)
        for name in options.sets
        for policy in options.policies
    ]
    runs = in_processes(run_once, calls, processes=options.processes, console=console, label="runs", total=1)
    found = compare([*kept(out, options.sets, options.seeds, options.rounds), *runs])
    write(out, found, options.seeds, options.rounds)
    click.echo((out / ("uci.json" if as_json else "uci.md")).read_bytes())
