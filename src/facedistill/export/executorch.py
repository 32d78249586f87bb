"""ExecuTorch with XNNPACK: Android and iOS from PyTorch itself.

There is no fp16: the XNNPACK writer stores weights of convolutions in fp32, so the file would hardly be smaller.
"""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from facedistill.export.deployable import Deployable, Form
from facedistill.export.target import Run, Target, in_batches, in_form, quiet
from facedistill.models import FACTS

CALIBRATION_BATCH = 32


class ExecuTorch(Target):
    """A .pte program for the XNNPACK backend. It takes a fixed number of images.

    int8: static, weights per channel, of convolutions and linear layers with their additions; PReLU stays in fp32.
    """

    suffix = ".pte"
    precisions = ("fp32", "int8")
    packages = ("executorch", "torchao")
    extra = "executorch"
    any_batch = False

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> None:
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            module: Any = net
            if form.precision == "int8":
                assert calibration is not None
                module = _quantised(net, form, in_form(calibration, form))
            program = torch.export.export(module, (net.example(form),))
            edge = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods=dict(facts)
            )
            path.write_bytes(edge.to_executorch().buffer)

    def open(self, path: Path, form: Form, threads: int = 1) -> Run:
        with quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            portable_lib._unsafe_reset_threadpool(threads)
            method = Runtime.get().load_program(str(path)).load_method("forward")

        def run(images: np.ndarray) -> np.ndarray:
            return method.execute([torch.from_numpy(in_form(images, form))])[0].numpy().copy()

        return lambda images: in_batches(run, images, int(form.batch))

    def facts(self, path: Path) -> dict[str, str]:
        with quiet():
            from executorch.runtime import Runtime

            program = Runtime.get().load_program(str(path))
            if FACTS not in program.method_names:
                return {}
            return {FACTS: program.load_method(FACTS).execute([])[0]}


def _quantised(net: Deployable, form: Form, images: np.ndarray) -> Any:
    """Return the network with int8 weights and activations, in PyTorch's own form of them (PT2E)."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    # Of any number of images, because one image at a time takes ten times as long; the file's own number comes after.
    example = torch.from_numpy(images[:2])
    net = copy.deepcopy(net)
    for module in net.modules():  # PyTorch folds a linear layer and its normalisation only if that has a scale
        if isinstance(module, nn.BatchNorm1d) and module.weight is None:
            size = module.num_features
            module.weight = nn.Parameter(torch.ones(size), requires_grad=False)
            module.bias = nn.Parameter(torch.zeros(size), requires_grad=False)
    with patch.object(torch, "autocast", lambda *_, **__: nullcontext()):  # it would hide the last linear layer
        program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program, quantizer)
    for part in torch.from_numpy(images).split(CALIBRATION_BATCH):
        prepared(part)
    return convert_pt2e(prepared)
