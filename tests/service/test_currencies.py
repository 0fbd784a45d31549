"""A budget is an amount in one currency: nothing can be stored by which it would add up several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from optimizer.errors import Invalid
from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.records import Campaign, Channel, Variant
from storage.rules import MICROS, Budget, Capacity, Rule, Selector
from tests.service.asking import ask
from tests.service.conftest import WORKSPACE, FakeClock, campaign

MONEY = Rule(WORKSPACE, "money", "budget", Budget(10 * MICROS, "month"))


def paid(name: str, currency: str, **changes: Any) -> Campaign:
    """A campaign whose e-mails cost something."""
    return campaign(campaign_id=name, currency=currency, **{"channels": (Channel("email", 0.03),), **changes})


def test_a_budget_of_two_currencies_is_refused_with_a_campaign_of_each(services: Services) -> None:
    for made in (paid("euro", "EUR"), paid("more", "EUR"), paid("yen", "JPY")):
        setup.put_campaign(services, made)
    with pytest.raises(Invalid) as refused:
        setup.put_rule(services, MONEY)
    assert refused.value.errors == {
        "counts": [
            "budget 'money' counts costs in EUR (campaign 'euro') and JPY (campaign 'yen'); allowed: one currency"
        ]
    }
    one = Selector(campaigns=("euro", "more"))
    setup.put_rule(services, replace(MONEY, counts=one))
    with pytest.raises(Invalid):
        setup.put_rule(services, replace(MONEY, dry_run=True))
    setup.put_rule(services, replace(MONEY, enabled=False))
    setup.put_rule(services, Rule(WORKSPACE, "places", "capacity", Capacity(9, 60)))
    setup.archive_campaign(services, WORKSPACE, "yen")
    setup.put_rule(services, MONEY)


def test_a_campaign_that_would_spend_another_currency_of_a_budget_is_refused(services: Services) -> None:
    setup.put_rule(services, MONEY)
    setup.put_campaign(services, paid("euro", "EUR"))
    with pytest.raises(Invalid) as refused:
        setup.put_campaign(services, paid("yen", "JPY"))
    assert refused.value.errors == {
        "currency": [
            "JPY: budget 'money' counts its costs, too, and others in EUR (campaign 'euro'); "
            "allowed: EUR, or a budget that doesn't count both"
        ]
    }
    setup.put_campaign(services, paid("yen", "JPY", status="archived"))
    setup.put_campaign(services, paid("yen", "JPY", channels=(Channel("email"),)))
    with pytest.raises(Invalid):
        setup.put_campaign(
            services, paid("yen", "JPY", channels=(Channel("email"),), variants=(Variant("a", cost=4.0),))
        )
    setup.put_campaign(services, paid("euro", "JPY"))  # alone, it may change
    setup.put_campaign(services, paid("yen", "JPY"))


def test_a_campaign_that_has_decisions_keeps_its_currency(services: Services) -> None:
    setup.put_campaign(services, paid("euro", "EUR"))
    setup.put_campaign(services, paid("euro", "JPY"))
    setup.put_campaign(services, paid("euro", "EUR"))
    ask(services, campaign="euro")
    with pytest.raises(Invalid) as refused:
        setup.put_campaign(services, paid("euro", "JPY"))
    assert refused.value.errors == {
        "currency": [
            "JPY: the campaign has decisions, whose costs and values are in EUR; allowed: EUR, or another campaign"
        ]
    }
    setup.put_campaign(services, paid("euro", "EUR", priority=9))
    setup.put_campaign(services, paid("more", "JPY"))


def test_what_an_archived_campaign_spent_counts_to_the_end_of_the_period(services: Services, clock: FakeClock) -> None:
    setup.put_rule(services, MONEY)
    setup.put_campaign(services, paid("euro", "EUR"))
    ask(services, campaign="euro")
    setup.archive_campaign(services, WORKSPACE, "euro")
    with pytest.raises(Invalid, match="others in EUR \\(campaign 'euro'\\)"):
        setup.put_campaign(services, paid("yen", "JPY"))
    clock.forward(days=30)
    setup.put_campaign(services, paid("yen", "JPY"))


@pytest.mark.parametrize(
    "rule",
    [
        replace(MONEY, enabled=False),
        replace(MONEY, archived=True),
        replace(MONEY, counts=Selector(channels=("sms",))),
        replace(MONEY, counts=Selector(categories=("transactional",))),
        Rule(WORKSPACE, "places", "capacity", Capacity(9, 60)),
    ],
)
def test_campaigns_of_many_currencies_are_free_where_no_budget_counts_them(services: Services, rule: Rule) -> None:
    setup.put_rule(services, rule)
    for name in ("EUR", "JPY"):
        assert setup.put_campaign(services, paid(name.lower(), name))[1]


def test_what_was_stored_before_it_was_refused_can_still_be_changed(services: Services) -> None:
    for made in (paid("euro", "EUR"), paid("yen", "JPY")):
        setup.put_campaign(services, made)
    services.store.write(lambda writer: writer.put_rule(MONEY))
    assert setup.put_campaign(services, paid("yen", "JPY", priority=9))[0].priority == 9
    with pytest.raises(Invalid):
        setup.put_campaign(services, paid("yen", "USD"))
    assert setup.put_campaign(services, paid("yen", "EUR"))[0].currency == "EUR"
