"""The loop, the scores, the policies by name and the command."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from optimizer.bandit.rewards import clock_start
from optimizer.errors import Invalid, NotFound
from optimizer.service.choose import Drawn
from simulations import scenarios
from simulations.baselines.grids import GRIDS, search
from simulations.game import Game, Turn
from simulations.oracle import BestStatic, Chance, Oracle
from simulations.play import Play, Played, Result
from simulations.policies import FAMILIES, OursOptions, parse, with_options
from simulations.pure import Schedule, Sendtide
from simulations.recovery import recovery
from simulations.results import PARTS, document
from simulations.scenarios import Scenario, scenario
from simulations.simulate import command
from simulations.simulate_run import Options, run, with_ends
from simulations.standings import figure_of, share_of, standings
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
    player = Sendtide(game, Schedule(refresh=0.3), network=False)
    score = Play(game, player).run("ours")
    assert player.notes["retrains"] == 2
    assert 1 <= player.notes["refreshes"] <= 4
    assert share_of(score, slice(400, 600)) > 0.15
    assert (score.numbers["propensity"] > 0).all()


def test_schedule_counts_growth() -> None:
    schedule = Schedule(retrain=1.0, refresh=0.1, step=25)
    assert schedule.due(199, 0, 0) is None
    assert schedule.due(200, 0, 0) == "retrain"
    assert schedule.due(224, 200, 200) is None
    assert schedule.due(225, 200, 200) == "refresh"
    assert schedule.due(399, 200, 380) is None
    assert schedule.due(400, 200, 399) == "retrain"


def test_standings_are_regret_share_and_ratio_by_seed() -> None:
    def score(policy: str, values: list[float]) -> Played:
        n = len(values)
        numbers = {
            "value": np.array(values),
            "best": np.ones(n),
            "informed": np.full(n, 0.9),
            "chance": np.full(n, 0.1),
            "reward": np.zeros(n),
            "propensity": np.ones(n),
        }
        return Played(policy, 1, numbers, {}, 1.0)

    ours = [score("ours", [0.1] * 5 + [0.9] * 5), score("ours", [0.1] * 4 + [0.9] * 6)]
    rival = [score("vw-squarecb", [0.1] * 10)] * 2
    found = {s.policy: s for s in standings({"ours": ours, "vw-squarecb": rival}, "vw-squarecb")}
    assert found["ours"].regret.per_seed == pytest.approx((4.0, 3.2))
    assert found["ours"].full_regret.per_seed == pytest.approx((5.0, 4.2))
    assert found["ours"].share.mean == pytest.approx(1.0)
    assert found["vw-squarecb"].share.mean == pytest.approx(0.0)
    ratio = found["ours"].ratio
    assert ratio is not None
    assert ratio.per_seed == pytest.approx((0.5, 0.4))
    assert ratio.mean == pytest.approx(0.45)
    # Two values .1 apart: standard error .05, Student's t with one degree of freedom 12.706.
    assert ratio.high - ratio.mean == pytest.approx(12.706 * 0.05, rel=1e-3)
    assert found["vw-squarecb"].ratio is None
    assert found["ours"].path[0] == pytest.approx(0.0)
    assert found["ours"].path[-1] == pytest.approx(1.0)


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(figure_of([1.0]).low)


def test_policies_are_read_with_their_options() -> None:
    spec = parse("ours:refresh=0.02,network=false", "stationary")
    assert spec.options == OursOptions(refresh=0.02, network=False)
    assert parse("vw-squarecb:scale=7", "stationary").options.scale == 7.0
    spec = parse("ours:method=inverse_gap,parameter=5", "stationary")
    assert (spec.options.method, spec.options.parameter) == ("inverse_gap", 5.0)
    player = spec.player(Game(replace(SMALL, decisions=10), 1))
    assert isinstance(player, Sendtide)
    assert (player.method, player.parameter) == ("inverse_gap", 5.0)
    with pytest.raises(Invalid, match="method=luck: must be one of: posterior_bank"):
        parse("ours:method=luck", "stationary").player(Game(replace(SMALL, decisions=10), 1))
    with pytest.raises(Invalid, match="there are: ours"):
        parse("nobody", "stationary")
    with pytest.raises(Invalid, match="option 'wings'"):
        parse("ours:wings=2", "stationary")
    with pytest.raises(Invalid, match="lstm"):
        parse("ours:encoder=lstm", "stationary")
    with pytest.raises(Invalid, match="no options"):
        parse("random:a=1", "stationary")
    with pytest.raises(NotFound, match="stationary"):
        scenario("nowhere")


def test_every_grid_speaks_of_options_that_its_policy_has() -> None:
    for name, turns in GRIDS.items():
        for option, values in turns:
            for value in values:
                changed = with_options(FAMILIES[name].options, {option: value})
                assert getattr(changed, option) == value
                assert type(value) is type(getattr(FAMILIES[name].options, option))


def test_a_search_keeps_the_best_of_each_option_and_tells_all_that_it_tried() -> None:
    def score(options: OursOptions) -> float:
        return abs(options.refresh - 0.3) + abs(options.retrain - 2.0)

    found = search(OursOptions(), (("refresh", (0.1, 0.3)), ("retrain", (2.0, 3.0))), score, with_options)
    assert found["options"] == {"refresh": 0.3, "retrain": 2.0}
    assert found["regret"] == 0
    assert [t["value"] for t in found["tried"]] == [None, 0.1, 0.3, 2.0, 3.0]


def test_a_run_has_every_policy_in_every_seed_and_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setitem(scenarios.SCENARIOS, "small", replace(SMALL, name="small", decisions=40))
    found = run(Options("small", ("full-oracle",), 2), processes=1, console=Console(quiet=True))
    assert list(found) == ["full-oracle", "random", "informed-oracle"]
    assert with_ends(("random", "ours")) == ("random", "ours", "informed-oracle")
    for seeds in found.values():
        assert [p.seed for p in seeds] == [1, 2]
        assert all(p.regret.size == 40 for p in seeds)


def test_the_command_prints_tables_json_and_pictures(tmp_path: Path) -> None:
    arguments = ["stationary", "--policies", "full-oracle,static-ab", "--seeds", "2", "--decisions", "60"]
    done = CliRunner().invoke(command, [*arguments, "--json", "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = orjson.loads(done.stdout)
    assert report["standings"][0]["policy"] == "full-oracle"
    assert report["gate"] == "off"
    for end in ("-regret.png", "-week.png"):
        assert (tmp_path / f"stationary{end}").read_bytes().startswith(b"\x89PNG")
    assert orjson.loads((tmp_path / "stationary.json").read_bytes())["options"]["seeds"] == 2
    people = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "full-oracle" in people.stdout
    assert "Share of the way" in people.stdout


def test_policies_told_earlier_meet_the_same_stream_and_are_what_others_are_compared_with() -> None:
    """60 decisions are all cold, so that how they are told of outcomes changes nothing yet."""
    names = "ours,ours-naive,ours-at-send,ours-at-once"
    arguments = ["delays", "--policies", names, "--against", "ours-at-once", "--seeds", "2", "--decisions", "60"]
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    report = orjson.loads(done.stdout)
    assert report["reference"] == "ours-at-once"
    ratios = {one["policy"]: one["ratio"] for one in report["standings"]}
    assert ratios["ours-at-once"] is None
    assert ratios["ours-at-send"]["per_seed"] == ratios["ours"]["per_seed"] == [1.0, 1.0]
    assert ratios["informed-oracle"]["mean"] == 0.0


def test_what_is_compared_with_must_be_played() -> None:
    done = CliRunner().invoke(command, ["delays", "--policies", "random", "--against", "ours", "--decisions", "20"])
    assert done.exit_code != 0
    assert "not played" in done.stderr


def test_at_the_send_everything_is_known_of_messages_that_have_gone_out() -> None:
    one = replace(SMALL, window="now", feedback="at_send", decisions=200, days=5.0)
    listener, _ = played(one)
    last = listener.asked[-1].arrival.at
    assert 20 < len(listener.results) < 100  # five of seven days, the early ones: about a third
    assert all(clock_start(result.decision) <= last for result in listener.results)
    assert max(event.occurred_at for event in listener.events) > last
    known = {result.decision.decision_id for result in listener.results}
    assert {event.decision_id for event in listener.events if event.decision_id is not None} <= known


def test_the_command_lists_what_there_is() -> None:
    listed = CliRunner().invoke(command, ["--list"], catch_exceptions=False).stdout
    assert "many-slots" in listed
    assert "vw-squarecb" in listed


def test_the_command_says_what_it_does_not_know() -> None:
    done = CliRunner().invoke(command, ["nowhere"])
    assert done.exit_code != 0
    assert "there are: stationary" in done.stderr


def test_the_report_is_written_from_what_lies_there(tmp_path: Path) -> None:
    arguments = ["xor", "--policies", "full-oracle", "--seeds", "2", "--decisions", "30", "--out", str(tmp_path)]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    (tmp_path / "z-extra.md").write_text("## Something else\n", encoding="utf-8")
    report = document(tmp_path)
    assert "## xor: " in report
    assert "| full-oracle | " in report
    assert f"({tmp_path.name}/xor-regret.png)" in report
    assert report.index("## Something else") > report.index("## xor")
    assert "## stationary" not in report
    assert "Machine: " in report


def test_every_part_of_the_report_can_be_played() -> None:
    for part in PARTS:
        for policy in part.policies:
            assert parse(policy, scenario(part.scenario).name).text == policy


def test_recovery_counts_decisions_until_the_level_is_reached_again() -> None:
    n, change = 4000, 2000
    value = np.where(np.arange(n) < change, 0.8, 0.0)
    value[3000:] = 0.95
    ones, zeros = np.ones(n), np.zeros(n)
    numbers = {"value": value, "best": ones, "informed": ones, "chance": zeros, "reward": zeros, "propensity": ones}
    variant = np.where(np.arange(n) >= 2500, 1, 0)
    found = recovery(Played("ours", 1, numbers, {"variant": variant}, 1.0), change)
    assert found.before == pytest.approx(0.8)
    assert found.after == pytest.approx(0.95)
    # .72 of the window at .95 and the rest at 0: reached when 379 of 500 lie behind 3,000; in steps of 50.
    assert found.to_before == 250 + 900
    assert found.to_informed == 250 + 1000
    assert found.to_final == 250 + 450
