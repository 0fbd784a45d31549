"""Tuning: a search on the workspace's own log that goes on where it was left, and changes what is clearly better."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optimizer.errors import Invalid
from optimizer.model.training.options import DEFAULTS, RANGES, TrainOptions
from optimizer.service import searches, setup, tuning
from optimizer.service.fitting import tuned
from optimizer.service.searches import search_id_of
from optimizer.service.trials import Exam
from optimizer.service.wiring import Services
from storage.records import Channel, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_retrain import audience

HOUR = tuning.Budget(minutes=60.0)


@pytest.fixture
def shop(services: Services, clock: FakeClock) -> Services:
    """A shop with 1,100 closed decisions of the cold start."""
    setup.put_campaign(services, campaign(channels=(Channel("email"),)))
    audience(services, clock, 1_100, seed=1)
    return services


def stored(services: Services) -> TrainOptions:
    with services.store.read() as reader:
        return tuned(reader, WORKSPACE)


def test_a_search_tells_gains_with_errors_and_keeps_defaults_that_are_not_beaten(
    shop: Services, tmp_path: Path, clock: FakeClock
) -> None:
    seen: list[int] = []
    found = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=2), seen.append)
    assert seen == [1, 2]
    assert found["rows"] == [660, 220, 220]
    assert found["defaults"] == DEFAULTS.to_json()
    assert found["likelihood"]["rows"] == 220
    assert found["value"]["n"] > 200
    assert set(found["best"]) == set(RANGES)
    assert (found["decision"] == "adopted") == (stored(shop) != DEFAULTS)


def test_an_interrupted_search_goes_on_with_the_log_that_it_began_with(
    shop: Services, tmp_path: Path, clock: FakeClock
) -> None:
    journal = tmp_path / "j"

    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(shop, WORKSPACE, journal, HOUR, interrupt)
    audience(shop, clock, 100, seed=2)
    more: list[int] = []
    found = tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=3), more.append)
    assert more == [3]
    assert (found["trials"], sum(found["rows"])) == (3, 1_100)
    again = tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=1))
    assert (again["trials"], sum(again["rows"])) == (1, 1_200)
    assert (again["reason"], again["likelihood"]) == ("nothing but the defaults was tried", None)


def test_numbers_in_use_are_not_compared_with_themselves(
    shop: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models would be fitted alike, and replayed against each other."""

    def fitted(*_: Any) -> None:
        raise AssertionError("a model is fitted")

    monkeypatch.setattr(tuning, "_model", fitted)
    monkeypatch.setattr(Exam, "__call__", lambda _, options: -abs(options.shape - 3.7))
    one = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=1))
    assert (one["decision"], one["reason"]) == ("kept", "nothing but the defaults was tried")
    tuning._store(shop, WORKSPACE, replace(DEFAULTS, shape=3.7))
    told = [tuning.tune(shop, WORKSPACE, tmp_path / "j2", replace(HOUR, trials=trials)) for trials in (1, 2, 3)]
    whose = "the numbers that were adopted before"
    assert [found["reason"] for found in told] == [
        f"nothing but {whose} was tried",
        f"nothing but {whose} and the defaults was tried",
        f"no candidate was likelier than {whose}",
    ]
    assert {(found["likelihood"], found["value"]) for found in told} == {(None, None)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """Trials that cost nothing, the nearer to a shape of 9 the likelier; the list tells which were judged."""
    judged: list[TrainOptions] = []

    def value(_: Exam, options: TrainOptions) -> float:
        judged.append(options)
        return -abs(options.shape - 9.0)

    monkeypatch.setattr(tuning, "_compared", lambda *_: {"likelihood": {"z": 0.0}, "value": None})
    monkeypatch.setattr(Exam, "__call__", value)
    return judged


def test_a_search_whose_time_was_up_goes_on_until_its_trials_are_made(
    shop: Services, tmp_path: Path, quick: list[TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, budget = tmp_path / "j", replace(HOUR, trials=5)
    seconds = itertools.count(0.0, 1_500.0)
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    told = [tuning.tune(shop, WORKSPACE, journal, budget) for _ in range(4)]
    assert [(one["trials"], one["made"], one["next"]) for one in told] == [
        (2, 2, "goes_on"),
        (4, 2, "goes_on"),
        (5, 1, "begins_anew"),
        (2, 2, "goes_on"),
    ]
    assert quick.count(DEFAULTS) == 2


def test_more_trials_than_were_made_are_made_by_the_same_search(
    shop: Services, tmp_path: Path, quick: list[TrainOptions]
) -> None:
    journal = tmp_path / "j"
    assert tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=2))["next"] == "begins_anew"
    more = tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=5))
    assert (more["trials"], more["made"]) == (5, 3)
    assert quick.count(DEFAULTS) == 1


