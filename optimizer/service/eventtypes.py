"""Types of events that are nearly a built-in one. Any name is a type, so one that is misspelled would be stored and
mean nothing: an ``unsubscribe`` would silence nobody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from optimizer.bandit.rewards import MESSAGE_OUTCOMES
from optimizer.errors import Invalid
from optimizer.service.optout import RESUBSCRIBED
from optimizer.service.requests import EventInput, RejectedEvent
from optimizer.service.wiring import Services

BUILT_IN: Final = MESSAGE_OUTCOMES | {"converted", RESUBSCRIBED}
#: What other systems call them.
_VERBS: Final = {
    "unsubscribe": "unsubscribed",
    "resubscribe": RESUBSCRIBED,
    "bounce": "bounced",
    "complaint": "complained",
    "complain": "complained",
    "click": "clicked",
    "open": "opened",
    "deliver": "delivered",
    "convert": "converted",
    "fail": "failed",
}
_MEANT: Final = {**{name: name for name in BUILT_IN}, **_VERBS}


def doubtful(types: Iterable[str]) -> dict[str, str]:
    """Those that are spelled nearly as a built-in one, each with the one that it seems to mean."""
    meant = {one: _MEANT.get(one.strip().casefold()) for one in set(types) - BUILT_IN}
    return {one: name for one, name in meant.items() if name is not None}


def well_spelled(
    services: Services,
    workspace_id: str,
    inputs: Sequence[EventInput | RejectedEvent],
    of: Collection[str] = BUILT_IN,
) -> list[EventInput | RejectedEvent]:
    """The events, those refused that are spelled nearly as one ``of`` these, unless a campaign speaks of it: then the
    name is the caller's."""
    found = doubtful(one.type for one in inputs if isinstance(one, EventInput))
    wrong = {one: meant for one, meant in found.items() if meant in of}
    if wrong:
        with services.store.read() as reader:
            spoken = services.catalog.view(reader, workspace_id).spoken(reader).types
        wrong = {one: meant for one, meant in wrong.items() if one not in spoken}
    if not wrong:
        return list(inputs)
    return [
        RejectedEvent.of(index, _misspelled(one.type, wrong[one.type]))
        if isinstance(one, EventInput) and one.type in wrong
        else one
        for index, one in enumerate(inputs)
    ]


def _misspelled(type: str, meant: str) -> Invalid:
    told = f"{type!r} must be spelled {meant!r}, or be mapped by a campaign (event_mapping)"
    return Invalid.field("type", told, code="misspelled")
