"""A service on a real store in a temporary folder, with a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.wiring import Services, open_services
from storage.records import Campaign, Channel, GroupShares, OutcomeWeight, Variant
from storage.sql import block_tables, setup_tables

WORKSPACE = "acme"
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@dataclass
class FakeClock:
    """A clock that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def steps_of_one() -> Iterator[None]:
    """Numbers that a store steps by chance go up by one: two stores of one history are equal then, number by number."""
    with pytest.MonkeyPatch.context() as patched:
        for tables in (setup_tables, block_tables):
            patched.setattr(tables, "_LONGEST_STEP", 1)
        yield


@pytest.fixture
def services(database: str, clock: FakeClock) -> Iterator[Services]:
    settings = Settings(database=database)
    opened = open_services(settings, clock, seed=7, watch=False)
    setup.ensure_workspace(opened, WORKSPACE)
    yield opened
    opened.close()


def campaign(**changes: object) -> Campaign:
    """A campaign of two variants on two channels without control groups."""
    values: dict[str, object] = {
        "workspace_id": WORKSPACE,
        "campaign_id": "spring",
        "variants": (Variant("mens"), Variant("womens")),
        "channels": (Channel("email"), Channel("push")),
        "created_at": START,
        "updated_at": START,
        "objective": {"clicked": OutcomeWeight(fixed=1.0)},
        "attribution_hours": {"clicked": 1.0},
        "groups": GroupShares(),
        **changes,
    }
    return Campaign(**values)  # type: ignore[arg-type]  # tests pass fields by name


@pytest.fixture
def spring(services: Services) -> Campaign:
    return setup.put_campaign(services, campaign())[0]
