"""What a report needs of a campaign's log, as arrays: gathered from the store's columns, added to, cut.

Names are numbers in them; a recipient is a keyed hash of its id, so that arrays that are kept name nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import known_zone
from optimizer.bandit.rewards import HARMFUL, amount
from optimizer.bandit.spoken import outcome_names
from optimizer.model.timefeatures import hour_of_week
from storage.blocks import EventBlock
from storage.columns import DecisionColumns, EventColumns
from storage.log import Group, Status
from storage.records import Campaign, JsonObject, Mode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[Any]]

GROUPS: Final[tuple[Group, ...]] = get_args(Group)
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_GROUP_CODES: Final = {word: code for code, word in enumerate(GROUPS)}
_STATUS_CODES: Final = {word: code for code, word in enumerate(STATUSES)}
_MODE_CODES: Final = {word: code for code, word in enumerate(MODES)}
#: Code of "no variant" and "no channel", and in place of an unknown time or position.
NONE: Final = -1

#: The columns of each kind of row, as narrow as they can be: they are read from a file for every report.
DECISIONS: Final[Mapping[str, type[np.generic]]] = {
    **dict.fromkeys(("position", "recipient", "decided", "latest", "planned", "sent", "cost"), np.int64),
    **dict.fromkeys(("version", "variant", "channel"), np.int32),
    **dict.fromkeys(("status", "group", "mode"), np.int8),
    "hour": np.int16,
}
MASKED: Final[Mapping[str, type[np.generic]]] = {"position": np.int64, "rule": np.int32, "masked": np.int64}
EVENTS: Final[Mapping[str, type[np.generic]]] = {
    **dict.fromkeys(("number", "position", "recipient", "at"), np.int64),
    "outcome": np.int32,
    "value": np.float64,
}
_KINDS: Final = {"decisions": DECISIONS, "masked": MASKED, "events": EVENTS}
Rule = tuple[str, str, bool]


@dataclass(frozen=True)
class LogColumns:
    """The log of one campaign, or a part of it.

    Times are microseconds since 1970, costs micros of money; codes are places in ``GROUPS``, ``STATUSES``, ``MODES``
    and the names here.

    Attributes:
        decisions: name -> (n,), see ``DECISIONS``; by position. ``recipient`` is a hash.
        masked: what a rule masked of a decision, (r,) each, see ``MASKED``.
        events: (m,) each, see ``EVENTS``; by number. ``position`` is that of the decision that an event names, else
            ``NONE``, and then ``recipient`` the hash of whom it names. ``value`` is NaN where it has none.
        variants, channels, outcomes: names by code. rules: (id, kind, dry run) by code.
    """

    decisions: Arrays
    masked: Arrays
    events: Arrays
    variants: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def kept(self, decisions: Mask, masked: Mask, events: Mask) -> LogColumns:
        """The chosen rows of each kind."""
        return replace(
            self,
            decisions={name: column[decisions] for name, column in self.decisions.items()},
            masked={name: column[masked] for name, column in self.masked.items()},
            events={name: column[events] for name, column in self.events.items()},
        )


def empty() -> LogColumns:
    """A log without rows."""
    decisions, masked, events = (
        {name: np.zeros(0, kind) for name, kind in columns.items()} for columns in _KINDS.values()
    )
    return LogColumns(decisions, masked, events)


@dataclass(frozen=True)
class Meaning:
    """What a campaign takes events for: its outcomes, and harms in any case.

    Attributes:
        types: those of events that mean something.
        outcome: type -> what it means, where that isn't its own name.
        told: type -> the property that holds its value.
    """

    types: frozenset[str]
    outcome: Mapping[str, str]
    told: Mapping[str, str]

    @classmethod
    def of(cls, campaign: Campaign) -> Meaning:
        """By the campaign as it is now."""
        names = {*outcome_names(campaign), *HARMFUL}
        mapping = {kind: one for kind, one in campaign.event_mapping.items() if one.outcome in names}
        return cls(
            frozenset({name for name in names if name not in campaign.event_mapping} | set(mapping)),
            {kind: one.outcome for kind, one in mapping.items()},
            {kind: one.value for kind, one in mapping.items() if one.value is not None},
        )


class _Codes(dict[Any, int]):
    """Numbers for names, in the order of their first appearance; None is ``NONE``."""

    def __init__(self, names: Iterable[Any] = ()) -> None:
        super().__init__({None: NONE})
        self.update({name: code for code, name in enumerate(names)})

    def __missing__(self, name: Any) -> int:
        code = self[name] = len(self) - 1
        return code

    @property
    def names(self) -> tuple[Any, ...]:
        """The names, by number."""
        return tuple(name for name in self if name is not None)


class _Hashes(dict[str | None, int]):
    """64-bit keyed hashes of ids, each made once; None is 0. Two of a million recipients share one once in 37 million
    such logs."""

    def __init__(self, key: bytes) -> None:
        super().__init__({None: 0})
        self._key = key

    def __missing__(self, name: str | None) -> int:
        digest = blake2b(str(name).encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()
        code = self[name] = int.from_bytes(digest, "little", signed=True)
        return code


@dataclass
class Gathered:
    """Columns that are being read; ``key`` is that of the hashes, ``before`` what is added to."""

    key: bytes
    meaning: Meaning
    before: LogColumns = field(default_factory=empty)

    def __post_init__(self) -> None:
        self._recipients = _Hashes(self.key)
        self._variants, self._channels = _Codes(self.before.variants), _Codes(self.before.channels)
        self._outcomes, self._rules = _Codes(self.before.outcomes), _Codes(self.before.rules)
        self._parts: dict[str, dict[str, list[NDArray[Any]]]] = {
            kind: {name: [getattr(self.before, kind)[name]] for name in columns} for kind, columns in _KINDS.items()
        }

    def add_decisions(self, chunk: DecisionColumns) -> None:
        """Adds a chunk."""
        planned, decided = (np.array(column, dtype=np.int64) for column in (chunk.planned, chunk.decided))
        columns: dict[str, Any] = {
            "position": chunk.position,
            "recipient": list(map(self._recipients.__getitem__, chunk.recipient)),
            "version": chunk.version,
            "status": list(map(_STATUS_CODES.__getitem__, chunk.status)),
            "group": list(map(_GROUP_CODES.__getitem__, chunk.group)),
            "mode": list(map(_MODE_CODES.__getitem__, chunk.mode)),
            "decided": decided,
            "latest": chunk.latest,
            "variant": list(map(self._variants.__getitem__, chunk.variant)),
            "channel": list(map(self._channels.__getitem__, chunk.channel)),
            "planned": planned,
            "sent": chunk.sent,
            "cost": chunk.cost,
            "hour": _hours(np.where(planned == NONE, decided, planned), chunk.timezone),
        }
        self._add("decisions", columns)
        masked = [
            (position, self._rules[rule, kind, dry_run], count)
            for position, reasons in zip(chunk.position, chunk.reasons, strict=True)
            for rule, kind, count, dry_run in reasons
        ]
        if masked:
            self._add("masked", dict(zip(MASKED, zip(*masked, strict=True), strict=True)))

    def add_events(self, chunk: EventColumns | EventBlock) -> None:
        """Adds a chunk; events that a store gives no number for get 0."""
        meant = self.meaning.outcome
        named = [NONE if position is None else position for position in chunk.position]
        self._add(
            "events",
            {
                "number": chunk.number if isinstance(chunk, EventBlock) else [0] * len(named),
                "position": named,
                "recipient": list(map(self._recipients.__getitem__, chunk.recipient)),
                "at": chunk.occurred,
                "outcome": [self._outcomes[meant.get(kind, kind)] for kind in chunk.type],
                "value": self._values(chunk.type, chunk.value, chunk.properties),
            },
        )

    def _values(
        self, types: Sequence[str], given: Sequence[float | None], properties: Sequence[JsonObject]
    ) -> list[float]:
        values = [np.nan if value is None else value for value in given]
        told = self.meaning.told
        if told:
            for row, kind in enumerate(types):
                number = amount(properties[row].get(told[kind])) if kind in told else None
                if number is not None:
                    values[row] = number
        return values

    def _add(self, kind: str, columns: Mapping[str, Any]) -> None:
        for name, column in columns.items():
            self._parts[kind][name].append(np.array(column, dtype=_KINDS[kind][name]))

    def columns(self) -> LogColumns:
        """All that was added, in order."""
        rows = {
            kind: {name: np.concatenate(parts) for name, parts in columns.items()}
            for kind, columns in self._parts.items()
        }
        return LogColumns(
            _ordered(rows["decisions"], "position"),
            _ordered(rows["masked"], "position"),
            _ordered(rows["events"], "number"),
            self._variants.names,
            self._channels.names,
            self._outcomes.names,
            self._rules.names,
        )


def _ordered(rows: dict[str, NDArray[Any]], by: str) -> Arrays:
    if np.all(rows[by][1:] >= rows[by][:-1]):
        return rows
    order = np.argsort(rows[by], kind="stable")
    return {name: column[order] for name, column in rows.items()}


def _hours(moments: Ints, zones: Sequence[str]) -> Ints:
    """The local hour of the week of each moment; that of UTC where this host doesn't know the zone."""
    epoch = moments // 1_000_000
    codes = _Codes()
    code = np.array(list(map(codes.__getitem__, zones)), dtype=np.int64)
    local = epoch.copy()
    for number, name in enumerate(codes.names):
        mine = code == number
        where = known_zone(name or "UTC")
        if where is not None:
            local[mine] += where.offsets(epoch[mine])
    return hour_of_week(local)
