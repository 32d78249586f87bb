"""Int8 for ONNX graphs.

What was measured once on two trained public networks at 112 x 112 (PReLU; ReLU6), as the mean cosine of int8 to
float: 0.960 and 0.991 with MinMax alone; 0.984 and 0.990 with equalised channels; 0.987 and 0.993 with biases corrected
for rounded weights; 0.991 and 0.994 with percentiles of the images' extremes. A single layer in float gains 0.001 or
less, because its input and output are still int8; a few neighbours in float keep what is between them exact, and gain
several times that. So layers go back to float in stretches.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from facedistill.backbones import import_onnx_packages
from facedistill.export.calibration import METHODS, Range, Seen, activations, embed, observe
from facedistill.export.equalise import equalised
from facedistill.export.gate import CLOSE, SPREAD, compare
from facedistill.export.graph import is_depthwise, without_prelu

HELD_OUT = 4  # one image in so many is kept from the calibration, to compare its methods on
RESERVE = 0.9  # layers go back to float until the error is this share of what the gate lets pass
EQUALISING = 64  # images that show how wide each channel is
STRETCH = 4  # neighbouring layers that go back to float together
MOST_IN_FLOAT = 0.5  # of the layers; a file with more is int8 by name only, so the gate sees the coarse one
MOST_DECIBELS = 60.0  # of a signal; what is better counts as this
WEIGHTED, RELU = ("Conv", "Gemm"), ("Relu", "Clip")


@dataclass
class Stretch:
    """What a few neighbouring layers in float are worth.

    Attributes:
        gain: of the mean cosine on held-out images, if these layers alone are in float. bytes: that they cost.
    """

    layers: list[str]
    gain: float
    bytes: int


@dataclass
class Quantised:
    """How a graph became int8.

    Attributes:
        method: of the calibration; the best of `cosines`: method -> mean cosine to the float graph on images held out.
        equalised: whether channels were equalised, which is tried too.
        mean_cosine, first_percentile: of the graph as it was returned, on the same images.
        layers: how many layers int8 knows. measured: what each stretch of them is worth in float, the best first; empty
            where int8 throughout was close enough. left: the layers that stay in float.
    """

    method: str
    equalised: bool
    cosines: dict[str, float]
    mean_cosine: float
    first_percentile: float
    layers: int
    measured: list[Stretch] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """Return what a person reads."""
        tried = ", ".join(f"{name} {cosine:.4f}" for name, cosine in self.cosines.items())
        lines = [
            f"int8: calibrated by {self.method} (mean cosine on images held out: {tried})"
            f"{', channels equalised' if self.equalised else ''}; {self.layers - len(self.left)} of {self.layers} "
            f"layers are int8: mean cosine {self.mean_cosine:.4f}, first percentile {self.first_percentile:.4f}"
        ]
        lines += [
            f"  {'in float' if set(part.layers) <= set(self.left) else 'in int8'}: {', '.join(part.layers)} "
            f"(alone in float: cosine {part.gain:+.5f}, {part.bytes:+,} bytes)"
            for part in self.measured
        ]
        return "\n".join(lines)


def quantised(graph: Any, images: np.ndarray) -> tuple[Any, Quantised]:
    """Return the float graph in int8, and how that was done.

    One image in four is held out. On the others the values of all tensors are seen; each method of METHODS makes ranges
    of them, with and without equalised channels; the held-out images say which is best. Where even that is further from
    the float graph than the gate allows (with a reserve), each stretch of layers is tried in float alone, and those
    that gain most stay in float, until it is near enough or half of the layers are in float. The gate decides.

    Args:
        graph: float32, with PReLU as it is. images: in the graph's own form, a hundred or more.
    """
    held = np.arange(len(images)) % HELD_OUT == HELD_OUT - 1 if len(images) >= HELD_OUT else np.ones(len(images), bool)
    calibration, others = images[~held] if not held.all() else images, images[held]
    expected = embed(graph, others)
    reach = {name: seen.reach for name, seen in observe(graph, calibration[:EQUALISING]).items()}
    tries: list[_Try] = []
    for is_equal, base in ((False, graph), (True, equalised(graph, reach))):
        seen = observe(without_prelu(base, for_int8=True), calibration)
        tries += [_Try(base, is_equal, name, method, seen, others, expected) for name, method in METHODS.items()]
    best = max(tries, key=lambda t: float(t.cosine().mean()))
    cosines = {name: max(float(t.cosine().mean()) for t in tries if t.method == name) for name in METHODS}
    report = Quantised(best.method, best.equal, cosines, 0.0, 0.0, len(best.layers()))
    if not best.near_enough():
        report.measured = best.measure()
        for part in report.measured:
            if len(report.left) + len(part.layers) > MOST_IN_FLOAT * report.layers:
                break
            report.left += part.layers
            if best.near_enough(frozenset(report.left)):
                break
    found = best.cosine(frozenset(report.left))
    report.mean_cosine, report.first_percentile = float(found.mean()), float(np.percentile(found, 1))
    return best.graph(frozenset(report.left)), report


class _Try:
    """A graph, and one method of calibration."""

    def __init__(
        self,
        base: Any,
        equal: bool,
        method: str,
        choose: Callable[[Seen], Range],
        seen: Mapping[str, Seen],
        images: np.ndarray,
        expected: np.ndarray,
    ) -> None:
        self.base, self.equal, self.method, self.images, self.expected = base, equal, method, images, expected
        self.ranges = {name: choose(values) for name, values in seen.items()}
        self.means = {name: values.mean for name, values in seen.items()}
        self.found: dict[frozenset[str], np.ndarray] = {}  # layers in float -> embeddings of the held-out images

    def layers(self) -> list[str]:
        """From input to output."""
        names = layer_names(self.base) | {
            n.output[0]: n.output[0] for n in self.base.graph.node if n.op_type == "PRelu"
        }
        return [names[node.output[0]] for node in self.base.graph.node if node.output[0] in names]

    def graph(self, left: frozenset[str] = frozenset()) -> Any:
        return with_int8(without_prelu(self.base, for_int8=True, left=left), self.ranges, self.means, left)

    def embeddings(self, left: frozenset[str] = frozenset()) -> np.ndarray:
        if left not in self.found:
            self.found[left] = embed(self.graph(left), self.images)
        return self.found[left]

    def cosine(self, left: frozenset[str] = frozenset()) -> np.ndarray:
        """Of the embeddings of held-out images to those of the float graph."""
        return cosine_of(self.expected, self.embeddings(left))

    def near_enough(self, left: frozenset[str] = frozenset()) -> bool:
        """Whether the bounds of the int8 gate hold on the held-out images with some reserve."""
        gate = compare(self.expected, self.embeddings(left), "int8", normalised=False)
        mean, low = (1 - RESERVE * (1 - bound) for bound in CLOSE["int8"])
        spread = abs(gate.spread - 1) <= RESERVE * SPREAD
        return gate.mean_cosine >= mean and gate.first_percentile >= low and spread

    def measure(self) -> list[Stretch]:
        """Each stretch of layers alone in float: what it gains and costs; the best first."""
        plain, size, layers = float(self.cosine().mean()), self.graph().ByteSize(), self.layers()
        parts = []
        for start in range(0, len(layers), STRETCH):
            alone = layers[start : start + STRETCH]
            gain = float(self.cosine(frozenset(alone)).mean()) - plain
            parts.append(Stretch(alone, gain, self.graph(frozenset(alone)).ByteSize() - size))
        return sorted(parts, key=lambda part: -part.gain)


def with_int8(
    graph: Any,
    ranges: Mapping[str, Range],
    means: Mapping[str, np.ndarray] | None = None,
    left: frozenset[str] = frozenset(),
) -> Any:
    """Return the graph with quantised convolutions, matrix products and additions, but for the layers in `left`.

    Weights are int8 with a scale for each channel, activations uint8 with a scale and a zero for each tensor, biases
    int32. A ReLU after a quantised layer disappears: the range of its output begins at 0, and saturation cuts off what
    is below. The output of the graph stays float.

    Args:
        means: tensor -> the mean of each channel. The bias takes what rounded weights add to the mean of the output.
    """
    return _Writer(graph, ranges, means or {}, left).written()


def layer_names(graph: Any) -> dict[str, str]:
    """Return node -> layer, for the layers that int8 knows; a layer has the name of its weight, or of its node."""
    weights = {w.name for w in graph.graph.initializer}
    names = {}
    for node in graph.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in weights:
            names[node.output[0]] = node.input[1].removesuffix(".weight")
        elif node.op_type == "Add" and not weights & set(node.input):
            names[node.output[0]] = node.name
    return names


class _Writer:
    def __init__(
        self, graph: Any, ranges: Mapping[str, Range], means: Mapping[str, np.ndarray], left: frozenset[str]
    ) -> None:
        onnx, _ = import_onnx_packages()
        self.onnx, self.ranges, self.means = onnx, ranges, means
        self.made = onnx.ModelProto()
        self.made.CopyFrom(graph)
        self.weights = {w.name: w for w in self.made.graph.initializer}
        self.layers = {out: name for out, name in layer_names(graph).items() if name not in left}
        self.consumers: dict[str, list[Any]] = {}
        for node in self.made.graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in self.made.graph.output}
        self.nodes: list[Any] = []
        self.scales: dict[str, float] = {}  # of the tensors that are quantised
        self.folded: dict[str, str] = {}  # output of a ReLU that disappears -> its input

    def written(self) -> Any:
        for node in list(self.made.graph.node):
            if node.output[0] in self.folded:
                continue
            if node.output[0] in self.layers:
                self._quantise(node)
            else:
                self.nodes.append(node)
        del self.made.graph.node[:]
        self.made.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        kept = [w for w in self.made.graph.initializer if w.name in used]
        del self.made.graph.initializer[:], self.made.graph.value_info[:]
        self.made.graph.initializer.extend(kept)
        return self.made

    def _quantise(self, node: Any) -> None:
        weighted = node.op_type in WEIGHTED
        for place in (0,) if weighted else (0, 1):
            node.input[place] = self._tensor(node.input[place])
        if weighted:
            self._weight(node)
        self.nodes.append(node)
        out = node.output[0]
        if node.op_type == "Gemm" or out in self.outputs:
            return
        after = self.consumers[out]
        if len(after) == 1 and after[0].op_type in RELU and after[0].output[0] not in self.outputs:
            self.folded[after[0].output[0]] = out
            node.output[0] = out = after[0].output[0]
        self._replace(out, self._tensor(out))

    def _replace(self, name: str, new: str) -> None:
        for node in self.consumers[name]:
            for place, taken in enumerate(node.input):
                if taken == name:
                    node.input[place] = new

    def _tensor(self, name: str) -> str:
        """Quantise a tensor once, and return the name of what comes back."""
        if name in self.scales or name.endswith("_f"):
            return name if name.endswith("_f") else f"{name}_f"
        low, high = self.ranges[name]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32(max(high - low, 1e-6) / 255)
        zero = np.uint8(np.clip(round(-low / float(scale)), 0, 255))
        self.scales[name] = float(scale)
        parameters = [self._constant(f"{name}_s", scale), self._constant(f"{name}_z", zero)]
        make = self.onnx.helper.make_node
        self.nodes.append(make("QuantizeLinear", [name, *parameters], [f"{name}_q"], name=f"{name}_q"))
        self.nodes.append(make("DequantizeLinear", [f"{name}_q", *parameters], [f"{name}_f"], name=f"{name}_f"))
        return f"{name}_f"

    def _weight(self, node: Any) -> None:
        layer = self.layers[node.output[0]]
        input_scale = self.scales[node.input[0].removesuffix("_f")]
        weight = self.onnx.numpy_helper.to_array(self.weights[node.input[1]])
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        scale = np.maximum(np.abs(rows).max(1) / 127, 1e-9)
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = self.onnx.numpy_helper.to_array(self.weights[node.input[2]])
            scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**30))  # so that it fits 32 bits
        scale = scale.astype(np.float32)
        shape = [1] * weight.ndim
        shape[axis] = -1
        whole = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
        mean = self.means.get(node.input[0].removesuffix("_f"))
        if bias is not None and mean is not None:
            lost = np.moveaxis(weight - whole * scale.reshape(shape), axis, 0)
            lost = lost.reshape(*lost.shape[:2], -1).sum(2)
            bias = bias + (lost[:, 0] * mean if is_depthwise(node) else lost @ mean).astype(np.float32)
        node.input[1] = self._dequantised(f"{layer}.weight", whole, scale, axis)
        if bias is not None:
            fine = (scale * np.float32(input_scale)).astype(np.float32)
            node.input[2] = self._dequantised(f"{layer}.bias", np.rint(bias / fine).astype(np.int32), fine, 0)

    def _dequantised(self, name: str, whole: np.ndarray, scale: np.ndarray, axis: int) -> str:
        parameters = [self._constant(f"{name}_q", whole), self._constant(f"{name}_s", scale)]
        parameters.append(self._constant(f"{name}_z", np.zeros_like(scale, dtype=whole.dtype)))
        node = self.onnx.helper.make_node("DequantizeLinear", parameters, [f"{name}_f"], name=f"{name}_f", axis=axis)
        self.nodes.append(node)
        return f"{name}_f"

    def _constant(self, name: str, value: Any) -> str:
        self.made.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name


def cosine_of(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Row by row."""
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    return (expected * found).sum(1) / np.maximum(lengths, 1e-12)


