"""``sendtide relabel``: stored opens and clicks judged anew, by the rules as they are now."""

from __future__ import annotations

from dataclasses import asdict

import click

from optimizer.cli.call import Call, command
from optimizer.cli.group import EXIT_CODES


@click.command(epilog=EXIT_CODES)
@command()
def relabel(call: Call) -> None:
    """Judge every open and click that a vendor's webhook reported anew: a person's or a machine's.

    For after an upgrade that knows machines better. What vendors said is kept, so nothing is lost by a label; rewards
    follow the labels from then on. Doing it again changes nothing.
    """
    from optimizer.service.relabel import relabel as judge_all

    with call.services() as services:
        done = judge_all(services, call.workspace)
    call.answer(
        asdict(done),
        f"{done.events} events of {done.decisions} decisions have another label: "
        f"{done.now_automated} count no more, {done.now_people} count now",
    )
