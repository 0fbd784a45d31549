"""The ``sendtide`` command itself: finds its subcommands by name, ours and those of other packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

#: The entry-point group by which other packages add commands.
COMMANDS = "sendtide.commands"
EXIT_CODES = "Exit codes: 0 done; 1 refused or failed, the reason is on standard error; 2 wrong usage or configuration."
#: The packages of this distribution.
_PACKAGES = ("optimizer", "storage", "simulations")
#: Our commands: name, module and attribute.
_OURS = {
    "archive": "optimizer.cli.archive:archive",
    "backup": "optimizer.cli.move:backup",
    "card": "optimizer.cli.card:card",
    "copy": "optimizer.cli.move:copy",
    "decide": "optimizer.cli.decide:decide",
    "erase": "optimizer.cli.erase:erase",
    "evaluate": "optimizer.cli.evaluate:evaluate",
    "explain": "optimizer.cli.explain:explain",
    "export": "optimizer.cli.export:export",
    "import": "optimizer.cli.imports:import_",
    "init": "optimizer.cli.init:init",
    "insights": "optimizer.cli.insights:insights",
    "keys": "optimizer.cli.keys:keys",
    "migrate": "optimizer.cli.move:migrate",
    "relabel": "optimizer.cli.relabel:relabel",
    "report": "optimizer.cli.report:report",
    "restore": "optimizer.cli.move:restore",
    "retrain": "optimizer.cli.retrain:retrain",
    "rules": "optimizer.cli.rules:rules",
    "schedule": "optimizer.cli.schedule:schedule",
    "score": "optimizer.cli.score:score",
    "serve": "optimizer.cli.serve:serve",
    "tune": "optimizer.cli.tune:tune",
    "train-job": "optimizer.cli.train_job:train_job",
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, sorted."""
        return sorted({*_OURS, *(point.name for point in entry_points(group=COMMANDS)), *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None when there is none."""
        if cmd_name in _OURS:
            module, _, attribute = _OURS[cmd_name].partition(":")
            return _as_command(cmd_name, getattr(importlib.import_module(module), attribute))
        for point in entry_points(group=COMMANDS, name=cmd_name):
            try:
                return _as_command(cmd_name, point.load())
            except (ImportError, AttributeError) as fault:
                return _broken(cmd_name, f"{point.value}: {fault}")
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was asked for; a wrong usage is told in JSON where it was asked to answer so."""
        as_json = "--json" in ctx.args or bool(click.BOOL.str_to_bool(os.environ.get("SENDTIDE_JSON", "")))
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if not as_json:
                raise
            from optimizer.cli.call import tell

            tell("usage", error.format_message(), {}, as_json=True)
            ctx.exit(error.exit_code)


def _as_command(name: str, found: Any) -> click.Command:
    return found if isinstance(found, click.Command) else _broken(name, f"{type(found).__name__} is no command")


def _broken(name: str, why: str) -> click.Command:
    """What stands for a command of another package that can't be loaded: it must not take the others with it."""

    @click.command(name=name, help=f"Can't be loaded: {why}")
    def broken() -> None:
        raise click.ClickException(f"{name} can't be loaded from the entry points of {COMMANDS}: {why}")

    return broken


@click.command(
    cls=Commands,
    epilog=EXIT_CODES,
    context_settings={
        "auto_envvar_prefix": "SENDTIDE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(package_name="sendtide", allow_from_autoenv=False)
def main() -> None:
    """Decides for each person which message, on which channel, when, or nothing at all.

    Every flag can be set by the environment variable in its help; flags win. Variables that begin with SENDTIDE_ and
    that nothing knows stop the start.
    """
    _check_neighbours()


def _check_neighbours() -> None:
    """Refuses to run beside other distributions' packages: ``optimizer`` and ``storage`` are names on PyPI too."""
    places = {}
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        places[name] = Path(spec.origin).parents[1] if spec is not None and spec.origin is not None else None
    if len(set(places.values())) != 1:
        told = ", ".join(f"{name} in {place or 'no folder'}" for name, place in places.items())
        raise click.UsageError(f"{', '.join(_PACKAGES)} must lie side by side, but: {told}; install into a fresh venv")
