"""An ONNX file as a backbone: embeddings only, no gradient, no stage features."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facedistill.backbones.base import Backbone, sample_shape
from facedistill.backbones.onnx_graph import (
    Port,
    count_weights,
    external_files,
    graph_macs,
    import_onnx_packages,
    inputs,
    outputs,
    read_graph,
)
from facedistill.backbones.onnx_trial import one_line, tried
from facedistill.errors import UsageError, UserError, closest

# ONNX's types that an input may have -> ours.
DTYPES = {"float": torch.float32, "float16": torch.float16, "double": torch.float64, "uint8": torch.uint8}
USUAL = 112  # H = W where the graph leaves them open and nobody says


class OnnxBackbone(Backbone):
    """The graph at `path`, run by ONNX Runtime on the CPU; output N x d.

    Input: N x 3 x H x W or N x H x W x 3, or features, N x k. `forward` takes N x 3 x H x W for both kinds of images.
    The graph is tried first in a process of its own (`onnx_trial`), which also tells how many images it takes at a
    time: some leave the batch open outside and fix it inside. The session is made on first use and left out of pickles
    and copies, so that workers make their own.

    Args:
        input_size: H = W, needed only if the graph leaves them open (default 112); or the number of features.
        output: the name of the embedding, if the graph has several outputs.

    Attributes:
        layout: nchw or nhwc. metadata: the file's own notes, by key. open_size: whether the graph leaves H and W open.
        said: (parameters, MACs) where the file's notes say them; a folded or quantised graph no longer shows them.

    Raises:
        UserError: onnx or onnxruntime is missing, the file is damaged, the graph has another input or output, or it
            does not run.
    """

    has_features = False
    foreign = True

    def __init__(self, path: str | Path, input_size: int | None = None, output: str | None = None) -> None:
        path = Path(path)
        if input_size is not None and input_size < 1:
            raise UsageError(f"size {input_size}: expected the height and width of the images in pixels, e.g. 112")
        model = read_graph(path)
        taken, made = one_input(path, inputs(model.graph)), one_output(path, outputs(model.graph), output)
        features = len(taken.shape) == 2
        layout, size, open_size = _layout_and_side(path, taken.shape, input_size)
        if taken.kind not in DTYPES:
            raise UserError(f"{path}: input '{taken.name}' is {taken.kind}; expected one of {', '.join(DTYPES)}")
        batch = taken.shape[0] if isinstance(taken.shape[0], int) else None
        shape = [batch, size] if features else [batch, size, size, 3] if layout == "nhwc" else [batch, 3, size, size]
        trial = tried(path, taken.name, made.name, shape, _numpy_name(taken.kind))
        if not trial.loaded:
            raise UserError(f"{path}: not a usable ONNX model ({trial.error}); export or copy it again")
        if trial.error:
            asked = "; if the network was made for another size, give --size" if open_size and not input_size else ""
            where = f"{'features' if features else 'images'} of {list(taken.shape)}, here {shape[1:]}"
            raise UserError(f"{path}: does not run on {where} ({trial.error}){asked}")
        if not trial.dim:
            whole = "" if trial.kind.startswith("float") else f" of {trial.kind}"
            raise UserError(
                f"{path}: output '{made.name}' has shape {list(trial.shape)}{whole}; expected N x d embeddings: export "
                "the network up to its embedding"
            )
        super().__init__(trial.dim, size)
        self.takes_features = features
        self.path, self.batch, self.input_name, self.input_type = path, trial.batch, taken.name, taken.kind
        self.layout, self.open_size, self.output, self.output_name = layout, open_size, output, made.name
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.said: tuple[int, int] | None = None
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    @property
    def pixels(self) -> str:
        """The type of the input: uint8, float32, float16 or float64."""
        return _numpy_name(self.input_type)

    def gives_unit_length(self) -> bool:
        """Whether the embedding of a grey image, or of equal features, has unit length."""
        grey = self(torch.full((1, *sample_shape(self, self.input_size)), 127.0))
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
        found = self._session.run([self.output_name], {self.input_name: pixels})[0]
        return found.reshape(len(pixels), self.embedding_dim)[:count]

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        raise UserError(
            f"{self.path}: an ONNX model gives embeddings only; a term that needs stage features cannot use it"
        )

    def count_parameters(self) -> int:
        """Return the number of weights in the graph, of any type (scalars are constants, not weights)."""
        return self.said[0] if self.said else count_weights(read_graph(self.path).graph)

    def count_macs(self) -> int:
        """Return the multiply-adds of convolutions and matrix products for one image."""
        if self.said:
            return self.said[1]
        batch = self.batch or 1
        sample = torch.zeros(batch, *sample_shape(self, self.input_size), dtype=DTYPES[self.input_type])
        return graph_macs(self.path, {self.input_name: _in_layout(sample, self.layout)}) // batch

    def content(self) -> bytes:
        """Return the file's bytes, those of its external weights, and the output if it was named: a fingerprint's."""
        files = [self.path, *external_files(self.path)]
        return b"".join(p.read_bytes() for p in files) + (self.output or "").encode()

    def save(self, target: Path) -> None:
        """Write the graph to `target` as one file, even if its weights are in files beside it."""
        if external_files(self.path):
            onnx, _ = import_onnx_packages()
            onnx.save(onnx.load(str(self.path)), str(target))
        else:
            shutil.copyfile(self.path, target)


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
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for port in (*session.get_inputs(), *session.get_outputs()):
            _ = port.name, port.shape  # a name that is no text raises only when it is read
        return session
    except Exception as e:  # onnxruntime raises its own classes, which share no base but Exception
        raise UserError(f"{path}: not a usable ONNX model ({one_line(e)}); export or copy it again") from e


def one_input(path: Path, found: list[Port]) -> Port:
    """Return the only input. Raises UserError with a list of all if there is not exactly one."""
    if len(found) != 1:
        raise UserError(
            f"{path}: the graph has {len(found)} inputs ({', '.join(map(str, found))}); expected one: the images"
        )
    return found[0]


def one_output(path: Path, found: list[Port], name: str | None) -> Port:
    """Return the output called `name`, or the only one. Raises UserError with a list of all."""
    chosen = [port for port in found if name in (None, port.name)]
    if len(chosen) != 1:
        what = f"no output '{name}'{closest(name, [p.name for p in found])}" if name else f"{len(found)} outputs"
        raise UserError(
            f"{path}: the graph has {what} ({', '.join(map(str, found))}); name the embedding with `import --output`"
        )
    return chosen[0]


def _numpy_name(kind: str) -> str:
    return str(DTYPES[kind]).removeprefix("torch.")


def _in_layout(images: Tensor, layout: str) -> np.ndarray:
    """Return images (N, 3, H, W) as the graph takes them."""
    return (images.permute(0, 2, 3, 1) if layout == "nhwc" else images).contiguous().numpy()


def _layout_and_side(path: Path, shape: tuple[int | str, ...], wanted: int | None) -> tuple[str, int, bool]:
    """Return the layout, nhwc only where the last axis alone is 3, H = W, and whether the graph leaves both open.

    Of features (N, k): nchw, k, and whether k is open.
    """
    if len(shape) == 2:
        return "nchw", _features(path, shape, wanted), not isinstance(shape[1], int)
    layout = "nhwc" if len(shape) == 4 and shape[3] == 3 and shape[1] != 3 else "nchw"
    if len(shape) != 4 or (layout == "nchw" and isinstance(shape[1], int) and shape[1] != 3):
        raise UserError(f"{path}: input of shape {list(shape)}; expected N x 3 x H x W or N x H x W x 3, or N x k")
    fixed = {s for s in (shape[1:3] if layout == "nhwc" else shape[2:]) if isinstance(s, int)}
    sides = fixed or {wanted or USUAL}
    if len(sides) != 1 or wanted not in (None, *sides):
        want = f"size {wanted}" if wanted else "H = W"
        raise UserError(f"{path}: input of shape {list(shape)}; expected N x 3 x H x W or N x H x W x 3 of {want}")
    return layout, next(iter(sides)), not fixed


def _features(path: Path, shape: tuple[int | str, ...], wanted: int | None) -> int:
    found = shape[1] if isinstance(shape[1], int) else wanted
    if found is None:
        raise UserError(f"{path}: input of shape {list(shape)} leaves the number of features open; give it with --size")
    if wanted not in (None, found):
        raise UserError(f"{path}: input of shape {list(shape)}; expected {wanted} features")
    return found
