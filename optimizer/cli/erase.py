"""``sendtide erase``: a person taken out of the log."""

from __future__ import annotations

from dataclasses import asdict

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES


@click.command(epilog=EXIT_CODES)
@click.argument("recipient")
@option("--yes", is_flag=True, help="Don't ask. It can't be undone.")
@command()
def erase(call: Call, recipient: str, *, yes: bool) -> None:
    """Erase everything that says who a recipient is.

    Attributes, contexts, what vendors said and every id of the person go; what was decided and what came of it stays in
    reports, under a random pseudonym. What is reserved is called off, and a keyed hash remembers the refusal. Doing it
    again changes nothing.
    """
    from optimizer.service.erasing import erase as take_out

    if not yes:
        click.confirm(f"Erase {recipient} for good?", abort=True, err=True)
    with call.services() as services:
        done = take_out(services, call.workspace, recipient)
    files = (
        ""
        if done.scrubbed
        else "; somebody reads the database or writes its archive, or a disk is full, so their files still hold "
        "something: do it again"
    )
    call.answer(
        asdict(done),
        f"{recipient} erased: {done.decisions} decisions and {done.events} events are nobody's now, "
        f"{done.revoked} messages called off{files}",
    )
