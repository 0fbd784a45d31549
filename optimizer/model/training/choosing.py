"""Training an encoder of histories, and choosing among the three by held-out likelihood and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.history import Encoder
from optimizer.model.training.encoders import COST_US, ENCODERS, Reader
from optimizer.model.training.network import Course, fit_columns

#: Learning rates of what reads the newest event, and of the rest.
RATE, SLOW = 3e-3, 1e-3
DECAY = 0.5
#: Encoders overfit after a few epochs of large logs; small ones need more passes, and early stopping ends them.
EPOCHS, PATIENCE = 16, 4
#: A batch has the 64th part of the rows within these bounds.
BATCH_SHARE, SMALLEST, LARGEST = 64, 64, 512
#: ``auto`` compares the encoders on at most this many rows; the chosen one is trained on all that it is given.
COMPARED = 20_000
#: What a microsecond a decision has to bring, in nats an outcome: a transformer must beat a cnn by .0002.
NATS_PER_US = 4e-6


@dataclass(frozen=True)
class Chosen:
    """A trained encoder, and the gain (nats an outcome, on recipients that early stopping watched) of each tried."""

    reader: Reader
    kind: Encoder
    gains: Mapping[Encoder, float]


def train_encoder(
    kind: Encoder,
    size: int,
    ids: NDArray[np.int32],
    examples: Examples,
    logits: Mapping[str, NDArray[np.float64]],
    *,
    seed: int,
) -> Chosen:
    """Trains an encoder on what the linear model leaves unexplained.

    Args:
        kind: which one; ``auto`` trains each on a sample and takes the one with the largest gain less cost.
        size: number of ids. ids: (n, 32, 6) the histories of the n examples.
        logits: per outcome (n,) the linear model's η. seed: makes it deterministic.
    """
    if kind != "auto":
        reader, gain = _train(kind, size, ids, examples, logits, seed)
        return Chosen(reader, kind, {kind: gain})
    used = np.sort(np.random.default_rng(seed).permutation(len(examples))[:COMPARED])
    sample, offsets = examples.take(used), {name: eta[used] for name, eta in logits.items()}
    tried = {name: _train(name, size, ids[used], sample, offsets, seed) for name in ENCODERS}
    gains = {name: gain for name, (_, gain) in tried.items()}
    best = max(ENCODERS, key=lambda name: gains[name] - NATS_PER_US * COST_US[name])
    whole = tried[best] if len(used) == len(examples) else _train(best, size, ids, examples, logits, seed)
    return Chosen(whole[0], best, gains)


def _train(
    kind: Encoder,
    size: int,
    ids: NDArray[np.int32],
    examples: Examples,
    logits: Mapping[str, NDArray[np.float64]],
    seed: int,
) -> tuple[Reader, float]:
    generator = torch.Generator().manual_seed(seed)
    reader = ENCODERS[kind](size, generator)
    newest, rest = reader.groups()
    batch = min(LARGEST, max(SMALLEST, len(examples) // BATCH_SHARE))
    course = Course(((newest, RATE), (rest, SLOW)), DECAY, batch, EPOCHS, PATIENCE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws from torch's own generator
        return reader, fit_columns(reader, torch.from_numpy(ids), examples, logits, course, generator, seed=seed)