def worst_layer(before: Any, after: Any, images: np.ndarray) -> tuple[str, float, float]:
    """Return the layer that loses most of the signal, and the signal-to-noise ratio before and after it, in decibels.

    A tensor of the int8 graph is compared with that of the same name in the float graph, channel by channel and up to
    a factor, because equalised channels have one.

    Args:
        before, after: the float graph and the int8 graph. images: in their form; a few are enough.
    """
    names = layer_names(before) | {n.output[0]: n.output[0] for n in before.graph.node if n.op_type == "PRelu"}
    ratio = _decibels(without_prelu(before, for_int8=True), after, images[:16])
    weights = {w.name for w in before.graph.initializer}
    worst = ("none", MOST_DECIBELS, MOST_DECIBELS)
    inner: dict[str, float] = {}  # tensors that int8 has no longer have the ratio of what made them
    for node in before.graph.node:
        out, taken = node.output[0], [name for name in node.input if name not in weights]
        came = min([inner.get(name, MOST_DECIBELS) for name in taken], default=MOST_DECIBELS)
        inner[out] = ratio.get(out, came)
        if out in names and came - inner[out] > worst[1] - worst[2]:
            worst = (names[out], came, inner[out])
    return worst


def _decibels(before: Any, after: Any, images: np.ndarray) -> dict[str, float]:
    """Tensor that both graphs have -> signal to noise."""
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for ours, theirs in zip(activations(before, images), activations(after, images), strict=True):
        for name, value in ours.items():
            if name not in theirs or theirs[name].shape != value.shape or value.ndim < 2:
                continue
            a, b = (np.moveaxis(v, 1, 0).reshape(v.shape[1], -1).astype(np.float64) for v in (value, theirs[name]))
            factor = (a * b).sum(1) / np.maximum((b * b).sum(1), 1e-30)
            signal[name] = signal.get(name, 0.0) + float((a * a).sum())
            noise[name] = noise.get(name, 0.0) + float(((a - factor[:, None] * b) ** 2).sum())
    return {
        name: float(min(MOST_DECIBELS, 10 * np.log10(max(signal[name], 1e-30) / max(noise[name], 1e-30))))
        for name in signal
    }
