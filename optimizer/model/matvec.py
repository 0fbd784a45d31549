"""The product of a matrix and a vector, without a warning of what a library reads and does not use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def matvec(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``left @ right`` of finite numbers, one of which is a vector (or a stack of them).

    On processors with AVX-512, OpenBLAS (0.3.31) reads lanes that nobody has written where a matrix of float32 has five
    columns. They do not reach the result, but they may look like signalling NaNs, and then NumPy warns of an invalid
    value.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(left @ right)
