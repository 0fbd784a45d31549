"""Where actions are known by their ids alone: a network (``kway``) beside the linear model, for one and the same loop.

A linear model multiplies an action's id with each of the context's features, and knows of no third thing. Where actions
have no features, all that tells them apart is learned for each of them anyway, and a network learns more of it. It
serves the requests of such actions, as long as it has learned one of them; the linear model serves the others, and
explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from optimizer.bandit.exploration import Mask, Vector
from optimizer.model.kway import KwayModel, distribution
from optimizer.model.tokens import Tokens
from storage.records import JsonObject

#: The key of an action that has features, and the place of one that was never learned.
FEATURED: Final = -1
_NEW: Final = -1


class Plain:
    """A K-way model with the tokens that its K actions are. Immutable, so threads share it; load it after a fork."""

    def __init__(self, graph: bytes, meta: JsonObject) -> None:
        """Of the parts that an artifact keeps.

        Raises:
            BadArtifact: the network can't be read. KeyError, TypeError, ValueError: the actions can't.
        """
        self.graph, self.meta = graph, meta
        self._model = KwayModel(graph, meta)
        self._place = {int(key): place for place, key in enumerate(meta["keys"])}
        self._optimism = float(meta["optimism"])
        if len(self._place) != self._model.actions:
            raise ValueError(f"{len(self._place)} keys of {self._model.actions} actions")

    def wanted(self, context: Tokens, actions: Sequence[Tokens], mask: Mask) -> tuple[Vector, Vector] | None:
        """Expected rewards (K,) of these actions and the probabilities (K,) that they are drawn with; None where one of
        them has features, or all are new. Of a new one as much is expected as of the others, and all is hoped for.

        Args:
            context: of the request. actions: K of them. mask: (K,), at least one True.
        """
        keys = [key_of(action) for action in actions]
        places = np.array([self._place.get(key, _NEW) for key in keys])
        new = places == _NEW
        if FEATURED in keys or new.all():
            return None
        scores = self._model.scores([told(context)])[0][places]
        scores[new] = scores[~new].mean()
        hope = np.where(new, self._optimism, self._model.hope[places])
        return scores, distribution(scores, mask, self._model.gamma, hope)


def key_of(action: Tokens) -> int:
    """What a plain action is known by, its id's token; ``FEATURED`` of one that has features."""
    return int(action.key[0]) if len(action.key) == 1 else FEATURED


def told(context: Tokens) -> dict[str, float | str | bool]:
    """A context's tokens as values by name: numbers, levels, and of a name that is said of several levels each as a
    name of its own."""
    said: dict[str, float | str | bool] = {}
    levels = [text for text, number in zip(context.texts, context.number.tolist(), strict=True) if not number]
    several = {text for text in levels if levels.count(text) > 1} if len(set(levels)) < len(levels) else set()
    parts = zip(context.texts, context.key.tolist(), context.value.tolist(), context.number.tolist(), strict=True)
    for text, key, value, number in parts:
        if number:
            said[text] = value
        elif text in several:
            said[f"{text}={key:x}"] = True
        else:
            said[text] = f"{key:x}"
    return said
