"""Whether a line of revisions has outgrown the gated policy that it came from: it predicts better what comes.

Every decision under a revision was made before its outcome was known to the model that made it, and to the gated
policy's own, older one. So once the outcome is final both are asked how likely it was, and the differences of their
log-likelihoods are what learning on has been worth (prequential: Dawid 1984). Counted are the outcomes of worth and the
looks that come before them, as for a campaign's first policy. Their mean is bounded at all looks together
(``bandit.sequences``), so it may be looked at with every refresh. What predicts clearly better than the model that was
judged needs no bound to stay near it, as long as the newest decisions don't say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from zlib import crc32

import numpy as np

from optimizer.bandit.clusters import Floats
from optimizer.bandit.rewards import planned_end
from optimizer.bandit.sequences import half_width
from optimizer.model.funnel import AFTER
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.service.feedback import Logged, judgeable, people
from optimizer.service.judging import likelihood_gain, rewarded
from optimizer.service.runs import LEAST_RECIPIENTS
from optimizer.service.served import Served, members
from optimizer.service.stakes import asked_of
from storage.log import Decision
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, JsonObject

#: Decisions before the first statement, and how many of them must have brought something: a log without any outcome
#: is likelier to whatever expects less.
LEAST_ROWS, LEAST_REWARDED = 200, 30
#: Chance (in the limit of many decisions) that a line which predicts no better than its gated policy is ever said to,
#: at all looks together. The bound has two sides, each with half of it.
ERROR = 0.05
#: Decisions after which what they told is worth half beside newer ones.
HALF_LIFE = 1_000.0
#: Of more decisions that became final between two looks so many are asked about, whenever they were made, and of so
#: many models.
MOST_ROWS, MOST_MODELS = 1_000, 50


@dataclass(frozen=True)
class Progress:
    """How much better a line of revisions has predicted than its gated policy, so far.

    Attributes:
        gated: that policy. asked: what the campaign asks (``stakes.asked_of``); with another of them all begins anew.
        since: only decisions made after this count; seen: when the newest one that was known at the last look was
            made; until: when that look was. All in epoch seconds.
        rows: decisions counted, those of one person at one look as one. rewarded: how many brought something.
        gain: sum of their gains in log-likelihood, in nats; squares: sum of the squares; recent: the sum with older
            ones fading.
        better: whether the line was clearly better at one of these looks, and the newest decisions don't deny it.
    """

    gated: str
    asked: str
    since: float
    seen: float
    until: float
    rows: int = 0
    rewarded: int = 0
    gain: float = 0.0
    squares: float = 0.0
    recent: float = 0.0
    better: bool = False

    @classmethod
    def from_json(cls, told: JsonObject) -> Progress | None:
        """What ``to_json`` wrote; None where another version wrote it."""
        names = {field.name for field in fields(cls)}
        return cls(**told) if told.keys() == names else None

    def to_json(self) -> JsonObject:
        """For a revision's verdict; ``from_json`` gives an equal one."""
        return asdict(self)

    def lacks(self, decision: Decision, final: datetime, at: datetime) -> bool:
        """Whether a decision whose outcomes are final then is so at that time, has not been counted, and is to be."""
        made, final_at = decision.decided_at.timestamp(), final.timestamp()
        return made > self.since and final_at <= at.timestamp() and (made > self.seen or final_at > self.until)

    def followed(self, gains: Floats, brought: int) -> Progress:
        """With what more decisions have gained, (n,), and how many of them brought something."""
        rows, some = self.rows + gains.size, self.rewarded + brought
        gain, squares = self.gain + math.fsum(gains), self.squares + math.fsum(gains**2)
        recent = self.recent * 0.5 ** (gains.size / HALF_LIFE) + math.fsum(gains)
        clear = some >= LEAST_REWARDED and _clear(rows, gain, squares)
        better = (clear or self.better) and recent > 0.0
        return replace(self, rows=rows, rewarded=some, gain=gain, squares=squares, recent=recent, better=better)


def _clear(rows: int, gain: float, squares: float) -> bool:
    """Whether the mean gain lies above 0, at any time."""
    if rows < LEAST_ROWS:
        return False
    mean = gain / rows
    variance = max(0.0, squares / rows - mean**2)
    return mean > float(half_width(np.array([variance]), np.array([float(rows)]), ERROR, LEAST_ROWS)[0])


