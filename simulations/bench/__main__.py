"""Prints the benchmark: ``make bench``."""

from __future__ import annotations

import platform
import sys
from os import cpu_count

from rich.console import Console
from rich.table import Table

from simulations.bench import eligibility, imports
from simulations.bench.decide import ROUNDS, measure


def main() -> int:
    """Measures and prints; the exit code is 0."""
    console = Console()
    machine = f"{platform.machine()}, {cpu_count()} cores, Python {platform.python_version()}"
    table = Table(title=f"medians of {ROUNDS} rounds, {machine}")
    for heading in ("what", "µs a row", "rows/s", "beside", "its µs", "ratio"):
        table.add_column(heading, justify="left" if heading in ("what", "beside") else "right")
    for figure in measure():
        bound = figure.bound_microseconds
        table.add_row(
            figure.name,
            f"{figure.microseconds:,.0f}",
            f"{1e6 / figure.microseconds:,.0f}",
            figure.beside,
            f"{bound:,.0f}" if bound is not None else "",
            f"{figure.microseconds / bound:.1f}x" if bound is not None else "",
        )
    console.print(table)
    console.print(rules_table(machine))
    console.print(imports_table(machine))
    return 0


def imports_table(machine: str) -> Table:
    """What imports cost, beside bare inserts of the same rows."""
    about = f"import of {imports.ROWS:,} rows, medians of {imports.ROUNDS} rounds, {machine}"
    table = Table(
        title=about, caption="ratio: rate of the import over that of the bare inserts, by the clock / by CPU time"
    )
    for heading in ("what", "µs a row", "rows/s", "same rows, same tables", "ratio", "cells, bare table", "ratio"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for cost in imports.measure():
        ours = cost.imported
        beside = [cell for bare in (cost.same_tables, cost.bare) for cell in (f"{bare.clock:,.1f}", _ratio(ours, bare))]
        table.add_row(f"{cost.kind}, {cost.form}", f"{ours.clock:,.1f}", f"{1e6 / ours.clock:,.0f}", *beside)
    return table


def _ratio(ours: imports.Took, bare: imports.Took) -> str:
    return f"{bare.clock / ours.clock:.2f} / {bare.cpu / ours.cpu:.2f}"


def rules_table(machine: str) -> Table:
    """What the eligible set costs, and how often the rules of that measurement mask something."""
    costs, shares = eligibility.measure()
    masking = ", ".join(f"{rule_id} {share:.0%}" for rule_id, share in shares.items())
    table = Table(
        title=f"eligible set of 432 actions, medians of {eligibility.ROUNDS} rounds, {machine}",
        caption=f"recipients for whom a rule masks something: {masking}",
    )
    for heading in ("what", "µs a recipient", "goal"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for cost in costs:
        table.add_row(cost.name, f"{cost.microseconds:,.1f}", cost.goal)
    return table


if __name__ == "__main__":
    sys.exit(main())
