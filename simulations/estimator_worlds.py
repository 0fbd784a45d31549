"""Where what policies earn is known exactly, so that off-policy estimates of it can be held to the truth.

A pool of people, each with a few decisions to take, of which every chance is known. Logs are drawn from it: people with
replacement, actions by the incumbent, outcomes by the truth. So recipients are independent, and what a policy is worth
is a mean over the pool. The policies and the reward models are the service's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace, Spaces
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.moment import seen_at
from optimizer.model.policy import Asked, LivePolicy, distributions
from simulations.game import Game
from simulations.scenarios import scenario
from simulations.world.memory import Memory
from simulations.world.spec import WorldSpec
from storage.policies import Component
from storage.records import Attribute, Campaign

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Decisions of a person; people of a pool.
EACH, PEOPLE = 5, 1_000
#: Uniformly drawn decisions that the incumbent was trained on: as few as a campaign's first policy may go live with.
INCUMBENT_ROWS = 200
_STREAM = 203


@dataclass(frozen=True)
class Setting:
    """One kind of world and of log.

    Attributes:
        rows: of a log. trained: uniformly drawn decisions that the candidate was trained on.
        served: whether a learned policy wrote the log; else chance did, as before a campaign's first policy.
    """

    about: str
    world: WorldSpec
    rows: int
    trained: int = 4_000
    served: bool = True


_SMALL = replace(scenario("stationary").world, recipients=2 * PEOPLE, variants=3)
SETTINGS: Mapping[str, Setting] = {
    "explored": Setting("chance wrote the log; 16 of 100 messages are clicked", _SMALL, 1_000, 500, served=False),
    "usual": Setting("a policy wrote the log; of messages sent by chance 16 of 100 are clicked", _SMALL, 5_000),
    "rare": Setting(
        "a policy wrote the log; of messages sent by chance 6 of 100 are clicked", replace(_SMALL, like=-2.2), 5_000
    ),
}


@dataclass(frozen=True)
class Pool:
    """N decisions over the same K actions, in the order of their people.

    Attributes:
        contexts, spaces: what is known of each decision, and its actions.
        campaign, attributes: as the service has them.
        truth: (N, K) the chance of a click; told: (N, K) its mean given all that features tell.
        policies: of each (N, K) probabilities.
        earlier: the uniform log that the candidate was trained on, of other people.
        before: the candidate's model: it has seen nothing of the pool.
    """

    contexts: Sequence[Mapping[str, Any]]
    spaces: Sequence[ActionSpace]
    campaign: Campaign
    attributes: tuple[Attribute, ...]
    truth: Floats
    told: Floats
    policies: Mapping[str, Floats]
    earlier: Examples
    before: RewardModel

    def value(self, policy: str) -> float:
        """What a decision earns under a policy, exactly."""
        return float((self.policies[policy] * self.truth).sum(axis=1).mean())

    def unseen(self, policy: str) -> float:
        """The share of a policy's choices that the incumbent never makes: no log of its can tell of them."""
        never = self.policies["incumbent"] <= 0.0
        return float((self.policies[policy] * never).sum(axis=1).mean())


@dataclass(frozen=True)
class Drawn:
    """A log of n rows: the decision of the pool, the action, the reward, and who it was (the same person drawn twice is
    two)."""

    place: Ints
    action: Ints
    reward: Floats
    cluster: Ints

    def first(self, rows: int) -> Drawn:
        """Its first rows."""
        return Drawn(self.place[:rows], self.action[:rows], self.reward[:rows], self.cluster[:rows])

    def examples(self, pool: Pool) -> Examples:
        """The rows as training sees them."""
        rows = [(pool.contexts[i], pool.spaces[i]) for i in self.place.tolist()]
        return _examples(rows, pool.campaign, self.action, self.reward, self.cluster)


