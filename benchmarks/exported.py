"""What one image costs in the ONNX files of several models: CPU time of one thread of ONNX Runtime, in turns."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from export import embed, session
from timing import medians

from facedistill.export import TARGETS, Deployable, Form
from facedistill.models import Model

ROUNDS = 50


def in_runtime(model: Model) -> Callable[[], Any]:
    """Return a function that runs the model's ONNX file on one image, on one thread; an imported one runs as it is."""
    if model.backbone is not None and model.backbone.foreign:
        return partial(torch.inference_mode()(model), model.example())
    form = Form()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        TARGETS["onnx"]().write(Deployable(model, form), form, None, {}, file)
        opened = session(file)
    return partial(embed, opened, model.example().numpy())


def milliseconds(models: Mapping[str, Model]) -> dict[str, float]:
    """Return the median milliseconds of each model."""
    return medians({name: in_runtime(model) for name, model in models.items()}, ROUNDS, time.process_time)
