"""How large a run is, and what follows from that: its rules, its windows, its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from simulations.drills.scene import BEFORE, WORKSPACE
from storage.rules import Cap, Capacity, Rule, Selector

#: Windows start within this many days, so that limits bind at some times and not at others.
DAYS = 5
WINDOW = timedelta(hours=30)
#: Emails an hour for each decision of the run: fewer than are wanted.
EMAILS_AN_HOUR = 0.001
#: Messages that one may get in any 24 hours.
CAP = 2
#: Decisions for each recipient: more than the rules let pass.
FOR_EACH = 10
#: Of the decisions, the share that is asked for one by one.
SINGLES = 0.1


@dataclass(frozen=True)
class Size:
    """How large a run is; see the flags of the command."""

    decisions: int = 500_000
    restarts: int = 10
    clients: int = 12
    rows: int = 500
    seed: int = 1

    @property
    def recipients(self) -> int:
        """How many people are asked about."""
        return max(1, self.decisions // FOR_EACH)

    @property
    def singles(self) -> int:
        """How many decisions are asked for one by one; the rest comes in batches."""
        return round(self.decisions * SINGLES)

    @property
    def batches(self) -> int:
        """How many batches there are; the last one may be shorter."""
        return -(-(self.decisions - self.singles) // self.rows)

    @property
    def retrain_minutes(self) -> float:
        """From one retrain to the next: several in a run, and a long log is not learned from all the time."""
        return max(0.1, self.decisions / 100_000)


def first_window(now: datetime) -> datetime:
    """When the first windows start: a full hour, late enough that no window is clipped during a run."""
    return now.replace(minute=0, second=0, microsecond=0) + 2 * BEFORE


def rules(size: Size) -> tuple[Rule, ...]:
    """A gap, and a capacity that all recipients share; the scene has a cap and quiet hours."""
    emails = Selector(channels=("email",))
    return (
        Rule(WORKSPACE, "gap", "gap", Cap(1, rolling_hours=6.0)),
        Rule(
            WORKSPACE,
            "emails",
            "capacity",
            Capacity(max(1, round(EMAILS_AN_HOUR * size.decisions)), 60),
            emails,
            emails,
        ),
    )
