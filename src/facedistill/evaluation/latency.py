"""The latency of a model for one image."""

import time

import torch

from facedistill.models import Model

REPEATS = 30


@torch.inference_mode()
def latency_ms(model: Model) -> float:
    """Return the median milliseconds of a forward pass of one image, pixels to embedding, on the model's device."""
    training = model.training
    model.eval()
    image = model.example()
    times = []
    for _ in range(REPEATS + 3):
        start = time.perf_counter()
        model(image).cpu()  # waits for an accelerator
        times.append(time.perf_counter() - start)
    model.train(training)
    return round(1000 * sorted(times[3:])[REPEATS // 2], 3)
