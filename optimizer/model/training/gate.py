"""Whether the network's columns join f(x): only when held-out recipients are clearly better predicted with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.training.evaluate import clustered_z, likelihood, predictions
from optimizer.model.training.lastlayer import tabulate
from optimizer.model.training.network import Network, train_network
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.variantbasis import VariantBasis

#: Fewer rows can't teach a network, nor show that it helps.
LEAST_ROWS = 2_000
HELD_OUT = 0.25
#: The comparison uses at most this many rows; more would only sharpen a difference that is already clear.
MOST_ROWS = 40_000


@dataclass(frozen=True)
class NetworkVerdict:
    """What was decided, and the evidence: held-out gain a row in nats, its clustered z, the rows it rests on."""

    network: Network | None
    gain: float
    z: float
    rows: int
    reason: str


def judge_network(
    examples: Examples, spec: FeatureSpec, basis: VariantBasis, *, seed: int, options: TrainOptions = DEFAULTS
) -> NetworkVerdict:
    """Trains a network on three quarters of the recipients and compares it on the rest.

    The network never sees the recipients that judge it, nor does its early stopping (it has watched ones of its own).
    """
    if len(examples) < LEAST_ROWS or spec.width == 0:
        return NetworkVerdict(None, 0.0, 0.0, len(examples), f"fewer than {LEAST_ROWS} rows, or no features")
    distinct, place = np.unique(examples.cluster, return_inverse=True)
    generator = np.random.default_rng(seed)
    held_out = (generator.random(len(distinct)) < HELD_OUT)[place.reshape(-1)]
    used = generator.permutation(len(examples))[:MOST_ROWS]
    examples, held_out = examples.take(used), held_out[used]
    encoded = spec.encode(examples.contexts)
    learn = np.flatnonzero(~held_out)
    if len(learn) < LEAST_ROWS // 2 or held_out.sum() < LEAST_ROWS // 10:
        return NetworkVerdict(None, 0.0, 0.0, len(examples), "too few recipients to hold some out")
    plain = predictions(tabulate(examples, encoded, spec, basis), learn)
    own = examples.take(learn)
    network = train_network(
        own, encoded[learn], {name: eta[learn] for name, eta in plain.items()}, seed=seed, decay=options.decay
    )
    wide = _features(network, encoded)
    better = predictions(tabulate(examples, wide, spec, basis), learn)
    gains = np.zeros(len(examples))
    for name in plain:
        known = np.isfinite(examples.outcome[name]) & np.isfinite(plain[name])
        y, seen = examples.outcome[name][known], examples.share(name)[known]
        gains[known] += likelihood(better[name][known], y, seen) - likelihood(plain[name][known], y, seen)
    gain, z = clustered_z(gains[held_out], examples.cluster[held_out])
    passed = z > options.margin and gain > 0
    reason = f"held-out gain {gain:.2e} nats a row, z = {z:.2f}, needed > {options.margin:g}"
    return NetworkVerdict(network if passed else None, gain, z, int(held_out.sum()), reason)


def _features(network: Network, encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        features: NDArray[np.float32] = network.features(torch.from_numpy(encoded)).numpy()
    return features
