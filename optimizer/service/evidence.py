"""What the gate judges by: logged rows, replayed under the incumbent and the candidate.

Everything is computed by the code that decides (``choose``, ``model.policy``), so a policy is judged as it would act.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import DAYPARTS, ActionSpace, Spaces
from optimizer.bandit.evidence import replay_error
from optimizer.model.inference import RewardModel
from optimizer.model.moment import seen_at
from optimizer.model.policy import BLOCK, Asked, LivePolicy, distribution
from optimizer.service.choose import Plan, Situation, asked
from optimizer.service.feedback import Logged
from optimizer.service.replay import Past, Replayer, alike, plan_of, situation_of, space_logged, vectors
from storage.log import Decision
from storage.records import Campaign

Floats = NDArray[np.float64]

#: How many rows are replayed to check the logged propensities and the balance of the log.
INTEGRITY_ROWS = 5000


@dataclass(frozen=True)
class Replayed:
    """How well the log replays: recomputed against logged propensities, and draws against their probabilities.

    Attributes:
        largest_error: between recomputed and logged propensities, see ``replay_error``.
        checked: rows checked; imported rows are not.
        names: (S,) names of the subsets of actions.
        drawn: (n, S) bool, whether the drawn action lies in the subset.
        expected: (n, S) the subset's probability.
        cluster: (n,) recipients.
    """

    largest_error: float
    checked: int
    names: tuple[str, ...]
    drawn: NDArray[np.bool_]
    expected: Floats
    cluster: NDArray[np.int64]


@dataclass(frozen=True)
class Paired:
    """Evaluation rows under both policies, (n,) each; ``outcome`` and ``predicted`` per outcome.

    ``q_logged`` is the cross-fitted reward of the logged action, ``value_*`` its mean under a policy.
    """

    reward: Floats
    propensity: Floats
    p_incumbent: Floats
    p_candidate: Floats
    q_logged: Floats
    value_incumbent: Floats
    value_candidate: Floats
    cluster: NDArray[np.int64]
    outcome: dict[str, Floats]
    predicted: dict[str, Floats]


def clusters(rows: Sequence[Logged]) -> NDArray[np.int64]:
    """(n,) a number for each row's recipient."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(r.decision.recipient_id, len(numbers)) for r in rows], dtype=np.int64)


def check_integrity(replayer: Replayer, rows: Sequence[Logged]) -> Replayed:
    """Replays up to ``INTEGRITY_ROWS`` of the newest rows that this service drew itself, whatever became of them."""
    own = [r for r in rows if r.drawn and not r.decision.imported][-INTEGRITY_ROWS:]
    factors = ((r.decision.snapshot.variants, r.decision.snapshot.channels) for r in own)
    names = sorted({name for variants, channels in factors for name in factor_names(variants, channels)})
    place = {name: i for i, name in enumerate(names)}
    drawn = np.zeros((len(own), len(names)), dtype=np.bool_)
    expected = np.zeros((len(own), len(names)))
    errors = []
    logged = [row.decision for row in own]
    for i, (decision, vector) in enumerate(zip(logged, vectors(replayer, logged), strict=True)):
        if decision.action is None or decision.propensity is None:
            continue
        errors.append(abs(float(vector[decision.action]) - decision.propensity))
        space = plan_of(decision, replayer.campaign(decision)).space
        for name, mass, hit in subset_masses(space, vector, decision.action):
            if name in place:
                expected[i, place[name]] = mass
                drawn[i, place[name]] = hit
    return Replayed(replay_error(errors, len(errors)), len(own), tuple(names), drawn, expected, clusters(own))


def factor_names(variants: Sequence[str], channels: Sequence[str]) -> list[str]:
    """The names of ``subset_masses``."""
    return [
        *(f"variant:{v}" for v in variants),
        *(f"channel:{c}" for c in channels),
        *(f"daypart:{d}" for d in range(DAYPARTS)),
        "no_send",
    ]


def subset_masses(space: ActionSpace, vector: Floats, action: int) -> list[tuple[str, float, bool]]:
    """Of each variant, channel, daypart and ``no_send``: its probability, and whether ``action`` lies in it."""
    names, inside = _subsets(space.variants, space.channels, tuple(space.dayparts.tolist()), space.no_send)
    return list(zip(names, (vector @ inside).tolist(), (inside[action] > 0.0).tolist(), strict=True))


