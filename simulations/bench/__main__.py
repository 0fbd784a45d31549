"""``make bench``: measures what the service costs, beside rivals and limits in the same run, and writes it down.

``python -m simulations.bench [AREA …]`` measures some areas only. Sizes that take long are options.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from simulations.bench import (
    batches,
    eligibility,
    events,
    files,
    footprint,
    growth,
    http,
    imports,
    inprocess,
    learn,
    simulated,
    stores,
)
from simulations.bench.figure import ROUNDS, Figure
from simulations.bench.served import Shop, prepared

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADINGS = ("what", "measured", "beside it", "ratio", "goal", "reached")
#: Areas that need a stored shop. The idle service comes first: what others decide gives it something to refresh.
_SERVED: Mapping[str, Callable[[Shop], list[Figure]]] = {
    "footprint": footprint.measure,
    "http": http.measure,
    "batches": batches.measure,
    "events": events.measure,
    "stores": stores.measure,
}
_TABLES = ("rules", "imports")
_HEAD = f"""# What the service costs

Written by `make bench`. Medians of {ROUNDS} rounds; what stands beside a figure was measured in the same run, in turn
with it. 6 variants x 24 hours x 3 channels and not sending, five outcomes, a cap, a gap and quiet hours, a trained
policy, every decision durable before its answer.
"""
AREAS = ("inprocess", *_SERVED, "files", "growth", "learn", "simulated", *_TABLES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code is 0."""
    told = _options(arguments)
    console = Console()
    figures: dict[str, list[Figure]] = {}
    with TemporaryDirectory(prefix="sendtide-bench-") as folder:
        stocked = prepared(Path(folder)) if {*_SERVED, "files"} & set(told.areas) else None
        for area, work in _works(told, stocked):
            figures[area] = work()
            console.print(_table(area, figures[area]))
    machine = machine_line()
    for name, table in (("rules", rules_table), ("imports", imports_table)):
        if name in told.areas:
            console.print(table(machine))
    if told.write:
        RESULTS.write_text(document(sections(RESULTS) | {area: section(machine, one) for area, one in figures.items()}))
        console.print(f"written: {RESULTS}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulations.bench", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"what to measure: {', '.join(AREAS)}; default: all")
    parser.add_argument("--rows", type=int, default=1_000_000, help="recipients of the Parquet file")
    parser.add_argument("--stored", type=int, default=10_000_000, help="decisions of the large log")
    parser.add_argument("--learned", type=int, default=1_000_000, help="decisions of the retrain")
    parser.add_argument("--simulated", type=int, default=200_000, help="decisions of the simulator's log")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    told = parser.parse_args(arguments)
    unknown = [area for area in told.areas if area not in AREAS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; allowed: {', '.join(AREAS)}")
    told.areas = told.areas or list(AREAS)
    return told


def _works(told: argparse.Namespace, stocked: Shop | None) -> Iterable[tuple[str, Callable[[], list[Figure]]]]:
    """The areas that were asked for, in the order of the document."""
    works: dict[str, Callable[[], list[Figure]]] = {"inprocess": inprocess.measure}
    if stocked is not None:
        works |= {name: partial(measure, stocked) for name, measure in _SERVED.items()}
        works["files"] = partial(files.measure, stocked, told.rows)
    works["growth"] = partial(growth.measure, told.stored)
    works["learn"] = partial(learn.measure, told.learned)
    works["simulated"] = partial(simulated.measure, told.simulated)
    return [(area, work) for area, work in works.items() if area in told.areas]


def machine_line() -> str:
    """What it is measured on."""
    model = platform.machine()
    told = Path("/proc/cpuinfo")
    if told.exists():
        names = [
            line.split(":", 1)[1].strip() for line in told.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "onnxruntime", "flask", "gunicorn"))
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


def document(written: Mapping[str, str]) -> str:
    """RESULTS.md of its sections by area."""
    known = [f"## {area}\n\n{written[area].strip()}\n" for area in AREAS if area in written]
    return "\n".join([_HEAD, *known])


def section(machine: str, figures: Sequence[Figure]) -> str:
    """What was measured of one area, when, and on what."""
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, {machine}", "", "| " + " | ".join(HEADINGS) + " |"]
    lines += ["|" + "---|" * len(HEADINGS), *("| " + " | ".join(_cells(figure)) + " |" for figure in figures)]
    return "\n".join(lines)


def sections(file: Path) -> dict[str, str]:
    """What earlier runs wrote, by area: a run of some areas leaves the others as they are."""
    if not file.exists():
        return {}
    parts = file.read_text().split("\n## ")[1:]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}


def _cells(figure: Figure) -> tuple[str, ...]:
    reached = "" if figure.reached is None else "yes" if figure.reached else "no"
    return figure.what, figure.ours, figure.beside, figure.ratio, figure.goal, reached


def _table(area: str, figures: Iterable[Figure]) -> Table:
    table = Table(title=area)
    for heading in HEADINGS:
        table.add_column(heading)
    for figure in figures:
        table.add_row(*_cells(figure))
    return table


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
