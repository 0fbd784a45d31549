"""Training runs: one at a time, due when due, and a dead process's run is found out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from optimizer.errors import Conflict, NotFound
from optimizer.service import runs, setup, told
from optimizer.service.learning import queue_training
from optimizer.service.runs import Ended
from optimizer.service.wiring import Services
from storage.policies import Pointer, TrainingRun
from storage.records import Campaign
from tests.service.conftest import WORKSPACE, FakeClock, campaign

EVERY = timedelta(hours=4)


def stored(services: Services, run: TrainingRun) -> TrainingRun:
    with services.store.read() as reader:
        found = reader.training_run(run.workspace_id, run.run_id)
    assert found is not None
    return found


def test_a_queued_run_is_claimed_once_while_its_lease_holds(services: Services, clock: FakeClock) -> None:
    queued = queue_training(services, WORKSPACE, None)
    started = runs.start_next(services, "one")
    queue_training(services, WORKSPACE, None)

    assert started is not None
    assert (started.run_id, started.status, started.started_at) == (queued.run_id, "running", clock.now)
    assert runs.start_next(services, "other") is None
    runs.finish(services, started, "one", Ended("published", [{"campaign_id": "c"}]))
    assert runs.start_next(services, "other") is not None
    assert stored(services, started).verdict == {"campaigns": [{"campaign_id": "c"}]}


def test_workspaces_train_side_by_side(services: Services) -> None:
    setup.ensure_workspace(services, "zeta")
    for workspace in (WORKSPACE, "zeta"):
        queue_training(services, workspace, None)
    claimed = [runs.start_next(services, holder) for holder in ("one", "other")]
    assert [run and run.workspace_id for run in claimed] == [WORKSPACE, "zeta"]


def test_a_retrain_that_waits_goes_before_a_refresh(services: Services, clock: FakeClock) -> None:
    clock.forward(hours=5)
    assert runs.enqueue_due(services, WORKSPACE, "refresh", EVERY)
    clock.forward(seconds=1)
    queue_training(services, WORKSPACE, None)
    started = runs.start_next(services, "one")
    assert started is not None
    assert started.kind == "retrain"


def test_each_workspace_gets_its_turn_however_many_refreshes_wait(services: Services, clock: FakeClock) -> None:
    """Twenty workspaces, a refresh a minute each, and 4 s of training for each: there is never nothing to do."""
    names = [WORKSPACE, *(f"w{n:02}" for n in range(19))]
    for name in names[1:]:
        setup.ensure_workspace(services, name)
    clock.forward(hours=4)
    done: dict[tuple[str, str], int] = {}
    for step in range(15 * 20):
        if step % 15 == 0:
            for name in names:
                runs.enqueue_due(services, name, "retrain", EVERY)
                runs.enqueue_due(services, name, "refresh", timedelta(minutes=1))
        run = runs.start_next(services, "one")
        assert run is not None
        done[run.kind, run.workspace_id] = done.get((run.kind, run.workspace_id), 0) + 1
        clock.forward(seconds=4)
        runs.finish(services, run, "one", Ended("skipped"))
    assert [done["retrain", name] for name in names] == [1] * 20
    # At worst a workspace's next refresh is queued a minute after its last one, and waits for 20 runs then.
    assert min(done["refresh", name] for name in names) >= (1200 - 20 * 4) // (60 + 20 * 4)


def test_a_refresh_that_waits_for_hours_goes_before_the_next_retrain(services: Services, clock: FakeClock) -> None:
    clock.forward(hours=5)
    assert runs.enqueue_due(services, WORKSPACE, "refresh", EVERY)
    clock.forward(hours=2)
    queue_training(services, WORKSPACE, None)
    started = runs.start_next(services, "one")
    assert started is not None
    assert started.kind == "refresh"


def test_a_run_left_by_a_dead_process_fails_once_its_lease_has_lapsed(services: Services, clock: FakeClock) -> None:
    queue_training(services, WORKSPACE, None)
    left = runs.start_next(services, "dead")
    assert left is not None
    queued = queue_training(services, WORKSPACE, None)

    clock.forward(seconds=runs.LEASE.total_seconds() - 1)
    assert runs.sweep(services, "alive") == 0
    assert runs.start_next(services, "alive") is None
    clock.forward(seconds=2)
    assert runs.sweep(services, "alive") == 1
    assert stored(services, left).status == "failed"
    assert "interrupted" in (stored(services, left).error or "")
    next_run = runs.start_next(services, "alive")
    assert next_run is not None
    assert next_run.run_id == queued.run_id


def test_a_renewed_lease_keeps_others_out(services: Services, clock: FakeClock) -> None:
    queue_training(services, WORKSPACE, None)
    assert runs.start_next(services, "one")
    for _ in range(5):
        clock.forward(seconds=runs.LEASE.total_seconds() * 0.9)
        assert runs.renew(services, WORKSPACE, "one")
        assert runs.sweep(services, "other") == 0
    clock.forward(seconds=runs.LEASE.total_seconds() + 1)
    assert runs.start_next(services, "other") is None  # nothing waits, but the lease is free and the run is over
    assert runs.sweep(services, "other") == 1


def test_a_scheduled_run_is_queued_when_the_last_is_old_enough(services: Services, clock: FakeClock) -> None:
    assert runs.enqueue_due(services, WORKSPACE, "retrain", EVERY) is None  # the workspace is new
    clock.forward(hours=4)
    first = runs.enqueue_due(services, WORKSPACE, "retrain", EVERY)
    clock.forward(hours=9)
    assert first is not None
    assert runs.enqueue_due(services, WORKSPACE, "retrain", EVERY) is None  # the first still waits
    started = runs.start_next(services, "one")
    assert started is not None
    runs.finish(services, started, "one", Ended("rejected"))
    assert runs.enqueue_due(services, WORKSPACE, "retrain", EVERY) is not None


def test_a_run_of_one_campaign_does_not_put_the_scheduled_one_off(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    clock.forward(hours=5)
    queue_training(services, WORKSPACE, "spring")
    assert runs.enqueue_due(services, WORKSPACE, "retrain", EVERY) is not None


def test_a_run_keeps_its_first_end(services: Services) -> None:
    queue_training(services, WORKSPACE, None)
    run = runs.start_next(services, "one")
    assert run is not None
    runs.finish(services, run, "one", Ended("published"))
    runs.finish(services, run, "one", Ended("failed", error="late"))
    assert (stored(services, run).status, stored(services, run).error) == ("published", None)


def test_what_a_run_raises_is_its_error_and_frees_the_lease(services: Services) -> None:
    run = runs.start_now(services, WORKSPACE, None, "one", "cli")
    with pytest.raises(ZeroDivisionError), runs.kept(services, run, "one"):
        raise ZeroDivisionError("by nothing")
    assert (stored(services, run).status, stored(services, run).error) == ("failed", "ZeroDivisionError: by nothing")
    assert runs.start_now(services, WORKSPACE, None, "other", "cli").status == "running"


def test_a_run_that_was_taken_for_dead_does_not_tell_another_end_than_its_row(
    services: Services, clock: FakeClock
) -> None:
    run = runs.start_now(services, WORKSPACE, None, "one", "cli")

    def suspended() -> None:
        with runs.kept(services, run, "one") as end:
            clock.forward(minutes=1)
            runs.start_now(services, WORKSPACE, None, "other", "schedule")
            end(Ended("published"))

    with pytest.raises(Conflict, match="taken for dead"):
        suspended()
    assert stored(services, run).status == "failed"
    assert runs.renew(services, WORKSPACE, "other")


def test_starting_now_is_refused_while_a_run_goes_on_or_without_its_campaign(services: Services) -> None:
    runs.start_now(services, WORKSPACE, None, "one", "cli")
    with pytest.raises(Conflict):
        runs.start_now(services, WORKSPACE, None, "other", "cli")
    with pytest.raises(NotFound):
        runs.start_now(services, WORKSPACE, "nope", "other", "cli")


def test_a_refresh_pays_only_with_a_learned_policy_and_decisions_still_open(
    services: Services, clock: FakeClock
) -> None:
    from optimizer.service.requests import DecisionRequest

    setup.put_campaign(services, campaign())
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))
    assert not runs.refresh_pays(services, WORKSPACE)

    services.store.write(lambda w: w.move_pointer(Pointer(WORKSPACE, "spring", "pol_x", 1, clock.now)))
    assert runs.refresh_pays(services, WORKSPACE)
    clock.forward(hours=5)
    assert runs.enqueue_due(services, WORKSPACE, "refresh", EVERY)
    assert runs.refresh_pays(services, WORKSPACE)  # 5 h ago: its window of 24 h and the 1 h of attribution are open
    clock.forward(days=3)
    run = runs.start_next(services, "one")
    assert run is not None
    runs.finish(services, run, "one", Ended("rejected"))
    assert runs.enqueue_due(services, WORKSPACE, "refresh", EVERY)
    assert not runs.refresh_pays(services, WORKSPACE)


def test_a_refresh_pays_as_long_as_the_last_one_left_decisions_open(services: Services, clock: FakeClock) -> None:
    """A request may have named a window of a week, of which the campaign's own of a day says nothing."""
    setup.put_campaign(services, campaign())
    services.store.write(lambda w: w.move_pointer(Pointer(WORKSPACE, "spring", "pol_x", 1, clock.now)))
    for days, pays in ((5, True), (0, False)):
        clock.forward(days=10)
        run = runs.start_now(services, WORKSPACE, None, "one", "schedule", "refresh")
        since = clock.now.timestamp() - days * 86_400 - told.LATE_COMMIT
        answer = {"campaign_id": "spring", "decision": "unchanged", "drift": {"since": since}}
        runs.finish(services, run, "one", Ended("skipped", [answer]))
        assert runs.refresh_pays(services, WORKSPACE) is pays


