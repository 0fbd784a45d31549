"""``sendtide export``: the log as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress
from optimizer.cli.times import time_of

if TYPE_CHECKING:
    from optimizer.service.exports import What


@click.command(epilog=EXIT_CODES)
@click.argument("what", type=click.Choice(["decisions", "feedback", "recipient"]))
@option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="FILE.parquet or FILE.ndjson.")
@option("--campaign", help="Only this campaign's rows.")
@option("--recipient", help="Whose data; `export recipient` needs it.")
@option("--since", help="Only decisions made from this date or time on (UTC unless it says otherwise).")
@option("--until", help="Only decisions made before this time.")
@command()
def export(
    call: Call, what: What, out: Path, campaign: str | None, recipient: str | None, since: str | None, until: str | None
) -> None:
    """Write the log to a file that appears when it is whole.

    \b
    decisions  one row a decision: what was chosen, why, what became of it
    feedback   logged bandit feedback: context, eligible actions, the whole probability vector, propensity, reward,
               outcomes; action a = (variant * slots + slot) * channels + channel, no_send last
    recipient  everything that is stored of one person
    """
    from optimizer.service.exports import Selection
    from optimizer.service.exports import export as write

    if what == "recipient" and recipient is None:
        raise click.UsageError("missing: --recipient ID; `export recipient` writes one person's data")
    if what != "recipient" and recipient is not None:
        raise click.UsageError(f"--recipient goes with `export recipient` alone, not with `export {what}`")
    if what == "recipient" and (campaign or since or until):
        raise click.UsageError("`export recipient` writes everything: no --campaign, --since or --until")
    selection = Selection(campaign, recipient, time_of("--since", since), time_of("--until", until))
    with call.services() as services, progress(f"export {what}") as on_progress:
        rows = write(services, call.workspace, what, out, selection, lambda done: on_progress(done, None))
    call.answer({"rows": rows, "file": click.format_filename(out)}, f"{rows} rows in {out}")
