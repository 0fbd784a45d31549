"""The small network whose hidden columns may join f(x), trained on what the linear model leaves unexplained.

The linear last layer's η enters as a fixed offset, so the network spends its capacity on residual structure; its
columns then go through the same structured last layer as the skip columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from optimizer.model.examples import Examples
from optimizer.model.timefeatures import SHORT, harmonics
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
_FLAT = 1e-3


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

    def constants(self) -> dict[str, NDArray[np.float32]]:
        """Weights by the names that ``export`` gives them; matrices as (in, out)."""
        named = {
            "w1": self.first.weight.T,
            "b1": self.first.bias,
            "w2": self.second.weight.T,
            "b2": self.second.bias,
            "mean": self.mean,
            "scale": self.scale,
        }
        return {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in named.items()}


@dataclass(frozen=True)
class _Task:
    """Tensors over n rows: inputs (n, d), action units (n, u), targets, known flags, seen shares, offsets (n, K)."""

    inputs: torch.Tensor
    units: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor
    seen: torch.Tensor
    offset: torch.Tensor

    def loss(self, network: Network, head: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
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
    """Trains a network with AdamW, stopped early on held-out recipients.

    Args:
        examples: the n rows. encoded: (n, width) their encoded contexts.
        logits: per outcome (n,) the linear model's η. seed: makes it deterministic.
        decay: of the weights, decoupled.
    """
    generator = torch.Generator().manual_seed(seed)
    task = _task(examples, encoded, logits)
    network = Network(encoded.shape[1], generator)
    head = torch.zeros((task.units.shape[1], NARROW, task.target.shape[1]))
    nn.init.normal_(head, std=0.1, generator=generator)
    head.requires_grad_()
    watched = _watched(examples.cluster, seed)
    learn, watch = torch.from_numpy(np.flatnonzero(~watched)), torch.from_numpy(np.flatnonzero(watched))
    adamw = torch.optim.AdamW([*network.parameters(), head], lr=RATE, weight_decay=decay)
    best, best_loss, waited = _state(network), float("inf"), 0
    for _ in range(EPOCHS):
        order = learn[torch.randperm(len(learn), generator=generator)]
        for start in range(0, len(order), BATCH):
            adamw.zero_grad()
            task.loss(network, head, order[start : start + BATCH]).backward()  # type: ignore[no-untyped-call]  # torch's own
            adamw.step()
        with torch.no_grad():
            loss = float(task.loss(network, head, watch))
        if loss < best_loss - 1e-5:
            best, best_loss, waited = _state(network), loss, 0
        else:
            waited += 1
            if waited >= PATIENCE:
                break
    network.load_state_dict(best)
    _standardise(network, task.inputs)
    return network


def _task(examples: Examples, encoded: NDArray[np.float32], logits: Mapping[str, NDArray[np.float64]]) -> _Task:
    names = [name for name in examples.outcomes if name in logits]
    target = np.stack([examples.outcome[name] for name in names], axis=1)
    seen = np.stack([examples.share(name) for name in names], axis=1)
    offset = np.stack([logits[name] for name in names], axis=1)
    known = np.isfinite(target) & np.isfinite(offset)
    return _Task(
        torch.from_numpy(encoded),
        torch.from_numpy(_units(examples)),
        torch.from_numpy(np.where(known, target, 0.0).astype(np.float32)),
        torch.from_numpy(known.astype(np.float32)),
        torch.from_numpy(seen.astype(np.float32)),
        torch.from_numpy(np.where(known, offset, 0.0).astype(np.float32)),
    )


def _units(examples: Examples) -> NDArray[np.float32]:
    """What the columns are multiplied by, (n, u): 1, no_send, short time harmonics, channel and variant."""
    sent = examples.sent
    time = harmonics(examples.local)[:, :SHORT] * sent[:, None]
    names = np.array(
        [
            campaign.channels[channel].id if channel >= 0 else ""
            for campaign, channel in zip(
                (examples.campaigns[i] for i in examples.campaign.tolist()), examples.channel.tolist(), strict=True
            )
        ]
    )
    variants = examples.campaign * 4096 + examples.variant
    columns = [np.ones((len(sent), 1)), ~sent[:, None], time]
    columns += [_one_hot(names, sent), _one_hot(variants, sent)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _one_hot(keys: NDArray[np.generic], where: NDArray[np.bool_], most: int = 32) -> NDArray[np.bool_]:
    """One-hot of the most frequent keys among the rows ``where``; rows elsewhere are zero."""
    distinct, counts = np.unique(keys[where], return_counts=True)
    kept = distinct[np.argsort(-counts, kind="stable")[:most]]
    hit: NDArray[np.bool_] = (keys[:, None] == kept[None, :]) & where[:, None]
    return hit


def _watched(cluster: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    distinct, place = np.unique(cluster, return_inverse=True)
    watched = np.random.default_rng(seed).random(len(distinct)) < WATCHED
    return watched[place.reshape(-1)]


def _state(network: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _standardise(network: Network, inputs: torch.Tensor) -> None:
    with torch.no_grad():
        columns = network.hidden(inputs).double()
        spread = columns.std(dim=0)
        network.mean.copy_(columns.mean(dim=0))
        network.scale.copy_(torch.where(spread > _FLAT, 1.0 / spread.clamp(min=_FLAT), torch.ones_like(spread)))
