"""``sendtide report-study``: whether the report's lift is right on all days of a campaign, and what that costs.

Campaigns with a known lift are looked at daily. A campaign is covered when the truth lay within the stated bounds on
every one of its days.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console

from optimizer.bandit.intervals import quantile
from optimizer.cli.call import option, reported
from optimizer.cli.group import EXIT_CODES
from simulations.fragments import leave, played, table
from simulations.parallel import in_processes

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a world must show: the lower bound (one-sided, 95 %) of the share of covered campaigns, and the widths.
LEAST_COVERAGE, MOST_WIDTH = 0.93, 1.5
LEVEL = 0.95


@click.command("report-study", epilog=EXIT_CODES)
@option("--campaigns", type=click.IntRange(20, 100_000), default=500, show_default=True, help="Of each world.")
@option("--world", help="Only this world.")
@option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Worlds at a time.")
@option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of lift-intervals.json and .md.")
@option("--json", "as_json", is_flag=True, envvar="SENDTIDE_JSON", help="Print the figures as JSON.")
def command(*, campaigns: int, world: str | None, processes: int, out: Path | None, as_json: bool) -> None:
    """Measure the report: do its intervals of the lift hold on all days of a campaign at once, and how wide are they.

    \b
    Width: that of the stated interval over that of a fixed-time 95 % interval of the same
    estimate and error, averaged over all days of all campaigns from the first statement
    (as good as 50 recipients with an outcome in each group) to the last day, the 56th.
    Once: how many campaigns a fixed-time 95 % interval would have covered on all those days.
    """
    from simulations.report_worlds import WORLDS

    if world is not None and world not in WORLDS:
        raise click.BadParameter(f"{world!r}; allowed: {', '.join(WORLDS)}", param_hint="--world")
    with reported(as_json=as_json):
        started = time.perf_counter()
        names = list(WORLDS) if world is None else [world]
        found = in_processes(
            study,
            [(name, campaigns) for name in names],
            processes=processes,
            console=Console(stderr=True),
            label="worlds",
            total=campaigns,
        )
        if out is not None:
            leave(out, "lift-intervals", found, markdown(found))
        if as_json:
            click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
            return
        for line in lines(found):
            click.echo(line)
        click.echo(f"{time.perf_counter() - started:.0f} s")


def study(name: str, campaigns: int, tell: Callable[[int], None] | None = None) -> dict[str, Any]:
    """The figures of one world; campaign i is the same whatever their number."""
    import numpy as np

    from simulations.report_worlds import DAYS, WORLDS, watch

    about, make = WORLDS[name]
    covered = once = statements = clear = 0
    widths, last, first = [], [], []
    for i in range(campaigns):
        seen = watch(make(np.random.default_rng([sum(name.encode()), i])))
        estimate, stated = seen.estimate, seen.stated
        covered += seen.covered
        fixed = np.abs(estimate.value - seen.truth)[stated] <= quantile(0.95) * estimate.error[stated]
        once += bool(fixed.all())
        if stated.any():
            statements += 1
            first.append(int(np.argmax(stated)) + 1)
            widths.append(seen.relative_widths)
            last.append(float(widths[-1][-1]))
            clear += bool(np.any(estimate.low[stated] > 0.0) or np.any(estimate.high[stated] < 0.0))
        if tell is not None:
            tell(i + 1)
    lower = lower_bound(covered, campaigns)
    width = float(np.mean(np.concatenate(widths))) if widths else float("nan")
    return {
        "world": name,
        "about": about,
        "campaigns": campaigns,
        "days": DAYS,
        "with_a_statement": statements,
        "median_first_day": float(np.median(first)) if first else None,
        "covered": covered,
        "coverage": covered / campaigns,
        "coverage_lower_bound": lower,
        "fixed_time_coverage": once / campaigns,
        "mean_width": width,
        "mean_width_on_the_last_day": float(np.mean(last)) if last else None,
        "called_clear": clear / campaigns,
        "passed": lower >= LEAST_COVERAGE and width <= MOST_WIDTH,
    }


def lower_bound(successes: int, trials: int) -> float:
    """One-sided 95 % lower bound of a binomial share (Clopper & Pearson 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(1.0 - LEVEL, successes, trials - successes + 1)) if successes else 0.0


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """A table for people."""
    head = f"{'world':10}{'covered':>9}{'at least':>10}{'once':>7}{'width':>7}{'last':>7}{'from day':>10}{'clear':>7}"
    rows = [
        f"{one['world']:10}{one['coverage']:>9.3f}{one['coverage_lower_bound']:>10.3f}"
        f"{one['fixed_time_coverage']:>7.2f}{one['mean_width']:>7.3f}{one['mean_width_on_the_last_day'] or 0:>7.3f}"
        f"{one['median_first_day'] or 0:>10.0f}{one['called_clear']:>7.2f}"
        f"  {'passed' if one['passed'] else 'NOT passed'}: {one['about']}"
        for one in found
    ]
    asked = f"asked for: covered at least {LEAST_COVERAGE} by its lower bound, mean width at most {MOST_WIDTH}"
    return [head, *rows, asked]


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The fragment for the report of results."""
    head = ["world", "covered on all days", "at least", "fixed-time, looked at daily", "width / fixed-time", "passed"]
    rows = [
        [
            f"{one['world']}: {one['about']}",
            f"{one['coverage']:.3f}",
            f"{one['coverage_lower_bound']:.3f}",
            f"{one['fixed_time_coverage']:.2f}",
            f"{one['mean_width']:.3f}",
            "yes" if one["passed"] else "no",
        ]
        for one in found
    ]
    told = (
        f"{found[0]['campaigns']} campaigns of {found[0]['days']} days in each world, looked at daily; covered: the "
        "true lift lay within the stated interval on every day. Asked for: the one-sided 95 % lower bound of that "
        f"share at least {LEAST_COVERAGE}, mean width at most {MOST_WIDTH} of a fixed-time 95 % interval's."
    )
    return (
        "\n\n".join(["## lift-intervals: the report's lift, looked at every day", told, table(head, rows), played()])
        + "\n"
    )
