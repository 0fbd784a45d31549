"""Messages of other systems, as they are stored: what one costs, and whether one that is told again is the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from optimizer.bandit.capacity import micros
from optimizer.errors import Conflict
from storage.log import Message
from storage.port import Reader

_EVER = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
#: What is told of another system's message, by the name that it has in a request.
_TOLD = {
    "sent_at": "at",
    "channel": "channel",
    "category": "category",
    "campaign_id": "campaign_id",
    "variant_id": "variant_id",
}


def cost_to_count(reader: Reader, message: Message) -> int:
    """What another system's message cost, in micros, as far as its campaign knows the variant and the channel now."""
    campaign = None if message.campaign_id is None else reader.campaign(message.workspace_id, message.campaign_id)
    return 0 if campaign is None else micros(campaign, message.variant_id or "", message.channel)


def require_same(reader: Reader, message: Message) -> None:
    """Refuses what is told otherwise the second time. An id that is a decision's means that decision's message, which
    is sent a little later than planned. What a message costs isn't told: it may have another price by now."""
    held = reader.messages(message.workspace_id, [message.recipient_id], *_EVER).get(message.recipient_id, ())
    known = next((one for one in held if one.message_ref == message.message_ref and one.decision_id is None), None)
    if known is None or known == replace(message, cost=known.cost):
        return
    pairs = {name: (getattr(message, field), getattr(known, field)) for name, field in _TOLD.items()}
    errors = {name: [f"{shown(new)}; stored: {shown(old)}"] for name, (new, old) in pairs.items() if new != old}
    raise Conflict(
        f"id: {message.message_ref!r:.80} was used for another message of this recipient, with another "
        f"{', '.join(errors)}; the same id again must be the same message",
        code="id_reused",
        errors=errors,
    )


def shown(value: datetime | str | None) -> str:
    """What was told, as an error says it."""
    return value.isoformat() if isinstance(value, datetime) else "none" if value is None else repr(value)
