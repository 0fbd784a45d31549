"""How many threads numerical libraries take: torch, and the BLAS of NumPy and of SciPy. Set before every fit, since the
process also does other things."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

#: Training runs beside the service; it takes two cores unless the usual variable says otherwise.
MOST = int(os.environ.get("OMP_NUM_THREADS", "2"))
#: Below this many rows the matrices are so small that two threads mostly wait for each other: on a busy machine a
#: Cholesky inverse of 112 weights took 26 ms with two and .4 ms with one.
SMALL = 25_000


def set_threads(rows: int) -> None:
    """Sets the threads for a fit of so many rows; the same rows always get the same number, so fits repeat."""
    count = 1 if rows < SMALL else MOST
    torch.set_num_threads(count)
    _pools().limit(limits=count, user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for a factorisation: at 1,023 weights on a busy machine of two cores an inverse took 30 ms with one
    thread, and 60 to 440 ms with two that waited for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _pools().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@cache
def _pools() -> ThreadpoolController:
    """The libraries of this process; to look for them takes milliseconds."""
    return ThreadpoolController()
