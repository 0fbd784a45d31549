"""Sendtide as a player looks for drift as the service does: each row once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from optimizer.bandit.rewards import LOOKED
from optimizer.service.feedback import Logged
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


def test_a_change_is_noticed_between_refreshes_and_retrains_wait_for_rows_from_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Swapped at 2,000, where the next refresh would come by 2,500; the first retrain after it is at the first refresh
    with 1,000 new rows."""
    learned: list[tuple[str, int]] = []
    noticed: list[float] = []
    fit = Sendtide._fit

    def noted(self: Sendtide, kind: str, rows: list[Logged], now: datetime) -> bytes:
        learned.append((kind, len(rows)))
        if self.drift is not None and self.drift.changed is not None:
            noticed.append(self.drift.changed)
        return fit(self, kind, rows, now)

    monkeypatch.setattr(Sendtide, "_fit", noted)
    monkeypatch.setattr("optimizer.service.pacing.SINCE_CHANGE", 1_000)
    monkeypatch.setattr("optimizer.service.footing.GROWN", 1_000)
    one = replace(DAILY, drift_at=0.5, decisions=4_000, days=20.0)
    game = Game(one, 1)
    player = Sendtide(game, replace(SCHEDULE, refresh=0.3, retrain=0.5, early=0.5), network=False)
    Play(game, player).run("ours")
    changed = noticed[0]
    assert abs(changed - game.arrivals[2_000].at.timestamp()) < 43_200
    after = [(kind, rows) for kind, rows in learned if rows > 2_000]
    assert after[0][0] == "refresh"
    assert after[0][1] < 2_400, "the alarm asks for it"
    before = sum(arrival.at.timestamp() < changed for arrival in game.arrivals)
    enough = min(rows for _, rows in after if rows - before >= 1_000)
    retrained = min(rows for kind, rows in after if kind == "retrain")
    assert enough <= retrained <= enough + 60


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
