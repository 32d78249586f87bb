"""ONNX graphs: without an exporter's notes, without PReLU, which runtimes compute slowly, and in half precision."""

from collections.abc import Collection
from typing import Any

import numpy as np

from facedistill.backbones import import_onnx_packages


def tidied(graph: Any) -> Any:
    """Return the graph without the exporter's notes: stack traces with the paths of this machine, a fifth of a file."""
    onnx, _ = import_onnx_packages()
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    inner = made.graph
    for part in (*inner.node, *inner.input, *inner.output, *inner.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del made.metadata_props[:], inner.value_info[:], inner.metadata_props[:]
    return made


def is_depthwise(node: Any) -> bool:
    return node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)


def without_prelu(graph: Any, for_int8: bool = False, left: Collection[str] = ()) -> Any:
    """Return the graph with each PReLU written as relu(x) - a relu(-x), by 1 x 1 depthwise convolutions; same values.

    ONNX Runtime computes PReLU value by value in float, and depthwise convolutions fast in float and in int8. With it
    MobileFaceNets run 1.5 times as fast in fp32 (docs/export.md).

    The second term is min(a x, 0), where no slope is below 0. With slopes from below 0 to 1, the sum is
    a x + relu((1 - a) x). Other PReLUs stay, and so do those in `left` (names of outputs).

    Args:
        for_int8: relu(x) too is a convolution, because ReLU is computed in int8 only after one.
    """
    onnx, _ = import_onnx_packages()
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    weights = {w.name: w for w in made.graph.initializer}
    channels = {
        node.output[0]: weights[node.input[1]].dims[0]
        for node in made.graph.node
        if node.op_type == "Conv" and node.input[1] in weights
    }
    nodes: list[Any] = []
    for node in made.graph.node:
        slope = onnx.numpy_helper.to_array(weights[node.input[1]]) if node.op_type == "PRelu" else None
        known = slope is not None and node.output[0] not in left and node.input[0] in channels
        if slope is None or not known or (slope.min() < 0 and slope.max() > 1):
            nodes.append(node)
            continue
        nodes += _Prelu(onnx, made, node, np.broadcast_to(slope.ravel(), channels[node.input[0]])).nodes(for_int8)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [w for w in made.graph.initializer if w.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def half(graph: Any) -> Any:
    """Return the graph with weights and arithmetic in float16; input and output stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(graph, keep_io_types=True)


class _Prelu:
    def __init__(self, onnx: Any, graph: Any, node: Any, slope: np.ndarray) -> None:
        self.onnx, self.graph, self.slope = onnx, graph, slope
        self.x, self.y = node.input[0], node.output[0]
        self.made: list[Any] = []

    def nodes(self, for_int8: bool) -> list[Any]:
        if self.slope.min() >= 0:
            self._add("Relu", [self._scaled(np.ones_like(self.slope), "one") if for_int8 else self.x], "above")
            self._add("Clip", [self._scaled(self.slope, "slope"), "", self._constant(np.float32(0), "zero")], "below")
        else:
            self._add("Relu", [self._scaled(1 - self.slope, "rest")], "above")
            self._scaled(self.slope, "slope", "below")
        self._add("Add", [f"{self.y}.above", f"{self.y}.below"], "")
        return self.made

    def _scaled(self, factor: np.ndarray, name: str, out: str = "") -> str:
        weight = self._constant(factor.astype(np.float32).reshape(-1, 1, 1, 1), f"{name}.weight")
        return self._add("Conv", [self.x, weight], out or f"by_{name}", group=len(factor))

    def _add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        out = f"{self.y}.{name}" if name else self.y
        self.made.append(self.onnx.helper.make_node(op, inputs, [out], name=out, **attributes))
        return out

    def _constant(self, value: Any, name: str) -> str:
        self.graph.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(value), f"{self.y}.{name}"))
        return f"{self.y}.{name}"
