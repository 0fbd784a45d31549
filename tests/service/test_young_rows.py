"""Learning does not wait for attribution windows: young rows teach what they show, whatever came of them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from optimizer.bandit.rewards import LOOKED
from optimizer.service import setup
from optimizer.service.feedback import Log, examples, load, told
from optimizer.service.ingest import ingest
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Channel, OutcomeWeight
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(
        services,
        campaign(channels=(Channel("email"),), attribution_hours={"clicked": 72.0}, allow_no_send=False),
    )
    return services


def _ask(services: Services, people: int, run: str, **fields: object) -> list[Decision]:
    rows = [
        DecisionRequest("spring", f"{run}-{i}", context={"plan": ("pro", "free")[i % 2]}, **fields)  # type: ignore[arg-type]
        for i in range(people)
    ]
    return [d for d in services.decider.decide_batch(WORKSPACE, rows, run) if isinstance(d, Decision)]


def _click(services: Services, clock: FakeClock, decided: list[Decision], hours: float) -> int:
    """ "pro" people click on mens, the others on womens, with chance .7 against .1, ``hours`` after the send."""
    rng = np.random.default_rng(len(decided))
    clicks = [
        EventInput(type="clicked", occurred_at=d.send_at + timedelta(hours=hours), decision_id=d.decision_id)
        for d in decided
        if d.send_at is not None
        and rng.random() < 0.1 + 0.6 * ((d.variant_id == "mens") == (d.snapshot.context["plan"] == "pro"))
    ]
    clock.forward(hours=hours)
    ingest(services, WORKSPACE, clicks)
    return len(clicks)


def _log(services: Services, clock: FakeClock) -> Log:
    with services.store.read() as reader:
        return load(reader, WORKSPACE, clock.now)


def test_a_young_row_has_its_outcome_so_far_and_its_share_a_yes_like_a_no(shop: Services, clock: FakeClock) -> None:
    clicks = _click(shop, clock, _ask(shop, 200, "now", immediate=True), hours=3.0)
    log = _log(shop, clock)
    data = examples(log.rows, log.campaigns, log.hazards)
    assert data.outcome["clicked"].sum() == clicks
    assert np.isfinite(data.outcome["clicked"]).all()
    # Three of six bins are full by 2 hours and the fourth, up to 6, by log 1.5 / log 3; it is not over, so the clicks
    # in it say nothing of the curve yet.
    np.testing.assert_allclose(data.share("clicked"), (3.0 + np.log(1.5) / np.log(3.0)) / 6.0)
    final = examples(log.rows, log.campaigns)
    assert np.isnan(final.outcome["clicked"]).all()


def test_opens_are_learned_from_where_only_clicks_are_asked_for(shop: Services, clock: FakeClock) -> None:
    decided = _ask(shop, 200, "now", immediate=True)
    clicks = _click(shop, clock, decided, hours=3.0)
    opens = [EventInput(type="opened", occurred_at=clock.now, decision_id=d.decision_id) for d in decided[::2]]
    ingest(shop, WORKSPACE, opens)
    log = _log(shop, clock)
    data = examples(log.rows, log.campaigns, log.hazards)
    looked, clicked = data.outcome[LOOKED], data.outcome["clicked"]
    assert (looked[clicked == 1.0] == 1.0).all()
    assert 100 < looked.sum() < 100 + clicks
    assert set(log.rows[0].outcomes) == {"clicked"}, "rewards and reports know of the campaign's outcomes alone"
    assert (data.share(LOOKED) < 1.0).all()
    final = examples(log.rows, log.campaigns)
    assert np.isnan(final.outcome[LOOKED]).all()


def test_rows_whose_send_lies_ahead_tell_nothing_even_where_something_happened(
    services: Services, clock: FakeClock
) -> None:
    """A purchase before the planned send counts for the decision, but a row that could show only that would be a yes
    by selection."""
    owner = campaign(objective={}, attribution_hours={"converted": 72.0}, allow_no_send=False)
    setup.put_campaign(services, owner)
    decided = _ask(services, 60, "later", window=(START + timedelta(hours=20), START + timedelta(hours=24)))
    clock.forward(hours=1)
    bought = EventInput(type="converted", occurred_at=clock.now, recipient_id="later-0")
    ingest(services, WORKSPACE, [bought])
    log = _log(services, clock)
    assert any(row.outcomes["converted"].happened for row in log.rows)
    assert np.isnan(examples(log.rows, log.campaigns, log.hazards).outcome["converted"]).all()
    assert told(log.rows) == 0
    clock.now = max(d.send_at for d in decided if d.send_at is not None) + timedelta(hours=1)
    log = _log(services, clock)
    assert told(log.rows) == len(decided), "a purchase tells nothing yet"
    for hours, known in ((71, 0), (72, 60)):  # purchases go on by themselves, so all of them are final at once
        clock.now = START + timedelta(hours=24 + hours)
        log = _log(services, clock)
        bought_by_now = examples(log.rows, log.campaigns, log.hazards).outcome["converted"]
        assert np.isfinite(bought_by_now).sum() == known
        assert np.nansum(bought_by_now) == min(known, 1)
    assert told(log.rows) == 3 * len(decided) + 1, "started, final, and known of the purchase; one of them bought"


def test_what_pays_by_its_value_and_came_without_one_is_worth_nothing(services: Services, clock: FakeClock) -> None:
    """As in the reward: a mean of those alone that told a value would promise more than is ever counted."""
    paying = OutcomeWeight(per_value=1.0)
    setup.put_campaign(services, campaign(objective={"converted": paying, "visited": OutcomeWeight(1.0)}))
    decided = _ask(services, 40, "now", immediate=True)
    orders = [
        EventInput(type=kind, occurred_at=clock.now, decision_id=d.decision_id, value=value)
        for kind in ("converted", "visited")
        for d, value in zip(decided, [40.0, None] * 20, strict=True)
    ]
    ingest(services, WORKSPACE, orders)
    clock.forward(hours=200)
    log = _log(services, clock)
    data = examples(log.rows, log.campaigns)
    assert sorted(data.value["converted"]) == [0.0] * 20 + [40.0] * 20
    assert np.nanmean(data.value["converted"]) == np.mean([row.reward for row in log.rows]) - 1.0
    assert np.isnan(data.value["visited"]).sum() == 20, "its value counts for nothing, so nothing is known of it"


def test_a_purchase_is_told_of_once_it_is_learned(services: Services, clock: FakeClock) -> None:
    """Not before, and not with the longest window of the campaign: else a refresh would find nothing new in it."""
    windows = {"converted": 24.0, "unsubscribed": 168.0}
    setup.put_campaign(services, campaign(objective={"converted": OutcomeWeight(1.0)}, attribution_hours=windows))
    decided = _ask(services, 30, "now", immediate=True)
    ingest(services, WORKSPACE, [EventInput(type="converted", occurred_at=clock.now, recipient_id="now-0")])
    numbers = []
    for hours in (1, 22, 2, 142, 2):
        clock.forward(hours=hours)
        numbers.append(told(_log(services, clock).rows))
    people = len(decided)
    assert numbers == [people, people, 2 * people + 1, 2 * people + 1, 3 * people + 1]


def test_at_the_end_of_the_window_the_row_is_final(shop: Services, clock: FakeClock) -> None:
    _click(shop, clock, _ask(shop, 50, "now", immediate=True), hours=3.0)
    clock.forward(hours=69)
    log = _log(shop, clock)
    young = examples(log.rows, log.campaigns, log.hazards)
    final = examples(log.rows, log.campaigns)
    assert (young.share("clicked") == 1.0).all()
    np.testing.assert_array_equal(young.outcome["clicked"], final.outcome["clicked"])


def test_events_that_are_heard_of_late_make_young_rows_say_little(shop: Services, clock: FakeClock) -> None:
    """All clicks of 300 messages come in one batch, on the fourth day: a day later rows of an hour know nothing."""
    decided = _ask(shop, 300, "old", immediate=True)
    clock.forward(hours=96)
    batch = [
        EventInput(type="clicked", occurred_at=START + timedelta(hours=1), decision_id=d.decision_id)
        for d in decided[::2]
    ]
    ingest(shop, WORKSPACE, batch)
    clock.forward(hours=96)
    log = _log(shop, clock)
    hazard = log.hazards["clicked", 72.0]
    assert hazard.pooled.events == 150
    assert float(hazard.seen(70.0, "email")) < 0.15


def test_a_refresh_follows_young_rows_within_hours_and_tells_the_delays(shop: Services, clock: FakeClock) -> None:
    _click(shop, clock, _ask(shop, 800, "first", immediate=True), hours=1.0)
    clock.forward(hours=80)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    _click(shop, clock, _ask(shop, 200, "second", immediate=True), hours=2.0)
    refreshed = refresh(shop, WORKSPACE)[0]
    assert (refreshed["decision"], refreshed["rows"]) == ("publish", 800)
    assert refresh(shop, WORKSPACE)[0]["decision"] == "unchanged"
    with shop.store.read() as reader:
        revision = reader.policy(WORKSPACE, refreshed["policy_id"])
    assert revision is not None
    delays = revision.verdict["delays"]["clicked"]
    assert delays["window_hours"] == 72.0
    seen = dict(zip(delays["hours"], delays["seen"], strict=True))
    assert seen[0.5] < 0.1 < 0.9 < seen[2.0]
