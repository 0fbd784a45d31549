"""From scores to a distribution over actions, and from the distribution to an action.

One rule holds for all of them: *compute the whole vector, sample from that vector, log that number*. So the propensity
is exact by construction; an approximation changes the policy, never the propensity.

Every vector is (K,) float64, not negative, sums to 1 over ``mask`` and is 0 outside it. ``mask`` is (K,) bool, True
where an action is eligible; a mask without a True is an error, since nothing can be drawn from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration_rows as many
from optimizer.bandit.actions import ActionSpace, Spaces

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: A distribution may miss 1 by this much, no more: rounding over 4,096 terms stays far below it.
TOLERANCE = 1e-9


def uniform(mask: Mask) -> Vector:
    """The same probability for every eligible action."""
    return mask / _count(mask)


def softmax(score: Vector, mask: Mask, temperature: float) -> Vector:
    """Boltzmann exploration: p(a) proportional to exp(score(a) / temperature).

    Raises:
        ValueError: temperature not above 0, an eligible score not finite, or nothing eligible.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be above 0")
    gap = _gap(score, mask, _greedy(score, mask))
    weight = np.exp(gap / -temperature) * mask
    return np.asarray(weight / weight.sum(), np.float64)


def epsilon_greedy(score: Vector, mask: Mask, epsilon: float) -> Vector:
    """1 - epsilon on the eligible action of highest score (the first of equals), epsilon spread over all eligible.

    Raises:
        ValueError: epsilon outside [0, 1], an eligible score not finite, or nothing eligible.
    """
    _share("epsilon", epsilon)
    greedy = _greedy(score, mask)
    p = epsilon * uniform(mask)
    p[greedy] += 1 - epsilon
    return p


def inverse_gap(score: Vector, mask: Mask, gamma: float) -> Vector:
    """Inverse-gap weighting (Foster & Rakhlin 2020, "Beyond UCB", SquareCB).

    With n eligible actions and the greedy one b: p(a) = 1 / (n + gamma (score(b) - score(a))) for a != b, and the rest
    on b. gamma = 0 is uniform, gamma to infinity is greedy.

    Raises:
        ValueError: gamma negative or not finite, an eligible score not finite, or nothing eligible.
    """
    if not 0 <= gamma < np.inf:
        raise ValueError(f"gamma {gamma} must be at least 0 and finite")
    greedy = _greedy(score, mask)
    p = mask / (_count(mask) + gamma * _gap(score, mask, greedy))
    p[greedy] = 0.0
    p[greedy] = 1.0 - p.sum()
    return p


def bank(draws: NDArray[np.floating], mask: Mask) -> Vector:
    """A frozen bank of M posterior draws: the share of draws in which an eligible action is best (the first of equals).

    Thompson sampling's probabilities, exact because the bank *is* the policy.

    Args:
        draws: (M, K), the reward of each action in each draw.
        mask: (K,).

    Raises:
        ValueError: the best eligible value of a draw is not finite, no draws, or nothing eligible.
    """
    return np.asarray(many.bank(draws[None], mask[None])[0], np.float64)


def coordinate(space: ActionSpace, greedy: int, mask: Mask) -> Vector:
    """Change *one* factor of the greedy action at random: the support that a factored model needs, without 1/K weights.

    The factors of a message action are its variant, its slot, its channel, and whether to send. The alternatives of a
    factor are the eligible actions that differ from the greedy one in that factor alone: other variants in the same
    slot on the same channel; other slots of the same variant on the same channel; other channels; ``no_send``. A factor
    is drawn uniformly among those with an alternative, then an alternative uniformly. The greedy action itself gets 0.

    Two cases have no single-factor change: ``no_send`` as the greedy action moves to every eligible message action with
    the same probability; and where no factor has an alternative, all eligible actions (the greedy one included) have
    the same probability.

    Raises:
        ValueError: ``greedy`` is not eligible.
    """
    return np.asarray(many.coordinate(Spaces.stacked([space]), np.array([greedy]), mask[None])[0], np.float64)


