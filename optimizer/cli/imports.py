"""``sendtide import``: files of recipients, history and events."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from optimizer.cli.call import Call, command, option, require_some, tell
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress

if TYPE_CHECKING:
    from optimizer.service.importtargets import BadRow, Kind


@click.command(name="import", epilog=EXIT_CODES)
@click.argument("kind", type=click.Choice(["recipients", "history", "events"]))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option("--strict", is_flag=True, help="Stop at the first bad row; without it bad rows are reported and left out.")
@option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON or TOML that says how the file's columns become these.",
)
@command()
def import_(call: Call, kind: Kind, file: Path, *, strict: bool, mapping: Path | None) -> None:
    """Import FILE: CSV with a header, NDJSON or Parquet, by its suffix (.csv, .ndjson or .jsonl, .parquet; .gz too).

    \b
    recipients  recipient_id, timezone, attributes.NAME, channels.NAME (true or false),
                suppressed (JSON list of {"channel", "category"}). A row replaces the recipient.
    history     recipient_id, campaign_id, variant_id, channel, send_at, decided_at, propensity,
                context.NAME, outcome.NAME (empty or 0: did not happen; a number: its value; a time: when).
                A row without variant_id is a decision not to send. Rows without a positive propensity
                (at least 1e-12) are trained on and left out of off-policy evaluation. Refusals in it
                suppress nobody.
                A decision is stored with what its recipient had done before it, as far as that is known
                by then: so import events first, and a history oldest first.
    events      type, occurred_at, one of decision_id, request_id, provider + message_id, recipient_id;
                event_id, campaign_id, value, automated, hard, refuses, properties.NAME.

    \b
    A mapping has, all optional:
    columns     our column = theirs; a path with dots reaches into NDJSON objects
    constants   our column = its value in every row
    formats     our column = "unix", "unix_ms" or a strptime pattern, or a table with some of
                time, timezone (of times without an offset), decimal, thousands, values (theirs = ours)
    ignore      their columns to leave out; true: all that columns doesn't name

    A killed import goes on where it stopped when it is called again. The same events or history again add nothing;
    recipients are replaced again, whatever was changed since. Each bad row is reported on standard error with its line
    (its number, in Parquet), and tried again with the same file; where all rows are bad, the exit code is 1. Columns
    that are none of these, in the file or the mapping, are told once.
    """
    from optimizer.service.imports import import_file
    from optimizer.service.mapping import read_mapping

    def on_bad(bad: BadRow) -> None:
        where = f"{file}:{bad.line}: {bad.error.detail}"
        if call.as_json:
            tell(bad.error.code, where, bad.error.errors, as_json=True)
        else:
            call.note(where)

    how = None if mapping is None else read_mapping(mapping)
    with call.services() as services, progress(f"import {kind}") as on_progress:
        report = import_file(
            services, call.workspace, kind, file, mapping=how, strict=strict, on_bad=on_bad, on_progress=on_progress
        )
    resumed = f", {report.resumed} from an earlier run" if report.resumed else ""
    call.answer(
        asdict(report), f"{report.rows} rows: {report.stored} stored, {report.known} known, {report.bad} bad{resumed}"
    )
    require_some(report.stored + report.known + report.resumed, report.bad, "their reasons stand above")
