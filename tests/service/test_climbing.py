"""What shares the traffic is given more of it once the decisions that both had a part in show it to be better."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from optimizer.service import climbing, refreshing, setup, told
from optimizer.service.climbing import LEAST_SHARED, Looks, climb, looks_of
from optimizer.service.refreshing import refresh
from optimizer.service.retrain import retrain
from optimizer.service.runs import finish, start_now
from optimizer.service.sharing import SHARING
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.policies import Policy, TrainingRun
from tests.service.conftest import WORKSPACE, FakeClock
from tests.service.test_canary import pointer_of
from tests.service.test_drifting import SHOP, audience, little_allowed


@pytest.fixture
def shared(services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Tastes have swapped, and a refitted model that has seen it shares the traffic with the one that was judged."""
    monkeypatch.setattr(refreshing, "allowed", little_allowed)
    setup.put_campaign(services, SHOP)
    audience(services, clock, 1_200, seed=77)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    setup.put_campaign(services, replace(SHOP, exploration_method="uniform"))  # so that the log shows both sides
    audience(services, clock, 800, seed=79, swapped=True)
    setup.put_campaign(services, SHOP)
    refresh(services, WORKSPACE)
    services.policies.refresh_now()
    assert len(_serving(services).mixture) == 2
    return services


def _serving(services: Services) -> Policy:
    with services.store.read() as reader:
        policy = reader.policy(WORKSPACE, pointer_of(services).policy_id)
    assert policy is not None
    return policy


def _served(services: Services, clock: FakeClock, people: int, seed: int, *, swapped: bool = True) -> None:
    """Decisions whose outcomes a refresh has seen."""
    audience(services, clock, people, seed=seed, swapped=swapped)
    refresh(services, WORKSPACE)
    services.policies.refresh_now()


def _run(services: Services) -> TrainingRun:
    """A refresh as the scheduler carries it out, its end written."""
    run = start_now(services, WORKSPACE, None, "test", "test", "refresh")
    ended = carry_out(services, run)
    finish(services, run, "test", replace(ended, verdicts=orjson.loads(orjson.dumps(ended.verdicts))))
    with services.store.read() as reader:
        stored = reader.training_run(WORKSPACE, run.run_id)
    assert stored is not None
    return stored


def test_it_climbs_as_far_as_the_shared_decisions_carry(shared: Services, clock: FakeClock) -> None:
    (answer,) = climb(shared, WORKSPACE)
    assert (answer["decision"], answer["looks"]["looks"]) == ("shares", 0)
    assert f"the next look comes after {LEAST_SHARED} outcomes" in answer["reason"]
    for seed in (83, 84, 85):
        before = _serving(shared)
        _served(shared, clock, 600, seed)
        (answer,) = climb(shared, WORKSPACE)
        if answer["decision"] == "publish":
            break
    assert answer["decision"] == "publish"
    assert "decisions that both had a share in" in answer["reason"]
    after = _serving(shared)
    assert not after.revision
    assert after.policy_id == answer["policy_id"]
    assert after.mixture[-1].weight == answer["alpha"] in {0.3, 0.6, 1.0}
    assert after.mixture[-1].weight > before.mixture[-1].weight
    assert after.verdict["looks"] == answer["looks"]["looks"] >= 1
    value = next(c for c in answer["conditions"] if c["name"] == "value")
    assert value["figure"] > 0.0
    assert [one["decision"] for one in climb(shared, WORKSPACE)] in ([], ["shares"]), "not twice on the same decisions"


def test_what_is_not_sure_enough_stays_where_it_is_and_each_look_is_a_try(
    shared: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climbing, "SHARING", replace(SHARING, family_error=1e-40))
    looks, levels = [], []
    for seed, people in ((83, 700), (84, 60), (85, 700), (86, 10)):
        audience(shared, clock, people, seed=seed, swapped=True)
        (answer,) = [one for one in _run(shared).verdict["campaigns"] if "looks" in one]
        shared.policies.refresh_now()
        assert answer["decision"] == "shares"
        looks.append(answer["looks"]["looks"])
        levels += [c["detail"].rsplit("z ", 1)[1] for c in answer["conditions"] if c["name"] == "value"]
    # A look is at what the refresh before it has counted: at 0, 700, 760 and 1,460 outcomes.
    assert looks == [0, 1, 1, 2]
    assert float(levels[0]) < float(levels[1]), "each try is held to more"


def test_looks_are_counted_over_the_campaign_s_life(
    shared: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared.store.read() as reader:
        assert looks_of(reader, SHOP) == Looks()
    for seed in (83, 84, 85):
        audience(shared, clock, 600, seed=seed, swapped=True)
        found = [one for one in _run(shared).verdict["campaigns"] if "looks" in one]
        shared.policies.refresh_now()
        if found and found[0]["decision"] == "publish":
            break
    assert found[0]["decision"] == "publish"
    with shared.store.read() as reader:
        counted = looks_of(reader, SHOP)
        monkeypatch.setattr(told, "LOOK_BACK", 0)
        assert looks_of(reader, SHOP).looks == counted.looks >= 1, "the policy that came of it says so, too"


def test_without_a_gate_nothing_is_judged(shared: Services) -> None:
    assert climb(replace(shared, settings=replace(shared.settings, gate=False)), WORKSPACE) == []
