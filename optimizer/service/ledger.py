"""A campaign's decisions as arrays, with what came of each: what a report is computed from.

No record is made of a decision or an event: the store gives columns, and outcomes are joined to decisions by sorting.
What counts for a decision is what ``bandit.rewards`` says; a test compares the two on random logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from optimizer.bandit.rewards import CLOCK_SKEW, HARMFUL, LARGEST_VALUE, MESSAGE_OUTCOMES
from optimizer.bandit.spoken import outcome_names, window_hours
from optimizer.service.logcolumns import (
    GROUPS,
    MODES,
    NONE,
    STATUSES,
    Arrays,
    Floats,
    Gathered,
    Ints,
    LogColumns,
    Mask,
    Meaning,
    Rule,
)
from storage.codec import to_micros
from storage.log import COUNTED
from storage.port import Reader
from storage.records import Campaign
from storage.rules import MICROS

__all__ = ["DAY", "GROUPS", "HOUR", "MODES", "NONE", "STATUSES", "Floats", "Ints", "Ledger", "Mask", "Outcomes"]

HOUR: Final = 3_600_000_000
DAY: Final = 24 * HOUR
_SKEW: Final = int(CLOCK_SKEW.total_seconds() * 1e6)
_EVER: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
_HELD: Final = np.array([status in COUNTED for status in STATUSES])


@dataclass(frozen=True)
class Outcomes:
    """One outcome of n decisions: whether it happened, and the sum of its values (0 where it has none).

    ``part`` is the sum of what is a decision's own of them: an event that names no decision counts for each in whose
    window it lies, but money is earned once. So its value is divided evenly over those of them that were live.
    ``named`` is how many events name the decision, ``shared`` its part of the number of those that name its recipient.
    """

    happened: Mask
    value: Floats
    part: Floats
    named: Ints
    shared: Floats

    def of(self, rows: Ints) -> Outcomes:
        """Those of some decisions."""
        return Outcomes(self.happened[rows], self.value[rows], self.part[rows], self.named[rows], self.shared[rows])


@dataclass(frozen=True)
class Ledger:
    """n decisions of one campaign as they stand now.

    Times are microseconds since 1970; codes are places in ``GROUPS``, ``STATUSES``, ``MODES``, ``variants``,
    ``channels``, with ``NONE`` for none.

    Attributes:
        recipient: (n,) code of the recipient, in [0, recipients).
        group, status, mode, version: (n,).
        decided: (n,). closes: (n,) when all attribution windows have passed, whatever was drawn.
        variant, channel: (n,). hour: (n,) local hour of the week at the planned send, else at the decision.
        reward: (n,) by the campaign's present objective. revenue: (n,) its part of the values of outcomes that pay by
            their value; negative of those that cost by it, refunds for instance.
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
    reasons: Mapping[Rule, tuple[int, int, int]]


def read_ledger(reader: Reader, campaign: Campaign, since: datetime, until: datetime) -> Ledger:
    """``ledger_of`` what the store holds now of the campaign: all of it, since money that came in a period may be in
    part of decisions before or after."""
    meaning = Meaning.of(campaign)
    # What is read here goes with this call, so its hashes need no secret.
    log = Gathered(b"", meaning)
    whole = (campaign.workspace_id, campaign.campaign_id, *_EVER)
    for decisions in reader.decision_columns(*whole):
        log.add_decisions(decisions)
    for events in reader.event_columns(*whole, types=meaning.types, properties_of=set(meaning.told)):
        log.add_events(events)
    return ledger_of(log.columns(), campaign, since, until)


def ledger_of(log: LogColumns, campaign: Campaign, since: datetime, until: datetime) -> Ledger:
    """The campaign's own decisions with ``since <= decided_at < until``.

    Outcomes are those that the campaign speaks of, and harms in any case; an open window's count so far.
    """
    rows, masked = _of_period(log, to_micros(since), to_micros(until))
    n = rows["decided"].size
    recipient = np.unique(rows["recipient"], return_inverse=True)[1]
    outcomes = _outcomes(log, rows, campaign)
    span = max(window_hours(campaign, name) for name in outcomes)
    cost, worths = _costs(campaign, log, rows), _worths(campaign, outcomes)
    return Ledger(
        variants=log.variants,
        channels=log.channels,
        recipient=recipient.astype(np.int64, copy=False),
        **{name: rows[name].astype(np.int64) for name in ("group", "status", "mode", "version", "decided")},
        closes=_latest(rows) + int(span * HOUR),
        **{name: rows[name].astype(np.int64) for name in ("variant", "channel", "hour")},
        reward=sum(worths, np.zeros(n)) - cost,
        revenue=_revenue(campaign, outcomes, n),
        cost=cost,
        outcomes=outcomes,
        worth=sum((np.abs(one) for one in worths), np.zeros(n)),
        reasons=_reasons(log, rows, masked),
    )


