"""How a workspace stands: each thing that may be wrong is told, the worst first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from optimizer.service import setup
from optimizer.service.standing import Check, checks
from optimizer.service.wiring import Services
from storage.endpoints import Delivery, Endpoint
from storage.log import Event
from storage.policies import RunStatus, TrainingRun
from tests.service.campaigns import decision, write
from tests.service.conftest import START, WORKSPACE, FakeClock


def looked_at(services: Services) -> dict[str, Check]:
    with services.store.read() as reader:
        return {one.name: one for one in checks(services, reader, WORKSPACE)}


def ran(services: Services, status: RunStatus, **facts: Any) -> None:
    run = TrainingRun(WORKSPACE, "run_1", "retrain", status, services.clock(), **facts)
    services.store.write(lambda writer: writer.put_training_run(run))


def test_a_new_workspace_is_well(services: Services) -> None:
    found = looked_at(services)
    assert set(found) == {"mode", "no_decisions", "policies_none", "training_none"}
    assert {one.level for one in found.values()} == {"good", "note"}


def test_a_mode_that_is_not_live_is_told(services: Services) -> None:
    setup.set_mode(services, WORKSPACE, "paused")
    assert looked_at(services)["mode"] == Check("mode", "warn", {"mode": "paused"})


def test_a_day_without_decisions_is_told(services: Services, clock: FakeClock) -> None:
    write(services, [decision(0, "treated")])
    assert looked_at(services)["decisions"].level == "good"
    clock.forward(hours=24)
    assert looked_at(services)["decisions"] == Check("decisions", "warn", {"at": START})


@pytest.mark.parametrize(
    ("status", "level"),
    [("published", "good"), ("rejected", "good"), ("skipped", "good"), ("queued", "good"), ("failed", "bad")],
)
def test_the_last_training_run_is_told(services: Services, status: RunStatus, level: str) -> None:
    ran(services, status, error="out of memory" if status == "failed" else None)
    found = looked_at(services)[f"training_{status}"]
    assert found.level == level
    assert found.facts.get("error", "out of memory") == "out of memory"


def test_a_refresh_is_no_training_run(services: Services) -> None:
    ran(services, "published")
    for n in range(150):
        refresh = TrainingRun(WORKSPACE, f"run_r{n}", "refresh", "published", START + timedelta(minutes=n))
        services.store.write(lambda writer, refresh=refresh: writer.put_training_run(refresh))  # type: ignore[misc]
    assert looked_at(services)["training_published"].facts == {"at": START}


def test_a_schedule_that_is_late_is_told_and_so_is_a_run_without_end(services: Services, clock: FakeClock) -> None:
    ran(services, "published")
    clock.forward(hours=4, minutes=15)
    assert "training_published" in looked_at(services)
    clock.forward(seconds=1)
    assert looked_at(services)["training_late"] == Check("training_late", "warn", {"at": START})
    ran(services, "running", started_at=clock())
    assert looked_at(services)["training_running"].level == "good"
    clock.forward(hours=7)
    assert looked_at(services)["training_stuck"].level == "bad"


def test_a_first_run_that_is_overdue_is_not_told_as_one_that_was_asked_for(
    services: Services, clock: FakeClock
) -> None:
    clock.forward(days=5)
    found = looked_at(replace(services, opened_at=clock() - timedelta(hours=1)))
    assert found["training_overdue"] == Check("training_overdue", "warn", {"at": START})
    assert "training_late" not in found


def test_a_schedule_that_has_just_started_is_not_late(services: Services, clock: FakeClock) -> None:
    ran(services, "published")
    clock.forward(days=11)
    reopened = replace(services, opened_at=clock())
    assert "training_published" in looked_at(reopened)
    clock.forward(minutes=15, seconds=1)
    assert looked_at(reopened)["training_late"] == Check("training_late", "warn", {"at": START}), "it doesn't run"


def test_webhooks_that_fail_are_told(services: Services) -> None:
    endpoint = Endpoint(WORKSPACE, "crm", "https://crm.example", ("whsec_x",), ("revoked",), START, START)
    failing = Delivery(WORKSPACE, "crm", 0, failures=3, failing_since=START)
    stopped = replace(failing, stopped="gone for five days")

    def noted(delivery: Delivery) -> dict[str, Check]:
        def work(writer: Any) -> None:
            writer.put_endpoint(endpoint)
            writer.put_delivery(delivery)

        services.store.write(work)
        return looked_at(services)

    assert not {"endpoint_failing", "endpoint_stopped"} & set(noted(replace(failing, failures=0)))
    assert noted(failing)["endpoint_failing"].facts == {"endpoint": "crm", "at": START, "failures": 3}
    assert noted(stopped)["endpoint_stopped"].level == "bad"


def test_events_that_wait_for_their_decision_are_noted(services: Services) -> None:
    waiting = Event(WORKSPACE, "e", "opened", START, START, matched=False, decision_id="dec_unknown")
    services.store.write(lambda writer: writer.add_event(waiting))
    assert looked_at(services)["unmatched"] == Check("unmatched", "note", {"count": 1})


def test_the_worst_is_told_first(services: Services, clock: FakeClock) -> None:
    ran(services, "failed")
    setup.set_mode(services, WORKSPACE, "shadow")
    with services.store.read() as reader:
        levels = [one.level for one in checks(services, reader, WORKSPACE)]
    assert levels == sorted(levels, key=["bad", "warn", "note", "good"].index)
    assert levels[:2] == ["bad", "warn"]
