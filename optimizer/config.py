"""Settings: frozen, read once from ``SENDTIDE_…`` variables, refusing what it doesn't know.

A variable with a typing error must not silently leave a default in force, so an unknown ``SENDTIDE_`` name or a value
that can't be read is a ``ConfigError`` that says which one it is and what is allowed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from optimizer.errors import ConfigError

#: Every variable of this installation starts with it.
PREFIX = "SENDTIDE_"
#: Flags that every command shares and that are no setting of the service.
SHARED_FLAGS = frozenset({"WORKSPACE", "JSON"})
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Kind:
    """How the text of a setting is read; ``allowed`` says for people what may stand there.

    ``parse`` raises ``ValueError`` for everything else.
    """

    allowed: str
    parse: Callable[[str], Any]


def whole(low: int, high: int) -> Kind:
    """A whole number within ``[low, high]``."""

    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise ValueError(text)
        return number

    return Kind(f"a whole number from {low} to {high}", parse)


def number(low: float, high: float) -> Kind:
    """A finite number within ``[low, high]``."""

    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(text)
        return value

    return Kind(f"a number from {low:g} to {high:g}", parse)


def choice(*names: str) -> Kind:
    """One of ``names``, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(text)
        return text.lower()

    return Kind("one of " + ", ".join(names), parse)


def _parse_switch(text: str) -> bool:
    if text.lower() in _ON:
        return True
    if text.lower() in _OFF:
        return False
    raise ValueError(text)


def _parse_database(text: str) -> str:
    if re.fullmatch(r"postgres(ql)?://[^\s\0]+", text):
        return text
    if not re.fullmatch(r"sqlite:///[^?#\0]*[^?#\0/]", text) or text.endswith("/:memory:"):
        raise ValueError(text)
    return text


def _parse_bind(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed) or not 1 <= int(port) <= 65535:
        raise ValueError(text)
    return text


def _parse_url(text: str) -> str:
    parts = urlsplit(text)  # refuses a host in brackets that is no address; ``port``, one over 65535
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", text) or not parts.hostname or parts.port == 0:
        raise ValueError(text)
    return text.rstrip("/")


def _parse_token(text: str) -> str:
    if not re.fullmatch(r"[!-~]{16,}", text):
        raise ValueError(text)
    return text


def _parse_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(text)
    return text


SWITCH = Kind("1, true, yes, on or 0, false, no, off", _parse_switch)
DATABASE = Kind(
    "sqlite:///PATH of a file (relative; absolute with a fourth slash) or postgresql://USER:PASSWORD@HOST:PORT/NAME",
    _parse_database,
)
BIND = Kind("HOST:PORT, the port from 1 to 65535", _parse_bind)
URL = Kind("http://HOST or https://HOST, with or without :PORT (1 to 65535) and a path, without a query", _parse_url)
TOKEN = Kind("16 or more printable ASCII characters without spaces", _parse_token)
TEXT = Kind("any text that is not empty", _parse_text)


