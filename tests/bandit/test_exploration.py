"""Distributions: exact vectors over the eligible set, floors as documented, draws with the stated frequencies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
SEED = b"a seed of the installation"
MIDNIGHT = int(datetime(2026, 11, 24, tzinfo=UTC).timestamp())


def space_of(v: int, s: int, c: int, no_send: bool = True, slot_hours: int = 1) -> ActionSpace:
    at = MIDNIGHT + 3600 * slot_hours * np.arange(s, dtype=np.int64)
    return ActionSpace(tuple(f"v{i}" for i in range(v)), tuple(f"c{i}" for i in range(c)), at, at, no_send)


@st.composite
def masked_spaces(draw: st.DrawFn) -> tuple[ActionSpace, Mask, np.random.Generator]:
    """A small space, a mask with at least one action, and a generator seeded by the example."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(0, 30), st.integers(1, 3)))
    space = space_of(*shape, no_send=draw(st.booleans()) or shape[1] == 0)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random(space.size) < draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    mask[draw(st.integers(0, space.size - 1))] = True
    return space, mask, rng


def assert_distribution(p: Vector, mask: Mask) -> None:
    assert p.shape == mask.shape
    assert p.dtype == np.float64
    assert abs(p.sum() - 1) < 1e-12
    assert (p >= 0).all()
    assert (p[~mask] == 0).all()


SCORED: dict[str, Callable[[Vector, Mask], Vector]] = {
    "softmax": lambda score, mask: exploration.softmax(score, mask, 0.1),
    "cold softmax": lambda score, mask: exploration.softmax(score, mask, 1e-6),
    "epsilon-greedy": lambda score, mask: exploration.epsilon_greedy(score, mask, 0.1),
    "inverse gap": lambda score, mask: exploration.inverse_gap(score, mask, 100.0),
    "bank": lambda score, mask: exploration.bank(np.stack([score, -score, score[::-1]]), mask),
}
settled = settings(max_examples=150, derandomize=True, deadline=None)


