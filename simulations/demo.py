"""``sendtide demo``: a real server, a made-up audience, and learning that can be watched."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import orjson
from rich.console import Console

from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from optimizer.errors import Conflict

if TYPE_CHECKING:
    from simulations.demo_days import Day
    from simulations.stage import Stage


@click.command("demo", epilog=EXIT_CODES)
@option("--recipients", type=click.IntRange(20, 10_000), default=500, show_default=True, help="Size of the audience.")
@option("--days", type=click.IntRange(2, 100), default=6, show_default=True, help="Simulated days.")
@option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the audience.")
@option(
    "--through",
    type=click.Choice(["gunicorn", "app"]),
    default="gunicorn",
    show_default=True,
    help="A real server with two workers over HTTP, or the app in this process on simulated time.",
)
@option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("demo.png"),
    show_default=True,
    help="PNG of what was learned.",
)
@option(
    "--keep",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the database in this new file, to look into it with the other commands; plays on simulated time.",
)
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(
    *,
    recipients: int,
    days: int,
    seed: int,
    through: Literal["gunicorn", "app"],
    out: Path,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Watch the service learn: it starts on a free port with an empty database and a made-up audience.

    Each simulated day every recipient is decided for, messages are claimed and confirmed, opens and clicks come back as
    events, and a training run is asked for; the gate decides what goes live. Takes a minute or so.
    """
    with reported(as_json=as_json):
        if keep is not None and keep.exists():
            raise Conflict(f"{keep} is there already; name a new file")
        _run(recipients, days, seed, "app" if keep else through, out, keep, as_json=as_json)


def _run(recipients: int, days: int, seed: int, through: str, out: Path, keep: Path | None, *, as_json: bool) -> None:
    from simulations.demo_days import CAMPAIGN, lift, live
    from simulations.plots import demo_picture

    console = Console(stderr=as_json)
    started = time.perf_counter()
    with console.status("starting the service") as status, _stage(through, seed, keep) as stage:
        console.print(f"{recipients} made-up recipients, {days} days, service on {_where(stage, through)}")
        lived = live(
            stage,
            recipients=recipients,
            days=days,
            seed=seed,
            tell=status.update,
            on_day=lambda day: console.print(_line(day)),
        )
        policies = stage.client.call("GET", f"/v1/policies?campaign_id={CAMPAIGN}&limit=500")["policies"]
        status.update("drawing")
        found = lift(lived)
        demo_picture(out, lived, found.sentence())
    seconds = time.perf_counter() - started
    if as_json:
        click.echo(orjson.dumps({"lift": asdict(found), "days": [_figures(d) for d in lived], "seconds": seconds}))
        return
    for line in _verdicts(policies):
        console.print(line, highlight=False)
    console.print(found.sentence(), style="bold")
    console.print(f"picture: {out} ({seconds:.0f} s)")
    for line in _to_look_into(keep, policies) if keep is not None else ():
        console.print(line, highlight=False, soft_wrap=True)


def _to_look_into(database: Path, policies: list[dict[str, Any]]) -> list[str]:
    """The commands that show what the kept database holds."""
    from simulations.demo_days import CAMPAIGN
    from simulations.stage import WORKSPACE

    there = f"--workspace {WORKSPACE} --database sqlite:///{database}"
    serving = [f"card {policy['policy_id']}" for policy in policies if policy["status"] in ("live", "canary")]
    return [f"sendtide {look} {there}" for look in (f"report {CAMPAIGN}", f"insights {CAMPAIGN} --all", *serving[:1])]


def _stage(through: str, seed: int, keep: Path | None) -> AbstractContextManager[Stage]:
    from simulations.stage import app_stage, server_stage

    if through == "app":
        return app_stage(seed=seed, gate=True, database=keep)
    return server_stage(seed=seed, gate=True)


def _where(stage: Stage, through: str) -> str:
    return f"http://{stage.settings.bind}" if through == "gunicorn" else "simulated time in this process"


def _line(day: Day) -> str:
    """A day in a line: mean reward and distance from the best hour, treated group (random group)."""
    figures = _figures(day)
    return (
        f"day {day.number}: reward {figures['treated']:.3f} (random {figures['random']:.3f}), "
        f"{figures['treated_hours_off']:.1f} h off the best hour ({figures['random_hours_off']:.1f}), "
        f"gate: {day.learned}"
    )


def _figures(day: Day) -> dict[str, Any]:
    from simulations.demo_days import mean

    return {
        "day": day.number,
        "treated": mean(day.rewards("treated")),
        "random": mean(day.rewards("random")),
        "treated_hours_off": mean(day.hours_off("treated")),
        "random_hours_off": mean(day.hours_off("random")),
        "learned": day.learned,
    }


def _verdicts(policies: list[dict[str, Any]]) -> list[str]:
    """A line for each gated policy, oldest first: which share of the decisions it got, or why none."""
    lines = ["what the gate said:"]
    for policy in reversed([p for p in policies if not p["revision"]]):
        share = f"{policy['mixture'][-1]['weight']:.0%}" if policy["mixture"] else "none"
        reason = str(policy["verdict"].get("reason", "")).split(";")[0]
        lines.append(f"  {policy['policy_id'][:12]}…  {policy['status']:<8}  {share:>4}  {reason}")
    return lines
