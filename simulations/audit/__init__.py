"""``sendtide audit``: proves from the log that every rule held at each reservation, or names where it didn't.

Reads through the store's port alone and shares no code with what enforces the rules: the arithmetic here is written
from the contract. The order of commits comes from the log, and so does the version of each rule that was in force. What
a sender did otherwise than reserved is no breach of a rule and is listed apart.
"""

from __future__ import annotations

import click

from optimizer.cli.call import Call
from optimizer.cli.call import command as shared_flags
from optimizer.cli.group import EXIT_CODES
from optimizer.errors import ConfigError
from simulations.audit.court import audit
from simulations.audit.report import Breach, Report, as_document, lines
from storage.open import open_store, require_there
from storage.transfer import UNFINISHED, unfinished

__all__ = ["Breach", "Report", "as_document", "audit", "audit_workspace", "command", "lines"]


def audit_workspace(call: Call) -> Report:
    """Audits the workspace that a command names.

    Raises:
        ConfigError: a copy into the database is unfinished; half a log proves nothing.
        NotFound: there is no such workspace; an empty log must not pass for a clean one.
        FileNotFoundError: there is no such database.
    """
    require_there(call.settings.database)
    store = open_store(call.settings.database, call.settings.archive_path)
    try:
        with store.read() as reader:
            if unfinished(reader):
                raise ConfigError(UNFINISHED)
            call.require_workspace(reader)
            return audit(reader, call.workspace)
    finally:
        store.close()


@click.command(name="audit", epilog=EXIT_CODES)
@shared_flags()
def command(call: Call) -> None:
    """Prove from the log that every rule held at each reservation; exit code 1 names where one didn't.

    Every kind of rule, consent, suppression, conditions of variants and displacements are judged by the rules in force
    at each reservation and by what counted then, worked out anew by code that shares nothing with what enforces them.
    What a sender did otherwise than reserved is listed apart. How often a rule kept a message back is not its question.
    """
    report = audit_workspace(call)
    call.answer(as_document(report), *lines(report))
    if not report.clean:
        click.get_current_context().exit(1)