def with_floor(
    p: Vector,
    space: ActionSpace,
    mask: Mask,
    *,
    rate: float,
    young: Mapping[str, float],
    greedy: int | None = None,
) -> Vector:
    """Exploration that every policy keeps: one-factor moves, and a minimum of mass for each variant, channel, daypart.

    First q = (1 - rate) p + rate coordinate(greedy). Then a group g of actions has a minimum f_g: rate / 20 for each
    variant, channel and daypart with an eligible action, for a variant in ``young`` its own if larger. Minima of more
    than .95 in total are all scaled down to it. With u_g uniform over the eligible actions of g,

        result = (1 - W) q + sum_g w_g u_g,    w_g = max(0, f_g - (1 - W) q(g)),    W = sum_g w_g,

    for the smallest such W. So q stays untouched where it satisfies every minimum, and otherwise each group reaches its
    minimum by its own share alone (what the other groups' shares add comes on top).

    Args:
        p: (K,) distribution over ``mask``.
        space: the actions.
        mask: (K,) eligible actions.
        rate: share of one-factor moves, in [0, 1].
        young: variant id -> minimum mass, e.g. 0.03; ids that are not in the space are ignored.
        greedy: the action that is moved; None = the likeliest under ``p`` (the first of equals).

    Raises:
        ValueError: rate or a minimum outside [0, 1], or the greedy action not eligible.
    """
    moved = np.array([int(p.argmax()) if greedy is None else greedy])
    floored = many.with_floor(p[None], Spaces.stacked([space]), mask[None], greedy=moved, rate=rate, young=young)
    return np.asarray(floored[0], np.float64)


def around_baseline(space: ActionSpace, mask: Mask, baseline_index: int, rate: float) -> Vector:
    """Cold start beside a baseline: 1 - rate on the baseline's action, rate on one-factor moves from it. Decisions were
    drawn so before the cold start kept the floor, which gives the same where no group lacks its minimum.

    Raises:
        ValueError: rate outside [0, 1], or the baseline's action is not eligible.
    """
    _share("rate", rate)
    p = rate * coordinate(space, baseline_index, mask)
    p[baseline_index] += 1 - rate
    return p


def mix(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """The mixture sum of weight x vector.

    Raises:
        ValueError: counts differ, a weight is negative, or the weights don't sum to 1.
    """
    if len(vectors) != len(weights) or not vectors:
        raise ValueError(f"{len(vectors)} vectors and {len(weights)} weights: expected as many, at least one")
    if not all(w >= 0 for w in weights) or not abs(sum(weights) - 1) <= TOLERANCE:
        raise ValueError(f"weights {tuple(weights)} must not be negative and must sum to 1")
    mixed = weights[0] * vectors[0]
    for weight, vector in zip(weights[1:], vectors[1:], strict=True):
        mixed += weight * vector
    return np.asarray(mixed, np.float64)


def sample(p: Vector, u: float) -> int:
    """The action at ``u`` of the inverse distribution function: for u uniform in [0, 1), action a has probability p(a).

    Never an action with p = 0.

    Raises:
        ValueError: p has a negative or not finite entry or doesn't sum to 1 within ``TOLERANCE``; u outside [0, 1).
    """
    if not 0 <= u < 1:
        raise ValueError(f"u = {u} is not in [0, 1)")
    if not (p >= 0).all():  # False for NaN too
        raise ValueError("a probability is negative or not a number")
    cumulative = p.cumsum()
    total = float(cumulative[-1]) if len(p) else 0.0
    if not abs(total - 1) <= TOLERANCE:
        raise ValueError(f"probabilities sum to {total!r}, expected 1 within {TOLERANCE}")
    # The first place where the sum passes u has p > 0. Rounding may leave the whole sum a hair below u.
    place = int(cumulative.searchsorted(u, side="right"))
    return place if place < len(p) else int(np.flatnonzero(p)[-1])


def draw_uniform(seed: bytes, decision_id: str, attempt: int) -> float:
    """The randomness of a decision: a number in [0, 1) of 53 bits, keyed by (seed, decision, attempt).

    So no two workers share a stream, a retry draws the same, and a replay needs no stored state.

    Args:
        seed: secret of the installation, at most 64 bytes (blake2b's key).
        decision_id: the decision.
        attempt: 0, or how often the draw was thrown away since the eligible set had changed.
    """
    name = decision_id.encode() + attempt.to_bytes(8, "little")
    digest = hashlib.blake2b(name, digest_size=8, key=seed, person=b"sendtide.draw").digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _count(mask: Mask) -> int:
    count = int(np.count_nonzero(mask))
    if not count:
        raise ValueError("no action is eligible")
    return count


def _greedy(score: Vector, mask: Mask) -> int:
    """The first eligible action of highest score."""
    _count(mask)
    greedy = int(np.where(mask, score, -np.inf).argmax())
    if not np.isfinite(score[greedy]) or not mask[greedy]:
        raise ValueError(f"scores of eligible actions must be finite, action {greedy} has {score[greedy]}")
    return greedy


def _gap(score: Vector, mask: Mask, greedy: int) -> Vector:
    """How much each eligible score falls short of the greedy one; 0 elsewhere, where a score may be anything."""
    best = score[greedy]
    return np.asarray(best - np.where(mask, score, best), np.float64)


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {value} must be in [0, 1]")
