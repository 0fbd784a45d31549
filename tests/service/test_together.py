"""Callers that come at the same time are served together, each with its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from optimizer.service.together import Together
from storage.errors import StoreUnavailable


class Work:
    """Doubles numbers; the first group waits until it is let go."""

    def __init__(
        self,
        fails: Callable[[Sequence[int]], bool] = lambda group: False,  # noqa: ARG005
        error: type[Exception] = ValueError,
    ) -> None:
        self.groups: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self._fails, self._error = fails, error

    def __call__(self, asked: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(asked))
        self.begun.set()
        if len(self.groups) == 1:
            assert self.go.wait(10)
        if self._fails(asked):
            raise self._error(f"no {sum(asked)}")
        return [2 * one for one in asked]


def waiting(together: Together[int, int], count: int) -> None:
    """Returns once so many callers wait for the first group to end."""
    while True:
        with together._gate:
            if len(together._queue) == count:
                return


def test_who_comes_alone_is_served_at_once() -> None:
    work = Work()
    work.go.set()
    together = Together(work, 8)
    assert [together(one) for one in (1, 2, 3)] == [2, 4, 6]
    assert work.groups == [[1], [2], [3]]


def test_who_comes_meanwhile_is_served_in_the_next_groups_in_order() -> None:
    work = Work()
    together = Together(work, 4)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(together, 0)
        assert work.begun.wait(10)
        others = []
        for one in range(1, 7):
            others.append(pool.submit(together, one))
            waiting(together, one)
        work.go.set()
        assert [f.result(10) for f in (first, *others)] == [0, 2, 4, 6, 8, 10, 12]
    assert work.groups == [[0], [1, 2, 3, 4], [5, 6]]
    assert together(9) == 18


def test_a_group_that_fails_fails_alone_and_each_caller_has_its_own_error() -> None:
    work = Work(fails=lambda group: 1 in group)
    together = Together(work, 2)
    first, second, third = in_three_groups(together, work)
    assert first == [0]
    assert [str(error) for error in second] == ["no 3", "no 3"]
    assert second[0] is not second[1]
    assert third == [6, 8]
    assert together(9) == 18


def test_who_waits_while_the_store_refuses_is_refused_with_the_group() -> None:
    work = Work(fails=lambda group: 0 in group, error=StoreUnavailable)
    together = Together(work, 2)
    first, second, third = in_three_groups(together, work)
    errors = [*first, *second, *third]
    assert all(isinstance(error, StoreUnavailable) and str(error) == "no 0" for error in errors)
    assert len({id(error) for error in errors}) == 5
    assert work.groups == [[0]]
    assert together(9) == 18


def in_three_groups(together: Together[int, int], work: Work) -> list[list[int | BaseException]]:
    """What becomes of 0, of 1 and 2 that come meanwhile, and of 3 and 4: answers, or errors."""
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(together, 0)]
        assert work.begun.wait(10)
        for one in range(1, 5):
            futures.append(pool.submit(together, one))
            waiting(together, one)
        work.go.set()
        ended: list[int | BaseException] = [f.exception(10) or f.result(10) for f in futures]
    return [ended[:1], ended[1:3], ended[3:]]


def test_nobody_gets_another_ones_answer_under_load() -> None:
    together: Together[int, int] = Together(lambda asked: [one + 1 for one in asked], 5)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(together, range(5_000))) == list(range(1, 5_001))
