"""The API under gunicorn, with the scheduler as a child of the same arbiter: ``python -m optimizer.gunicorn``.

``sendtide serve`` prepares the store and then becomes this process, so that nothing opened before (connections,
threads, sessions) is there when workers fork. Every worker opens its own in ``post_worker_init``.

The scheduler is looked after in the arbiter's own loop, not in a thread: a fork beside a running thread can leave the
worker with a lock that nobody holds.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from optimizer import logs
from optimizer.bandit import kernel
from optimizer.config import Settings
from optimizer.first_start import banner
from optimizer.metricsfolder import require_metrics_alone

log = logging.getLogger("sendtide.serve")

METRICS = "PROMETHEUS_MULTIPROC_DIR"
#: Products in a worker are small and its threads are requests: threads of BLAS beside them would only be in the way.
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
#: Seconds that requests in flight get to end after SIGTERM; then workers are killed.
GRACEFUL_SECONDS = 7
#: Seconds that the scheduler gets, counted from SIGTERM; it promises five.
SCHEDULER_SECONDS = 8.0
#: Seconds before a dead scheduler is started again: doubled with every quick death, up to the last.
BACK_OFF = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: A scheduler that lived this many seconds died for a new reason.
_LONG_LIVED = 60.0


@dataclass
class SchedulerChild:
    """The scheduler process: started, started again when it dies, stopped with the arbiter."""

    start: Callable[[], subprocess.Popen[bytes]]
    clock: Callable[[], float] = time.monotonic
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    stopping: bool = False
    on_death: Callable[[int], None] = field(default=lambda pid: None)  # noqa: ARG005  a hook that nobody set

    def reap(self) -> None:
        """Notes a death; must come before gunicorn's ``waitpid(-1)``, which would swallow the status."""
        if self.process is None or self.process.poll() is None:
            return
        if self.clock() - self.started_at >= _LONG_LIVED:
            self.deaths = 0
        wait = BACK_OFF[min(self.deaths, len(BACK_OFF) - 1)]
        self.deaths += 1
        self.start_at = self.clock() + wait
        if not self.stopping:
            log.error(
                "scheduler died", extra={"child": self.process.pid, "code": self.process.returncode, "wait": wait}
            )
        self.on_death(self.process.pid)
        self.process = None

    def tend(self) -> None:
        """Starts the scheduler when there is none and it is time."""
        self.reap()
        if self.process is None and not self.stopping and self.clock() >= self.start_at:
            self.started_at = self.clock()
            self.process = self.start()
            log.info("scheduler started", extra={"child": self.process.pid})

    def terminate(self) -> None:
        """Tells it to stop; it is not started again."""
        self.stopping = True
        if self.process is not None:
            self.process.terminate()

    def wait(self, seconds: float) -> None:
        """Waits for its end; kills it after ``seconds``."""
        if self.process is None:
            return
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.error("scheduler did not stop in time and is killed", extra={"child": self.process.pid})
            self.process.kill()
            self.process.wait()
        self.process = None


class ServeArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's arbiter that also looks after the scheduler, at the places where it looks after its workers."""

    scheduler: SchedulerChild | None = None

    def manage_workers(self) -> None:
        """Keeps the number of workers, and one scheduler."""
        super().manage_workers()
        if self.scheduler is not None:
            self.scheduler.tend()

    def reap_workers(self) -> None:
        """Collects dead children."""
        if self.scheduler is not None:
            self.scheduler.reap()
        super().reap_workers()

    def stop(self, graceful: bool = True) -> None:
        """Stops workers and scheduler side by side."""
        since = time.monotonic()
        if self.scheduler is not None:
            self.scheduler.terminate()
        super().stop(graceful)
        if self.scheduler is not None:
            self.scheduler.wait(max(0.1, SCHEDULER_SECONDS - (time.monotonic() - since)))


class StructuredLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own messages in the form of ours. Access is logged by the application, which knows request ids."""

    def setup(self, cfg: Any) -> None:
        """Sets gunicorn's logger up, then lets its messages through to ours."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


#: Status and code of what gunicorn refuses before there is a request; all else is 400, ``unreadable``.
_REFUSALS: dict[type[Exception], tuple[int, str]] = {
    http.LimitRequestLine: (414, "uri_too_long"),
    http.LimitRequestHeaders: (431, "headers_too_large"),
    http.ExpectationFailed: (417, "expectation_failed"),
    http.UnsupportedTransferCoding: (501, "unsupported_transfer_coding"),
}


class ProblemWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's worker with threads; what it refuses itself, since it is no HTTP, leaves as a problem, too."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answers what couldn't be read as a request; what befalls a request that was read is gunicorn's to tell."""
        if req is not None or not isinstance(exc, http.ParseException):
            super().handle_error(req, client, addr, exc)
            return
        name = secrets.token_hex(12)
        told = {"request_id": name, "address": (addr or [""])[0], "fault": f"{exc!s:.200}"}
        log.warning("no request could be read", extra=told)
        with contextlib.suppress(OSError):  # who asked has gone
            util.write_nonblock(client, refusal(exc, name))


