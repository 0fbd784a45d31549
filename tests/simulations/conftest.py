"""A store of its own for each test of the simulations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.open import open_store
from storage.port import Store
from storage.records import (
    Campaign,
    Channel,
    Variant,
    Workspace,
)
from tests.simulations.planted import DAY, NOW, SHOP


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = open_store(database)
    shop = Workspace(workspace_id=SHOP, name="Acme", mode="live", created_at=NOW - DAY)
    opened.write(lambda w: w.put_workspace(shop))
    campaign = Campaign(SHOP, "spring", (Variant("hello"),), (Channel("email"),), NOW - DAY, NOW - DAY)
    opened.write(lambda w: w.put_campaign(campaign))
    yield opened
    opened.close()
