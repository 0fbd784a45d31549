"""``sendtide scarcity``: who gets what is scarce, with prices and without, beside the best that hindsight allows.

The whole service runs: its decider, its store and its rules, on a clock that is moved, with prices worked out anew
every hour of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES

if TYPE_CHECKING:
    from simulations.scarcity.crowd import Course

SCENARIOS = ("capacity", "budget", "cap")


@click.command("scarcity", epilog=EXIT_CODES)
@option("--scenario", type=click.Choice(SCENARIOS), default="capacity", show_default=True, help="What is scarce.")
@option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Crowds, one after the other.")
@option("--people", type=click.IntRange(10, 1_000_000), default=2_000, show_default=True, help="In each crowd.")
@option("--requests", type=click.IntRange(24, 100_000), default=2_400, show_default=True, help="A day.")
@option("--learning", type=click.IntRange(1, 60), default=2, show_default=True, help="Days of uniform choices.")
@option("--earning", type=click.IntRange(1, 60), default=4, show_default=True, help="Days that are compared.")
@option("--steps", type=click.IntRange(24, 1440), default=96, show_default=True, help="New prices, times a day.")
@option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Seeds at a time.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(seeds: int, processes: int, *, as_json: bool, scenario: str, **size: int) -> None:
    """Let a made-up crowd ask for more than there is, and compare who gets it.

    Needs no server and no database: it starts its own and throws them away.
    """
    from simulations.scarcity.crowd import Course

    course = Course(scenario, **size)  # type: ignore[arg-type]  # one of SCENARIOS
    with reported(as_json=as_json):
        _run(course, seeds, processes, as_json=as_json)


def _run(course: Course, seeds: int, processes: int, *, as_json: bool) -> None:
    from simulations.parallel import in_processes
    from simulations.scarcity.report import document, print_report
    from simulations.scarcity.seeds import WAYS, run_seed, total_steps

    played = in_processes(
        run_seed,
        [(course, WAYS, seed) for seed in range(1, seeds + 1)],
        processes=processes,
        console=Console(stderr=True),
        label="scarcity",
        total=total_steps(course, WAYS),
    )
    if as_json:
        click.echo(orjson.dumps(document(course, played, WAYS), option=orjson.OPT_INDENT_2).decode())
    else:
        print_report(Console(), course, played, WAYS)
