"""The made-up worlds: what is exact is checked by enumeration or integration, what is random by its stated error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from optimizer.service.choose import Drawn
from optimizer.service.feedback import logged
from simulations.asking import record
from simulations.game import Game
from simulations.outcomes import happen
from simulations.play import AT_ONCE
from simulations.scenarios import SCENARIOS, scenario
from simulations.world import rhythms, tastes
from simulations.world.chances import Chances, Link
from simulations.world.memory import Memory
from simulations.world.population import TOPICS
from simulations.world.spec import Personal, Tiring, Twists, WorldSpec
from simulations.world.timing import hours_until, within
from simulations.world.world import Floats, Moment, Slots, World, make_world
from storage.log import FeedbackRow

MONDAY = 1_772_409_600 // 86_400 * 86_400  # 2026-03-02 00:00
HOUR = 3600


def slots(count: int = 28, hours: int = 6, variants: int = 6) -> Slots:
    at = MONDAY + hours * HOUR * np.arange(count, dtype=np.int64)
    return Slots(np.arange(variants), np.arange(3), at, at)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(WorldSpec(recipients=300), 1)


def test_a_seed_makes_one_world_and_another_seed_another(world: World) -> None:
    again, other = make_world(world.spec, 1), make_world(world.spec, 2)
    moment = Moment(5, visits=2, basket=True)
    one = world.chances(moment, slots(), Memory())
    np.testing.assert_array_equal(one.clicked, again.chances(moment, slots(), Memory()).clicked)
    assert not np.allclose(one.clicked, other.chances(moment, slots(), Memory()).clicked)


@pytest.mark.parametrize("eta", [-6.0, -1.3, 0.0, 0.7, 4.0])
def test_the_mean_chance_is_the_integral_over_the_personal_part(eta: float) -> None:
    link = Link(0.02, 0.9, 0.8)
    expected, _ = quad(lambda z: float(link.chance(np.array(eta + 0.8 * z))) * float(norm.pdf(z)), -9, 9, epsabs=1e-10)
    assert float(link.mean(np.array([eta]))[0]) == pytest.approx(expected, abs=1e-6)


def test_what_features_tell_is_the_mean_over_everybody_with_these_features(world: World) -> None:
    """4,000 people with one person's features and personal parts of their own; within 4.5 standard errors at each of
    1,512 chances (a false alarm in 1 % of seeds if they were independent, which they aren't)."""
    count, person = 4000, 7
    rng = np.random.default_rng(3)
    own, people = world.spec.personal, world.people
    moment, place = Moment(person, visits=1), slots()
    told = world.chances(moment, place, Memory(), personal=False)
    drawn = []
    for _ in range(count):
        content, channel = people.content.copy(), people.channel.copy()
        rhythm, level = people.rhythm.copy(), people.level.copy()
        content[person] = own.content * rng.standard_normal(world.spec.variants)
        channel[person] = own.channel * rng.standard_normal(3)
        rhythm[person] = own.rhythm * rng.standard_normal(4) / np.sqrt(2)
        level[person] = own.level * rng.standard_normal(2)
        someone = replace(people, content=content, channel=channel, rhythm=rhythm, level=level)
        chances = replace(world, people=someone).chances(moment, place, Memory())
        drawn.append(np.stack([chances.opened, chances.clicked, chances.unsubscribed]))
    sample = np.array(drawn)
    error = sample.std(axis=0, ddof=1) / np.sqrt(count)
    expected = np.stack([told.opened, told.clicked, told.unsubscribed])
    assert float((np.abs(sample.mean(axis=0) - expected) / error).max()) < 4.5


def test_a_click_needs_a_look_and_chances_are_chances(world: World) -> None:
    chances = world.chances(Moment(3), slots(), Memory())
    assert (chances.clicked < chances.opened).all()
    for table in (chances.opened, chances.clicked, chances.bought, chances.unsubscribed):
        assert table.shape == (6, 28, 3)
        assert (table > 0).all()
        assert (table < 1).all()
    assert (chances.bought > chances.organic).all()


def test_fatigue_lowers_looks_raises_unsubscribes_and_wears_off() -> None:
    tiring = Tiring(strength=0.5, half_life_hours=48.0, repetition=0.3)
    tired_world = make_world(replace(WorldSpec(recipients=50), tiring=tiring), 4)
    memory, place, moment = Memory(), slots(), Moment(2)
    fresh = tired_world.log_odds(moment, place, memory)
    for k in range(3):
        memory.add(2, MONDAY - (k + 1) * HOUR, variant=1, channel=0)
    look, like, load = tired_world.log_odds(moment, place, memory)
    assert (look < fresh[0]).all()
    assert (np.diff(load[0, :, 0]) < 0).all()
    assert load[0, 8, 0] == pytest.approx(load[0, 0, 0] / 2)  # 48 hours later
    assert load[0, 0, 1] == pytest.approx(load[0, 0, 0] / 2)  # another channel
    assert (like[1] < fresh[1][1]).all()
    np.testing.assert_array_equal(like[0], fresh[1][0])
    before, after = (tired_world.chances(moment, place, m).unsubscribed for m in (Memory(), memory))
    assert (after > before).all()
    assert tired_world.chances(Moment(3), place, memory).opened[0, 0, 0] == pytest.approx(
        tired_world.chances(Moment(3), place, Memory()).opened[0, 0, 0]
    )


def test_a_message_that_is_planned_for_later_tires_nobody_now() -> None:
    memory = Memory()
    memory.add(0, MONDAY + 24 * HOUR, variant=0, channel=0)
    load, _ = memory.load(Tiring(strength=1.0), 0, slots().send_at, 6, 3)
    assert (load[:4] == 0).all()
    assert (load[4:] > 0).all()


def test_calendar() -> None:
    days = MONDAY + 86_400 * np.arange(7, dtype=np.int64)
    assert rhythms.weekdays(days).tolist() == list(range(7))
    assert rhythms.hours(np.array([MONDAY + 5 * HOUR + 1800])).tolist() == [5.5]
    month_end = np.array([np.datetime64(d, "s").astype(np.int64) for d in ("2026-02-25", "2026-02-26", "2026-03-02")])
    assert rhythms.payday(month_end).tolist() == [False, True, True]
    assert rhythms.payday(np.array([np.datetime64("2026-03-03", "s").astype(np.int64)])).tolist() == [False]
    winter, summer = (np.array([np.datetime64(d, "s").astype(np.int64)]) for d in ("2026-01-01", "2026-07-02"))
    assert rhythms.season(winter)[0] > 0.99
    assert rhythms.season(summer)[0] < -0.99


def test_paydays_favour_by_price_and_seasons_move_everything_alike(world: World) -> None:
    """The same world with a strength and without: what differs is the term itself, at the slots where it acts."""
    place, moment = slots(count=8, hours=24), Moment(3)  # 2 March, a payday, to 9 March

    def told(spec: WorldSpec) -> tuple[Floats, Floats]:
        look, like, _ = make_world(spec, 1).log_odds(moment, place, Memory())
        return look, like

    calm = replace(world.spec, payday=0.0, season=0.0)
    before = told(calm)
    look, like = (now - then for now, then in zip(told(replace(calm, payday=0.4)), before, strict=True))
    assert (look == 0).all()
    paydays = rhythms.payday(place.local)
    assert paydays.tolist() == [True] + [False] * 7
    np.testing.assert_allclose(like[:, ~paydays], 0.0, atol=1e-12)
    assert np.ptp(like[:, paydays]) > 0.1, "some variants gain, others lose, by their price"
    look, like = (now - then for now, then in zip(told(replace(calm, season=0.5)), before, strict=True))
    np.testing.assert_allclose(look, np.broadcast_to(0.5 * rhythms.season(place.local)[:, None], look.shape))
    assert (like == 0).all()


def test_everybody_has_hours_and_early_people_earlier_ones(world: World) -> None:
    place = slots(24 * 5, hours=1)
    office = np.flatnonzero(world.people.work == 0)
    by_morning = office[np.argsort(world.people.morning[office])]
    peaks = [
        rhythms.hours(place.local)[rhythms.attention(world.people, int(p), place.local).argmax()] for p in by_morning
    ]
    assert peaks[0] > 9
    assert peaks[-1] < 6


def test_the_order_of_two_views_tells_what_neither_alone_does(world: World) -> None:
    table = [[tastes.wanted_topic(world.before, last, before) for last in range(4)] for before in range(4)]
    for line in (*table, *zip(*table, strict=True)):
        assert sorted(line) == [0, 1, 2, 3]
    assert table[0][1] != table[1][0]


def test_order_moves_the_wanted_topic_alone() -> None:
    spec = WorldSpec(recipients=20, twists=Twists(order=2.0))
    ordered = make_world(spec, 3)
    _, one, _ = ordered.log_odds(Moment(1, viewed=(0, 1)), slots(), Memory())
    _, other, _ = ordered.log_odds(Moment(1, viewed=(1, 0)), slots(), Memory())
    moved = set(np.flatnonzero(np.abs(one - other).max(axis=(1, 2)) > 1e-9).tolist())
    wanted = {tastes.wanted_topic(ordered.before, 1, 0), tastes.wanted_topic(ordered.before, 0, 1)}
    assert moved == {v for v in range(6) if v % len(TOPICS) in wanted}


def test_a_purchase_moves_what_goes_with_it_alone() -> None:
    buying = make_world(WorldSpec(recipients=20, twists=Twists(bought=2.0)), 3)
    _, none, _ = buying.log_odds(Moment(1), slots(), Memory())
    for bought in range(len(TOPICS)):
        _, like, _ = buying.log_odds(Moment(1, bought=bought), slots(), Memory())
        more = (like - none).mean(axis=(1, 2))
        wanted = {v for v in range(6) if v % len(TOPICS) == buying.before.goes_with[bought]}
        assert buying.before.goes_with[bought] != bought
        np.testing.assert_allclose(more, [1.5 if v in wanted else -0.5 for v in range(6)])


def test_purchases_are_told_as_events_once_and_to_rivals_by_hand() -> None:
    small = replace(scenario("cross-sell"), world=WorldSpec(recipients=30, twists=Twists(bought=2.0)))
    game = Game(small, 1, 300)
    last: dict[int, str] = {}
    told = 0
    for arrival in game.arrivals:
        turn = game.turn(arrival, Memory(), [])
        for event in turn.news:
            assert event.type == "bought"
            last[arrival.moment.person] = event.properties["product"]
            told += 1
        bought = arrival.moment.bought
        assert bought is not None
        assert last[arrival.moment.person] == TOPICS[bought], "every purchase was told, and before it matters"
        assert turn.seen_by_rivals["bought_last"] == TOPICS[bought]
        assert "bought_last" not in turn.situation.seen
    assert 30 + 0.35 * 270 < told < 30 + 0.65 * 270
    assert Game(scenario("stationary"), 1, 10).arrivals[3].moment.bought is None


def test_exclusive_or_is_in_neither_of_its_features_alone() -> None:
    """Means over 20,000 people; standard error .007, and retired people's mornings are not centred."""
    twisted = make_world(WorldSpec(recipients=20_000), 5)
    people = twisted.people
    sign = np.array([tastes.exclusive_or(people, i) for i in range(len(people))])
    assert set(np.unique(sign)) == {-1.0, 1.0}
    for column in (people.noise > 0, people.morning > 0):
        assert abs(sign[column].mean() - sign[~column].mean()) < 0.3
    assert abs(sign.mean()) < 0.03
    noise_alone = sign[people.noise > 0].mean()
    assert abs(noise_alone) < 0.2


def test_drift_gives_every_variant_another_ones_appeal(world: World) -> None:
    one = tastes.content(world.before, world.people, 9, visits=0, basket=False)
    other = tastes.content(world.after, world.people, 9, visits=0, basket=False)
    np.testing.assert_allclose(other, np.roll(one, 1))


@pytest.mark.parametrize("outcome", ["opened", "converted"])
def test_late_outcomes_are_as_frequent_as_stated(outcome: str) -> None:
    """20,000 delays; within 4 standard errors."""
    delays = WorldSpec().delays
    drawn = [hours_until(delays, outcome, z) for z in np.random.default_rng(1).standard_normal(20_000)]
    share = within(delays, outcome, 24.0)
    assert np.mean(np.array(drawn) <= 24.0) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000))


