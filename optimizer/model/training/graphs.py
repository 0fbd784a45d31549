"""What is learned of f(x) as nodes of an ONNX graph: a network over the encoded context, an encoder of the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from optimizer.model.history import LENGTH
from optimizer.model.training.encoders import (
    DILATIONS,
    HEADS,
    HIDDEN,
    KERNEL,
    NOTHING,
    Block,
    Cnn,
    Gru,
    Reader,
    Transformer,
)
from optimizer.model.training.network import Network


@dataclass
class Nodes:
    """Nodes and constants of a graph that is being built; every method gives the name of what it adds."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node with one output."""
        name = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[Any] | torch.Tensor) -> str:
        """A constant."""
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def whole(self, *numbers: int) -> str:
        """A vector of whole numbers."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def linear(self, inputs: str, layer: nn.Linear) -> str:
        """A linear layer over the last axis."""
        product = self.add("MatMul", inputs, self.constant(layer.weight.T))
        return product if layer.bias is None else self.add("Add", product, self.constant(layer.bias))

    def newest(self, inputs: str, axis: int) -> str:
        """The last position of an axis of length ``LENGTH``, without the axis."""
        return self.add("Gather", inputs, self.constant(np.array(LENGTH - 1, dtype=np.int64)), axis=axis)

    def standardised(self, inputs: str, module: Network | Reader) -> str:
        """Columns standardised by what they were on training rows."""
        centred = self.add("Sub", inputs, self.constant(module.mean))
        return self.add("Mul", centred, self.constant(module.scale))


def network_nodes(graph: Nodes, encoded: str, network: Network) -> str:
    """The columns (n, 16) of encoded contexts (n, width)."""
    first = graph.add("Relu", graph.linear(encoded, network.first))
    return graph.standardised(graph.add("Tanh", graph.linear(first, network.second)), network)


def reader_nodes(graph: Nodes, ids: str, reader: Reader) -> str:
    """The columns (n, 16) of histories' ids (n, ``LENGTH``, ``FACTS``)."""
    embedded = graph.add("Gather", graph.constant(reader.table.weight), ids, axis=0)
    events = graph.add("ReduceSum", embedded, graph.whole(2), keepdims=0)
    if isinstance(reader, Gru):
        state = _gru(graph, events, reader)
    elif isinstance(reader, Cnn):
        state = _cnn(graph, events, reader)
    elif isinstance(reader, Transformer):
        state = _transformer(graph, events, ids, reader)
    else:
        raise TypeError(f"no graph for encoder {reader.kind!r}")
    direct = graph.linear(graph.newest(events, 1), reader.newest)
    both = graph.add("Add", direct, graph.linear(state, reader.out))
    return graph.standardised(graph.add("Tanh", both), reader)


def _gru(graph: Nodes, events: str, reader: Gru) -> str:
    """ONNX has the gates in the order update, reset, new; torch has reset first. Torch applies the reset gate behind
    the hidden state's product (``linear_before_reset``)."""
    cell = reader.cell
    weights = [_gates(cell.get_parameter(f"weight_{part}_l0")) for part in ("ih", "hh")]
    bias = torch.cat([_gates(cell.get_parameter(f"bias_{part}_l0")) for part in ("ih", "hh")])
    constants = [graph.constant(value[None]) for value in (*weights, bias)]
    by_time = graph.add("Transpose", events, perm=[1, 0, 2])
    last = f"state{len(graph.nodes)}"
    graph.nodes.append(
        helper.make_node("GRU", [by_time, *constants], ["", last], hidden_size=HIDDEN, linear_before_reset=1)
    )
    return graph.add("Squeeze", last, graph.whole(0))


def _gates(weight: torch.Tensor) -> torch.Tensor:
    reset, update, new = weight.detach().chunk(3)
    return torch.cat((update, reset, new))


def _cnn(graph: Nodes, events: str, reader: Cnn) -> str:
    state = graph.add("Transpose", graph.linear(events, reader.enter), perm=[0, 2, 1])
    for layer, dilation in zip(reader.convolutions, DILATIONS, strict=True):
        weights = [graph.constant(layer.get_parameter(name)) for name in ("weight", "bias")]
        pads = [(KERNEL - 1) * dilation, 0]
        convolved = graph.add("Conv", state, *weights, dilations=[dilation], kernel_shape=[KERNEL], pads=pads)
        state = graph.add("Add", state, graph.add("Relu", convolved))
    return graph.newest(state, 2)


def _transformer(graph: Nodes, events: str, ids: str, reader: Transformer) -> str:
    state = graph.add("Add", graph.linear(events, reader.enter), graph.constant(reader.position))
    kinds = graph.add("Gather", ids, graph.constant(np.array(0, dtype=np.int64)), axis=2)
    nothing = graph.add("Equal", kinds, graph.constant(np.array(0, dtype=np.int32)))
    marked = graph.add("Cast", nothing, to=TensorProto.FLOAT)
    absent = graph.add("Mul", marked, graph.constant(np.array(NOTHING, dtype=np.float32)))
    absent = graph.add("Unsqueeze", absent, graph.whole(1, 2))
    for block in reader.blocks:
        if isinstance(block, Block):
            state = _block(graph, state, absent, block)
    return graph.newest(state, 1)


def _block(graph: Nodes, state: str, absent: str, block: Block) -> str:
    width = HIDDEN // HEADS
    projected = graph.linear(_normed(graph, state, block.attention_norm), block.project)
    parts = graph.add("Reshape", projected, graph.whole(0, LENGTH, 3, HEADS, width))
    parts = graph.add("Transpose", parts, perm=[2, 0, 3, 1, 4])
    query, key, value = (
        graph.add("Gather", parts, graph.constant(np.array(i, dtype=np.int64)), axis=0) for i in range(3)
    )
    alike = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    scaled = graph.add("Mul", alike, graph.constant(np.array(width**-0.5, dtype=np.float32)))
    weight = graph.add("Softmax", graph.add("Add", scaled, absent), axis=-1)
    seen = graph.add("Transpose", graph.add("MatMul", weight, value), perm=[0, 2, 1, 3])
    merged = graph.linear(graph.add("Reshape", seen, graph.whole(0, LENGTH, HIDDEN)), block.merge)
    state = graph.add("Add", state, merged)
    change = graph.add("Relu", graph.linear(_normed(graph, state, block.network_norm), block.first))
    return graph.add("Add", state, graph.linear(change, block.second))


def _normed(graph: Nodes, state: str, norm: nn.LayerNorm) -> str:
    weights = [graph.constant(weight) for weight in (norm.weight, norm.bias)]
    return graph.add("LayerNormalization", state, *weights, axis=-1, epsilon=norm.eps)
