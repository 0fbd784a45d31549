"""A recipient's past as a decision's context holds it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from optimizer.model.history import HISTORY, LENGTH, History, Past, subject_of
from storage.log import Happening
from storage.records import JsonObject

_MINUTE = timedelta(minutes=1)


def with_past(context: JsonObject, past: Sequence[Happening], now: datetime) -> dict[str, Any]:
    """A context with the recipient's last events, all before ``now`` and oldest first; nothing is added where there are
    none. The entry is reserved: what a caller says there is not believed."""
    told = dict(context)
    told.pop(HISTORY, None)
    if past:
        told[HISTORY] = as_told(past, now)
    return told


def as_told(past: Sequence[Happening], now: datetime) -> JsonObject:
    """A recipient's last events, all before ``now`` and oldest first, as a context holds them."""
    return History(tuple(_past(one, now) for one in past[-LENGTH:])).to_json()


def _past(one: Happening, now: datetime) -> Past:
    named = one.campaign_id is not None and one.variant_id is not None
    return Past(
        minutes=(now - one.at) // _MINUTE,
        kind=one.kind,
        subject=subject_of(one.properties),
        channel=one.channel or "",
        variant=f"{one.campaign_id}/{one.variant_id}" if named else "",
    )
