"""A campaign's method of exploration is part of its version, so a decision replays by the method it was drawn by."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from optimizer.service import setup
from optimizer.service.replay import Replayer
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import ExplorationMethod
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_retrain import audience

METHODS: tuple[ExplorationMethod, ...] = get_args(ExplorationMethod)
SPRING = campaign(slot_minutes=240, attribution_hours={"clicked": 1.0})


@pytest.fixture
def learned(services: Services, clock: FakeClock) -> Services:
    """A campaign that serves a learned policy."""
    setup.put_campaign(services, SPRING)
    audience(services, clock, 600, seed=5)
    verdict = retrain(services, WORKSPACE)[0]
    assert verdict["decision"] == "publish", verdict["reason"]
    services.policies.refresh_now()
    return services


def test_decisions_of_every_method_replay_exactly_after_it_was_changed(learned: Services, clock: FakeClock) -> None:
    decided: dict[ExplorationMethod, list[Decision]] = {}
    for i, method in enumerate(METHODS):
        setup.put_campaign(learned, replace(SPRING, exploration_method=method))
        decided[method] = audience(learned, clock, 40, seed=20 + i)
    vectors: dict[ExplorationMethod, tuple[float, ...]] = {}
    with learned.store.read() as reader:
        replayer = Replayer(reader, learned.salt)
        for method, decisions in decided.items():
            for decision in decisions:
                vector = replayer.vector(decision)
                assert replayer.draw(decision) == decision.action
                assert decision.action is not None
                assert vector[decision.action] == decision.propensity
            vectors[method] = tuple(np.round(np.sort(vector), 6).tolist())
    # Where one action is clearly best, all kinds of Thompson sampling agree; these four never do.
    distinct: tuple[ExplorationMethod, ...] = ("posterior_bank", "inverse_gap", "epsilon_greedy", "uniform")
    assert len({vectors[method] for method in distinct}) == len(distinct)


def test_uniform_stays_uniform_and_a_number_is_used(learned: Services, clock: FakeClock) -> None:
    setup.put_campaign(learned, replace(SPRING, exploration_method="uniform"))
    even = audience(learned, clock, 20, seed=40)
    assert {d.propensity for d in even} == {1 / d.eligible_actions for d in even}
    sharp = replace(SPRING, exploration_method="softmax", exploration_parameter=0.001, exploration_rate=0.0)
    setup.put_campaign(learned, sharp)
    assert np.median([d.propensity for d in audience(learned, clock, 20, seed=41)]) > 0.85
