"""``sendtide schedule``: the scheduler process alone."""

from __future__ import annotations

import click

from optimizer.cli.call import Call, command
from optimizer.cli.group import EXIT_CODES

#: The settings of the scheduler that have flags.
SCHEDULE = (
    "retrain_minutes",
    "refresh_seconds",
    "expire_seconds",
    "retention_days",
    "archive_days",
    "archive_folder",
    "report_folder",
    "push_seconds",
    "private_webhooks",
    "gate",
    "encoder",
    "train_memory_mib",
    "log_level",
    "log_format",
)


@click.command(epilog=EXIT_CODES)
@click.option("--parent", type=int, hidden=True, allow_from_autoenv=False, help="Stop when this process is gone.")
@command(workspace=False, settings=SCHEDULE)
def schedule(call: Call, parent: int | None) -> None:
    """Run the scheduler: refreshes, retrains, expiry of reservations, webhooks, retention.

    `serve` runs one beside the API. On many hosts run any number: leases let one of them work on a workspace. It stops
    within 5 seconds of SIGTERM or SIGINT.
    """
    from optimizer import logs
    from optimizer.scheduler import Scheduler

    logs.configure(call.settings.log_level, call.settings.log_format)
    with call.services() as services:
        Scheduler(services, parent=parent).run()
