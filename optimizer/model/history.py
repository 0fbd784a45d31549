"""The recipient's recent past as a decision's context holds it: typed events, in a compact form.

Under the reserved entry ``@history`` stand the recipient's last events before the decision: messages that went out,
what came of them, tracked events such as purchases and page views. ``model.historyspec`` says what a model reads there.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import Invalid
from optimizer.model.reading import parse_category
from storage.records import JsonObject

#: What reads the order of events: nothing, one of three small networks, or the one that predicts best.
Encoder = Literal["none", "gru", "cnn", "transformer", "auto"]
#: For so many days a choice of ``auto`` holds.
KEPT_DAYS: Final = 7.0
#: The entry of a context that holds the history; what begins with "@" is no feature.
HISTORY: Final = "@history"
#: Events that are kept; older ones have mostly worn off.
LENGTH: Final = 32
#: The kind of a message that went out; the kind of an event is its type.
SENT: Final = "sent"
#: Which property of an event says what it was about: the first of these that it has.
SUBJECTS: Final = ("topic", "category", "product", "name", "page")
#: Ages in minutes are below this: eight thousand years.
_OLDEST: Final = 1 << 32
#: The type of arrays that hold them.
_AGES: Final = "I"
#: Longer values of such a property are cut: they are texts, not categories.
_LONGEST = 40
#: Frequent kinds are stored as numbers. On disk: may grow, never change.
_CODES: Final[Mapping[str, int]] = {
    SENT: 0,
    "opened": 1,
    "clicked": 2,
    "converted": 3,
    "unsubscribed": 4,
    "complained": 5,
    "viewed": 6,
}
_KINDS: Final = {code: kind for kind, code in _CODES.items()}


@dataclass(frozen=True)
class Wanted:
    """Which encoder a training tries: ``auto`` tries all of them and takes one; ``since`` is when that was settled, in
    epoch seconds."""

    kind: Encoder = "auto"
    since: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Encoder):
            raise Invalid.field("encoder", f"{self.kind!r} is none; there are: {', '.join(get_args(Encoder))}")


def wanted(setting: Encoder, now: float, *settled: JsonObject) -> Wanted:
    """What a training is to try under a setting.

    Args:
        setting: one encoder, or ``auto``.
        now: epoch seconds.
        settled: what the artifacts that are served say of their encoders. The latest choice of ``auto`` among them is
            kept for ``KEPT_DAYS``: to try all three costs three trainings.
    """
    if setting != "auto":
        return Wanted(setting, now)
    known = [Wanted(told["kind"], told["since"]) for told in settled if told.get("kind") not in (None, "none", "auto")]
    kept = [one for one in known if now - one.since < KEPT_DAYS * 86_400]
    return max(kept, key=lambda one: one.since, default=Wanted("auto", now))


class Past(NamedTuple):
    """One event of the past: its age before the decision in minutes, its kind, and what is known of it ("" = nothing).

    ``variant`` is ``campaign/variant`` of the message that it is or answers, ``subject`` what it was about.
    """

    minutes: int
    kind: str
    subject: str = ""
    channel: str = ""
    variant: str = ""


@dataclass(frozen=True)
class History:
    """A recipient's last events before a decision, oldest first, at most ``LENGTH``."""

    events: tuple[Past, ...] = ()

    def __post_init__(self) -> None:
        if len(self.events) > LENGTH:
            raise Invalid.field("events", f"has {len(self.events)} entries; allowed: at most {LENGTH}")
        ages = [event.minutes for event in self.events]
        if any(age < 0 for age in ages) or ages != sorted(ages, reverse=True):
            raise Invalid.field("events", "must be in order of time, none after the decision")

    def to_json(self) -> JsonObject:
        """The compact form for a context: the age of each event in minutes, the distinct events without their ages (a
        list each, with what is unknown at its end left out), and which of these each event is: a history names the same
        few things again and again.
        """
        places: dict[tuple[str, ...], int] = {}
        which = [places.setdefault(event[1:], len(places)) for event in self.events]
        return {"minutes": [event.minutes for event in self.events], "of": which, "events": [*map(_entry, places)]}


def _entry(said: tuple[str, ...]) -> list[int | str]:
    kind, *rest = said
    entry = [_CODES.get(kind, kind), *rest]
    while entry[-1] == "":
        entry.pop()
    return entry


@dataclass(frozen=True, slots=True)
class Packed:
    """A history in a tenth of the room.

    ``minutes``: the age of each event. ``which``: its place among ``distinct``, whose ages are 0.
    """

    minutes: array[int]
    which: bytes
    distinct: tuple[Past, ...]


def pack(context: JsonObject) -> None:
    """Packs the history in a context that was just read, and that nobody else holds: those of a long log would fill
    gigabytes, and take long to look through again and again.

    Raises:
        TypeError: the context can't be written to.
    """
    if HISTORY not in context:
        return
    if not isinstance(context, dict):
        raise TypeError(f"a context that is packed must be a dict, this is a {type(context).__name__}")
    context[HISTORY] = _packed(context[HISTORY])


