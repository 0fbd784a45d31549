"""Features of contexts and actions that nobody declared: nested JSON, flattened into hashed tokens.

A text, a truth value or an element of a list of texts is one token ``name=value`` of weight 1; a number is a token
``name`` with its value. Names are the path of keys, joined by a dot. What is null says nothing. Contexts and actions
are told apart by a prefix, so that ``age`` of a reader and ``age`` of an article are two things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.model.hashing import hashed

Keys = NDArray[np.uint64]
Values = NDArray[np.float64]
Side = Literal["c", "a"]

#: What is read of one side of a request, in its order; the rest is left out.
MAX_TOKENS = 512
#: Elements of a list of numbers are tokens of their own up to this place.
MAX_ELEMENTS = 128
#: Nesting below this is not read.
MAX_DEPTH = 16
_HUGE = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Flattened features.

    Attributes:
        key: (t,) uint64, hash of ``name=value``, of ``name`` for a number.
        name: (t,) uint64, hash of the name alone.
        value: (t,) float64; 1 where it is not a number.
        number: (t,) bool.
        texts: the names in words, in the same order.
    """

    key: Keys
    name: Keys
    value: Values
    number: NDArray[np.bool_]
    texts: tuple[str, ...]


def tokens(features: Sequence[Any], side: Side, identity: str | None = None) -> Tokens:
    """The tokens of a list of feature objects.

    Args:
        features: objects as they came in JSON; what is no object is read as a value without a name.
        side: ``c`` for a context, ``a`` for an action.
        identity: an action's id, which becomes a token of its own.
    """
    found: list[tuple[str, str | None, float]] = []
    if identity is not None:
        found.append((f"{side}:@id", identity, 1.0))
    for one in features:
        _flatten(one, f"{side}:", 0, found)
    del found[MAX_TOKENS:]
    names = [hashed(name) for name, _, _ in found]
    keys = [
        hash_ if text is None else hashed(f"{name}={text}") for hash_, (name, text, _) in zip(names, found, strict=True)
    ]
    return Tokens(
        np.array(keys, np.uint64),
        np.array(names, np.uint64),
        np.array([value for _, _, value in found], np.float64),
        np.array([text is None for _, text, _ in found], np.bool_),
        tuple(name for name, _, _ in found),
    )


def _flatten(value: Any, name: str, depth: int, found: list[tuple[str, str | None, float]]) -> None:
    if len(found) >= MAX_TOKENS or depth > MAX_DEPTH or value is None:
        return
    if isinstance(value, Mapping):
        for key, below in value.items():
            _flatten(below, f"{name}.{key}" if name[-1] != ":" else f"{name}{key}", depth + 1, found)
    elif isinstance(value, bool):
        found.append((name, "true" if value else "false", 1.0))
    elif isinstance(value, str):
        found.append((name, value, 1.0))
    elif isinstance(value, int | float):
        found.append((name, None, min(max(float(value), -_HUGE), _HUGE)))
    else:
        for place, below in _elements(value):
            is_number = isinstance(below, int | float) and not isinstance(below, bool)
            _flatten(below, f"{name}[{place}]" if is_number else name, depth + 1, found)


def _elements(values: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    return iter(enumerate(values[:MAX_ELEMENTS]))


_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(33)


def mixed(keys: Keys) -> Keys:
    """Spreads sums of hashes over 64 bits again (the finaliser of MurmurHash3)."""
    keys = keys ^ (keys >> _SHIFT)
    keys = keys * _MIX
    return keys ^ (keys >> _SHIFT)
