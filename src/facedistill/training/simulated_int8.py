"""Training with the rounding of an int8 file (`schedule.quantise: int8`), so that the network learns to live with it.

Fake quantisation as in Jacob et al. (arXiv 1712.05877, section 3): values are rounded to 8 bits on the way forward,
and the gradient passes as if they were not. `export` then calibrates and quantises the trained network as any other.
"""

import torch
from torch import Tensor, nn

from facedistill.errors import UserError

IMAGES = 0.9  # the range holds all values of nine images in ten, as export's calibration by percentile does
LEVELS, WHOLE = 255, 127  # of an activation (uint8), and on each side of a weight's zero (int8)


def simulate_int8(network: nn.Module) -> None:
    """Round the inputs and weights of the network's convolutions and linear layers, in training mode alone.

    The ranges of inputs come from the batch at hand, so nothing has to be saved: the network's state stays as it is.

    Raises:
        UserError: the network has no such layers.
    """
    rounds = {nn.Conv2d: _Conv2d, nn.Linear: _Linear}
    layers = [module for module in network.modules() if type(module) in rounds]
    if not layers:
        raise UserError(
            "schedule.quantise=int8: the student has no Conv2d and no Linear layer to round; remove schedule.quantise"
        )
    for layer in layers:
        layer.__class__ = rounds[type(layer)]


class _Conv2d(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.training:
            input, weight = rounded(input), rounded_rows(weight)
        return super()._conv_forward(input, weight, bias)


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        return nn.functional.linear(rounded(input), rounded_rows(self.weight), self.bias)


def rounded(values: Tensor) -> Tensor:
    """Return activations (N, ...) rounded to 8 bits with one scale; what is out of range is cut, with gradient 0."""
    values = values.float()
    with torch.no_grad():
        each = values.flatten(1)
        low = torch.quantile(each.amin(1), 1 - IMAGES).clamp(max=0)
        high = torch.quantile(each.amax(1), IMAGES).clamp(min=0)
        scale = ((high - low) / LEVELS).clamp_min(1e-9)
        zero = (-low / scale).round().clamp(0, LEVELS).int()
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, LEVELS)


def rounded_rows(weight: Tensor) -> Tensor:
    """Return weights (outputs, ...) rounded to 8 bits with a scale for each output; nothing is cut."""
    with torch.no_grad():
        scale = (weight.flatten(1).abs().amax(1).float() / WHOLE).clamp_min(1e-9)
        zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), scale, zero, 0, -WHOLE, WHOLE)
