"""How much each feature matters to a trained model: what it adds to the variance of the predicted reward.

Features may be data (``{"viewed": {"sku17": true}}``), so there may be as many groups of columns as products. They are
summed by one product of matrices, and named as they are met in rows, which have few features each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from optimizer.model.adf import MAX_CROSSED, WITHIN
from optimizer.model.scales import AS_CATEGORY, Scales
from optimizer.model.tokens import Keys, Tokens, Values
from optimizer.model.training.weights import INTERCEPT, Weights


def importance(
    matrix: Any, weights: Weights, rows: Iterable[tuple[Tokens, Tokens]], scales: Scales
) -> dict[str, float]:
    """The variance that each feature adds over these rows, by its name.

    A product of two features counts half for each. Columns of a model that was begun from belong to no feature.

    Args:
        matrix: (n, d) the rows. weights: of its columns.
        rows: contexts and actions. scales: how numbers among them were read.
    """
    added = _variances(matrix, weights)
    found: dict[str, float] = {}
    left = dict(weights.groups)
    left.pop(int(INTERCEPT), None)
    for context, action in rows:
        for group, names in _groups(context, action, scales):
            place = left.pop(group, None)
            for name in names if place is not None else ():
                found[name] = found.get(name, 0.0) + float(added[place]) / len(names)
        if not left:
            break
    return found


def _variances(matrix: Any, weights: Weights) -> Values:
    """(g,) the variance of what each group of columns adds to the prediction."""
    groups = len(weights.precision)
    ends = np.arange(len(weights) + 1)
    mean = sp.csr_matrix((weights.solution[:, 0], weights.group, ends), shape=(len(weights), groups))
    added = matrix @ mean
    count = max(matrix.shape[0], 1)
    average = np.bincount(added.indices, added.data, groups) / count
    apart = np.bincount(added.indices, (added.data - average[added.indices]) ** 2, groups)
    elsewhere = count - np.bincount(added.indices, minlength=groups)  # rows that have none of the group add 0
    return np.asarray((apart + elsewhere * average**2) / count, np.float64)


def _groups(context: Tokens, action: Tokens, scales: Scales) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The groups that a row's columns may be of, with the names of their features."""
    texts: dict[int, str] = {}
    sides = []
    for told in (context, action):
        for known in (told.name, told.name + AS_CATEGORY):
            texts.update(zip(known.tolist(), told.texts, strict=True))
        sides.append(np.unique(scales.apply(told)[2][:MAX_CROSSED]))
    yield from ((name, (text,)) for name, text in texts.items())
    one, other = sides
    for first, second, apart in ((one, one, WITHIN), (other, other, WITHIN), (one, other, np.uint64(0))):
        yield from _products(first, second, apart, texts)


def _products(
    first: Keys, second: Keys, apart: np.uint64, texts: dict[int, str]
) -> Iterator[tuple[int, tuple[str, str]]]:
    names = [texts[name] for name in second.tolist()]
    for name, groups in zip(first.tolist(), (first[:, None] + second[None, :] + apart).tolist(), strict=True):
        yield from zip(groups, ((texts[name], text) for text in names), strict=True)
