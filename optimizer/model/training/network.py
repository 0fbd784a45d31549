"""The small network whose hidden columns may join f(x), trained on what the linear model leaves unexplained.

The linear last layer's η enters as a fixed offset, so the network spends its capacity on residual structure; its
columns then go through the same structured last layer as the skip columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from optimizer.model.examples import Examples
from optimizer.model.training.actionparts import action_parts
from optimizer.model.training.adamw import AdamW
from optimizer.model.training.options import TrainOptions
from optimizer.model.training.rowterms import row_likelihood

WIDE, NARROW = 64, 16
EPOCHS = 40
PATIENCE = 4
BATCH = 512
RATE = 2e-3
#: Share of the training clusters that early stopping watches.
WATCHED = 0.2
#: Columns that hardly vary are not rescaled to unit variance: that would blow up noise.
_FLAT = 0.02


class Columns(Protocol):
    """A module whose hidden columns may join f(x)."""

    mean: torch.Tensor
    scale: torch.Tensor

    def hidden(self, inputs: torch.Tensor) -> torch.Tensor:
        """Columns (n, 16) of inputs (n, …) before standardisation."""

    def train(self, mode: bool = True) -> object:
        """Switches dropout on or off."""

    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """All weights by name."""

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> object:
        """Sets all weights."""


@dataclass(frozen=True)
class Course:
    """How a module is trained: groups of its parameters with a learning rate each, and when training ends."""

    groups: tuple[tuple[list[nn.Parameter], float], ...]
    decay: float = TrainOptions.decay
    batch: int = BATCH
    epochs: int = EPOCHS
    patience: int = PATIENCE


class Network(nn.Module):
    """Two layers (64 rectified, 16 tanh); its output columns are standardised by what they were on training rows."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, inputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, WIDE)
        self.second = nn.Linear(WIDE, NARROW)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=1.0 / np.sqrt(layer.in_features), generator=generator)
            nn.init.zeros_(layer.bias)
        self.register_buffer("mean", torch.zeros(NARROW))
        self.register_buffer("scale", torch.ones(NARROW))

    @property
    def width(self) -> int:
        """Number of columns that join f(x)."""
        return NARROW

    def hidden(self, encoded: torch.Tensor) -> torch.Tensor:
        """Columns (n, 16) before standardisation."""
        return torch.tanh(self.second(torch.relu(self.first(encoded))))

    def features(self, encoded: torch.Tensor) -> torch.Tensor:
        """f(x): the encoded inputs and the standardised columns, (n, inputs + 16)."""
        return torch.cat((encoded, (self.hidden(encoded) - self.mean) * self.scale), dim=1)


@dataclass(frozen=True)
class _Task:
    """Tensors over n rows: inputs (n, …), action units (n, u), targets, known flags, seen shares, offsets (n, K)."""

    inputs: torch.Tensor
    units: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor
    seen: torch.Tensor
    offset: torch.Tensor

    def loss(self, network: Columns, head: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of the known outcomes of some rows."""
        hidden = network.hidden(self.inputs[rows])
        gain = torch.einsum("nj,nu,ujk->nk", hidden, self.units[rows], head)
        eta = self.offset[rows] + gain
        likelihood = row_likelihood(eta, self.target[rows], self.seen[rows])
        return -(likelihood * self.known[rows]).sum() / self.known[rows].sum().clamp(min=1.0)


def train_network(
    examples: Examples,
    encoded: NDArray[np.float32],
    logits: Mapping[str, NDArray[np.float64]],
    *,
    seed: int,
    decay: float = TrainOptions.decay,
) -> Network:
    """Trains a network.

    Args:
        examples: the n rows. encoded: (n, width) their encoded contexts.
        logits: per outcome (n,) the linear model's η. seed: makes it deterministic.
        decay: of the weights, decoupled.
    """
    generator = torch.Generator().manual_seed(seed)
    network = Network(encoded.shape[1], generator)
    course = Course(((list(network.parameters()), RATE),), decay)
    fit_columns(network, torch.from_numpy(encoded), examples, logits, course, generator, seed=seed)
    return network


def fit_columns(
    module: Columns,
    inputs: torch.Tensor,
    examples: Examples,
    logits: Mapping[str, NDArray[np.float64]],
    course: Course,
    generator: torch.Generator,
    *,
    seed: int,
) -> float:
    """Trains a module with AdamW, stopped early on held-out recipients, and standardises its columns.

    Args:
        module: what is trained, in place. inputs: (n, …) what it reads of the n examples.
        logits: per outcome (n,) the linear model's η, which enters as an offset.
        course: how. generator, seed: make it deterministic.

    Returns:
        The gain in nats of a known outcome over the offsets alone, on the recipients that were held out.
    """
    task = _task(examples, inputs, logits)
    head = torch.zeros((task.units.shape[1], NARROW, task.target.shape[1]))
    nn.init.normal_(head, std=0.1, generator=generator)
    head.requires_grad_()
    watched = _watched(examples.cluster, seed)
    learn, watch = torch.from_numpy(np.flatnonzero(~watched)), torch.from_numpy(np.flatnonzero(watched))
    (first, rate), *others = course.groups
    adamw = AdamW((((*first, head), rate), *others), course.decay)
    best, best_loss, waited = _state(module), float("inf"), 0
    for _ in range(course.epochs):
        module.train()
        order = learn[torch.randperm(len(learn), generator=generator)]
        for start in range(0, len(order), course.batch):
            adamw.step(task.loss(module, head, order[start : start + course.batch]))
        module.train(mode=False)
        with torch.no_grad():
            loss = float(task.loss(module, head, watch))
        if loss < best_loss - 1e-5:
            best, best_loss, waited = _state(module), loss, 0
        else:
            waited += 1
            if waited >= course.patience:
                break
    module.load_state_dict(best)
    _standardise(module, task.inputs)
    with torch.no_grad():
        return float(task.loss(module, torch.zeros_like(head), watch)) - best_loss


def _task(examples: Examples, inputs: torch.Tensor, logits: Mapping[str, NDArray[np.float64]]) -> _Task:
    names = [name for name in examples.outcomes if name in logits]
    target = np.stack([examples.outcome[name] for name in names], axis=1)
    seen = np.stack([examples.share(name) for name in names], axis=1)
    offset = np.stack([logits[name] for name in names], axis=1)
    known = np.isfinite(target) & np.isfinite(offset)
    return _Task(
        inputs,
        torch.from_numpy(_units(examples)),
        torch.from_numpy(np.where(known, target, 0.0).astype(np.float32)),
        torch.from_numpy(known.astype(np.float32)),
        torch.from_numpy(seen.astype(np.float32)),
        torch.from_numpy(np.where(known, offset, 0.0).astype(np.float32)),
    )


def _units(examples: Examples) -> NDArray[np.float32]:
    """What the columns are multiplied by, (n, u): all parts of the action beside each other."""
    return np.concatenate(list(action_parts(examples).values()), axis=1).astype(np.float32)


def _watched(cluster: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    distinct, place = np.unique(cluster, return_inverse=True)
    watched = np.random.default_rng(seed).random(len(distinct)) < WATCHED
    return watched[place.reshape(-1)]


def _state(module: Columns) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _standardise(module: Columns, inputs: torch.Tensor) -> None:
    with torch.no_grad():
        columns = module.hidden(inputs).double()
        spread = columns.std(dim=0)
        module.mean.copy_(columns.mean(dim=0))
        module.scale.copy_(torch.where(spread > _FLAT, 1.0 / spread.clamp(min=_FLAT), torch.ones_like(spread)))