@pytest.mark.parametrize("name", SCORED)
@given(masked_spaces())
@settled
def test_every_rule_gives_a_distribution_over_the_eligible(
    name: str, case: tuple[ActionSpace, Mask, np.random.Generator]
) -> None:
    _, mask, rng = case
    score = rng.standard_normal(len(mask)) * 10.0 ** rng.integers(-3, 6)
    p = SCORED[name](score, mask)
    assert_distribution(p, mask)
    # What is not eligible must not matter, whatever a model says of it.
    for nonsense in (1e308, -1e308, np.inf, -np.inf, np.nan):
        if name == "bank" and not np.array_equal(mask, mask[::-1]):
            break  # reversed scores would move nonsense onto eligible actions
        assert (SCORED[name](np.where(mask, score, nonsense), mask) == p).all()


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_raises(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        SCORED[name](np.array([0.0, bad, bad, 1.0]), np.ones(4, np.bool_))


@pytest.mark.parametrize("name", SCORED)
def test_nothing_eligible_raises(name: str) -> None:
    with pytest.raises(ValueError, match="no action is eligible"):
        SCORED[name](np.zeros(3), np.zeros(3, np.bool_))


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("only", [0, 4])
def test_the_only_eligible_action_has_all_the_mass(name: str, only: int) -> None:
    mask = np.zeros(5, np.bool_)
    mask[only] = True
    assert SCORED[name](np.arange(5.0), mask)[only] == 1.0


SCORE = np.array([1.0, 3.0, 9.0, 3.0])
MASK = np.array([True, True, False, True])


def test_uniform_by_hand() -> None:
    assert exploration.uniform(MASK).tolist() == [1 / 3, 1 / 3, 0, 1 / 3]


def test_softmax_by_hand() -> None:
    e = np.exp(-1)
    assert exploration.softmax(SCORE, MASK, 2.0) == pytest.approx(np.array([e, 1, 0, 1]) / (2 + e))


def test_epsilon_greedy_by_hand_takes_the_first_of_equals() -> None:
    assert exploration.epsilon_greedy(SCORE, MASK, 0.3) == pytest.approx(np.array([0.1, 0.8, 0, 0.1]))


def test_inverse_gap_by_hand() -> None:
    assert exploration.inverse_gap(SCORE, MASK, 1.0) == pytest.approx(np.array([1 / 5, 1 - 1 / 5 - 1 / 3, 0, 1 / 3]))
    assert exploration.inverse_gap(SCORE, MASK, 0.0) == pytest.approx(exploration.uniform(MASK))


def test_bank_counts_the_draws_that_an_action_wins() -> None:
    draws = np.array([[0, 1, 9, 1], [5, 1, 9, 1], [0, 1, 9, 2], [0, 3, 9, 2]], np.float32)
    assert exploration.bank(draws, MASK).tolist() == [0.25, 0.5, 0.0, 0.25]
    assert draws[0, 2] == 9  # the caller's draws are not touched


def test_bank_refuses_other_shapes() -> None:
    for shape in ((4,), (0, 4), (2, 3)):
        with pytest.raises(ValueError, match="draws have shape"):
            exploration.bank(np.zeros(shape), MASK)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: exploration.softmax(SCORE, MASK, 0.0), "temperature"),
        (lambda: exploration.epsilon_greedy(SCORE, MASK, 1.1), "epsilon"),
        (lambda: exploration.inverse_gap(SCORE, MASK, -1.0), "gamma"),
        (lambda: exploration.inverse_gap(SCORE, MASK, np.nan), "gamma"),
        (lambda: exploration.around_baseline(space_of(1, 3, 1), MASK, 0, -0.1), "rate"),
        (lambda: exploration.around_baseline(space_of(1, 3, 1), MASK, 2, 0.1), "not eligible"),
        (lambda: exploration.coordinate(space_of(1, 3, 1), 7, MASK), "not eligible"),
        (lambda: exploration.with_floor(MASK / 3, space_of(1, 3, 1), MASK, rate=2.0, young={}), "rate"),
        (lambda: exploration.with_floor(MASK / 3, space_of(1, 3, 1), MASK, rate=0.1, young={"v0": 2.0}), "minima"),
        (lambda: exploration.with_floor(MASK / 3, space_of(1, 3, 1), MASK, rate=0.1, young={"x": -1.0}), "minima"),
    ],
)
def test_parameters_outside_their_range_raise(call: Callable[[], Vector], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        call()


# --- one factor at a time --------------------------------------------------------------------------------------------


def coordinate_by_enumeration(space: ActionSpace, greedy: int, mask: Mask) -> Vector:
    """The definition, action by action."""
    here = space.factors(greedy)
    open_ = [a for a in range(space.size) if mask[a]]
    if here is None:
        moves = {"send": [a for a in open_ if a != greedy]}
    else:
        moves = {"v": [], "s": [], "c": [], "stop": []}
        for a in open_:
            there = space.factors(a)
            if there is None:
                moves["stop"].append(a)
                continue
            changed = [name for name, x, y in zip("vsc", here, there, strict=True) if x != y]
            if len(changed) == 1:
                moves[changed[0]].append(a)
    moves = {name: actions for name, actions in moves.items() if actions} or {"any": open_}
    p = np.zeros(space.size)
    for actions in moves.values():
        for a in actions:
            p[a] += 1 / len(moves) / len(actions)
    return p


@given(masked_spaces())
@settled
def test_coordinate_equals_its_definition(case: tuple[ActionSpace, Mask, np.random.Generator]) -> None:
    space, mask, _ = case
    for greedy in np.flatnonzero(mask)[:20].tolist():
        p = exploration.coordinate(space, greedy, mask)
        assert_distribution(p, mask)
        assert p == pytest.approx(coordinate_by_enumeration(space, greedy, mask), abs=1e-15)


def test_coordinate_leaves_the_mask_alone() -> None:
    space = space_of(2, 2, 2)
    mask = np.ones(space.size, np.bool_)
    exploration.coordinate(space, space.messages, mask)
    assert mask.all()


@given(masked_spaces(), st.floats(0, 1))
@settled
def test_around_a_baseline_keeps_it_and_moves_one_factor(
    case: tuple[ActionSpace, Mask, np.random.Generator], rate: float
) -> None:
    space, mask, _ = case
    baseline = int(np.flatnonzero(mask)[0])
    p = exploration.around_baseline(space, mask, baseline, rate)
    assert_distribution(p, mask)
    assert p[baseline] >= 1 - rate - 1e-12


# --- the floor -------------------------------------------------------------------------------------------------------


def group_members(space: ActionSpace, mask: Mask) -> dict[str, list[int]]:
    """The eligible actions of every variant, channel and daypart."""
    groups: dict[str, list[int]] = {}
    for a in np.flatnonzero(mask).tolist():
        factors = space.factors(a)
        if factors is not None:
            v, s, c = factors
            hour = datetime.fromtimestamp(int(space.local[s]), UTC).hour
            for name in (space.variants[v], space.channels[c], f"daypart {hour // 6}"):
                groups.setdefault(name, []).append(a)
    return groups


def some_policy(mask: Mask, rng: np.random.Generator) -> Vector:
    """Anything from one action only to even."""
    weight = np.where(mask, rng.random(len(mask)) ** rng.choice([0.0, 1.0, 50.0]), 0.0)
    if rng.random() < 0.3:
        weight = np.where(np.arange(len(mask)) == rng.choice(np.flatnonzero(mask)), 1.0, 0.0)
    return np.asarray(weight / weight.sum(), np.float64)


@given(
    masked_spaces(), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.sampled_from([{}, {"v0": 0.03}, {"v1": 0.2, "x": 1}])
)
@settings(max_examples=250, derandomize=True, deadline=None)
def test_every_group_reaches_its_minimum(
    case: tuple[ActionSpace, Mask, np.random.Generator], rate: float, young: dict[str, float]
) -> None:
    space, mask, rng = case
    p = some_policy(mask, rng)
    floored = exploration.with_floor(p, space, mask, rate=rate, young=young)
    assert_distribution(floored, mask)
    groups = group_members(space, mask)
    minima = {name: max(rate / 20, young.get(name, 0.0)) for name in groups}
    scale = min(1.0, 0.95 / max(sum(minima.values()), 1e-300))
    for name, actions in groups.items():
        assert floored[actions].sum() >= minima[name] * scale * (1 - 1e-9)


def floor_by_halving(p: Vector, space: ActionSpace, mask: Mask, rate: float, young: dict[str, float]) -> Vector:
    """The documented formula with W found by halving an interval."""
    q = (1 - rate) * p + rate * coordinate_by_enumeration(space, int(p.argmax()), mask)
    groups = group_members(space, mask)
    least = {name: max(rate / 20, young.get(name, 0.0)) for name in groups}
    asked = sum(least.values())
    least = {name: f * min(1.0, 0.95 / asked) if asked else 0.0 for name, f in least.items()}

    def shares(total: float) -> dict[str, float]:
        return {name: max(0.0, least[name] - (1 - total) * q[actions].sum()) for name, actions in groups.items()}

    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle).values()) > middle else (low, middle)
    result = (1 - high) * q
    for name, share in shares(high).items():
        result[groups[name]] += share / len(groups[name])
    return np.asarray(result, np.float64)


