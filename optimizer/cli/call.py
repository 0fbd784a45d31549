"""What every command shares: the flags, the settings they add up to, how answers and errors are told."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import orjson

from optimizer.config import ABOUT, PREFIX, SETTINGS, Settings, parse_setting, unknown_variables, variable
from optimizer.errors import ConfigError, Invalid, NotFound, SendtideError
from storage.errors import StoreError

if TYPE_CHECKING:
    from datetime import datetime

    from optimizer.service.wiring import Services
    from storage.port import Reader

#: An option whose environment variable stands in its help.
option = functools.partial(click.option, show_envvar=True)
_DEFAULTS = Settings()
#: Workspaces that an error names at most.
_MOST_NAMES = 10
_JSON = orjson.OPT_UTC_Z | orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


class SettingType(click.ParamType[Any]):
    """A setting's value, read by the setting's own rules."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.name = setting.rpartition("_")[2]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value."""
        if not isinstance(value, str):
            return value
        try:
            return parse_setting(self.setting, value, shown_as=variable(self.setting))
        except ConfigError:
            self.fail(f"{value!r}; allowed: {SETTINGS[self.setting].allowed}", param, ctx)


def setting_option(setting: str) -> Callable[[Any], Any]:
    """The flag of a setting: ``--log-level`` sets ``log_level``."""
    flag, default = "--" + setting.replace("_", "-"), getattr(_DEFAULTS, setting)
    about = ABOUT[setting][0].upper() + ABOUT[setting][1:] + "."
    if isinstance(default, bool):
        both = f"{flag}/--no-{flag.removeprefix('--')}"
        shown = f"{about} [default: {'on' if default else 'off'}]"
        return option(both, setting, default=None, envvar=variable(setting), help=shown)
    shown = about if default is None else f"{about} [default: {default}]"
    return option(flag, setting, type=SettingType(setting), envvar=variable(setting), help=shown)


@dataclass(frozen=True)
class Call:
    """One call of a command: its settings, its workspace, and whether a program reads the answer.

    ``of_one``: whether it works on that workspace, which must be there then.
    """

    settings: Settings
    workspace: str
    as_json: bool
    of_one: bool = True

    @contextmanager
    def services(self, now: datetime | None = None, *, create: bool = False) -> Iterator[Services]:
        """The service on this call's store, closed at the end. It doesn't watch for new policies.

        Args:
            now: what time it is all along (None = what time it is).
            create: whether an embedded database is made where there is none, and a workspace may be; else a mistyped
                name would be taken for an empty installation.

        Raises:
            Invalid: the time is yet to come.
            FileNotFoundError: there is no such database, and it was not to be made.
            NotFound: there is no such workspace, and it was not to be made.
        """
        from optimizer.service.wiring import open_services, utc_now
        from storage.open import require_there

        if now is not None and now > utc_now():
            raise Invalid.field("now", f"{now.isoformat()} is yet to come")
        if not create:
            require_there(self.settings.database)
        services = open_services(self.settings, utc_now if now is None else lambda: now, watch=False)
        try:
            if self.of_one and not create:
                with services.store.read() as reader:
                    self.require_workspace(reader)
            yield services
        finally:
            services.close()

    def require_workspace(self, reader: Reader) -> None:
        """Refuses a name that no workspace has: "nothing found" would pass for "all is well" (``NotFound``)."""
        from storage.open import shown

        if reader.workspace(self.workspace) is None:
            names = [one.workspace_id for one in reader.workspaces()]
            told = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "") or "none"
            raise NotFound(f"no workspace {self.workspace!r} in {shown(self.settings.database)}; there are: {told}")

    def answer(self, answer: Any, *lines: str) -> None:
        """Prints the answer: as JSON for programs, else as lines for people."""
        if self.as_json:
            click.echo(orjson.dumps(answer, option=_JSON))
        else:
            for line in lines:
                click.echo(line)

    def note(self, line: str) -> None:
        """Tells people something on the side, on standard error."""
        click.echo(line, err=True)


