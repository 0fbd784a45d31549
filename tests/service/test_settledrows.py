"""A refresh of a long log reads only the rows since the last whole one, and comes to the same."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.actions import ActionSpace
from optimizer.model.inference import RewardModel
from optimizer.model.training.train import refresh as refit
from optimizer.service import departure, refreshing, refreshlog, settledrows, setup
from optimizer.service.annealing import exploration_numbers
from optimizer.service.erasing import erase
from optimizer.service.feedback import Log, examples, load
from optimizer.service.imports import import_file
from optimizer.service.ingest import ingest
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Policy
from storage.records import Channel, OutcomeWeight, Variant
from tests.service.conftest import WORKSPACE, FakeClock, campaign

WEEK = timedelta(days=7)
SENT = {
    "channels": (Channel("email"),),
    "attribution_hours": {"clicked": 24.0},
    "allow_no_send": False,
    "slot_minutes": 360,
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each reading of the log gave; 100 settled rows are a long log, for 5 days."""
    counts: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Log:
        log = load(*args, **kwargs)
        counts.append(len(log.rows))
        return log

    monkeypatch.setattr(refreshlog, "load", counted)
    monkeypatch.setattr(settledrows, "LEAST", 100)
    monkeypatch.setattr(settledrows, "LONGEST", timedelta(days=5))
    return counts


@pytest.fixture
def taught(services: Services, clock: FakeClock) -> Services:
    """A policy from 900 settled rows, and 60 younger ones. No gate: on so few rows it would let nothing by."""
    services = replace(services, settings=replace(services.settings, gate=False))
    setup.put_campaign(services, campaign(**SENT))
    _log(services, clock, 900, "first", days=10.0)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    _log(services, clock, 60, "second")
    return services


@pytest.fixture
def shop(taught: Services, read: list[int]) -> Services:
    """After the first refresh, which read the whole log."""
    assert refresh(taught, WORKSPACE)[0]["decision"] == "publish"
    assert read == [960]
    read.clear()
    return taught


def _log(
    services: Services, clock: FakeClock, people: int, run: str, days: float = 4.0, campaign_id: str = "spring"
) -> None:
    """Decisions for any slot of the week from tomorrow on, and clicks by who they are for in its first days."""
    tomorrow = clock.now.replace(hour=0) + timedelta(days=1)
    window = (tomorrow, tomorrow + WEEK)
    asked = [
        DecisionRequest(campaign_id, f"{run}-{i}", window=window, context={"plan": ("pro", "free")[i % 2]})
        for i in range(people)
    ]
    decided = [d for d in services.decider.decide_batch(WORKSPACE, asked, run) if isinstance(d, Decision)]
    clock.forward(days=days)
    rng = np.random.default_rng(people)
    clicked = [
        EventInput(type="clicked", occurred_at=d.send_at, decision_id=d.decision_id)
        for d in decided
        if d.send_at is not None
        and d.send_at < clock.now
        and rng.random() < 0.1 + 0.6 * ((d.variant_id == "mens") == (d.snapshot.context["plan"] == "pro"))
    ]
    ingest(services, WORKSPACE, clicked)


def _serving(services: Services) -> tuple[Policy, bytes]:
    """The policy that serves, and its model."""
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
        assert pointer is not None
        policy = reader.policy(WORKSPACE, pointer.policy_id)
        assert policy is not None
        artifact = reader.artifact(WORKSPACE, policy.mixture[-1].artifact_id or "")
    assert artifact is not None
    return policy, artifact.blob


def _rewards(blob: bytes, services: Services) -> np.ndarray[Any, Any]:
    """What a model expects of every hour of a week, for both plans."""
    with services.store.read() as reader:
        spring = reader.campaign(WORKSPACE, "spring")
    assert spring is not None
    model = RewardModel.load(blob)
    local = 4 * 86_400 + 3_600 * np.arange(168)
    space = ActionSpace(("mens", "womens"), ("email",), local, local, False)
    rows = model.embed([{"plan": "pro"}, {"plan": "free"}])
    return np.concatenate([model.score(row, space, spring, {}).reward for row in rows])


def test_only_the_rows_since_are_read_and_the_model_is_that_of_all_rows(
    shop: Services, clock: FakeClock, read: list[int]
) -> None:
    _, before = _serving(shop)
    _log(shop, clock, 80, "third")
    answer = refresh(shop, WORKSPACE)[0]
    assert (answer["decision"], read) == ("publish", [140])
    policy, after = _serving(shop)
    with shop.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    whole = refit(before, examples([r for r in log.rows if r.started], log.campaigns, log.hazards))
    expected = _rewards(whole.blob, shop)
    moved = np.abs(_rewards(before, shop) - expected).max()
    assert moved > 0.02
    assert np.abs(_rewards(after, shop) - expected).max() < 0.3 * moved  # delays are those of then, weights moved a bit
    numbers = exploration_numbers(log.of("spring"))
    assert {name: policy.exploration[name] for name in numbers} == numbers
    assert answer["rows"] == numbers["rows"]
    assert RewardModel.load(after).artifact_meta["rows"] == RewardModel.load(whole.blob).artifact_meta["rows"]


