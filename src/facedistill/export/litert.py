"""LiteRT (TensorFlow Lite): Android, microcontrollers, and the tool chains of many NPUs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from facedistill.export.deployable import Deployable, Form
from facedistill.export.target import Run, Target, in_batches, in_form


class LiteRT(Target):
    """A .tflite file, run by LiteRT with XNNPACK. It takes a fixed number of images."""

    suffix = ".tflite"
    precisions = ("fp32",)
    packages = ("litert_torch", "ai_edge_litert")
    extra = "litert"
    any_batch = False

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> None:
        import litert_torch

        litert_torch.convert(net, (net.example(form),)).export(str(path))

    def open(self, path: Path, form: Form, threads: int = 1) -> Run:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
        taken, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def run(images: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(taken, in_form(images, form))
            interpreter.invoke()
            return interpreter.get_tensor(made)

        return lambda images: in_batches(run, images, int(form.batch))