def counted_until(policy: Policy) -> float | None:
    """When it was last looked at how a policy's line has predicted, in epoch seconds; None where that isn't asked."""
    progress = _told(policy)
    return None if progress is None else progress.until


def freed(policy: Policy) -> bool:
    """Whether a revision's line was shown to predict better than its gated policy: nothing keeps it near that."""
    progress = _told(policy)
    return progress is not None and progress.better


def _told(policy: Policy) -> Progress | None:
    told = policy.verdict.get("progress")
    return None if told is None else Progress.from_json(told)


def progressed(
    reader: Reader,
    campaign: Campaign,
    pointer: Pointer,
    served: Served,
    gated: LivePolicy,
    rows: Sequence[Logged],
    at: datetime,
) -> Progress | None:
    """What is known now; None of a canary's line: its shares are the gate's, and it is watched.

    It begins anew with a line, when a person or a rollback has put the policy back, and when the campaign asks for
    something else.

    Args:
        reader: for the models of the line's revisions; decisions of one that is gone are not counted.
        campaign: as it is now. pointer, served: what it serves.
        gated: the policy that this line started from, with its models.
        rows: the campaign's, as known at that time. at: when.
    """
    model = gated.models[-1]
    if len(gated.mixture) > 1 or model is None:
        return None
    moment, asked = at.timestamp(), asked_of(campaign)
    newest = max((row.decision.decided_at.timestamp() for row in rows), default=0.0)
    before = None if pointer.moved_at > served.policy.created_at else _told(served.policy)
    if before is None or (before.gated, before.asked) != (gated.policy_id, asked):
        return Progress(gated.policy_id, asked, newest, newest, moment)
    since = [row for row in rows if row.decision.decided_at.timestamp() > before.since]
    models = {p.policy_id: p.mixture[-1].artifact_id for p in members(reader, served.gated, since)}
    own = {None, gated.mixture[-1].artifact_id}
    known = [r for r in judgeable(since, campaign) if r.trainable and models.get(r.decision.policy_id) not in own]
    if people(known) < LEAST_RECIPIENTS:
        return replace(before, seen=max(before.seen, newest), until=max(before.until, moment))
    final = [r for r in known if r.matured and before.lacks(r.decision, planned_end(campaign, r.decision), at)]
    gains, counted = _gains(reader, campaign, model, models, _some(final))
    after = before.followed(gains, int(np.count_nonzero(rewarded(campaign, counted))))
    return replace(after, seen=max(before.seen, newest), until=max(before.until, moment))


def _some(rows: Sequence[Logged]) -> list[Logged]:
    """At most ``MOST_ROWS`` of them, by a hash of their ids: the newest would be those that went out soonest."""
    drawn = sorted(range(len(rows)), key=lambda i: crc32(rows[i].decision.decision_id.encode()))[:MOST_ROWS]
    return [rows[i] for i in sorted(drawn)]


def _gains(
    reader: Reader,
    campaign: Campaign,
    gated: RewardModel,
    models: Mapping[str, str | None],
    rows: Sequence[Logged],
) -> tuple[Floats, list[Logged]]:
    """How much likelier outcomes were to the models that made the decisions than to the gated one.

    Returns:
        (n,) nats, summed by recipient, and the decisions that they are of.
    """
    by_model: dict[str, list[Logged]] = {}
    for row in reversed(rows):
        name = models[row.decision.policy_id]
        if name is not None and (name in by_model or len(by_model) < MOST_MODELS):
            by_model.setdefault(name, []).append(row)
    kinds = {*campaign.objective, *(AFTER[kind] for kind in campaign.objective if kind in AFTER)}
    sums: dict[str, float] = {}
    counted: list[Logged] = []
    for name, some in by_model.items():
        stored = reader.artifact(campaign.workspace_id, name)
        pair = None if stored is None else (gated, RewardModel.load(stored.blob))
        gain = None if pair is None else likelihood_gain(some, campaign, pair, kinds)
        if gain is None:
            continue
        for row, nats in zip(some, gain.tolist(), strict=True):
            if math.isfinite(nats):
                sums[row.decision.recipient_id] = sums.get(row.decision.recipient_id, 0.0) + nats
                counted.append(row)
    return np.array(list(sums.values()), dtype=np.float64), counted
