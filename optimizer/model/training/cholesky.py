"""Cholesky factors of symmetric matrices, and what is worked out with them: solutions, draws, variances.

LAPACK as SciPy brings it (OpenBLAS): on the processor this was measured on (AMD EPYC) it took three quarters of the
time of the library in torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

#: Of single or double precision; what is worked out is of the factor's.
Floats = NDArray[Any]


def factored(matrix: Floats) -> Floats | None:
    """Lower factor L, L Lᵀ = ``matrix`` (d, d), whose memory it takes; None where that isn't positive definite."""
    # The transpose of a symmetric matrix is that matrix in the order of LAPACK: nothing is copied.
    factor, info = get_lapack_funcs("potrf", (matrix,))(matrix.T, lower=1, clean=1, overwrite_a=1)
    return None if info > 0 else np.asarray(factor)


def posterior_factor(information: Floats, prior: Floats) -> Floats:
    """The lower factor of ``information`` (d, d) with ``prior`` (d,) on its diagonal.

    Raises:
        LinAlgError: they are not positive definite together.
    """
    factor = factored(with_prior(information.copy(), prior))
    if factor is None:
        raise np.linalg.LinAlgError("the information of the rows and the prior together are not positive definite")
    return factor


def with_prior(matrix: Floats, prior: Floats) -> Floats:
    """The matrix (d, d), ``prior`` (d,) added to its diagonal in place."""
    matrix.flat[:: len(matrix) + 1] += prior
    return matrix


def solved(factor: Floats, right: Floats) -> Floats:
    """(L Lᵀ)⁻¹ b for b (d,) or (d, k)."""
    return np.asarray(get_lapack_funcs("potrs", (factor,))(factor, right, lower=1)[0])


def spread(factor: Floats, noise: Floats) -> Floats:
    """L⁻ᵀ ε for ε (d, k): of standard normal ε, draws with covariance (L Lᵀ)⁻¹."""
    return np.asarray(get_lapack_funcs("trtrs", (factor,))(factor, noise, lower=1, trans=1)[0])


def variances(factor: Floats) -> Floats:
    """The diagonal of (L Lᵀ)⁻¹, (d,)."""
    unit = np.eye(len(factor), dtype=factor.dtype, order="F")
    inverse = get_lapack_funcs("trtrs", (factor,))(factor, unit, lower=1, overwrite_b=1)[0]
    return np.asarray((inverse**2).sum(axis=0))