@pytest.mark.parametrize("action", [0, -2, -1], ids=["the first message", "the last one", "no message"])
def test_purchases_are_worth_what_those_that_count_are(action: int) -> None:
    """Somebody buys after each of 1,500 decisions; within 4 standard errors."""
    game = Game(scenario("base-rates"), 3, 1_500)
    weight = game.scenario.objective["converted"]
    told, drawn = np.zeros(game.decisions), np.zeros(game.decisions)
    for i, arrival in enumerate(game.arrivals):
        turn = game.turn(arrival, Memory(), [])
        none = np.zeros(turn.space.shape)
        chances = Chances(opened=none, clicked=none, bought=none + 1.0, unsubscribed=none, organic=1.0)
        told[i] = game.values(chances, turn)[action] / (weight.fixed + weight.per_value * game.mean_value("converted"))
        place = action % turn.space.size
        decision = record(turn.ask, turn.situation, turn.plan, Drawn(place, 1.0, "p"), turn.recipient)
        row = FeedbackRow(decision, tuple(happen(game, turn, decision, chances)))
        known = logged(turn.situation.campaign, row, decision.decided_at + AT_ONCE)
        assert known is not None
        drawn[i] = known.outcomes["converted"].happened
    assert told.mean() < 0.9999
    assert drawn.mean() == pytest.approx(told.mean(), abs=4 * drawn.std() / np.sqrt(game.decisions))


