"""Which columns join f(x): products of two features that residuals clearly ask for, and learned ones, an encoder's of
the history and a network's, only when held-out recipients are clearly better predicted with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.history import Encoder
from optimizer.model.training.actionparts import THROUGH, Through
from optimizer.model.training.choosing import NATS_PER_US, Chosen, train_encoder
from optimizer.model.training.encoders import COST_US, Reader
from optimizer.model.training.evaluate import clustered_z, likelihood, logits, only
from optimizer.model.training.fits import Fits
from optimizer.model.training.lastlayer import fit_last_layer
from optimizer.model.training.network import Network, train_network
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.posterior import IDLE
from optimizer.model.training.products import Found, Working, find_products
from optimizer.model.training.table import tabulate
from optimizer.model.variantbasis import VariantBasis

#: Fewer rows can't teach a network, nor show that it helps. An encoder's first columns are simpler than a network's.
LEAST_ROWS = 2_000
LEAST_ENCODER_ROWS = LEAST_PRODUCT_ROWS = 1_000
HELD_OUT = 0.25
#: The comparison uses at most this many rows; more would only sharpen a difference that is already clear.
MOST_ROWS = 40_000
#: A network must be so much surer than an encoder: its columns see everything, and a log of much the same choices can't
#: tell what they say of others. One that was let in at z 1.03 took a play from .76 of the way to the oracle to .53 for
#: 4,000 decisions.
NETWORK_SURER = 2.0
#: What is said where the rows are enough and the recipients are not.
TOO_FEW = "too few recipients to hold some out"
#: Rows whose columns are computed at a time.
CHUNK = 8_192


@dataclass(frozen=True)
class NetworkVerdict:
    """What was decided, and the evidence: held-out gain a row in nats, its clustered z, the rows it rests on."""

    network: Network | None
    gain: float
    z: float
    rows: int
    reason: str


@dataclass(frozen=True)
class EncoderVerdict:
    """The same of an encoder.

    ``kind`` is the one that was tried ("auto": none could be yet); ``tried`` are the gains that it was chosen by.
    """

    reader: Reader | None
    kind: Encoder
    gain: float
    z: float
    rows: int
    reason: str
    tried: Mapping[Encoder, float]


@dataclass(frozen=True)
class Judged:
    """The spec with the products that join it, why they do, and what was decided of learned columns.

    ``fits``: heads over the columns that there are now, fitted to the rows that judged them (None = none were).
    """

    spec: FeatureSpec
    products: tuple[Found, ...]
    network: NetworkVerdict
    encoder: EncoderVerdict
    fits: tuple[Fits, Fits] | None = None


class Court:
    """Rows on which columns prove themselves, one kind after another; what was let in is there for the next.

    Learned columns never see the recipients that judge them, nor does their early stopping (it has watched ones of its
    own).
    """

    def __init__(
        self, examples: Examples, spec: FeatureSpec, basis: VariantBasis, *, seed: int, options: TrainOptions
    ) -> None:
        distinct, place = np.unique(examples.cluster, return_inverse=True)
        generator = np.random.default_rng(seed)
        held_out = (generator.random(len(distinct)) < HELD_OUT)[place.reshape(-1)]
        used = generator.permutation(len(examples))[:MOST_ROWS]
        self.rows = examples.take(used)
        self._held_out = held_out[used]
        self._spec, self._basis, self._seed, self._options = spec, basis, seed, options
        self._numbers = spec.numbers(self.rows.contexts)
        self._encoded = self._columns = spec.completed(self._numbers)
        self._learn = np.flatnonzero(~self._held_out)
        self._eta: dict[str, NDArray[np.float64]] | None = None
        self.fits: tuple[Fits, Fits] | None = None

    def enough(self, rows: int) -> bool:
        """Whether what needs so many rows in all has its part on both sides."""
        return len(self._learn) >= rows // 2 and int(self._held_out.sum()) >= rows // 10

    def products(self) -> tuple[FeatureSpec, tuple[Found, ...]]:
        """The spec with those that join, before any learned column is judged; asked once."""
        eta = self._so_far()
        working = {} if self.fits is None else _working(self.fits[0], self._spec)
        found = find_products(self.rows, self._spec, self._encoded, eta, working)
        if found:
            self._spec = replace(self._spec, products=tuple(one for pair in found for one in pair.products))
            self._encoded = self._columns = self._spec.completed(self._numbers)
            self._eta = self.fits = None
        self._numbers = np.zeros((0, 0))  # nobody asks again, and they take as much room as all else here
        return self._spec, found

    def network(self) -> NetworkVerdict:
        """Whether a network over the encoded context joins."""
        own = self.rows.take(self._learn)
        encoded, decay = self._encoded[self._learn], self._options.decay
        network = train_network(own, encoded, self._offsets(), seed=self._seed, decay=decay)
        features = _apply(network.features, self._encoded)[:, self._spec.width :]
        gain, z, passed, reason = self._compare(features, 0.0, NETWORK_SURER * self._options.margin)
        return NetworkVerdict(network if passed else None, gain, z, int(self._held_out.sum()), reason)

    def encoder(self, kind: Encoder) -> EncoderVerdict:
        """Whether an encoder of the history joins; the spec must have a history."""
        if self._spec.history is None:
            raise ValueError("the feature spec has no history")
        ids = self._spec.history.ids(self.rows.contexts)
        own = self.rows.take(self._learn)
        size = self._spec.history.size
        chosen: Chosen = train_encoder(kind, size, ids[self._learn], own, self._offsets(), seed=self._seed)
        worth_it = NATS_PER_US * COST_US[chosen.kind]
        gain, z, passed, reason = self._compare(_apply(chosen.reader.columns, ids), worth_it, self._options.margin)
        reader = chosen.reader if passed else None
        held_out = int(self._held_out.sum())
        return EncoderVerdict(reader, chosen.kind, gain, z, held_out, reason, chosen.gains)

    def _offsets(self) -> dict[str, NDArray[np.float64]]:
        """η of the rows that columns learn from, by all columns so far."""
        return {name: eta[self._learn] for name, eta in self._so_far().items()}

    def _so_far(self) -> dict[str, NDArray[np.float64]]:
        if self._eta is None:
            self._eta, self.fits = self._predictions(self._columns)
        return self._eta

    def _predictions(self, columns: NDArray[np.float32]) -> tuple[dict[str, NDArray[np.float64]], tuple[Fits, Fits]]:
        """η of all rows from heads fitted to those to learn from, each time from nothing.

        Begun where the plain ones ended, which is faster, precisions end elsewhere, for better or worse, and where the
        columns are noise that difference passed for their gain (z 3.3).
        """
        table = tabulate(self.rows, columns, self._spec, self._basis)
        fits = fit_last_layer(only(table, self._learn), options=self._options)
        return logits(table, fits), fits

    def _compare(self, more: NDArray[np.float32], least: float, margin: float) -> tuple[float, float, bool, str]:
        """Gain, z, whether the columns are let in, and why.

        ``least``: a gain up to this is not worth their cost; ``margin``: what z must exceed.
        """
        plain = self._so_far()
        # In front of those that were let in before, as the graph has them: the network's, then the encoder's.
        wide = np.concatenate((self._encoded, more, self._columns[:, self._encoded.shape[1] :]), axis=1)
        better, fits = self._predictions(wide)
        gains = np.zeros(len(self.rows))
        for name in plain:
            known = np.isfinite(self.rows.outcome[name]) & np.isfinite(plain[name])
            y, seen = self.rows.outcome[name][known], self.rows.share(name)[known]
            gains[known] += likelihood(better[name][known], y, seen) - likelihood(plain[name][known], y, seen)
        gain, z = clustered_z(gains[self._held_out], self.rows.cluster[self._held_out])
        passed = z > margin and gain > least
        if passed:
            self._columns, self._eta, self.fits = wide, better, fits
        return (
            gain,
            z,
            passed,
            f"held-out gain {gain:.2e} nats a row, z = {z:.2f}, needed > {least:.0e} and > {margin:g}",
        )


def _working(fits: Fits, spec: FeatureSpec) -> Working:
    """The features whose weights in the message heads are not at rest, by outcome and part of the action."""
    found: dict[tuple[str, Through], frozenset[str]] = {}
    for name, posterior in fits.posteriors.items():
        live = [
            group.split(":") for (group, _), p in zip(fits.layout.groups, posterior.precision, strict=True) if p < IDLE
        ]
        for through, blocks in THROUGH.items():
            found[name, through] = frozenset(spec.owners[int(one[1])] for one in live if one[0] in blocks)
    return found


def unjudged(spec: FeatureSpec, encoder: Encoder, rows: int) -> Judged:
    """Where nobody asked for more columns."""
    why = "not asked for"
    network = NetworkVerdict(None, 0.0, 0.0, rows, why)
    return Judged(spec, (), network, EncoderVerdict(None, encoder, 0.0, 0.0, rows, why, {}))


def judge_columns(
    examples: Examples,
    spec: FeatureSpec,
    basis: VariantBasis,
    *,
    encoder: Encoder,
    seed: int,
    options: TrainOptions = DEFAULTS,
) -> Judged:
    """Looks for products; trains an encoder and a network on three quarters of the recipients and compares them on the
    rest.

    The encoder comes before the network, since one over the encoded context can't stand in for it.
    """
    n = len(examples)
    network = NetworkVerdict(None, 0.0, 0.0, n, f"fewer than {LEAST_ROWS} rows, or no features")
    read = EncoderVerdict(None, encoder, 0.0, 0.0, n, "not asked for, or no history", {})
    reads = encoder != "none" and spec.history is not None
    if n < LEAST_PRODUCT_ROWS or spec.width == 0:
        few = f"fewer than {LEAST_ENCODER_ROWS} rows"
        return Judged(spec, (), network, replace(read, reason=few) if reads else read)
    court = Court(examples, spec, basis, seed=seed, options=options)
    spec, products = court.products()
    if reads:
        read = court.encoder(encoder) if court.enough(LEAST_ENCODER_ROWS) else replace(read, reason=TOO_FEW)
    if n >= LEAST_ROWS:
        network = court.network() if court.enough(LEAST_ROWS) else replace(network, reason=TOO_FEW)
    return Judged(spec, products, network, read, court.fits)


def _apply(columns: Callable[[torch.Tensor], torch.Tensor], inputs: NDArray[np.generic]) -> NDArray[np.float32]:
    """Columns of all rows, some at a time: a state of each of 32 events is held meanwhile."""
    with torch.no_grad():
        parts = [columns(torch.from_numpy(inputs[i : i + CHUNK])).numpy() for i in range(0, len(inputs), CHUNK)]
    return np.concatenate(parts)
