"""Methods of exploration: exact vectors under every mask, equal to their definitions, free of the reward's unit."""

from __future__ import annotations

from itertools import product
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.explorers import (
    DEFAULTS,
    Valued,
    explore,
    marginal_thompson,
    sequential_inverse_gap,
    spread,
)
from storage.records import EXPLORATION_PARAMETERS, ExplorationMethod
from tests.bandit.test_exploration import assert_distribution, masked_spaces, settled, space_of

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
Case = tuple[ActionSpace, Mask, np.random.Generator]
METHODS: tuple[ExplorationMethod, ...] = get_args(ExplorationMethod)


def some_values(size: int, rng: np.random.Generator, draws: int = 8) -> Valued:
    """Rewards of any scale, some of them equal, and draws around them."""
    scale = 10.0 ** rng.integers(-6, 6)
    reward = np.round(rng.standard_normal(size), 1) * scale
    return Valued(reward, reward + scale * rng.standard_normal((draws, size)))


@pytest.mark.parametrize("method", METHODS)
@given(masked_spaces())
@settled
def test_every_method_gives_a_distribution_over_the_eligible(method: ExplorationMethod, case: Case) -> None:
    space, mask, rng = case
    valued = some_values(space.size, rng)
    p = explore(method, None, valued, space, mask)
    assert_distribution(p, mask)
    # What is not eligible must not matter, whatever a model says of it.
    for nonsense in (1e308, -1e308, np.inf, -np.inf, np.nan):
        told = Valued(np.where(mask, valued.reward, nonsense), np.where(mask, valued.draws, nonsense))
        assert (explore(method, None, told, space, mask) == p).all()


@pytest.mark.parametrize("method", METHODS)
@given(masked_spaces())
@settled
def test_the_unit_of_the_reward_moves_nothing(method: ExplorationMethod, case: Case) -> None:
    space, mask, rng = case
    valued = some_values(space.size, rng)
    p = explore(method, None, valued, space, mask)
    # A power of two: no rounding that could move a comparison.
    scaled = Valued(valued.reward * 2.0**20, valued.draws * 2.0**20)
    assert explore(method, None, scaled, space, mask) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "uniform"])
def test_nothing_eligible_and_values_that_are_not_finite_raise(method: ExplorationMethod) -> None:
    space = space_of(2, 2, 1)
    bad = Valued(np.full(5, np.nan), np.full((3, 5), np.nan))
    with pytest.raises(ValueError, match="finite"):
        explore(method, None, bad, space, np.ones(5, np.bool_))
    good = Valued(np.zeros(5), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="no action is eligible"):
        explore(method, None, good, space, np.zeros(5, np.bool_))


def test_every_method_with_a_number_has_a_default_for_it() -> None:
    assert set(DEFAULTS) == set(EXPLORATION_PARAMETERS)


def test_only_epsilon_is_annealed_by_the_rate() -> None:
    space = space_of(2, 2, 1)
    mask = np.ones(5, np.bool_)
    valued = some_values(5, np.random.default_rng(1))
    p = explore("epsilon_greedy", 0.5, valued, space, mask, anneal=0.2)
    assert p == pytest.approx(exploration.epsilon_greedy(valued.reward, mask, 0.1))


@pytest.mark.parametrize(("method", "soft", "sharp"), [("inverse_gap", 1.0, 1e4), ("softmax", 10.0, 0.01)])
def test_the_number_goes_from_even_to_greedy(method: ExplorationMethod, soft: float, sharp: float) -> None:
    space = space_of(3, 4, 2)
    mask = np.ones(space.size, np.bool_)
    valued = some_values(space.size, np.random.default_rng(3))
    best = valued.reward.argmax()
    even, middle, greedy = (explore(method, n, valued, space, mask)[best] for n in (soft, DEFAULTS[method], sharp))
    assert even < middle < greedy
    assert greedy > 0.9


@pytest.mark.parametrize("method", ["inverse_gap", "softmax"])
def test_a_narrower_posterior_anneals_a_method_that_weighs_gaps(method: ExplorationMethod) -> None:
    space = space_of(3, 4, 2)
    mask = np.ones(space.size, np.bool_)
    wide = some_values(space.size, np.random.default_rng(4))
    narrow = Valued(wide.reward, wide.reward + 0.1 * (wide.draws - wide.reward))
    best = wide.reward.argmax()
    assert explore(method, None, narrow, space, mask)[best] > explore(method, None, wide, space, mask)[best]


@pytest.mark.parametrize("method", ["inverse_gap", "softmax", "posterior_bank", "marginal_thompson"])
def test_where_nothing_is_uncertain_the_best_is_taken(method: ExplorationMethod) -> None:
    space = space_of(2, 3, 1)
    reward = np.array([0.0, 1.0, 5.0, 2.0, 4.0, 3.0, 0.0])
    p = explore(method, None, Valued(reward, np.tile(reward, (4, 1))), space, np.ones(7, np.bool_))
    assert p.tolist() == [0, 0, 1, 0, 0, 0, 0]


