"""What one row adds to the log-likelihood of a logistic head, whether its outcome is final or can still come.

A row whose outcome will happen with chance p = σ(η), and of whose happenings a share G is seen by now, adds log p when
the outcome has happened and log(1 − p·G) while it has not (Chapelle 2014). G = 1 is the plain Bernoulli row; a row with
no outcome yet and G = 0 tells nothing, which is how rows of unknown outcome are written.
"""

from __future__ import annotations

import torch


def row_likelihood(eta: torch.Tensor, outcome: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Log-likelihood in nats of each row, differentiable in η: y log p + (1 − y) log(1 − p·G).

    Args:
        eta: log odds. outcome: 1 = has happened, 0 = not (yet). seen: share G in [0, 1]. All of one shape.
    """
    softplus = torch.nn.functional.softplus
    not_yet = softplus(eta + torch.log1p(-seen))  # log(1 + (1 − G)·eᶯ), which no rounding can make infinite
    return outcome * eta + (1.0 - outcome) * not_yet - softplus(eta)


def row_terms(
    eta: torch.Tensor, outcome: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-likelihood, slope in η and curvature of each row.

    With r = σ(η + log(1 − G)), the chance that what has not happened yet still will, the slope is y + (1 − y)·r − p: a
    row that waits is a fractional yes. The curvature is the Fisher information E[slope²] = (p − r)(1 − p)
    = G·p·(1 − p)² / (1 − p·G). The observed one would be negative where p is high and G is small, as log(1 − p·G) is
    not concave there; the expected one never is, so a Newton step with it goes uphill and step halving ends it.

    Args: as ``row_likelihood``.
    """
    chance = torch.sigmoid(eta)
    to_come = torch.sigmoid(eta + torch.log1p(-seen))
    slope = outcome + (1.0 - outcome) * to_come - chance
    curvature = ((chance - to_come) * (1.0 - chance)).clamp(min=0.0)
    return row_likelihood(eta, outcome, seen), slope, curvature
