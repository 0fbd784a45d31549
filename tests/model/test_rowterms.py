"""What a row adds to the likelihood: by hand, by differences, and the information as the slope's second moment."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from optimizer.model.training.rowterms import row_likelihood, row_terms


def _terms(eta: float, outcome: float, seen: float) -> tuple[float, float, float]:
    likelihood, slope, curvature = row_terms(*(torch.tensor([x], dtype=torch.float64) for x in (eta, outcome, seen)))
    return float(likelihood[0]), float(slope[0]), float(curvature[0])


def test_a_hand_table() -> None:
    """p = .2: log odds −log 4. Not yet at G = .5: log .9, −.5·.2·.8/.9; the information is .5·.2·.64/.9."""
    eta = -math.log(4.0)
    assert _terms(eta, 1.0, 1.0) == pytest.approx((math.log(0.2), 0.8, 0.16))
    assert _terms(eta, 0.0, 1.0) == pytest.approx((math.log(0.8), -0.2, 0.16))
    assert _terms(eta, 0.0, 0.5) == pytest.approx((math.log(0.9), -0.08 / 0.9, 0.064 / 0.9))
    assert _terms(eta, 1.0, 0.5) == pytest.approx((math.log(0.2), 0.8, 0.064 / 0.9))


def test_a_row_that_cannot_have_happened_yet_tells_nothing() -> None:
    assert _terms(1.3, 0.0, 0.0) == (0.0, 0.0, 0.0)


@example(eta=0.3, outcome=0.0, seen=1.0)
@given(eta=st.floats(-30, 30), outcome=st.sampled_from([0.0, 1.0]), seen=st.floats(0, 1))
def test_the_slope_is_the_derivative_of_the_likelihood(eta: float, outcome: float, seen: float) -> None:
    at = torch.tensor([eta], dtype=torch.float64, requires_grad=True)
    y, g = (torch.tensor([x], dtype=torch.float64) for x in (outcome, seen))
    (derivative,) = torch.autograd.grad(row_likelihood(at, y, g).sum(), at)
    # torch's softplus is linear above 20, which leaves out e⁻²⁰ = 2e-9.
    assert _terms(eta, outcome, seen)[1] == pytest.approx(float(derivative[0]), abs=5e-9)


@given(eta=st.floats(-12, 12), seen=st.floats(0.001, 1))
def test_the_curvature_is_the_expected_squared_slope(eta: float, seen: float) -> None:
    happened = seen / (1.0 + math.exp(-eta))
    second = happened * _terms(eta, 1.0, seen)[1] ** 2 + (1.0 - happened) * _terms(eta, 0.0, seen)[1] ** 2
    assert _terms(eta, 0.0, seen)[2] == pytest.approx(second, abs=1e-12)
    mean = happened * _terms(eta, 1.0, seen)[1] + (1.0 - happened) * _terms(eta, 0.0, seen)[1]
    assert mean == pytest.approx(0.0, abs=1e-12)  # at the truth the slope pulls nowhere


@given(eta=st.floats(-200, 200), outcome=st.sampled_from([0.0, 1.0]), seen=st.floats(0, 1))
def test_extremes_stay_finite_in_single_precision(eta: float, outcome: float, seen: float) -> None:
    for term in row_terms(*(torch.tensor([x], dtype=torch.float32) for x in (eta, outcome, seen))):
        assert bool(torch.isfinite(term).all())
