"""What shares the traffic is given more of it once the decisions that both had a part in show it to be better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from optimizer.bandit.evidence import Verdict
from optimizer.service import climbing, refreshing, setup
from optimizer.service.climbing import LEAST_SHARED, climb
from optimizer.service.judging import later_verdict
from optimizer.service.learning import rollback
from optimizer.service.pacing import candidates, judged
from optimizer.service.refreshing import refresh
from optimizer.service.retrain import retrain
from optimizer.service.runs import finish, start_now
from optimizer.service.sharing import SHARING
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
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


def _run(services: Services) -> TrainingRun:
    """A refresh as the scheduler carries it out, its end written."""
    run = start_now(services, WORKSPACE, None, "test", "test", "refresh")
    ended = carry_out(services, run)
    finish(services, run, "test", replace(ended, verdicts=orjson.loads(orjson.dumps(ended.verdicts))))
    with services.store.read() as reader:
        stored = reader.training_run(WORKSPACE, run.run_id)
    assert stored is not None
    return stored


def _looked(services: Services) -> dict[str, Any] | None:
    """What a refresh, as the scheduler carries it out, says of shared traffic."""
    found = [one for one in _run(services).verdict["campaigns"] if "looks" in one]
    services.policies.refresh_now()
    return found[0] if found else None


def _until_it_climbs(services: Services, clock: FakeClock) -> dict[str, Any]:
    for seed in (83, 84, 85):
        audience(services, clock, 600, seed=seed, swapped=True)
        answer = _looked(services)
        if answer is not None and answer["decision"] == "publish":
            return answer
    raise AssertionError(f"it hasn't climbed: {answer}")


def _stored(services: Services) -> list[Policy]:
    """The looks that are stored, newest first."""
    with services.store.read() as reader:
        return [policy for policy in judged(reader, SHOP) if "shared" in policy.verdict]


def test_it_climbs_as_far_as_the_shared_decisions_carry(shared: Services, clock: FakeClock) -> None:
    first = _looked(shared)
    assert first is not None
    assert first["decision"] == "shares"
    assert (
        f"0 decisions that both had a share in, of 0 recipients, are too few: the next look needs {LEAST_SHARED}"
        in first["reason"]
    )
    before = _serving(shared)
    answer = _until_it_climbs(shared, clock)
    assert "decisions that both had a share in" in answer["reason"]
    after = _stored(shared)[0]
    assert (after.policy_id, after.revision) == (answer["policy_id"], False)
    assert after.mixture[-1].weight == answer["alpha"] in {0.3, 0.6, 1.0}
    assert after.mixture[-1].weight > before.mixture[-1].weight
    assert after.verdict["shared"] == answer["rows"] >= LEAST_SHARED
    assert after.run_id is not None
    value = next(c for c in answer["conditions"] if c["name"] == "value")
    assert value["figure"] > 0.0
    again = _looked(shared)
    assert again is None or again["decision"] == "shares", "not twice on the same decisions"


def test_what_is_not_sure_enough_stays_where_it_is_and_each_look_is_a_try(
    shared: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climbing, "SHARING", replace(SHARING, family_error=1e-40))
    tries, looks = [], []
    for seed, people in ((83, 700), (84, 60), (85, 700), (86, 10)):
        audience(shared, clock, people, seed=seed, swapped=True)
        answer = _looked(shared)
        assert answer is not None
        assert answer["decision"] == "shares"
        looks.append((answer["looks"]["shared"], answer["looks"]["counted"]))
        tries.append(len(_stored(shared)))
    assert tries == [1, 1, 2, 2]
    assert looks == [(700, 700), (700, 760), (1_460, 1_460), (1_460, 1_470)]
    values = [next(c for c in p.verdict["conditions"] if c["name"] == "value") for p in _stored(shared)]
    newer, older = (float(one["detail"].rsplit("z ", 1)[1]) for one in values)
    assert newer > older, "each try is held to more"
    assert {policy.status for policy in _stored(shared)} == {"rejected"}


def test_a_look_that_could_give_nothing_more_spends_no_try(
    shared: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climbing, "SHARING", replace(SHARING, min_rewarded_rows=500))
    for seed, people, counted in ((83, 700, (700, 700)), (84, 60, (700, 760))):
        audience(shared, clock, people, seed=seed, swapped=True)
        answer = _looked(shared)
        assert answer is not None
        assert answer["decision"] == "shares"
        assert (answer["looks"]["shared"], answer["looks"]["counted"]) == counted, "the next comes after a quarter more"
        if people == 700:
            assert answer["reason"].startswith("700 rows to judge a candidate on, of which ")
            assert answer["reason"].endswith(": 300 and 500 are needed")
    assert _stored(shared) == []


def test_a_look_whose_policy_was_moved_meanwhile_is_none(
    shared: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raced(*_: Any) -> None:
        raise VersionConflict("the pointer has moved")

    audience(shared, clock, 1_200, seed=83, swapped=True)
    with monkeypatch.context() as patched:
        patched.setattr(climbing, "publish", raced)
        patched.setattr(climbing, "later_verdict", passed)
        (answer,) = climb(shared, WORKSPACE)
    assert answer["decision"] == "superseded"
    assert (answer["looks"]["shared"], answer["looks"]["counted"]) == (0, 1_200)
    assert _stored(shared) == [], "no try was spent"


def passed(*args: Any, **kwargs: Any) -> Verdict:
    return replace(later_verdict(*args, **kwargs), decision="publish", alpha=1.0)


def test_looks_are_no_candidates_that_a_scheduled_retrain_would_wait_after(shared: Services, clock: FakeClock) -> None:
    _until_it_climbs(shared, clock)
    with shared.store.read() as reader:
        assert next(judged(reader, SHOP)).policy_id == _stored(shared)[0].policy_id
        assert "shared" not in next(candidates(reader, SHOP)).verdict


def test_what_was_taken_back_climbs_on_later_decisions_alone(shared: Services, clock: FakeClock) -> None:
    _until_it_climbs(shared, clock)
    rollback(shared, WORKSPACE, "spring")
    assert len(_serving(shared).mixture) == 2
    shared.policies.refresh_now()
    count = len(_stored(shared))
    for people in (10, 300, 10):
        audience(shared, clock, people, seed=90 + people, swapped=True)
        answer = _looked(shared)
        assert answer is not None
        assert answer["decision"] == "shares"
        assert answer["looks"]["counted"] <= 320
    assert len(_stored(shared)) == count


def test_without_a_gate_nothing_is_judged(shared: Services) -> None:
    assert climb(replace(shared, settings=replace(shared.settings, gate=False)), WORKSPACE) == []
