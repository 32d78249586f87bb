"""What an ONNX graph says of itself without being run: inputs, outputs, weights; and its multiply-adds."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from facedistill.backbones.onnx_trial import one_line
from facedistill.errors import UserError

# The two factors of each product, and the weights of each quantised operator, by place among its inputs; the others
# are scales and zero points.
FACTORS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "ConvInteger": (0, 1),
    "FusedConv": (0, 1),
    "FusedGemm": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
QUANTISED = {
    "ConvInteger": (1,),
    "DequantizeLinear": (0,),
    "DynamicQuantizeMatMul": (1, 4),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3, 6),
    "QLinearAdd": (0, 3),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "QLinearMul": (0, 3),
    "QuantizeLinear": (0,),
}
SILENT = ("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime 1.32 reports its use, under a number of this device
FLOATS = (1, 10, 11, 16)  # TensorProto: float, float16, double, bfloat16


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its type as in ONNX (lower case), and its sides (a number, or a name if open)."""

    name: str
    kind: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"'{self.name}' {list(self.shape)}"


def import_onnx_packages() -> tuple[Any, Any]:
    """Return the modules (onnx, onnxruntime). Raises UserError with the command that installs them.

    No process that this one starts, such as `onnx_trial`, reports its use either.
    """
    os.environ.setdefault(*SILENT)
    try:
        import onnx
        import onnxruntime
    except ImportError as e:
        raise UserError(f"ONNX models need the package '{e.name}': pip install 'facedistill[onnx]'") from e
    return onnx, onnxruntime


def read_graph(path: Path) -> Any:
    """Return the file's ModelProto, without weights that are in other files. Raises UserError if it is damaged."""
    onnx, _ = import_onnx_packages()
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an ONNX model")
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as e:  # protobuf's errors share no base but Exception
        raise UserError(f"{path}: not a usable ONNX model ({one_line(e)}); export or copy it again") from e


def inputs(graph: Any) -> list[Port]:
    """Return the inputs; old graphs list their weights among them, which are left out."""
    weights = {w.name for w in (*graph.initializer, *(s.values for s in graph.sparse_initializer))}
    return [_port(value) for value in graph.input if value.name not in weights]


def outputs(graph: Any) -> list[Port]:
    return [_port(value) for value in graph.output]


def _port(value: Any) -> Port:
    onnx, _ = import_onnx_packages()
    tensor = value.type.tensor_type
    sides = (d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in tensor.shape.dim)
    return Port(value.name, onnx.TensorProto.DataType.Name(tensor.elem_type).lower(), tuple(sides))


def count_weights(graph: Any) -> int:
    """Return the number of weights of any type. Scalars and the scales of quantised weights are constants."""
    nodes, tensors = list(_nodes(graph)), {t.name: t for t in _tensors(graph)}
    quantised, scales = set[str](), set[str]()
    dynamic = {node.output[1] for node in nodes if node.op_type == "DynamicQuantizeLinear"}
    for node in nodes:
        if places := QUANTISED.get(node.op_type):
            quantised |= {node.input[i] for i in places if i < len(node.input)}
            scales |= {name for i, name in enumerate(node.input) if i not in places}
        elif node.op_type == "Mul" and dynamic & set(node.input):  # the scale of an image times that of the weights
            scales |= set(node.input)
    return sum(
        math.prod(t.dims)
        for name, t in tensors.items()
        if t.dims and (name in quantised or (t.data_type in FLOATS and name not in scales))
    )


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield all nodes, those of loops and branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield the weights: initialisers, and the values of Constant nodes under the names of their outputs."""
    for part in _graphs(graph):
        yield from part.initializer
    for node in _nodes(graph):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    named = type(attribute.t)()
                    named.CopyFrom(attribute.t)
                    named.name = node.output[0]
                    yield named


def external_files(path: Path) -> list[Path]:
    """Return the files beside `path` that hold weights.

    Raises UserError if one is missing, no regular file, or named outside the folder.
    """
    entries = (e for w in _tensors(read_graph(path).graph) for e in w.external_data if e.key == "location")
    files = []
    for name in sorted({entry.value for entry in entries}):
        parts = PurePosixPath(name).parts + PureWindowsPath(name).parts
        outside = ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive
        if outside or not (path.parent / name).is_file():
            raise UserError(f"{path}: its weights are in {name!r}, which is no file beside it; copy all of the model")
        files.append(path.parent / name)
    return files


def graph_macs(path: Path, feed: dict[str, np.ndarray]) -> int:
    """Return the multiply-adds of convolutions and matrix products, quantised or not, in one run on `feed`.

    The shapes are taken from the run: many graphs compute theirs, which shape inference cannot follow.
    """
    onnx, ort = import_onnx_packages()
    model = onnx.load(str(path))
    products = [n for n in model.graph.node if n.op_type in FACTORS]
    if not products:
        return 0
    shapes: dict[str, tuple[int, ...]] = {w.name: tuple(w.dims) for w in model.graph.initializer}
    used = {n.output[0]: [n.input[i] for i in FACTORS[n.op_type]] for n in products}
    names = sorted({*used, *(name for factors in used.values() for name in factors)} - shapes.keys() - feed.keys())
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(names, feed)
    shapes |= {name: value.shape for name, value in (*zip(names, found), *feed.items())}
    return sum(_macs(n.op_type, *(shapes[name] for name in (*used[n.output[0]], n.output[0]))) for n in products)


def _macs(kind: str, left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> int:
    if kind == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if "Conv" in kind:
        return math.prod(out) * math.prod(right[1:])
    inner = math.prod(left) // out[0] if "Gemm" in kind else left[-1]  # a Gemm may take its left side transposed
    return math.prod(out) * inner
