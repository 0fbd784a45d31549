"""``sendtide serve``: the API and the scheduler."""

from __future__ import annotations

import errno
import os
import socket
import sys

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.errors import Conflict

#: The settings that have flags here; the others are set by their variables.
SERVE = (
    "bind",
    "workers",
    "threads",
    "scheduler",
    "log_level",
    "log_format",
    "public_url",
    "retrain_minutes",
    "refresh_seconds",
    "expire_seconds",
    "reload_seconds",
    "retention_days",
    "archive_days",
    "archive_folder",
    "report_folder",
    "push_seconds",
    "private_webhooks",
    "gate",
    "encoder",
    "personalizer_unknown_events",
    "train_memory_mib",
    "metrics_dir",
    "metrics_token",
    "max_body_bytes",
    "max_batch_bytes",
    "max_batch_rows",
    "seed",
)


@click.command(epilog=EXIT_CODES)
@option("--first-start", is_flag=True, help="Make a first key and an example campaign where they are missing.")
@command(workspace=False, settings=SERVE)
def serve(call: Call, *, first_start: bool) -> None:
    """Serve the API, and run the scheduler beside it.

    The store is brought up to date once, before the first worker starts. SIGTERM or SIGINT lets requests in flight end
    and stops everything within 10 seconds. A worker or scheduler that dies is started again.
    """
    from optimizer.first_start import WORKSPACE, prepare
    from optimizer.metricsfolder import require_metrics_alone
    from optimizer.service.setup import ensure_workspace

    _require_free(call.settings.bind)
    with call.services(create=True) as services:
        ensure_workspace(services, WORKSPACE)
        if first_start:
            prepare(services)
    if call.settings.metrics_dir is not None:  # the database is there by now
        require_metrics_alone(call.settings.metrics_dir)
    # From here on this process is another program: no connection, thread or module of ours is left when it forks.
    become = [sys.executable, "-P", "-m", "optimizer.gunicorn", *(["--first-start"] if first_start else [])]
    # Else glibc gives threads up to eight heaps a core, and each keeps what it once needed.
    environment = {"MALLOC_ARENA_MAX": "2", **call.settings.child_environment(os.environ)}
    os.execve(sys.executable, become, environment)  # noqa: S606  our own program


def _require_free(bind: str) -> None:
    """Refuses an address that can't be listened on: gunicorn would say so after seconds of trying, in its log.

    Raises:
        Conflict: somebody listens there already, or the address is none of this machine's.
    """
    if "LISTEN_FDS" in os.environ:  # systemd listens there for us
        return
    host, _, port = bind.rpartition(":")
    with socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does, just after another one ended
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            told = "already in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise Conflict(f"--bind {bind}: {told}", code="bind") from error
