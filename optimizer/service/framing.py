"""What frames a choice: the clock it is made on, the variants and channels that a request leaves open, what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

from optimizer.bandit.localtime import Zone, zone
from optimizer.errors import Invalid
from storage.records import Campaign, Recipient

ZoneSource = Literal["recipient", "campaign", "default"]


def resolve_zone(recipient: Recipient, campaign: Campaign) -> tuple[Zone, ZoneSource]:
    """The recipient's zone, else the campaign's, else UTC, and which of them it is.

    Raises:
        Invalid: code ``unknown_zone``, one that another host stored and this one's time zone database lacks.
    """
    if recipient.timezone is not None:
        return _zone_or_refusal("recipient.timezone", recipient.timezone), "recipient"
    if campaign.timezone is not None:
        return _zone_or_refusal("campaign.timezone", campaign.timezone), "campaign"
    return zone("UTC"), "default"


def _zone_or_refusal(field: str, name: str) -> Zone:
    try:
        return zone(name)
    except ValueError as error:
        raise Invalid.field(field, str(error), code="unknown_zone") from error


def factors(
    campaign: Campaign, variants: Sequence[str] | None, channels: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The variants and channels of a request's action space, in the campaign's order."""
    active = tuple([v.id for v in campaign.active_variants])
    all_channels = tuple([c.id for c in campaign.channels])
    if not active:
        raise Invalid.field(
            "campaign_id", f"campaign {campaign.campaign_id!r} has no active variant", code="no_variant"
        )
    return _restricted("variants", active, variants), _restricted("channels", all_channels, channels)


def _restricted(name: str, own: tuple[str, ...], wanted: Sequence[str] | None) -> tuple[str, ...]:
    if wanted is None:
        return own
    for i, one in enumerate(wanted):
        if one not in own:
            raise Invalid.field(f"{name}.{i}", f"{one!r} is not one of the campaign's active {name}: {', '.join(own)}")
    chosen = set(wanted)
    return tuple(one for one in own if one in chosen)


def seen_context(recipient: Recipient, context: Mapping[str, Any], hidden: Set[str]) -> dict[str, Any]:
    """What the model sees: the recipient's attributes overlaid with the request's context, less what is hidden.

    Null says that nothing is known, and isn't kept; in a request it takes the place of what is known otherwise.
    """
    merged = {**recipient.attributes, **context}
    if not hidden and None not in merged.values():
        return merged
    return {name: value for name, value in merged.items() if value is not None and name not in hidden}
