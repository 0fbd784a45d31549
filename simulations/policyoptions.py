"""How the options of a policy are read from text: by the type of each, within what is allowed for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from optimizer.errors import Invalid


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``; ``above``: without ``low`` itself."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number lies in it; NaN and infinity never do."""
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        """In words, to stand behind "must be"."""
        low = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        return low if self.high == math.inf else f"from {self.low:g} to {self.high:g}"


_POSITIVE, _FROM_0, _FROM_1, _SHARE = Range(0.0, above=True), Range(0.0), Range(1.0), Range(0.0, 1.0)
#: Every option that is a number, by name: a name means the same with every policy that has it.
RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("retrain", "refresh", "early", "unit", "rate", "scale", "ridge", "prior"), _POSITIVE),
    **dict.fromkeys(("parameter", "power", "l2", "exponent", "psi", "mellowness", "alpha", "decay"), _FROM_0),
    **dict.fromkeys(("step", "policies", "most", "width", "layers", "steps", "test"), _FROM_1),
    "invlambda": _POSITIVE,
    "epsilon": _SHARE,
}


def with_options(options: Any, given: Mapping[str, Any]) -> Any:
    """Options with some of them replaced.

    Args:
        options: a frozen dataclass.
        given: by name; texts are read by the type of what they replace, everything else is taken as it is.

    Raises:
        Invalid: an option that there is none of, or a text that is not allowed; it names both and what is allowed.
    """
    known = [field.name for field in fields(options)]
    changes = {}
    for key, value in given.items():
        if key not in known:
            raise Invalid.field("policies", f"option {key!r} is none; there are: {', '.join(known)}")
        changes[key] = _read(key, value, get_type_hints(type(options))[key]) if isinstance(value, str) else value
    return replace(options, **changes)


def refused(key: str, value: object, allowed: str) -> Invalid:
    """The error of an option that is not allowed; ``allowed`` stands behind "must be"."""
    return Invalid.field("policies", f"{key}={value}: must be {allowed}")


def _read(key: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise refused(key, text, f"one of: {', '.join(get_args(kind))}")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise refused(key, text, "true or false")
        return text.lower() in ("true", "1")
    allowed = RANGES[key]
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if value not in allowed:
        raise refused(key, text, f"a {'whole number' if kind is int else 'number'}, {allowed}")
    return value
