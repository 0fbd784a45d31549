"""Something unforeseen happens for one campaign or in one workspace: it is told, and the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from optimizer.scheduler import Scheduler, Trainer
from optimizer.service import canary, drifting, pricing, refreshing, runs, setup, upkeep
from optimizer.service import retrain as retraining
from optimizer.service.apart import Apart
from optimizer.service.runs import Ended
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.errors import StoreUnavailable
from storage.records import Channel
from storage.rules import Capacity, Rule
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_canary import plant
from tests.service.test_retrain import audience, try_out
from tests.service.trained import publish_model

SPRING = campaign(channels=(Channel("email"),), allow_no_send=False)
STAFF = campaign(campaign_id="staff", channels=(Channel("email"),))


@pytest.fixture
def shop(services: Services, clock: FakeClock) -> Services:
    """Two campaigns with something to learn from."""
    setup.put_campaign(services, SPRING)
    setup.put_campaign(services, STAFF)
    audience(services, clock, 600, seed=1)
    try_out(services, clock, 300, 300, seed=2)
    return services


def broken(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, campaign_id: str = "staff") -> None:
    """Makes a function fail where one of its arguments names a campaign, as a bug would."""
    whole: Callable[..., Any] = getattr(module, name)

    def fails(*arguments: Any, **named: Any) -> Any:
        if campaign_id in (one if isinstance(one, str) else getattr(one, "campaign_id", None) for one in arguments):
            raise KeyError("chat")
        return whole(*arguments, **named)

    monkeypatch.setattr(module, name, fails)


def carried_out(services: Services, kind: str) -> Ended:
    run = runs.start_now(services, WORKSPACE, None, "test", "test")
    ended = carry_out(services, run if kind == "retrain" else replace(run, kind="refresh"))
    runs.finish(services, run, "test", ended)
    services.policies.refresh_now()
    return ended


def decided(ended: Ended) -> dict[str, str]:
    return {one["campaign_id"]: one["decision"] for one in ended.verdicts}


def test_a_campaign_that_fails_in_a_retrain_is_told_and_the_others_are_published(
    shop: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(monkeypatch, retraining, "_judged")
    ended = carried_out(shop, "retrain")
    assert (ended.status, ended.error) == ("failed", "campaign staff: KeyError: 'chat'")
    assert decided(ended) == {"spring": "publish", "staff": "failed"}
    with shop.store.read() as reader:
        assert reader.pointer(WORKSPACE, "spring") is not None
        (run,) = reader.training_runs(WORKSPACE, limit=9).items
    assert (run.status, run.error) == ("failed", ended.error)
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert (record.__dict__["workspace"], record.__dict__["campaign"]) == (WORKSPACE, "staff")
    assert record.exc_info is not None


def test_without_somebody_who_keeps_it_an_error_is_raised(shop: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, retraining, "_judged")
    with pytest.raises(KeyError):
        retraining.retrain(shop, WORKSPACE)


def test_a_store_that_is_away_is_no_matter_of_one_campaign(shop: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(retraining, "_judged", away)
    with pytest.raises(StoreUnavailable):
        carried_out(shop, "retrain")


@pytest.mark.parametrize(("module", "name"), [(refreshing, "_refresh_campaign"), (drifting, "_look")])
def test_a_campaign_that_fails_in_a_refresh_leaves_the_others_refreshed(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    publish_model(shop, STAFF)
    publish_model(shop, SPRING)
    broken(monkeypatch, module, name)
    ended = carried_out(shop, "refresh")
    assert (ended.status, ended.error) == ("failed", "campaign staff: KeyError: 'chat'")
    told = decided(ended)
    assert told["staff"] == "failed"
    assert told["spring"] in ("publish", "waits")


def test_a_canary_that_cannot_be_watched_is_not_taken_further(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decided(carried_out(shop, "retrain"))["spring"] == "publish"
    plant(shop, clock, bad=False)
    audience(shop, clock, 300, seed=3)
    broken(monkeypatch, canary, "_look", "spring")
    ended = carried_out(shop, "retrain")
    assert ended.error == "campaign spring: KeyError: 'chat'"
    assert [one["decision"] for one in ended.verdicts if one["campaign_id"] == "spring"] == ["failed"]
    assert "staff" in decided(ended)


def test_models_are_refreshed_where_prices_fail(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decided(carried_out(shop, "retrain"))["spring"] == "publish"
    audience(shop, clock, 100, seed=3)

    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("weights")

    monkeypatch.setattr(refreshing, "work_out", fails)
    ended = carried_out(shop, "refresh")
    assert (ended.status, ended.error) == ("failed", "prices: ZeroDivisionError: weights")
    assert decided(ended)["spring"] in ("publish", "waits")


def test_a_policy_that_cannot_be_priced_leaves_the_others_priced(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_model(shop, STAFF)
    publish_model(shop, SPRING)
    setup.put_rule(shop, Rule(WORKSPACE, "hourly", "capacity", Capacity(5, 60)))
    audience(shop, clock, 40, seed=3)
    broken(monkeypatch, pricing, "_live")
    apart = Apart(WORKSPACE)
    told = pricing.reprice(shop, WORKSPACE, apart=apart)
    assert {one["campaign_id"]: one["decision"] for one in told} == {"spring": "publish"}
    assert apart.campaigns == {"staff": "KeyError: 'chat'"}


class TestScheduler:
    def test_the_next_workspace_has_its_turn(
        self, services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        setup.ensure_workspace(services, "zeta")
        done = []

        def expire(services: Services, workspace_id: str, rows: int) -> int:
            if workspace_id == WORKSPACE:
                raise KeyError("chat")
            done.append(workspace_id)
            return 0

        monkeypatch.setattr(upkeep, "expire", expire)
        Scheduler(services)._expire()
        assert done == ["zeta"]
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert (record.getMessage(), record.__dict__["workspace"]) == (
            "expire failed unforeseen; it is tried again",
            WORKSPACE,
        )

    def test_prices_of_the_next_workspace_are_worked_out(
        self, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done = []

        def reprice(services: Services, workspace_id: str, **_: Any) -> None:
            done.append(workspace_id)
            raise ZeroDivisionError

        setup.ensure_workspace(services, "zeta")
        monkeypatch.setattr(pricing, "reprice", reprice)
        scheduler = Scheduler(services)
        scheduler._reprice()
        assert done == [WORKSPACE, "zeta"]

    def test_an_error_while_training_is_looked_after_ends_the_child_and_not_the_scheduler(
        self, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scheduler = Scheduler(services)
        stopped: list[str] = []

        def tick(trainer: Trainer) -> None:
            if stopped:
                scheduler.stopping = True
            else:
                raise KeyError("chat")

        monkeypatch.setattr(Trainer, "tick", tick)
        monkeypatch.setattr(Trainer, "stop", lambda trainer, why: stopped.append(why))  # noqa: ARG005
        scheduler.run()
        assert stopped == ["an error of the scheduler, see its log", "the scheduler was told to stop"]
