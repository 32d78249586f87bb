"""ONNX: servers, browsers, Windows, and most NPU tool chains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from facedistill.backbones import import_onnx_packages, open_session
from facedistill.export.deployable import Deployable, Form
from facedistill.export.graph import half, tidied, without_prelu
from facedistill.export.quantise import quantised, worst_layer
from facedistill.export.target import Run, Target, in_batches, in_form, quiet

INPUT, FEATURES, OUTPUT = "image", "features", "embedding"


class Onnx(Target):
    """ONNX, run by ONNX Runtime. BatchNorm is folded into the convolutions."""

    suffix = ".onnx"
    precisions = ("fp32", "fp16", "int8")
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"
    before: Any = None  # the float graph of the last file

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> Mapping[str, Any] | None:
        onnx, _ = import_onnx_packages()
        graph, told = float_graph(net, form), None
        self.before = graph
        if form.precision == "int8":
            assert calibration is not None
            graph, report = quantised(graph, in_form(calibration, form))
            told = report.to_json() | {"text": report.text()}
        else:
            graph = without_prelu(graph)
        if form.precision == "fp16":
            graph = half(graph)
        onnx.helper.set_model_props(graph, dict(facts))
        onnx.save(graph, str(path))
        return told

    def worst_layer(self, net: Deployable, form: Form, images: np.ndarray, path: Path) -> str | None:
        onnx, _ = import_onnx_packages()
        if form.precision != "int8":
            return None
        graph = float_graph(net, form) if self.before is None else self.before
        name, before, after = worst_layer(graph, onnx.load(str(path)), in_form(images, form))
        return (
            f"the worst layer is {name}: the ratio of signal to noise falls there from {before:.0f} to {after:.0f} dB"
        )

    def open(self, path: Path, form: Form, threads: int = 1) -> Run:
        session = open_session(path, threads)
        name = session.get_inputs()[0].name

        def run(images: np.ndarray) -> np.ndarray:
            return session.run(None, {name: in_form(images, form)})[0]

        return run if form.batch == "dynamic" else lambda images: in_batches(run, images, int(form.batch))


def float_graph(net: Deployable, form: Form) -> Any:
    """Return the network as an ONNX graph in float32, PReLU as it is."""
    example = net.example(form)
    any_number = ({0: torch.export.Dim("batch")},) if form.batch == "dynamic" else None
    with quiet():
        program = torch.onnx.export(
            net,
            (example,),
            input_names=[FEATURES if example.ndim == 2 else INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=any_number,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return tidied(program.model_proto)
