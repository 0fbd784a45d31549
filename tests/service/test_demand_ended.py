"""A campaign that asks no more is no demand: nobody pays for places that nobody else wants."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimizer.bandit.tolls import Price
from optimizer.service import setup
from optimizer.service.priceable import priceable
from optimizer.service.pricing import reprice
from optimizer.service.questions import Watched
from optimizer.service.refreshing import refresh
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from tests.service.conftest import WORKSPACE, FakeClock
from tests.service.scarce_shop import HOURLY, PEOPLE, ask, opened, respond, spring

#: Of the 90 places of a question's six hours so many are asked for by ``spring``, and far more by both campaigns.
FEW = 60


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two campaigns whose policies are learned, ten days after the start, and a capacity."""
    folder, clock = tmp_path_factory.mktemp("template"), FakeClock()
    with opened(folder, clock) as services:
        setup.ensure_workspace(services, WORKSPACE)
        for name in ("spring", "autumn"):
            setup.put_campaign(services, spring(campaign_id=name))
        for day in range(2):
            decided = [(name, ask(services, PEOPLE, f"{name}{day}", to=name)) for name in ("spring", "autumn")]
            clock.forward(hours=24)
            for name, one in decided:
                respond(services, one, day + 10 * (name == "autumn"))
        told = [*retrain(services, WORKSPACE, "spring"), *retrain(services, WORKSPACE, "autumn")]
        assert [one["decision"] for one in told] == ["publish", "publish"]
        clock.forward(days=8)
        setup.put_rule(services, HOURLY)
        for day in range(2):
            ask(services, FEW, f"few{day}")
            ask(services, PEOPLE, f"many{day}", to="autumn")
            clock.forward(hours=24)
        reprice(services, WORKSPACE)
    return folder


@pytest.fixture
def shop(template: Path, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    """A copy of the template, twelve days after the start."""
    shutil.copytree(template, tmp_path / "shop")
    clock.forward(days=12)
    with opened(tmp_path / "shop", clock) as services:
        yield services


def prices(services: Services, name: str) -> tuple[Price, ...]:
    """The prices under which a campaign's decisions are made now."""
    services.policies.refresh_now()
    return services.policies.current(WORKSPACE, name).prices


def dearest(services: Services, name: str) -> float:
    """The highest price that a place has for a campaign."""
    return max((max(price.values) for price in prices(services, name)), default=0.0)


def sent(services: Services, run: str) -> int:
    """How many of few questions of ``spring`` end in a message."""
    services.policies.refresh_now()
    return sum(d.send_at is not None for d in ask(services, FEW, run))


def change(services: Services, name: str, **changes: Any) -> None:
    with services.store.read() as reader:
        stored = reader.campaign(WORKSPACE, name)
    assert stored is not None
    setup.put_campaign(services, replace(stored, **changes))


ENDED: list[dict[str, Any]] = [{"status": "archived"}, {"mode": "paused"}]


@pytest.mark.parametrize("ended", ENDED, ids=str)
def test_an_archived_or_paused_campaign_costs_the_others_no_places(shop: Services, ended: dict[str, Any]) -> None:
    crowded, own = dearest(shop, "spring"), prices(shop, "autumn")
    change(shop, "autumn", **ended)
    assert [one["campaign_id"] for one in reprice(shop, WORKSPACE)] == ["spring"]
    assert dearest(shop, "spring") < 0.1 * crowded
    assert prices(shop, "autumn") == own  # what it has until it asks again
    change(shop, "autumn", status="active", mode="live")
    reprice(shop, WORKSPACE)
    assert dearest(shop, "spring") == pytest.approx(crowded, rel=0.1)
    assert sent(shop, "crowded") < 0.5 * FEW


def test_who_is_alone_with_enough_places_sends_what_it_would_without_a_limit(shop: Services) -> None:
    change(shop, "autumn", status="archived")
    reprice(shop, WORKSPACE)
    assert sent(shop, "alone") > 0.8 * FEW


def test_a_refresh_leaves_the_prices_of_a_campaign_alone_that_does_not_ask(shop: Services) -> None:
    crowded, own = dearest(shop, "spring"), prices(shop, "autumn")
    change(shop, "autumn", mode="paused")
    refresh(shop, WORKSPACE)
    assert own
    assert prices(shop, "autumn") == own
    assert dearest(shop, "spring") < 0.1 * crowded


@pytest.mark.parametrize("mode", ["shadow", "baseline_only", "paused"])
@pytest.mark.parametrize("whole", [True, False])
def test_only_what_is_live_is_priced(shop: Services, mode: Any, whole: bool) -> None:
    if whole:
        setup.set_mode(shop, WORKSPACE, mode)
    else:
        change(shop, "autumn", mode=mode)
    with shop.store.read() as reader:
        at = priceable(reader, WORKSPACE, shop.clock())
    wanted = set() if whole else {"spring"}
    assert (set(at.policies), set(at.campaigns), set(at.pointers)) == (wanted, wanted, wanted)


@pytest.mark.parametrize("ended", [*ENDED, {"mode": "shadow"}], ids=str)
def test_places_of_a_campaign_that_sends_no_more_are_there_for_the_others(
    shop: Services, clock: FakeClock, ended: dict[str, Any]
) -> None:
    with shop.store.read() as reader:
        before = Watched(frozenset({"spring"}), (HOURLY,), whole=False).read(reader, WORKSPACE, clock.now)
    mine, everybody, gone = before.taken["hourly"]
    assert (gone, everybody > mine > 0) == (0, True)
    change(shop, "autumn", **ended)
    with shop.store.read() as reader:
        after = Watched(frozenset({"spring"}), (HOURLY,), whole=False).read(reader, WORKSPACE, clock.now)
    sends = ended == {"mode": "shadow"}  # its baseline
    assert after.taken["hourly"] == ((mine, everybody, 0) if sends else (mine, mine, everybody - mine))
