"""From contexts to f(x): the feature spec, then the ONNX graph of skip columns and, where they were let in, the columns
of a network over the encoded context and of an encoder over the recipient's history."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# From 1.29 on ONNX Runtime reports to its vendor and keeps an id of the machine in the home folder, unless this is set
# before it is loaded; `disable_telemetry_events` comes too late (microsoft/onnxruntime#25573).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from optimizer.errors import BadArtifact
from optimizer.model.features import FeatureSpec
from optimizer.model.history import LENGTH
from optimizer.model.historyspec import FACTS
from storage.records import JsonObject

INPUT, HISTORY_INPUT, OUTPUT = "encoded", "history", "features"
#: Contexts that are embedded at a time: their histories' ids take 768 bytes each.
CHUNK = 16_384
#: From so many contexts on columns are encoded quicker than rows.
TOGETHER = 32


class Embedder:
    """An ONNX Runtime session over a feature spec. Thread-safe; open it after a fork."""

    def __init__(self, spec: FeatureSpec, graph: bytes) -> None:
        self.spec = spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            self.reads_history = HISTORY_INPUT in {given.name for given in self._session.get_inputs()}
            self.width = int(self.bulk([{}]).shape[1])
            self._adds = self._adds_columns()
        except Exception as error:  # ONNX Runtime's own errors share no public base class
            raise BadArtifact(f"the graph doesn't fit the feature spec or can't be loaded: {error}") from error

    def run(self, encoded: NDArray[np.float32], ids: NDArray[np.int32] | None = None) -> NDArray[np.float32]:
        """f(x) of encoded contexts (n, width of the spec): (n, F).

        Args:
            encoded: as ``FeatureSpec.encode`` gives them.
            ids: (n, ``LENGTH``, ``FACTS``) their histories; needed by a graph with an encoder (None = empty ones).
        """
        inputs: dict[str, NDArray[np.float32] | NDArray[np.int32]] = {INPUT: encoded}
        if self.reads_history:
            inputs[HISTORY_INPUT] = np.zeros((len(encoded), LENGTH, FACTS), np.int32) if ids is None else ids
        features: NDArray[np.float32] = self._session.run([OUTPUT], inputs)[0]
        return features

    def bulk(self, contexts: Sequence[JsonObject]) -> NDArray[np.float32]:
        """f(x) of contexts, all in one go: (n, F). For training and reports; see ``embed`` for decisions."""
        parts = [contexts[start : start + CHUNK] for start in range(0, len(contexts), CHUNK)]
        return np.concatenate([self.run(self.spec.encode(part), self._ids(part)) for part in parts])

    def embed(self, contexts: Sequence[JsonObject]) -> NDArray[np.float32]:
        """f(x) of contexts: (n, F).

        Row by row: a matrix product of another height rounds differently, and a batch must give every recipient the
        very probabilities that a single decision would.
        """
        if len(contexts) >= TOGETHER and not self._adds and self.spec.history is None:
            return self.spec.encode(contexts)  # column by column: nothing is summed, so nothing rounds otherwise
        out = np.empty((len(contexts), self.width), dtype=np.float32)
        for i, context in enumerate(contexts):
            encoded = self.spec.encode_row(context)
            out[i] = self.run(encoded[None, :], self._ids([context]))[0] if self._adds else encoded
        return out

    def _adds_columns(self) -> bool:
        """Whether f(x) is more than the encoded inputs, as where a network was let in; else the graph is only a copy,
        and running it takes longer than all else that is done to a row here."""
        if self.reads_history or self.width != self.spec.width:
            return True
        probe = np.linspace(-7.0, 7.0, 3 * self.width, dtype=np.float32).reshape(3, self.width)
        return not np.array_equal(self.run(probe), probe)

    def _ids(self, contexts: Sequence[JsonObject]) -> NDArray[np.int32] | None:
        if not self.reads_history or self.spec.history is None:
            return None
        return self.spec.history.ids(contexts)
