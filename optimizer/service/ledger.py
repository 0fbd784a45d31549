"""A campaign's decisions as arrays, with what came of each: what a report is computed from.

No record is made of a decision or an event: the store gives columns, and outcomes are joined to decisions by sorting.
What counts for a decision is what ``bandit.rewards`` says; a test compares the two on random logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import zone
from optimizer.bandit.rewards import HARMFUL, MESSAGE_OUTCOMES, outcome_names, window_hours
from optimizer.model.timefeatures import hour_of_week
from storage.columns import DecisionColumns, EventColumns
from storage.log import COUNTED, Group, Status
from storage.port import Reader
from storage.records import Campaign, Mode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

GROUPS: Final[tuple[Group, ...]] = get_args(Group)
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
HOUR: Final = 3_600_000_000
DAY: Final = 24 * HOUR
_GROUP_CODES: Final = {word: code for code, word in enumerate(GROUPS)}
_STATUS_CODES: Final = {word: code for code, word in enumerate(STATUSES)}
_MODE_CODES: Final = {word: code for code, word in enumerate(MODES)}
#: Code of "no variant" and "no channel", and in place of an unknown time.
NONE: Final = -1


@dataclass(frozen=True)
class Outcomes:
    """One outcome of n decisions: whether it happened, and the sum of its values (0 where it has none)."""

    happened: Mask
    value: Floats


@dataclass(frozen=True)
class Ledger:
    """n decisions of one campaign as they stand now.

    Times are microseconds since 1970; codes are places in ``GROUPS``, ``STATUSES``, ``MODES``, ``variants``,
    ``channels``, with ``NONE`` for none.

    Attributes:
        recipient: (n,) code of the recipient, in the order of first appearance in the store.
        group, status, mode, version: (n,).
        decided: (n,). closes: (n,) when all attribution windows have passed, whatever was drawn.
        variant, channel: (n,). hour: (n,) local hour of the week at the planned send, else at the decision.
        reward: (n,) by the campaign's present objective. revenue: (n,) the values of outcomes that pay by their value.
        cost: (n,) of messages that went out or still may.
        outcomes: by name. worth: (n,) the size of what outcomes are worth together, harms too, without costs.
        reasons: (rule, kind, dry run) -> decisions that it masked something of, how many of these were withheld, and
            actions masked.
    """

    variants: tuple[str, ...]
    channels: tuple[str, ...]
    recipient: Ints
    group: Ints
    status: Ints
    mode: Ints
    version: Ints
    decided: Ints
    closes: Ints
    variant: Ints
    channel: Ints
    hour: Ints
    reward: Floats
    revenue: Floats
    cost: Floats
    outcomes: Mapping[str, Outcomes]
    worth: Floats
    reasons: Mapping[tuple[str, str, bool], tuple[int, int, int]]


def read_ledger(reader: Reader, campaign: Campaign, since: datetime, until: datetime) -> Ledger:
    """The campaign's own decisions with ``since <= decided_at < until``.

    Outcomes are those that the campaign speaks of, and harms in any case; an open window's count so far.
    """
    log = _Log()
    for chunk in reader.decision_columns(campaign.workspace_id, campaign.campaign_id, since, until):
        log.add(chunk)
    rows = {name: np.concatenate([np.zeros(0, np.int64), *parts]) for name, parts in log.parts.items()}
    names = sorted({*outcome_names(campaign), *HARMFUL})
    span = max(window_hours(campaign, name) for name in names)
    found = _Joined.of(rows, log.recipients, _events(reader, campaign, names, since, until))
    starts = _starts(rows)
    outcomes = {
        name: found.outcome(name, rows["decided"], starts + int(window_hours(campaign, name) * HOUR), rows["variant"])
        for name in names
    }
    cost, worths = _costs(campaign, log, rows), _worths(campaign, outcomes)
    return Ledger(
        variants=log.variants.names,
        channels=log.channels.names,
        **{name: rows[name] for name in ("recipient", "group", "status", "mode", "version", "decided")},
        closes=np.maximum(rows["latest"], rows["decided"]) + int(span * HOUR),
        **{name: rows[name] for name in ("variant", "channel", "hour")},
        reward=sum(worths, np.zeros(rows["decided"].size)) - cost,
        revenue=_revenue(campaign, outcomes, rows["decided"].size),
        cost=cost,
        outcomes=outcomes,
        worth=sum((np.abs(one) for one in worths), np.zeros(rows["decided"].size)),
        reasons={key: (told[0], told[1], told[2]) for key, told in log.reasons.items()},
    )


class _Codes(dict[str | None, int]):
    """Numbers for names, in the order of their first appearance; None has a number only where it is given one."""

    def __missing__(self, name: str | None) -> int:
        code = self[name] = len(self) - (None in self)
        return code

    @property
    def names(self) -> tuple[str, ...]:
        """The names, by number."""
        return tuple(name for name in self if name is not None)


@dataclass
class _Log:
    """The columns read so far, as arrays of codes and times."""

    recipients: _Codes = field(default_factory=_Codes)
    variants: _Codes = field(default_factory=lambda: _Codes({None: NONE}))
    channels: _Codes = field(default_factory=lambda: _Codes({None: NONE}))
    parts: dict[str, list[Ints]] = field(default_factory=dict)
    reasons: dict[tuple[str, str, bool], list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add(DecisionColumns(*((),) * len(DecisionColumns.__dataclass_fields__)))

    def add(self, chunk: DecisionColumns) -> None:
        """Adds a chunk."""
        planned, decided = (np.array(column, dtype=np.int64) for column in (chunk.planned, chunk.decided))
        columns: dict[str, Any] = {
            "position": chunk.position,
            "recipient": list(map(self.recipients.__getitem__, chunk.recipient)),
            "version": chunk.version,
            "status": list(map(_STATUS_CODES.__getitem__, chunk.status)),
            "group": list(map(_GROUP_CODES.__getitem__, chunk.group)),
            "mode": list(map(_MODE_CODES.__getitem__, chunk.mode)),
            "decided": decided,
            "latest": chunk.latest,
            "variant": list(map(self.variants.__getitem__, chunk.variant)),
            "channel": list(map(self.channels.__getitem__, chunk.channel)),
            "planned": planned,
            "sent": chunk.sent,
            "hour": _hours(np.where(planned == NONE, decided, planned), chunk.timezone),
        }
        for name, column in columns.items():
            self.parts.setdefault(name, []).append(np.array(column, dtype=np.int64))
        for reasons, status in zip(chunk.reasons, chunk.status, strict=True):
            if not reasons:
                continue
            for rule, kind, masked, dry_run in reasons:
                told = self.reasons.setdefault((rule, kind, dry_run), [0, 0, 0])
                told[0] += 1
                told[1] += status == "withheld"
                told[2] += masked


def _hours(moments: Ints, zones: Sequence[str]) -> Ints:
    """The local hour of the week of each moment."""
    epoch = moments // 1_000_000
    codes = _Codes()
    code = np.array(list(map(codes.__getitem__, zones)), dtype=np.int64)
    local = epoch.copy()
    for name, number in codes.items():
        mine = code == number
        local[mine] += zone(name or "UTC").offsets(epoch[mine])
    return hour_of_week(local)


def _starts(rows: Mapping[str, Ints]) -> Ints:
    """When attribution windows start, as ``rewards.clock_start`` says."""
    sent = np.where(rows["sent"] == NONE, rows["planned"], rows["sent"])
    starts: Ints = np.where((rows["variant"] == NONE) | (sent == NONE), rows["decided"], sent)
    return starts


def _costs(campaign: Campaign, log: _Log, rows: Mapping[str, Ints]) -> Floats:
    """What each message costs, as ``rewards.reward`` says."""
    variants = {variant.id: variant.cost for variant in campaign.variants}
    channels = {channel.id: channel.cost for channel in campaign.channels}
    by_variant = np.array([*(variants.get(name, 0.0) for name in log.variants.names), 0.0])
    by_channel = np.array([*(channels.get(name, 0.0) for name in log.channels.names), 0.0])
    held = np.isin(rows["status"], [STATUSES.index(status) for status in STATUSES if status in COUNTED])
    paid = held & (rows["variant"] != NONE)
    cost: Floats = np.where(paid, by_variant[rows["variant"]] + by_channel[rows["channel"]], 0.0)
    return cost


def _worths(campaign: Campaign, outcomes: Mapping[str, Outcomes]) -> list[Floats]:
    """What each outcome of the objective was worth, (n,) each."""
    worths = []
    for name, weight in campaign.objective.items():
        value = outcomes[name].value
        if weight.max_value is not None:
            value = np.minimum(value, weight.max_value)
        worths.append(np.where(outcomes[name].happened, weight.fixed + weight.per_value * value, 0.0))
    return worths


def _revenue(campaign: Campaign, outcomes: Mapping[str, Outcomes], n: int) -> Floats:
    paying = [outcomes[name].value for name, weight in campaign.objective.items() if weight.per_value]
    revenue: Floats = np.sum(paying, axis=0) if paying else np.zeros(n)
    return revenue


def _events(
    reader: Reader, campaign: Campaign, names: Sequence[str], since: datetime, until: datetime
) -> Iterable[tuple[EventColumns, list[str], list[float]]]:
    """Events of these outcomes, with the outcome that each means and its value (NaN = none)."""
    mapping = {kind: one for kind, one in campaign.event_mapping.items() if one.outcome in names}
    types = {name for name in names if name not in campaign.event_mapping} | set(mapping)
    told = {kind: one.value for kind, one in mapping.items() if one.value is not None}
    chunks = reader.event_columns(
        campaign.workspace_id, campaign.campaign_id, since, until, types=types, properties_of=set(told)
    )
    for chunk in chunks:
        values = [np.nan if value is None else value for value in chunk.value]
        for row, (kind, properties) in enumerate(zip(chunk.type, chunk.properties, strict=True)):
            number = properties.get(told[kind]) if kind in told else None
            if isinstance(number, int | float) and not isinstance(number, bool) and np.isfinite(number):
                values[row] = float(number)
        yield chunk, [mapping[kind].outcome if kind in mapping else kind for kind in chunk.type], values


@dataclass(frozen=True)
class _Joined:
    """Events by what they name, ready to be looked up: m of them.

    A key is a decision's row, or n + a recipient's code: so an event of either kind lies in one order.
    """

    rows: int
    recipient: Ints
    key: Ints
    at: Ints
    value: Floats
    name: NDArray[np.int64]
    names: Mapping[str, int]

    @classmethod
    def of(
        cls,
        rows: Mapping[str, Ints],
        recipients: Mapping[str | None, int],
        chunks: Iterable[tuple[EventColumns, list[str], list[float]]],
    ) -> _Joined:
        """The events of these decisions."""
        n = rows["position"].size
        place = np.argsort(rows["position"])
        ordered = rows["position"][place]
        codes = _Codes()
        keys, times, values, names = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0, int)]
        for chunk, meant, worth in chunks:
            if chunk.position and chunk.position[0] is None:
                keys.append(n + np.array([recipients[one] for one in chunk.recipient], dtype=np.int64))
            else:
                keys.append(place[np.searchsorted(ordered, np.array(chunk.position, dtype=np.int64))])
            times.append(np.array(chunk.occurred, dtype=np.int64))
            values.append(np.array(worth))
            names.append(np.array([codes[one] for one in meant], dtype=np.int64))
        return cls(
            n,
            rows["recipient"],
            np.concatenate(keys),
            np.concatenate(times),
            np.concatenate(values),
            np.concatenate(names),
            {str(name): code for name, code in codes.items()},
        )

    def outcome(self, name: str, first: Ints, last: Ints, variant: Ints) -> Outcomes:
        """The outcome of each decision: its events with ``first <= at <= last``."""
        mine = self.name == self.names.get(name, NONE)
        key, at, value = self.key[mine], self.at[mine], self.value[mine]
        # Times as ranks: a key and a rank fit into one number, which one sort and two look-ups a decision serve.
        times, rank = np.unique(at, return_inverse=True)
        step = times.size + 1
        place = key * step + rank
        order = np.argsort(place, kind="stable")
        place = place[order]
        sums = np.concatenate(([0.0], np.cumsum(np.nan_to_num(value[order]))))
        from_rank, to_rank = np.searchsorted(times, first), np.searchsorted(times, last, side="right")
        happened, total = np.zeros(self.rows, np.int64), np.zeros(self.rows)
        own: list[Ints] = [np.arange(self.rows)]
        if name not in MESSAGE_OUTCOMES:
            own.append(self.rows + self.recipient)
        for keys in own:
            low = np.searchsorted(place, keys * step + from_rank)
            high = np.searchsorted(place, keys * step + to_rank)
            happened += np.maximum(high - low, 0)
            total += np.where(high > low, sums[high] - sums[low], 0.0)
        if name in MESSAGE_OUTCOMES:
            happened[variant == NONE] = 0
        return Outcomes(happened > 0, np.where(happened > 0, total, 0.0))
