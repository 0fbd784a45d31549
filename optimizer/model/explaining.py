"""What each feature adds to an action's score, by the mean of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from optimizer.model.adf import Action, AdfModel, GroupNames, crossed, encode
from optimizer.model.tokens import tokens


def explain(
    model: AdfModel, context: Sequence[Any], actions: Sequence[Action], most: int
) -> list[list[tuple[str, float]]]:
    """The features, and products of two, that move each action's score most.

    Args:
        model: whose mean is told.
        context: feature objects. actions: of the request.
        most: so many of each action.

    Returns:
        For each action (name, score), the largest first; a product's name is ``one^other``. What all actions share is
        left out.
    """
    told = tokens(context, "c")
    beside = encode(told, model.scales, products=model.products, within=False)
    explained = []
    for action in actions:
        mine = tokens(action.features, "a", action.id)
        own = encode(mine, model.scales, products=model.products)
        parts = [(own.column, own.weight, own.group)]
        if model.products:
            parts.append(crossed(beside, own))
        columns, values, groups = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        unique, place = np.unique(groups, return_inverse=True)
        added = np.bincount(place, values * model.means(columns), len(unique))
        names_of = GroupNames((told, mine))
        totals: dict[str, float] = {}
        for n in np.argsort(-np.abs(added), kind="stable")[: 2 * most].tolist():  # a number may have two groups
            name = "^".join(text.partition(":")[2] for text in names_of.of(int(unique[n])))
            totals[name] = totals.get(name, 0.0) + float(added[n])
        ranked = sorted(totals.items(), key=lambda one: (-abs(one[1]), one[0]))
        explained.append([one for one in ranked if one[1]][:most])
    return explained
