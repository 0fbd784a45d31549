"""Opens the service once a process, on first use or when told to warm up: never before the fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from optimizer.config import Settings
from optimizer.service.wiring import Services


class ServiceHolder:
    """``app.extensions["sendtide"]``: the service of this process. Safe between threads and across forks."""

    def __init__(self, settings: Settings, open_services: Callable[[], Services]) -> None:
        self.settings = settings
        self._open = open_services
        self._lock = threading.Lock()
        self._services: Services | None = None
        self._pid = 0

    def get(self) -> Services:
        """The service, opened when this process has none yet.

        Raises:
            StoreError: the store can't be opened.
        """
        services = self._services
        if services is not None and self._pid == os.getpid():
            return services
        with self._lock:
            if self._services is None or self._pid != os.getpid():
                # What a parent process opened is the parent's: it is dropped here, not closed.
                self._services = self._open()
                self._pid = os.getpid()
            return self._services

    @property
    def opened(self) -> Services | None:
        """The service if this process has opened it; opens nothing."""
        return self._services if self._pid == os.getpid() else None

    def warm(self) -> None:
        """Opens the service now, so that the first request doesn't wait for it (gunicorn's ``post_fork``)."""
        self.get()

    def close(self) -> None:
        """Closes what this process opened (gunicorn's ``worker_exit``); the next ``get`` would open anew."""
        with self._lock:
            if self._services is not None and self._pid == os.getpid():
                self._services.close()
            self._services = None
