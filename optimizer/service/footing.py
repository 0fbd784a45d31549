"""What a served model is refitted on once outcomes have changed.

A model from before a change is anchored there: its weights become prior means, and only rows since are read
(``model.training.train.anchor``). It keeps that footing until a retrain replaces it or outcomes change again. A model
that was trained since has what is remembered (``forgetting``), as that training had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.model.artifact import unpack
from optimizer.service.feedback import Logged
from optimizer.service.forgetting import remembered


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


def latest(changed: Mapping[str, float]) -> float | None:
    """When outcomes last changed in any campaign: a model is of all campaigns of its workspace."""
    return max(changed.values(), default=None)


def footing_of(blob: bytes, changed: Mapping[str, float]) -> Footing:
    """What the model in ``blob`` is refitted on; ``changed``: when outcomes last changed, by campaign.

    Raises:
        BadArtifact: the blob can't be read.
    """
    meta = unpack(blob)[2]
    known, last = meta.get("changed"), latest(changed)
    if last is not None and (known is None or known < last):
        return Footing(last, anchors=True)
    return Footing(known if meta.get("anchored") else None, anchors=False)
