"""From contexts to f(x): the feature spec, then the ONNX graph of skip columns and, if let in, network columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from optimizer.errors import BadArtifact
from optimizer.model.features import FeatureSpec
from storage.records import JsonObject

INPUT, OUTPUT = "encoded", "features"


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
            self.width = int(self.run(np.zeros((1, spec.width), dtype=np.float32)).shape[1])
        except Exception as error:  # ONNX Runtime's own errors share no public base class
            raise BadArtifact(f"the graph doesn't fit the feature spec or can't be loaded: {error}") from error

    def run(self, encoded: NDArray[np.float32]) -> NDArray[np.float32]:
        """f(x) of encoded contexts: (n, width of the spec) → (n, F). For training and reports."""
        features: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: encoded})[0]
        return features

    def embed(self, contexts: Sequence[JsonObject]) -> NDArray[np.float32]:
        """f(x) of contexts: (n, F).

        Row by row: a matrix product of another height rounds differently, and a batch must give every recipient the
        very probabilities that a single decision would.
        """
        out = np.empty((len(contexts), self.width), dtype=np.float32)
        for i, context in enumerate(contexts):
            out[i] = self.run(self.spec.encode_row(context)[None, :])[0]
        return out
