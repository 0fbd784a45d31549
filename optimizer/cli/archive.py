"""``sendtide archive``: old decisions moved into Parquet files."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.errors import ConfigError


@click.command(epilog=EXIT_CODES)
@option(
    "--before",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m"]),
    help="Only whole months before this date (UTC). [default: by --archive-days]",
)
@option("--dry-run", is_flag=True, help="Only say how much would go.")
@command(settings=("archive_days", "archive_folder"))
def archive(call: Call, before: datetime | None, *, dry_run: bool) -> None:
    """Move old decisions into Parquet files, so that the database stays small.

    Whole months go, as far as their decisions are closed and no outcome can change their reward any more. Reports,
    trainings, exports, the audit and every lookup read both. The scheduler does the same by --archive-days.
    """
    from optimizer.service.archiving import archive as move
    from optimizer.service.archiving import latest

    if before is None and call.settings.archive_days == 0:
        raise ConfigError("archive: name a date by --before, or an age by --archive-days")
    with call.services() as services:
        until = latest(services) if before is None else before.replace(tzinfo=UTC)
        done = move(services, call.workspace, until, dry_run=dry_run)
    went = f"{done.decisions:,} decisions and {done.events:,} events"
    where = f"went into {done.files} files, {done.bytes:,} bytes"
    call.answer(asdict(done), f"{went} {'would go' if dry_run else where}")
