"""The set-up of the Ray drill: people and rules of the rules drill, shared limits off, and files that ask for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.wiring import open_services
from simulations.drills.rules import scene as rules_scene
from simulations.drills.scene import WORKSPACE, recipient_name
from storage.rules import Budget, Rule, Selector
from storage.usage import scarce

#: Who is asked for: the campaign that has learned.
CAMPAIGN = rules_scene.OFFER
FILES = 8
#: How much of the rules drill's money emails alone have.
EMAILS_SHARE = 0.75


@dataclass(frozen=True)
class Size:
    """How large a drill is; see the flags of the command. A tenth of the people is asked for a second time."""

    recipients: int = 1_000_000
    processors: int = 1
    part_rows: int = 20_000
    seed: int = 1

    @property
    def rows(self) -> int:
        """Of all files."""
        return self.recipients + self.recipients // 10

    @property
    def parts(self) -> int:
        """Files of answers."""
        return -(-self.rows // self.part_rows)


def prepare(database: str, size: Size) -> None:
    """Makes the workspace; capacities and budgets are off."""
    settings = Settings(database=database)
    # How demand falls on days hangs on the hour of the run. Limits for half as many run out at any hour.
    few = rules_scene.Size(decisions=size.rows // 2, recipients=size.recipients, seed=size.seed)
    rules_scene.prepare(settings, few)
    _put_shared(database, lambda rule: replace(_for_emails(rule), enabled=False))


def switch_shared(database: str, *, on: bool) -> None:
    """Turns the limits that all recipients share on or off."""
    _put_shared(database, lambda rule: replace(rule, enabled=on))


def _put_shared(database: str, changed: Callable[[Rule], Rule]) -> None:
    services = open_services(Settings(database=database), watch=False)
    try:
        with services.store.read() as reader:
            rules = [rule for rule in reader.rules(WORKSPACE) if scarce(rule)]
        for rule in rules:
            setup.put_rule(services, changed(rule))
    finally:
        services.close()


def _for_emails(rule: Rule) -> Rule:
    """A budget is for emails: where a few emails spend what pushes cost, too, some runs have no push at all."""
    if not isinstance(rule.parameters, Budget):
        return rule
    emails = Selector(channels=("email",))
    less = replace(rule.parameters, amount=round(EMAILS_SHARE * rule.parameters.amount))
    return replace(rule, parameters=less, applies_to=emails, counts=emails)


def write_files(folder: Path, size: Size) -> None:
    """Parquet files that ask for everybody, in any order, and again for some, far away from the first time."""
    import pyarrow
    from pyarrow import parquet

    rng = np.random.default_rng(size.seed)
    again = rng.integers(0, size.recipients, size.rows - size.recipients)
    people = rng.permutation(np.concatenate([np.arange(size.recipients), again]))
    folder.mkdir()
    for number, some in enumerate(np.array_split(people, FILES)):
        names = [recipient_name(int(one)) for one in some]
        parquet.write_table(pyarrow.table({"recipient_id": names}), folder / f"people-{number}.parquet")
