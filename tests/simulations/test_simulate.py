"""The loop of a simulation: who is asked, what is told when, what rules and fatigue do to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import orjson
from click.testing import CliRunner

from optimizer.bandit.rewards import clock_start
from optimizer.service.choose import Drawn
from simulations.game import Game, Turn
from simulations.oracle import BestStatic, Chance, Oracle
from simulations.play import Play, Played, Result
from simulations.pure import EARLY, Schedule, Sendtide
from simulations.scenarios import SCENARIOS, Scenario, scenario
from simulations.simulate import command
from simulations.standings import share_of
from simulations.world.memory import Memory
from simulations.world.spec import Tiring, WorldSpec
from storage.log import Decision, Event

SMALL = replace(scenario("stationary"), world=WorldSpec(recipients=60), decisions=300)


@dataclass
class Listener:
    """Chooses at random and keeps all that it is told."""

    game: Game
    results: list[Result] = field(default_factory=list)
    asked: list[Turn] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    known_at: list[tuple[int, int]] = field(default_factory=list)

    def choose(self, turn: Turn) -> Drawn:
        self.asked.append(turn)
        return Chance(self.game).choose(turn)

    def learn(self, result: Result) -> None:
        self.known_at.append((result.turn.arrival.index, len(self.asked)))
        self.results.append(result)

    def decided(self, turn: Turn, decision: Decision) -> None:
        pass

    def heard(self, event: Event) -> None:
        self.events.append(event)


def played(one: Scenario, seed: int = 1) -> tuple[Listener, Played]:
    game = Game(one, seed)
    listener = Listener(game)
    return listener, Play(game, listener).run("listener")


def test_policies_of_a_seed_meet_the_same_people_at_the_same_moments() -> None:
    game, again = Game(SMALL, 3), Game(SMALL, 3)
    assert game.arrivals == again.arrivals
    assert game.arrivals != Game(SMALL, 4).arrivals
    one, other = (Play(g, Chance(g)).run("random") for g in (game, again))
    np.testing.assert_array_equal(one.numbers["reward"], other.numbers["reward"])
    times = [arrival.at for arrival in game.arrivals]
    assert times == sorted(times)


def test_the_oracles_bound_the_scale() -> None:
    game = Game(SMALL, 1)
    informed = Play(game, Oracle(game, personal=False)).run("informed")
    full = Play(game, Oracle(game, personal=True)).run("full")
    chance = Play(game, Chance(game)).run("chance")
    static = Play(game, BestStatic(game)).run("static")
    assert informed.regret.sum() == 0
    assert full.full_regret.sum() == 0
    assert full.regret.sum() <= 0
    assert share_of(informed, slice(0, 300)) == 1.0
    assert abs(share_of(chance, slice(0, 300))) < 0.2
    assert chance.regret.sum() > static.regret.sum() > 0


def test_rewards_come_as_often_as_the_world_says() -> None:
    """1,500 random decisions: mean reward within 4 standard errors of mean expected reward."""
    game = Game(replace(SMALL, decisions=1500), 5)
    score = Play(game, Chance(game)).run("random")
    value, reward = score.numbers["value"], score.numbers["reward"]
    error = np.sqrt((value * (1 - value)).sum()) / 1500
    assert abs(reward.mean() - value.mean()) < 4 * error


def test_with_immediate_feedback_everything_is_known_before_the_next_decision() -> None:
    listener, _ = played(SMALL)
    assert [index + 1 for index, _ in listener.known_at] == [asked for _, asked in listener.known_at]


def test_with_delays_a_decision_is_known_when_its_window_is_over() -> None:
    listener, score = played(replace(scenario("delays"), world=WorldSpec(recipients=60), decisions=300))
    longest = timedelta(days=7, hours=72 + 1)
    times = [turn.arrival.at for turn in listener.asked]
    assert len(listener.results) < 300
    for result, (_, asked) in zip(listener.results, listener.known_at, strict=True):
        sent = result.decision.send_at
        assert sent is not None
        assert sent + timedelta(hours=72) <= times[asked] if asked < len(times) else True
    assert all(r.decision.decided_at + longest >= times[0] for r in listener.results)
    unmatured = 1 - len(listener.results) / 300
    assert 0.2 < unmatured < 0.4
    assert np.isfinite(score.numbers["value"]).all()


def test_mail_that_a_machine_opens_counts_for_nothing() -> None:
    opened = replace(
        SMALL,
        world=WorldSpec(recipients=60, look=-30.0, floor=0.0, scanned=1.0, personal=replace(WorldSpec().personal)),
        objective={"opened": scenario("stationary").objective["clicked"]},
        attribution_hours={"opened": 72.0},
    )
    listener, score = played(opened)
    assert any(event.automated for event in listener.events)
    assert np.nansum(score.numbers["reward"]) == 0


def test_caps_are_kept_and_some_decisions_withheld() -> None:
    listener, score = played(replace(scenario("cap-pressure"), world=WorldSpec(recipients=30), decisions=400))
    sent: dict[str, list[float]] = {}
    for result in listener.results:
        if result.decision.send_at is not None:
            sent.setdefault(result.decision.recipient_id, []).append(result.decision.send_at.timestamp())
    gaps = [b - a for times in sent.values() for a, b in zip(sorted(times), sorted(times)[1:], strict=False)]
    assert min(gaps) >= 2 * 86_400
    for times in sent.values():
        for at in times:
            assert sum(at <= other < at + 7 * 86_400 for other in times) <= 2
    assert np.isnan(score.numbers["value"]).any() or (score.places["variant"] < 0).any()


def test_who_has_unsubscribed_is_never_asked_for_again() -> None:
    leaving = replace(scenario("fatigue"), world=WorldSpec(recipients=20, unsubscribe=-1.0), decisions=200)
    listener, score = played(leaving)
    gone: set[str] = set()
    refused = {r.turn.arrival.index: r for r in listener.results if r.outcomes.get("unsubscribed")}
    for turn in listener.asked:
        assert turn.recipient.recipient_id not in gone
        if turn.arrival.index in refused:
            gone.add(turn.recipient.recipient_id)
    assert gone
    assert np.isnan(score.numbers["value"]).any()


def test_what_was_sent_before_tires_the_next_message() -> None:
    tiring = WorldSpec(recipients=5, tiring=Tiring(strength=1.0, half_life_hours=240.0))
    fresh = WorldSpec(recipients=5)
    values = [
        Play(Game(replace(SMALL, world=spec, decisions=150, days=10.0), 1), None or Chance(Game(SMALL, 1)))
        .run("random")
        .numbers["best"][50:]
        .mean()
        for spec in (fresh, tiring)
    ]
    assert values[1] < 0.8 * values[0]


def test_a_new_variant_is_no_action_before_its_launch() -> None:
    game = Game(replace(scenario("new-variant"), world=WorldSpec(recipients=60), decisions=100), 1)
    before, after = (game.turn(game.arrivals[i], Memory(), []) for i in (49, 50))
    assert len(before.space.variants) == 5
    assert len(after.space.variants) == 6
    assert before.situation.campaign.version == 1
    assert after.situation.campaign.version == 2


def test_sendtide_learns_on_its_schedule_and_beats_chance() -> None:
    """600 decisions in a world of strong tastes; the share after learning is four times what chance varies by."""
    game = Game(replace(SMALL, decisions=600), 1)
    player = Sendtide(game, Schedule(retrain=1.0, refresh=0.3, early=1.0), network=False)
    score = Play(game, player).run("ours")
    assert player.notes["retrains"] == 2
    assert 1 <= player.notes["refreshes"] <= 4
    assert share_of(score, slice(400, 600)) > 0.15
    assert (score.numbers["propensity"] > 0).all()


def test_schedule_counts_growth() -> None:
    schedule = Schedule(retrain=1.0, refresh=0.1, step=25, early=0.5)
    assert schedule.due(199, 0, 0) is None
    assert schedule.due(200, 0, 0) == "retrain"
    assert schedule.due(224, 200, 200) is None
    assert schedule.due(225, 200, 200) == "refresh"
    assert schedule.due(299, 200, 280) is None
    assert schedule.due(300, 200, 299) == "retrain"
    assert schedule.due(2_999, EARLY, 2_980) is None
    assert schedule.due(3_000, EARLY, 2_999) == "retrain"


def test_at_the_send_everything_is_known_of_messages_that_have_gone_out() -> None:
    one = replace(SMALL, window="now", feedback="at_send", decisions=200, days=5.0)
    listener, _ = played(one)
    last = listener.asked[-1].arrival.at
    assert 20 < len(listener.results) < 100  # five of seven days, the early ones: about a third
    assert all(clock_start(result.decision) <= last for result in listener.results)
    assert max(event.occurred_at for event in listener.events) > last
    known = {result.decision.decision_id for result in listener.results}
    assert {event.decision_id for event in listener.events if event.decision_id is not None} <= known


def test_scenarios_and_policies_are_listed_in_json_for_programs() -> None:
    listed = CliRunner().invoke(command, ["--list", "--json"])
    assert listed.exit_code == 0
    found = orjson.loads(listed.stdout)
    assert [one["scenario"] for one in found["scenarios"]] == list(SCENARIOS)
    assert found["policies"][0].keys() == {"policy", "about"}
