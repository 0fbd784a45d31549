"""Adam with decoupled weight decay (Loshchilov & Hutter 2019), step for step as torch's own does it on a processor.

torch's imports its compiler and sympy before its first step: a second and a half, and 70 MiB, of every retrain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Steps of some weights along their gradients."""

    def __init__(self, groups: Sequence[tuple[Sequence[torch.Tensor], float]], decay: float) -> None:
        """``groups``: weights with their learning rate."""
        self._decay = decay
        self._steps = 0
        self._weights = [
            (one, rate, torch.zeros_like(one), torch.zeros_like(one)) for weights, rate in groups for one in weights
        ]

    def step(self, loss: torch.Tensor) -> None:
        """One step down the gradient of a loss."""
        gradients = torch.autograd.grad(loss, [weight for weight, *_ in self._weights])
        self._steps += 1
        first, second = (1.0 - beta**self._steps for beta in (_BETA_1, _BETA_2))
        with torch.no_grad():
            for (weight, rate, mean, square), gradient in zip(self._weights, gradients, strict=True):
                weight.mul_(1.0 - rate * self._decay)
                mean.lerp_(gradient, 1.0 - _BETA_1)
                square.mul_(_BETA_2).addcmul_(gradient, gradient, value=1.0 - _BETA_2)
                width = square.sqrt().div_(math.sqrt(second)).add_(_EPSILON)
                weight.addcdiv_(mean, width, value=-rate / first)
