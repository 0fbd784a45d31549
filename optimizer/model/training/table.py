"""Rows laid out for a fit of all heads, and what each head learns from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import needs_message
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.funnel import taught
from optimizer.model.layout import Layout
from optimizer.model.training.actionparts import THROUGH
from optimizer.model.training.posterior import base_offset
from optimizer.model.training.rows import RowSet, message_layout, no_send_layout, split_rows
from optimizer.model.variantbasis import VariantBasis


@dataclass(frozen=True)
class Table:
    """Examples with embedded contexts, split by kind and laid out.

    Attributes:
        examples: the n rows. basis: coordinates of variants.
        context: (n, F) embedded contexts.
        message, no_send: rows of each kind with their layout.
        asked: the groups of weights that the spec's products were found to be asked for.
    """

    examples: Examples
    basis: VariantBasis
    context: NDArray[np.float32]
    message: tuple[RowSet, Layout]
    no_send: tuple[RowSet, Layout]
    asked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Target:
    """What one head learns from m rows: outcomes (m,), their seen shares (m,), the offset of its intercept."""

    outcome: NDArray[np.float64]
    seen: NDArray[np.float64]
    offset: float


def targets(table: Table, kind: str) -> dict[str, Target]:
    """The target of every outcome with a head of that kind.

    A kind without known rows takes the other kind's base rate: without evidence, sending makes no difference.
    """
    rows = (table.message if kind == "message" else table.no_send)[0].rows
    out = {}
    for name in table.examples.outcomes:
        column, share = taught(table.examples, name)
        sent_only = needs_message(name)
        if kind == "no_send" and sent_only:
            continue
        known = bool(np.isfinite(column[rows]).any())
        base = rows if known else np.flatnonzero(table.examples.sent | (not sent_only))
        out[name] = Target(column[rows], share[rows], base_offset(column[base], share[base]))
    return out


def tabulate(examples: Examples, context: NDArray[np.float32], spec: FeatureSpec, basis: VariantBasis) -> Table:
    """Splits examples by kind and lays out the weights that they can teach; ``context`` (n, F) is f(x)."""
    parts = (spec.plain, spec.owner)
    message, no_send = split_rows(examples, context, basis)
    sent, stayed = message_layout(message, basis, *parts), no_send_layout(no_send, *parts)
    return Table(examples, basis, context, (message, sent), (no_send, stayed), _asked(spec))


def _asked(spec: FeatureSpec) -> frozenset[str]:
    """The groups through which each product was found to act."""
    first = spec.width - len(spec.products)
    return frozenset(
        f"{block}:{spec.owner[first + i]}"
        for i, product in enumerate(spec.products)
        for through, blocks in THROUGH.items()
        if product.through == through
        for block in blocks
    )


def nothing(count: int) -> Target:
    """The target of a head of which no row knows anything."""
    return Target(np.full(count, np.nan), np.ones(count), 0.0)
