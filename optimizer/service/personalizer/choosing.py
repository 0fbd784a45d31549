"""From a model and a loop's limits to the distribution over a request's actions. Pure: no store, no clock.

**How much is explored.** ``explorationPercentage`` is the most that is not the best action by the model's mean. Before
there is a model everything is drawn evenly, as Azure Personalizer did; the young model's ceiling falls from there.
Under the ceiling the posterior says how much: where it is sure, nearly nothing. A small even part always remains, so
that any other policy can be judged from the log; 0 switches even that off.

Where all actions are known by ids alone, a network may have learned more than the linear model (``model.plain``): then
the best action is the best by it, and what it hopes for takes the place of the posterior, under the same limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from optimizer.bandit import exploration
from optimizer.bandit.ceilings import bounded
from optimizer.bandit.exploration import Mask, Vector
from optimizer.model.adf import Action, AdfModel
from optimizer.model.tokens import tokens
from optimizer.service.personalizer.arguments import LearningSettings

#: By how much of its width a posterior draw moves, at first; and after how many rows by 1/√2 of that.
WIDTH = 0.7
_NARROWS = 2_500
#: A model of so many rows still explores up to a half.
_YOUNG = 200
#: The even part, of the ceiling, at first; after how many rows it is 1/√2 of that.
_EVEN = 0.1
_EVEN_FALLS = 10_000
_LEAST_EVEN = 0.002


def distribution(
    model: AdfModel | None,
    settings: LearningSettings,
    ceiling: float,
    context: Sequence[Any],
    actions: Sequence[Action],
    mask: Mask,
    *,
    linear: bool = False,
) -> Vector:
    """The probability of each action, (K,) float64: 0 where ``mask`` is False.

    Args:
        model: what was learned; None = nothing yet.
        settings: how to explore. ceiling: the most that is explored, in [0, 1].
        context: feature objects. actions: K of them. mask: (K,), at least one True.
        linear: whether the linear model has to choose: it explains, and it is what an apprentice imitates with.

    Raises:
        ValueError: nothing is eligible.
    """
    if model is None or model.rows == 0:
        return exploration.uniform(mask)
    plain = _plain(model, context, actions, mask) if settings.network and not linear else None
    if plain is None:
        score = model.score(context, actions)
        mean, explored = score[:, 0], _explored(settings, score, mask, model)
    else:
        mean, explored = plain
    greedy = int(np.where(mask, mean, -np.inf).argmax())
    most = 0.0 if ceiling == 0 else max(ceiling, 1.0 / (1.0 + model.rows / _YOUNG))
    even = ceiling * _EVEN / np.sqrt(1.0 + model.rows / _EVEN_FALLS)
    return bounded(explored, greedy, mask, most, min(most, max(even, _least(ceiling))))


def _plain(
    model: AdfModel, context: Sequence[Any], actions: Sequence[Action], mask: Mask
) -> tuple[Vector, Vector] | None:
    """Expected rewards and probabilities by the network, where there is one that knows these actions."""
    if model.plain is None:
        return None
    return model.plain.wanted(tokens(context, "c"), [tokens(a.features, "a", a.id) for a in actions], mask)


def _least(ceiling: float) -> float:
    return min(_LEAST_EVEN, ceiling)


def _explored(settings: LearningSettings, score: Vector, mask: Mask, model: AdfModel) -> Vector:
    """What the method would do without limits."""
    mean, deviation = score[:, 0], score[:, 1:] - score[:, :1]
    if not deviation.shape[1]:
        return exploration.epsilon_greedy(mean, mask, 0.0)
    if settings.method == "posterior":
        width = WIDTH / np.sqrt(1.0 + model.rows / _NARROWS)
        return exploration.bank((mean[:, None] + width * deviation).T, mask)
    relative = deviation[mask] - deviation[mask].mean(axis=0)
    unit = float(np.sqrt((relative**2).mean()))
    if unit == 0.0:
        return exploration.epsilon_greedy(mean, mask, 0.0)
    if settings.method == "softmax":
        return exploration.softmax(mean / unit, mask, 1.0 / max(settings.parameter, 1e-9))
    return exploration.inverse_gap(mean / unit, mask, settings.parameter * float(mask.sum()))
