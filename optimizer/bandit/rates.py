"""Rates of rare harms, and whether groups have the sizes that they should: statements that hold at every look together.

Both are mixtures: the likelihood of what was seen, averaged over a prior, against that under a hypothesis. The ratio is
a martingale under the hypothesis, so it ever exceeds 1/error with probability at most ``error`` (Ville 1939).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

#: The prior of a harm's rate: a mean of 1 %, and as good as no weight.
RARE = (0.5, 49.5)
#: That of a rate of which nothing is known.
ANY_RATE = (0.5, 0.5)
#: Weight of the prior of a group's share, in recipients.
_SHARE_WEIGHT = 100.0


def rate_bounds(
    cases: float, rows: float, level: float = 0.95, prior: tuple[float, float] = RARE
) -> tuple[float, float]:
    """Bounds of a rate that hold at all times together, from the first row on (beta-binomial mixture: Robbins 1970;
    Howard, Ramdas, McAuliffe & Sekhon 2021).

    It takes rows one by one. Harms such as unsubscribing happen at most once a recipient, so those of one recipient
    don't gather, and bounds by rows are not too narrow.

    Args:
        cases: rows in which it happened. rows: all rows. Sums of weights ≤ 1 where rows count in part: then it is the
            weighed rate, and the power of a likelihood ratio with an exponent ≤ 1 still is one that can be bet on.
        level: probability with which the bounds hold.
        prior: of the rate, chosen before anything was seen: bounds hold under any, and are narrow where it fits.
    """
    if rows == 0:
        return 0.0, 1.0
    a, b = prior
    mixed = _log_beta(a + cases, b + rows - cases) - _log_beta(a, b) + math.log(1.0 - level)

    def outside(rate: float) -> bool:
        """Whether the rate is rejected: its likelihood is below the mixture's by more than 1/error."""
        if rate in (0.0, 1.0):  # asked only where what happened is impossible at it
            return True
        likelihood = (cases * math.log(rate) if cases else 0.0) + (
            (rows - cases) * math.log1p(-rate) if rows > cases else 0.0
        )
        return mixed > likelihood

    seen = cases / rows
    low = 0.0 if cases == 0 else _edge(outside, seen, 0.0)
    high = 1.0 if cases == rows else _edge(outside, seen, 1.0)
    return low, high


def _edge(outside: Callable[[float], bool], inside: float, end: float) -> float:
    """The last rate from ``inside`` towards ``end`` that is not rejected."""
    near, far = inside, end
    for _ in range(60):
        middle = (near + far) / 2.0
        if outside(middle):
            far = middle
        else:
            near = middle
    return far


def difference_bounds(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Bounds of the difference of two rates whose bounds hold together."""
    return one[0] - other[1], one[1] - other[0]


def mismatch(found: Sequence[tuple[Mapping[str, int], Mapping[str, float]]]) -> float:
    """p-value of "recipients fall into groups with the stated shares", valid at all times together.

    A Dirichlet mixture of multinomials against the stated shares (Lindon & Malek 2020), the prior being centred at
    them; where shares changed, each stretch has a mixture of its own, and their evidence adds up.

    Args:
        found: for each stretch the recipients in each group, and each group's stated share.
    """
    evidence = 0.0
    for counts, shares in found:
        for group, count in counts.items():
            share = shares.get(group, 0.0)
            if count and share <= 0.0:
                return 0.0
            prior = _SHARE_WEIGHT * share
            if count:
                evidence += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
        total = sum(counts.values())
        evidence += math.lgamma(_SHARE_WEIGHT) - math.lgamma(_SHARE_WEIGHT + total)
    return math.exp(-max(evidence, 0.0))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
