"""``sendtide evaluate``: what a stored policy would have been worth."""

from __future__ import annotations

import click
import orjson

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES


@click.command(epilog=EXIT_CODES)
@option("--policy", required=True, help="The policy's id.")
@command()
def evaluate(call: Call, policy: str) -> None:
    """Estimate a stored policy's value from the log, off policy: on the logged eligible sets, with intervals."""
    from optimizer.service.evaluate import evaluate as report_of

    with call.services() as services:
        report = report_of(services, call.workspace, policy)
    text = orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY).decode()
    call.answer(report, text)
