"""Products of five columns warn of nothing, whatever an earlier product has left in lanes that they don't use.

OpenBLAS reads such lanes on processors with AVX-512; on others nothing here could fail.
"""

from __future__ import annotations

import numpy as np

from optimizer.model.drawing import products
from optimizer.model.layout import Action
from optimizer.model.matvec import matvec
from optimizer.model.training.rows import Design, RowSet, no_send_layout

MATRIX = np.ones((194, 5), np.float32)


def leave_signalling_nans() -> None:
    """On the stack: a vector with a stride is copied there for the product."""
    strange = np.full(2 * 400, 0x7FA00000, np.uint32).view(np.float32)[::2]
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.ones((64, 400), np.float32) @ strange).all()


def test_a_product_warns_of_nothing() -> None:
    leave_signalling_nans()
    assert (matvec(MATRIX, np.ones(5, np.float32)) == 5.0).all()


def test_products_of_a_decision_warn_of_nothing() -> None:
    leave_signalling_nans()
    assert (products(MATRIX[:2], np.ones((3, 5), np.float32)) == 5.0).all()


def test_a_fit_warns_of_nothing() -> None:
    zeros = np.zeros(194, np.int64)
    rows = RowSet(np.arange(194), (Action("c"),), zeros, MATRIX[:, :4], zeros)
    design = Design(no_send_layout(rows, range(4), range(4)), rows)
    assert design.layout.base == 5
    weights = np.zeros(design.layout.size)
    leave_signalling_nans()
    assert (design.logits(weights) == 0.0).all()
    leave_signalling_nans()
    assert np.isfinite(design.slopes(weights, np.ones(194), np.zeros(194))[0]).all()
