"""Consent and suppression: the channels that a recipient closed or never opened. Nothing overrides them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optimizer.bandit.stretches import Blocked
from storage.records import ANY, Recipient

#: Channels that need a recorded yes; on any other only a recorded no closes.
CONSENT_CHANNELS = frozenset({"sms", "push", "whatsapp", "voice"})


def closed(recipient: Recipient, channel: str, category: str) -> bool:
    """Whether a recipient may not be written to on this channel about this category."""
    return not agreed(recipient, channel) or any(
        one.channel in (ANY, channel) and one.category in (ANY, category) for one in recipient.suppressed
    )


def agreed(recipient: Recipient, channel: str) -> bool:
    """Whether a recipient lets this channel be used: by what they said, or because it needs no yes."""
    said = recipient.channels.get(channel)
    return channel not in CONSENT_CHANNELS if said is None else said.state


def misspelled(channel: str) -> str | None:
    """What is wrong with a channel's name such as ``SMS``; None = nothing.

    Ids tell letters apart, so under another spelling a channel would need no consent and no rule for it would bind.
    """
    plain = channel.casefold().strip()
    if plain not in CONSENT_CHANNELS or plain == channel:
        return None
    return f"Must be spelled {plain!r}: the name by which consent and rules know it."


def not_agreed(recipients: Sequence[Recipient], channels: Sequence[str]) -> Blocked | None:
    """(N, C) the channels that recipients did not agree to; None if there is none."""
    asks = [(channel, channel in CONSENT_CHANNELS) for channel in channels]
    refused = [
        [ask if (said := r.channels.get(channel)) is None else not said.state for channel, ask in asks]
        for r in recipients
    ]
    return np.array(refused) if any(True in row for row in refused) else None


def suppressed(recipients: Sequence[Recipient], channels: Sequence[str], category: str) -> Blocked | None:
    """(N, C) the channels that recipients refused for this category; None if there is none."""
    if not any(r.suppressed for r in recipients):
        return None
    found = np.zeros((len(recipients), len(channels)), np.bool_)
    for row, recipient in enumerate(recipients):
        for one in recipient.suppressed:
            if one.category in (ANY, category):
                found[row] |= [one.channel in (ANY, channel) for channel in channels]
    return found if found.any() else None
