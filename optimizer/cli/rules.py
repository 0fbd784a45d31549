"""``sendtide rules``: reports on the rules of a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES

if TYPE_CHECKING:
    from optimizer.service.rulecheck import Breach
    from optimizer.service.wiring import Services

_PAGE = 500


@click.group(epilog=EXIT_CODES)
def rules() -> None:
    """Report on the rules: who may be written to, when, how often."""


@rules.command(epilog=EXIT_CODES)
@option("--rule", help="Only this rule's, even if it is a dry run. Left out: those of every rule that acts.")
@command()
def breaches(call: Call, rule: str | None) -> None:
    """List reserved, not yet sent messages that break the rules as they stand now.

    A rule binds only what is reserved after it, so a new or tighter one can leave such messages behind. Nothing is
    called off: release what shall not go out.
    """
    with call.services() as services:
        found = list(_all(services, call.workspace, rule))
    call.answer(
        {"breaches": [asdict(one) for one in found]},
        *(f"{one.decision_id}  {one.send_at:%Y-%m-%d %H:%M:%SZ}  {one.rule_id}: {one.detail}" for one in found),
    )
    if not call.as_json:
        call.note(_counted(len(found), len({one.decision_id for one in found})))


def _counted(breaches: int, messages: int) -> str:
    if not breaches:
        return "No reserved message breaks a rule."
    return f"{breaches} breach{'es' * (breaches > 1)} by {messages} reserved message{'s' * (messages > 1)}"


def _all(services: Services, workspace: str, rule: str | None) -> Iterator[Breach]:
    from optimizer.service.rulecheck import breaches
    from storage.log import items_of

    return items_of(lambda at: breaches(services, workspace, rule, limit=_PAGE, cursor=at))
