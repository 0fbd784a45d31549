"""f(x) as an ONNX graph: the encoded inputs themselves, and beside them the network's columns if there is a network."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from optimizer.model.embedding import INPUT, OUTPUT, Embedder
from optimizer.model.features import FeatureSpec
from optimizer.model.training.network import Network

OPSET = 17
#: ONNX IR version of opset 17's time; every ONNX Runtime since 1.13 reads it.
IR_VERSION = 8
#: Of float32 sums in another order, per unit of a column's own size (columns are standardised; some are larger).
TOLERANCE = 1e-5


def export_graph(spec: FeatureSpec, network: Network | None) -> bytes:
    """The graph of f(x): ``encoded`` (n, width) → ``features`` (n, F).

    Raises:
        ArithmeticError: ONNX Runtime and torch disagree by more than ``TOLERANCE``.
    """
    width = spec.width
    if network is None:
        nodes = [helper.make_node("Identity", [INPUT], [OUTPUT])]
        constants: dict[str, NDArray[np.float32]] = {}
        out = width
    else:
        constants = network.constants()
        nodes = [
            helper.make_node("Gemm", [INPUT, "w1", "b1"], ["h1"]),
            helper.make_node("Relu", ["h1"], ["r1"]),
            helper.make_node("Gemm", ["r1", "w2", "b2"], ["h2"]),
            helper.make_node("Tanh", ["h2"], ["t2"]),
            helper.make_node("Sub", ["t2", "mean"], ["c2"]),
            helper.make_node("Mul", ["c2", "scale"], ["columns"]),
            helper.make_node("Concat", [INPUT, "columns"], [OUTPUT], axis=1),
        ]
        out = width + network.width
    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", out])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="sendtide")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    blob: bytes = model.SerializeToString(deterministic=True)
    if network is not None:
        _verify(spec, network, blob)
    return blob


def _verify(spec: FeatureSpec, network: Network, blob: bytes) -> None:
    probe = np.random.default_rng(0).standard_normal((64, spec.width)).astype(np.float32)
    served = Embedder(spec, blob).run(probe)
    with torch.no_grad():
        trained = network.features(torch.from_numpy(probe)).numpy()
    worst = float((np.abs(served - trained) / np.maximum(1.0, np.abs(trained))).max())
    if not worst <= TOLERANCE:
        raise ArithmeticError(f"exported graph differs from torch by {worst:.2e}, at most {TOLERANCE:.0e} is allowed")
