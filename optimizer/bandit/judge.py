"""Judges a batch of questions of one shape: each kind of rule in its room, put together to masks and reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import blackout, consent, quiet, requires
from optimizer.bandit.blackout import NO_HOLIDAYS
from optimizer.bandit.capacity import BudgetRoom, CapacityRoom, cost_micros, limits
from optimizer.bandit.caps import Ledger
from optimizer.bandit.caps_alone import MANY, judge_alone
from optimizer.bandit.findings import Finding, reasons
from optimizer.bandit.localtime import DAY
from optimizer.bandit.periods import days_around
from optimizer.bandit.questions import Batch
from optimizer.bandit.rulebook import Clocked, Rulebook, Spending, rulebook
from optimizer.bandit.stretches import MICRO, NEVER, Blocked, SlotIndex, Times, following, never
from storage.log import Reason
from storage.rules import Blackout, Capacity, QuietHours, Rule
from storage.usage import Usage

#: (n,) rows and a closed slot of each -> (n,) microseconds since 1970 at which it opens, ``NEVER`` if not known.
Openings = Callable[[Times, Times], Times]
#: How many days after the last slot a reason of quiet hours or a blackout looks for an opening.
DAYS_BEYOND = 32


class Closed:
    """What is closed of N x V x S x C actions, kept by what it depends on until the mask is made."""

    def __init__(self, batch: Batch) -> None:
        rows, self._space = len(batch), batch.space
        #: (C, N, S)
        self.slots = np.zeros((len(self._space.channels), rows, self._space.slots), np.bool_)
        #: (N, V)
        self.variants: Blocked | None = None
        #: What each action costs (V, C), 0 where the budget doesn't bind, and what is left (N, S).
        self.budgets: list[tuple[Times, Times]] = []

    def by_slot(self, shut: Blocked, channels: Blocked) -> None:
        """Closes the slots that rules close (R, N, S), each on its channels (C, R, 1, 1)."""
        self.slots |= np.bitwise_or.reduce(shut & channels, axis=1)

    def actions(self) -> Blocked:
        """(N, V, S x C) bool."""
        channels, rows, slots = self.slots.shape
        flat = self.slots.transpose(1, 2, 0).reshape(rows, 1, slots * channels)
        closed = flat.repeat(len(self._space.variants), axis=1)
        if self.variants is not None:
            closed |= self.variants[:, :, None]
        for cost, left in self.budgets:
            whole = closed.reshape(rows, -1, slots, channels)
            whole |= (cost[:, None] > left[:, None, :, None]) & (cost[:, None] > 0)
        return closed

    def masks(self) -> NDArray[np.bool_]:
        """(N, K) bool, what is open."""
        rows = self.slots.shape[1]
        masks = np.ones((rows, self._space.size), np.bool_)
        np.logical_not(self.actions().reshape(rows, -1), out=masks[:, : self._space.messages])
        return masks


def judge(batch: Batch, rules: Sequence[Rule], usage: Usage) -> tuple[NDArray[np.bool_], list[tuple[Reason, ...]]]:
    """Masks (N, K) and reasons of N questions of one shape that have a message action."""
    closed = Closed(batch)
    book = rulebook(rules, batch.space.channels, batch.campaign)
    findings = [*_consent(batch, closed), *_requires(batch, closed)]
    found = _by_slot(book, batch, usage, closed) if book.slotwise else {}
    for one in book.budgets:
        found[one.rule.rule_id] = _budget(one, batch, usage, closed)
    findings += [found[rule_id] for rule_id in book.order if rule_id in found]
    return closed.masks(), reasons(findings, len(batch))


def closed_by_shared_limits(batch: Batch, rules: Sequence[Rule], usage: Usage) -> Blocked:
    """(N, V, S x C) what the capacity and budget rules that act close."""
    closed = Closed(batch)
    book = rulebook(rules, batch.space.channels, batch.campaign)
    for r, (rule, parameters) in enumerate(book.slotwise):
        if isinstance(parameters, Capacity):
            shut = CapacityRoom(rule.rule_id, parameters, batch.send_at, usage).closed
            closed.by_slot(shut[None], book.closes[:, r : r + 1])
    for one in book.budgets:
        if not one.rule.dry_run:
            left = BudgetRoom(one.rule.rule_id, one.budget, batch.send_at, usage).left
            closed.budgets.append((_bound_costs(batch, one.on), left))
    return closed.actions()


def _consent(batch: Batch, closed: Closed) -> list[Finding]:
    """Closes the channels that recipients did not agree to, or refused for the campaign's category."""
    channels, category = batch.space.channels, batch.campaign.category
    recipients = [question.recipient for question in batch.questions]
    findings = []
    for kind, refused in (
        ("consent", consent.not_agreed(recipients, channels)),
        ("suppression", consent.suppressed(recipients, channels, category)),
    ):
        if refused is not None:
            closed.slots |= refused.T[:, :, None]
            per_channel = len(batch.space.variants) * batch.space.slots
            masked = refused.sum(axis=1) * per_channel
            findings.append(Finding(kind, kind, masked, never(len(batch))))
    return findings


