"""What a recipient's past does to the next message: fatigue that wears off, repetition, and having left for good.

The past is what a policy made of it, so every policy plays with a ``Memory`` of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulations.world.spec import Tiring

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A message on another channel tires this much of one on the same.
OTHER_CHANNEL = 0.5
#: Messages older than this many half-lives count for less than a thousandth and are forgotten.
FORGOTTEN = 10.0


@dataclass
class Memory:
    """The messages that each person got, (seconds, variant, channel) by person, and who has unsubscribed."""

    sent: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def add(self, person: int, at: int, variant: int, channel: int) -> None:
        """Notes a message at ``at`` (seconds since 1970)."""
        self.sent.setdefault(person, []).append((at, variant, channel))

    def load(self, tiring: Tiring, person: int, send_at: Ints, variants: int, channels: int) -> tuple[Floats, Floats]:
        """What is left of a person's messages at each send time: (S, C) fatigue and (V, S) repetition of a variant.

        A message counts 1 when it is sent and half of it a half-life later; one that is planned for later than a slot
        does not count in it.
        """
        tired, repeated = np.zeros((len(send_at), channels)), np.zeros((variants, len(send_at)))
        half_life = tiring.half_life_hours * 3600
        kept = [m for m in self.sent.get(person, ()) if m[0] > int(send_at[0]) - FORGOTTEN * half_life]
        if kept:
            self.sent[person] = kept
        for at, variant, channel in kept:
            age = send_at - at
            left = np.where(age >= 0, np.exp2(-np.maximum(age, 0) / half_life), 0.0)
            tired += OTHER_CHANNEL * left[:, None]
            tired[:, channel] += (1 - OTHER_CHANNEL) * left
            repeated[variant] += left
        return tired, repeated


def weariness(load: Floats) -> Floats:
    """How much fatigue lowers the readiness to look: little for one message, more for each further one, then level."""
    return np.asarray(load**1.5 / (1.0 + 0.25 * load))
