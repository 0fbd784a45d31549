"""Group commit alone, on a made-up transaction: who shares a commit, who hears of which failure."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from storage import group_commit
from storage.errors import StoreUnavailable
from storage.group_commit import GroupCommit, TransactionLostError

Work = Callable[[list[str]], Any]


class Recorder:
    """A transaction that keeps lists; ``begin`` waits until the test lets it go on, others have their turn till then.

    With ``free`` nobody else has a turn.
    """

    def __init__(self, *, free: bool = False) -> None:
        self.free = free
        self.go_on = threading.Event()
        self.begun = threading.Event()
        self.open: list[str] = []
        self.commits: list[list[str]] = []
        self.aborts = 0
        self.closed = False
        self.begin_error: Exception | None = None
        self.commit_error: Exception | None = None

    def begin(self) -> None:
        self.begun.set()
        assert self.go_on.wait(20)
        if self.begin_error is not None:
            raise self.begin_error
        self.open = []

    def begin_at_once(self) -> bool:
        if self.free:
            self.go_on.set()
            self.begin()
        return self.free

    def run(self, work: Work) -> Any:
        before = list(self.open)
        try:
            return work(self.open)
        except BaseException:
            self.open = before
            raise

    def commit(self) -> None:
        if self.commit_error is not None:
            raise self.commit_error
        self.commits.append(self.open)

    def abort(self) -> None:
        self.aborts += 1

    def close(self) -> None:
        self.closed = True


class Callers:
    """Threads that submit, and the certainty that all of them wait in one group."""

    def __init__(self, pool: ThreadPoolExecutor, recorder: Recorder, group: GroupCommit[list[str]]) -> None:
        self._pool = pool
        self.recorder = recorder
        self.group = group

    def submit_together(self, *works: Work) -> list[Future[Any]]:
        """The first begins a transaction, the others queue up behind it, then it goes on."""
        futures = [self._pool.submit(self.group.submit, works[0])]
        assert self.recorder.begun.wait(20)
        for number, work in enumerate(works[1:], start=1):
            futures.append(self._pool.submit(self.group.submit, work))
            while self.group.waiting < number:
                os.sched_yield()
        self.recorder.go_on.set()
        return futures


@pytest.fixture
def callers() -> Iterator[Callers]:
    recorder = Recorder()
    group: GroupCommit[list[str]] = GroupCommit(recorder, wait_seconds=20.0, name="test-writer")
    with ThreadPoolExecutor(400) as pool:
        yield Callers(pool, recorder, group)
    recorder.go_on.set()
    assert group.close(20.0)
    assert recorder.closed


def add(name: str) -> Work:
    def work(rows: list[str]) -> str:
        rows.append(name)
        return name.upper()

    return work


def fail(name: str, error: BaseException) -> Work:
    def work(rows: list[str]) -> None:
        rows.append(name)
        raise error

    return work


def test_requests_that_wait_together_share_one_commit_in_their_order(callers: Callers) -> None:
    futures = callers.submit_together(*(add(name) for name in "abcdef"))
    assert [future.result() for future in futures] == list("ABCDEF")
    assert callers.recorder.commits == [list("abcdef")]


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)], ids=["exception", "exit"])
def test_a_failing_request_is_undone_alone(callers: Callers, error: BaseException) -> None:
    good, bad, after = callers.submit_together(add("a"), fail("b", error), add("c"))
    assert (good.result(), after.result()) == ("A", "C")
    with pytest.raises(type(error)) as raised:
        bad.result()
    assert raised.value is error
    assert callers.recorder.commits == [["a", "c"]]


def test_nothing_is_committed_when_every_request_failed(callers: Callers) -> None:
    (bad,) = callers.submit_together(fail("a", ValueError()))
    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        bad.result()
    assert (callers.recorder.commits, callers.recorder.aborts) == ([], 1)


def test_a_failing_commit_is_told_to_all_but_those_with_an_error_of_their_own(callers: Callers) -> None:
    callers.recorder.commit_error = StoreUnavailable("disk on fire")
    first, bad, last = callers.submit_together(add("a"), fail("b", ValueError("bad")), add("c"))
    errors = [first.exception(), last.exception()]
    assert all(isinstance(error, StoreUnavailable) and str(error) == "disk on fire" for error in errors)
    assert errors[0] is not errors[1]
    assert isinstance(bad.exception(), ValueError)
    assert callers.recorder.aborts == 1


def test_a_transaction_that_can_not_begin_is_told_to_all_that_wait_for_it(callers: Callers) -> None:
    callers.recorder.begin_error = StoreUnavailable("locked")
    ran: list[str] = []
    futures = callers.submit_together(*(lambda _: ran.append("!") for _ in range(5)))
    assert all(isinstance(future.exception(), StoreUnavailable) for future in futures)
    assert ran == []
    callers.recorder.begin_error = None
    assert callers.group.submit(add("a")) == "A"


def test_a_lost_transaction_takes_the_earlier_requests_along_and_later_ones_get_another(callers: Callers) -> None:
    earlier, lost, later = callers.submit_together(add("a"), fail("b", TransactionLostError("disk full")), add("c"))
    for future in (earlier, lost):
        assert isinstance(future.exception(), StoreUnavailable)
    assert isinstance(later.exception(), StoreUnavailable) or later.result() == "C"
    assert callers.group.submit(add("d")) == "D"
    assert all("a" not in commit for commit in callers.recorder.commits)


def test_a_commit_takes_a_limited_number_of_requests(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_REQUESTS", 4)
    futures = callers.submit_together(*(add(str(number)) for number in range(10)))
    assert [future.result() for future in futures] == [str(number) for number in range(10)]
    assert [len(commit) for commit in callers.recorder.commits] == [4, 4, 2]


def test_a_commit_takes_no_new_requests_after_its_time(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_SECONDS", 0.0)
    futures = callers.submit_together(*(add(str(number)) for number in range(3)))
    assert [future.result() for future in futures] == ["0", "1", "2"]
    assert [len(commit) for commit in callers.recorder.commits] == [1, 1, 1]


def test_a_request_that_waited_too_long_is_given_up_and_never_runs() -> None:
    recorder = Recorder()
    group: GroupCommit[list[str]] = GroupCommit(recorder, wait_seconds=0.05, name="test-writer")
    with pytest.raises(StoreUnavailable, match="no turn"):
        group.submit(add("a"))
    recorder.go_on.set()
    assert group.close(20.0)
    assert recorder.commits in ([], [[]])


def test_a_request_that_runs_is_waited_for_however_long_it_takes() -> None:
    recorder = Recorder()
    recorder.go_on.set()
    group: GroupCommit[list[str]] = GroupCommit(recorder, wait_seconds=0.01, name="test-writer")
    waited = threading.Event()

    def work(rows: list[str]) -> str:
        waited.wait(0.1)  # longer than the patience of its caller
        return "done"

    assert group.submit(work) == "done"
    assert group.close(20.0)


def test_closing_runs_what_is_queued_and_refuses_what_comes_after(callers: Callers) -> None:
    with ThreadPoolExecutor(1) as closer:
        first = callers._pool.submit(callers.group.submit, add("a"))
        assert callers.recorder.begun.wait(20)
        second = callers._pool.submit(callers.group.submit, add("b"))
        while callers.group.waiting < 1:
            os.sched_yield()
        closing = closer.submit(callers.group.close, 20.0)
        while callers.group.waiting < 2:
            os.sched_yield()
        with pytest.raises(StoreUnavailable, match="closed"):
            callers.group.submit(add("c"))
        callers.recorder.go_on.set()
        assert (first.result(), second.result(), closing.result()) == ("A", "B", True)
    assert callers.recorder.commits == [["a", "b"]]


@pytest.fixture
def free() -> Iterator[tuple[Recorder, GroupCommit[list[str]]]]:
    recorder = Recorder(free=True)
    group: GroupCommit[list[str]] = GroupCommit(recorder, wait_seconds=20.0, name="test-writer")
    yield recorder, group
    group.close(20.0)


Free = tuple[Recorder, GroupCommit[list[str]]]


def where(rows: list[str]) -> int:
    rows.append("here")
    return threading.get_ident()


def test_who_writes_alone_does_it_itself(free: Free) -> None:
    recorder, group = free
    assert group.submit(where) == threading.get_ident()
    assert recorder.commits == [["here"]]


def test_who_comes_while_another_caller_writes_is_served_by_the_thread(free: Free) -> None:
    recorder, group = free
    inside, go_on = threading.Event(), threading.Event()

    def slow(rows: list[str]) -> int:
        inside.set()
        assert go_on.wait(20)
        return where(rows)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: (threading.get_ident(), group.submit(slow)))
        assert inside.wait(20)
        second = pool.submit(lambda: (threading.get_ident(), group.submit(where)))
        while not (group.waiting or group._serving or second.done()):  # the thread may have taken it already
            os.sched_yield()
        go_on.set()
        asked, ran = first.result()
        assert asked == ran
        asked, ran = second.result()
        assert asked != ran
    assert recorder.commits == [["here"], ["here"]]


def test_a_write_inside_a_write_is_refused_wherever_it_runs(free: Free) -> None:
    recorder, group = free
    with pytest.raises(RuntimeError, match="inside a write"):
        group.submit(lambda _: group.submit(where))
    recorder.free = False
    with pytest.raises(RuntimeError, match="inside a write"):
        group.submit(lambda _: group.submit(where))


def test_what_goes_wrong_alone_is_undone_and_told(free: Free) -> None:
    recorder, group = free
    with pytest.raises(ValueError, match="bad"):
        group.submit(fail("a", ValueError("bad")))
    recorder.begin_error = StoreUnavailable("no such file")
    with pytest.raises(StoreUnavailable, match="no such file"):
        group.submit(where)
    recorder.begin_error, recorder.commit_error = None, StoreUnavailable("disk on fire")
    with pytest.raises(StoreUnavailable, match="disk on fire"):
        group.submit(where)
    assert (recorder.commits, recorder.aborts) == ([], 3)
    recorder.commit_error = None
    assert group.submit(where) == threading.get_ident(), "the turn was given back"


def test_a_closed_store_refuses_who_would_write_alone(free: Free) -> None:
    recorder, group = free
    assert group.close(20.0)
    assert recorder.closed
    with pytest.raises(StoreUnavailable, match="closed"):
        group.submit(where)
    assert recorder.commits == []
