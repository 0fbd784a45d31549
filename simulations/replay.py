"""``sendtide replay``: the service on the Hillstrom experiment beside chance, one choice for all and Thompson sampling.

The learning of the service is paired with a three-armed Beta–Bernoulli Thompson sampler on the same customers in the
same order; the policy that it ends with is valued on customers that it never saw.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES

if TYPE_CHECKING:
    from simulations.replay_seed import Options, Through

#: Arriving customers over a real server when nothing else is said.
SERVER_CUSTOMERS = 5000
#: Of what it leaves for the report of results.
NAME = "hillstrom"


@click.command("replay", epilog=EXIT_CODES)
@option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the Hillstrom file.")
@option("--seeds", type=click.IntRange(1, 1000), default=10, show_default=True, help="Random orders to replay.")
@option("--accepted", type=click.IntRange(1), default=10_000, show_default=True, help="Accepted customers a seed.")
@option("--gate/--no-gate", default=False, show_default=True, help="Whether candidates must pass the gate.")
@option("--refresh-every", type=click.IntRange(1), default=250, show_default=True, help="Accepted ones a refresh.")
@option(
    "--through",
    type=click.Choice(["app", "gunicorn"]),
    default="app",
    show_default=True,
    help="The app in this process on simulated time, or a real server with two workers over HTTP.",
)
@option("--customers", type=click.IntRange(1), help="Arriving customers at most [gunicorn: 5000].")
@option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Seeds at a time.")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of hillstrom.json, .md, .png.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    data: Path,
    seeds: int,
    accepted: int,
    gate: bool,
    refresh_every: int,
    through: Through,
    customers: int | None,
    processes: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Replay the Hillstrom e-mail experiment through the service and compare its learning with simpler choices.

    Needs no server and no database: it starts its own and throws them away.
    """
    from simulations.replay_seed import Options

    if customers is None and through == "gunicorn":
        customers = SERVER_CUSTOMERS
    options = Options(data, accepted, refresh_every, gate, through, customers)
    with reported(as_json=as_json):
        _run(options, seeds, processes, out, as_json=as_json)


def _run(options: Options, seeds: int, processes: int, out: Path | None, *, as_json: bool) -> None:
    from simulations.fragments import leave
    from simulations.hillstrom import ARM_NAMES
    from simulations.parallel import in_processes
    from simulations.plots import learning_curves
    from simulations.replay_report import markdown, print_report, summarise
    from simulations.replay_seed import run_seed

    console = Console(stderr=True)
    results = in_processes(
        run_seed,
        [(options, seed) for seed in range(1, seeds + 1)],
        processes=processes,
        console=console,
        label="replay",
        total=options.accepted,
    )
    summary = summarise(results)
    figures = {"options": {**asdict(options), "data": options.data.name}, **summary.as_json()}
    if as_json:
        click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
    else:
        print_report(Console(), summary, gate=options.gate, through=options.through)
    if out is not None:
        leave(out, NAME, figures, markdown(summary, options))
        learning_curves(out / f"{NAME}.png", results, best=ARM_NAMES[summary.best_arm])
