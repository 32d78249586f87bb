"""Known ways to break an exported file, each a target: the gate must catch them all. Tests and the table use these."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from facedistill.backbones import Backbone, create_backbone
from facedistill.export import Deployable, Form
from facedistill.export.onnx import Onnx, float_graph
from facedistill.export.target import in_form
from facedistill.models import Model, Precision


class DoubleNormalisation(Onnx):
    """The caller's normalisation and the file's."""

    def write(self, net: Deployable, *rest: Any) -> Mapping[str, Any] | None:
        return super().write(_Before(net, lambda x: (x - net.mean) / net.std), *rest)  # type: ignore[arg-type]


class Bgr(Onnx):
    """The channels in the other order."""

    def write(self, net: Deployable, *rest: Any) -> Mapping[str, Any] | None:
        return super().write(_Before(net, lambda x: x.flip(1)), *rest)  # type: ignore[arg-type]


class ZeroToOne(Onnx):
    """The file expects 0..1."""

    def write(self, net: Deployable, *rest: Any) -> Mapping[str, Any] | None:
        return super().write(_Before(net, lambda x: x / 255), *rest)  # type: ignore[arg-type]


class Constant(Onnx):
    """The same embedding for all images."""

    def write(self, net: Deployable, *rest: Any) -> Mapping[str, Any] | None:
        return super().write(_Constant(net), *rest)  # type: ignore[arg-type]


class PerTensor(Onnx):
    """ONNX Runtime's own quantiser with one scale for all channels of a weight."""

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> Mapping[str, Any] | None:
        assert calibration is not None
        with TemporaryDirectory() as folder:
            before, self.before = Path(folder) / "float.onnx", float_graph(net, form)
            onnx.save(self.before, str(before))
            naive(before, path, in_form(calibration, form), per_channel=False)
        return None


class BlackImages(Onnx):
    """Calibrated on black images, so that real ones saturate."""

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> Mapping[str, Any] | None:
        assert calibration is not None
        return super().write(net, form, np.zeros_like(calibration), facts, path)


NORMS = (nn.BatchNorm2d, nn.BatchNorm1d)
# fault -> the target as `export_model` takes it, and the precision
FAULTS: dict[str, tuple[str, Precision]] = {
    "double normalisation": ("export_faults:DoubleNormalisation", "fp32"),
    "BGR for RGB": ("export_faults:Bgr", "fp32"),
    "0..1 for 0..255": ("export_faults:ZeroToOne", "fp32"),
    "constant output": ("export_faults:Constant", "fp32"),
    "one scale a weight (per tensor)": ("export_faults:PerTensor", "int8"),
    "calibrated on black images": ("export_faults:BlackImages", "int8"),
}


def naive(before: Path, after: Path, images: np.ndarray, per_channel: bool) -> None:
    """ONNX Runtime's static quantisation as most people call it: QDQ, MinMax."""
    quantize_static(
        before,
        after,
        _Reader(images),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def as_trained(embedding_dim: int, size: int, width: float, activation: str = "prelu") -> Model:
    """A MobileFaceNet with random weights, and with biases, slopes and channels of unequal size as training makes."""
    torch.manual_seed(0)
    backbone = create_backbone("mobilefacenet", embedding_dim, size, width=width, activation=activation)
    for module in backbone.modules():
        if isinstance(module, NORMS):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        _make_uneven(module)
    return Model(backbone).eval()


def looking_trained(backbone: Backbone, images: Tensor) -> Model:
    """Any network with random weights, uneven as those of `as_trained`, and the running statistics of the images.

    With statistics of its own, a deep network keeps its values in bounds, so that rounding errors stay small. The
    embedding's are left out: centred noise would lose more in int8 than a trained embedding does.
    """
    model = Model(backbone)
    for module in backbone.modules():
        _make_uneven(module)
        if isinstance(module, NORMS):
            module.momentum = None  # the mean over all passes
    with torch.no_grad():
        model.train()(images)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()
    return model.eval()


def _make_uneven(module: nn.Module) -> None:
    if isinstance(module, NORMS) and module.affine:
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.uniform_(module.bias, -0.5, 0.5)
    if isinstance(module, nn.PReLU):
        nn.init.uniform_(module.weight, 0.05, 0.5)


class _Before(nn.Module):
    """Something done to the pixels before the network sees them."""

    def __init__(self, net: Deployable, change: Any) -> None:
        super().__init__()
        self.net, self.change, self.example = net, change, net.example
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.change(images.float()))


class _Constant(nn.Module):
    def __init__(self, net: Deployable) -> None:
        super().__init__()
        self.net, self.example = net, net.example
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.float() * 0)


class _Reader(CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter([images[i : i + 8] for i in range(0, len(images) - 7, 8)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}
