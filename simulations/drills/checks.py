"""What must hold after a race: nothing lost, every draw replayed, the actions in balance with their propensities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optimizer.bandit.balance import Balance, balance_test
from optimizer.bandit.exploration import draw_uniform, sample
from optimizer.service.evidence import subset_masses
from optimizer.service.replay import Replayer, plan_of
from storage.log import Decision
from storage.port import Reader

#: Largest difference allowed between a logged propensity and the recomputed one.
TOLERANCE = 1e-6
#: Family-wise error of the balance test: of so many honest races one fails by chance.
LEVEL = 0.001


@dataclass(frozen=True)
class Replayed:
    """How the log replays.

    ``largest_error``: between logged and recomputed propensities; ``other_draws``: decisions whose stored seed draws
    another action. ``balance`` is over all draws, ``redrawn_balance`` over those made again under the write lock.
    """

    drawn: int
    redrawn: int
    largest_error: float
    other_draws: int
    balance: Balance
    redrawn_balance: Balance

    @property
    def exact(self) -> bool:
        """Whether every propensity and every draw was recomputed."""
        return self.largest_error <= TOLERANCE and self.other_draws == 0


def lost(reader: Reader, workspace_id: str, answers: Iterable[Decision]) -> list[str]:
    """Ids of answered decisions that are not stored as they were answered (but for what became of them since)."""
    known = {d.decision_id: d for d in answers}
    stored: dict[str, Decision] = {}
    ids = sorted(known)
    for first in range(0, len(ids), 1000):
        stored |= reader.decisions_by_id(workspace_id, ids[first : first + 1000])
    return [ref for ref, answer in known.items() if not _same_choice(answer, stored.get(ref))]


def _same_choice(answer: Decision, stored: Decision | None) -> bool:
    if stored is None:
        return False
    as_answered = replace(
        stored,
        status=answer.status,
        claimed_at=answer.claimed_at,
        sent_at=answer.sent_at,
        provider=answer.provider,
        message_id=answer.message_id,
        closed_at=answer.closed_at,
        close_reason=answer.close_reason,
    )
    return as_answered == answer


def replayed(replayer: Replayer, decisions: Sequence[Decision], level: float = LEVEL) -> Replayed:
    """Recomputes every drawn decision and tests the balance of the draws.

    Args:
        replayer: on a snapshot that holds them.
        decisions: of any status: leaving out what was released would select by the action drawn.
        level: family-wise error of each balance test.
    """
    drawn = [d for d in decisions if d.action is not None and d.propensity is not None]
    again = [one.snapshot.attempt > 0 for one in drawn]
    found = [replay(replayer, one) for one in drawn]
    rows = [{name: (mass, hit) for name, mass, hit in one.masses} for one in found]
    redrawn = [row for row, redraw in zip(rows, again, strict=True) if redraw]
    return Replayed(
        drawn=len(drawn),
        redrawn=len(redrawn),
        largest_error=max((one.error for one in found), default=0.0),
        other_draws=sum(one.other_draw for one in found),
        balance=balance(rows, level),
        redrawn_balance=balance(redrawn, level),
    )


@dataclass(frozen=True, slots=True)
class Redone:
    """One draw, done again: the difference of its propensity, whether another action came out, and by subset of
    actions its probability and whether the logged action lies in it."""

    error: float
    other_draw: bool
    masses: list[tuple[str, float, bool]]


def replay(replayer: Replayer, decision: Decision) -> Redone:
    """Recomputes a decision that was drawn, from the log alone."""
    campaign, action = replayer.campaign(decision), decision.action
    if action is None:
        raise ValueError(f"{decision.decision_id} was withheld: nothing was drawn")
    made = plan_of(decision, campaign)
    vector = replayer.vector(decision)
    number = draw_uniform(replayer.salt, decision.decision_id, decision.snapshot.attempt)
    error = abs(float(vector[action]) - (decision.propensity or 0.0))
    return Redone(error, sample(vector, number) != action, subset_masses(made.space, vector, action))


def balance(rows: Sequence[dict[str, tuple[float, bool]]], level: float) -> Balance:
    """The balance test over each variant, channel and daypart and over not sending.

    No clusters: each draw is made by its own random number, independent of what came before given its probabilities,
    so the sum of p(1 − p) is the exact variance.
    """
    names = sorted({name for row in rows for name in row})
    expected = np.array([[row.get(name, (0.0, False))[0] for name in names] for row in rows])
    inside = np.array([[row.get(name, (0.0, False))[1] for name in names] for row in rows], dtype=bool)
    shape = (len(rows), len(names))
    return balance_test(inside.reshape(shape), expected.reshape(shape), names=names, level=level)
