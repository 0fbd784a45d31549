"""Two nodes of a Ray cluster on this machine, one of which can be killed. Only ``onray`` and this import Ray."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Nobody else on the network may use the cluster. Read when Ray starts, here and in what is started from here.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

from optimizer.cli import onray  # noqa: F401 - it says what is missing, and that nothing is to be reported

# isort: split
from ray.cluster_utils import Cluster

#: A dead node is noticed in seconds and not in half a minute; a slow one is not dead.
_QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
#: What is under way is small.
_STORE_BYTES = 100 << 20


class Nodes:
    """The cluster: the head, on which commands run, and another node."""

    def __init__(self, processors: int) -> None:
        """Starts both, with so many processors each."""
        self._processors = processors
        self._cluster = Cluster()
        self._add(_system_config=_QUICK)
        self._other = self._add()

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self._cluster.address)

    def kill(self) -> None:
        """Kills the other node by SIGKILL; what runs there dies with it."""
        self._other.all_processes["raylet"][0].process.kill()

    def replace(self) -> None:
        """Clears away what is left of the killed node and starts a new one."""
        self._cluster.remove_node(self._other, allow_graceful=False)
        self._other = self._add()

    def stop(self) -> None:
        """Stops everything."""
        self._cluster.shutdown()  # type: ignore[no-untyped-call]

    def _add(self, **more: Any) -> Any:
        return self._cluster.add_node(
            num_cpus=self._processors,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            **more,
        )


@contextmanager
def two_nodes(processors: int) -> Iterator[Nodes]:
    """The cluster, for the length of the block."""
    nodes = Nodes(processors)
    try:
        yield nodes
    finally:
        nodes.stop()
