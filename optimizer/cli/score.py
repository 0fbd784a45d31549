"""``sendtide score``: a file of recipients, ranked by how likely an outcome is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command, option, require_some
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress

if TYPE_CHECKING:
    from optimizer.errors import SendtideError
    from optimizer.service.requests import ScoreRequest
    from optimizer.service.rowfiles import RowFile
    from optimizer.service.scores import Score

_CHANCES = ("with_message", "without_message", "uplift")
_COLUMNS = {
    "rank": "bigint",
    "line": "bigint",
    "recipient_id": "string",
    "without_message": "double",
    "with_message": "double",
    "uplift": "double",
    "uplift_low": "double",
    "uplift_high": "double",
    "variant_id": "string",
    "channel": "string",
    "send_at": "time",
    "error": "string",
}


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option("--campaign", required=True, help="Whose model, variants, channels and default window.")
@option("--outcome", required=True, help="What is predicted: converted, clicked, …")
@option("--by", type=click.Choice(_CHANCES), default=_CHANCES[0], show_default=True, help="What is ranked by.")
@option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="OUT.parquet or OUT.ndjson.")
@command()
def score(call: Call, file: Path, campaign: str, outcome: str, by: str, out: Path) -> None:
    """Score every recipient of FILE (CSV, NDJSON or Parquet) and write one row each, the likeliest first.

    Columns: recipient_id, timezone, attributes.NAME, channels.NAME (true or false), context.NAME; all may be left out,
    and what is not stored of a recipient is taken from the row. Chances are calibrated: without a message, with the
    best one as far as it is known which that is, and the uplift between the two with its 95 % interval (uplift_low,
    uplift_high): one that holds 0 shows no effect. Local hours at which hardly a message was sent are left out. Where
    fewer than 100 decisions without a message have told of the outcome (an imported history of sends has none), the
    first and the uplift are empty, and --by refuses them. Nothing
    is stored or reserved. Rows that can't be scored come last, with the reason in the column `error`; those without an
    open channel have no message and rank last by it.
    """
    from optimizer.errors import Invalid
    from optimizer.service.header import require_known
    from optimizer.service.importrows import SCORE_ROW
    from optimizer.service.rowfiles import RowFile, open_writer
    from optimizer.service.scores import Scorer

    with call.services() as services, open_writer(out, _COLUMNS) as writer, RowFile(file) as rows:
        require_known(rows, SCORE_ROW)
        scorer = Scorer.of(services, call.workspace, campaign, outcome)
        lacking = scorer.lacking
        if lacking is not None and by != _CHANCES[0]:
            raise Invalid.field("by", f"{by} is not known: {lacking}", code="too_few_unsent")
        numbered = [(line, row, _request(row, rows)) for line, row in rows.rows()]
        scored: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        with progress("score") as on_progress:
            answers = scorer.scores([asked for *_, asked in numbered])
            for (line, row, _), answer in zip(numbered, answers, strict=True):
                if isinstance(answer, Exception):
                    failed.append({"line": line, "recipient_id": _whom(row, rows), **_row(answer)})
                else:
                    scored.append({"line": line, **_row(answer)})
                on_progress(len(scored) + len(failed), len(numbered))
        scored.sort(key=lambda row: -2.0 if row[by] is None else float(row[by]), reverse=True)
        for rank, row in enumerate(scored, start=1):
            writer.write({**dict.fromkeys(_COLUMNS), **row, "rank": rank})
        for row in failed:
            writer.write({**dict.fromkeys(_COLUMNS), **row})
    told = {
        "scored": len(scored),
        "failed": len(failed),
        "policy_id": scorer.policy_id,
        "file": click.format_filename(out),
    }
    more = () if lacking is None else (f"without_message and uplift are empty: {lacking}",)
    call.answer({**told, "lacking": lacking}, f"{len(scored)} scored, {len(failed)} failed: {out}", *more)
    require_some(len(scored), len(failed), f"the column `error` in {out} says why")


def _request(row: Any, rows: RowFile) -> ScoreRequest | SendtideError:
    from optimizer.errors import SendtideError
    from optimizer.service.cells import Cells
    from optimizer.service.importrows import score_row

    if isinstance(row, SendtideError):
        return row
    try:
        return score_row(Cells(row, typed=rows.typed))
    except SendtideError as error:
        return error


def _whom(row: Any, rows: RowFile) -> str | None:
    """The recipient whom a row that can't be scored names, if that can be read."""
    from optimizer.errors import SendtideError
    from optimizer.service.cells import Cells

    try:
        return None if isinstance(row, SendtideError) else Cells(row, typed=rows.typed).id("recipient_id")
    except SendtideError:
        return None


def _row(answer: Score | SendtideError) -> dict[str, Any]:
    from optimizer.errors import SendtideError

    if isinstance(answer, SendtideError):
        return {"error": {"code": answer.code, "detail": answer.detail, "errors": answer.errors}}
    return {name: getattr(answer, name) for name in _COLUMNS if hasattr(answer, name)}
