"""``sendtide tune``: the numbers of training, searched on the workspace's own log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optimizer.cli.call import Call, command, option
from optimizer.cli.group import EXIT_CODES
from optimizer.cli.progress import progress
from optimizer.cli.rayoption import ray_option

if TYPE_CHECKING:
    from optimizer.service.trials import Across

#: Trials that are drawn together on a cluster: the search learns nothing from those beside it.
TOGETHER = 8


@click.command(epilog=EXIT_CODES)
@option("--minutes", type=click.FloatRange(0.1, 10_000), default=10.0, show_default=True, help="Time for this call.")
@option("--trials", type=click.IntRange(1), help="End after so many trials in all, if that comes first.")
@option(
    "--together",
    type=click.IntRange(1, 1000),
    help="Trials that are drawn before any is judged [1; with --ray 8]. The same number, the same trials.",
)
@ray_option("Make the trials that are drawn together on a Ray cluster.")
@option("--reset", is_flag=True, help="Search nothing: later retrains use the defaults again.")
@command()
def tune(call: Call, minutes: float, trials: int | None, together: int | None, ray: str | None, reset: bool) -> None:
    """Search the numbers of training on the log, and use them in later retrains if they are clearly better.

    Optional: the defaults are good. Candidates are ranked by held-out likelihood; the best one is compared with the
    numbers in use (those adopted before, else the defaults) on newer rows that the search never saw, by likelihood and
    by the doubly robust value of the two policies. Needs the extra "tune" (Optuna).

    The search is kept: whether it was interrupted or its time was up, the next call goes on with it and with the log as
    it stood. A new one begins once its winner was adopted, --trials were made in all, or the log has grown by half.
    """
    from optimizer.service import tuning

    with call.services() as services:
        if reset:
            tuning.reset(services, call.workspace)
            call.answer({"decision": "reset"}, "later retrains use the defaults")
            return
        budget = tuning.Budget(minutes, trials, together or (1 if ray is None else TOGETHER))
        with progress("tune") as on_progress, _across(ray) as across:
            journal = _journal(call.settings.database)
            found = tuning.tune(
                services, call.workspace, journal, budget, lambda done: on_progress(done, trials), across
            )
    call.answer(found, *_lines(found), _next(found))


@contextmanager
def _across(ray: str | None) -> Iterator[Across]:
    """Where trials are made."""
    if ray is None:
        from optimizer.service.trials import here

        yield here
        return
    from optimizer.cli import onray

    with onray.connected(ray):
        yield onray.each


def _journal(database: str) -> Path:
    """Beside an embedded database, else in ``var``."""
    from storage.open import folder_of

    return folder_of(database) / "tuning.journal"


def _lines(found: dict[str, Any]) -> list[str]:
    from optimizer.bandit.intervals import quantile

    z = quantile(0.95)
    likelihood, value = found["likelihood"], found["value"]
    known = {"default": found["defaults"]}
    if found["current"] != found["defaults"]:
        known["until now"] = found["current"]
    changed = ", ".join(
        f"{name} {value:.4g} ({', '.join(f'{which} {numbers[name]:.4g}' for which, numbers in known.items())})"
        for name, value in found["best"].items()
    )
    lines = [f"{found['decision']}: {found['reason']}", f"best of {_trials(found['trials'])}: {changed}"]
    if likelihood is not None:
        half = z * likelihood["standard_error"]
        lines.append(
            f"likelihood: {likelihood['gain']:+.3e} ± {half:.1e} (half of its 95 % interval) "
            f"nats a row on {likelihood['rows']} rows that the search never saw"
        )
    if value is not None:
        half = z * value["standard_error"]
        told = f"{value['value']:+.4g} ± {half:.2g} (half of its 95 % interval) a decision"
        lines.append(f"value: {told}, doubly robust, on {value['n']} rows")
    return lines


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _next(found: dict[str, Any]) -> str:
    """How far the search is, and what calling again does."""
    told = f"{_trials(found['trials'])} made in all, {found['made']} of them by this call"
    if found["next"] == "goes_on":
        return f"{told}; calling again goes on with this search"
    if found["decision"] == "adopted":
        return f"{told}; the search is over, and calling again begins a new one"
    return f"{told}, as many as were asked for; calling again with more --trials goes on, else a new search begins"
