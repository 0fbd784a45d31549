"""``sendtide retrain``: one retrain now, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress
from optimizer.cli.tables import number
from optimizer.errors import SendtideError


@click.command(epilog=EXIT_CODES)
@option("--campaign", help="Only this campaign's policy; left out, every active campaign's.")
@command(settings=("gate", "encoder"))
def retrain(call: Call, campaign: str | None) -> None:
    """Train on the log, evaluate off policy, let the gate judge, publish or reject. Prints the verdict.

    Refused while another training run of the workspace goes on. A rejected candidate is no failure: exit code 0.
    """
    from optimizer.service.ids import fresh
    from optimizer.service.runs import kept, start_now
    from optimizer.service.training import carry_out

    with call.services() as services:
        holder = fresh("cli")
        run = start_now(services, call.workspace, campaign, holder, trigger="cli")
        with kept(services, run, holder) as end, progress("retrain"):
            ended = carry_out(services, run)
            end(ended)
    call.answer(
        {"run_id": run.run_id, "status": ended.status, "verdicts": ended.verdicts},
        *(_line(verdict) for verdict in ended.verdicts),
        f"run {run.run_id}: {ended.status}",
    )
    if ended.status == "failed":
        raise SendtideError(f"run {run.run_id} failed: {ended.error}")


def _line(verdict: dict[str, Any]) -> str:
    """A verdict for people, each condition with its number."""
    head = f"{verdict['campaign_id']}: {verdict['decision']}, {verdict.get('reason', '')} ({verdict['rows'] or 0} rows)"
    conditions = [
        f"  {'ok  ' if c['passed'] else 'FAIL'} {c['name']}: {_held(c)}, {c['detail']}"
        for c in verdict.get("conditions", ())
    ]
    findings = [
        f"  {finding['problem']}{_done(finding)}: {finding['feature']}, {_held(finding)}, {finding['detail']}"
        for finding in (verdict.get("data") or {}).get("findings", ())
    ]
    alarms = [f"  alarm: {alarm['what']}, {_held(alarm)}" for alarm in (verdict.get("drift") or {}).get("alarms", ())]
    return "\n".join([head, *conditions, *findings, *alarms])


def _done(finding: Mapping[str, Any]) -> str:
    if finding["left_out"]:
        return " (left out)"
    return " (kept, since it was declared)" if finding.get("declared") else ""


def _held(found: Mapping[str, Any]) -> str:
    return f"{number(found['figure'])} against {number(found['limit'])}"
