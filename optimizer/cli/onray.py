"""Ray, which is an extra: commands import this module where they were told ``--ray``, and no other part imports Ray.

Nothing here knows what is worked on. Ray places the work and does again what a lost node had under way; so whatever is
called must bear being called twice.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Generic, TypeVar

from optimizer.errors import ConfigError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at the import; Ray would tell its makers of each cluster

try:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as fault:
    raise ConfigError(f"--ray needs {fault.name}: pip install 'sendtide[ray]', on every node of the cluster") from None

A = TypeVar("A")
B = TypeVar("B")

#: Seconds to reach a cluster's head in. Ray itself would try for minutes.
REACH_SECONDS = 5.0
#: Calls that an actor is given at a time: one that it works on, and the next.
DEPTH = 2
_HINT = " (if the cluster wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)"


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a cluster for the length of the block; what Ray prints meanwhile goes to standard error.

    Args:
        address: HOST:PORT of the cluster's head, of which this machine is a node; "auto": the cluster that runs on this
            machine; "local": one of this machine alone, for the block; "": what RAY_ADDRESS names, else the cluster
            that runs on this machine, else "local".

    Raises:
        ConfigError: no such cluster, or one of other versions of Ray or Python.
        What the work raises, as it was raised where it ran.
    """
    if ":" in address:
        _reach(address)
    with redirect_stdout(sys.stderr):
        try:
            ray.init(
                address=address or None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as fault:
            hint = "" if "RAY_AUTH_MODE" in os.environ else _HINT
            raise ConfigError(f"--ray: {fault}{hint}") from fault
        try:
            yield
        except RayTaskError as fault:
            if isinstance(fault.cause, Exception):
                raise fault.cause from None
            raise ConfigError(f"--ray: {fault}") from fault
        except RayError as fault:
            raise ConfigError(f"--ray: {fault}") from fault
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as fault:
        raise ConfigError(f"--ray: nothing answers at {address}: {fault.strerror or fault}") from None


def nodes() -> list[tuple[str, int]]:
    """The living nodes that work can be placed on: id, and how many processors it offers. This one comes first."""
    here = ray.get_runtime_context().get_node_id()
    offered = [(str(n["NodeID"]), int(n["Resources"].get("CPU", 0))) for n in _alive()]
    return sorted([one for one in offered if one[1] > 0], key=lambda one: (one[0] != here, one[0]))


def alone() -> bool:
    """Whether this machine is all of the cluster."""
    return len(_alive()) == 1


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # ray leaves it untyped


def each(work: Callable[[A], B], arguments: Sequence[A], on_done: Callable[[int], None] | None = None) -> list[B]:
    """``work`` of each argument, in tasks of one processor; the results in order.

    Args:
        work: picklable; the same for the same argument, wherever and however often it is called.
        arguments: of the calls.
        on_done: told how many are done, after each.
    """
    shared = ray.put(work)
    results = [_task.remote(shared, one) for one in arguments]
    left = list(results)
    while left:
        _, left = ray.wait(left, num_returns=1)
        if on_done is not None:
            on_done(len(results) - len(left))
    found: list[B] = ray.get(results)
    return found


@ray.remote(max_retries=-1)
def _task(work: Callable[[Any], Any], argument: Any) -> Any:
    return work(argument)


class Holder:
    """An actor: it makes what its calls need when the first one comes, and keeps it."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make = make
        self._made: Callable[[Any], Any] | None = None

    def call(self, argument: Any) -> Any:
        """The answer of what was made."""
        if self._made is None:
            self._made = self._make()
        return self._made(argument)


class Crew(Generic[A, B]):
    """Actors, one for each processor of the cluster, that each hold something costly to make.

    One whose node is lost is made anew on another node, also where that is busy already, and does again what it had
    under way: actors take up a processor when they are placed, not while they live.
    """

    def __init__(self, make: Callable[[], Callable[[A], B]]) -> None:
        """``make`` gives the function that answers; picklable, and called once in each actor."""
        actor = ray.remote(max_restarts=-1, max_task_retries=-1)(Holder)
        found = [
            actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(make)
            for node, processors in nodes()
            for _ in range(processors)
        ]
        if not found:
            raise ConfigError("--ray: no node of the cluster offers a processor")
        self.size = len(found)
        self._free: deque[Any] = deque(found * DEPTH)
        self._waiting: deque[A] = deque()
        self._under_way: dict[Any, tuple[Any, A]] = {}

    def submit(self, argument: A) -> None:
        """Has an argument answered as soon as an actor is free."""
        self._waiting.append(argument)
        self._place()

    def next(self) -> tuple[A, B]:
        """Some argument that was submitted, with its answer, as soon as there is one."""
        done, _ = ray.wait(list(self._under_way), num_returns=1)
        actor, argument = self._under_way.pop(done[0])
        self._free.append(actor)
        self._place()
        answer: B = ray.get(done[0])
        return argument, answer

    def _place(self) -> None:
        while self._waiting and self._free:
            actor, argument = self._free.popleft(), self._waiting.popleft()
            self._under_way[actor.call.remote(argument)] = (actor, argument)
