"""Evaluations and feature importances: what they find, when they run by themselves, what breaks or is deleted."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from threading import Semaphore
from typing import Any

import pytest

from optimizer.bandit.cressieread import Bounds, cressie_read
from optimizer.model.tokens import tokens
from optimizer.model.training.adf import AdfRow, AdfTrainer
from optimizer.service.personalizer import evaluating, evaluations, feedback, importances, replaying, shelf
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.evaluations import Evaluation, NamedPolicy
from optimizer.service.personalizer.importances import Importance
from optimizer.service.personalizer.loop import Loop
from storage.port import Reader
from storage.sql.learning_tables import LearningWriter
from tests.service.personalizer.conftest import Bench


def evaluation(bench: Bench, **changes: object) -> Evaluation:
    now = bench.clock()
    asked = Evaluation("ev", "n", now - timedelta(days=30), now, now, **changes)  # type: ignore[arg-type]  # any field
    evaluations.create(bench.services, "w", asked)
    assert evaluating.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        return evaluations.SHELF.find(reader, "w", "ev")


def test_an_evaluation_finds_what_policies_would_have_earned(bench: Bench) -> None:
    """Drawn evenly, a third of readers gets what they like, whatever the policy: random and baseline (always "a", liked
    by a third) earn 1/3, the service's own log as it was, and a policy that learns much more. Bounds are five standard
    errors wide."""
    earned = bench.play(600)
    custom = (NamedPolicy("learns", "--cb_explore_adf --epsilon 0.1 -q ::"), NamedPolicy("flat", "--cb_explore_adf"))
    found = evaluation(bench, policies=custom)
    values = {outcome.name: outcome.value for outcome in found.outcomes}
    assert values["Online"] == pytest.approx(earned)
    assert values["Random"] == pytest.approx(earned, abs=0.02)
    assert values["Baseline"] == pytest.approx(1 / 3, abs=0.17)
    assert values["learns"] > 0.65
    assert values["flat"] < 0.5
    for outcome in found.outcomes:
        assert outcome.low <= outcome.value <= outcome.high
        assert sum(bucket.rows for bucket in outcome.buckets) == 600


def test_a_value_is_told_with_the_interval_of_its_own_estimator(bench: Bench) -> None:
    """Answers that were drawn by a model have weights that differ: the estimate is inside, and no end of it."""
    bench.play(60)
    bench.learn()
    bench.play(60)
    found = evaluation(bench, policies=(NamedPolicy("learns", "--cb_explore_adf --epsilon 0.1 -q ::"),))
    with bench.services.store.read() as reader:
        loop = loops.load(reader, "w")
        rows = replaying.trials(reader, "w", loop, found.start, found.end, bench.clock())
    reward = [trial.reward for trial in rows]
    told = {outcome.name: outcome for outcome in found.outcomes}
    for name, weight in (("Random", replaying.uniform(rows)), ("Baseline", replaying.baseline(rows))):
        assert told[name].value == pytest.approx(cressie_read(reward, weight, Bounds((0.0, 1.0))), abs=1e-12)
    for outcome in found.outcomes:
        assert outcome.low < outcome.value < outcome.high
        assert outcome.seen == (0.0, 1.0)


def test_a_policy_that_no_answer_tells_of_may_earn_anything(bench: Bench) -> None:
    """Everyone got what they like, and it was never the baseline."""
    for _ in range(20):
        rank = bench.rank()
        if rank.slots[0].chosen != rank.slots[0].baseline:
            feedback.reward(bench.services, "w", rank.event_id, [("", 1.0)])
    bench.clock.forward(seconds=1)
    baseline = next(outcome for outcome in evaluation(bench).outcomes if outcome.name == "Baseline")
    assert (baseline.value, baseline.low, baseline.high) == (0.0, -1.0, 1.0)


def test_an_optimisation_is_judged_on_rows_it_was_not_chosen_on(bench: Bench) -> None:
    loops.set_policy(bench.services, "w", "blind", "--cb_explore_adf --epsilon 1")
    bench.play(600)
    found = evaluation(bench, optimise=True)
    best = next(outcome for outcome in found.outcomes if outcome.source == "OfflineExperimentation")
    assert found.optimal == best.name
    assert "-q ::" in best.arguments
    assert sum(bucket.rows for bucket in best.buckets) == 200
    assert found.better


@pytest.mark.parametrize("mode", ["Apprentice", "LoggingOnly", "Online"])
def test_a_log_without_choices_tells_of_no_other_policy(bench: Bench, mode: str) -> None:
    """Exploration is 0 as well, so that a loop that has a model draws nothing."""
    if mode == "Online":
        bench.play(60)
        bench.learn()
        bench.clock.forward(days=1)
    loops.change(bench.services, "w", {"mode": mode, "exploration": 0.0})
    start = bench.clock()
    earned = bench.play(30)
    policies = (NamedPolicy("mine", "--cb_explore_adf --epsilon 0.05 -q ::"),)
    now = bench.clock()
    asked = Evaluation("ev", "n", start, now, now, policies=policies, optimise=True)
    evaluations.create(bench.services, "w", asked)
    assert evaluating.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        found = evaluations.SHELF.find(reader, "w", "ev")
    assert (found.status, found.optimal) == ("Failed", None)
    assert "certain" in found.description
    values = {outcome.name: outcome.value for outcome in found.outcomes}
    assert values.pop("Online") == pytest.approx(earned)
    if mode != "Online":
        assert values == {"Baseline": pytest.approx(earned)}
    assert values.keys() <= {"Baseline"}


def test_certain_answers_judge_no_other_policy(bench: Bench) -> None:
    loops.change(bench.services, "w", {"mode": "Apprentice"})
    bench.play(300)
    loops.change(bench.services, "w", {"mode": "Online"})
    bench.play(90)
    mine = NamedPolicy("mine", "--cb_explore_adf --epsilon 0.05 -q ::")
    found = evaluation(bench, policies=(mine,), optimise=True)
    assert found.status == "Succeeded"
    rows = {outcome.name: sum(bucket.rows for bucket in outcome.buckets) for outcome in found.outcomes}
    assert rows == {"Online": 390, "Baseline": 390, "Random": 90, "mine": 90, "Optimized": 30}


def test_auto_optimisation_runs_when_it_is_due_and_keeps_what_is_not_beaten(bench: Bench) -> None:
    loops.set_policy(bench.services, "w", "blind", "--cb_explore_adf --epsilon 1")
    loops.change(bench.services, "w", {"auto_optimization": True, "auto_every": timedelta(days=1)})
    bench.play(900)
    assert evaluating.queue_due(bench.services, "w") is None
    bench.clock.forward(hours=23, minutes=46)
    asked = evaluating.queue_due(bench.services, "w")
    assert asked is not None
    assert evaluating.queue_due(bench.services, "w") is None, "once"
    assert evaluating.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        assert evaluations.SHELF.find(reader, "w", asked.id).status == "OptimalPolicyApplied"
    assert loops.get(bench.services, "w").policy_name == evaluating.OPTIMAL
    bench.clock.forward(days=2)
    assert evaluating.queue_due(bench.services, "w") is None, "nothing was logged since"
    bench.play(100)
    again = evaluating.queue_due(bench.services, "w")
    assert again is not None
    assert evaluating.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        assert evaluations.SHELF.find(reader, "w", again.id).status == "OnlinePolicyRetained"


def test_auto_optimisation_goes_on_after_the_clock_was_ahead(bench: Bench) -> None:
    loops.change(bench.services, "w", {"auto_optimization": True, "auto_every": timedelta(days=1)})
    bench.play(10)
    now = bench.clock.now
    bench.clock.forward(days=1200)
    bench.play(10)
    assert evaluating.queue_due(bench.services, "w") is not None
    bench.clock.now = now + timedelta(days=1)
    bench.play(10)
    assert evaluating.queue_due(bench.services, "w") is not None


def test_an_evaluation_that_breaks_fails_and_waits_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(5)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(evaluating, "_judged", broken)
    now = bench.clock()
    evaluations.create(bench.services, "w", Evaluation("ev", "n", now - timedelta(days=1), now, now))
    with pytest.raises(ZeroDivisionError):
        evaluating.run_waiting(bench.services, "w")
    assert not evaluating.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        assert evaluations.SHELF.find(reader, "w", "ev").status == "Failed"


def test_a_feature_importance_that_breaks_fails_and_those_behind_it_are_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.play(5)
    now = bench.clock()
    importances.create(bench.services, "w", Importance("first", "n", now - timedelta(days=1), now, now))
    bench.clock.forward(minutes=1)
    importances.create(bench.services, "w", Importance("second", "n", now - timedelta(days=1), now, now))

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as once:
        once.setattr(importances, "scores", broken)
        with pytest.raises(ZeroDivisionError):
            importances.run_waiting(bench.services, "w")
    assert importances.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        found = {one.id: one.status for one in importances.SHELF.listed(reader, "w")}
    assert found == {"first": "Failed", "second": "Succeeded"}


@pytest.mark.parametrize("kind", ["evaluation", "importance"])
def test_a_job_that_ends_its_process_is_taken_up_once(bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    bench.play(5)
    made: Any = {"evaluation": Evaluation, "importance": Importance}[kind]
    module: Any = {"evaluation": evaluations, "importance": importances}[kind]
    run: Any = {"evaluation": evaluating, "importance": importances}[kind].run_waiting
    now = bench.clock()
    for id_ in ("deadly", "next"):
        module.create(bench.services, "w", made(id_, "n", now - timedelta(days=1), now, now))
        bench.clock.forward(minutes=1)

    def statuses() -> dict[str, str]:
        with bench.services.store.read() as reader:
            return {one.id: one.status for one in module.SHELF.listed(reader, "w")}

    def killed(*_: object) -> None:
        assert not run(bench.services, "w"), "another process leaves it alone"
        assert statuses() == {"deadly": "Running", "next": "NotSubmitted"}
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(replaying, "trials", killed)
        once.setattr(LearningWriter, "drop_lease", lambda *_: None)  # a process that is killed gives nothing back
        with pytest.raises(KeyboardInterrupt):
            run(bench.services, "w")
    assert statuses() == {"deadly": "Running", "next": "NotSubmitted"}
    bench.clock.forward(minutes=2)
    assert run(bench.services, "w")
    assert run(bench.services, "w")
    assert not run(bench.services, "w")
    assert (statuses()["deadly"], statuses()["next"] in ("Succeeded", "Failed")) == ("Failed", True)
    with bench.services.store.read() as reader:
        assert module.SHELF.find(reader, "w", "deadly").description == shelf.ABANDONED
        assert module.SHELF.find(reader, "w", "next").description != shelf.ABANDONED


def test_a_job_that_takes_long_is_left_alone_by_other_processes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(5)
    now = bench.clock()
    evaluations.create(bench.services, "w", Evaluation("ev", "n", now - timedelta(days=1), now, now))
    monkeypatch.setattr(shelf, "_RENEWED", timedelta(milliseconds=5))
    took, trials = LearningWriter.take_lease, replaying.trials
    renewed = Semaphore(0)

    def noted(*told: Any) -> bool:
        mine = took(*told)
        renewed.release()
        return mine

    def slow(*told: Any) -> Any:
        for _ in range(3):
            bench.clock.forward(seconds=80)
            for _ in range(2):  # the first may have looked at the clock before
                assert renewed.acquire(timeout=30)
            assert not evaluating.run_waiting(bench.services, "w")
        return trials(*told)

    monkeypatch.setattr(LearningWriter, "take_lease", noted)
    monkeypatch.setattr(replaying, "trials", slow)
    assert evaluating.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        assert evaluations.SHELF.find(reader, "w", "ev").status in ("Succeeded", "Failed")
        assert evaluations.SHELF.find(reader, "w", "ev").description != shelf.ABANDONED


def test_an_evaluation_that_another_process_did_meanwhile_is_not_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.play(5)
    now = bench.clock()
    evaluations.create(bench.services, "w", Evaluation("ev", "n", now - timedelta(days=1), now, now))
    oldest = shelf._oldest
    ran: list[str | bool] = []

    def another_first(*told: Any) -> Any:
        found = oldest(*told)
        if not ran:
            ran.append("one")
            ran.append(evaluating.run_waiting(bench.services, "w"))
        return found

    monkeypatch.setattr(shelf, "_oldest", another_first)
    assert not evaluating.run_waiting(bench.services, "w")
    assert ran == ["one", True]


def _asked(bench: Bench, name: str) -> None:
    """Asks for an evaluation ``ev`` and a feature importance ``f``."""
    start, end = bench.clock() - timedelta(days=1), bench.clock()
    evaluations.create(bench.services, "w", Evaluation("ev", name, start, end, end))
    importances.create(bench.services, "w", Importance("f", name, start, end, end))


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_what_is_deleted_while_it_is_worked_on_stays_deleted_and_what_is_asked_for_in_its_place_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, anew: bool, breaks: bool
) -> None:
    bench.play(5)
    _asked(bench, "first")
    trials = replaying.trials

    def deleted(reader: Reader, *range: Any) -> list[replaying.Trial]:
        bench.clock.forward(minutes=1)
        bench.services.store.write(lambda writer: writer.drop_loop_document("w", "evaluation", "ev"))
        bench.services.store.write(lambda writer: writer.drop_loop_document("w", "importance", "f"))
        if anew:
            _asked(bench, "second")
        if breaks:
            raise ZeroDivisionError
        return trials(reader, *range)

    for job in (evaluating.run_waiting, importances.run_waiting):
        with monkeypatch.context() as meanwhile, suppress(ZeroDivisionError):
            meanwhile.setattr(replaying, "trials", deleted)
            job(bench.services, "w")
    with bench.services.store.read() as reader:
        found: list[Evaluation | Importance] = [
            *evaluations.SHELF.listed(reader, "w"),
            *importances.SHELF.listed(reader, "w"),
        ]
    assert [(one.name, one.status) for one in found] == ([("second", "NotSubmitted")] * 2 if anew else [])


def test_an_automatic_evaluation_that_is_deleted_changes_no_settings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops.set_policy(bench.services, "w", "blind", "--cb_explore_adf --epsilon 1")
    bench.play(20)
    now = bench.clock()
    auto = Evaluation("ev", "n", now - timedelta(days=1), now, now, optimise=True, kind="Auto")
    evaluations.create(bench.services, "w", auto)
    judged = evaluating._judged

    def deleted(*given: Any) -> Evaluation:
        evaluations.SHELF.delete(bench.services, "w", "ev")
        return replace(judged(*given), better=True)

    monkeypatch.setattr(evaluating, "_judged", deleted)
    assert evaluating.run_waiting(bench.services, "w")
    assert loops.get(bench.services, "w").policy_name == "blind"


def test_jobs_look_at_the_newest_answers_whose_features_fit_into_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.play(12)
    now = bench.clock()

    def looked_at() -> list[str]:
        with bench.services.store.read() as reader:
            found = replaying.trials(reader, "w", Loop(), now - timedelta(days=1), now, now)
        return [trial.rank.event_id for trial in found]

    newest = [f"e{n}" for n in range(1, 13)]
    assert looked_at() == newest
    whole = 2 + 3 * 3 + 1  # an object with a value, three times in a list; a list of a slot
    monkeypatch.setattr(replaying, "MOST_VALUES", 5 * whole)
    assert looked_at() == newest[-5:]
    monkeypatch.setattr(replaying, "MOST", 3)
    assert looked_at() == newest[-3:]


def test_a_feature_importance_learns_from_the_newest_answers_that_fit_into_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.play(12)
    now = bench.clock()
    with bench.services.store.read() as reader:
        found = replaying.trials(reader, "w", Loop(), now - timedelta(days=1), now, now)
    taken: list[list[AdfRow]] = []
    add = AdfTrainer.add

    def noted(self: AdfTrainer, rows: Iterable[AdfRow]) -> None:
        taken.append(list(rows))
        add(self, taken[-1])

    monkeypatch.setattr(AdfTrainer, "add", noted)
    monkeypatch.setattr(
        importances, "_MOST_ENTRIES", 4 * (1 + 3 + 3)
    )  # an intercept, three features, every two of them
    assert importances.scores(found, Loop())
    assert [row.reward for row in taken[0]] == [trial.reward for trial in found[-4:]]
    assert [row.action.key.tolist() for row in taken[0]] == [
        tokens(t.rank.actions[t.slot.chosen].features, "a", t.rank.actions[t.slot.chosen].id).key.tolist()
        for t in found[-4:]
    ]


def test_of_many_features_those_that_matter_most_are_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(60)
    now = bench.clock()
    with bench.services.store.read() as reader:
        found = replaying.trials(reader, "w", Loop(), now - timedelta(days=1), now, now)
    every = importances.scores(found, Loop())
    assert len(every) == 3
    monkeypatch.setattr(importances, "MOST_FEATURES", 2)
    assert importances.scores(found, Loop()) == every[:2]


def test_jobs_of_a_range_where_nothing_is_settled_fail_with_a_reason(bench: Bench) -> None:
    bench.rank()
    bench.clock.forward(minutes=1)
    assert evaluation(bench).status == "Failed"
    now = bench.clock()
    importances.create(bench.services, "w", Importance("f", "n", now - timedelta(days=1), now, now))
    assert importances.run_waiting(bench.services, "w")
    with bench.services.store.read() as reader:
        found = importances.SHELF.find(reader, "w", "f")
    assert (found.status, found.scores) == ("Failed", ())
    assert "settled" in found.description
