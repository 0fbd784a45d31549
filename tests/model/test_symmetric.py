"""What is summed for one half of a symmetric matrix."""

from __future__ import annotations

import numpy as np
import pytest

from optimizer.model.cell import Cell
from optimizer.model.training.symmetric import mirror


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_the_lower_half_is_copied_whatever_lies_above(size: int) -> None:
    square = np.random.default_rng(size).standard_normal((size, size))
    lower = np.tril(square)
    made = mirror(lower + np.triu(np.full((size, size), 7.0), 1))
    assert np.array_equal(made, lower + np.tril(square, -1).T)


def test_pairs_add_the_same_lower_half() -> None:
    rng = np.random.default_rng(1)
    weights, base = 30, 12
    source = np.sort(rng.choice(weights, 17, replace=False))
    plain = Cell(source, rng.integers(0, base, 17), rng.standard_normal(17), None)
    inner = rng.standard_normal((base, base))
    inner += inner.T
    slope = rng.standard_normal(base)
    sums = []
    for cell in (plain, plain.paired(weights, base)):
        gradient, hessian = np.ones(weights), np.ones((weights, weights))
        cell.accumulate(gradient, hessian, slope, inner)
        cell.accumulate(gradient, hessian, slope, inner)
        sums.append((gradient, np.tril(hessian)))
    (gradient, lower), (paired, other) = sums
    assert np.array_equal(gradient, paired)
    assert np.allclose(lower, other, rtol=1e-12)
    assert np.abs(lower - np.tril(np.ones_like(lower))).max() > 1.0
