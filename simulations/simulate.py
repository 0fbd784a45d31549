"""``sendtide simulate``: policies side by side in a made-up world whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.rayoption import ray_option
from optimizer.errors import Invalid

#: What is played when nothing is said.
DEFAULT = "ours,vw-squarecb,random,best-static,informed-oracle,full-oracle"


@click.command("simulate", epilog=EXIT_CODES)
@click.argument("scenario", metavar="SCENARIO", required=False)
@option("--policies", default=DEFAULT, show_default=True, help="Names, separated by commas; options after a colon.")
@option("--seeds", type=click.IntRange(1, 1000), default=2, show_default=True, help="Worlds to play; paired.")
@option("--decisions", type=click.IntRange(10), help="Decisions of a seed [the scenario's].")
@option(
    "--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Plays at a time here, without --ray."
)
@ray_option("Play seeds and policies on a Ray cluster.")
@option("--against", help="Policy whose regret the others' is divided by [the best Vowpal Wabbit].")
@option("--tune", is_flag=True, help="Tune the rivals named, on seeds of their own, and keep what is found.")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for figures and pictures.")
@option("--list", "listing", is_flag=True, help="List scenarios and policies.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    scenario: str | None,
    policies: str,
    seeds: int,
    decisions: int | None,
    processes: int,
    ray: str | None,
    against: str | None,
    tune: bool,
    out: Path | None,
    listing: bool,
    as_json: bool,
) -> None:
    """Play policies in a scenario of a made-up world and compare what they earn.

    The policies meet the same people with the same luck; rewards are exact expectations. Needs no server and no
    database. Several policies of one kind: repeat the name with options, e.g. ours,ours:refresh=0.02 (an option list
    with commas needs a plus instead: vw-squarecb:scale=1000+rate=2).
    """
    with reported(as_json=as_json):
        if listing or scenario is None:
            _list(as_json=as_json)
            return
        names = _names(policies, scenario)
        rival = None if against is None else against.strip().replace("+", ",")
        _play(scenario, names, seeds, decisions, processes, ray, rival, out, tuning=tune, as_json=as_json)


def _names(policies: str, scenario: str) -> tuple[str, ...]:
    """The policies' texts, with commas between options; those that there are none of are wrong usage."""
    from simulations.policies import FAMILIES, parse

    names = tuple(name.strip().replace("+", ",") for name in policies.split(",") if name.strip())
    if not names:
        raise click.BadParameter(f"{policies!r} names none; there are: {', '.join(FAMILIES)}", param_hint="--policies")
    for name in names:
        try:
            parse(name, scenario)
        except Invalid as error:
            raise click.BadParameter("; ".join(error.errors["policies"]), param_hint="--policies") from None
    return names


def _list(*, as_json: bool) -> None:
    from simulations.policies import FAMILIES
    from simulations.scenarios import SCENARIOS

    if as_json:
        scenarios = [
            {"scenario": name, "about": one.about, "actions": one.actions, "decisions": one.decisions}
            for name, one in SCENARIOS.items()
        ]
        policies = [{"policy": name, "about": family.about} for name, family in FAMILIES.items()]
        click.echo(orjson.dumps({"scenarios": scenarios, "policies": policies}, option=orjson.OPT_INDENT_2).decode())
        return
    click.echo("Scenarios:")
    for name, one in SCENARIOS.items():
        click.echo(f"  {name:20} {one.about} ({one.actions:,} actions, {one.decisions:,} decisions)")
    click.echo("Policies:")
    for name, family in FAMILIES.items():
        click.echo(f"  {name:20} {family.about}")


@contextmanager
def _cluster(address: str | None) -> Iterator[bool]:
    """Whether a cluster is at hand, connected for the block."""
    if address is None:
        yield False
        return
    from optimizer.cli import onray

    with onray.connected(address):
        yield True


def _play(
    scenario: str,
    policies: tuple[str, ...],
    seeds: int,
    decisions: int | None,
    processes: int,
    ray: str | None,
    against: str | None,
    out: Path | None,
    *,
    tuning: bool,
    as_json: bool,
) -> None:
    from simulations.scenarios import scenario as find
    from simulations.simulate_run import Options, report, run, show, tune, tuning_table, write

    console = Console(stderr=True)
    options = Options(find(scenario).name, policies, seeds, decisions, against=against)
    if tuning:
        with _cluster(ray) as on_ray:
            found = tune(options, processes=processes, console=console, keep=True, on_ray=on_ray)
        if as_json:
            click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        else:
            for name, one in found.items():
                Console().print(tuning_table(name, one))
        return
    with _cluster(ray) as on_ray:
        played = run(options, processes=processes, console=console, on_ray=on_ray)
    if as_json:
        figures = report(options, played)
        click.echo(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())
    else:
        show(Console(), options, played)
    if out is not None:
        for path in write(out, options, played):
            console.print(f"written: {path}")
