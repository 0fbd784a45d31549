"""The result of the Ray drill, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from simulations.drills.ray_run import Result


def document(r: Result) -> dict[str, Any]:
    """The result for programs."""
    runs = {"one_process": r.alone, "two_nodes": r.nodes, "one_killed": r.killed, "with_shared_limits": r.shared}
    return {
        "passed": r.passed,
        "recipients": r.size.recipients,
        "rows": r.size.rows,
        "parts": r.size.parts,
        "processors_of_a_node": r.size.processors,
        "runs": {
            name: {**asdict(one), "rows_per_second": round(r.size.rows / one.seconds, 1)} for name, one in runs.items()
        },
        "same_answers": r.same[0],
        "same_answers_after_the_death": r.same[1],
        "stored": list(r.stored),
        "different_decisions_answered": r.answered,
        "masked_by_caps_and_gaps": r.masked,
        "violations": len(r.report.breaches),
        "not_judged": r.report.unknown,
        "periods_run_out": r.ran_out,
    }


def lines(r: Result) -> Iterator[str]:
    """The result for people."""
    rows = r.size.rows
    rates = [f"{rows / run.seconds:,.0f}" for run in (r.alone, r.nodes, r.killed, r.shared)]
    yield f"{r.size.recipients:,} recipients, {rows:,} rows, nodes of {r.size.processors} processor(s)"
    yield f"one process: {rates[0]} rows/s; two nodes: {rates[1]} rows/s, answers {_alike(r.same[0])}"
    yield (
        f"a node killed after {r.killed.killed_at} of {r.size.parts} parts: {rates[2]} rows/s, answers "
        f"{_alike(r.same[1])}, {r.stored[0]:,} decisions stored; caps and gaps masked in {r.masked:,} rows"
    )
    yield (
        f"with capacities and budgets, a node killed after {r.shared.killed_at} parts: {rates[3]} rows/s, "
        f"{r.answered:,} different decisions answered, {r.stored[1]:,} stored, {len(r.report.breaches)} violations; "
        f"periods that ran out: {', '.join(f'{name} {count}' for name, count in r.ran_out.items())}"
    )
    yield "passed" if r.passed else "NOT AS PROMISED"


def _alike(same: bool) -> str:
    return "identical" if same else "DIFFERENT"