def _packed(found: object) -> Packed:
    """A history as a context holds it; what can't be read is left out."""
    if isinstance(found, Packed):
        return found
    return _by_column(found) if isinstance(found, dict) else _by_event(found)


def _by_column(told: JsonObject) -> Packed:
    """The history that ``History.to_json`` has written; none where it can't be read."""
    try:
        minutes, which = array(_AGES, told["minutes"][-LENGTH:]), bytes(told["of"][-LENGTH:])
        events = _all_said(told["events"])
        if len(minutes) != len(which) or max(which, default=-1) >= len(events):
            return _NOTHING
        said = tuple(filter(None, events))
        if len(said) < len(events):
            return _together(zip(minutes, [events[place] for place in which], strict=True))
        return Packed(minutes, which, said)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return _NOTHING


def _by_event(told: object) -> Packed:
    """A history as it was written before it was by column: a list an event, its age first."""
    found = []
    for entry in told[-LENGTH:] if isinstance(told, (list, tuple)) else ():
        try:
            age, *said = entry
            event = _said(said)
        except (TypeError, ValueError, IndexError):
            continue  # no list, an empty one, or it holds one
        if type(age) in (int, float) and 0 <= age < _OLDEST:
            found.append((int(age), event))
    return _together(found)


def _together(told: Iterable[tuple[int, Past | None]]) -> Packed:
    """Those of some events that could be read."""
    places: dict[Past, int] = {}
    minutes, which = array(_AGES), bytearray()
    for age, event in told:
        if event is not None:
            minutes.append(age)
            which.append(places.setdefault(event, len(places)))
    return Packed(minutes, bytes(which), tuple(places))


#: No history.
_NOTHING: Final = Packed(array(_AGES), b"", ())
#: One event for all of which the same is said; None where it can't be read.
_known: dict[tuple[object, ...], Past | None] = {}
_MOST_KNOWN: Final = 8_192
_UNKNOWN: Final = Past(-1, "")
#: What a kind may be: True and 1.0 are 1 to a dictionary, and no kinds.
_NAMED: Final = frozenset((int, str))
_first: Final = itemgetter(0)


def _all_said(entries: Sequence[Sequence[object]]) -> list[Past | None]:
    """``_said`` of many, which mostly have all been said before: without a line of Python each, then."""
    if _NAMED.issuperset(map(type, map(_first, entries))):
        known = list(map(_known.get, map(tuple, entries)))
        if None not in known:
            return known
    return [_said(entry) for entry in entries]


def _said(entry: Sequence[object]) -> Past | None:
    """The event of which this is said, its age 0; remembered. ``TypeError`` or ``IndexError``: it is no such list."""
    if type(entry[0]) not in _NAMED:
        return None
    key = tuple(entry)
    event = _known.get(key, _UNKNOWN)
    if event is _UNKNOWN:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        event = _known[key] = _event(entry)
    return event


def read(context: JsonObject) -> list[Past]:
    """The history in a context, oldest first; what can't be read is left out, so that any context has one."""
    found = _packed(context.get(HISTORY))
    return [Past(age, *found.distinct[place][1:]) for age, place in zip(found.minutes, found.which, strict=True)]


class Events(NamedTuple):
    """The events of n histories as columns, for what is computed of many at once.

    ``counts`` (n,): how many each has. ``minutes``, ``alike`` (m,): of each event its age, and which of ``distinct`` it
    is like, whose ages are 0.
    """

    counts: NDArray[np.int64]
    minutes: NDArray[np.float64]
    alike: NDArray[np.int64]
    distinct: list[Past]


def read_all(contexts: Sequence[JsonObject]) -> Events:
    """What ``read`` finds in n contexts: a long log has millions of events, which differ in some hundred ways beside
    their ages."""
    found = [_packed(context.get(HISTORY)) for context in contexts]
    minutes = array(_AGES)
    told: list[Past] = []
    for one in found:
        minutes += one.minutes
        told += one.distinct
    known = {event: place for place, event in enumerate(dict.fromkeys(told))}
    places = np.fromiter(map(known.__getitem__, told), np.int64, len(told))
    counts = np.array([len(one.which) for one in found], np.int64)
    start = np.cumsum([0, *(len(one.distinct) for one in found)])[:-1]
    which = np.frombuffer(b"".join(one.which for one in found), np.uint8)
    alike = places[np.repeat(start, counts) + which]
    return Events(counts, np.array(minutes, np.float64), alike, list(known))


def _event(entry: Sequence[object]) -> Past | None:
    if not isinstance(entry, (list, tuple)) or not 1 <= len(entry) < len(Past._fields):
        return None
    kind, *rest = entry
    if type(kind) is int:
        kind = _KINDS.get(kind)
    if type(kind) is not str or any(type(part) is not str for part in rest):
        return None
    return Past(0, kind, *rest)


def subject_of(properties: JsonObject) -> str:
    """What an event was about: the first of ``SUBJECTS`` that it has, as a category; "" = nothing."""
    for name in SUBJECTS:
        level = parse_category(properties.get(name))
        if level:
            return level[:_LONGEST]
    return ""
