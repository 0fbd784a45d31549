"""The compiled floor is the floor in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit import exploration, exploration_rows
from optimizer.bandit.actions import ActionSpace, Spaces
from tests.bandit.test_exploration import Mask, masked_spaces, some_policy, space_of
from tests.loops import in_numpy, require_compiled

RATES = st.sampled_from([0.0, 0.02, 0.5, 1.0])
YOUNG = st.sampled_from([{}, {"v0": 0.03}, {"v1": 0.2, "x": 1.0}, {"v0": 1.0, "v1": 1.0, "v2": 0.5}])


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    require_compiled()


@given(masked_spaces(), RATES, YOUNG)
@settings(max_examples=400, derandomize=True, deadline=None)
def test_the_floor_is_the_same(
    case: tuple[ActionSpace, Mask, np.random.Generator], rate: float, young: dict[str, float]
) -> None:
    space, mask, rng = case
    p, greedy = some_policy(mask, rng), int(rng.choice(np.flatnonzero(mask)))

    def floored() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return exploration.with_floor(p, space, mask, rate=rate, young=young, greedy=greedy)

    assert floored() == pytest.approx(in_numpy(floored), abs=1e-14)


def test_a_row_among_others_gets_the_very_bits_that_it_gets_alone() -> None:
    rng = np.random.default_rng(3)
    space = space_of(4, 30, 3)
    mask = rng.random((50, space.size)) < 0.4
    mask[:, -1] = True
    p = mask / mask.sum(axis=1)[:, None]
    greedy = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
    together = exploration_rows.with_floor(
        p, Spaces.stacked([space] * 50), mask, greedy=greedy, rate=0.1, young={"v1": 0.03}
    )
    for i in range(50):
        alone = exploration.with_floor(p[i], space, mask[i], rate=0.1, young={"v1": 0.03}, greedy=int(greedy[i]))
        assert np.array_equal(alone, together[i])


@pytest.mark.parametrize("greedy", [-1, 0, 10])
def test_a_greedy_action_that_is_not_eligible_is_refused_by_both(greedy: int) -> None:
    space, mask = space_of(1, 3, 1), np.array([False, True, True, True])

    def floored() -> None:
        exploration.with_floor(mask / 3, space, mask, rate=0.1, young={}, greedy=greedy)

    for run in (floored, lambda: in_numpy(floored)):
        with pytest.raises(ValueError, match="not eligible"):
            run()