def test_without_personal_parts_features_tell_all() -> None:
    plain = make_world(WorldSpec(recipients=20, personal=Personal(0, 0, 0, 0)), 1)
    truth, told = (plain.chances(Moment(1), slots(), Memory(), personal=p) for p in (True, False))
    np.testing.assert_allclose(truth.clicked, told.clicked, atol=1e-12)


def test_base_rates_are_those_of_the_scenario() -> None:
    """Means of exact chances over 600 decisions under uniform choice: opens 20 %, clicks 2 %, conversions .3 %,
    unsubscribes .1 %, each within a fifth."""
    game = Game(scenario("base-rates"), 1, 600)
    sums = np.zeros(4)
    for arrival in game.arrivals:
        turn = game.turn(arrival, Memory(), [])
        chances = game.chances(turn)
        sums += [float(t.mean()) for t in (chances.opened, chances.clicked, chances.bought, chances.unsubscribed)]
    np.testing.assert_allclose(sums / 600, [0.2, 0.02, 0.003, 0.001], rtol=0.2)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_scenario_has_something_to_learn(name: str) -> None:
    """In every scenario the informed choice is worth clearly more than chance, and the full one at least as much."""
    game = Game(scenario(name), 2, 40)
    informed, full, chance = [], [], []
    for arrival in game.arrivals:
        turn = game.turn(arrival, Memory(), [])
        truth = game.values(game.chances(turn), turn)
        told = game.values(game.chances(turn, personal=False), turn)
        assert truth.shape == told.shape == (turn.space.size,)
        informed.append(truth[told.argmax()])
        full.append(truth.max())
        chance.append(truth.mean())
    assert np.mean(informed) > 1.3 * np.mean(chance)
    assert np.mean(full) >= np.mean(informed)