@lru_cache(512)
def _subsets(
    variants: tuple[str, ...], channels: tuple[str, ...], dayparts: tuple[int, ...], no_send: bool
) -> tuple[list[str], Floats]:
    """The J subsets of an action space by name, and (K, J) whether an action lies in each, 1 or 0."""
    v, s, c = np.indices((len(variants), len(dayparts), len(channels))).reshape(3, -1)
    parts = [np.eye(len(variants))[v], np.eye(len(channels))[c], np.eye(DAYPARTS)[np.array(dayparts)[s]]]
    inside = np.concatenate(parts, axis=1)
    names = factor_names(variants, channels)
    if not no_send:
        return names[:-1], inside
    width = inside.shape[1]
    return names, np.block([[inside, np.zeros((len(inside), 1))], [np.zeros((1, width)), np.ones((1, 1))]])


def pair(
    replayer: Replayer,
    rows: Sequence[Logged],
    campaign: Campaign,
    incumbent: LivePolicy,
    candidate: LivePolicy,
    reward_model: Callable[[Logged], RewardModel],
) -> Paired:
    """Replays evaluation rows under both policies.

    Args:
        replayer: for the campaigns' earlier versions.
        rows: evaluable and judgeable rows (``feedback``) that the candidate was not trained on.
        campaign: the campaign as it is now: what a policy would do and earn now is what is judged.
        incumbent: the policy that serves.
        candidate: the policy that would.
        reward_model: for each row a model that was not fitted on its recipient (cross-fitting).
    """
    n = len(rows)
    columns = {name: np.zeros(n) for name in ("reward", "p_b", "p_inc", "p_cand", "q", "v_inc", "v_cand")}
    names = sorted({kind for r in rows for kind in r.outcomes})
    judged = candidate.models[-1]
    predicted = {k: np.full(n, np.nan) for k in names}
    for i, row in enumerate(rows):
        decision = row.decision
        made = plan_of(decision, replayer.campaign(decision))
        s = situation_of(decision, campaign)
        inc, cand = (_vector(p, s, made.space, made.mask) for p in (incumbent, candidate))
        model = reward_model(row)
        q = _scores(model, s, made.space)[0]
        action = decision.action if decision.action is not None else 0
        columns["reward"][i], columns["p_b"][i] = row.reward, decision.propensity or 0.0
        columns["p_inc"][i], columns["p_cand"][i] = inc[action], cand[action]
        columns["q"][i], columns["v_inc"][i], columns["v_cand"][i] = q[action], inc @ q, cand @ q
        if judged is not None:
            for kind, chance in _scores(judged, s, made.space)[1].items():
                if kind in predicted:
                    predicted[kind][i] = chance[action]
    return Paired(
        reward=columns["reward"],
        propensity=columns["p_b"],
        p_incumbent=columns["p_inc"],
        p_candidate=columns["p_cand"],
        q_logged=columns["q"],
        value_incumbent=columns["v_inc"],
        value_candidate=columns["v_cand"],
        cluster=clusters(rows),
        outcome={k: np.array([known_outcome(r, k) for r in rows]) for k in names},
        predicted=predicted,
    )


@dataclass(frozen=True)
class Weighed:
    """Evaluation rows under several policies, (n,) each: of each the chance of the logged action and the mean of q̂."""

    reward: Floats
    propensity: Floats
    q_logged: Floats
    cluster: NDArray[np.int64]
    probability: dict[str, Floats]
    value: dict[str, Floats]


#: What a policy would draw from on a logged row: its vector (K,).
Target = Callable[[Logged, Situation, Plan], Floats]


def weigh(
    replayer: Replayer,
    rows: Sequence[Logged],
    campaign: Campaign,
    targets: Mapping[str, Target],
    reward_model: Callable[[Logged], RewardModel],
) -> Weighed:
    """Replays evaluation rows under any number of policies; see ``pair`` for the arguments."""
    n = len(rows)
    reward, propensity, q_logged = np.zeros(n), np.zeros(n), np.zeros(n)
    probability = {name: np.zeros(n) for name in targets}
    value = {name: np.zeros(n) for name in targets}
    for i, row in enumerate(rows):
        decision = row.decision
        made = plan_of(decision, replayer.campaign(decision))
        s = situation_of(decision, campaign)
        q = _scores(reward_model(row), s, made.space)[0]
        action = decision.action if decision.action is not None else 0
        reward[i], propensity[i], q_logged[i] = row.reward, decision.propensity or 0.0, q[action]
        for name, target in targets.items():
            vector = target(row, s, made)
            probability[name][i], value[name][i] = vector[action], vector @ q
    return Weighed(reward, propensity, q_logged, clusters(rows), probability, value)


