"""Spans of time in both forms of Personalizer: ``[d.]hh:mm:ss`` (.NET, v1.0) and ISO 8601 (later versions)."""

from __future__ import annotations

import re
from datetime import timedelta

from optimizer.errors import Invalid

_DOTNET = re.compile(r"(?:(\d{1,6})\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.(\d{1,7}))?", re.ASCII)
_ISO = re.compile(
    r"P(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?", re.ASCII
)


def read(name: str, text: str) -> timedelta:
    """A span in either form.

    Raises:
        Invalid: it is in neither, or too long for any use.
    """
    found = _DOTNET.fullmatch(text)
    if found is not None:
        days, hours, minutes, seconds, fraction = found.groups()
        return timedelta(
            days=int(days or 0),
            hours=int(hours),
            minutes=int(minutes),
            seconds=int(seconds),
            microseconds=int((fraction or "0").ljust(7, "0")) // 10,
        )
    found = _ISO.fullmatch(text)
    if found is None or not any(found.groups()):
        raise Invalid.field(
            name, f"{text!r:.40} is no span of time; allowed: 00:10:00 or PT10M", code="InvalidServiceConfiguration"
        )
    weeks, days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def dotnet(span: timedelta) -> str:
    """``00:10:00``; ``28.00:00:00`` from a day on."""
    hours, rest = divmod(span.seconds, 3600)
    days = f"{span.days}." if span.days else ""
    fraction = f".{span.microseconds:06d}0" if span.microseconds else ""
    return f"{days}{hours:02d}:{rest // 60:02d}:{rest % 60:02d}{fraction}"


def iso(span: timedelta) -> str:
    """``PT10M``."""
    hours, rest = divmod(span.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{span.microseconds:06d}".rstrip("0") if span.microseconds else ""
    parts = [(hours, "H", ""), (minutes, "M", ""), (seconds, "S", fraction)]
    time = "".join(f"{number}{extra}{unit}" for number, unit, extra in parts if number or extra)
    days = f"{span.days}D" if span.days else ""
    return f"P{days}T{time}" if time else f"P{days}" if days else "PT0S"
