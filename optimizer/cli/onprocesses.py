"""Work for processes of this machine, which is what ``--ray`` is for a cluster: ``Crew`` is that module's, without Ray.

Processes are spawned, not forked: threads, store connections and numeric libraries don't survive a fork. One that is
killed ends the run, which goes on where it was when it is called again.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Generic, TypeVar

from optimizer.errors import SendtideError

A = TypeVar("A")
B = TypeVar("B")

#: Variables that say how many threads the numeric libraries start: processes are as many as processors already.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ProcessDied(SendtideError):
    """A process that was at work is gone: killed, or out of memory."""

    code = "process_died"


class Crew(Generic[A, B]):
    """Processes that each hold something costly to make, for the length of a ``with`` block."""

    def __init__(self, make: Callable[[], Callable[[A], B]], size: int) -> None:
        """``make`` gives the function that answers; picklable, and called once in each of ``size`` processes."""
        self.size = size
        # Processes begin as work comes and read this as they begin; this one is not to go on with it.
        self._added = [name for name in THREADS if name not in os.environ]
        os.environ.update(dict.fromkeys(self._added, "1"))
        self._pool = ProcessPoolExecutor(
            size, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(make,)
        )
        self._under_way: dict[Future[B], A] = {}

    def __enter__(self) -> Crew[A, B]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for name in self._added:
            os.environ.pop(name, None)

    def submit(self, argument: A) -> None:
        """Has an argument answered as soon as a process is free."""
        self._under_way[self._pool.submit(_answer, argument)] = argument

    def next(self) -> tuple[A, B]:
        """Some argument that was submitted, with its answer, as soon as there is one; raises what answering raised.

        Raises:
            ProcessDied: a process is gone.
        """
        done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
        future = done.pop()
        argument = self._under_way.pop(future)
        try:
            return argument, future.result()
        except BrokenProcessPool:
            raise ProcessDied("a process at work was killed; call the command again, it goes on") from None


_made: Any = None


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    """What each process does first."""
    global _made  # a process of the pool has no other place for what it holds
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _made = make()


def _answer(argument: Any) -> Any:
    return _made(argument)


def _end_with_parent() -> None:
    """Ends this process when the command is gone: killed, it has no chance to say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
