"""The threads on which the scheduler process pushes changes to webhook endpoints, and whose turn it is to have one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from optimizer.guarded import guarded
from optimizer.service import pushing
from optimizer.service.wiring import Services
from storage.endpoints import Endpoint

#: Webhook endpoints that are pushed to at once, and how many of one workspace: others always find a free thread.
PUSH_THREADS, PUSH_THREADS_EACH = 10, 8
#: Seconds after which an endpoint makes room for one that waits; the change that is under way then is ended first.
PUSH_TURN = 5.0


@dataclass
class Pusher:
    """Pushes changes to webhook endpoints, each on a thread of its own, so that a slow one holds up no other.

    Where there are more endpoints than threads they take turns: first those of the workspace with the fewest threads,
    then those that were not served for longest. The threads are daemons: a process that is told to stop waits for no
    receiver. What was sent and not noted is sent again, under the same id.
    """

    services: Services
    holder: str
    stopping: bool = False
    busy: dict[tuple[str, str], threading.Thread] = field(default_factory=dict)
    #: Endpoints of each workspace that have something waiting, and no thread.
    waiting: dict[str, list[Endpoint]] = field(default_factory=dict)
    #: When an endpoint's last turn ended, by the monotonic clock.
    served: dict[tuple[str, str], float] = field(default_factory=dict)

    def look(self, workspace_id: str) -> None:
        """Notes which endpoints of a workspace have something waiting, and starts pushing to whose turn it is in any
        workspace; returns at once."""
        with self.services.store.read() as reader:
            found = pushing.due(reader, workspace_id, self.services.clock())
        self.waiting[workspace_id] = [one for one in found if (workspace_id, one.endpoint_id) not in self.busy]
        while not self.stopping and (endpoint := self._next()) is not None:
            self.waiting[endpoint.workspace_id].remove(endpoint)
            key = (endpoint.workspace_id, endpoint.endpoint_id)
            thread = threading.Thread(target=self._push, args=(key, endpoint), name="push", daemon=True)
            self.busy[key] = thread
            thread.start()

    def _next(self) -> Endpoint | None:
        """Whose turn it is; None: nobody waits, or there is no thread."""
        busy = list(self.busy)  # threads that end take themselves out
        of = Counter(workspace_id for workspace_id, _ in busy)
        free = [w for w, waiting in self.waiting.items() if waiting and of[w] < PUSH_THREADS_EACH]
        if len(busy) >= PUSH_THREADS or not free:
            return None
        workspace_id = min(free, key=lambda w: (of[w], min(map(self._served, self.waiting[w]))))
        return min(self.waiting[workspace_id], key=self._served)

    def _served(self, endpoint: Endpoint) -> float:
        return self.served.get((endpoint.workspace_id, endpoint.endpoint_id), -1e9)

    def _push(self, key: tuple[str, str], endpoint: Endpoint) -> None:
        until = time.monotonic() + PUSH_TURN

        def going_on() -> bool:
            return not self.stopping and (time.monotonic() < until or not any(list(self.waiting.values())))

        try:
            guarded("push", lambda: pushing.push(self.services, endpoint, self.holder, going_on), key[0])
        finally:
            self.served[key] = time.monotonic()
            del self.busy[key]
