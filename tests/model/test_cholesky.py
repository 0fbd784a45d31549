"""Cholesky factors against NumPy's, in both precisions; and how many threads fits take."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from optimizer.model.training import threads
from optimizer.model.training.cholesky import factored, solved, spread, variances
from optimizer.model.training.threads import MOST, SMALL, set_threads, side_by_side

Matrix = NDArray[Any]


def _definite(size: int, kind: type[np.floating[Any]]) -> Matrix:
    rows = np.random.default_rng(size).standard_normal((size + 3, size))
    return np.asarray(rows.T @ rows + np.eye(size), dtype=kind)


@pytest.mark.parametrize(("kind", "error"), [(np.float64, 1e-10), (np.float32, 1e-3)])
@pytest.mark.parametrize("size", [1, 2, 40])
def test_what_a_factor_gives_is_what_the_inverse_gives(size: int, kind: type[Any], error: float) -> None:
    matrix = _definite(size, kind)
    factor = factored(matrix.copy())
    assert factor is not None
    assert factor.dtype == kind
    inverse = np.linalg.inv(matrix.astype(np.float64))
    assert np.allclose(factor, np.linalg.cholesky(matrix), rtol=error, atol=error)
    right = np.random.default_rng(1).standard_normal((size, 5))
    assert np.allclose(solved(factor, right), inverse @ right, rtol=error, atol=error)
    assert np.allclose(solved(factor, right[:, 0]), inverse @ right[:, 0], rtol=error, atol=error)
    assert np.allclose(variances(factor), np.diag(inverse), rtol=error, atol=error)
    root = spread(factor, np.eye(size))
    assert np.allclose(root @ root.T, inverse, rtol=error, atol=error)


def test_a_matrix_that_is_not_positive_definite_has_no_factor() -> None:
    assert factored(np.diag([1.0, -1.0])) is None
    assert factored(np.array([[1.0, 2.0], [2.0, 1.0]], dtype=np.float32)) is None


def _blas() -> set[int]:
    return {int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_long_logs_take_more_threads_of_torch_and_none_of_blas() -> None:
    for rows, most in ((SMALL, MOST), (SMALL - 1, 1)):
        with threadpool_limits(limits=2, user_api="blas"):
            set_threads(rows)
            assert (torch.get_num_threads(), _blas()) == (most, {1})


def test_parts_of_long_logs_are_worked_on_side_by_side_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST", 2)
    both = threading.Barrier(2, timeout=30)

    def work(part: int) -> tuple[int, int]:
        both.wait()
        return part, torch.get_num_threads()

    assert side_by_side(work, [1, 2, 3, 4], SMALL) == [(part, 1) for part in (1, 2, 3, 4)]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 // part, [1, 0], SMALL)


@pytest.mark.parametrize(("most", "parts", "rows"), [(2, 3, SMALL - 1), (1, 3, SMALL), (2, 1, SMALL), (2, 0, SMALL)])
def test_short_logs_single_parts_and_one_core_stay_on_their_thread(
    monkeypatch: pytest.MonkeyPatch, most: int, parts: int, rows: int
) -> None:
    monkeypatch.setattr(threads, "MOST", most)
    assert side_by_side(lambda _: threading.get_ident(), range(parts), rows) == [threading.get_ident()] * parts