@given(masked_spaces(), st.sampled_from([0.0, 0.02, 1.0]), st.sampled_from([{}, {"v0": 0.03, "v2": 0.3}, {"v1": 0.9}]))
@settled
def test_the_floor_equals_its_formula(
    case: tuple[ActionSpace, Mask, np.random.Generator], rate: float, young: dict[str, float]
) -> None:
    space, mask, rng = case
    p = some_policy(mask, rng)
    floored = exploration.with_floor(p, space, mask, rate=rate, young=young)
    assert floored == pytest.approx(floor_by_halving(p, space, mask, rate, young), abs=1e-12)


def test_a_policy_that_satisfies_every_minimum_is_only_mixed_with_moves() -> None:
    space = space_of(2, 24, 2)
    mask = np.ones(space.size, np.bool_)
    p = exploration.uniform(mask)
    moves = exploration.coordinate(space, 5, mask)
    floored = exploration.with_floor(p, space, mask, rate=0.1, young={"v1": 0.03}, greedy=5)
    assert floored == pytest.approx(0.9 * p + 0.1 * moves, abs=1e-15)


def test_a_young_variant_by_hand() -> None:
    """Two variants, one slot, one channel, all mass on v0, no moves: v1 gets .03, v0 keeps .97."""
    space = space_of(2, 1, 1, no_send=False)
    p = exploration.with_floor(np.array([1.0, 0.0]), space, np.ones(2, np.bool_), rate=0.0, young={"v1": 0.03})
    assert p == pytest.approx(np.array([0.97, 0.03]))


def test_more_minima_than_mass_are_scaled_to_their_limit() -> None:
    space = space_of(50, 1, 1)
    young = {f"v{i}": 0.03 for i in range(50)}
    start = np.zeros(51)
    start[50] = 1.0
    p = exploration.with_floor(start, space, np.ones(51, np.bool_), rate=0.0, young=young)
    assert p == pytest.approx(np.array([0.95 / 50] * 50 + [0.05]))


# --- mixing and drawing ----------------------------------------------------------------------------------------------
