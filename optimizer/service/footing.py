"""What a served model is refitted on once a campaign's outcomes have changed.

A model from before the change is anchored there for that campaign: its weights become prior means, and only rows since
are read (``model.training.train.anchor``). It keeps that footing until a retrain replaces it or outcomes change again.
A model that was trained since has what is remembered (``forgetting``), as that training had; so has a young one, which
knows little that could be kept, and one that was stored before models knew of changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.model.artifact import unpack
from optimizer.model.training.options import learned_from
from optimizer.service.feedback import Logged
from optimizer.service.forgetting import remembered

#: Rows from which on a model is worth anchoring: it is measured on models of 10,000, and a resting group has no draws.
GROWN = 2_000


@dataclass(frozen=True)
class Footing:
    """``since``: decisions from before (epoch seconds) are not read (None = what is remembered is); ``anchors``:
    whether the model is to be anchored there now."""

    since: float | None = None
    anchors: bool = False

    @property
    def anchor(self) -> float | None:
        """Where the model is to be anchored now, if it is."""
        return self.since if self.anchors else None

    def rows(self, rows: Sequence[Logged], changed: Mapping[str, float]) -> list[Logged]:
        """Those with a running clock that are read, of rows in order of time."""
        started = [row for row in rows if row.started]
        if self.since is None:
            return remembered(started, changed)
        return [row for row in started if row.decision.decided_at.timestamp() >= self.since]


@dataclass(frozen=True)
class Known:
    """What a stored model says of itself.

    Attributes:
        rows: how many it has learned from.
        changed: campaign -> when its outcomes last changed, as far as its training knew (None = it wasn't asked yet).
        since: where it is anchored, in epoch seconds (None = nowhere).
        learned: from how many its features and prior precisions were learned.
    """

    rows: int
    changed: Mapping[str, float] | None
    since: float | None
    learned: int


def known_of(blob: bytes) -> Known:
    """What the model in ``blob`` says of itself; ``BadArtifact`` if it can't be read."""
    meta = unpack(blob)[2]
    anchored = meta.get("anchored")
    return Known(meta["rows"], meta.get("changed"), anchored["since"] if anchored else None, learned_from(meta))


def footing_of(model: Known, campaign_id: str, changed: Mapping[str, float]) -> Footing:
    """What a model is refitted on for a campaign; ``changed``: when outcomes last changed, by campaign."""
    last, known = changed.get(campaign_id), model.changed
    new = last is not None and known is not None and known.get(campaign_id, 0.0) < last
    return Footing(last, anchors=True) if new and model.rows >= GROWN else Footing(model.since)


def told_as(origin: str, footing: Footing, model: Known) -> str:
    """Under which name it is kept what settled rows say of a model that came from the retrain ``origin``: anchored
    elsewhere, or with features learned anew, it is another one."""
    name = f"{origin}~{model.learned}"
    return name if footing.since is None else f"{name}@{footing.since:.6f}"