def test_what_has_been_settled_since_is_read_no_more(
    shop: Services, clock: FakeClock, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settledrows, "LONGEST", timedelta(days=50))
    monkeypatch.setattr(settledrows, "MORE", 50)
    _log(shop, clock, 80, "third", days=10.0)
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    _log(shop, clock, 70, "fourth")
    answer = refresh(shop, WORKSPACE)[0]
    assert (answer["decision"], read) == ("publish", [140, 70])
    with shop.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    numbers = exploration_numbers(log.of("spring"))
    policy, blob = _serving(shop)
    assert {name: policy.exploration[name] for name in numbers} == numbers
    whole = refit(blob, examples([r for r in log.rows if r.started], log.campaigns, log.hazards))
    assert np.abs(_rewards(blob, shop) - _rewards(whole.blob, shop)).max() < 0.015


def test_who_came_late_stays_late_where_only_the_rows_since_are_read(
    shop: Services, clock: FakeClock, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settledrows, "LONGEST", timedelta(days=50))
    monkeypatch.setattr(settledrows, "MORE", 50)
    assert _serving(shop)[0].exploration["late_rows"] == {"mens": None, "womens": None}
    variants = (Variant("mens"), Variant("womens"), Variant("kids"))
    setup.put_campaign(shop, campaign(**SENT, variants=variants))
    rows = []
    for run in ("third", "fourth"):
        _log(shop, clock, 200, run, days=10.0)
        assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
        numbers = _serving(shop)[0].exploration
        assert numbers["late_rows"] == {"mens": None, "womens": None, "kids": numbers["matured_rows"]["kids"]}
        rows.append(numbers["late_rows"]["kids"])
    assert read[-1] < 500, "the last refresh read the rows since alone"
    assert 0 < rows[0] < rows[1]


def test_a_model_is_learned_anew_where_all_is_read_and_its_settled_rows_are_its_own(
    shop: Services, clock: FakeClock, read: list[int]
) -> None:
    def learned() -> tuple[int, bytes]:
        blob = _serving(shop)[1]
        return RewardModel.load(blob).artifact_meta["learned"], blob

    assert learned()[0] == 900
    _log(shop, clock, 500, "third")
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    assert (learned()[0], read) == (900, [560]), "only the rows since were read"
    _log(shop, clock, 80, "fourth")
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    number, anew = learned()
    assert number == RewardModel.load(anew).artifact_meta["rows"] > 1_350, "all rows that had a running clock"
    read.clear()
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    _log(shop, clock, 70, "fifth")
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    assert max(read) < 700, "what settled rows say of the new model is kept"
    number_then, blob = learned()
    assert number_then == number
    with shop.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    whole = refit(anew, examples([r for r in log.rows if r.started], log.campaigns, log.hazards))
    moved = np.abs(_rewards(anew, shop) - _rewards(whole.blob, shop)).max()
    assert np.abs(_rewards(blob, shop) - _rewards(whole.blob, shop)).max() < 0.3 * moved


def test_where_all_is_read_a_model_is_learned_anew_though_hardly_anything_is_new(
    shop: Services, clock: FakeClock, read: list[int]
) -> None:
    _log(shop, clock, 900, "third", days=4.9)
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    assert RewardModel.load(_serving(shop)[1]).artifact_meta["learned"] == 900
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    read.clear()
    settledrows._path(shop, WORKSPACE).unlink()
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    assert read == [1860]
    assert RewardModel.load(_serving(shop)[1]).artifact_meta["learned"] > 1_350
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"


@pytest.mark.parametrize(
    ("counts", "within", "rows"), [(True, WEEK, 140), (True, timedelta(hours=1), 0), (False, WEEK, 0)]
)
def test_what_is_yet_to_be_counted_is_not_put_away(
    shop: Services,
    clock: FakeClock,
    read: list[int],
    monkeypatch: pytest.MonkeyPatch,
    counts: bool,
    within: timedelta,
    rows: int,
) -> None:
    """How a line has predicted is looked at where it is revised; what became final meanwhile is still read then. What
    nobody has counted for long holds up nothing."""
    monkeypatch.setattr(refreshlog, "WITHIN", within)
    monkeypatch.setattr(settledrows, "LONGEST", timedelta(days=50))
    monkeypatch.setattr(settledrows, "MORE", 50)
    looked = (clock.now - timedelta(days=1)).timestamp()
    monkeypatch.setattr(refreshlog, "counted_until", lambda _: looked if counts else None)
    _log(shop, clock, 80, "third", days=10.0)
    refresh(shop, WORKSPACE)
    read.clear()
    refresh(shop, WORKSPACE)
    assert read == [rows]


