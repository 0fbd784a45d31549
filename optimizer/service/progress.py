"""Whether a line of revisions has outgrown the gated policy that it came from: it predicts better what comes.

Every decision under a revision was made before its outcome was known to the model that made it, and to the gated
policy's own, older one. So once the outcome is final both are asked how likely it was, and the differences of their
log-likelihoods are what learning on has been worth (prequential: Dawid 1984). Their mean is bounded at all times
together (``bandit.sequences``), so it may be looked at with every refresh. What predicts clearly better than the model
that was judged needs no bound to stay near it: a campaign's first policy is judged by predictions, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from optimizer.bandit.clusters import Floats
from optimizer.bandit.rewards import max_window
from optimizer.bandit.sequences import half_width
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.service.feedback import Logged, judgeable
from optimizer.service.judging import likelihood_gain
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign

#: Decisions before the first statement.
LEAST_ROWS = 200
#: Chance that a line which predicts no better than its gated policy is ever said to, at all looks together. The bound
#: has two sides, each with half of it.
ERROR = 0.05
#: Of more decisions that became known at once the newest are asked about.
MOST_ROWS = 1_000


@dataclass(frozen=True)
class Progress:
    """How much better a line of revisions has predicted than its gated policy, so far.

    Attributes:
        rows: decisions counted. gain: sum of their gains in log-likelihood, in nats; squares: sum of the squares.
        until: when they were counted, in epoch seconds; seen: when the newest decision known then was made.
        better: whether the line was clearly better at one of these looks, and is so on the whole still.
    """

    rows: int = 0
    gain: float = 0.0
    squares: float = 0.0
    until: float = 0.0
    seen: float = 0.0
    better: bool = False

    @classmethod
    def of(cls, policy: Policy, pointer: Pointer) -> Progress:
        """What a served policy's verdict keeps of it; nothing that was before a person or a rollback put it back."""
        if pointer.moved_at > policy.created_at:
            return cls(until=pointer.moved_at.timestamp(), seen=pointer.moved_at.timestamp())
        told = policy.verdict.get("progress") if policy.revision else None
        return cls() if told is None else cls(**told)

    def lacks(self, row: Logged, now: datetime, window: float) -> bool:
        """Whether a decision that is final now was not when the others were counted; window in hours."""
        final_at = now.timestamp() - 3600.0 * (row.age - window)
        return row.decision.decided_at.timestamp() > self.seen or final_at > self.until

    def followed(self, gains: Floats, until: float, seen: float) -> Progress:
        """With what more decisions have gained."""
        rows = self.rows + gains.size
        gain, squares = self.gain + math.fsum(gains), self.squares + math.fsum(gains**2)
        better = _clear(rows, gain, squares) or (self.better and gain > 0.0)
        return Progress(rows, gain, squares, until, seen, better)


def _clear(rows: int, gain: float, squares: float) -> bool:
    """Whether the mean gain lies above 0, at any time."""
    if rows < LEAST_ROWS:
        return False
    mean = gain / rows
    variance = max(0.0, squares / rows - mean**2)
    return mean > float(half_width(np.array([variance]), np.array([float(rows)]), ERROR, LEAST_ROWS)[0])


def progressed(
    reader: Reader,
    campaign: Campaign,
    pointer: Pointer,
    line: Sequence[Policy],
    gated: LivePolicy,
    rows: Sequence[Logged],
    now: datetime,
) -> Progress:
    """What is known now. Of a canary's line nothing is: its shares are the gate's, and it is watched.

    Args:
        reader: for the models of the line's revisions; decisions of one that is gone are not counted.
        campaign: as it is now. pointer: what it serves.
        line: the served revision and those before it, newest first, the gated policy at last.
        gated: that policy with its models.
        rows: the campaign's, as known now.
        now: up to when they are known.
    """
    model = gated.models[-1]
    if len(gated.mixture) > 1 or model is None:
        return Progress()
    before = Progress.of(line[0], pointer)
    revisions = {policy.policy_id: policy for policy in line[:-1]}
    known = [r for r in judgeable(rows, campaign) if r.decision.policy_id in revisions and r.trainable]
    window = max_window(campaign)
    final = [r for r in known if r.matured and r.age >= window and before.lacks(r, now, window)]
    by_model: dict[str, list[Logged]] = {}
    for row in final[-MOST_ROWS:]:
        name = revisions[row.decision.policy_id].mixture[-1].artifact_id
        if name not in (None, gated.mixture[-1].artifact_id):
            by_model.setdefault(name, []).append(row)
    gains = _gains(reader, campaign, model, by_model)
    newest = max([before.seen, *(r.decision.decided_at.timestamp() for r in known)])
    return before.followed(gains, now.timestamp(), newest)


def _gains(reader: Reader, campaign: Campaign, gated: RewardModel, by_model: Mapping[str, Sequence[Logged]]) -> Floats:
    """How much likelier each decision's outcomes were to the model that made it than to the gated one, in nats."""
    found = [np.zeros(0)]
    for name, rows in by_model.items():
        stored = reader.artifact(campaign.workspace_id, name)
        gain = None if stored is None else likelihood_gain(rows, campaign, (gated, RewardModel.load(stored.blob)))
        if gain is not None:
            found.append(gain[np.isfinite(gain)])
    return np.concatenate(found)
