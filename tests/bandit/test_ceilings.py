"""A distribution between a floor and a ceiling of exploration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.bandit.ceilings import bounded


@given(st.data())
def test_the_result_is_a_distribution_within_both_limits(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    mask[data.draw(st.integers(0, count - 1))] = True
    weight = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))) * mask
    p = weight / weight.sum() if weight.sum() > 0 else mask / mask.sum()
    greedy = int(np.where(mask, p, -1.0).argmax())
    ceiling = data.draw(st.floats(0, 1))
    floor = data.draw(st.floats(0, ceiling))
    out = bounded(p, greedy, mask, ceiling, floor)
    assert out.sum() == pytest.approx(1)
    assert (out[~mask] == 0).all()
    assert (out[mask] >= floor / mask.sum() - 1e-12).all()
    assert 1 - out[greedy] <= ceiling + 1e-12


def test_what_is_over_the_ceiling_goes_to_the_greedy_action_and_the_rest_keeps_its_proportions() -> None:
    out = bounded(np.array([0.2, 0.6, 0.2, 0.0]), 0, np.ones(4, np.bool_), 0.4, 0.0)
    assert out == pytest.approx([0.6, 0.3, 0.1, 0.0])


def test_what_is_under_the_ceiling_stays_as_it_is() -> None:
    p = np.array([0.9, 0.06, 0.04])
    assert bounded(p, 0, np.ones(3, np.bool_), 0.2, 0.0) == pytest.approx(p)


def test_a_ceiling_of_0_is_greedy() -> None:
    assert bounded(np.array([0.2, 0.8]), 0, np.ones(2, np.bool_), 0.0, 0.0).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("ceiling", "floor"), [(0.1, 0.2), (1.1, 0.0), (0.5, -0.1), (float("nan"), 0.0)])
def test_limits_out_of_order_are_refused(ceiling: float, floor: float) -> None:
    with pytest.raises(ValueError, match="allowed"):
        bounded(np.array([1.0]), 0, np.ones(1, np.bool_), ceiling, floor)
