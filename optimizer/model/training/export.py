"""f(x) as an ONNX graph: the encoded inputs themselves, and beside them the columns of what was let in: a network over
these inputs, an encoder of the history."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from optimizer.model.embedding import HISTORY_INPUT, INPUT, OUTPUT, Embedder
from optimizer.model.features import FeatureSpec
from optimizer.model.history import LENGTH
from optimizer.model.historyspec import FACTS
from optimizer.model.training.encoders import Reader
from optimizer.model.training.graphs import Nodes, network_nodes, reader_nodes
from optimizer.model.training.network import Network
from optimizer.model.training.onnxformat import IR_VERSION, OPSET, TOLERANCE


def export_graph(spec: FeatureSpec, network: Network | None, reader: Reader | None = None) -> bytes:
    """The graph of f(x): ``encoded`` (n, width), and with an encoder ``history`` (n, 32, 6) → ``features`` (n, F).

    Raises:
        ArithmeticError: ONNX Runtime and torch disagree by more than ``TOLERANCE``.
    """
    width = spec.width
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", width])]
    graph = Nodes()
    parts = [INPUT]
    if network is not None:
        parts.append(network_nodes(graph, INPUT, network))
        width += network.width
    if reader is not None:
        inputs.append(helper.make_tensor_value_info(HISTORY_INPUT, TensorProto.INT32, ["n", LENGTH, FACTS]))
        parts.append(reader_nodes(graph, HISTORY_INPUT, reader))
        width += reader.width
    graph.add("Concat", *parts, output=OUTPUT, axis=1)
    made = helper.make_graph(
        graph.nodes,
        "features",
        inputs,
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", width])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="sendtide")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    blob: bytes = model.SerializeToString(deterministic=True)
    if network is not None or reader is not None:
        _verify(spec, network, reader, blob)
    return blob


def _verify(spec: FeatureSpec, network: Network | None, reader: Reader | None, blob: bytes) -> None:
    generator = np.random.default_rng(0)
    probe = generator.standard_normal((64, spec.width)).astype(np.float32)
    ids = _made_up(generator, spec) if reader is not None else None
    served = Embedder(spec, blob).run(probe, ids)
    with torch.no_grad():
        parts = [torch.from_numpy(probe) if network is None else network.features(torch.from_numpy(probe))]
        if reader is not None:
            parts.append(reader.columns(torch.from_numpy(ids)))
        trained = torch.cat(parts, dim=1).numpy()
    size = np.maximum(1.0, np.abs(trained).max(axis=0))
    worst = float((np.abs(served - trained) / size).max())
    if not worst <= TOLERANCE:
        raise ArithmeticError(f"exported graph differs from torch by {worst:.2e}, at most {TOLERANCE:.0e} is allowed")


def _made_up(generator: np.random.Generator, spec: FeatureSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """64 histories of every length, the empty one among them."""
    size = spec.history.size if spec.history is not None else 1
    ids = generator.integers(1, max(2, size), (64, LENGTH, FACTS)).astype(np.int32)
    for i in range(64):
        ids[i, : LENGTH - i % (LENGTH + 1)] = 0
    return ids
