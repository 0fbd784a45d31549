"""Callers that come at the same time are served together, each with its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from optimizer.service.together import Together


class Work:
    """Doubles numbers; the first group waits until it is let go."""

    def __init__(self, fails: Callable[[Sequence[int]], bool] = lambda group: False) -> None:  # noqa: ARG005
        self.groups: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self._fails = fails

    def begin(self, asked: Sequence[int]) -> Callable[[], Sequence[int]]:
        self.groups.append(list(asked))
        self.begun.set()
        if len(self.groups) == 1:
            assert self.go.wait(10)
        if self._fails(asked):
            raise ValueError(f"no {sum(asked)}")
        return lambda: [2 * one for one in asked]


def waiting(together: Together[int, int], count: int) -> None:
    """Returns once so many callers wait for the first group to begin."""
    while True:
        with together._gate:
            if len(together._queue) == count:
                return


def test_who_comes_alone_is_served_at_once() -> None:
    work = Work()
    work.go.set()
    together = Together(work.begin, 8)
    assert [together(one) for one in (1, 2, 3)] == [2, 4, 6]
    assert work.groups == [[1], [2], [3]]


def test_who_comes_meanwhile_is_served_in_the_next_groups_in_order() -> None:
    work = Work()
    together = Together(work.begin, 4)
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


@pytest.mark.parametrize("late", [False, True])
def test_a_group_that_fails_fails_alone_and_each_caller_has_its_own_error(late: bool) -> None:
    work = Work(fails=lambda group: not late and 1 in group)

    def begin(asked: Sequence[int]) -> Callable[[], Sequence[int]]:
        end = work.begin(asked)

        def failing() -> Sequence[int]:
            raise ValueError(f"no {sum(asked)}")

        return failing if late and 1 in asked else end

    together = Together(begin, 4)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(together, 0)
        assert work.begun.wait(10)
        others = []
        for one in (1, 2):
            others.append(pool.submit(together, one))
            waiting(together, one)
        work.go.set()
        assert first.result(10) == 0
        errors = [f.exception(10) for f in others]
    assert [str(error) for error in errors] == ["no 3", "no 3"]
    assert errors[0] is not errors[1]
    assert together(9) == 18


def test_nobody_gets_another_ones_answer_under_load() -> None:
    def begin(asked: Sequence[int]) -> Callable[[], Sequence[int]]:
        return lambda: [one + 1 for one in asked]

    together = Together(begin, 5)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(together, range(5_000))) == list(range(1, 5_001))