def test_spread_by_hand() -> None:
    """Two draws move two eligible actions by (1, 3) and (−1, 1): without the shared 2 and 0 by (−1, 1) both times."""
    valued = Valued(np.array([10.0, 20.0, 7.0]), np.array([[11.0, 23.0, 1e9], [9.0, 21.0, -1e9]]))
    assert spread(valued, np.array([True, True, False])) == pytest.approx(1.0)


# --- inverse gaps, factor by factor ----------------------------------------------------------------------------------


def inverse_gap_by_hand(values: dict[int, float], gamma: float) -> dict[int, float]:
    best = max(values, key=lambda k: (values[k], -k))
    p = {k: 1 / (len(values) + gamma * (values[best] - v)) for k, v in values.items() if k != best}
    return {**p, best: 1 - sum(p.values())}


def sequential_by_enumeration(score: Vector, space: ActionSpace, mask: Mask, gamma: float) -> Vector:
    """The definition, factor by factor and action by action; ``no_send`` counts as one more variant."""
    tree: dict[int, dict[int, dict[int, int]]] = {}
    for a in np.flatnonzero(mask).tolist():
        v, s, c = space.factors(a) or (len(space.variants), 0, 0)
        tree.setdefault(v, {}).setdefault(c, {})[s] = a
    p = np.zeros(space.size)

    def best(branch: dict[int, int]) -> float:
        return max(float(score[a]) for a in branch.values())

    by_variant = inverse_gap_by_hand({v: max(best(b) for b in tree[v].values()) for v in sorted(tree)}, gamma)
    for v, channels in tree.items():
        by_channel = inverse_gap_by_hand({c: best(channels[c]) for c in sorted(channels)}, gamma)
        for c, slots in channels.items():
            by_slot = inverse_gap_by_hand({s: float(score[slots[s]]) for s in sorted(slots)}, gamma)
            for s, a in slots.items():
                p[a] = by_variant[v] * by_channel[c] * by_slot[s]
    return p


@given(masked_spaces(), st.sampled_from([0.0, 0.5, 20.0, 1e6]))
@settled
def test_sequential_inverse_gap_equals_its_definition(case: Case, gamma: float) -> None:
    space, mask, rng = case
    score = np.round(rng.standard_normal(space.size), 1)
    p = sequential_inverse_gap(score, space, mask, gamma)
    assert_distribution(p, mask)
    assert p == pytest.approx(sequential_by_enumeration(score, space, mask, gamma), abs=1e-12)


def test_a_near_miss_in_time_alone_has_thicker_support_than_over_the_joint_set() -> None:
    """Another of 28 slots of the best message, a gap of 10: (11/16)(11/13)/38 and not 1/514."""
    space = space_of(6, 28, 3, no_send=False)
    mask = np.ones(space.size, np.bool_)
    score = np.full(space.size, -0.1)
    score[space.index(0, 5, 0)] = 0.0
    near = space.index(0, 6, 0)
    joint = exploration.inverse_gap(score, mask, 100.0)
    assert sequential_inverse_gap(score, space, mask, 100.0)[near] > 5 * joint[near]


@pytest.mark.parametrize("gamma", [-1.0, np.inf, np.nan])
def test_gamma_outside_its_range_raises(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        sequential_inverse_gap(np.zeros(5), space_of(2, 2, 1), np.ones(5, np.bool_), gamma)


# --- independent marginals -------------------------------------------------------------------------------------------


def marginal_by_enumeration(draws: Vector, mask: Mask) -> Vector:
    """Every way to take one draw from each eligible column; who is at the top counts, several if they are equal."""
    open_ = np.flatnonzero(mask)
    wins = np.zeros(len(mask))
    for rows in product(range(len(draws)), repeat=len(open_)):
        taken = draws[list(rows), open_]
        wins[open_[taken == taken.max()]] += 1
    return np.asarray(wins / wins.sum(), np.float64)


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0, 1, 8]))
@settled
def test_marginal_thompson_equals_its_definition(seed: int, many: int, actions: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    draws = np.round(rng.standard_normal((many, actions)), decimals)  # few decimals: many equals
    mask = rng.random(actions) < 0.7
    mask[rng.integers(actions)] = True
    p = marginal_thompson(draws, mask)
    assert_distribution(p, mask)
    assert p == pytest.approx(marginal_by_enumeration(draws, mask), abs=1e-12)


def test_actions_that_share_their_luck_are_rivals_only_as_marginals() -> None:
    """b is better by the same in every draw: in the bank it always wins, between independent marginals it doesn't."""
    luck = np.arange(4.0)
    draws = np.stack([luck, luck + 0.5], axis=1)
    both = np.ones(2, np.bool_)
    assert exploration.bank(draws, both).tolist() == [0.0, 1.0]
    assert marginal_thompson(draws, both) == pytest.approx(np.array([6, 10]) / 16)


def test_marginal_thompson_holds_over_thousands_of_actions() -> None:
    """(m/M)^n underflows for low draws; the highest one never does."""
    rng = np.random.default_rng(5)
    p = marginal_thompson(rng.standard_normal((64, 3_024)), np.ones(3_024, np.bool_))
    assert abs(p.sum() - 1) < 1e-12
    assert np.isfinite(p).all()


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3)])
def test_marginal_thompson_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="draws have shape"):
        marginal_thompson(np.zeros(shape), np.ones(4, np.bool_))
