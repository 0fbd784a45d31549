"""The pure middle in memory and the whole service on SQLite are one policy; and the gate refuses a log that lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optimizer.service.progress import Progress
from simulations.game import Game
from simulations.gatewords import told_of
from simulations.play import Play
from simulations.pure import Schedule, Sendtide
from simulations.scenarios import WORKSPACE, scenario
from simulations.through_service import Lie, Service, open_service
from simulations.world.spec import WorldSpec
from storage.records import JsonObject

SCHEDULE = Schedule(retrain=0.4, refresh=0.15, step=25, early=0.4)


def effects_told(monkeypatch: pytest.MonkeyPatch, service: Service) -> dict[str, JsonObject]:
    """By decision, what the service will have been told of its recipient's hours; filled when it is closed."""
    told: dict[str, JsonObject] = {}
    close = service.close

    def read_and_close() -> None:
        with service.services.store.read() as reader:
            found = reader.decisions(WORKSPACE, limit=500).items
            told.update({one.decision_id: one.snapshot.effects for one in found if one.action is not None})
        close()

    monkeypatch.setattr(service, "close", read_and_close)
    return told


@pytest.mark.parametrize("name", ["stationary", "delays", "cap-pressure", "new-variant", "history", "cross-sell"])
def test_the_pure_middle_takes_the_very_actions_of_the_service(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = scenario(name)
    small = replace(one, world=replace(one.world, recipients=80), decisions=300, days=one.days)
    pure_game, service_game = Game(small, 1), Game(small, 1)
    player, service = Sendtide(pure_game, SCHEDULE), open_service(service_game, SCHEDULE)
    pure, told = Play(pure_game, player).run("ours"), effects_told(monkeypatch, service)
    whole = Play(service_game, service).run("service")
    assert told == {row.decision_id: row.snapshot.effects for row in player.log if row.action is not None}
    assert sum(bool(one) for one in told.values()) > 50, "most had got a message before"
    assert pure.notes["retrains"] >= 1
    assert pure.notes["refreshes"] >= 1
    for column in ("variant", "channel", "hour", "weekday"):
        np.testing.assert_array_equal(pure.places[column], whole.places[column])
    np.testing.assert_array_equal(pure.numbers["reward"], whole.numbers["reward"])
    np.testing.assert_allclose(pure.numbers["propensity"], whole.numbers["propensity"], atol=1e-12)


@pytest.mark.parametrize(("lie", "published"), [("none", True), ("numbers", False), ("draws", False)])
def test_the_gate_refuses_what_a_lying_log_teaches(lie: Lie, published: bool) -> None:
    """1,000 random decisions in a world of strong tastes: an honest log passes, one that lies about a quarter of its
    draws or about every number never does."""
    small = replace(
        scenario("broken-propensities"),
        world=WorldSpec(recipients=400, variants=2, content=2.5, channel=2.0, rhythm=1.5),
        decisions=1001,
    )
    game = Game(small, 1)
    whole = Play(game, open_service(game, Schedule(retrain=4.0, refresh=9.0, early=4.0), gate=True, lie=lie)).run(
        "service"
    )
    verdicts = [v for v in whole.notes["verdicts"] if v["kind"] == "retrain"]
    assert verdicts
    assert any(v["decision"] == "publish" for v in verdicts) is published
    if not published:
        assert all(v["decision"] == "reject" for v in verdicts)
        assert any(word in verdicts[-1]["reason"] for word in ("integrity", "balance"))


def test_notes_tell_which_revisions_progress_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first policy after 200 decisions, revisions after 280 and 392, the second said to predict better."""
    said = [Progress("p", "asked", 0.0, 0.0, 0.0, better=better) for better in (True, False)]
    monkeypatch.setattr("optimizer.service.refreshing.progressed", lambda *_: said.pop())
    world = WorldSpec(recipients=400, variants=2, content=2.5, channel=2.0, rhythm=1.5)
    game = Game(replace(scenario("broken-propensities"), world=world, decisions=400), 1)
    service = open_service(game, Schedule(retrain=4.0, refresh=0.4, early=4.0), gate=True)
    verdicts = Play(game, service).run("service").notes["verdicts"]
    assert [(v["decision"], v["freed"]) for v in verdicts if v["kind"] == "refresh"] == [
        ("publish", False),
        ("publish", True),
    ]
    assert not any(v["looked"] for v in verdicts if v["kind"] == "climb")  # 200 decisions are too few to look at
    told = told_of("service", [{"verdicts": verdicts}]) or ""
    assert "first policies in 1 world: published 1" in told
    assert "lines of revisions that progress freed: 1 of 1." in told
