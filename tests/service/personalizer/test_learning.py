"""Learning over time: refreshes, restarts, rivals, resets, changes of what is taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from optimizer.errors import Invalid
from optimizer.model.adf import Action, AdfModel
from optimizer.model.training.adf import AdfRow, AdfTrainer
from optimizer.service.personalizer import apprentice, feedback, learning, logs, models, ranking
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.learning import LoopLearner
from optimizer.service.personalizer.ranking import RankRequest, Slot
from optimizer.service.wiring import open_services
from storage.errors import StoreUnavailable
from storage.ranks import RankModel
from storage.sql import rank_tables
from tests.service.personalizer.conftest import ACTIONS, Bench


def loaded(bench: Bench) -> AdfModel:
    stored = bench.stored
    assert stored is not None
    return AdfModel.from_blob(stored.blob)


def scores(model: AdfModel, likes: str = "a") -> list[float]:
    return [float(x) for x in model.score([{"likes": likes}], ACTIONS)[:, 0]]


def test_what_readers_like_is_learned_within_minutes(bench: Bench) -> None:
    shares = []
    for _ in range(6):
        shares.append(bench.play(60))
        bench.learn()
    assert shares[0] < 0.55
    assert shares[-1] > 0.85  # of at most .87 or so: a fifth may be explored at first, a floor stays


def test_only_what_was_settled_since_is_taken_in(bench: Bench) -> None:
    bench.play(10)
    assert bench.learn()
    assert not bench.learn()
    bench.rank()
    assert not bench.learn()
    bench.clock.forward(minutes=11)
    assert bench.learn()
    assert loaded(bench).rows == 11


def test_a_generation_is_made_no_oftener_than_the_loop_says(bench: Bench) -> None:
    loops.change(bench.services, "w", {"export_every": timedelta(minutes=5)})
    bench.play(5)
    assert bench.learner.refresh(bench.services, "w", due_only=True)
    bench.play(5)
    assert not bench.learner.refresh(bench.services, "w", due_only=True)
    bench.clock.forward(minutes=5)
    assert bench.learner.refresh(bench.services, "w", due_only=True)


def test_a_loop_learns_on_after_the_clock_was_ahead(bench: Bench) -> None:
    now = bench.clock.now
    bench.clock.forward(days=1200)
    bench.play(5)
    assert bench.learner.refresh(bench.services, "w", due_only=True)
    bench.rank()  # nothing is told of it before the clock is put right
    bench.clock.now = now
    bench.play(5)
    assert bench.learner.refresh(bench.services, "w", due_only=True)
    assert loaded(bench).rows == 11


def test_a_few_new_rows_wait_for_more_but_not_for_ever(bench: Bench) -> None:
    bench.play(200)
    assert bench.learn()
    bench.play(3)
    assert not bench.learn()
    bench.clock.forward(hours=1)
    assert bench.learn()
    assert loaded(bench).rows == 203


def test_a_backlog_of_large_rows_is_taken_in_by_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(10)
    entries = 1 + 3 + 3  # an intercept, three features, every two of them
    monkeypatch.setattr(learning, "_MOST_ENTRIES", 4 * entries)
    rows = []
    while bench.learn():
        rows.append(loaded(bench).rows)
    assert rows == [4, 8, 10]


def test_a_process_that_starts_reads_the_log_again_and_learns_the_same(bench: Bench) -> None:
    bench.play(90)
    bench.learn()
    twin = LoopLearner()
    bench.play(30)
    bench.clock.forward(minutes=2)  # the first learner's lease has run out
    assert twin.refresh(bench.services, "w")
    found = loaded(bench)
    assert (found.rows, found.facts["whole"]) == (120, True)
    assert scores(found)[0] > max(scores(found)[1:]) + 0.2


def test_of_two_learners_one_holds_a_loop(bench: Bench) -> None:
    bench.play(10)
    assert bench.learn()
    bench.play(10)
    assert not LoopLearner().refresh(bench.services, "w"), "the first one's lease still runs"
    assert bench.learn()


def test_what_was_published_meanwhile_is_not_overwritten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(10)
    taken = learning._take

    def reset_in_between(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(learning, "_take", taken)
        found = taken(*arguments, **named)  # type: ignore[arg-type]  # passed on
        learning.reset(bench.services, "w")
        return found

    monkeypatch.setattr(learning, "_take", reset_in_between)
    assert not bench.learn()
    assert bench.stored == replace(bench.stored or _never(), blob=b"", generation=1)
    assert not bench.learn(), "what came before the reset stays forgotten"
    bench.play(5)
    assert bench.learn()
    assert loaded(bench).rows == 5


def test_a_store_that_fails_once_holds_back_no_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(10)
    with monkeypatch.context() as away:

        def refused(*_: object) -> None:
            raise StoreUnavailable("away for a moment")

        away.setattr(rank_tables.RankWriter, "put_rank_model", refused)
        with pytest.raises(StoreUnavailable):
            bench.learn()
    assert bench.learn()
    assert loaded(bench).rows == 10


def test_rows_that_were_half_taken_in_count_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.play(30)
    assert bench.learn()
    bench.play(10)
    append = AdfTrainer._append

    def full(self: AdfTrainer, rows: Sequence[AdfRow]) -> None:
        append(self, rows)
        raise MemoryError

    with monkeypatch.context() as once:
        once.setattr(AdfTrainer, "_append", full)
        with pytest.raises(MemoryError):
            bench.learn()
    assert bench.learn()
    assert loaded(bench).rows == 40


def _never() -> RankModel:
    raise AssertionError("no model is stored")


def test_the_log_can_go_and_what_was_learned_stays(bench: Bench) -> None:
    bench.play(120)
    bench.learn()
    before = scores(loaded(bench))
    logs.delete(bench.services, "w")
    bench.play(60)
    bench.clock.forward(minutes=2)
    assert LoopLearner().refresh(bench.services, "w")
    after = loaded(bench)
    assert after.rows == 180
    assert not after.facts["whole"]
    assert np.argmax(scores(after)) == np.argmax(before) == 0


def test_an_imported_model_goes_on_from_what_it_knew(bench: Bench) -> None:
    bench.play(120)
    bench.learn()
    raw = models.export(bench.services, "w", signed=True)
    learning.reset(bench.services, "w")
    models.take_in(bench.services, "w", raw)
    bench.play(30)
    assert bench.learn()
    found = loaded(bench)
    assert found.rows == 150
    assert np.argmax(scores(found)) == 0


def test_a_model_that_reads_features_in_another_way_is_not_imported(bench: Bench) -> None:
    bench.play(10)
    bench.learn()
    raw = models.export(bench.services, "w", signed=False)
    loops.set_policy(bench.services, "w", "plain", "--cb_explore_adf")
    with pytest.raises(Invalid, match="learning settings"):
        models.take_in(bench.services, "w", raw)


def test_a_change_of_what_is_taught_makes_the_model_anew_from_the_days_that_the_loop_says(bench: Bench) -> None:
    bench.play(20)
    bench.clock.forward(days=5)
    bench.play(30)
    bench.learn()
    assert loaded(bench).rows == 50
    changed = loops.change(bench.services, "w", {"default_reward": -1.0})
    assert changed.edited_at == bench.clock()
    bench.play(10)
    assert bench.learn()
    assert loaded(bench).rows == 40, "two days of the log: 30 and 10"
    loops.change(bench.services, "w", {"retrain_days": 0})
    loops.change(bench.services, "w", {"default_reward": 0.0})
    bench.play(10)
    assert bench.learn()
    assert loaded(bench).rows == 50, "no day of the log: the model goes on"


@pytest.mark.parametrize("by_parts", [False, True])
def test_an_apprentices_answers_are_counted_once_however_often_they_are_learned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by_parts: bool
) -> None:
    loops.change(bench.services, "w", {"mode": "Apprentice"})
    bench.play(30)
    assert bench.learn()
    if by_parts:
        monkeypatch.setattr(learning, "_MOST", 8)
    loops.change(bench.services, "w", {"aggregation": "sum"})
    bench.play(3)
    bench.clock.forward(minutes=11)
    while bench.learn():
        bench.clock.forward(hours=1)
    metrics = apprentice.get(bench.services, "w")
    assert metrics is not None
    assert (metrics.total.events, metrics.last.events) == (33, 33 % 8 if by_parts else 3)


@pytest.mark.parametrize("imports", [False, True])
def test_what_a_reset_or_an_import_passed_over_is_not_learned_again_when_what_is_taught_changes(
    bench: Bench, imports: bool
) -> None:
    bench.play(30)
    assert bench.learn()
    if imports:
        models.take_in(bench.services, "w", models.export(bench.services, "w", signed=False))
    else:
        learning.reset(bench.services, "w")
    bench.play(5)
    assert bench.learn()
    for generations, aggregation in enumerate(("sum", "max", "earliest"), 1):
        loops.change(bench.services, "w", {"aggregation": aggregation})
        bench.play(5)
        bench.clock.forward(minutes=11)
        assert LoopLearner().refresh(bench.services, "w"), "a process that knows the store alone"
        assert loaded(bench).rows == 5 + 5 * generations


def test_a_stored_model_that_cant_be_read_never_serves_and_learning_begins_anew(bench: Bench) -> None:
    bench.play(10)
    bench.learn()
    with bench.services.store.read() as reader:
        good = bench.services.loops.current(reader, "w")
    bad = replace(bench.stored or _never(), generation=2, blob=b"broken")
    bench.services.store.write(lambda writer: writer.put_rank_model(bad))
    bench.rank()
    with bench.services.store.read() as reader:
        assert bench.services.loops.current(reader, "w") == good
    bench.play(10)
    bench.clock.forward(minutes=11)
    assert bench.learn()
    with bench.services.store.read() as reader:
        assert bench.services.loops.current(reader, "w").generation == 3


def test_another_process_serves_a_new_generation_with_its_next_rank(bench: Bench) -> None:
    other = open_services(bench.services.settings, bench.clock, watch=False)
    with other.store.read() as reader:
        assert other.loops.current(reader, "w").generation == 0
    bench.play(10)
    bench.learn()
    with other.store.read() as reader:
        assert other.loops.current(reader, "w").generation == 1
    other.close()


def test_actions_known_by_ids_alone_are_chosen_by_a_network_where_it_foretells_better(bench: Bench) -> None:
    plain = tuple(Action(name, ()) for name in ("same", "other"))
    rng = np.random.default_rng(1)

    def play(rounds: int) -> float:
        """The share of right choices, an apprentice's own."""
        right = 0
        for x, y in rng.integers(2, size=(rounds, 2)).tolist():
            bench.count += 1
            asked = RankRequest(plain, (Slot(""),), ({"x": f"x{x}", "y": f"y{y}"},), f"p{bench.count}")
            rank = ranking.rank(bench.services, "w", asked)
            slot = rank.slots[0]
            feedback.reward(bench.services, "w", rank.event_id, [("", float(slot.chosen == int(x != y)))])
            bench.clock.forward(seconds=1)
            right += (slot.chosen if slot.shadow is None else slot.shadow) == int(x != y)
        return right / rounds

    for _ in range(7):
        play(100)
        assert bench.learn()
    assert loaded(bench).plain is not None
    assert play(200) > 0.85, "a linear model is right in three of four contexts at most"
    bench.learner = LoopLearner()  # another process, which reads the log again
    assert bench.learn()
    assert loaded(bench).plain is not None
    folded, stored = loaded(bench), bench.stored
    assert stored is not None
    folded.facts = {**folded.facts, "whole": False}  # of a longer log than is kept
    later = replace(stored, generation=stored.generation + 1, blob=folded.to_blob())
    bench.services.store.write(lambda writer: writer.put_rank_model(later))
    bench.learner = LoopLearner()
    for _ in range(5):
        assert play(100) > 0.85
        assert bench.learn()
    again = loaded(bench).plain
    assert again is not None
    assert again.meta["rows"] > 1_000, "the rows of the log, and those since"
    loops.change(bench.services, "w", {"explain": True})
    assert play(200) < 0.8, "the linear model answers where answers are explained"
    loops.change(bench.services, "w", {"explain": False, "mode": "Apprentice"})
    assert play(200) < 0.8, "and imitates where the loop is an apprentice"
    loops.change(bench.services, "w", {"mode": "Online"})
    assert play(200) > 0.85
    for signed in (True, False):
        models.take_in(bench.services, "w", models.export(bench.services, "w", signed=signed))
        assert (loaded(bench).plain is not None) == signed