def _setting(default: Any, kind: Kind, about: str) -> Any:
    """A field of ``Settings`` (typed ``Any``, as ``dataclasses.field`` is: the annotation beside it counts)."""
    return field(default=default, metadata={"kind": kind, "about": about})


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the service can be told from outside. ``SENDTIDE_<NAME>`` sets the field ``name``."""

    database: str = _setting("sqlite:///var/sendtide.db", DATABASE, "where everything is stored")
    bind: str = _setting("127.0.0.1:8080", BIND, "the address that the API listens on")
    workers: int = _setting(2, whole(1, 256), "worker processes of the API")
    threads: int = _setting(32, whole(1, 1024), "threads of each worker; fewer than 32 spoil group commit")
    scheduler: bool = _setting(True, SWITCH, "whether `serve` also runs the scheduler process")
    log_level: str = _setting("info", choice("debug", "info", "warning", "error"), "what is logged, and what is worse")
    log_format: str = _setting("json", choice("json", "text"), "one JSON object a line, or text for people")
    public_url: str | None = _setting(None, URL, "the address that vendors and browsers see")
    max_body_bytes: int = _setting(1 << 20, whole(1024, 1 << 30), "largest body of a single request")
    max_batch_bytes: int = _setting(32 << 20, whole(1024, 1 << 32), "largest body of a batch")
    max_batch_rows: int = _setting(10_000, whole(1, 1_000_000), "most rows of a batch")
    retrain_minutes: float = _setting(240.0, number(0.01, 525_600), "minutes from one scheduled retrain to the next")
    refresh_seconds: float = _setting(60.0, number(0.1, 86_400), "seconds between looks at newly arrived outcomes")
    expire_seconds: float = _setting(30.0, number(0.1, 86_400), "seconds between looks for reservations that ran out")
    reload_seconds: float = _setting(1.0, number(0.05, 60), "seconds between looks for newly published policies")
    retention_days: int = _setting(400, whole(1, 36_500), "days that closed decisions are kept")
    archive_days: int = _setting(
        0,
        whole(0, 36_500),
        "age in days of decisions that go to the archive, by the month; 0 leaves them in the database",
    )
    archive_folder: str | None = _setting(
        None, TEXT, "folder of the archive, shared by all hosts; left out, one beside the database file"
    )
    push_seconds: float = _setting(1.0, number(0.05, 3600), "seconds between looks for changes to push to webhooks")
    private_webhooks: bool = _setting(False, SWITCH, "whether webhooks may go to private addresses and over plain http")
    gate: bool = _setting(True, SWITCH, "whether a candidate must pass the gate before it is published")
    encoder: Literal["auto", "none", "gru", "cnn", "transformer"] = _setting(
        "auto",
        choice("auto", "none", "gru", "cnn", "transformer"),
        "what reads the order of a recipient's last events; auto takes the best one anew every week",
    )
    personalizer_unknown_events: Literal["accept", "refuse"] = _setting(
        "accept",
        choice("accept", "refuse"),
        "whether the Personalizer routes take rewards of events that were never ranked, or answer 404",
    )
    seed: str | None = _setting(None, TEXT, "seed of every draw; left out, the installation's own secret one")
    metrics_dir: str | None = _setting(
        None, TEXT, "folder of the processes' metric files and of no other .db; left out, a temporary one"
    )
    metrics_token: str | None = _setting(
        None, TOKEN, "what a scrape of /metrics must send as its bearer token; left out, anyone may scrape"
    )
    report_folder: str | None = _setting(
        None, TEXT, "folder for what reports and refreshes keep of the log; left out, one beside the database file"
    )
    train_memory_mib: int = _setting(3072, whole(512, 1 << 20), "MiB of data that a training process may hold")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, also: Collection[str] = ()) -> Settings:
        """Reads every ``SENDTIDE_`` variable.

        Args:
            environ: names to values, such as ``os.environ``; names without the prefix are not looked at.
            also: full names that belong to someone else (flags of commands) and are left to them.

        Raises:
            ConfigError: a name that nobody knows, or a value that can't be read; names it and what is allowed.
        """
        for unknown in unknown_variables(environ):
            if unknown not in also:
                raise _unknown(unknown, also)
        return cls(
            **{
                name: parse_setting(name, environ[variable(name)], shown_as=variable(name))
                for name in SETTINGS
                if variable(name) in environ
            }
        )

    @property
    def report_path(self) -> Path:
        """The folder of what reports and refreshes keep of the log. Several installations may share one."""
        return self._beside(self.report_folder, "reports")

    @property
    def archive_path(self) -> Path:
        """The folder of the archive."""
        return self._beside(self.archive_folder, "archive")

    def _beside(self, folder: str | None, name: str) -> Path:
        """The folder that was set, or one beside the database file."""
        if folder is not None:
            return Path(folder)
        file = self.database.removeprefix("sqlite:///")
        return Path("var", name) if file == self.database else Path(f"{file}.{name}")

    def override(self, **values: Any) -> Settings:
        """A copy with those values that are not None; they must have been parsed already."""
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def environment(self) -> dict[str, str]:
        """The variables that make ``from_environment`` return these very settings, for child processes."""
        values = ((setting.name, getattr(self, setting.name)) for setting in fields(self))
        return {
            variable(name): str(int(value)) if isinstance(value, bool) else str(value)
            for name, value in values
            if value is not None
        }

    def child_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of a child process: ``environ`` with these settings in it and nothing else of ours."""
        return {**{name: value for name, value in environ.items() if not name.startswith(PREFIX)}, **self.environment()}

    def training_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """That of a training beside decisions: one that took every core would slow them down."""
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return {**self.child_environment(environ), **one_thread}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """The ``SENDTIDE_`` names, sorted, that are neither a setting's nor a flag's that all commands share."""
    known = _known_variables()
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def _known_variables() -> set[str]:
    return {*(variable(name) for name in SETTINGS), *(PREFIX + name for name in SHARED_FLAGS)}


#: Each setting's kind, by name.
SETTINGS: Mapping[str, Kind] = {setting.name: setting.metadata["kind"] for setting in fields(Settings)}
#: What each setting is for, by name.
ABOUT: Mapping[str, str] = {setting.name: setting.metadata["about"] for setting in fields(Settings)}


def parse_setting(name: str, text: str, *, shown_as: str) -> Any:
    """Reads the text of one setting.

    Args:
        name: the setting.
        text: what stands in the variable or behind the flag.
        shown_as: how the message names it (``SENDTIDE_WORKERS``, ``--workers``).

    Raises:
        ConfigError: the text can't be read, or the value is out of its range.
    """
    kind = SETTINGS[name]
    try:
        return kind.parse(text)
    except ValueError:
        raise ConfigError(
            f"{shown_as} is {text!r}; allowed: {kind.allowed}", errors={name: [f"must be {kind.allowed}"]}
        ) from None


def _unknown(variable_name: str, also: Collection[str]) -> ConfigError:
    known = sorted(_known_variables() | set(also))
    names = {name.removeprefix(PREFIX): name for name in known}  # the prefix would make everything look alike
    told = variable_name.removeprefix(PREFIX)
    close = difflib.get_close_matches(told, names, n=1)
    nearest = close or difflib.get_close_matches(told, names, n=3, cutoff=0.0)
    hint = f"did you mean {names[close[0]]}?" if close else "nearest: " + ", ".join(names[name] for name in nearest)
    return ConfigError(
        f"{variable_name} is not a setting; {hint} (`sendtide COMMAND --help` lists a command's variables, "
        "`sendtide serve --help` those of all settings)",
        errors={variable_name: ["unknown setting"]},
    )
