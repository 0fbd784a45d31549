"""``sendtide evaluate``: what a stored policy would have been worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES


@click.command(epilog=EXIT_CODES)
@option("--policy", required=True, help="The policy's id.")
@command()
def evaluate(call: Call, policy: str) -> None:
    """Estimate a stored policy's value from the log, off policy.

    Mean reward a decision, on the logged eligible sets, with 95 % intervals: by inverse propensities (ips, snips), by
    the reward model alone (dm) and by both (dr, switch_dr); beside it what the campaign's cold start would have earned.
    """
    from optimizer.service.evaluate import evaluate as report_of

    with call.services() as services:
        report = report_of(services, call.workspace, policy)
    call.answer(report, *_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as a table for people."""
    seen = "decided after it was made" if report["unseen"] else "that it may have been trained on"
    yield f"{report['policy_id']} of campaign {report['campaign_id']} on {report['rows']} rows {seen}"
    yield f"{'':24}{'value':>10}{'low':>10}{'high':>10}{'eff. rows':>11}"
    yield _line("as logged", report["logged"])
    for name in ("cold_start", "policy"):
        for estimator, estimate in report[name].items():
            yield _line(f"{name.replace('_', ' ')}, {estimator}", estimate)


def _line(title: str, estimate: Mapping[str, Any]) -> str:
    numbers = "".join(f"{estimate[name]:>10.4f}" for name in ("value", "low", "high"))
    return f"{title:24}{numbers}{estimate['effective_sample_size']:>11.0f}"
