"""The scheduler's part: it learns loops, carries out their jobs, forgets old rows; one workspace spoils no other."""

from __future__ import annotations

import pytest

from optimizer.errors import BadArtifact
from optimizer.scheduler import Scheduler
from optimizer.service import setup
from optimizer.service.personalizer import evaluations
from optimizer.service.personalizer.evaluations import Evaluation
from optimizer.service.personalizer.learning import LoopLearner
from tests.service.personalizer.conftest import Bench


def test_loops_are_among_the_jobs(bench: Bench) -> None:
    jobs = {job.id for job in Scheduler(bench.services)._jobs(bench.services.settings).get_jobs()}
    assert {"loops", "loop-jobs"} <= jobs


def test_a_scheduler_learns_and_works_for_every_workspace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.ensure_workspace(bench.services, "a-broken-one")
    refresh = LoopLearner.refresh

    def sometimes(self: LoopLearner, services: object, workspace_id: str, **named: bool) -> bool:
        if workspace_id == "a-broken-one":
            raise BadArtifact("broken")
        return refresh(self, services, workspace_id, **named)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(LoopLearner, "refresh", sometimes)
    bench.play(10)
    now = bench.clock()
    evaluations.create(bench.services, "w", Evaluation("ev", "n", now.replace(year=2020), now, now))
    scheduler = Scheduler(bench.services)
    scheduler._learn_loops()
    scheduler._work_for_loops()
    assert bench.stored is not None
    with bench.services.store.read() as reader:
        assert evaluations.SHELF.find(reader, "w", "ev").status == "Succeeded"
    bench.clock.forward(days=91)
    scheduler._retain()
    with bench.services.store.read() as reader:
        assert reader.rank_span("w") is None


def test_a_clock_that_leaps_deletes_no_answers(bench: Bench) -> None:
    bench.play(10)
    scheduler = Scheduler(bench.services)
    scheduler._retain()
    for passed in ({"days": 3650}, {"minutes": 10}, {"hours": 11}):  # it leaps; the scheduler is started again, twice
        bench.clock.forward(**passed)
        scheduler._retain()
        with bench.services.store.read() as reader:
            assert reader.rank_span("w") is not None
    bench.clock.forward(hours=1)
    scheduler._retain()
    with bench.services.store.read() as reader:
        assert reader.rank_span("w") is None
