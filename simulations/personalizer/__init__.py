"""``sendtide personalizer-study``: a Personalizer client that ranks for a made-up audience, beside Vowpal Wabbit.

The client speaks HTTP to the app, with rewards as an application would report them; time is moved. Vowpal Wabbit, with
the learning settings that Azure Personalizer gave every loop, sees the same rounds and the same features.
"""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from optimizer.errors import ConfigError

PLAYERS = ("sendtide", "vw-default", "vw-squarecb")
AUDIENCES = ("shop", "news")


@click.command("personalizer-study", epilog=EXIT_CODES)
@option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Audiences of each kind; paired.")
@option("--rounds", type=click.IntRange(10), default=20_000, show_default=True, help="Ranks of a run.")
@option("--audience", "audiences", multiple=True, help="Play this kind alone (repeatable): shop, news.")
@option("--players", default=",".join(PLAYERS), show_default=True, help="Comma-separated.")
@option("--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Runs at a time.")
@option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the table there, too.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    seeds: int,
    rounds: int,
    audiences: tuple[str, ...],
    players: str,
    processes: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Rank for a made-up audience through the Personalizer routes and compare with Vowpal Wabbit's default policy."""
    with reported(as_json=as_json):
        kinds, named = audiences or AUDIENCES, tuple(players.split(","))
        for given, known in ((kinds, AUDIENCES), (named, PLAYERS)):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ConfigError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        from simulations.parallel import in_processes
        from simulations.personalizer.report import summary, table
        from simulations.personalizer.run import play

        asked = [(kind, player, seed, rounds) for kind in kinds for seed in range(seeds) for player in named]
        console = Console(stderr=True)
        results = in_processes(play, asked, processes=processes, console=console, label="runs", total=rounds)
        if as_json:
            click.echo(orjson.dumps(summary(results), option=orjson.OPT_INDENT_2))
            return
        text = table(results)
        click.echo(text)
        if out is not None:
            out.write_text(text + "\n", encoding="utf-8")