def _of_period(log: LogColumns, since: int, until: int) -> tuple[Arrays, Arrays]:
    """The decisions of a period, and what rules masked of them."""
    decided = log.decisions["decided"]
    chosen = (decided >= since) & (decided < until)
    if chosen.all():
        return log.decisions, log.masked
    rows = {name: column[chosen] for name, column in log.decisions.items()}
    mine = np.isin(log.masked["position"], rows["position"])
    return rows, {name: column[mine] for name, column in log.masked.items()}


def _outcomes(log: LogColumns, rows: Arrays, campaign: Campaign) -> dict[str, Outcomes]:
    """The outcomes of the decisions of a period, by name.

    All that an event can count for are looked at, before and after the period, too: what came of a share of it in one
    period isn't earned once more in the next.
    """
    names = sorted({*outcome_names(campaign), *HARMFUL})
    beside = _beside(log, rows, int(max(window_hours(campaign, name) for name in names) * HOUR))
    hashes, recipient = np.unique(beside["recipient"], return_inverse=True)
    joined = _Joined.of(log, beside["position"], hashes)
    starts, latest, live = _starts(beside), _latest(beside), beside["mode"] == MODES.index("live")
    mine = np.searchsorted(beside["position"], rows["position"])
    found = {}
    for name in names:
        start = starts if name in MESSAGE_OUTCOMES else latest
        window = _Windows(beside["decided"], start + int(window_hours(campaign, name) * HOUR), recipient, live)
        found[name] = joined.outcome(name, window, beside["variant"] != NONE).of(mine)
    return found


def _beside(log: LogColumns, rows: Arrays, span: int) -> Arrays:
    """These decisions and those whose windows, of at most ``span``, can hold an event that lies in one of theirs."""
    every = log.decisions
    if rows["decided"].size in (0, every["decided"].size):
        return rows
    first, last = int(rows["decided"].min()), int(_latest(rows).max()) + span
    near = (_latest(every) + span >= first) & (every["decided"] <= last)
    return {name: column[near] for name, column in every.items()}


def _latest(rows: Arrays) -> Ints:
    """When the last possible send was."""
    latest: Ints = np.maximum(rows["latest"], rows["decided"])
    return latest


def _reasons(log: LogColumns, rows: Arrays, masked: Arrays) -> dict[Rule, tuple[int, int, int]]:
    size = len(log.rules)
    withheld = rows["status"][np.searchsorted(rows["position"], masked["position"])] == STATUSES.index("withheld")
    told = np.bincount(masked["rule"], minlength=size)
    held = np.bincount(masked["rule"][withheld], minlength=size)
    taken = np.zeros(size, np.int64)
    np.add.at(taken, masked["rule"], masked["masked"])
    return {rule: (int(told[k]), int(held[k]), int(taken[k])) for k, rule in enumerate(log.rules) if told[k]}


def _starts(rows: Arrays) -> Ints:
    """When attribution windows of messages start, as ``rewards.clock_start`` says."""
    sent = np.where(rows["sent"] == NONE, rows["planned"], np.maximum(rows["sent"], rows["decided"]))
    starts: Ints = np.where((rows["variant"] == NONE) | (sent == NONE), rows["decided"], sent)
    return starts


def _costs(campaign: Campaign, log: LogColumns, rows: Arrays) -> Floats:
    """What each message costs, as ``rewards.reward`` says."""
    variants = {variant.id: variant.cost for variant in campaign.variants}
    channels = {channel.id: channel.cost for channel in campaign.channels}
    now = sum(
        np.array([*(costs.get(name, np.nan) for name in names), np.nan])[rows[kind]]
        for kind, costs, names in (("variant", variants, log.variants), ("channel", channels, log.channels))
    )
    paid = _HELD[rows["status"]] & (rows["variant"] != NONE)
    cost: Floats = np.where(paid, np.where(np.isnan(now), rows["cost"] / MICROS, now), 0.0)
    return cost


def _worths(campaign: Campaign, outcomes: Mapping[str, Outcomes]) -> list[Floats]:
    """What each outcome of the objective was worth, (n,) each."""
    worths = []
    for name, weight in campaign.objective.items():
        value = np.clip(outcomes[name].value, *weight.bounds)
        worths.append(np.where(outcomes[name].happened, weight.fixed + weight.per_value * value, 0.0))
    return worths


def _revenue(campaign: Campaign, outcomes: Mapping[str, Outcomes], n: int) -> Floats:
    signs = {name: np.sign(weight.per_value) for name, weight in campaign.objective.items() if weight.per_value}
    return sum((sign * outcomes[name].part for name, sign in signs.items()), np.zeros(n))


