"""LiteRT (TensorFlow Lite): Android, microcontrollers, and the tool chains of many NPUs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.export.deployable import Deployable, Form
from facedistill.export.target import Run, Target, in_batches, in_form, quiet

INT8 = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
HALF = {
    "regex": ".*",
    "operation": "*",
    "algorithm_key": "float_casting",
    "op_config": {
        "weight_tensor_config": {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"},
        "compute_precision": "FLOAT",
        "explicit_dequantize": True,
        "skip_checks": False,
        "min_weight_elements": 0,
    },
}


class LiteRT(Target):
    """A .tflite file, run by LiteRT with XNNPACK. It takes a fixed number of images.

    fp16: weights of convolutions and linear layers; a runtime without half arithmetic widens them when it opens the
    file. int8: the same layers, static, weights per channel, activations between the least and the greatest value over
    the calibration's images; all else (PReLU, additions, normalisation) stays in fp32.
    """

    suffix = ".tflite"
    precisions = ("fp32", "fp16", "int8")
    packages = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
    extra = "litert"
    any_batch = False

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> None:
        with quiet():
            import litert_torch

            litert_torch.convert(net, (net.example(form),)).export(str(path))
            if form.precision == "fp16":
                path.write_bytes(_quantised(path, [HALF], None))
            elif form.precision == "int8":
                assert calibration is not None
                path.write_bytes(_int8(path, calibration, form))
            path.write_bytes(_with_metadata(path.read_bytes(), facts))

    def open(self, path: Path, form: Form, threads: int = 1) -> Run:
        with quiet():
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(str(path), num_threads=threads)
            interpreter.allocate_tensors()
        taken, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

        def run(images: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(taken, in_form(images, form))
            interpreter.invoke()
            return interpreter.get_tensor(made)

        return lambda images: in_batches(run, images, int(form.batch))

    def facts(self, path: Path) -> dict[str, str]:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        return {e.Name().decode(): _text(model.Buffers(e.Buffer())) for e in entries if e.Name()}


def _text(buffer: Any) -> str:
    return buffer.DataAsNumpy().tobytes().decode(errors="replace") if buffer.DataLength() else ""


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return the flatbuffer with a buffer of metadata for each key."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)  # with large weights, which lie behind the flatbuffer
    for buffer in model.buffers:
        if isinstance(buffer.data, bytes):
            buffer.data = np.frombuffer(buffer.data, dtype=np.uint8)
    for key, value in metadata.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value.encode(), dtype=np.uint8)
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _int8(path: Path, images: np.ndarray, form: Form) -> bytes:
    """Return the file with int8 arithmetic in convolutions and linear layers.

    The quantizer's own calibration averages the extremes over the images, which saturates: 0.985 of cosine instead of
    0.999 on the demo's student.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, qtyping, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    recipe = recipe_manager.RecipeManager()
    for name in INT8:
        recipe.add_static_config(".*", qtyping.TFLOperationName[name], activation_num_bits=8, weight_num_bits=8)
    ((signature, ends),) = Interpreter(str(path)).get_signature_list().items()
    batch = int(form.batch)
    starts = range(0, max(len(images) - batch, 0) + 1, batch)
    shape = (batch, *images.shape[1:])
    data = [{ends["inputs"][0]: in_form(np.resize(images[i : i + batch], shape), form)} for i in starts]
    observed = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    observed.calibrate({signature: data}, recipe)
    return _quantised(path, recipe.get_quantization_recipe(), observed.get_model_qsvs())


def _quantised(path: Path, recipe: Any, ranges: Any) -> bytes:
    from ai_edge_quantizer import quantizer

    made = quantizer.Quantizer(str(path))
    made.load_quantization_recipe(recipe)
    return bytes(made.quantize(ranges).quantized_model)