def refusal(exc: http.ParseException, request_id: str) -> bytes:
    """The HTTP answer to what can't be read as a request."""
    import orjson

    from optimizer.web import problems

    status, code = next((told for kind, told in _REFUSALS.items() if isinstance(exc, kind)), (400, "unreadable"))
    document = problems.problem(status, code, f"this can't be read as HTTP/1.1: {exc!s:.200}", request_id=request_id)
    body = orjson.dumps(document)
    head = (
        f"HTTP/1.1 {status} {document['title']}",
        "Connection: close",
        f"X-Request-Id: {request_id}",
        f"Content-Type: {problems.CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*head, "", "")).encode("ascii") + body


class ServeApplication(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Settings as gunicorn's configuration."""

    def __init__(self, settings: Settings, *, first_start: bool = False) -> None:
        self.settings = settings
        self.first_start = first_start
        super().__init__()

    def load_config(self) -> None:
        """Translates the settings; nothing else (no file, no ``GUNICORN_CMD_ARGS``) has a say."""
        options = {
            "bind": [self.settings.bind],
            "workers": self.settings.workers,
            "worker_class": ProblemWorker,
            "threads": self.settings.threads,
            "preload_app": False,
            "timeout": 60,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": 10,
            "loglevel": self.settings.log_level,
            "logger_class": StructuredLogger,
            "proc_name": "sendtide",
            # Its default lies in the home folder and is shared by every instance on the machine.
            "control_socket_disable": True,
            "when_ready": self.when_ready,
            "post_worker_init": post_worker_init,
            "child_exit": child_exit,
            "worker_exit": worker_exit,
        }
        for name, value in options.items():
            # Versions before 25.1 have no control socket, and nothing to disable.
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application, made in the worker; numpy is imported with it and reads the environment then."""
        os.environ.setdefault(BLAS_THREADS, "1")
        from optimizer.web import create_app

        return create_app(self.settings)

    def when_ready(self, arbiter: Any) -> None:  # noqa: ARG002  gunicorn calls hooks with it
        """The sockets listen: what is said to people now is true."""
        if self.first_start:
            print(banner(self.settings), flush=True)

    def run(self) -> None:
        """Serves until told to stop; then leaves by ``SystemExit``."""
        arbiter = ServeArbiter(self)
        if self.settings.scheduler:
            arbiter.scheduler = SchedulerChild(self._start_scheduler, on_death=forget_metrics)
        arbiter.run()

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "optimizer.cli", "schedule", "--parent", str(os.getpid())]
        environment = self.settings.child_environment(os.environ)
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)  # noqa: S603  our own command


def post_worker_init(worker: Any) -> None:
    """Opens the service before the first request. A store that is away now may be back then: no reason to give up."""
    from storage.errors import StoreUnavailable

    try:
        worker.wsgi.extensions["sendtide"].warm()
    except StoreUnavailable as fault:
        log.error("store not opened; /readyz says so until it is", extra={"fault": str(fault)})
    # What is there now stays. Without this a batch of 10,000 rows has all of it looked through again and again.
    gc.collect()
    gc.freeze()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn calls hooks with it
    """Closes the worker's store. A worker that failed to boot has no application."""
    application = getattr(worker, "wsgi", None)
    if application is not None:
        application.extensions["sendtide"].close()


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn calls hooks with it
    """Takes a dead worker's live gauges out of ``/metrics``."""
    forget_metrics(worker.pid)


def forget_metrics(pid: int) -> None:
    """Takes a dead process's live gauges out of ``/metrics``."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped


def prepare_metrics(folder: str | None) -> tuple[Path, bool]:
    """Makes the folder of metric files, without those of dead processes; True when it is ours to remove at the end.

    Raises:
        ConfigError: as ``require_metrics_alone``; nothing is removed.
    """
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="sendtide-metrics-")), True
    require_metrics_alone(folder)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for stale in path.glob("*.db"):
        stale.unlink(missing_ok=True)
    return path, False


def main(arguments: Sequence[str] = ()) -> None:
    """Serves with the settings of the environment; ``--first-start`` greets. The store is prepared already."""
    settings = Settings.from_environment(os.environ)
    logs.configure(settings.log_level, settings.log_format)
    if not kernel.available:
        log.warning("no compiled loops: choosing takes twice as long; a C compiler and make install change that")
    folder, ours = prepare_metrics(settings.metrics_dir)
    # Before anything imports prometheus_client: it chooses its kind of storage at import.
    os.environ[METRICS] = str(folder)
    owner = os.getpid()
    try:
        ServeApplication(settings, first_start="--first-start" in arguments).run()
    finally:
        if ours and os.getpid() == owner:  # workers leave through here too
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
