"""ExecuTorch with XNNPACK: Android and iOS from PyTorch itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from facedistill.export.deployable import Deployable, Form
from facedistill.export.target import Run, Target, in_batches, in_form


class ExecuTorch(Target):
    """A .pte program for the XNNPACK backend. It takes a fixed number of images."""

    suffix = ".pte"
    precisions = ("fp32",)
    packages = ("executorch",)
    extra = "executorch"
    any_batch = False

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> None:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(net, (net.example(form),))
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=dict(facts))
        path.write_bytes(edge.to_executorch().buffer)

    def open(self, path: Path, form: Form, threads: int = 1) -> Run:
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(str(path)).load_method("forward")

        def run(images: np.ndarray) -> np.ndarray:
            return method.execute([torch.from_numpy(in_form(images, form))])[0].numpy().copy()

        return lambda images: in_batches(run, images, int(form.batch))