def _requires(batch: Batch, closed: Closed) -> list[Finding]:
    """Closes the variants whose requirements don't hold."""
    space, wanted = batch.space, {v.id: v.requires for v in batch.campaign.variants if v.requires}
    if wanted.keys().isdisjoint(space.variants):
        return []
    asked = [wanted.get(v, ()) for v in space.variants]
    rows = [[requires.opening(one, q.answers, q.now) if one else 0 for one in asked] for q in batch.questions]
    opens = np.array(rows, np.int64)
    closed.variants = opens > np.array([question.now * MICRO for question in batch.questions])[:, None]
    masked = closed.variants.sum(axis=1) * (space.slots * len(space.channels))
    first = np.where(closed.variants, opens, NEVER).min(axis=1)
    return [Finding("requires", "requires", masked, first)]


def _by_slot(book: Rulebook, batch: Batch, usage: Usage, closed: Closed) -> dict[str, Finding]:
    """Closes what depends on the slot alone, and finds what each rule masks, by rule id."""
    rows, capped = len(batch), len(book.caps.caps)
    shut = np.empty((len(book.slotwise), rows, batch.space.slots), np.bool_)
    zero: dict[int, Blocked] = {}  # where a limit is 0
    cap_opens = _caps(book, batch, shut, zero) if capped else None
    openings: dict[int, Openings] = {}
    for r, one in enumerate(book.slotwise[capped:], capped):
        openings[r] = _one_by_slot(one, batch, usage, shut[r])
        if isinstance(one.parameters, Capacity) and not any(limits(one.parameters)):
            zero[r] = np.ones(rows, np.bool_)
    counts, first = np.add.reduce(shut, axis=2, dtype=np.int64), shut.argmax(axis=2)
    masked = counts * (book.channels * len(batch.space.variants))[:, None]
    findings = {}
    for r, some in enumerate(np.add.reduce(counts, axis=1).tolist()):
        if not some:
            continue
        if cap_opens is not None and r < capped:
            opens = cap_opens[r]
        else:
            closed_rows = counts[r].nonzero()[0]
            opens = never(rows)
            opens[closed_rows] = openings[r](closed_rows, first[r, closed_rows])
        rule = book.slotwise[r].rule
        findings[rule.rule_id] = Finding(rule.rule_id, rule.kind, masked[r], opens, rule.dry_run, zero.get(r))
    closed.by_slot(shut, book.closes)
    return findings


def _caps(book: Rulebook, batch: Batch, shut: Blocked, zero: dict[int, Blocked]) -> Times:
    """Judges the R caps together: fills the first R of ``shut``, notes limits of 0 in ``zero``; (R, N) openings."""
    count = len(book.caps.caps)
    if len(batch) == 1 and len(batch.questions[0].messages) < MANY:
        one = batch.questions[0]
        openings, never = judge_alone(
            book.caps, one.unanswered, one.messages, batch.send_at[0], batch.where, shut[:count, 0]
        )
        zero.update({r: np.ones(1, np.bool_) for r, closed in enumerate(never) if closed})
        return np.array(openings)[:, None]
    ledger = Ledger.of([question.messages for question in batch.questions], kinds=book.caps.selective)
    slots = SlotIndex(batch.send_at, batch.where.earliest, batch.where.latest)
    unanswered = [question.unanswered for question in batch.questions]
    shut[:count], opens, closed = book.caps.judge(unanswered, ledger, slots, batch.where)
    if closed is not None:
        zero.update(enumerate(closed))
    return opens