@dataclass(frozen=True)
class _Windows:
    """When events count for each of n decisions: from ``first`` to ``last``, both included; whose they are, and which
    were ``live``."""

    first: Ints
    last: Ints
    recipient: Ints
    live: Mask


@dataclass(frozen=True)
class _Joined:
    """Events of n decisions and of their recipients, by what they name.

    Attributes:
        key: (m,) the decision's row where ``named``, else the recipient's code.
        named: (m,). at, value: (m,). outcome: (m,) code, a place in ``outcomes``.
    """

    key: Ints
    named: Mask
    at: Ints
    value: Floats
    outcome_code: Ints
    outcomes: tuple[str, ...]

    @classmethod
    def of(cls, log: LogColumns, positions: Ints, hashes: Ints) -> _Joined:
        """Those of these decisions; ``positions`` and the recipients' ``hashes`` ascend."""
        events = log.events
        named = events["position"] != NONE
        key = np.zeros(named.size, np.int64)
        known = np.zeros(named.size, np.bool_)
        for mine, wanted, among in ((named, "position", positions), (~named, "recipient", hashes)):
            if among.size:
                place = np.minimum(np.searchsorted(among, events[wanted][mine]), among.size - 1)
                key[mine], known[mine] = place, among[place] == events[wanted][mine]
        value = np.clip(np.nan_to_num(events["value"][known]), -LARGEST_VALUE, LARGEST_VALUE)
        return cls(key[known], named[known], events["at"][known], value, events["outcome"][known], log.outcomes)

    def outcome(self, name: str, windows: _Windows, message: Mask) -> Outcomes:
        """The outcome of each decision; ``message`` says which of them are one."""
        n = message.size
        mine = self.outcome_code == (self.outcomes.index(name) if name in self.outcomes else NONE)
        of_decision = mine & self.named
        key, at = self.key[of_decision], self.at[of_decision]
        inside = (at >= windows.first[key] - _SKEW) & (at <= windows.last[key])
        named = np.bincount(key[inside], minlength=n)
        happened, shared = named.copy(), np.zeros(n)
        total = np.bincount(key[inside], weights=self.value[of_decision][inside], minlength=n).astype(np.float64)
        part = total.copy()
        if name in MESSAGE_OUTCOMES:
            happened[~message] = 0
        else:
            of_recipient = mine & ~self.named
            who, at, value = self.key[of_recipient], self.at[of_recipient], self.value[of_recipient]
            found = _stabbed(who, at, value, windows)
            happened[found.rows] += found.events
            total[found.rows] += found.value
            part[found.rows] += found.part
            shared[found.rows] = found.share
        some = happened > 0
        return Outcomes(some, np.where(some, total, 0.0), np.where(some, part, 0.0), named, shared)


@dataclass(frozen=True)
class _Stabbed:
    """``rows`` of decisions and what of events that name their recipients lies in the window of each: how many events,
    the sum of their values, and the decision's part of that sum and of that number."""

    rows: Ints
    events: Ints
    value: Floats
    part: Floats
    share: Floats


def _stabbed(who: Ints, at: Ints, value: Floats, windows: _Windows) -> _Stabbed:
    """What events that name a recipient are for the decisions of these recipients.

    However many decisions and events a recipient has, one sort and two look-ups a decision do.
    """
    has_some = np.zeros(int(windows.recipient.max(initial=-1)) + 1, np.bool_)
    has_some[who] = True
    rows = np.flatnonzero(has_some[windows.recipient])
    # Times as ranks: a recipient and a rank fit into one number.
    times, rank = np.unique(at, return_inverse=True)
    step = times.size + 1
    place = who * step + rank
    order = np.argsort(place, kind="stable")
    place, value = place[order], value[order]
    base = windows.recipient[rows] * step
    first = base + np.searchsorted(times, windows.first[rows])
    last = np.maximum(first, base + np.searchsorted(times, windows.last[rows], side="right"))
    live = windows.live[rows]
    # Live windows that have begun by an event, less those that are over: each recipient's lie within its own numbers.
    begun, over = (np.searchsorted(np.sort(ends[live]), place, side="right") for ends in (first, last))
    over_how_many = np.maximum(begun - over, 1)
    low, high = np.searchsorted(place, first), np.searchsorted(place, last)
    part, share = (
        np.where(live, _between(one / over_how_many, low, high), 0.0) for one in (value, np.ones(value.size))
    )
    return _Stabbed(rows, high - low, _between(value, low, high), part, share)


def _between(value: Floats, low: Ints, high: Ints) -> Floats:
    """Sums of the values from each ``low`` up to its ``high``; none are exactly 0."""
    sums = np.concatenate(([0.0], np.cumsum(value)))
    found: Floats = np.where(high > low, sums[high] - sums[low], 0.0)
    return found
