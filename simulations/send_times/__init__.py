"""``sendtide send-times``: where in a day people do things next, on two public logs, against histograms.

The rhythm model is the one that the service runs. ``simulations/send_times/logs.py`` fixes who is judged, and how.
"""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES

#: Names of what is written: figures, picture, and a fragment for the report of results.
NAME = "send-times"


@click.command("send-times", epilog=EXIT_CODES)
@option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder that holds completejourney/ and enron_times/.",
)
@option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for figures, picture and fragment [simulations/results].",
)
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(data: Path, out: Path | None, *, as_json: bool) -> None:
    """Compare ways of choosing a two-hour window a day, from the first half of real histories to the second.

    Needs no server and no database.
    """
    with reported(as_json=as_json):
        _run(data, out, as_json=as_json)


def _run(data: Path, out: Path | None, *, as_json: bool) -> None:
    from simulations.fragments import leave
    from simulations.results import FOLDER
    from simulations.send_times.contest import compare
    from simulations.send_times.logs import logs
    from simulations.send_times.report import document, markdown, picture

    console = Console(stderr=True)
    contests = []
    for log in logs(data):
        console.print(f"{log.name}: {len(log):,} people")
        contests.append(compare(log))
    figures = document(contests)
    folder = out or FOLDER
    fragment = markdown(figures, f"{FOLDER.name}/{NAME}.png")
    leave(folder, NAME, figures, fragment)
    picture(folder / f"{NAME}.png", figures)
    click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode() if as_json else fragment)
