"""``sendtide decide``: choices for a file of recipients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress

if TYPE_CHECKING:
    from optimizer.errors import SendtideError
    from optimizer.service.requests import DecisionRequest
    from optimizer.service.rowfiles import RowFile
    from optimizer.service.rowparts import NumberedRow
    from storage.log import Decision

#: Rows that are decided together.
CHUNK = 1000
_COLUMNS = {
    "line": "bigint",
    "decision_id": "string",
    "request_id": "string",
    "campaign_id": "string",
    "recipient_id": "string",
    "status": "string",
    "group": "string",
    "variant_id": "string",
    "channel": "string",
    "send_at": "time",
    "send_at_local": "string",
    "propensity": "double",
    "policy_id": "string",
    "eligible_actions": "bigint",
    "reasons": "string",
    "metadata": "string",
    "error": "string",
}


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option("--campaign", required=True, help="The campaign to decide for.")
@option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="OUT.parquet or OUT.ndjson.")
@command()
def decide(call: Call, file: Path, campaign: str, out: Path) -> None:
    """Decide for every recipient of FILE (CSV, NDJSON or Parquet) and write one row each, in order.

    Columns: recipient_id, and if wanted request_id, timezone, attributes.NAME, channels.NAME (true or false),
    context.NAME, metadata.NAME. Messages are reserved as over the API; the window is the campaign's default, from now.
    A row that can't be decided has its reason in the column `error`; it spoils no other. The same file again gets the
    same decisions and reserves nothing more.
    """
    from optimizer.service.rowfiles import RowFile, fingerprint, open_writer

    run, counts = "file-" + fingerprint(file, campaign), {"decided": 0, "failed": 0}
    with (
        call.services() as services,
        open_writer(out, _COLUMNS) as writer,
        RowFile(file) as rows,
        progress("decide") as on_progress,
    ):
        for first, chunk in _chunks(rows):
            requests = [_request(row, campaign, rows, f"{run}/{first + i}") for i, (_, row) in enumerate(chunk)]
            answers = services.decider.decide_batch(call.workspace, requests, run)
            for (line, asked), answer in zip(chunk, answers, strict=True):
                counts["failed" if isinstance(answer, Exception) else "decided"] += 1
                writer.write({**dict.fromkeys(_COLUMNS), "line": line, **_row(asked, answer)})
            on_progress(rows.done(), rows.total)
    call.answer({**counts, "file": str(out)}, f"{counts['decided']} decided, {counts['failed']} failed: {out}")


def _chunks(rows: RowFile) -> Iterator[tuple[int, list[NumberedRow]]]:
    numbered, first = rows.rows(), 0
    while chunk := list(itertools.islice(numbered, CHUNK)):
        yield first, chunk
        first += len(chunk)


def _request(row: Any, campaign: str, rows: RowFile, request_id: str) -> DecisionRequest | SendtideError:
    from dataclasses import replace

    from optimizer.errors import SendtideError
    from optimizer.service.cells import Cells
    from optimizer.service.importrows import request_row

    try:
        if isinstance(row, SendtideError):
            return row
        request = request_row(Cells(row, typed=rows.typed), campaign)
    except SendtideError as error:
        return error
    return replace(request, request_id=request.request_id or request_id)


def _row(asked: Any, answer: Decision | SendtideError) -> dict[str, Any]:
    """The API's answer, flat: the action's parts stand beside the rest."""
    from optimizer.errors import SendtideError
    from optimizer.web import render

    if isinstance(answer, SendtideError):
        who = asked.get("recipient_id") if isinstance(asked, dict) else None
        error = {"code": answer.code, "detail": answer.detail, "errors": answer.errors}
        return {"recipient_id": None if who is None else str(who), "error": error}
    whole = render.decision(answer)
    flat = {**whole, **(whole["action"] or {})}
    if "send_at_local" in flat:
        flat["send_at_local"] = flat["send_at_local"].isoformat()
    return {name: flat[name] for name in _COLUMNS if name in flat}
