"""Structured logs of every process: one JSON object a line, or a line of text for people, on standard error."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

#: What every record has of its own; the rest came by ``extra`` and is logged with it.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: ``time``, ``level``, ``logger``, ``message``, ``pid``, ``extra``'s, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        options = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
        return orjson.dumps(line, default=str, option=options).decode()


class TextLines(logging.Formatter):
    """A record as a line of text, with what ``extra`` gave behind it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        more = " ".join(f"{name}={value}" for name, value in vars(record).items() if name not in _OWN)
        return super().format(record) + (f" [{more}]" if more else "")


def configure(level: str, form: str) -> None:
    """Sends everything that this process logs, at ``level`` or worse, to standard error as ``json`` or ``text``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("apscheduler").setLevel("WARNING")