def test_a_search_whose_winner_was_adopted_is_over(
    shop: Services, tmp_path: Path, quick: list[TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_compared", lambda *_: {"likelihood": {"z": 9.0}, "value": None})
    first = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=3))
    assert (first["decision"], first["next"]) == ("adopted", "begins_anew")
    again = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=4))
    assert (again["trials"], again["made"]) == (4, 4)


def test_a_log_that_has_grown_by_half_or_is_not_what_it_was_begins_a_new_search(
    shop: Services, tmp_path: Path, clock: FakeClock, quick: list[TrainOptions]
) -> None:
    journal = tmp_path / "j"
    tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=1))
    audience(shop, clock, 500, seed=2)
    assert sum(tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=2))["rows"]) == 1_100
    audience(shop, clock, 100, seed=3)
    grown = tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=3))
    assert (grown["trials"], grown["made"], sum(grown["rows"])) == (3, 3, 1_700)
    changed = campaign(channels=(Channel("email"),))
    setup.put_campaign(shop, replace(changed, objective={**changed.objective, "opened": OutcomeWeight(1.0)}))
    clock.now += timedelta(days=30)
    other = tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=5))
    assert (other["trials"], other["made"]) == (5, 5)


def test_numbers_whose_trial_was_interrupted_are_judged_by_the_next_call(
    shop: Services, tmp_path: Path, quick: list[TrainOptions]
) -> None:
    def killed(work: Any, arguments: Sequence[Any]) -> list[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(shop, WORKSPACE, tmp_path / "j", HOUR, across=killed)
    found = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=2))
    assert quick[0] == DEFAULTS
    assert (found["trials"], quick.count(DEFAULTS)) == (2, 1)


def test_each_further_candidate_that_is_compared_must_be_clearer(
    shop: Services, tmp_path: Path, quick: list[TrainOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, str]] = []
    monkeypatch.setattr(tuning, "_compared", lambda *_: {"likelihood": {"z": 1.9}, "value": None})
    for trials in range(2, 30):
        found = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=trials))
        if (found["best"], found["reason"]) not in told:
            told.append((found["best"], found["reason"]))
        if len(told) == 3:
            break
    needed = [reason.partition("needed > ")[2] for _, reason in told]
    assert needed == ["2", "2.53", "2.8"]


