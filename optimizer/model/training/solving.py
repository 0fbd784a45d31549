"""Conjugate gradients for many right-hand sides of one sparse ridge regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_TINY = 1e-20


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """(XᵀSX + Λ) w = b, its rows sparse.

    Attributes:
        matrix: X, (n, d) sparse. weight: S, (n,) of each row. prior: Λ, (d,). diagonal: (d,) of the whole.
    """

    matrix: Any
    weight: Floats
    prior: Floats
    diagonal: Floats

    def times(self, x: Floats) -> Floats:
        """(XᵀSX + Λ) x for x (d, k)."""
        rows = self.weight[:, None] * (self.matrix @ x)
        return np.asarray(self.matrix.T @ rows + self.prior[:, None] * x, np.float32)


def solve(system: System, right: Floats, start: Floats, *, steps: int, tolerance: float) -> Floats:
    """Solves for every column at once, from ``start``, with the diagonal as preconditioner (Hestenes & Stiefel 1952).

    Args:
        system: what is solved.
        right: b, (d, k). start: (d, k).
        steps: at most so many. tolerance: of the residual, relative to b, both in the preconditioner's norm.

    Returns:
        w, (d, k).
    """
    inverse = (1.0 / system.diagonal).astype(np.float32)[:, None]
    x = start
    residual = right - system.times(x)
    z = inverse * residual
    p, rz = z, _products(residual, z)
    stop = np.maximum(_products(right, inverse * right), _TINY) * tolerance**2
    for _ in range(steps):
        if (rz <= stop).all():
            break
        q = system.times(p)
        alpha = _quotient(rz, _products(p, q))
        x = x + alpha * p
        residual = residual - alpha * q
        z = inverse * residual
        following = _products(residual, z)
        p = z + _quotient(following, rz) * p
        rz = following
    return x


def _quotient(a: Floats, b: Floats) -> Floats:
    """a / b, where b is not negative; of a column that is solved both are next to 0."""
    return np.asarray(a / np.maximum(b, _TINY), np.float32)


def _products(a: Floats, b: Floats) -> Floats:
    """(k,) inner products of columns."""
    return np.asarray(np.einsum("ij,ij->j", a, b), np.float32)
