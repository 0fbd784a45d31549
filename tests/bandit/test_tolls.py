"""What actions are charged for the scarce things that they take."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import orjson

from optimizer.bandit.actions import ActionSpace, Spaces
from optimizer.bandit.tolls import Price, prices_of, tolls
from storage.records import Campaign, Channel, Variant

NOW = datetime(2026, 1, 5, tzinfo=UTC)
MIDNIGHT = 20_000 * 86_400
CAMPAIGN = Campaign(
    "w", "spring", (Variant("a", cost=0.5), Variant("b")), (Channel("email", 0.25), Channel("sms", 2.0)), NOW, NOW
)
SEND_AT = MIDNIGHT + np.array([1_800, 5_400, 90_000], dtype=np.int64)
SPACE = ActionSpace(("a", "b"), ("email", "sms"), SEND_AT, SEND_AT, True)
SPACES = Spaces.stacked([SPACE])
BY_HOUR = tuple(float(hour) for hour in range(24))


def test_the_usual_price_follows_the_utc_hour_in_which_the_block_starts() -> None:
    times = MIDNIGHT + np.array([0, 3_599, 3_600, 86_399, 86_400 + 7_200], dtype=np.int64)
    assert Price("r", "capacity", (), BY_HOUR).at(times).tolist() == [0, 0, 1, 23, 2]
    assert Price("r", "capacity", (), BY_HOUR, every=6 * 3_600).at(times).tolist() == [0, 0, 0, 18, 0]
    assert Price("r", "capacity", (), (7.0,)).at(times).tolist() == [7.0] * 5


def test_near_prices_hold_from_their_first_start_until_their_end() -> None:
    price = Price("r", "capacity", (), (1.0,), starts=(MIDNIGHT, MIDNIGHT + 60), values=(5.0, 6.0), until=MIDNIGHT + 90)
    times = MIDNIGHT + np.array([-1, 0, 59, 60, 89, 90], dtype=np.int64)
    assert price.at(times).tolist() == [1.0, 5.0, 5.0, 6.0, 6.0, 1.0]


def test_a_capacity_charges_a_message_on_its_channels() -> None:
    toll = tolls([Price("r", "capacity", ("sms",), BY_HOUR)], CAMPAIGN, SPACES)
    assert toll is not None
    expected = np.zeros(SPACE.shape)
    expected[:, :, 1] = [0.0, 1.0, 1.0]
    assert np.array_equal(toll[0, :-1].reshape(SPACE.shape), expected)
    assert toll[0, -1] == 0.0


def test_a_budget_charges_what_variant_and_channel_cost_and_tolls_add_up() -> None:
    prices = [Price("b", "budget", ("email", "sms"), (10.0,)), Price("c", "cap", ("email",), (0.5,))]
    toll = tolls(prices, CAMPAIGN, SPACES)
    assert toll is not None
    per_pair = toll[0, :-1].reshape(SPACE.shape)[:, 0, :]
    assert np.allclose(per_pair, [[8.0, 25.0], [3.0, 20.0]])


def test_nothing_is_charged_without_prices_or_without_slots() -> None:
    assert tolls([], CAMPAIGN, SPACES) is None
    nothing = np.zeros(0, dtype=np.int64)
    empty = ActionSpace(("a",), ("sms",), nothing, nothing, True)
    assert tolls([Price("r", "capacity", ("sms",), (1.0,))], CAMPAIGN, Spaces.stacked([empty])) is None


def test_prices_survive_being_stored_as_json() -> None:
    price = Price("r", "budget", ("sms",), BY_HOUR, 7_200, (MIDNIGHT,), (0.1 + 0.2,), MIDNIGHT + 5)
    assert prices_of(orjson.loads(orjson.dumps({"prices": [price.as_json()]}))) == (price,)
    assert prices_of({}) == ()
