"""Sums by cluster: rows of one recipient are not independent, so standard errors are counted by recipient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Which cluster each of n rows belongs to.

    Attributes:
        code: (n,) int64, cluster of each row, in [0, size).
        size: how many codes there may be; some can be unused.
        count: G, how many clusters hold at least one row.
    """

    code: NDArray[np.int64]
    size: int
    count: int

    def sums(self, values: Floats) -> Floats:
        """Sums of (n,) values by cluster, (size,); an unused code sums to 0."""
        return np.bincount(self.code, weights=values, minlength=self.size).astype(np.float64, copy=False)

    def used_sums(self, values: Floats) -> Floats:
        """Sums of (n,) values over the G clusters that hold a row, (G,)."""
        held = np.bincount(self.code, minlength=self.size) > 0
        return self.sums(values)[held]


def clusters(cluster: ArrayLike | Clusters | None, n: int) -> Clusters:
    """Reads cluster labels.

    Args:
        cluster: (n,) integer labels, such as hashed recipients; None = every row is a cluster of its own.
        n: rows expected.

    Raises:
        ValueError: labels of another length, or not integers.
    """
    if isinstance(cluster, Clusters):
        if cluster.code.shape != (n,):
            raise ValueError(f"cluster: {cluster.code.size} labels for {n} rows")
        return cluster
    if cluster is None:
        return Clusters(np.arange(n, dtype=np.int64), n, n)
    label = np.asarray(cluster)
    if label.shape != (n,):
        raise ValueError(f"cluster: shape {label.shape}, must be ({n},)")
    if n and not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"cluster: dtype {label.dtype}, must be an integer type")
    # Small non-negative labels serve as codes as they are; sorting a million hashes is only paid for when needed.
    if n and label.min() >= 0 and label.max() < 2 * n:
        code = label.astype(np.int64)
        size = int(code.max()) + 1
        return Clusters(code, size, int(np.count_nonzero(np.bincount(code, minlength=size))))
    distinct, inverse = np.unique(label, return_inverse=True)
    return Clusters(inverse.astype(np.int64).reshape(n), int(distinct.size), int(distinct.size))


def robust_error(residual: Floats, groups: Clusters) -> float:
    """Cluster-robust standard error of a mean from centred rows (Liang & Zeger 1986).

    SE² = G/(G−1) · Σ_g (Σ_{i∈g} residual_i)² / n². With single-row clusters this is the textbook s/√n.

    Args:
        residual: (n,) rows minus their mean (for a ratio: its linearised rows), summing to 0.
        groups: clusters of the rows.

    Returns:
        The standard error; infinity with fewer than two clusters, since nothing can be said then.
    """
    if groups.count < 2:
        return math.inf
    total = float(np.sum(groups.sums(residual) ** 2))
    return math.sqrt(groups.count / (groups.count - 1) * total) / residual.size


def design_effect(residual: Floats, groups: Clusters) -> float:
    """How many times the variance of a mean of clustered rows is that of as many independent ones (Kish 1965), at
    least 1.

    Args:
        residual: (n,) rows minus their mean, n at least 1. Where all are 0, nothing tells rows of a cluster apart, and
            they count as one.
        groups: clusters of the rows.
    """
    alone = float(residual @ residual)
    if groups.count < 2:
        return float(residual.size)
    if alone <= 0.0:
        return mates(groups)
    return max(1.0, (robust_error(residual, groups) * residual.size) ** 2 / alone)


def mates(groups: Clusters) -> float:
    """How many rows a row's cluster has, itself among them, on average over the rows."""
    size = groups.sums(np.ones(groups.code.size))
    return float(size @ size) / groups.code.size


def correlation(residual: Floats, groups: Clusters) -> float:
    """How alike rows of one cluster are, from 0 to 1: Kish's design effect is 1 + correlation · (``mates`` − 1).

    Args:
        residual: (n,) rows minus what was expected of them, n at least 1; what they all are too high or too low by is
            no likeness. groups: their clusters.
    """
    beyond = mates(groups) - 1.0
    centred = residual - residual.mean()
    return min(1.0, (design_effect(centred, groups) - 1.0) / beyond) if beyond > 0.0 else 0.0