def _one_by_slot(one: Clocked, batch: Batch, usage: Usage, shut: Blocked) -> Openings:
    """Fills (N, S) what a rule that is no cap closes; how to find when it opens."""
    parameters = one.parameters
    if isinstance(parameters, QuietHours):
        return _quiet(parameters, batch, shut)
    if isinstance(parameters, Blackout):
        return _blackout(parameters, batch, shut)
    if isinstance(parameters, Capacity):
        room = CapacityRoom(one.rule.rule_id, parameters, batch.send_at, usage)
        shut[...] = room.closed
        return room.openings
    raise TypeError(f"a cap is judged with the others: {one.rule.rule_id!r}")


def _quiet(hours: QuietHours, batch: Batch, shut: Blocked) -> Openings:
    zones = batch.where.zones
    shut[...] = quiet.blocked(hours, batch.local)
    return _by_clock(batch, batch.where.zone, lambda days: [quiet.openings(hours, zone, *days) for zone in zones])


def _blackout(parameters: Blackout, batch: Batch, shut: Blocked) -> Openings:
    calendars: dict[frozenset[int], int] = {}
    places: dict[tuple[int, frozenset[int]], int] = {}
    calendar, place = [], []
    for question, zone in zip(batch.questions, batch.where.zone.tolist(), strict=True):
        country = blackout.country_of(parameters, question.recipient)
        holidays = NO_HOLIDAYS if country is None else question.holidays.get(country, NO_HOLIDAYS)
        calendar.append(calendars.setdefault(holidays, len(calendars)))
        place.append(places.setdefault((zone, holidays), len(places)))
    days = [blackout.closed_days(parameters, holidays) for holidays in calendars]
    shut[...] = blackout.blocked(days, np.array(calendar), batch.local)
    zones = batch.where.zones

    def openings(within: tuple[int, int]) -> list[Times]:
        return [blackout.openings(parameters, holidays, zones[zone], *within) for zone, holidays in places]

    return _by_clock(batch, np.array(place), openings)


def _by_clock(batch: Batch, group: Times, openings: Callable[[tuple[int, int]], list[Times]]) -> Openings:
    """Finds the first opening of a question's group after a slot, at most 32 days after its last slot.

    ``openings``: those of each group, from one UTC day to another.
    """

    def found(rows: Times, slot: Times) -> Times:
        at, beyond = batch.send_at[rows, slot], batch.where.last[rows] + DAYS_BEYOND * DAY
        parts = openings(days_around(batch.where.earliest, batch.where.latest + DAYS_BEYOND * DAY))
        later = following(parts, group[rows], at)
        return np.where(later <= beyond, later * MICRO, NEVER)

    return found


def _bound_costs(batch: Batch, on: Sequence[bool]) -> Times:
    """(V, C) micros, 0 where the rule doesn't bind."""
    return np.where(on, cost_micros(batch.campaign, batch.space.variants, batch.space.channels), 0)


def _budget(one: Spending, batch: Batch, usage: Usage, closed: Closed) -> Finding:
    rule, costs = one.rule, _bound_costs(batch, one.on)
    spent = BudgetRoom(rule.rule_id, one.budget, batch.send_at, usage)
    masked, opens = spent.masked(np.sort(costs[costs > 0]))
    if not rule.dry_run and masked.any():
        closed.budgets.append((costs, spent.left))
    zero = None if any(limits(one.budget)) else np.ones(len(batch), np.bool_)
    return Finding(rule.rule_id, rule.kind, masked, opens, rule.dry_run, zero)
