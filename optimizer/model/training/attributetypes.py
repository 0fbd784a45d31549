"""Whether values can be read as their attribute's type, and which type they show where nobody declared one.

An attribute that nobody declared is typed by the first value that was ever seen of it, be it of a developer's first
call. So each training looks at the newest ones: a type that can't read them, and a category whose values have become
numbers, gives way to what they show. A model keeps the columns that it was trained with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from optimizer.model.features import TYPING_SAMPLE
from optimizer.model.reading import parse_boolean, parse_category, parse_number, parse_timestamp, shown_type
from storage.records import Attribute, AttributeType, JsonObject

#: Share of the values that are there which a type may fail to read.
UNREADABLE = 0.05
#: Fewer values than this show no type.
_LEAST = 50
#: As many rows must share a value that is told of; models name levels from as many on.
_NAMED = 5
#: A value that is told of is cut to so many characters.
_TOLD = 40

_READERS: Mapping[AttributeType, Callable[[object], object]] = {
    "number": parse_number,
    "timestamp": parse_timestamp,
    "boolean": parse_boolean,
    "category": parse_category,
    "text": lambda value: value if isinstance(value, str) else None,
}


def readable(kind: AttributeType, value: object) -> bool:
    """Whether a value can be read as a type."""
    return _READERS[kind](value) is not None


def unreadable(
    contexts: Sequence[JsonObject], name: str, kind: AttributeType, *, told: bool
) -> tuple[float, str | None]:
    """The share of the values that are there which can't be read as the type, and the commonest such text; None where
    few rows share one, or with ``told`` False."""
    values = [context[name] for context in contexts if context.get(name) is not None]
    failed = [value for value in values if not readable(kind, value)]
    common = Counter(value for value in failed if isinstance(value, str)).most_common(1)
    named = common[0][0][:_TOLD] if told and common and common[0][1] >= _NAMED else None
    return len(failed) / max(1, len(values)), named


def retyped(attributes: Sequence[Attribute], contexts: Sequence[JsonObject]) -> tuple[Attribute, ...]:
    """The registry with the types that the newest contexts show of what nobody declared.

    Args:
        attributes: the registry.
        contexts: in order of time.
    """
    return tuple(a if a.declared or not a.use_in_model else _retyped(a, contexts) for a in attributes)


def _retyped(attribute: Attribute, contexts: Sequence[JsonObject]) -> Attribute:
    newest = list(islice(_newest(contexts, attribute.name), TYPING_SAMPLE))
    shown = _shown(newest) if len(newest) >= _LEAST else None
    if shown is None or shown == attribute.type:
        return attribute
    failed = sum(not readable(attribute.type, value) for value in newest) > UNREADABLE * len(newest)
    numbers = attribute.type == "category" and shown == "number"
    return replace(attribute, type=shown) if failed or numbers else attribute


def _shown(values: Sequence[Any]) -> AttributeType | None:
    """The type that nearly all of some values show."""
    kinds = [next((kind for kind in (bool, (int, float), str) if isinstance(value, kind)), None) for value in values]
    kind, count = Counter(kinds).most_common(1)[0]
    if count < (1.0 - UNREADABLE) * len(values):
        return shown_type(values)
    return shown_type([value for value, own in zip(values, kinds, strict=True) if own == kind])


def _newest(contexts: Sequence[JsonObject], name: str) -> Iterator[Any]:
    return (context[name] for context in reversed(contexts) if context.get(name) is not None)
