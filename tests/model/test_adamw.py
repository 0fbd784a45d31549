"""AdamW, beside torch's own."""

from __future__ import annotations

import subprocess
import sys

import torch

from optimizer.model.training.adamw import AdamW


def _weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((5, 3), (5,), (1, 5))]


def _loss(weights: list[torch.Tensor], step: int) -> torch.Tensor:
    wide, bias, head = weights
    inputs = torch.linspace(-1.0, 1.0, 12).reshape(4, 3) * (1.0 + step % 3)
    return ((torch.tanh(inputs @ wide.T + bias) @ head.T).squeeze() - torch.arange(4.0)).square().mean()


def test_its_steps_are_those_of_torch() -> None:
    ours, theirs = _weights(), _weights()
    mine = AdamW(((ours[:2], 0.03), (ours[2:], 0.001)), 0.05)
    groups = [{"params": theirs[:2], "lr": 0.03}, {"params": theirs[2:], "lr": 0.001}]
    reference = torch.optim.AdamW(groups, weight_decay=0.05)
    for step in range(200):
        mine.step(_loss(ours, step))
        reference.zero_grad()
        _loss(theirs, step).backward()  # type: ignore[no-untyped-call]  # torch's own
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_it_does_not_import_torchs_compiler() -> None:
    code = """
import sys, torch
from optimizer.model.training.adamw import AdamW
weight = torch.ones(2, requires_grad=True)
AdamW((((weight,), 0.1),), 0.0).step(weight.sum())
print([round(one, 6) for one in weight.tolist()], "torch._dynamo" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[0.9, 0.9] False\n"
