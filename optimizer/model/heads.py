"""The fitted heads of one kind (message or no_send): posterior means, the frozen bank of draws, their layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import BadArtifact
from optimizer.model.funnel import SURE, Blind, is_blind, steps
from optimizer.model.layout import OWN, Action, Block, Layout, Segment, Unit
from optimizer.model.timefeatures import HOURS_OF_DAY, HOURS_OF_WEEK
from storage.records import JsonObject

#: What is new may differ where all that is known is alike: its prior precision is at most this.
SUREST = 100.0
#: outcome -> earlier outcome -> how much of its weights holds for the later one a priori (see ``training.links``).
Links = Mapping[str, Mapping[str, float]]
_ONE_HOT: tuple[Unit, ...] = ("campaign", "channel", "variant", "pair")


@dataclass(frozen=True)
class Heads:
    """Heads of H outcomes over one layout of d weights.

    Attributes:
        outcomes: H names. layout: what the weights mean.
        mean: (H, d) float64. bank: (H, M, d) float32 draws of the deviation from the mean.
        precision: (H, groups) prior precisions, of differences where there is a centre. offset: (H,) prior mean of
            each intercept.
        seed: keys the draws of weights that did not exist in training.
        centre: (H, d) prior means where they aren't 0: the weights before outcomes changed, if the model has been
            anchored there (see ``training.train.anchor``).
        links: how much of earlier outcomes' weights the prior means hold beside that.
        blind: of which messages no opens are reported: those count as looked at (see ``funnel``).
        doubt: (H, M, d) float16, what the draws deviate beside the bank since prior precisions are in doubt, too (see
            ``training.doubt``); None in artifacts from before that.
    """

    outcomes: tuple[str, ...]
    layout: Layout
    mean: NDArray[np.float64]
    bank: NDArray[np.float32]
    precision: NDArray[np.float64]
    offset: NDArray[np.float64]
    seed: int
    centre: NDArray[np.float64] | None = None
    links: Links = field(default_factory=dict)
    doubt: NDArray[np.float16] | None = None
    blind: Blind = field(default_factory=dict)

    def coefficients(self, action: Action) -> NDArray[np.float64]:
        """Mean base coefficients (H, base) of an action, offset included."""
        out = self.layout.cell(action).coefficients(self.mean, self.layout.base)
        out[:, 0] += self.offset + self.deemed(action)
        return out

    def deemed(self, action: Action) -> NDArray[np.float64]:
        """(H,) what is added to the log odds of looks where nobody can tell of them."""
        out = np.zeros(len(self.outcomes))
        if is_blind(self.blind, action.campaign_id, action.channel):
            out[[before for _, before in steps(self.outcomes)]] = SURE
        return out

    def deviations(
        self, action: Action, heads: NDArray[np.int64], own: float = 1.0, doubt: float = 1.0
    ) -> NDArray[np.float64]:
        """Draws of the base coefficients' deviation, (len(heads), M, base); ``own`` multiplies what the variant has of
        its own, ``doubt`` what is due to precisions in doubt, the larger one what is both.

        A variant, channel, pair or campaign that training has not seen varies as its prior does: it is uncertain, and
        exploration must see that.
        """
        out = self.layout.cell(action, own).coefficients(self.bank[heads].astype(np.float64), self.layout.base)
        if self.doubt is not None:
            drawn = doubt * self.doubt[heads].astype(np.float64)
            out += self.layout.cell(action, max(1.0, own / doubt)).coefficients(drawn, self.layout.base)
        for block in self.layout.blocks:
            key = action.key(block.unit) if block.unit in _ONE_HOT else None
            if key is None or key in self._known(block.unit):
                continue
            at, factor = self.layout.offsets[block.segment], own if block.unit in OWN else 1.0
            for i, head in enumerate(heads.tolist()):
                out[i, :, at] += factor * self._unseen(head, block, key, block.width)
        return out

    def bucket_means(self) -> NDArray[np.float64]:
        """Mean residual of every hour of the week, (H, 168): hour of day + hour of week; 0 where never seen."""
        return self._buckets(self.mean)

    def bucket_deviations(self, heads: NDArray[np.int64], doubt: float = 1.0) -> NDArray[np.float64]:
        """Draws of those residuals, (len(heads), M, 168); hours never seen vary as their prior does; ``doubt`` as for
        ``deviations``."""
        out = self._buckets(self.bank[heads].astype(np.float64))
        if self.doubt is not None:
            out += doubt * self._buckets(self.doubt[heads].astype(np.float64))
        for block in self.layout.blocks:
            if block.segment not in ("hour", "week"):
                continue
            for hour in sorted(set(range(_period(block.segment))) - set(self._live(block.segment))):
                for i, head in enumerate(heads.tolist()):
                    noise = self._unseen(head, block, str(hour), 1)
                    out[i, :, hour :: _period(block.segment)] += noise
        return out

    def save(self, prefix: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and JSON for an artifact."""
        arrays: dict[str, NDArray[Any]] = {
            f"{prefix}.mean": self.mean,
            f"{prefix}.bank": self.bank,
            f"{prefix}.precision": self.precision,
            f"{prefix}.offset": self.offset,
        }
        if self.centre is not None:
            arrays[f"{prefix}.centre"] = self.centre
        if self.doubt is not None:
            arrays[f"{prefix}.doubt"] = self.doubt
        told: dict[str, Any] = {"outcomes": list(self.outcomes), "layout": self.layout.to_json(), "seed": self.seed}
        if self.blind:
            told["blind"] = dict(self.blind)
        if self.links:
            told["links"] = {name: dict(shares) for name, shares in self.links.items()}
        return arrays, told

    @classmethod
    def load(cls, prefix: str, arrays: Mapping[str, NDArray[Any]], data: JsonObject) -> Heads:
        """The heads written by ``save``.

        Raises:
            BadArtifact: a part is missing, the shapes don't fit together, or a number is not finite.
        """
        try:
            layout = Layout.from_json(data["layout"])
            mean, bank, precision, offset = (
                arrays[f"{prefix}.{name}"] for name in ("mean", "bank", "precision", "offset")
            )
            centre, doubt = arrays.get(f"{prefix}.centre"), arrays.get(f"{prefix}.doubt")
            names, seed, links = tuple(data["outcomes"]), int(data["seed"]), data.get("links", {})
            told = data.get("blind", {})
            blind = {channel: None if some is None else tuple(some) for channel, some in told.items()}
            heads = cls(names, layout, mean, bank, precision, offset, seed, centre, links, doubt, blind)
            groups = len(layout.groups)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"{prefix} heads can't be read: {error!r}") from error
        count = len(heads.outcomes)
        fits = (
            mean.shape == (count, layout.size)
            and bank.ndim == 3
            and (bank.shape[0], bank.shape[2]) == mean.shape
            and precision.shape == (count, groups)
            and offset.shape == (count,)
            and (centre is None or centre.shape == mean.shape)
            and (doubt is None or doubt.shape == bank.shape)
        )
        if not fits:
            raise BadArtifact(f"{prefix} heads have arrays whose shapes don't fit {count} outcomes of {layout.size}")
        numbered = {
            "mean": mean,
            "bank": bank,
            "precision": precision,
            "offset": offset,
            "centre": centre,
            "doubt": doubt,
        }
        for name, numbers in numbered.items():
            if numbers is not None and not np.isfinite(numbers).all():
                raise BadArtifact(f"{prefix}.{name} holds numbers that are not finite")
        return heads

    def _known(self, unit: Unit) -> Mapping[str, int]:
        for block in self.layout.blocks:
            if (block.unit, block.segment) == (unit, "one"):
                return block.position
        return {}

    def _unseen(self, head: int, block: Block, key: str, width: int) -> NDArray[np.float64]:
        """(M, width) draws of what training has not seen, and of a linked head's share of what earlier ones draw."""
        out = self._prior_draws(head, block, key, width)
        for first, share in self.links.get(self.outcomes[head], {}).items():
            out = out + share * self._prior_draws(self.outcomes.index(first), block, key, width)
        return out

    def _prior_draws(self, head: int, block: Block, key: str, width: int) -> NDArray[np.float64]:
        """(M, width) from the block's prior, keyed by (seed, outcome, block, key)."""
        precision = np.minimum(self.precision[head, self.layout.columns_of(block)[:width]], SUREST)
        drawn = _noise_of_one if width == 1 else _noise
        noise = drawn(f"{self.seed}|{self.outcomes[head]}|{block.name}|{key}", self.bank.shape[1], width)
        return np.asarray(noise / np.sqrt(precision), dtype=np.float64)

    def _buckets(self, weights: NDArray[Any]) -> NDArray[np.float64]:
        out = np.zeros((*weights.shape[:-1], HOURS_OF_WEEK))
        for block in self.layout.blocks:
            if block.segment in ("hour", "week"):
                for i, hour in enumerate(self._live(block.segment)):
                    out[..., hour :: _period(block.segment)] += weights[..., block.start + i, None]
        return out

    def _live(self, segment: Segment) -> tuple[int, ...]:
        return self.layout.hour if segment == "hour" else self.layout.week


def _noise(name: str, draws: int, width: int) -> NDArray[np.float64]:
    """Standard normal draws (draws, width) of that name.

    ``RandomState`` is the generator whose stream NumPy promises never to change (NEP 19): a decision replays on any
    version.
    """
    seed = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little")
    noise = np.random.RandomState(seed).standard_normal((draws, width))
    noise.flags.writeable = False  # one array for all who ask for that name
    return noise


#: Hours that were never seen are many, and a policy's revisions ask for the same ones again.
_noise_of_one = lru_cache(maxsize=8_192)(_noise)


def _period(segment: Segment) -> int:
    return HOURS_OF_DAY if segment == "hour" else HOURS_OF_WEEK
