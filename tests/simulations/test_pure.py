"""Sendtide as a player looks for drift as the service does: each row once."""

from __future__ import annotations

from dataclasses import replace

from optimizer.bandit.rewards import LOOKED
from simulations.game import Game
from simulations.play import Play
from simulations.pure import Schedule, Sendtide
from simulations.scenarios import Scenario, scenario
from simulations.world.spec import WorldSpec

SCHEDULE = Schedule(retrain=5.0, refresh=0.2, step=50, early=5.0)
DAILY = replace(scenario("drift"), world=WorldSpec(recipients=60, content=1.5), slot_minutes=1440)


def _played(one: Scenario) -> Sendtide:
    game = Game(one, 1)
    player = Sendtide(game, SCHEDULE, network=False)
    Play(game, player).run("ours")
    return player


def test_each_row_of_a_learned_policy_is_compared_once() -> None:
    """Learned at 200 rows, refreshed at 250 and 300: by the last look 100 decisions were drawn by learned policies."""
    player = _played(replace(DAILY, drift_at=None, decisions=320))
    assert player.notes["refreshes"] == 2
    assert player.drift is not None
    assert player.drift.rows == 100
    assert player.drift.alarms == ()
    assert player.drift.changed is None


def test_who_is_told_of_no_opens_learns_clicks_from_clicks_alone() -> None:
    game = Game(replace(DAILY, drift_at=None, decisions=260), 1)
    outcomes = []
    for opens in (True, False):
        player = Sendtide(game, SCHEDULE, network=False, opens=opens)
        Play(game, player).run("ours")
        model = player.live.models[0]
        assert model is not None
        outcomes.append(model.message.outcomes)
    assert LOOKED in outcomes[0]
    assert outcomes[1] == ("clicked",)