def policy_probability(
    replayer: Replayer, rows: Sequence[Logged], campaign: Campaign, policy_of: Callable[[Logged], LivePolicy]
) -> Floats:
    """(n,) probability of each logged action under the policy of its row."""
    chances = np.zeros(len(rows))
    for i, row in enumerate(rows):
        made = plan_of(row.decision, replayer.campaign(row.decision))
        s = situation_of(row.decision, campaign)
        if row.decision.action is not None:
            chances[i] = _vector(policy_of(row), s, made.space, made.mask)[row.decision.action]
    return chances


def vector_of(live: LivePolicy, s: Situation, made: Plan) -> Floats:
    """(K,) what a policy would have drawn from in a logged situation, by the rules of draws of that time."""
    return distribution(live, s.campaign, asked(s, made)).probability


def newest_and_rest(live: LivePolicy) -> tuple[LivePolicy, LivePolicy]:
    """A mixture's newest component, and the mixture of the others, as policies of their own.

    Raises:
        ValueError: the policy has only one component.
    """
    if len(live.mixture) < 2:
        raise ValueError(f"policy {live.policy_id} has one component, so nothing to compare it with")
    *others, newest = live.mixture
    held = sum(c.weight for c in others)
    rest = tuple(replace(c, weight=c.weight / held) for c in others)
    return (
        replace(live, mixture=(replace(newest, weight=1.0),), models=live.models[-1:]),
        replace(live, mixture=rest, models=live.models[:-1]),
    )


def predicted_rewards(live: LivePolicy, s: Situation, made: Plan) -> Floats:
    """(K,) rewards as the policy's heaviest model predicts them; 0 where it has none."""
    model = live.heaviest_model
    return np.zeros(made.space.size) if model is None else _scores(model, s, made.space)[0]


def predicted_outcomes(past: Past, decisions: Sequence[Decision]) -> list[dict[str, float]]:
    """The chance of each outcome of each decision's action, as the heaviest model of the policy that drew it predicts
    it; empty where it has none."""
    told: list[dict[str, float]] = [{} for _ in decisions]
    for places, campaign, live in alike(past, decisions):
        model = live.heaviest_model
        if model is None:
            continue
        by_kind: dict[Hashable, list[tuple[int, ActionSpace]]] = {}
        for i in places:
            space = space_logged(decisions[i], campaign)
            by_kind.setdefault(space.kind, []).append((i, space))
        for same in by_kind.values():
            height = max(1, BLOCK // same[0][1].size)
            for start in range(0, len(same), height):
                some = same[start : start + height]
                rows = [decisions[i] for i, _ in some]
                x = model.embed([seen_at(d.snapshot.context, d.decided_at) for d in rows])
                effects = [d.snapshot.effects for d in rows]
                scored = model.score_rows(x, Spaces.stacked([space for _, space in some]), campaign, effects)
                for name in model.outcomes:
                    chance = scored.chances.of(name)
                    if chance is not None:
                        for (i, _), d, own in zip(some, rows, chance, strict=True):
                            told[i][name] = float(own[d.action or 0])
    return told


def _vector(live: LivePolicy, s: Situation, space: ActionSpace, mask: NDArray[np.bool_]) -> Floats:
    """(K,) what a policy would draw from now in a logged situation."""
    return distribution(live, s.campaign, Asked(space, mask, s.seen, s.effects, s.limits)).probability


def _scores(model: RewardModel, s: Situation, space: ActionSpace) -> tuple[Floats, dict[str, Floats]]:
    scores = model.score(model.embed([s.seen])[0], space, s.campaign, s.effects)
    return scores.reward, dict(scores.outcome)


def known_outcome(row: Logged, kind: str) -> float:
    """1 or 0 where the action was carried out and the outcome is certain; NaN elsewhere, where nothing is tested."""
    outcome = row.outcomes.get(kind)
    known = outcome is not None and outcome.matured and row.trainable
    return float(outcome.happened) if outcome is not None and known else float("nan")
