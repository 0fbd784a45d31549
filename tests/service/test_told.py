"""What earlier training runs told of a campaign is found behind those that tell nothing of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from optimizer.service.runs import Ended
from optimizer.service.told import LOOK_BACK, last_told, last_told_of
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from storage.port import Writer
from tests.service.conftest import START, WORKSPACE

NOW = START + timedelta(days=30)


def run(minute: int, *told: dict[str, Any], error: str | None = None) -> TrainingRun:
    """A refresh that has ended, so many minutes after the start."""
    ended = Ended("failed", error=error) if error else Ended("skipped", told)
    run = TrainingRun(WORKSPACE, f"run_{minute}", "refresh", ended.status, START + timedelta(minutes=minute))
    return replace(run, verdict=ended.verdict, error=ended.error)


def keep(services: Services, *runs: TrainingRun) -> None:
    def work(writer: Writer, one: TrainingRun) -> None:
        writer.put_training_run(one)

    for one in runs:
        services.store.write(partial(work, one=one))


@pytest.fixture
def told(services: Services) -> Services:
    """A workspace whose first run has told of two campaigns."""
    keep(services, run(0, {"campaign_id": "spring", "drift": {"rows": 7}}, {"campaign_id": "autumn", "drift": {}}))
    return services


def found(services: Services, name: str = "spring") -> Any:
    with services.store.read() as reader:
        return last_told(reader, WORKSPACE, name, "drift", NOW)


def test_runs_that_failed_or_were_of_others_hide_nothing(told: Services) -> None:
    keep(told, *(run(1 + i, error="disk full") for i in range(LOOK_BACK + 50)))
    keep(told, *(run(1_000 + i, {"campaign_id": "winter", "drift": {"rows": i}}) for i in range(LOOK_BACK + 50)))
    assert found(told) == {"rows": 7}
    assert found(told, "winter") == {"rows": LOOK_BACK + 49}, "the newest"
    assert found(told, "nobody") is None


def test_what_has_not_been_told_for_long_is_not_looked_for_without_end(told: Services) -> None:
    keep(told, *(run(1 + i, {"campaign_id": "spring", "looks": {}}) for i in range(LOOK_BACK)))
    assert found(told) is None
    assert found(told, "autumn") == {}


def test_several_campaigns_are_told_of_as_each_alone(told: Services) -> None:
    keep(told, run(1, {"campaign_id": "winter", "drift": {"rows": 9}}), run(2, {"campaign_id": "spring"}))
    with told.store.read() as reader:
        together = last_told_of(reader, WORKSPACE, ["spring", "autumn", "winter", "nobody"], "drift", NOW)
        assert last_told_of(reader, WORKSPACE, [], "drift", NOW) == {}
    assert together == {name: found(told, name) for name in ("spring", "autumn", "winter")}


def test_what_is_dated_ahead_has_not_been_seen_yet(told: Services) -> None:
    keep(told, run(60 * 24 * 365, {"campaign_id": "spring", "drift": {"rows": 8}}))
    assert found(told) == {"rows": 7}
