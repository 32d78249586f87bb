"""Channels of equal range, so that one scale of int8 fits all channels of a tensor; the network computes the same.

ReLU and PReLU let a positive factor of a channel pass. So the weights that make a channel may be divided by it, and the
weights that read the channel multiplied (Nagel et al., arXiv 1906.04721; Xiao et al., arXiv 2211.10438).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from facedistill.backbones import import_onnx_packages
from facedistill.export.graph import is_depthwise

THROUGH = ("Relu", "PRelu", "Add", "Reshape", "Flatten")  # a factor of a channel passes
SMALLEST = 1e-3  # a channel's range counts as at least this share of the widest


def equalised(graph: Any, ranges: Mapping[str, np.ndarray]) -> Any:
    """Return the graph with factors moved between the weights of neighbouring layers.

    Args:
        ranges: tensor -> the largest absolute value of each channel.
    """
    onnx, _ = import_onnx_packages()
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    weights = {w.name: onnx.numpy_helper.to_array(w).copy() for w in made.graph.initializer}
    changed: set[str] = set()
    for group in _groups(made, weights):
        writers, readers = group["writers"], group["readers"]
        known = [ranges[name] for name in group["tensors"] if name in ranges]
        if not writers or not readers or group["fixed"] or not known or len({len(r) for r in known}) != 1:
            continue
        reach = np.max(known, axis=0)
        reach = np.maximum(reach, SMALLEST * reach.max())
        if reach.max() <= 0:
            continue
        factor = reach / reach.max()
        dense = [
            np.abs(np.moveaxis(weights[n.input[1]], 1, 0).reshape(len(reach), -1)).max(1)
            for n in readers
            if not is_depthwise(n)
        ]
        if dense:
            read = np.max(dense, axis=0)
            factor = np.sqrt(reach / np.maximum(read, SMALLEST * read.max()))
            factor = factor / np.exp(np.log(factor).mean())
        factor = factor.astype(np.float32)
        for node in writers:
            for name in node.input[1:]:
                weights[name] = weights[name] / factor.reshape(-1, *[1] * (weights[name].ndim - 1))
                changed.add(name)
        for node in readers:
            name = node.input[1]
            axis = 0 if is_depthwise(node) else 1
            shape = [1] * weights[name].ndim
            shape[axis] = -1
            weights[name] = weights[name] * factor.reshape(shape)
            changed.add(name)
    for tensor in made.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return made


def _groups(graph: Any, weights: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Tensors whose channels must have the same factors, with the layers that write and read them."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.setdefault(name, name) != name:
            name = root[name]
        return name

    nodes = graph.graph.node
    users: dict[str, int] = {}
    for node in nodes:
        for name in set(node.input) & set(weights):
            users[name] = users.get(name, 0) + 1
        if node.op_type in THROUGH:
            for name in node.input:
                if name not in weights:
                    root[find(name)] = find(node.output[0])
    groups: dict[str, dict[str, Any]] = {}

    def group(name: str) -> dict[str, Any]:
        new = {"tensors": set(), "writers": [], "readers": [], "fixed": False}
        return groups.setdefault(find(name), new)

    relu_inputs = {node.input[0] for node in nodes if node.op_type == "Relu"}
    for node in nodes:
        own = all(users[name] == 1 for name in node.input if name in weights)
        layer = node.op_type in ("Conv", "Gemm") and own and node.input[0] not in weights
        grouped = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.op_type == "Conv" and grouped not in (1, weights[node.input[1]].shape[0] if layer else 1):
            layer = False  # neither dense nor depthwise
        if node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute):
            layer = False
        for name in node.input:
            if name in weights:
                continue
            if layer:
                group(name)["readers"].append(node)
            elif node.op_type not in THROUGH:
                group(name)["fixed"] = True
        for name in node.output:
            if layer:
                group(name)["writers"].append(node)
            elif node.op_type not in THROUGH:
                group(name)["fixed"] = True
            if name not in relu_inputs:
                group(name)["tensors"].add(name)
        if node.op_type == "Add" and set(node.input) & set(weights):
            group(node.output[0])["fixed"] = True
    for output in graph.graph.output:
        group(output.name)["fixed"] = True
    return list(groups.values())
