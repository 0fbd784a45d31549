"""Prices at work: what each action of a decision is charged for the scarce things that it takes.

A *price* is what one more unit of something scarce would be worth to all that ask for it: a message of a ``capacity``,
a unit of money of a ``budget``, a place in a recipient's ``cap``. A *toll* is price x what an action takes. A policy
carries its prices with it, in ``Policy.exploration["prices"]``, complete in themselves: no rule, no usage and no clock
is needed to recompute a decision's tolls, so propensities replay exactly. Where they come from: ``bandit.prices``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import Spaces
from optimizer.bandit.capacity import cost_micros
from optimizer.bandit.localtime import DAY
from storage.records import Campaign, JsonObject
from storage.rules import MICROS

Kind = Literal["capacity", "budget", "cap"]
Floats = NDArray[np.float64]

HOUR = 3_600


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one rule's scarce thing over time, in units of reward.

    Attributes:
        rule_id: the rule.
        kind: what is priced: a message (capacity), a unit of money (budget), a place under a recipient's limit (cap).
        channels: on which a message takes of it.
        usual: one price, or 24 by the UTC hour of the day in which the block that holds the send time starts.
        every: seconds of a block; blocks follow each other from 1970-01-01T00:00Z on. Not looked at for one price.
        starts: ascending, seconds since 1970: from each on, up to the next, its entry of ``values`` holds instead of
            the usual price, the last one up to ``until``. These are the prices that know what is left.
        values: as many.
        until: seconds since 1970.
    """

    rule_id: str
    kind: Kind
    channels: tuple[str, ...]
    usual: tuple[float, ...]
    every: int = HOUR
    starts: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    until: int = 0

    def at(self, times: NDArray[np.int64]) -> Floats:
        """The price at each send time (seconds since 1970); same shape."""
        usual = np.array(self.usual)
        if len(usual) == 1:
            out = np.broadcast_to(usual, times.shape)
        else:
            out = usual[times // self.every * self.every % DAY // HOUR]
        if not self.starts:
            return out
        place = np.searchsorted(self.starts, times, side="right") - 1
        near = (place >= 0) & (times < self.until)
        return np.where(near, np.array(self.values)[place], out)

    def as_json(self) -> dict[str, Any]:
        """The form in which a policy carries it."""
        return asdict(self)


def prices_of(exploration: JsonObject) -> tuple[Price, ...]:
    """The prices that a policy's numbers carry."""
    return tuple(_price(entry) for entry in exploration.get("prices", ()))


def with_prices(exploration: JsonObject, prices: Sequence[Price]) -> JsonObject:
    """A policy's numbers with these prices instead of those that it had."""
    numbers = {name: value for name, value in exploration.items() if name != "prices"}
    return {**numbers, "prices": [price.as_json() for price in prices]} if prices else numbers


def _price(entry: Mapping[str, Any]) -> Price:
    return Price(
        rule_id=entry["rule_id"],
        kind=entry["kind"],
        channels=tuple(entry["channels"]),
        usual=tuple(entry["usual"]),
        every=entry["every"],
        starts=tuple(entry["starts"]),
        values=tuple(entry["values"]),
        until=entry["until"],
    )


def tolls(prices: Sequence[Price], campaign: Campaign, spaces: Spaces) -> Floats | None:
    """What each action of n spaces is charged: (n, K), 0 for ``no_send``; None where no price binds.

    A budget's price is for a unit of money, so an action is charged it times what variant and channel cost.
    """
    if not prices or not spaces.messages:
        return None
    grid = np.zeros((len(spaces.send_at), *spaces.shape))
    for price in prices:
        bound = np.array([channel in price.channels for channel in spaces.channels], dtype=np.float64)
        take = bound[None, :]
        if price.kind == "budget":
            take = cost_micros(campaign, spaces.variants, spaces.channels) / MICROS * bound
        grid += price.at(spaces.send_at)[:, None, :, None] * take[:, None, :]
    out = np.zeros((len(grid), spaces.size))
    out[:, : spaces.messages] = grid.reshape(len(grid), spaces.messages)
    return out
