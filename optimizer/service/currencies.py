"""One currency a budget: amounts in several can't be added up.

A budget counts the costs of messages, each in its campaign's currency. So of the campaigns whose messages it counts
(active, or archived in its present period), those that cost something must agree in it: a rule and a campaign that
would break that are refused. So is another currency for a campaign that has decisions.
"""

from __future__ import annotations

from datetime import datetime

from optimizer.errors import Invalid
from optimizer.service.feedback import all_campaigns
from storage.port import Reader
from storage.records import Campaign
from storage.rules import Budget, Rule
from storage.usage import period_of


def require_one_currency(reader: Reader, rule: Rule) -> None:
    """Refuses a rule that would add up several currencies; one that is no budget or is turned off never does.

    Raises:
        Invalid: ``counts``, with a campaign of each currency.
    """
    if not _adds_up(rule):
        return
    paid = _paid(reader, rule, rule.updated_at)
    if len(paid) > 1:
        told = " and ".join(f"{currency} (campaign {name!r})" for currency, name in sorted(paid.items()))
        raise Invalid.field("counts", f"budget {rule.rule_id!r} counts costs in {told}; allowed: one currency")


def require_same_currency(reader: Reader, campaign: Campaign, stored: Campaign | None) -> None:
    """Refuses a campaign in another currency than its log is in, and one whose costs a budget would add to those of
    others in another currency, unless it does already.

    Args:
        reader: the store.
        campaign: as it is to be stored.
        stored: as it is stored (None = not yet).

    Raises:
        Invalid: ``currency``, with the one of the log, or the budget and the currencies that it counts.
    """
    _require_currency_of_log(reader, campaign, stored)
    for rule in reader.rules(campaign.workspace_id):
        if not _adds_up(rule) or not _costs(reader, rule, campaign, campaign.updated_at):
            continue
        if (
            stored is not None
            and _costs(reader, rule, stored, campaign.updated_at)
            and stored.currency == campaign.currency
        ):
            continue
        others = _paid(reader, rule, campaign.updated_at, but=campaign.campaign_id)
        if others.keys() - {campaign.currency}:
            told = " and ".join(f"{currency} (campaign {name!r})" for currency, name in sorted(others.items()))
            raise Invalid.field(
                "currency",
                f"{campaign.currency}: budget {rule.rule_id!r} counts its costs, too, and others in {told}; "
                f"allowed: {', '.join(sorted(others))}, or a budget that doesn't count both",
            )


def _require_currency_of_log(reader: Reader, campaign: Campaign, stored: Campaign | None) -> None:
    """Costs and values hang on decisions, and reports and budgets add them up over all versions of the campaign."""
    if stored is None or stored.currency == campaign.currency:
        return
    if reader.has_decisions(campaign.workspace_id, campaign.campaign_id, 1):
        raise Invalid.field(
            "currency",
            f"{campaign.currency}: the campaign has decisions, whose costs and values are in {stored.currency}; "
            f"allowed: {stored.currency}, or another campaign",
        )


def _adds_up(rule: Rule) -> bool:
    return isinstance(rule.parameters, Budget) and rule.enabled and not rule.archived


def _paid(reader: Reader, rule: Rule, now: datetime | None, but: str | None = None) -> dict[str, str]:
    """The currencies that a budget counts, each with one of its campaigns; ``but`` is left out."""
    found: dict[str, str] = {}
    for campaign in all_campaigns(reader, rule.workspace_id):
        if campaign.campaign_id != but and _costs(reader, rule, campaign, now):
            found.setdefault(campaign.currency, campaign.campaign_id)
    return found


def _costs(reader: Reader, rule: Rule, campaign: Campaign, now: datetime | None) -> bool:
    """Whether a budget counts messages of a campaign that cost something: of an archived one those of its last days."""
    if campaign.status != "active" and not _spent_lately(reader, rule, campaign, now):
        return False
    variants = any(variant.cost > 0 for variant in campaign.variants if variant.status != "archived")
    counted = [
        channel
        for channel in campaign.channels
        if rule.counts.admits(channel=channel.id, category=campaign.category, campaign_id=campaign.campaign_id)
    ]
    return any(variants or channel.cost > 0 for channel in counted)


def _spent_lately(reader: Reader, rule: Rule, campaign: Campaign, now: datetime | None) -> bool:
    """Whether a campaign was archived in the budget's present period, to which it may have given messages."""
    budget = rule.parameters
    if now is None or not isinstance(budget, Budget):
        return False
    lately = period_of(budget, campaign.updated_at) == period_of(budget, now)
    return lately and reader.has_decisions(campaign.workspace_id, campaign.campaign_id, 1)
