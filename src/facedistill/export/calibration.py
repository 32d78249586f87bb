"""What values the tensors of a graph take on images, and the range of each that int8 shall cover."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facedistill.backbones import import_onnx_packages

AT_ONCE = 8  # images: all activations of a batch are held
SAMPLE = 1024  # values kept of each tensor and image, for histograms
BINS, LEVELS = 1024, 128  # of the histogram; of the int8 one on each side of zero

Range = tuple[float, float]


@dataclass
class Seen:
    """The values of a tensor: its extremes, those of each channel, its channels' means, and a sample of it."""

    reach: np.ndarray = field(default_factory=lambda: np.zeros(1, np.float32))  # largest absolute value of each channel
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))  # sum over images of each channel's mean
    count: int = 0
    parts: list[np.ndarray] = field(default_factory=list)
    lows: list[float] = field(default_factory=list)  # of each image
    highs: list[float] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        others = (0, *range(2, values.ndim)) if values.ndim > 1 else (0,)
        self.reach = np.maximum(self.reach, np.maximum(values.max(others), -values.min(others)))
        self.total, self.count = self.total + len(values) * values.mean(others), self.count + len(values)
        flat = values.reshape(len(values), -1)
        step = max(1, flat.shape[1] // SAMPLE) | 1  # odd, so that no row or column of the map is favoured
        self.parts.append(flat[:, ::step].ravel())
        self.lows += flat.min(1).tolist()
        self.highs += flat.max(1).tolist()

    @property
    def low(self) -> float:
        return min(self.lows)

    @property
    def high(self) -> float:
        return max(self.highs)

    @property
    def mean(self) -> np.ndarray:
        """Of each channel."""
        return self.total / self.count

    def sample(self) -> np.ndarray:
        self.parts = [np.concatenate(self.parts)]
        return self.parts[0]


def minmax(seen: Seen) -> Range:
    """All values."""
    return seen.low, seen.high


def percentile(seen: Seen) -> Range:
    """All values of nine images in ten: the tenth percentile of the images' least, the 90th of their greatest.

    The percentile of single values (99.99) is far worse for faces: the few large values are those that tell people
    apart. Mean cosine of a public PReLU network at 112 x 112: minmax 0.986, single values 0.959, this 0.991.
    """
    return float(np.quantile(seen.lows, 0.1)), float(np.quantile(seen.highs, 0.9))


def entropy(seen: Seen) -> Range:
    """The range whose 8-bit histogram diverges least from that of the values (Kullback-Leibler, as TensorRT's)."""
    counts, edges = np.histogram(np.abs(seen.sample()), bins=BINS, range=(0, max(-seen.low, seen.high, 1e-12)))
    best, threshold = np.inf, edges[-1]
    levels = LEVELS if seen.low < 0 else 2 * LEVELS
    for kept in range(levels, BINS + 1, BINS // 64):
        divergence = _divergence(counts, kept, levels)
        if divergence < best:
            best, threshold = divergence, edges[kept]
    return max(seen.low, -threshold), min(seen.high, threshold)


def _divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    """How much is lost if the first `kept` bins become `levels` levels and all beyond falls into the last."""
    wide = counts[:kept].astype(np.float64)
    real = wide.copy()
    real[-1] += counts[kept:].sum()
    level = np.arange(kept) * levels // kept
    some = wide > 0
    share = np.bincount(level, wide, levels) / np.maximum(np.bincount(level, some, levels), 1)
    coarse = np.where(some, share[level], 0)
    p, q = real / max(real.sum(), 1), coarse / max(coarse.sum(), 1)
    shared = (p > 0) & (q > 0)
    outside = p[(p > 0) & (q == 0)].sum()
    return float((p[shared] * np.log(p[shared] / q[shared])).sum() + 10 * outside)


METHODS: dict[str, Callable[[Seen], Range]] = {"minmax": minmax, "percentile": percentile, "entropy": entropy}


def observe(graph: Any, images: np.ndarray) -> dict[str, Seen]:
    """Return what the float tensors of the graph were on images in the graph's own form."""
    seen: dict[str, Seen] = {}
    for values in activations(graph, images):
        for name, value in values.items():
            seen.setdefault(name, Seen()).add(value)
    return seen


def activations(graph: Any, images: np.ndarray) -> Iterable[dict[str, np.ndarray]]:
    """Yield the float tensors that hold a value for each image, by name, a batch of images at a time."""
    onnx, _ = import_onnx_packages()
    wide = onnx.ModelProto()
    wide.CopyFrom(graph)
    made = {name for node in graph.graph.node for name in node.output}
    made -= {output.name for output in graph.graph.output}
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(made))
    run, names = session(wide, optimised=False)
    for part in _batches(graph, images):
        found = dict(zip(names, run(part), strict=True))
        yield {k: v for k, v in found.items() if v.dtype == np.float32 and v.ndim and len(v) == len(part)}


def embed(graph: Any, images: np.ndarray) -> np.ndarray:
    """Return the graph's only output for images in its own form."""
    run, _ = session(graph)
    return np.concatenate([run(part)[0] for part in _batches(graph, images)])


def session(graph: Any, optimised: bool = True) -> tuple[Callable[[np.ndarray], list[np.ndarray]], list[str]]:
    """Return a function that runs the graph on the CPU, and the names of its outputs."""
    _, ort = import_onnx_packages()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    opened = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = opened.get_inputs()[0].name
    return lambda images: opened.run(None, {name: images}), [output.name for output in opened.get_outputs()]


def _batches(graph: Any, images: np.ndarray) -> list[np.ndarray]:
    """The images in batches of the graph's size; those that do not fill the last one are left out."""
    fixed = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    size = fixed or AT_ONCE
    count = len(images) if not fixed else max(1, len(images) // fixed) * fixed
    if fixed and len(images) < fixed:
        images = np.resize(images, (fixed, *images.shape[1:]))
    return [images[start : start + size] for start in range(0, count, size)]
