"""An exponential moving average of the weights of a run (`schedule.ema`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class WeightAverage:
    """A second copy of a module's parameters and buffers that follows the trained ones.

    After step t (from 1): average <- k average + (1 - k) trained, k = min(decay, (1 + t) / (10 + t)), so that the first
    steps, of hardly trained weights, are soon forgotten. This is Polyak's averaging with exponential weights; the limit
    of early steps is that of TensorFlow's ExponentialMovingAverage. Statistics of batch normalisation are averaged as
    weights are, and integers are copied.

    Every process holds the same average, except for the statistics that it gathers itself.

    Args:
        decay: from 0 to below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights = _copied(module)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the weights after `step`, the number of steps that are done."""
        kept = min(self.decay, (1 + step) / (10 + step))
        for name, trained in self.module.state_dict().items():
            average = self.weights[name]
            if average.is_floating_point():
                average.lerp_(trained, 1 - kept)
            else:
                average.copy_(trained)

    @torch.no_grad()
    def restore(self, weights: Weights) -> None:
        """Go on from the average of a checkpoint."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    def install(self) -> None:
        """Give the module the average, for good."""
        self.module.load_state_dict(self.weights)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Give the module the average within the block, and its trained weights afterwards."""
        trained = _copied(self.module)
        self.install()
        try:
            yield
        finally:
            self.module.load_state_dict(trained)


def _copied(module: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
