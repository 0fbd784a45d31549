"""The showcase: a shop's weeks that end now, through the service, and a database that is nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from optimizer.config import Settings
from optimizer.errors import Conflict
from optimizer.service.setup import authenticate
from optimizer.service.wiring import open_services
from simulations.bench.console import multiply
from simulations.showcase import fill, showcase

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


def test_a_shops_days_end_now_with_something_of_everything(tmp_path: Path) -> None:
    settings = Settings(database=f"sqlite:///{tmp_path}/shop.db", log_level="error")
    told: list[str] = []
    secret = fill(settings, NOW, people=60, days=6, seed=1, tell=told.append)
    assert told[-1] == "day 6 of 6"
    services = open_services(settings, lambda: NOW, watch=False)
    try:
        assert authenticate(services, secret).scopes == ("admin",)
        with services.store.read() as reader:
            rows = list(reader.feedback("default"))
            campaigns = {one.campaign_id for one in reader.campaigns("default", limit=10).items}
        decided = [row.decision.decided_at for row in rows]
        assert min(decided) == NOW - timedelta(days=5, hours=6)
        assert max(decided) == NOW - timedelta(hours=6)
        statuses = {row.decision.status for row in rows}
        assert statuses >= {"reserved", "sent", "assumed_sent", "no_send", "withheld"}
        types = {event.type for row in rows for event in row.events}
        assert types >= {"opened", "clicked", "converted"}
        assert all(event.occurred_at <= NOW for row in rows for event in row.events)
        assert campaigns == {"spring", "cart", "winback"}
    finally:
        services.close()
    with pytest.raises(Conflict):
        fill(settings, NOW, people=60, days=6, seed=1, tell=told.append)


def test_the_benchmarks_long_log_is_the_showcases_many_times(tmp_path: Path) -> None:
    settings = Settings(database=f"sqlite:///{tmp_path}/shop.db", log_level="error")
    fill(settings, NOW, people=40, days=3, seed=1, tell=lambda _: None)
    services = open_services(settings, lambda: NOW, watch=False)
    try:
        with services.store.read() as reader:
            before = list(reader.feedback("default"))
        wanted = 4 * len(before) + 7
        assert list(multiply(services, wanted))[-1] == wanted
        with services.store.read() as reader:
            after = list(reader.feedback("default"))
        assert len(after) == len({row.decision.decision_id for row in after}) == wanted
        opened = [sum(event.type == "opened" for row in rows for event in row.events) for rows in (before, after)]
        assert 4 * opened[0] <= opened[1] <= 5 * opened[0]
        assert opened[0] > 0
    finally:
        services.close()


def test_the_command_prints_a_key_alone(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/shop.db"
    done = CliRunner().invoke(showcase, ["--database", database, "--people", "20", "--days", "2"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("st_")
    assert len(done.stdout.split()) == 1
    again = CliRunner().invoke(showcase, ["--database", database, "--people", "20", "--days", "2"])
    assert again.exit_code == 1
    assert "has decisions already" in again.stderr
