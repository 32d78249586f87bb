"""A detector in YuNet's layout that needs no training: it finds squares of pure red, 8 x 8 pixels, as faces' corners.

The graph is real ONNX. A convolution of stride 8 looks for the colour; boxes and landmarks are constants around it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

SIDE = 80.0  # pixels of a found face
POINTS = np.array([[-16.0, -16.0], [16.0, -16.0], [0.0, 4.0], [-12.0, 20.0], [12.0, 20.0]])  # from the cell's corner


def save_detector(path: Path, side: float = SIDE) -> Path:
    """Write the detector. A cell is a face if it is red: red less green, the mean of 8 x 8 pixels, is above 200."""
    kernel = np.broadcast_to(np.array([0, -1, 1]).reshape(1, 3, 1, 1) / 64, (1, 3, 8, 8))  # the input is BGR
    weights = {"kernel": kernel, "less": np.array([-200.0]), "steep": np.array(1000.0), "zero": np.array(0.0)}
    nodes, outputs = [], []

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))

    for stride in (8, 16, 32):
        node("Conv", ["input", "kernel", "less"], f"red{stride}", strides=[stride] * 2, kernel_shape=[8, 8])
        node("Mul", [f"red{stride}", "steep"], f"steep{stride}")
        node("Sigmoid", [f"steep{stride}"], f"map{stride}")
        node("Reshape", [f"map{stride}", "cells"], f"cls_{stride}")
        node("Mul", [f"cls_{stride}", "zero"], f"zero{stride}")
        found = 1.0 if stride == 8 else 0.0
        box = [0, 0, np.log(side / stride), np.log(side / stride)]
        for name, values in (("obj", [found]), ("bbox", box), ("kps", (POINTS * side / SIDE / stride).ravel())):
            weights[f"{name}{stride}"] = np.array(values)
            node("Add", [f"zero{stride}", f"{name}{stride}"], f"{name}_{stride}")
    for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        outputs += [
            helper.make_tensor_value_info(f"{name}_{s}", TensorProto.FLOAT, [1, f"n{s}", width]) for s in (8, 16, 32)
        ]
    initial = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    initial.append(numpy_helper.from_array(np.array([1, -1, 1], np.int64), "cells"))
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, "red squares", [taken], outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def photo(size: tuple[int, int], corners: list[tuple[int, int]], shade: int = 90) -> Image.Image:
    """A grey image of (width, height) with a face at each corner: a multiple of 8, which the cell then holds whole."""
    image = Image.new("RGB", size, (shade, shade, shade))
    draw = ImageDraw.Draw(image)
    for x, y in corners:
        draw.ellipse((x - 30, y - 36, x + 30, y + 40), fill=(shade + 60, shade + 50, shade + 40))
        draw.rectangle((x, y, x + 7, y + 7), fill=(255, 0, 0))
    return image
