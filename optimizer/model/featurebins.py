"""Bins of a feature's values: how a model's training rows fell into them, for comparison with newer contexts.

The missing ones come first, then the quantile bins of a number, the two values of a flag (0 and 1), the levels and the
rest of a category, "present" of anything else. Half of the rows that equal a quantile belong to each side, as the
mid-ranks have it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.model.columns import CategoryColumn, Column, NumberColumn
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from storage.records import JsonObject

Floats = NDArray[np.float64]

#: Of a campaign at most so many rows are counted, evenly spread.
MOST_ROWS = 20_000
#: So many rows of a campaign before the first that has a feature are from before it was sent; fewer are chance.
UNTOLD_ROWS = 200


def expected_shares(column: Column) -> Floats:
    """Shares of a column's bins among all training rows, by the column itself; sums to 1."""
    missing = column.missing or 0.0 if isinstance(column, NumberColumn | CategoryColumn) else 0.0
    parts = np.ones(1)
    if isinstance(column, NumberColumn) and column.knots:
        parts = np.diff(np.concatenate(([0.0], column.ranks[1:-1], [1.0])))
    elif isinstance(column, NumberColumn) and _is_flag(column):
        parts = np.array([1.0 - column.mean, column.mean])
    elif isinstance(column, CategoryColumn):
        levels = np.array(column.centre[: len(column.levels)])
        parts = np.concatenate((levels, [max(0.0, 1.0 - float(levels.sum()))]))
    return np.concatenate(([missing], (1.0 - missing) * parts / parts.sum()))


def _is_flag(column: NumberColumn) -> bool:
    spread = column.mean * (1.0 - column.mean)
    return spread > 0.0 and abs(column.scale**2 - spread) < 1e-9


def counts(column: Column, contexts: Sequence[JsonObject]) -> Floats:
    """(B,) how many contexts fall into each bin."""
    size = len(expected_shares(column))
    found = np.zeros(size)
    if isinstance(column, NumberColumn):
        x = column.parsed(contexts)
        known = x[~np.isnan(x)]
        for places in _bins(column, known):
            found += 0.5 * np.bincount(places, minlength=size)
        found[0] = x.size - known.size
        return found
    if isinstance(column, CategoryColumn):
        place: dict[str | None, int] = {None: 0, **{level: 1 + i for i, level in enumerate(column.levels)}}
        for level, count in Counter(column.parsed(contexts)).items():
            found[place.get(level, size - 1)] += count
        return found
    present = sum(isinstance(context.get(column.name), str) for context in contexts)
    return np.array([len(contexts) - present, present], dtype=np.float64)


def _bins(column: NumberColumn, x: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The two bins that each number counts in by a half; both are one but where it equals a quantile."""
    if column.knots:
        inner = np.asarray(column.knots[1:-1])
        return 1 + np.searchsorted(inner, x, side="left"), 1 + np.searchsorted(inner, x, side="right")
    places = np.where(_is_flag(column) & (x > 0.5), 2, 1)
    return places, places


def own_counts(examples: Examples, spec: FeatureSpec) -> dict[str, dict[str, list[float]]] | None:
    """By campaign and column, how many of its own training rows fell into each bin; None where the columns say it of
    all rows alike: there is one campaign, whose features were sent from the beginning.

    Campaigns differ in what they send, and an imported history may lack what live decisions have: rows of a campaign
    from before the first that has a feature say nothing of how it looks.

    Args:
        examples: the training rows, in order of time.
        spec: the features of the model.
    """
    contexts = {campaign.campaign_id: _contexts(examples, i) for i, campaign in enumerate(examples.campaigns)}
    since = {(name, c.name): _since(c.name, seen) for name, seen in contexts.items() for c in spec.columns}
    if len(contexts) == 1 and not any(since.values()):
        return None
    return {
        name: {c.name: counts(c, seen[since[name, c.name] :]).tolist() for c in spec.columns}
        for name, seen in contexts.items()
    }


def _contexts(examples: Examples, campaign: int) -> list[JsonObject]:
    rows = np.flatnonzero(examples.campaign == campaign)
    if rows.size > MOST_ROWS:
        rows = rows[np.linspace(0, rows.size - 1, MOST_ROWS).astype(np.int64)]
    return [examples.contexts[row] for row in rows.tolist()]


def _since(feature: str, contexts: Sequence[JsonObject]) -> int:
    """The place of the first row that counts."""
    first = next((place for place, context in enumerate(contexts) if context.get(feature) is not None), 0)
    return first if first >= UNTOLD_ROWS else 0