def test_a_refresh_pays_where_another_policy_was_put_into_service(services: Services, clock: FakeClock) -> None:
    """A candidate has not learned what it was judged on, however long nobody was asked about."""
    setup.put_campaign(services, campaign())
    services.store.write(lambda w: w.move_pointer(Pointer(WORKSPACE, "spring", "pol_x", 1, clock.now)))
    clock.forward(days=30)
    assert runs.enqueue_due(services, WORKSPACE, "refresh", EVERY)
    assert not runs.refresh_pays(services, WORKSPACE)
    clock.forward(minutes=1)
    services.store.write(lambda w: w.move_pointer(Pointer(WORKSPACE, "spring", "pol_y", 2, clock.now)))
    assert runs.refresh_pays(services, WORKSPACE)


@pytest.fixture
def once_ahead(services: Services, clock: FakeClock) -> None:
    """The clock showed another year for a while, in which a retrain and a refresh were carried out."""
    now = clock.now
    clock.forward(days=1200)
    for kind in ("retrain", "refresh"):
        assert runs.enqueue_due(services, WORKSPACE, kind, EVERY)
        run = runs.start_next(services, "one")
        assert run is not None
        runs.finish(services, run, "one", Ended("skipped"))
    clock.now = now


@pytest.mark.usefixtures("once_ahead")
def test_a_clock_that_was_ahead_once_stops_no_scheduled_run(
    services: Services, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.forward(hours=4)
    for kind in ("retrain", "refresh"):
        queued = runs.enqueue_due(services, WORKSPACE, kind, EVERY)
        started = runs.start_next(services, "one")
        assert queued is not None
        assert started is not None
        runs.finish(services, started, "one", Ended("skipped"))
        clock.forward(hours=3)
        assert runs.enqueue_due(services, WORKSPACE, kind, EVERY) is None, "the last one is 3 h ago"
        clock.forward(hours=1)
    told = [record.message for record in caplog.records if record.name == "sendtide.clock"]
    assert len(told) == 2, "each of the two is told once"


@pytest.mark.usefixtures("once_ahead")
def test_a_clock_that_was_ahead_once_stops_no_refresh_of_what_is_decided_since(
    services: Services, clock: FakeClock
) -> None:
    from optimizer.service.requests import DecisionRequest

    setup.put_campaign(services, campaign())
    services.store.write(lambda w: w.move_pointer(Pointer(WORKSPACE, "spring", "pol_x", 1, clock.now)))
    services.decider.decide(WORKSPACE, DecisionRequest("spring", "u1"))
    assert runs.refresh_pays(services, WORKSPACE)


def test_a_workspace_made_while_the_clock_was_ahead_is_trained(services: Services, clock: FakeClock) -> None:
    now = clock.now
    clock.forward(days=1200)
    setup.ensure_workspace(services, "later")
    clock.now = now
    assert runs.enqueue_due(services, "later", "retrain", EVERY) is not None


def test_a_run_queued_while_the_clock_was_ahead_goes_first(services: Services, clock: FakeClock) -> None:
    setup.ensure_workspace(services, "alpha")
    now = clock.now
    clock.forward(days=1200)
    queue_training(services, WORKSPACE, None)
    clock.now = now
    queue_training(services, "alpha", None)
    started = runs.start_next(services, "one")
    assert started is not None
    assert started.workspace_id == WORKSPACE


def test_a_run_taken_while_the_clock_was_ahead_is_found_dead(services: Services, clock: FakeClock) -> None:
    now = clock.now
    clock.forward(days=1200)
    runs.start_now(services, WORKSPACE, None, "dead", "cli")
    clock.now = now
    assert runs.sweep(services, "alive") == 1
    assert runs.start_now(services, WORKSPACE, None, "alive", "cli").status == "running"
