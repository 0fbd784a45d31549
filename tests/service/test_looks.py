"""What a training run looks at before it trains: canaries are taken back, a drift alarm sets refreshes in motion."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import orjson
import pytest

from optimizer.service import setup
from optimizer.service.retrain import retrain
from optimizer.service.runs import finish, start_now
from optimizer.service.training import carry_out
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from storage.records import Channel
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_canary import plant, pointer_of
from tests.service.test_drifting import audience

SHOP = campaign(channels=(Channel("email"),), allow_no_send=False)


@pytest.fixture
def learned(services: Services, clock: FakeClock) -> Services:
    """A shop whose first policy serves."""
    setup.put_campaign(services, SHOP)
    audience(services, clock, 800, seed=1)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    return services


def carried_out(services: Services, kind: Literal["refresh", "retrain"] = "refresh") -> TrainingRun:
    """A run as the scheduler carries it out: claimed, done, its end written."""
    run = replace(start_now(services, WORKSPACE, None, "test", "test"), kind=kind)
    ended = carry_out(services, run)
    finish(services, run, "test", replace(ended, verdicts=orjson.loads(orjson.dumps(ended.verdicts))))
    services.policies.refresh_now()
    with services.store.read() as reader:
        stored = reader.training_run(WORKSPACE, run.run_id)
    assert stored is not None
    return stored


def test_a_refresh_takes_a_bad_canary_back_before_it_refits(learned: Services, clock: FakeClock) -> None:
    before = pointer_of(learned)
    plant(learned, clock, bad=True)
    audience(learned, clock, 1500, seed=2)
    told = carried_out(learned).verdict["campaigns"]
    assert [one["decision"] for one in told] == ["rolled_back", "publish"]
    with learned.store.read() as reader:
        serving = reader.policy(WORKSPACE, pointer_of(learned).policy_id)
    assert serving is not None
    assert (serving.revision, serving.parent_id) == (True, before.policy_id)


def test_a_retrain_knows_what_it_has_just_seen_of_the_canary(learned: Services, clock: FakeClock) -> None:
    """Where retrains come by cron alone, one a day, a candidate that waited for the next one would wait a day."""
    plant(learned, clock, bad=False)
    audience(learned, clock, 3_400, seed=61)
    clock.forward(hours=100)
    canary, shares, candidate = carried_out(learned, "retrain").verdict["campaigns"]
    assert (canary["decision"], canary["rows"]) == ("watched", 3_400)
    assert "watched first" not in shares["reason"]
    assert candidate["decision"] in ("publish", "reject"), candidate["reason"]


def test_a_swap_raises_exploration_and_is_relearned(learned: Services, clock: FakeClock) -> None:
    """Without a gate: right choices by name again within 1,500 decisions; before the swap there were 3,000."""
    learned = replace(learned, settings=replace(learned.settings, gate=False))
    audience(learned, clock, 3000, seed=2)
    carried_out(learned)
    right = []
    for step in range(6):
        decided = audience(learned, clock, 250, seed=10 + step, swapped=True)
        right.append(np.mean([(d.variant_id == "mens") != (d.snapshot.context["plan"] == "pro") for d in decided]))
        (told,) = carried_out(learned).verdict["campaigns"]
        if step == 0:
            assert any(alarm["what"] == "calibration.clicked.lower" for alarm in told["drift"]["alarms"])
            with learned.store.read() as reader:
                policy = reader.policy(WORKSPACE, told["policy_id"])
            assert policy is not None
            assert policy.exploration["anneal"] == 1.0
            assert policy.exploration["drift"]["alarms"]
    assert right[0] < 0.1
    assert right[-1] > 0.9


def test_behind_a_gate_the_alarm_raises_exploration_while_the_model_waits(learned: Services, clock: FakeClock) -> None:
    for step in range(8):
        audience(learned, clock, 250, seed=20 + step, swapped=step >= 5)
        carried_out(learned)
    with learned.store.read() as reader:
        serving = reader.policy(WORKSPACE, pointer_of(learned).policy_id)
    assert serving is not None
    assert serving.exploration["drift"]["alarms"]
    # 800 + 1,250 rows came before: variants are young again.
    assert sum(serving.exploration["matured_rows"].values()) <= 1000
