"""The field types of the API. Each says in its error what is allowed, and in the document the same as JSON Schema.

marshmallow's own types coerce ("yes" is true, "1.5" is a number); these take what JSON says and nothing else.
Errors name what is allowed; the value that was given is added by ``validation.load``, which knows the whole body.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields

from optimizer.bandit.consent import misspelled
from optimizer.bandit.localtime import zone_names
from optimizer.service import moments
from optimizer.web.schemas import limits
from storage.rules import MICROS

#: RFC 3339, section 5.6. The offset is not optional: a time without one is not a time.
_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})")
_CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_CURRENCY = re.compile(r"[A-Z]{3}")
#: No control characters (C0, DEL, C1), and not U+FFFD, which is what broken UTF-8 in a path turns into.
ID = re.compile(r"[^\u0000-\u001f\u007f-\u009f\ufffd]+")
_NAME = re.compile(r"[^\u0000-\u001f\u007f-\u009f\ufffd/]+")
#: Segments that clients resolve before they send a request, percent-encoded ones too (WHATWG URL, "path state").
_DOTS = frozenset({".", ".."})
ID_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\ufffd]+$"
NAME_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\ufffd/]+$"


def is_id(text: str) -> bool:
    """Whether a text has 1 to 256 characters, none of them a control character."""
    if text.isascii() and text.isprintable():  # nearly all are: told apart fastest
        return 0 < len(text) <= limits.ID
    return len(text) <= limits.ID and ID.fullmatch(text) is not None


def about_field(kwargs: dict[str, Any], about: str, **facts: Any) -> dict[str, Any]:
    """``kwargs`` with messages that say what is allowed, and description and JSON Schema facts for the document."""
    kwargs.setdefault("error_messages", {})
    kwargs["error_messages"] = {
        "required": "Missing; it is required.",
        "null": "null is not allowed.",
        **kwargs["error_messages"],
    }
    told = {k: v for k, v in {"description": about or None, **facts}.items() if v is not None}
    kwargs["metadata"] = {**told, **kwargs.get("metadata", {})}
    return kwargs


class Text(fields.String):
    """A string of bounded length without NUL (PostgreSQL can't store it)."""

    def __init__(self, about: str = "", *, shortest: int = 0, longest: int = 256, **kwargs: Any) -> None:
        self.shortest, self.longest = shortest, longest
        facts: dict[str, Any] = {"minLength": shortest or None, "maxLength": longest}
        super().__init__(**about_field(kwargs, about, **facts))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or not self.shortest <= len(value) <= self.longest or "\x00" in value:
            raise ValidationError(f"Must be a string of {self.shortest} to {self.longest} characters without NUL.")
        return value


class Id(fields.String):
    """An opaque id: 1 to 256 characters, no control characters. ``addressed``: it is a path segment, so no ``/``.
    ``dots``: it may be ``.`` or ``..`` (left out: if it isn't addressed)."""

    def __init__(self, about: str = "", *, addressed: bool = False, dots: bool | None = None, **kwargs: Any) -> None:
        self.pattern = _NAME if addressed else ID
        self.dots = not addressed if dots is None else dots
        self.allowed = "Must be a string of 1 to 256 characters without control characters" + (
            " or '/'." if addressed else "."
        )
        facts = {"minLength": 1, "maxLength": limits.ID, "pattern": NAME_PATTERN if addressed else ID_PATTERN}
        super().__init__(**about_field(kwargs, about, **facts))

    def allows(self, value: Any) -> bool:
        """Whether a value is an id."""
        if not isinstance(value, str) or not is_id(value) or (self.pattern is _NAME and "/" in value):
            return False
        return self.dots or value not in _DOTS

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not self.dots and isinstance(value, str) and value in _DOTS:
            raise ValidationError("Must not be '.' or '..': no client can name these in an address.")
        if not self.allows(value):
            raise ValidationError(self.allowed)
        return str(value)


class ChannelName(Id):
    """A channel's name; those that need consent have one spelling."""

    def allows(self, value: Any) -> bool:
        """Whether a value is a channel's name."""
        return super().allows(value) and misspelled(value) is None

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        fault = misspelled(value) if isinstance(value, str) else None
        if fault is not None:
            raise ValidationError(fault)
        return super()._deserialize(value)


class Choice(fields.String):
    """One of a few strings."""

    def __init__(self, choices: Collection[str], about: str = "", **kwargs: Any) -> None:
        self.choices = tuple(choices)
        listed: list[str | None] = [*self.choices, *([None] if kwargs.get("allow_none") else [])]
        super().__init__(**about_field(kwargs, about, enum=listed))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise ValidationError(f"Must be one of: {', '.join(self.choices)}.")
        return value


class Flag(fields.Boolean):
    """``true`` or ``false``, nothing that looks like it."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


class Number(fields.Float):
    """A finite number in ``[minimum, maximum]``; ``above`` and ``below`` are ends that are excluded themselves."""

    def __init__(
        self,
        about: str = "",
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        above: float | None = None,
        below: float | None = None,
        **kwargs: Any,
    ) -> None:
        if (maximum is None) == (below is None):
            raise TypeError("a number has either a maximum or a bound that it stays below")
        self.above, self.below = above, below
        self.maximum = math.inf if maximum is None else maximum
        self.minimum = -self.maximum if minimum is None else minimum
        low = f"greater than {above:g}" if above is not None else f"from {self.minimum:g}"
        high = f"less than {below:g}" if below is not None else f"at most {self.maximum:g}"
        simple = above is None and below is None
        self.allowed = (
            f"Must be a number {low} to {self.maximum:g}." if simple else f"Must be a number {low} and {high}."
        )
        facts = {
            "minimum": None if above is not None else self.minimum,
            "exclusiveMinimum": above,
            "maximum": maximum,
            "exclusiveMaximum": below,
        }
        super().__init__(**about_field(kwargs, about, **facts))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValidationError(self.allowed)
        too_low = value <= self.above if self.above is not None else value < self.minimum
        too_high = value >= self.below if self.below is not None else value > self.maximum
        if too_low or too_high:
            raise ValidationError(self.allowed)
        return float(value)


class Money(fields.Float):
    """An amount of money from 0 on with at most six decimals; loads as whole millionths."""

    def __init__(self, about: str = "", *, maximum: float, **kwargs: Any) -> None:
        self.maximum = maximum
        self.allowed = f"Must be an amount from 0 to {maximum:g} with at most 6 decimals."
        super().__init__(**about_field(kwargs, about, minimum=0, maximum=maximum))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= self.maximum:
            raise ValidationError(self.allowed)
        # A float's shortest text is the decimal that was sent: JSON numbers of up to 15 digits survive it.
        micros = Decimal(repr(value)) * MICROS
        if micros != micros.to_integral_value():
            raise ValidationError(self.allowed)
        return int(micros)


class Whole(fields.Integer):
    """An integer in ``[minimum, maximum]`` (``3.0`` is one, as in JSON Schema). ``textual``: from a query string."""

    def __init__(
        self, about: str = "", *, minimum: int = 0, maximum: int, textual: bool = False, **kwargs: Any
    ) -> None:
        self.minimum, self.maximum, self.textual = minimum, maximum, textual
        super().__init__(**about_field(kwargs, about, minimum=minimum, maximum=maximum))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if self.textual and isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
            value = int(value)
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole or not self.minimum <= value <= self.maximum:
            raise ValidationError(f"Must be an integer from {self.minimum} to {self.maximum}.")
        return int(value)


class Time(fields.DateTime):
    """An RFC 3339 time with an offset, from 1970 to 2200; loads as aware UTC."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about, examples=["2026-11-24T09:00:00Z"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> datetime:
        parsed = rfc3339(value)
        if parsed is None:
            raise ValidationError(
                "Must be an RFC 3339 time with an offset such as 2026-11-24T09:00:00Z or "
                "2026-11-24T10:00:00+01:00, from 1970 to 2200."
            )
        return parsed


class TimeOrDay(fields.String):
    """A ``Time``, or a ``Day``, which is its midnight in UTC; loads as aware UTC."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        told = f"{about} An RFC 3339 time with an offset, or a date, which is its midnight in UTC."
        super().__init__(**about_field(kwargs, told, examples=["2026-11-24T09:00:00Z", "2026-11-24"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        day = isinstance(value, str) and _DAY.fullmatch(value) is not None
        parsed = rfc3339(f"{value}T00:00:00Z" if day else value)
        if parsed is None:
            raise ValidationError(
                "Must be an RFC 3339 time with an offset such as 2026-11-24T09:00:00Z, or a date such as 2026-11-24 "
                "(midnight UTC), from 1970 to 2200."
            )
        return parsed


def rfc3339(value: object) -> datetime | None:
    """The aware UTC time that ``value`` names, or None when it names none in the allowed range."""
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        return None
    try:
        return moments.within(value.upper())
    except ValueError:  # 30 February, offset +24:00, the year 1
        return None


class ClockTime(fields.String):
    """A wall-clock time ``HH:MM`` from 00:00 to 23:59."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["21:00"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or _CLOCK.fullmatch(value) is None:
            raise ValidationError("Must be a time of day HH:MM from 00:00 to 23:59.")
        return value


class Day(fields.String):
    """A calendar date ``YYYY-MM-DD`` from 1970 to 2199."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about, format="date", examples=["2026-12-25"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or _DAY.fullmatch(value) is None or not _is_day(value):
            raise ValidationError("Must be a date YYYY-MM-DD from 1970-01-01 to 2199-12-31.")
        return value


def _is_day(text: str) -> bool:
    try:
        return moments.EARLIEST.date() <= date.fromisoformat(text) < moments.LATEST.date()
    except ValueError:  # 30 February
        return False


class Country(fields.String):
    """A country's ISO 3166-1 code of two capital letters."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about, pattern="^[A-Z]{2}$", examples=["DE"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or _COUNTRY.fullmatch(value) is None:
            raise ValidationError("Must be an ISO 3166-1 code of two capital letters such as DE.")
        return value


class Currency(fields.String):
    """A currency's ISO 4217 code of three capital letters."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about, pattern="^[A-Z]{3}$", examples=["EUR"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or _CURRENCY.fullmatch(value) is None:
            raise ValidationError("Must be an ISO 4217 code of three capital letters such as EUR.")
        return value


class ZoneName(fields.String):
    """The IANA name of a time zone that this installation knows."""

    def __init__(self, about: str = "", **kwargs: Any) -> None:
        super().__init__(**about_field(kwargs, about, maxLength=64, examples=["Europe/Berlin"]))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str) or value not in zone_names():
            raise ValidationError("Unknown time zone. Must be an IANA name such as Europe/Berlin or UTC.")
        return value
