"""Serving side of the reward model: load a blob, embed contexts, score actions. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.bandit.actions import ActionSpace, Spaces
from optimizer.errors import BadArtifact
from optimizer.model.artifact import unpack
from optimizer.model.embedding import Embedder
from optimizer.model.features import FeatureSpec
from optimizer.model.funnel import visible
from optimizer.model.heads import Heads
from optimizer.model.prepared import Prepared, prepare
from optimizer.model.recalibration import Recalibration
from optimizer.model.rhythmterm import RhythmTerm
from optimizer.model.scoring import ScoredRows, Scores, score_rows
from optimizer.model.variantbasis import VariantBasis
from storage.records import Campaign, JsonObject, OutcomeWeight

__all__ = ["RewardModel", "Scores"]

#: Version of what the artifact's meta and arrays mean (its container has one of its own). 3: time columns by name.
FORMAT = 3
_READ = (2, FORMAT)
#: Campaigns kept prepared; each holds some hundred kB to some MB.
_PREPARED = 64
_NONE: Mapping[str, float] = MappingProxyType({})


class RewardModel:
    """A trained model, ready to score. Immutable once loaded, so threads share it; load it after a fork."""

    def __init__(self, graph: bytes, arrays: Mapping[str, NDArray[Any]], meta: JsonObject) -> None:
        if meta.get("format") not in _READ:
            raise BadArtifact(f"model has format {meta.get('format')!r}, this release reads {_READ[0]} and {FORMAT}")
        try:
            self._spec = FeatureSpec.from_json(meta["spec"])
            self._message = Heads.load("message", arrays, meta["message"])
            self._no_send = Heads.load("no_send", arrays, meta["no_send"])
            scales = {name: (float(mid), float(half)) for name, (mid, half) in meta.get("variant_numbers", {}).items()}
            self._basis = VariantBasis(arrays["basis.mean"], arrays["basis.directions"], scales)
            self._values: JsonObject = meta["values"]
            self._width = float(meta["width"])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"model is incomplete: {error!r}") from error
        if not (np.isfinite(self._basis.mean).all() and np.isfinite(self._basis.directions).all()):
            raise BadArtifact("the basis of variants holds numbers that are not finite")
        self._rhythm = RhythmTerm.load(arrays, meta)
        self._meta = meta
        self._graph = graph
        self._embedder = Embedder(self._spec, graph)
        for heads in (self._message, self._no_send):
            wanted, given = len(heads.layout.context), self._embedder.width
            if wanted != given:
                raise BadArtifact(f"the graph gives {given} features, the heads want {wanted}")
        banks = self._message.bank.shape[1], self._no_send.bank.shape[1]
        if banks[0] != banks[1]:
            raise BadArtifact(f"message heads have {banks[0]} draws, those without a message {banks[1]}")
        self._prepared: dict[tuple[object, ...], Prepared] = {}

    @classmethod
    def load(cls, blob: bytes) -> RewardModel:
        """A model from its blob.

        Raises:
            BadArtifact: the blob fails its checksum, its format, or its parts don't fit together.
        """
        return cls(*unpack(blob))

    @property
    def artifact_meta(self) -> JsonObject:
        """The artifact's meta: spec, layouts, value sketches, rows, seed."""
        return self._meta

    def own_counts(self, campaign_id: str) -> Mapping[str, Sequence[float]] | None:
        """How a campaign's own training rows fell into the bins of each column (``featurebins``): empty when it had
        none, None when all rows are told by the spec."""
        told: Mapping[str, Mapping[str, Sequence[float]]] | None = self._meta.get("bins")
        return None if told is None else told.get(campaign_id, {})

    @property
    def graph(self) -> bytes:
        """The ONNX graph, for a refresh that keeps it."""
        return self._graph

    @property
    def spec(self) -> FeatureSpec:
        """The feature spec."""
        return self._spec

    @property
    def feature_hash(self) -> str:
        """Hash of the feature spec, kept with every decision."""
        return self._spec.hash

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Outcomes whose chances it tells."""
        return visible(self._message.outcomes)

    def calibrated(self, outcome: str, chance: ArrayLike, *, message: bool) -> NDArray[np.float64]:
        """Chances of an outcome as they are told as scores; ``message`` False: of not sending. Policies don't use it.

        An outcome that can't happen without a message keeps its chance of 0.
        """
        heads, kind = (self._message, "message") if message else (self._no_send, "no_send")
        if outcome not in heads.outcomes:
            return np.asarray(chance, np.float64)
        return self._correction(kind, outcome)(chance)

    def design(self, outcome: str, *, message: bool) -> float:
        """How many rows told as much of an outcome as one recipient's would, at least 1 (see ``Recalibration``)."""
        return self._correction("message" if message else "no_send", outcome).design

    def _correction(self, kind: str, outcome: str) -> Recalibration:
        return Recalibration.stored(self._meta.get("calibration", {}), kind, outcome)

    def hours(self, campaign_id: str) -> Sequence[int] | None:
        """How many learned messages of a campaign were sent at each local hour of the day; None = it isn't known."""
        found: Sequence[int] | None = self._meta.get("hours", {}).get(campaign_id)
        return found

    def unsent(self, outcome: str) -> int | None:
        """How many decisions without a message have told of an outcome: what its chance without one rests on.

        Models of before this was counted know it of the rows that calibrated them, up to 20,000 of both kinds; None:
        they don't know. 0 of an outcome that needs a message.
        """
        if outcome not in self._no_send.outcomes:
            return 0
        if "unsent" in self._meta:
            return int(self._meta["unsent"].get(outcome, 0))
        told = self._meta.get("calibration", {}).get("no_send", {}).get(outcome)
        return None if told is None else int(told["rows"])

    @property
    def message(self) -> Heads:
        """Heads of messages."""
        return self._message

    @property
    def no_send(self) -> Heads:
        """Heads of not sending: only outcomes that need no message."""
        return self._no_send

    @property
    def basis(self) -> VariantBasis:
        """Coordinates of variants."""
        return self._basis

    @property
    def embedder(self) -> Embedder:
        """The graph's session."""
        return self._embedder

    @property
    def rhythm(self) -> RhythmTerm | None:
        """How message heads follow recipients' own rhythms; None = they don't."""
        return self._rhythm

    def embed(self, contexts: Sequence[JsonObject]) -> NDArray[np.float32]:
        """f(x) of contexts: float32 (n, F); a row never depends on the others."""
        return self._embedder.embed(contexts)

    def score(
        self, embedded_row: NDArray[np.float32], space: ActionSpace, campaign: Campaign, effects: JsonObject
    ) -> Scores:
        """Scores of every action of a space: ``score_rows`` of one row."""
        return Scores(self.score_rows(embedded_row[None], Spaces.stacked([space]), campaign, [effects]))

    def score_outcome(
        self,
        embedded_row: NDArray[np.float32],
        space: ActionSpace,
        campaign: Campaign,
        effects: JsonObject,
        outcome: str,
    ) -> Scores:
        """Scores of every action of a space whose reward is the chance of one outcome, at no cost.

        Draws are as wide as the posterior: they tell how much is known, and explore nothing.
        """
        ready = self._prepare(campaign, space.variants, space.channels, _NONE, outcome)
        spaces = Spaces.stacked([space])
        shift = [self._shift(effects, spaces.local[0])]
        return Scores(score_rows(ready, self._message.outcomes, embedded_row[None], spaces, shift))

    def score_rows(
        self,
        embedded: NDArray[np.float32],
        spaces: Spaces,
        campaign: Campaign,
        effects: Sequence[JsonObject],
        own: Mapping[str, float] = _NONE,
    ) -> ScoredRows:
        """Scores of every action of n spaces; each row's numbers are the very ones that it would get alone.

        Args:
            embedded: (n, F) rows of ``embed``.
            spaces: the actions; variants and channels must be the campaign's.
            campaign: whose objective and costs make the reward. An outcome the model has no head for counts 0.
            effects: for each row what is known of the recipient beyond the context: tallies of its weekly rhythm.
                Callers store what they pass, so that decisions stay replayable.
            own: variant -> least factor on the posterior's standard deviations in the draws of what it has of its own.
        """
        ready = self._prepare(campaign, spaces.variants, spaces.channels, own)
        shift = [self._shift(one, local) for one, local in zip(effects, spaces.local, strict=True)]
        return score_rows(ready, self._message.outcomes, embedded, spaces, shift)

    def _shift(self, effects: JsonObject, local: NDArray[np.int64]) -> NDArray[np.float64] | None:
        return None if self._rhythm is None else self._rhythm.shift(self._message.outcomes, effects, local)

    def warm_up(self) -> None:
        """Runs the graph once, so that the first decision isn't the slow one."""
        self._embedder.embed([{}])

    def prepare(
        self,
        campaign: Campaign,
        variants: tuple[str, ...],
        channels: tuple[str, ...],
        own: Mapping[str, float] = _NONE,
    ) -> None:
        """Gets ready what every decision over these variants and channels needs, so that the first one needn't."""
        self._prepare(campaign, variants, channels, own)

    def _prepare(
        self,
        campaign: Campaign,
        variants: tuple[str, ...],
        channels: tuple[str, ...],
        own: Mapping[str, float],
        outcome: str | None = None,
    ) -> Prepared:
        """What scores of a campaign need; of an outcome: of that alone, see ``score_outcome``."""
        key = (
            outcome,
            campaign.workspace_id,
            campaign.campaign_id,
            campaign.version,
            campaign.updated_at,
            variants,
            channels,
            tuple(sorted(own.items())),
        )
        ready = self._prepared.get(key)
        if ready is None:
            ready = prepare(
                self._message,
                self._no_send,
                self._basis,
                self._values,
                self._width if outcome is None else 1.0,
                own,
                campaign=campaign if outcome is None else _for_outcome(campaign, outcome),
                variants=variants,
                channels=channels,
            )
            older = [one for one in list(self._prepared) if one[:-1] == key[:-1]]
            for one in older[:-1]:  # a late variant's widths change with every revision
                self._prepared.pop(one, None)
            while len(self._prepared) >= _PREPARED:
                self._prepared.pop(next(iter(self._prepared)), None)
            self._prepared[key] = ready
        return ready


def _for_outcome(campaign: Campaign, outcome: str) -> Campaign:
    """The campaign if one outcome were worth 1, and nothing else were worth or cost anything."""
    return replace(
        campaign,
        objective={outcome: OutcomeWeight(1.0)},
        variants=tuple([replace(variant, cost=0.0) for variant in campaign.variants]),
        channels=tuple([replace(channel, cost=0.0) for channel in campaign.channels]),
    )