def test_a_search_of_another_database_is_not_gone_on_with(
    shop: Services, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that lies beside: the same workspace, the same salt, one journal."""
    monkeypatch.setattr(tuning, "_compared", lambda *_: {"likelihood": {"z": 0.0}, "value": None})
    monkeypatch.setattr(Exam, "__call__", lambda _, options: -abs(options.shape - 9.0))
    journal, copied = tmp_path / "j", "copied.db"

    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tune(shop, WORKSPACE, journal, HOUR, interrupt)
    other = replace(shop, settings=replace(shop.settings, database=f"sqlite:///{tmp_path / copied}"))
    assert tuning.tune(other, WORKSPACE, journal, replace(HOUR, trials=1))["trials"] == 1
    assert tuning.tune(shop, WORKSPACE, journal, replace(HOUR, trials=3))["trials"] == 3


def test_databases_of_one_server_have_searches_of_their_own_whatever_the_password(services: Services) -> None:
    def search(url: str) -> str:
        return search_id_of(replace(services, settings=replace(services.settings, database=url)), WORKSPACE)

    assert search("postgresql://u:old@host/one") == search("postgresql://u:new@host/one")
    assert search("postgresql://u:old@host/one") != search("postgresql://u:old@host/two")


def test_trials_that_are_drawn_together_depend_on_their_number_and_not_on_who_makes_them(
    shop: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []

    def elsewhere(work: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        seen.append([options.shape for options in arguments])
        exam = pickle.loads(pickle.dumps(work))  # noqa: S301  our own, made in this line
        return [exam(one) for one in arguments]

    monkeypatch.setattr(tuning, "_compared", lambda *_: {"likelihood": {"z": 0.0}, "value": None})
    budget = replace(HOUR, trials=5, together=2)
    one = tuning.tune(shop, WORKSPACE, tmp_path / "one", budget)
    other = tuning.tune(shop, WORKSPACE, tmp_path / "other", budget, across=elsewhere)
    assert one == other
    assert [len(shapes) for shapes in seen] == [2, 2, 1]
    assert seen[0][0] == DEFAULTS.shape
    assert len({shape for shapes in seen for shape in shapes}) == 5


@pytest.mark.parametrize(
    ("z", "value", "decision"),
    [
        (2.5, {"value": 0.0, "standard_error": 0.1}, "adopted"),
        (2.5, {"value": -0.2, "standard_error": 0.1}, "kept"),
        (2.5, None, "adopted"),
        (1.9, {"value": 9.0, "standard_error": 0.1}, "kept"),
        (-3.0, None, "kept"),
    ],
)
def test_only_what_is_clearly_likelier_and_not_worth_less_is_adopted(
    shop: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, z: float, value: Any, decision: str
) -> None:
    likelihood = {"gain": z / 1_000, "standard_error": 0.001, "z": z, "rows": 220}
    monkeypatch.setattr(tuning, "_compared", lambda *_: {"likelihood": likelihood, "value": value})
    monkeypatch.setattr(Exam, "__call__", lambda _, options: -abs(options.shape - 9.0))
    found = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=4))
    assert found["decision"] == decision
    assert stored(shop) == (TrainOptions.from_json(found["best"]) if decision == "adopted" else DEFAULTS)
    tuning.reset(shop, WORKSPACE)
    assert stored(shop) == DEFAULTS


def test_numbers_adopted_before_stay_unless_a_candidate_is_clearly_better(
    shop: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted = replace(DEFAULTS, shape=3.7, rate=0.005)
    compared: list[TrainOptions] = []
    likeliest, z = adopted.shape, 0.0

    def tie(job: Any, reader: Any, parts: Any, current: TrainOptions, best: TrainOptions) -> dict[str, Any]:
        compared.append(current)
        return {"likelihood": {"z": z}, "value": None}

    monkeypatch.setattr(tuning, "_compared", tie)
    monkeypatch.setattr(Exam, "__call__", lambda _, options: -abs(options.shape - likeliest))
    tuning._store(shop, WORKSPACE, adopted)
    kept = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=3))
    assert kept["best"] == kept["options"] == kept["current"] == adopted.to_json()
    assert kept["reason"] == "no candidate was likelier than the numbers that were adopted before"
    assert (kept["likelihood"], kept["value"]) == (None, None)
    likeliest = DEFAULTS.shape
    unclear = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=2))
    assert (unclear["decision"], unclear["best"]) == ("kept", DEFAULTS.to_json())
    assert "not clearly likelier than the numbers that were adopted before" in unclear["reason"]
    assert stored(shop) == adopted
    z = 3.0
    better = tuning.tune(shop, WORKSPACE, tmp_path / "j", replace(HOUR, trials=2))
    assert better["decision"] == "adopted"
    assert stored(shop) == DEFAULTS
    assert compared == [adopted] * 2, "where the best are the numbers in use there is nothing to compare"


def test_a_retrain_uses_what_is_stored_and_a_change_of_mode_keeps_it(shop: Services) -> None:
    chosen = replace(DEFAULTS, shape=7.0)
    tuning._store(shop, WORKSPACE, chosen)
    setup.set_mode(shop, WORKSPACE, "paused")
    assert stored(shop) == chosen


def test_of_two_searches_that_begin_at_once_the_later_joins_the_other(
    shop: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, begun = searches._matured, list[str]()

    def while_the_other_begins(*asked: Any, **more: Any) -> Any:
        if not begun:
            begun.append("")
            begun.append(name())
        return read(*asked, **more)

    def name() -> str:
        with shop.store.read() as reader:
            return searches.under_way(shop, reader, WORKSPACE, tmp_path / "j", None)[0].study_name

    monkeypatch.setattr(searches, "_matured", while_the_other_begins)
    assert name() == begun[1]


def test_a_journal_that_is_none_is_told_by_its_name(shop: Services, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    journal.write_text("no journal\n")
    with pytest.raises(Invalid, match=f"{journal} is no journal of searches") as refused:
        tuning.tune(shop, WORKSPACE, journal, HOUR)
    assert refused.value.code == "unreadable_journal"


def test_too_few_rows_are_refused(services: Services, clock: FakeClock, tmp_path: Path) -> None:
    setup.put_campaign(services, campaign(channels=(Channel("email"),)))
    audience(services, clock, 30, seed=1)
    with pytest.raises(Invalid, match="30 matured rows; tuning needs at least 1000"):
        tuning.tune(services, WORKSPACE, tmp_path / "j", HOUR)


@pytest.mark.parametrize("name", RANGES)
def test_options_outside_their_range_are_refused(name: str) -> None:
    for bad in (RANGES[name][0] - 1.0, RANGES[name][1] + 1.0, float("nan")):
        with pytest.raises(Invalid, match=f"training.{name}"):
            TrainOptions.from_json({name: bad})
    assert TrainOptions.from_json({"of_a_later_release": 3, name: RANGES[name][1]}) != DEFAULTS
