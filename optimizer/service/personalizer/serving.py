"""The newest model of each loop in this process: looked for with every request, loaded when another one is the newest.

The request that finds a newer generation loads it, while those beside it go on with the old one. A model that fails its
checks never replaces the one that serves.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import datetime

from optimizer.errors import BadArtifact
from optimizer.model.adf import AdfModel
from storage.port import Reader

log = logging.getLogger("sendtide.personalizer")

#: Loops whose models are held; with more, the one asked for least recently goes.
_HELD = 32


@dataclass(frozen=True, slots=True)
class Served:
    """A loop's model as this process has it, and when it was made; None = nothing learned yet."""

    generation: int
    model: AdfModel | None
    made_at: datetime | None = None


class LoopModels:
    """Holds models. Safe between threads."""

    def __init__(self) -> None:
        self._held: dict[str, Served] = {}
        self._refused: dict[str, tuple[int, datetime | None]] = {}
        self._loading = threading.Lock()

    def current(self, reader: Reader, workspace_id: str) -> Served:
        """The model that this loop serves now, on the reader's snapshot."""
        held = self._held.get(workspace_id, Served(0, None))
        newest = reader.rank_newest(workspace_id)
        if newest == (held.generation, held.made_at) or self._refused.get(workspace_id) == newest:
            return held
        if not self._loading.acquire(blocking=held.generation == 0):
            return held
        try:
            return self._load(reader, workspace_id, held)
        finally:
            self._loading.release()

    def _load(self, reader: Reader, workspace_id: str, held: Served) -> Served:
        stored = reader.rank_model(workspace_id)
        if stored is None:  # the database was restored to before there was one
            self._held.pop(workspace_id, None)
            return Served(0, None)
        try:
            model = AdfModel.from_blob(stored.blob) if stored.blob else None
        except BadArtifact as fault:
            self._refused[workspace_id] = (stored.generation, stored.made_at)
            log.error("model not loaded; the old one stays", extra={"workspace": workspace_id, "fault": fault.detail})
            return held
        served = Served(stored.generation, model, stored.made_at)
        self._held.pop(workspace_id, None)
        while len(self._held) >= _HELD:
            self._held.pop(next(iter(self._held)), None)
        self._held[workspace_id] = served
        return served
