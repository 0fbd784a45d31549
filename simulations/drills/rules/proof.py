"""What a run left behind, looked at slice by slice in several processes: figures, replayed draws, stored answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.balance import Balance, balance_test
from optimizer.service.replay import Replayer
from optimizer.service.wiring import SALT
from simulations.audit import Report, audit
from simulations.audit.scarce import limit_at, shared
from simulations.drills.checks import LEVEL, replay
from simulations.drills.rules.marks import fingerprint
from simulations.drills.scene import CHANNELS, VARIANTS, WORKSPACE
from storage.log import Decision
from storage.open import open_store
from storage.port import Reader
from storage.rules import Budget, Capacity

#: Subsets of actions whose counts are compared with their probabilities.
SUBSETS = (
    *(f"variant:{name}" for name in VARIANTS),
    *(f"channel:{name}" for name in CHANNELS),
    *(f"daypart:{i}" for i in range(4)),
    "no_send",
)
_PLACE = {name: i for i, name in enumerate(SUBSETS)}
_EVER = 10**12

Span = tuple[datetime | None, datetime | None]


@dataclass
class Part:
    """What a slice of the log shows.

    Attributes:
        statuses: decisions by status.
        masked: by rule, the decisions in which it masked something.
        reserved: how many decisions reserved a message.
        displacing: how many took the place of others.
        marks: fingerprints of all decisions.
        largest_error: between logged and recomputed propensities.
        other_draws: decisions whose stored seed draws another action.
        expected: (n, subsets) probability of each subset, by draw.
        inside: (n, subsets) whether the logged action lies in it.
        redrawn: (n,) whether the draw was made again under the write lock.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    reserved: int = 0
    displacing: int = 0
    marks: list[int] = field(default_factory=list)
    largest_error: float = 0.0
    other_draws: int = 0
    expected: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, len(SUBSETS))))
    inside: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, len(SUBSETS)), np.bool_))
    redrawn: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def count(self, decision: Decision) -> None:
        """Adds a decision to the figures."""
        self.statuses[decision.status] += 1
        self.masked.update({r.rule_id for r in decision.reasons if r.masked and not r.dry_run})
        self.reserved += decision.send_at is not None
        self.displacing += bool(decision.snapshot.displaced)
        self.marks.append(fingerprint(decision))


def looked_at(database: str, span: Span) -> Part:
    """Reads a slice of the log and replays every draw in it."""
    part = Part()
    rows: list[list[tuple[str, float, bool]]] = []
    redrawn: list[bool] = []
    store = open_store(database)
    try:
        with store.read() as reader:
            replayer = Replayer(reader, bytes.fromhex(reader.meta(SALT) or ""))
            for row in reader.feedback(WORKSPACE, since=span[0], until=span[1]):
                part.count(row.decision)
                if row.decision.action is not None:
                    redone = replay(replayer, row.decision)
                    part.largest_error = max(part.largest_error, redone.error)
                    part.other_draws += redone.other_draw
                    rows.append(redone.masses)
                    redrawn.append(row.decision.snapshot.attempt > 0)
    finally:
        store.close()
    part.expected, part.inside = _columns(rows)
    part.redrawn = np.array(redrawn, np.bool_)
    return part


def _columns(rows: Sequence[Sequence[tuple[str, float, bool]]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    expected = np.zeros((len(rows), len(SUBSETS)))
    inside = np.zeros((len(rows), len(SUBSETS)), np.bool_)
    for i, row in enumerate(rows):
        for name, mass, hit in row:
            expected[i, _PLACE[name]] = mass
            inside[i, _PLACE[name]] = hit
    return expected, inside


def audited(database: str) -> Report:
    """The audit of a run."""
    store = open_store(database)
    try:
        with store.read() as reader:
            return audit(reader, WORKSPACE)
    finally:
        store.close()


def together(parts: Sequence[Part]) -> Part:
    """The slices as one."""
    whole = Part()
    for part in parts:
        whole.statuses += part.statuses
        whole.masked += part.masked
        whole.reserved += part.reserved
        whole.displacing += part.displacing
        whole.marks += part.marks
        whole.largest_error = max(whole.largest_error, part.largest_error)
        whole.other_draws += part.other_draws
    whole.expected = np.concatenate([part.expected for part in parts])
    whole.inside = np.concatenate([part.inside for part in parts])
    whole.redrawn = np.concatenate([part.redrawn for part in parts])
    return whole


def balances(part: Part) -> tuple[Balance, Balance]:
    """The balance test over all draws, and over those made again."""
    whole = balance_test(part.inside, part.expected, names=SUBSETS, level=LEVEL)
    again = balance_test(part.inside[part.redrawn], part.expected[part.redrawn], names=SUBSETS, level=LEVEL)
    return whole, again


def ran_out(reader: Reader, dearest: int) -> Iterator[tuple[str, int]]:
    """Capacities and budgets, with how many periods of each ended with no room for the dearest message.

    Args:
        reader: a snapshot.
        dearest: what the dearest message costs, in micros.
    """
    for rule in reader.rules(WORKSPACE):
        parameters = rule.parameters
        if shared(rule) and isinstance(parameters, Capacity | Budget):
            own = dearest if isinstance(parameters, Budget) else 1
            used = reader.usage(WORKSPACE, [(rule.rule_id, -_EVER, _EVER)])
            yield rule.rule_id, sum(sum_ + own > limit_at(parameters, period) for (_, period), sum_ in used.items())


def unkept(answers: Sequence[int], stored: Sequence[int]) -> int:
    """How many answers are not stored as they were given."""
    return len(set(answers) - set(stored))
