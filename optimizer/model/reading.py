"""What a value in a context is, read as a number, a truth value, a level or a moment; None where it can't be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from storage.records import AttributeType

#: Larger numbers are cut, so that differences and squares of two of them stay finite.
HUGE = 1e100
#: Epoch numbers above this are milliseconds (as seconds they would lie after the year 5000).
_MILLISECONDS_FROM = 1e11


def parse_number(value: object) -> float | None:
    """A finite float within ±1e100, or None: booleans count as 0 and 1, numeric strings as their number."""
    if not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(HUGE, max(-HUGE, number)) if math.isfinite(number) else None


def parse_boolean(value: object) -> float | None:
    """1.0, 0.0, or None when the value isn't a truth value."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return float(value)
    if isinstance(value, str):
        return {"true": 1.0, "1": 1.0, "yes": 1.0, "false": 0.0, "0": 0.0, "no": 0.0}.get(value.strip().lower())
    return None


def parse_category(value: object) -> str | None:
    """The level's name, or None: 3, 3.0 and "3" are one level; lists and objects have none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < 1 << 64:  # ids: a float would hold some sixteen digits of them
        return str(value)
    number = parse_number(value)
    return None if number is None else f"{number + 0.0:.15g}"


def parse_timestamp(value: object) -> float | None:
    """Epoch seconds of an RFC 3339 string, a datetime or an epoch number; None when unreadable. Naive means UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool):
        return None
    number = parse_number(value)
    return number / 1000.0 if number is not None and abs(number) > _MILLISECONDS_FROM else number


def shown_type(values: Sequence[Any]) -> AttributeType | None:
    """The type that some values look like, none of which is None; None when they are lists or objects."""
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(isinstance(value, (int, float)) for value in values):
        return "number"
    texts = [value for value in values if isinstance(value, str)]
    if not texts:
        return None
    if len(texts) == len(values) and all("-" in text and parse_timestamp(text) is not None for text in texts):
        return "timestamp"
    wordy = sum(text.count(" ") >= 3 for text in texts) > len(texts) / 2
    return "text" if wordy and len(set(texts)) > len(texts) / 2 else "category"
