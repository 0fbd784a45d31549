"""How many threads numerical libraries take. Set before every fit, since the process also does other things."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

_Part = TypeVar("_Part")
_Found = TypeVar("_Found")


def asked_for(told: str, otherwise: int = 2) -> int:
    """How many threads OpenMP's variable names: of a list ("4,2") what holds at the outermost level."""
    first = told.split(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and int(first) > 0 else otherwise


#: Training runs beside the service; torch takes two cores unless the usual variable says otherwise.
MOST = asked_for(os.environ.get("OMP_NUM_THREADS", ""))
#: Below this many rows the matrices are so small that two threads mostly wait for each other: on a busy machine a
#: Cholesky inverse of 112 weights took 26 ms with two and .4 ms with one.
SMALL = 25_000


def set_threads(rows: int) -> None:
    """Sets the threads for a fit of so many rows; the same rows always get the same number, so fits repeat.

    The BLAS of NumPy and SciPy gets one: products are of some thousand rows and a few hundred columns, and its threads
    wait busily. A retrain of 200,000 decisions took 57 s with one and 66 s with two, on two idle cores.
    """
    torch.set_num_threads(1 if rows < SMALL else MOST)
    _pools().limit(limits=1, user_api="blas")


def side_by_side(work: Callable[[_Part], _Found], parts: Sequence[_Part], rows: int) -> list[_Found]:
    """What ``work`` finds of each part, in their order; of many rows ``MOST`` parts at a time, each on its own thread.

    Nearly all of a fit is products and factorisations, for which Python lets other threads go on.
    """
    most = min(MOST, len(parts))
    if rows < SMALL or most < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(most, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, parts))


@cache
def _pools() -> ThreadpoolController:
    """The libraries of this process; to look for them takes milliseconds."""
    return ThreadpoolController()
