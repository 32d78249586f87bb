"""Our PReLU against PyTorch's."""

import pytest
import torch
from torch import nn

from facedistill.backbones.prelu import PReLU


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_values_and_gradients_are_those_of_torch(memory: torch.memory_format, dtype: torch.dtype) -> None:
    x = torch.randn(3, 8, 5, 4, dtype=dtype).to(memory_format=memory)
    x[0, 0] = 0.0  # the kink
    gradient = torch.randn_like(x)
    results = []
    for layer in (nn.PReLU(8), PReLU(8)):
        layer.weight.data = torch.linspace(-0.5, 1.5, 8, dtype=dtype)  # slopes below 0 and above 1 too
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(gradient)
        results.append((y, given.grad, layer.weight.grad))
    (y, to_x, to_slope), (our_y, our_x, our_slope) = results
    assert to_x is not None and our_x is not None
    assert torch.equal(our_y, y) and torch.equal(our_x, to_x)
    tolerance = 1e-12 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(our_slope, to_slope, rtol=tolerance, atol=tolerance)


def test_under_autocast_the_slope_keeps_an_fp32_gradient() -> None:
    layer = PReLU(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, 8, 4, 4, requires_grad=True))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_state_dict_is_that_of_torch() -> None:
    nn.PReLU(8).load_state_dict(PReLU(8).state_dict())
