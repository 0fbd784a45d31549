"""Answers a rank request: which action for each slot, with exact probabilities, logged before it is told."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from optimizer.bandit.exploration import draw_uniform, sample
from optimizer.errors import Invalid
from optimizer.model.adf import Action
from optimizer.service.ids import derived
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.choosing import distribution
from optimizer.service.personalizer.filling import Filling
from optimizer.service.personalizer.loop import Loop
from optimizer.service.personalizer.serving import Served
from optimizer.service.wiring import Services
from storage.port import Writer
from storage.ranks import Rank, RankedAction, SlotChoice


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to fill: its features, what may not stand there, what would stand there without the loop."""

    id: str
    excluded: frozenset[str] = frozenset()
    features: tuple[Any, ...] = ()
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class RankRequest:
    """A checked request. ``slots`` has one, named "", unless it is a multi-slot one."""

    actions: tuple[Action, ...]
    slots: tuple[Slot, ...]
    context: tuple[Any, ...] = ()
    event_id: str | None = None
    deferred: bool = False
    multi_slot: bool = False
    fingerprint: bytes = b""


def rank(services: Services, workspace_id: str, request: RankRequest) -> Rank:
    """The answer to a request; the same event id with the same request has the same answer.

    Raises:
        Invalid: the event id was used with another request.
        StoreUnavailable: nothing was logged.
    """
    event_id = request.event_id if request.event_id is not None else secrets.token_hex(16)
    with services.store.read() as reader:
        loop = loops.load(reader, workspace_id)
        served = services.loops.current(reader, workspace_id)
    made = _choose(services, workspace_id, event_id, request, loop, served)

    def work(writer: Writer) -> Rank:
        known = writer.rank(workspace_id, event_id) if request.event_id is not None else None
        if known is None:
            writer.add_rank(made)
            return made
        if known.request_hash != made.request_hash:
            raise Invalid.field("eventId", f"{event_id!r:.80} was used with another request", code="InvalidRankRequest")
        return known

    return services.store.write(work)


def _choose(
    services: Services, workspace_id: str, event_id: str, request: RankRequest, loop: Loop, served: Served
) -> Rank:
    now = services.clock()
    seed = derived("rank", services.salt, workspace_id, event_id)
    filling = _filling(request)
    slots: list[SlotChoice] = []
    for number, slot in enumerate(request.slots):
        u = draw_uniform(services.salt, seed, number)
        slots.append(_fill(request, slot, filling.open_places(number), loop, served, u))
        filling.take(number, slots[-1].chosen)
    return Rank(
        workspace_id=workspace_id,
        event_id=event_id,
        ranked_at=now,
        request_hash=blake2b(request.fingerprint, digest_size=16).digest(),
        mode=loop.mode,
        model=served.generation,
        actions=tuple(RankedAction(action.id, tuple(action.features)) for action in request.actions),
        slots=tuple(slots),
        context=request.context,
        multi_slot=request.multi_slot,
        active_at=None if request.deferred else now,
    )


def _filling(request: RankRequest) -> Filling:
    ids = [action.id for action in request.actions]
    allowed = [frozenset(n for n, name in enumerate(ids) if name not in slot.excluded) for slot in request.slots]
    start = [
        min(open_) if slot.baseline is None else ids.index(slot.baseline)
        for slot, open_ in zip(request.slots, allowed, strict=True)
    ]
    return Filling(allowed, start)


def _fill(request: RankRequest, slot: Slot, eligible: list[int], loop: Loop, served: Served, u: float) -> SlotChoice:
    mask = np.zeros(len(request.actions), np.bool_)
    mask[eligible] = True
    ids = [action.id for action in request.actions]
    baseline = ids.index(slot.baseline) if slot.baseline is not None else eligible[0]
    context = slot_context(request.context, slot.id, slot.features)
    asked = (loop.settings, loop.exploration, context, request.actions, mask)
    p = distribution(served.model, *asked, linear=loop.explain or loop.mode != "Online")
    drawn = sample(p, u)
    if loop.mode == "Online":
        return SlotChoice(slot.id, tuple(eligible), tuple(p[eligible].tolist()), drawn, baseline, slot.features)
    shown = baseline if mask[baseline] else eligible[0]
    certain = tuple(1.0 if place == shown else 0.0 for place in eligible)
    # An apprentice shows what would be shown without it, and notes what it would have done.
    return SlotChoice(slot.id, tuple(eligible), certain, shown, shown, slot.features, shadow=drawn)


def slot_context(context: Sequence[Any], slot_id: str, features: Sequence[Any]) -> tuple[Any, ...]:
    """What is known when a slot is filled: the request's context, and which slot it is."""
    if not slot_id:
        return tuple(context)
    return (*context, {"@slot": {"id": slot_id}}, *({"@slot": one} for one in features))