def command(
    *, workspace: bool = True, database: bool = True, settings: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the shared flags; its function gets a ``Call`` first.

    Args:
        workspace: whether it works on one workspace.
        database: whether it works on the installation's database.
        settings: which other settings it has flags for.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        names, of_one = (("database", *settings) if database else settings), workspace

        @functools.wraps(function)
        def run(*, as_json: bool, workspace: str = "default", **given: Any) -> None:
            flags = {name: given.pop(name) for name in names}
            _require_text({"workspace": workspace, **given})
            with reported(as_json=as_json):
                function(Call(read_settings().override(**flags), workspace, as_json, of_one), **given)

        wrapped: Callable[..., None] = option(
            "--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Answer in JSON; errors too, on stderr."
        )(run)
        if workspace:
            wrapped = option(
                "--workspace", envvar="SENDTIDE_WORKSPACE", default="default", show_default=True, help="Whose data."
            )(wrapped)
        for name in reversed(names):
            wrapped = setting_option(name)(wrapped)
        return wrapped

    return decorate


def _require_text(given: Mapping[str, Any]) -> None:
    """Refuses arguments that are no UTF-8, which no name or id is; those that name files may be."""
    ctx = click.get_current_context()
    for param in ctx.command.params:
        value = given.get(param.name or "")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and one != click.format_filename(one):
                raise click.BadParameter(f"{one!r} is no UTF-8; allowed: text in UTF-8", ctx, param)


def require_some(good: int, bad: int, why: str) -> None:
    """Ends a command all of whose rows failed as one that failed.

    Raises:
        Invalid: there were bad rows alone.
    """
    if bad and not good:
        raise Invalid(f"all {bad:,} rows failed; {why}", code="all_failed")


def read_settings() -> Settings:
    """The settings that the environment gives.

    Raises:
        ConfigError: a ``SENDTIDE_`` variable that no setting and no flag of any command knows, or a bad value.
    """
    # Every command is imported to learn its flags only where there is a name that could be one of them.
    also = command_variables() if unknown_variables(os.environ) else ()
    return Settings.from_environment(os.environ, also=also)


def command_variables() -> frozenset[str]:
    """The variables of all flags of all commands that help shows, those of other packages included."""
    root = click.get_current_context().find_root()
    return frozenset(_variables(root.command, root, PREFIX.rstrip("_")))


def _variables(found: click.Command, ctx: click.Context, prefix: str) -> Iterator[str]:
    for param in found.get_params(ctx):
        is_help = not set(param.opts).isdisjoint(ctx.help_option_names)
        if isinstance(param, click.Option) and param.allow_from_autoenv and not is_help:
            yield f"{prefix}_{(param.name or '').upper()}"
    if isinstance(found, click.Group):
        for name in found.list_commands(ctx):
            below = found.get_command(ctx, name)
            if below is not None and not below.hidden:
                yield from _variables(below, ctx, f"{prefix}_{name.upper().replace('-', '_')}")


@contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Tells errors instead of tracing them: exit code 1 when refused or failed, 2 when the configuration is wrong.

    What is foreseen nowhere is an error of ours: its trace is told as well, for whoever reports it.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click tells of wrong usage, and ends in silence where nobody reads on
    except ConfigError as error:
        tell(error.code, error.detail, error.errors, as_json=as_json)
        sys.exit(2)
    except SendtideError as error:
        tell(error.code, error.detail, error.errors, as_json=as_json)
        sys.exit(1)
    except StoreError as error:
        tell("store", str(error), {}, as_json=as_json)
        sys.exit(1)
    except OSError as error:
        tell("file", f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), {}, as_json=as_json)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  the last that hears of it; it is told with its trace
        trace = traceback.format_exc()
        if not as_json:
            click.echo(trace, err=True)
        told = f"something went wrong on our side: {type(error).__name__}: {error}"
        tell("internal", told, {"trace": trace.splitlines()}, as_json=as_json)
        sys.exit(1)


def tell(code: str, detail: str, errors: dict[str, list[str]], *, as_json: bool) -> None:
    """Tells an error on standard error."""
    if as_json:
        shown = click.format_filename(detail)  # it may name a file by bytes that are no UTF-8
        click.echo(orjson.dumps({"code": code, "detail": shown, "errors": errors}), err=True)
        return
    click.echo(f"Error: {detail}", err=True)
    if len(errors) > 1:
        for field, messages in errors.items():
            click.echo(f"  {field}: {'; '.join(messages)}", err=True)
