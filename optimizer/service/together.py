"""Callers that come at the same time are served together, by one of them.

Drafting thirty decisions together costs a quarter of drafting them one by one, and they share a write. Whoever finds
nobody at work starts at once, alone; whoever comes meanwhile waits, and the first of the waiting takes all of them. So
nobody waits for company that may not come, and the groups grow with the load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from copy import copy
from typing import Generic, TypeVar, cast

A = TypeVar("A")
R = TypeVar("R")

#: Begins the work of a group and gives what ends it, with one result for each. The next group begins meanwhile.
Begin = Callable[[Sequence[A]], Callable[[], Sequence[R]]]


class _Caller(Generic[A, R]):
    """One caller: what it asks, and what wakes it: an answer, an error, or that it is to lead."""

    __slots__ = ("answer", "asked", "error", "served", "wake")

    def __init__(self, asked: A) -> None:
        self.asked = asked
        self.wake = threading.Lock()
        self.wake.acquire()
        self.served = False
        self.answer: R | None = None
        self.error: BaseException | None = None


class Together(Generic[A, R]):
    """Runs work for groups of callers; one group begins at a time. Threads share it."""

    def __init__(self, begin: Begin[A, R], most: int) -> None:
        """``most`` is the largest group."""
        self._begin = begin
        self._most = most
        self._gate = threading.Lock()
        self._queue: list[_Caller[A, R]] = []
        self._led = False

    def __call__(self, asked: A) -> R:
        """The result for what is asked; raises what the work of its group raises."""
        mine = _Caller[A, R](asked)
        with self._gate:
            self._queue.append(mine)
            waits, self._led = self._led, True
        if waits:
            mine.wake.acquire()
        if not mine.served:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return cast(R, mine.answer)

    def _lead(self, mine: _Caller[A, R]) -> None:
        with self._gate:
            group, self._queue = self._queue[: self._most], self._queue[self._most :]
        try:
            end = self._begin([one.asked for one in group])
        except BaseException as error:  # noqa: BLE001 - handed to every caller of the group, who raise it
            self._hand_on()
            _fail(group, error)
        else:
            self._hand_on()
            _serve(group, end)
        for one in group:
            if one is not mine:
                one.wake.release()

    def _hand_on(self) -> None:
        """The first of those who came meanwhile leads next."""
        with self._gate:
            if self._queue:
                self._queue[0].wake.release()
            else:
                self._led = False


def _serve(group: Sequence[_Caller[A, R]], end: Callable[[], Sequence[R]]) -> None:
    try:
        for one, answer in zip(group, end(), strict=True):
            one.answer, one.served = answer, True
    except BaseException as error:  # noqa: BLE001 - likewise
        _fail(group, error)


def _fail(group: Sequence[_Caller[A, R]], error: BaseException) -> None:
    for one in group:
        # Tracebacks grow where an exception is raised, so no two callers may raise the same.
        one.error, one.served = copy(error), True
