"""``sendtide tune``: the numbers of training, searched on the workspace's own log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress


@click.command(epilog=EXIT_CODES)
@option("--minutes", type=click.FloatRange(0.1, 10_000), default=10.0, show_default=True, help="Time for the search.")
@option("--trials", type=click.IntRange(1), help="End after so many trials in all, if that comes first.")
@option("--reset", is_flag=True, help="Search nothing: later retrains use the defaults again.")
@command()
def tune(call: Call, minutes: float, trials: int | None, reset: bool) -> None:
    """Search the numbers of training on the log, and use them in later retrains if they are clearly better.

    Optional: the defaults are good. A search that is interrupted goes on where it was left. Candidates are ranked by
    held-out likelihood; the best one is compared with the defaults on newer rows that the search never saw, by
    likelihood and by the doubly robust value of the two policies. Needs the extra "tune" (Optuna).
    """
    from optimizer.service import tuning

    with call.services() as services:
        if reset:
            tuning.reset(services, call.workspace)
            call.answer({"decision": "reset"}, "later retrains use the defaults")
            return
        with progress("tune") as on_progress:
            journal, budget = _journal(call.settings.database), tuning.Budget(minutes, trials)
            found = tuning.tune(services, call.workspace, journal, budget, lambda done: on_progress(done, trials))
    call.answer(found, *_lines(found))


def _journal(database: str) -> Path:
    """Beside an embedded database, else in ``var``."""
    from storage.open import folder_of

    folder = folder_of(database)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "tuning.journal"


def _lines(found: dict[str, Any]) -> list[str]:
    likelihood, value = found["likelihood"], found["value"]
    changed = ", ".join(f"{k} {found['best'][k]:.4g} (default {v:g})" for k, v in found["defaults"].items())
    lines = [
        f"{found['decision']}: {found['reason']}",
        f"best of {found['trials']} trials: {changed}",
        f"likelihood: {likelihood['gain']:+.3e} ± {1.96 * likelihood['standard_error']:.1e} nats a row "
        f"on {likelihood['rows']} rows that the search never saw",
    ]
    if value is not None:
        half = 1.96 * value["standard_error"]
        lines.append(f"value: {value['value']:+.4g} ± {half:.2g} a decision, doubly robust, on {value['n']} rows")
    return lines
