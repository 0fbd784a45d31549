"""How many threads torch takes. Set before every fit, since the process also does other things."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Training runs beside the service; it takes two cores unless the usual variable says otherwise.
MOST = int(os.environ.get("OMP_NUM_THREADS", "2"))
#: Below this many rows the matrices are so small that two threads mostly wait for each other: on a busy machine a
#: Cholesky inverse of 112 weights took 26 ms with two and .4 ms with one.
SMALL = 25_000


def set_threads(rows: int) -> None:
    """Sets torch's threads for a fit of so many rows; the same rows always get the same number, so fits repeat."""
    torch.set_num_threads(1 if rows < SMALL else MOST)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for a factorisation: at 1,023 weights on a busy machine of two cores an inverse took 30 ms with one
    thread, and 60 to 440 ms with two that waited for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
