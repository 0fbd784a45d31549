"""A click comes after a look: a head of clicks is learned among those who looked, beside a head of looks.

p(clicked) = p(looked) · p(clicked | looked) holds exactly, since whoever opened *or* clicked counts as having looked
(``rewards.LOOKED``). Looks are several times as frequent as clicks, so what channel and hour do to being seen is
learned from more, and what the content does from those alone who saw it. On random logs of two worlds of 504 actions
the greedy choice went .36, .51 (1,500 rows) and .76, .77 (5,000) of the way to the oracle by clicks alone, .48, .67 and
.82, .84 with looks. Where no opens are reported a look is a click, and nothing is won.

A model whose message heads have one of looks has this meaning; the others' click heads are of all messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import LOOKED
from optimizer.model.examples import Examples

Floats = NDArray[np.float64]

#: An outcome, and what comes before it.
AFTER: Mapping[str, str] = {"clicked": LOOKED}
#: How people are told of what no caller named.
TITLES: Mapping[str, str] = {LOOKED: "opened or clicked"}
#: So many looks without a click tell the two apart.
LEAST = 30


def steps(outcomes: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(head, head that comes before it), for the heads of a model."""
    return tuple((i, outcomes.index(AFTER[name])) for i, name in enumerate(outcomes) if AFTER.get(name) in outcomes)


def visible(outcomes: Sequence[str]) -> tuple[str, ...]:
    """The outcomes that callers know of."""
    return tuple(name for name in outcomes if name not in AFTER.values())


def told_apart(examples: Examples) -> Examples:
    """The examples with looks where there are enough without a click, else without."""
    for name, before in AFTER.items():
        if before in examples.outcome:
            looked, then = examples.outcome[before], examples.outcome[name]
            if np.count_nonzero((looked == 1.0) & (then == 0.0)) < LEAST:
                return without(examples)
    return examples


def without(examples: Examples) -> Examples:
    """The examples without looks: click heads are of all messages."""

    def kept(columns: Mapping[str, Floats]) -> dict[str, Floats]:
        return {name: column for name, column in columns.items() if name not in AFTER.values()}

    return replace(examples, outcome=kept(examples.outcome), value=kept(examples.value), seen=kept(examples.seen))


def taught(examples: Examples, name: str) -> tuple[Floats, Floats]:
    """What the head of an outcome learns from: outcomes (n,), NaN = nothing, and their seen shares (n,).

    Of a click after a look only rows with a look tell. Where the click's window is open, the share of clicks that would
    be seen by now is that among the looks that would be: G_clicked / G_looked.
    """
    column, share = examples.outcome[name], examples.share(name)
    before = AFTER.get(name, "")
    if before not in examples.outcome:
        return column, share
    looked = examples.outcome[before] == 1.0
    return np.where(looked, column, np.nan), np.where(looked, np.minimum(1.0, share / examples.share(before)), 1.0)


def chances(eta: Floats, order: Sequence[tuple[int, int]]) -> Floats:
    """Chances (H, …) of the outcomes themselves, from the heads' log odds; ``order`` as in ``steps``."""
    out = sigmoid(eta)
    for head, before in order:
        out[head] *= out[before]
    return out


def slopes(eta: Floats, worth: Floats, order: Sequence[tuple[int, int]]) -> Floats:
    """d (Σ worth · chance) / dη of every head, (H, …), at log odds (H, …); worth (H,)."""
    gain = (worth * chances(eta, order).T).T
    rest = 1.0 - sigmoid(eta)
    out = gain * rest
    for head, before in order:
        out[before] += gain[head] * rest[before]
    return np.asarray(out)


def sigmoid(eta: NDArray[np.floating]) -> Floats:
    """Logistic function without overflow."""
    out = np.multiply(eta, 0.5, dtype=np.float64)
    out = np.tanh(out)
    out += 1.0
    out *= 0.5
    return np.asarray(out)


def joined(eta: Floats, outcomes: Sequence[str]) -> Floats:
    """Log odds (H, …) of the outcomes themselves, from those of the heads."""
    out = eta
    for head, before in steps(outcomes):
        out = out.copy() if out is eta else out
        chance = -(np.logaddexp(0.0, -eta[head]) + np.logaddexp(0.0, -eta[before]))  # log of the product
        out[head] = chance - np.log(-np.expm1(chance))
    return out