def test_policies_are_compared_on_settled_rows_too(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[datetime] = []

    def told(*args: Any) -> float:
        compared.extend(decision.decided_at for decision in args[3])
        return 0.0

    monkeypatch.setattr(refreshing, "divergence", told)
    _log(shop, clock, 80, "third")
    refresh(shop, WORKSPACE)
    assert len(compared) == departure.DIVERGENCE_ROWS
    assert compared == sorted(compared)


def test_a_model_that_stays_as_it_is_is_kept_for_too(shop: Services, clock: FakeClock, read: list[int]) -> None:
    settledrows._path(shop, WORKSPACE).unlink()
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    _log(shop, clock, 80, "third")
    assert refresh(shop, WORKSPACE)[0]["decision"] == "publish"
    assert read == [960, 140]


def test_without_news_nothing_changes(shop: Services, read: list[int]) -> None:
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    assert read == [60]


@pytest.mark.parametrize("what", ["campaign", "variant", "retrain", "age", "broken", "cut", "gone", "erased", "import"])
def test_the_whole_log_is_read_where_what_is_kept_does_not_fit(
    shop: Services, clock: FakeClock, read: list[int], tmp_path: Path, what: str
) -> None:
    path = settledrows._path(shop, WORKSPACE)
    content = path.read_bytes()
    if what in ("campaign", "variant"):
        with shop.store.read() as reader:
            spring = reader.campaign(WORKSPACE, "spring")
        assert spring is not None
        clock.forward(minutes=1)
        changed = {"variants": (*spring.variants, Variant("kids"))} if what == "variant" else {"name": "Spring"}
        setup.put_campaign(shop, replace(spring, **changed))
    elif what == "retrain":
        clock.forward(minutes=1)
        assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    elif what == "age":
        clock.forward(days=5, minutes=1)
    elif what == "broken":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif what == "cut":
        path.write_bytes(content[:100])
    elif what == "gone":
        path.unlink()
    elif what == "import":
        (tmp_path / "people.csv").write_text("recipient_id\nimported\n")
        import_file(shop, WORKSPACE, "recipients", tmp_path / "people.csv")
    else:
        erase(shop, WORKSPACE, "first-0")
        assert not path.exists()
    refresh(shop, WORKSPACE)
    since = [60] if what in ("campaign", "variant") else []
    assert read == [*since, 959 if what == "erased" else 960]


def test_where_rows_show_an_action_that_is_new_the_whole_log_is_read(
    shop: Services, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settledrows, "_shown", lambda _: frozenset({("spring", "kids", "email")}))
    refresh(shop, WORKSPACE)
    assert read == [60, 960]


@pytest.mark.usefixtures("read")
def test_where_it_cannot_be_kept_a_warning_says_so(
    taught: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "reports").write_text("no folder")
    elsewhere = replace(taught, settings=replace(taught.settings, report_folder=str(tmp_path / "reports")))
    with caplog.at_level(logging.WARNING):
        assert refresh(elsewhere, WORKSPACE)[0]["decision"] == "publish"
        settledrows.forget(elsewhere, WORKSPACE)
    assert "what settled rows say can't be kept" in caplog.text
    assert "what settled rows say can't be deleted" in caplog.text


def test_of_a_short_log_nothing_is_kept(taught: Services) -> None:
    assert refresh(taught, WORKSPACE)[0]["decision"] == "publish"
    assert not settledrows._path(taught, WORKSPACE).exists()


def test_a_campaign_that_is_refused_does_not_have_each_refresh_read_all(
    services: Services, clock: FakeClock, read: list[int]
) -> None:
    services = replace(services, settings=replace(services.settings, gate=False))
    for name in ("other", "spring"):
        setup.put_campaign(services, campaign(campaign_id=name, **SENT))
        _log(services, clock, 400, name, days=10.0, campaign_id=name)
        assert retrain(services, WORKSPACE, name)[0]["decision"] == "publish"
    absurd = {"objective": {"bought": OutcomeWeight(1.0)}, "attribution_hours": {"bought": 1.0}}
    setup.put_campaign(services, campaign(campaign_id="other", **{**SENT, **absurd}))
    for run, rows in (("second", 860), ("third", 120)):
        _log(services, clock, 60, run)
        told = {one["campaign_id"]: one["decision"] for one in refresh(services, WORKSPACE)}
        assert (told["other"], told["spring"]) == ("skipped", "publish")
        assert read == [rows]
        read.clear()