@cache
def pool_of(name: str) -> Pool:
    """The pool of a setting, the same in every process."""
    from optimizer.model.training.train import train

    game = Game(replace(scenario("stationary"), world=SETTINGS[name].world, slot_minutes=1_440), 1, 2 * PEOPLE * EACH)
    campaign, rng = game.campaigns[0], np.random.default_rng([_STREAM, sum(name.encode())])
    # Everybody comes as often as the others, so that sorted by person it is five of each.
    turns = [game.turn(a, Memory(), []) for a in sorted(game.arrivals, key=lambda one: one.moment.person)]
    contexts = [seen_at(t.situation.context, t.arrival.at) for t in turns]
    spaces = [t.space for t in turns]
    truth = np.array([game.values(game.chances(t), t) for t in turns])
    own = PEOPLE * EACH
    some = rng.permutation(np.arange(own, 2 * own))[: SETTINGS[name].trained]
    action = rng.integers(truth.shape[1], size=len(some))
    reward = (rng.random(len(some)) < truth[some, action]).astype(np.float64)
    earlier = _examples([(contexts[i], spaces[i]) for i in some.tolist()], campaign, action, reward, some // EACH)
    first, model = (
        RewardModel.load(
            train(
                earlier.take(np.arange(rows)), attributes=game.attributes, seed=rows, network=False, calibrated=False
            ).blob
        )
        for rows in (INCUMBENT_ROWS, SETTINGS[name].trained)
    )
    asked = [Asked(s, np.ones(s.size, np.bool_), c) for s, c in zip(spaces[:own], contexts[:own], strict=True)]
    uniform = np.full((own, truth.shape[1]), 1.0 / truth.shape[1])
    incumbent = _vectors(first, campaign, asked) if SETTINGS[name].served else uniform
    candidate = _vectors(model, campaign, asked)
    policies = {
        "incumbent": incumbent,
        "candidate": candidate,
        "equal": _equal(incumbent, candidate, truth[:own]),
    }
    told = np.array([game.values(game.chances(t, personal=False), t) for t in turns[:own]])
    return Pool(contexts[:own], spaces[:own], campaign, game.attributes, truth[:own], told, policies, earlier, model)


def draw_log(pool: Pool, policy: str, rows: int, rng: np.random.Generator) -> Drawn:
    """So many rows (a multiple of ``EACH``) logged by a policy."""
    people = rows // EACH
    person = rng.integers(PEOPLE, size=people)
    place = (person[:, None] * EACH + np.arange(EACH)).reshape(-1)
    mass = np.cumsum(pool.policies[policy][place], axis=1)
    action = (mass > rng.random(len(place))[:, None] * mass[:, -1:]).argmax(axis=1)
    reward = (rng.random(len(place)) < pool.truth[place, action]).astype(np.float64)
    return Drawn(place, action.astype(np.int64), reward, np.repeat(np.arange(people), EACH))


def predicted(model: RewardModel, pool: Pool, place: Ints) -> Floats:
    """(n, K) the rewards that a model predicts for decisions of the pool."""
    spaces = Spaces.stacked([pool.spaces[i] for i in place.tolist()])
    x = model.embed([pool.contexts[i] for i in place.tolist()])
    return model.score_rows(x, spaces, pool.campaign, [{}] * len(place)).reward


def joined(first: Examples, second: Examples) -> Examples:
    """The rows of both, of the same campaign and outcomes; their recipients are different people."""
    return Examples(
        contexts=[*first.contexts, *second.contexts],
        campaigns=first.campaigns,
        campaign=np.concatenate((first.campaign, second.campaign)),
        variant=np.concatenate((first.variant, second.variant)),
        channel=np.concatenate((first.channel, second.channel)),
        local=np.concatenate((first.local, second.local)),
        outcome={name: np.concatenate((column, second.outcome[name])) for name, column in first.outcome.items()},
        value={},
        cluster=np.concatenate((first.cluster, second.cluster + first.cluster.max() + 1)),
    )


def _examples(
    rows: Sequence[tuple[Mapping[str, Any], ActionSpace]],
    campaign: Campaign,
    action: Ints,
    reward: Floats,
    cluster: Ints,
) -> Examples:
    factors = [space.factors(a) for (_, space), a in zip(rows, action.tolist(), strict=True)]
    variant, slot, channel = np.array(factors, dtype=np.int64).T
    return Examples(
        contexts=[dict(context) for context, _ in rows],
        campaigns=(campaign,),
        campaign=np.zeros(len(rows), np.int64),
        variant=variant,
        channel=channel,
        local=np.array([space.local[s] for (_, space), s in zip(rows, slot.tolist(), strict=True)], dtype=np.int64),
        outcome={"clicked": reward},
        value={},
        cluster=cluster,
    )


def _vectors(model: RewardModel, campaign: Campaign, asked: Sequence[Asked]) -> Floats:
    live = LivePolicy("judged", (Component(1.0, "judged"),), (model,))
    return np.array([choice.probability for choice in distributions(live, campaign, asked)])


def _equal(incumbent: Floats, candidate: Floats, truth: Floats) -> Floats:
    """A policy that chooses otherwise than the incumbent and earns the same: the candidate, spoiled by the actions
    that truly are the worst."""
    worst = np.zeros_like(candidate)
    worst[np.arange(len(truth)), truth.argmin(axis=1)] = 1.0
    low, wanted, high = (float((vector * truth).sum(axis=1).mean()) for vector in (worst, incumbent, candidate))
    share = (wanted - low) / (high - low)
    return share * candidate + (1.0 - share) * worst
