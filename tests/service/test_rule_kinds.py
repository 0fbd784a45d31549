"""Every kind of rule, from the request to the record, on a real store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from optimizer.model.inference import RewardModel
from optimizer.model.training.train import train
from optimizer.service import setup
from optimizer.service.ingest import ingest
from optimizer.service.publish import artifact_of, publish
from optimizer.service.record import cost_of
from optimizer.service.replay import Replayer, eligible_logged
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.settle import confirm, release
from optimizer.service.wiring import Services
from storage.log import Decision, Reason
from storage.policies import Component, Policy
from storage.records import Baseline, Campaign, Channel, GroupShares, Recipient, Variant
from storage.rules import (
    MICROS,
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    RiskLimit,
    Selector,
    WarmUpStep,
)
from tests.model import conftest as made
from tests.service.asking import ask, ask_all, put_rule
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

EMAIL = (Channel("email"),)


@pytest.fixture
def shop(services: Services) -> Services:
    """A campaign that must send, by e-mail, at any hour of the next 24."""
    setup.put_campaign(services, campaign(channels=EMAIL, allow_no_send=False))
    return services


def kinds(decision: Decision) -> set[str]:
    return {reason.kind for reason in decision.reasons}


def used(services: Services, rule_id: str, first: int, last: int) -> dict[tuple[str, int], int]:
    with services.store.read() as reader:
        return reader.usage(WORKSPACE, [(rule_id, first, last)])


def test_quiet_hours_close_the_recipients_night(shop: Services) -> None:
    put_rule(shop, "night", "quiet_hours", QuietHours("21:00", "08:00"))
    setup.put_recipient(shop, Recipient(WORKSPACE, "u1", timezone="Asia/Tokyo"))
    hours = {d.send_at.hour for _ in range(40) if (d := ask(shop, preview=True)).send_at is not None}
    assert hours
    assert all(8 <= (hour + 9) % 24 < 21 for hour in hours)


def test_a_blackout_closes_dates_and_the_holidays_of_the_recipients_country(shop: Services, clock: FakeClock) -> None:
    put_rule(shop, "off", "blackout", Blackout(("2026-12-24",), country_holidays=True, default_country="us"))
    setup.put_recipient(shop, Recipient(WORKSPACE, "german", attributes={"country": "de"}))
    window = (datetime(2026, 12, 24, tzinfo=UTC), datetime(2026, 12, 28, tzinfo=UTC))
    open_days = {
        name: {d.send_at.day for _ in range(60) if (d := ask(shop, name, window=window, preview=True)).send_at}
        for name in ("german", "somebody")
    }
    assert open_days == {"german": {27}, "somebody": {26, 27}}
    closed = ask(shop, "german", window=(window[0], window[0] + timedelta(hours=6)))
    assert (closed.status, kinds(closed)) == ("withheld", {"blackout"})
    assert closed.reasons[0].next_eligible_at == datetime(2026, 12, 27, tzinfo=UTC)


def test_an_unknown_country_has_no_holidays(shop: Services) -> None:
    put_rule(shop, "off", "blackout", Blackout(country_holidays=True))
    christmas = (datetime(2026, 12, 25, tzinfo=UTC), datetime(2026, 12, 26, tzinfo=UTC))
    for country in ("ZZ", "DEU", 7, ""):
        setup.put_recipient(shop, Recipient(WORKSPACE, f"of {country}", attributes={"country": country}))
        assert ask(shop, f"of {country}", window=christmas).status == "reserved"


def test_a_capacity_is_shared_by_all_recipients_and_its_places_are_freed_by_a_release(shop: Services) -> None:
    put_rule(shop, "rate", "capacity", Capacity(2, per_minutes=60))
    hour = (START, START + timedelta(hours=1))
    got = [ask(shop, f"u{i}", window=hour) for i in range(3)]
    assert [d.status for d in got] == ["reserved", "reserved", "withheld"]
    assert got[2].reasons[0].next_eligible_at == hour[1]
    release(shop, WORKSPACE, got[0].decision_id, "sender is down")
    assert [ask(shop, f"v{i}", window=hour).status for i in range(2)] == ["reserved", "withheld"]


def test_a_warm_up_grows_the_capacity_day_by_day(shop: Services) -> None:
    steps = (WarmUpStep(1, 1), WarmUpStep(2, 2))
    put_rule(shop, "warm", "capacity", Capacity(9, per_minutes=1440, warm_up=steps, starts_on="2026-03-03"))
    tomorrow = datetime(2026, 3, 3, tzinfo=UTC)
    for days, limit in ((0, 1), (1, 2), (2, 9)):
        window = (tomorrow + timedelta(days=days), tomorrow + timedelta(days=days + 1))
        got = [ask(shop, f"u{days}-{i}", window=window).status for i in range(10)]
        assert got.count("reserved") == limit


def test_a_budget_closes_what_is_too_dear_and_lets_the_free_through(services: Services) -> None:
    channels = (Channel("email"), Channel("letter", cost=0.6))
    variants = (Variant("plain"), Variant("gift", cost=0.5))
    setup.put_campaign(services, campaign(variants=variants, channels=channels, allow_no_send=False))
    put_rule(services, "money", "budget", Budget(MICROS, per="month"))
    gift = ask(services, "u1", variants=("gift",), channels=("letter",))
    assert (gift.status, kinds(gift)) == ("withheld", {"budget"})
    letter = ask(services, "u2", variants=("plain",), channels=("letter",))
    assert (letter.status, letter.snapshot.cost) == ("reserved", 600_000)
    assert ask(services, "u3", channels=("letter",)).status == "withheld"
    free = ask(services, "u4")
    assert (free.variant_id, free.channel, free.snapshot.cost) in {("plain", "email", 0)}
    month = (2026 - 1970) * 12 + 2
    assert used(services, "money", month, month) == {("money", month): 600_000}


def test_rows_of_a_batch_see_what_earlier_ones_took_of_shared_limits(services: Services) -> None:
    setup.put_campaign(services, campaign(channels=(Channel("letter", cost=0.25),), allow_no_send=False))
    put_rule(services, "money", "budget", Budget(MICROS, per="month"))
    put_rule(services, "rate", "capacity", Capacity(1, per_minutes=720))
    now = (START, START + timedelta(hours=2))
    days = [(now[0] + timedelta(days=i), now[1] + timedelta(days=i)) for i in range(6)]
    rows = [DecisionRequest("spring", f"u{i}-{j}", window=day) for i, day in enumerate(days) for j in range(2)]
    got = ask_all(services, rows)
    assert [d.status for d in got] == ["reserved", "withheld"] * 4 + ["withheld"] * 4
    assert kinds(got[1]) == {"capacity"}
    assert kinds(got[-1]) == {"budget"}


def test_a_dry_run_masks_nothing_and_says_what_it_would_have(shop: Services) -> None:
    put_rule(shop, "maybe", "capacity", Capacity(0, per_minutes=60), dry_run=True)
    decision = ask(shop)
    assert decision.status == "reserved"
    assert decision.eligible_actions == decision.actions
    reason = decision.reasons[0]
    assert (reason.dry_run, reason.masked, reason.note) == (True, decision.actions, "limit 0: never")


def test_an_adaptive_cap_tightens_with_silence_and_loosens_with_an_answer(shop: Services, clock: FakeClock) -> None:
    put_rule(shop, "shy", "cap", Cap(5, calendar="day", adapt=Adapt(after_unengaged=2, limit=0)))
    sent: list[Decision] = []
    for _ in range(2):
        decision = ask(shop, immediate=True)
        assert decision.snapshot.unanswered == len(sent)
        sent.append(confirm(shop, WORKSPACE, decision.decision_id, clock.now, None, None))
        clock.forward(days=1)
    silent = ask(shop)
    assert (silent.status, silent.snapshot.unanswered, kinds(silent)) == ("withheld", 2, {"cap"})
    answer = EventInput(type="clicked", occurred_at=clock.now, decision_id=sent[0].decision_id)
    ingest(shop, WORKSPACE, [answer])
    again = ask(shop)
    assert (again.status, again.snapshot.unanswered) == ("reserved", 0)


def test_without_an_adaptive_cap_no_count_is_stored(shop: Services) -> None:
    put_rule(shop, "cap", "cap", Cap(5, calendar="day"))
    assert ask(shop).snapshot.unanswered is None


def test_a_withheld_decision_carries_every_reason_also_while_paused(services: Services) -> None:
    channels = (Channel("email", cost=1.0), Channel("sms"))
    setup.put_campaign(services, campaign(channels=channels, allow_no_send=False))
    put_rule(services, "cap", "cap", Cap(0, calendar="day"))
    put_rule(services, "gap", "gap", Cap(1, rolling_hours=4.0))
    put_rule(services, "off", "blackout", Blackout(("2026-03-02", "2026-03-03")))
    put_rule(services, "rate", "capacity", Capacity(0, per_minutes=60))
    put_rule(services, "money", "budget", Budget(0, per="day"))
    expected = {"consent", "quiet_hours", "cap", "blackout", "capacity", "budget"}
    assert kinds(ask(services)) == expected
    setup.set_mode(services, WORKSPACE, "paused")
    assert kinds(ask(services)) == {"paused"} | expected


def test_overriding_ignores_every_kind_and_is_logged(services: Services) -> None:
    variants = (Variant("plain"), Variant("next", requires=()))
    setup.put_campaign(services, campaign(variants=variants, channels=(Channel("email", cost=1.0),)))
    put_rule(services, "cap", "cap", Cap(0, calendar="day"))
    put_rule(services, "calm", "fatigue", Fatigue("unsubscribed", 0.0))
    put_rule(services, "maybe", "cap", Cap(0, calendar="day"), dry_run=True)
    put_rule(services, "money", "budget", Budget(0, per="day"))
    put_rule(services, "off", "blackout", Blackout(("2026-03-02", "2026-03-03")))
    put_rule(services, "rate", "capacity", Capacity(0, per_minutes=60))
    decision = ask(services, override_rules=True)
    assert decision.eligible_actions == decision.actions
    assert decision.snapshot.overridden_rules == ("calm", "cap", "money", "off", "rate")
    assert decision.snapshot.limits == ()
    assert ask(services).status == "withheld"


def test_a_preview_takes_nothing_of_shared_limits(shop: Services) -> None:
    put_rule(shop, "rate", "capacity", Capacity(1, per_minutes=1440))
    today = (START, START + timedelta(hours=2))
    assert [ask(shop, f"u{i}", window=today, preview=True).status for i in range(3)] == ["reserved"] * 3
    assert ask(shop, "u9", window=today).status == "reserved"
    assert ask(shop, "u8", window=today, preview=True).status == "withheld"


def test_holdout_and_baseline_heed_shared_limits_as_they_heed_the_others(services: Services) -> None:
    shares = {"groups": GroupShares(baseline=1.0), "baseline": Baseline("mens", "email", "15:00")}
    setup.put_campaign(services, campaign(**shares))
    put_rule(services, "rate", "capacity", Capacity(1, per_minutes=60))
    sent = [ask(services, f"u{i}").send_at for i in range(2)]
    assert sent == [START.replace(hour=15), START.replace(hour=16)]  # the second moved to the next hour's capacity
    setup.put_campaign(services, campaign(groups=GroupShares(holdout=1.0)))
    assert ask(services, "u3").status == "no_send"


def test_an_imported_message_costs_what_its_campaign_says() -> None:
    dear = campaign(variants=(Variant("gift", cost=0.1),), channels=(Channel("sms", cost=0.03),))
    assert cost_of(dear, "gift", "sms") == 130_000
    assert cost_of(dear, None, None) == 0


@pytest.fixture(scope="module")
def blob() -> bytes:
    """A model that predicts clicks by person, variant and hour."""
    return train(made.made_up(1_500, 4), attributes=(), seed=4, network=False).blob


def learned(services: Services, blob: bytes, **changes: object) -> Campaign:
    """A campaign that serves a learned policy."""
    served = setup.put_campaign(
        services, campaign(variants=made.campaign().variants, channels=(Channel("email"), Channel("web")), **changes)
    )[0]
    artifact = artifact_of(WORKSPACE, blob, RewardModel.load(blob).feature_hash, START)
    policy = Policy(WORKSPACE, "pol_1", "spring", START, (Component(1.0, artifact.artifact_id),))
    publish(services, [artifact], policy, None, START)
    services.policies.refresh_now()
    return served


@pytest.mark.parametrize("group", ["treated", "random"])
def test_a_fatigue_rule_says_what_it_masks_or_would(services: Services, blob: bytes, group: str) -> None:
    learned(services, blob, groups=GroupShares(random=float(group == "random")))
    person = made.contexts(np.random.default_rng(3), 1)[0]
    free = ask(services, "u0", context=person)
    put_rule(services, "calm", "fatigue", Fatigue("clicked", 1e-6), dry_run=True)
    tried = ask(services, "u1", context=person)
    mail = Selector(channels=("email",))
    put_rule(services, "mail", "fatigue", Fatigue("clicked", 1e-6), applies_to=mail)
    half = ask(services, "u2", context=person)
    put_rule(services, "calm", "fatigue", Fatigue("clicked", 1e-6))
    closed = ask(services, "u3", context=person)
    messages = free.actions - 1
    assert free.reasons == ()
    assert tried.reasons == (Reason("calm", "fatigue", messages, dry_run=True),)
    assert half.reasons == (
        Reason("mail", "fatigue", messages // 2),
        Reason("calm", "fatigue", messages, dry_run=True),
    )
    assert closed.reasons == (Reason("calm", "fatigue", messages), Reason("mail", "fatigue", messages // 2))
    assert (closed.status, closed.eligible_actions) == ("no_send", closed.actions), "not of the eligible set"
    assert tried.snapshot.limits == ()
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        for decision in (free, tried, half, closed):
            assert replayer.vector(decision)[decision.action or 0] == pytest.approx(decision.propensity, abs=1e-12)
            assert replayer.draw(decision) == decision.action


@pytest.mark.parametrize("group", ["treated", "random"])
def test_fatigue_masks_by_predicted_risk_and_replays(services: Services, blob: bytes, group: str) -> None:
    learned(services, blob, groups=GroupShares(random=float(group == "random")))
    person = made.contexts(np.random.default_rng(3), 1)[0]
    put_rule(services, "calm", "fatigue", Fatigue("clicked", 1.0))
    unbound = [ask(services, f"u{i}", context=person) for i in range(60)]
    risks = sorted(d.snapshot.risks["clicked"][0] or 0.0 for d in unbound if d.send_at is not None)
    limit = risks[len(risks) // 4]
    put_rule(services, "calm", "fatigue", Fatigue("clicked", limit), applies_to=Selector(channels=("email",)))
    bound = [ask(services, f"v{i}", context=person) for i in range(60)]
    mails = [d for d in bound if d.channel == "email"]
    assert mails
    assert all(d.snapshot.risks["clicked"][0] <= limit for d in mails)  # type: ignore[operator]
    assert any((d.snapshot.risks["clicked"][0] or 0.0) > limit for d in bound if d.channel == "web")
    assert bound[0].snapshot.limits == (RiskLimit("calm", "clicked", limit, ("email",)),)
    assert all(d.eligible_actions == d.actions for d in bound)  # a rule of the policy, not of the eligible set
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        for decision in (*unbound, *bound):
            assert decision.action is not None
            vector = replayer.vector(decision)
            assert vector[decision.action] == pytest.approx(decision.propensity, abs=1e-12)
            assert replayer.draw(decision) == decision.action
            assert not vector[~eligible_logged(decision)].any()


def test_holiday_dates_are_those_of_the_local_calendar(shop: Services) -> None:
    put_rule(shop, "off", "blackout", Blackout(country_holidays=True, default_country="NZ"))
    setup.put_recipient(shop, Recipient(WORKSPACE, "u1", timezone="Pacific/Auckland"))
    # New Year's Day in Auckland starts at 11:00 UTC the day before, and the next day is a holiday there too.
    start = datetime(2026, 12, 31, tzinfo=UTC)
    hours = sorted(
        (d.send_at - start) // timedelta(hours=1)
        for _ in range(80)
        if (d := ask(shop, window=(start, start + timedelta(hours=72)), preview=True)).send_at is not None
    )
    assert {h for h in hours if h < 11}
    assert not [h for h in hours if 11 <= h < 59]
