"""What comes of a decision: events drawn from the world's chances with the luck of its place in the stream."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from optimizer.bandit.rewards import clock_start
from simulations.game import Game, Turn
from simulations.scenarios import CAMPAIGN, WORKSPACE
from simulations.world.chances import Chances
from simulations.world.timing import hours_until
from storage.log import Decision, Event

#: A machine opens a mail within this many minutes.
_SCAN_MINUTES = 2.0


def happen(game: Game, turn: Turn, decision: Decision, chances: Chances) -> list[Event]:
    """The events of a decision in order of time, automated opens among them; ``chances`` are the turn's exact ones.

    A click needs a look, a purchase a click or no message at all; an unsubscribe needs a message.
    """
    u, z = (column[turn.arrival.index] for column in game.luck)
    at = turn.space.factors(decision.action or 0)
    happened: list[tuple[str, int]] = []
    if at is None:
        if u[4] < chances.organic:
            happened.append(("converted", 4))
    else:
        opened, clicked = float(chances.opened[at]), float(chances.clicked[at])
        looked = bool(u[0] < opened)
        liked = looked and bool(u[1] < clicked / opened)
        if looked:
            happened.append(("opened", 0))
        if liked:
            happened.append(("clicked", 1))
        if (liked and bool(u[2] < game.world.spec.convert)) or bool(u[4] < chances.organic):
            happened.append(("converted", 2))
        if bool(u[3] < chances.unsubscribed[at]):
            happened.append(("unsubscribed", 3))
    events = [_event(game, decision, name, float(z[k]), float(z[4])) for name, k in happened]
    if (
        at is not None
        and turn.space.channels[at[2]] == "email"
        and game.world.people.scanned[turn.arrival.moment.person]
    ):
        events.append(_scan(decision))
    return sorted(events, key=lambda event: event.occurred_at)


def _event(game: Game, decision: Decision, name: str, normal: float, luck: float) -> Event:
    spec = game.world.spec
    occurred = clock_start(decision) + timedelta(hours=hours_until(spec.delays, name, normal))
    value = None
    if name == "converted":
        value = round(float(spec.value * np.exp(spec.value_spread * luck - 0.5 * spec.value_spread**2)), 2)
    return replace(_reported(decision, name, name, occurred), value=value)


def _scan(decision: Decision) -> Event:
    occurred = clock_start(decision) + timedelta(minutes=_SCAN_MINUTES)
    return replace(_reported(decision, "scan", "opened", occurred), automated=True)


def _reported(decision: Decision, name: str, kind: str, occurred: datetime) -> Event:
    """An event of a decision, heard of at once; ``name`` tells it from the decision's others."""
    return Event(
        WORKSPACE,
        f"{decision.decision_id}/{name}",
        kind,
        occurred,
        occurred,
        matched=True,
        decision_id=decision.decision_id,
        recipient_id=decision.recipient_id,
        campaign_id=CAMPAIGN,
    )
