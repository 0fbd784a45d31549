"""``sendtide serve`` as a child process for the length of a ``with`` block."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from optimizer.config import Settings
from optimizer.errors import SendtideError

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerError(SendtideError):
    """The server didn't start, or ended by itself; the detail holds the end of its log."""

    code = "server_failed"


class Server:
    """Runs the service as configured; ready when the block is entered, stopped with its children when it is left."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """``folder`` is where its log goes and where it runs."""
        self._settings = settings
        self._folder = folder
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        """Starts it and waits until it is ready (``ServerError`` when it isn't within a minute)."""
        with self._log.open("wb") as log:
            # Its own process group, so that workers and scheduler can't outlive a server that was killed.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "optimizer.cli", "serve"],
                env=self._settings.child_environment(os.environ),
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self._stop()

    @property
    def pid(self) -> int:
        """The main process."""
        if self._process is None:
            raise ServerError("the server was not started")
        return self._process.pid

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise ServerError(f"sendtide serve ended with {process.returncode} at its start: {self._tail()}")
            if self._is_ready():
                return
            time.sleep(0.1)
        raise ServerError(f"sendtide serve was not ready within {START_SECONDS:g} s: {self._tail()}")

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self._settings.bind, timeout=5.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def free_port() -> int:
    """A TCP port of this host that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
