"""An ONNX file as a backbone: embeddings only, no gradient, no stage features."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facedistill.backbones.base import Backbone
from facedistill.errors import UserError

DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}


class OnnxBackbone(Backbone):
    """The graph at `path`, run by ONNX Runtime on the CPU; input N x 3 x H x W or N x H x W x 3, output N x d.

    `forward` takes N x 3 x H x W for both. The session is made on first use and left out of pickles and copies, so that
    workers make their own.

    Args:
        input_size: H = W, needed only if the graph leaves them open (default 112).

    Attributes:
        layout: nchw or nhwc. metadata: the file's own notes, by key.
        said: (parameters, MACs) where the file's notes say them; a folded or quantised graph no longer shows them.

    Raises:
        UserError: onnx or onnxruntime is missing, the file is damaged, or the graph has another input or output.
    """

    has_features = False
    foreign = True

    def __init__(self, path: str | Path, input_size: int | None = None) -> None:
        path = Path(path)
        session = open_session(path)
        taken = one_of(path, "input", session.get_inputs())
        made = one_of(path, "output", session.get_outputs())
        layout, size = _layout_and_side(path, taken.shape, input_size)
        if taken.type not in DTYPES:
            raise UserError(f"{path}: input '{taken.name}' is {taken.type}; expected one of {', '.join(DTYPES)}")
        batch = taken.shape[0] if isinstance(taken.shape[0], int) else None
        sample = _in_layout(torch.zeros(batch or 1, 3, size, size, dtype=DTYPES[taken.type]), layout)
        quiet = import_onnx_packages()[1].RunOptions()
        quiet.log_severity_level = 4  # the error itself says it
        try:
            found = list(session.run(None, {taken.name: sample}, quiet)[0].shape)
        except Exception as e:  # as in open_session
            raise UserError(f"{path}: does not run on images of {taken.shape} ({str(e).splitlines()[0]})") from e
        if len(found) != 2:
            raise UserError(
                f"{path}: output '{made.name}' has shape {found}; expected N x d embeddings: export the network up to "
                "its embedding"
            )
        super().__init__(found[1], size)
        self.path, self.batch, self.input_name, self.input_type = path, batch, taken.name, taken.type
        self.layout, self.metadata = layout, dict(session.get_modelmeta().custom_metadata_map)
        self.said: tuple[int, int] | None = None
        self._session: Any = session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    @property
    def pixels(self) -> str:
        """The type of the input: uint8, float32 or float16."""
        return str(DTYPES[self.input_type]).removeprefix("torch.")

    def gives_unit_length(self) -> bool:
        """Whether the embedding of a grey image has unit length."""
        grey = self(torch.full((1, 3, self.input_size, self.input_size), 127.0))
        return bool((grey.norm() - 1).abs() < 0.02)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if self._session is None:
            self._session = open_session(self.path)
        kind = DTYPES[self.input_type]
        x = x.detach() if kind.is_floating_point else x.detach().round()  # resized pixels are not integers
        pixels = _in_layout(x.to("cpu", kind), self.layout)
        step = self.batch or max(1, len(pixels))
        parts = [self._run(pixels[i : i + step], step) for i in range(0, len(pixels), step)]
        vectors = np.concatenate(parts) if parts else np.zeros((0, self.embedding_dim), np.float32)
        return torch.from_numpy(vectors).float().to(x.device)

    def _run(self, pixels: np.ndarray, step: int) -> np.ndarray:
        count = len(pixels)
        if self.batch and count < step:  # a graph with a fixed batch: pad, then cut
            pixels = np.concatenate([pixels, np.zeros((step - count, *pixels.shape[1:]), pixels.dtype)])
        return self._session.run(None, {self.input_name: pixels})[0][:count]

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        raise UserError(
            f"{self.path}: an ONNX model gives embeddings only; a term that needs stage features cannot use it"
        )

    def count_parameters(self) -> int:
        """Return the number of floating-point weights in the graph (scalars are constants, not weights)."""
        if self.said:
            return self.said[0]
        weights = _graph(self.path).initializer
        return sum(math.prod(w.dims) for w in weights if w.dims and w.data_type in (1, 10, 11, 16))

    def count_macs(self) -> int:
        """Return the multiply-adds of convolutions and matrix products for one image."""
        if self.said:
            return self.said[1]
        batch = self.batch or 1
        sample = torch.zeros(batch, 3, self.input_size, self.input_size, dtype=DTYPES[self.input_type])
        return graph_macs(self.path, {self.input_name: _in_layout(sample, self.layout)}) // batch

    def content(self) -> bytes:
        """Return the file's bytes and those of its external weights, for a fingerprint."""
        beside = sorted({self.path.parent / name for name in _external_files(self.path)})
        return b"".join(p.read_bytes() for p in [self.path, *beside])

    def save(self, target: Path) -> None:
        """Write the graph to `target` as one file, even if its weights are in files beside it."""
        if _external_files(self.path):
            onnx, _ = import_onnx_packages()
            onnx.save(onnx.load(str(self.path)), str(target))
        else:
            shutil.copyfile(self.path, target)


def import_onnx_packages() -> tuple[Any, Any]:
    """Return the modules (onnx, onnxruntime). Raises UserError with the command that installs them."""
    try:
        import onnx
        import onnxruntime
    except ImportError as e:
        raise UserError(f"ONNX models need the package '{e.name}': pip install 'facedistill[onnx]'") from e
    return onnx, onnxruntime


def open_session(path: Path, threads: int | None = None) -> Any:
    """Return a CPU session with torch's number of threads. It and torch flush denormal weights to zero from now on.

    Denormal weights make CPUs many times slower.
    """
    _, ort = import_onnx_packages()
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an ONNX model")
    torch.set_flush_denormal(True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises its own classes, which share no base but Exception
        raise UserError(f"{path}: not a usable ONNX model ({str(e).splitlines()[0]})") from e


def one_of(path: Path, what: str, found: list[Any]) -> Any:
    """Return the only element. Raises UserError with a list of all if there is not exactly one."""
    if len(found) != 1:
        names = ", ".join(f"'{f.name}' {f.shape}" for f in found)
        raise UserError(
            f"{path}: the graph has {len(found)} {what}s ({names}); expected one: export the embedding alone"
        )
    return found[0]


def _in_layout(images: Tensor, layout: str) -> np.ndarray:
    """Return images (N, 3, H, W) as the graph takes them."""
    return (images.permute(0, 2, 3, 1) if layout == "nhwc" else images).contiguous().numpy()


def _layout_and_side(path: Path, shape: list[Any], wanted: int | None) -> tuple[str, int]:
    """Return the layout, nhwc only where the last axis alone is 3, and H = W."""
    layout = "nhwc" if len(shape) == 4 and shape[3] == 3 and shape[1] != 3 else "nchw"
    if len(shape) != 4 or (layout == "nchw" and isinstance(shape[1], int) and shape[1] != 3):
        raise UserError(f"{path}: input of shape {shape}; expected N x 3 x H x W or N x H x W x 3")
    sides = {s for s in (shape[1:3] if layout == "nhwc" else shape[2:]) if isinstance(s, int)} or {wanted or 112}
    if len(sides) != 1 or wanted not in (None, *sides):
        want = f"size {wanted}" if wanted else "H = W"
        raise UserError(f"{path}: input of shape {shape}; expected N x 3 x H x W or N x H x W x 3 of {want}")
    return layout, sides.pop()


def _graph(path: Path) -> Any:
    onnx, _ = import_onnx_packages()
    return onnx.load(str(path), load_external_data=False).graph


def _external_files(path: Path) -> set[str]:
    entries = (e for w in _graph(path).initializer for e in w.external_data)
    return {e.value for e in entries if e.key == "location"}


def graph_macs(path: Path, feed: dict[str, np.ndarray]) -> int:
    """Return the multiply-adds of Conv, Gemm and MatMul in one run on `feed`.

    The shapes are taken from the run: many graphs compute theirs, which shape inference cannot follow.
    """
    onnx, ort = import_onnx_packages()
    model = onnx.load(str(path))
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    shapes = {w.name: tuple(w.dims) for w in model.graph.initializer}
    names = {name for n in nodes for name in (*n.input[:2], n.output[0])} - shapes.keys() - feed.keys()
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(sorted(names), feed)
    shapes |= {name: value.shape for name, value in (*zip(sorted(names), found), *feed.items())}
    total = 0
    for node in nodes:
        left, right, out = (shapes[n] for n in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            inner = math.prod(right[1:])
        else:  # a Gemm may take its left side transposed
            inner = math.prod(left) // out[0] if node.op_type == "Gemm" else left[-1]
        total += math.prod(out) * inner
    return total
