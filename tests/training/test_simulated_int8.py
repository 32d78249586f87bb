"""The rounding of an int8 file in training: its values, its gradient, and that only training sees it."""

import numpy as np
import pytest
import torch
from torch import nn

from facedistill.backbones import create_backbone
from facedistill.errors import UserError
from facedistill.training.simulated_int8 import rounded, rounded_rows, simulate_int8


def _by_numpy(values: np.ndarray, low: float, high: float) -> np.ndarray:
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return scale * (np.clip(np.round(values / scale) + zero, 0, 255) - zero)


def test_activations_are_rounded_in_a_range_that_holds_nine_images_in_ten() -> None:
    values = torch.randn(40, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[0] *= 100  # an image out of the range
    each = values.flatten(1).numpy()
    low, high = np.quantile(each.min(1), 0.1), np.quantile(each.max(1), 0.9)
    assert -5 < low < -1 and 1 < high < 5
    expected = _by_numpy(values.numpy(), low, high)
    found = rounded(values).numpy()
    step = (high - low) / 255
    assert np.abs(found - expected).max() < 1.01 * step  # where a value lies between two steps, either is right
    assert (np.abs(found - expected) < 1e-5).mean() > 0.999
    positive = rounded(values.abs())
    assert positive.min() == 0 and len(torch.unique(positive)) > 200  # no step is spent below 0


def test_the_gradient_passes_inside_the_range_alone() -> None:
    values = torch.tensor([[0.0, 0.3, 1.0]] * 9 + [[0.0, 0.3, 50.0]], requires_grad=True)
    rounded(values).sum().backward()
    assert values.grad is not None
    assert values.grad[:9].eq(1).all() and values.grad[9].tolist() == [1, 1, 0]


@pytest.mark.parametrize("values", [torch.zeros(2, 3), torch.full((1, 1), -3.0), torch.ones(1, 4).bfloat16()])
def test_edges(values: torch.Tensor) -> None:
    torch.testing.assert_close(rounded(values), values.float())
    torch.testing.assert_close(rounded_rows(values), values.float())


def test_weights_have_a_scale_for_each_output() -> None:
    weight = (
        torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-4, 3, 8)[:, None, None, None]
    )
    rows = weight.flatten(1).double().numpy()
    scale = np.abs(rows).max(1, keepdims=True) / 127
    np.testing.assert_allclose(rounded_rows(weight).flatten(1), scale * np.round(rows / scale), rtol=1e-4)


def test_only_training_sees_it_and_the_state_stays() -> None:
    torch.manual_seed(0)
    network = create_backbone("mobilefacenet", 16, 32, width=0.25)
    x = torch.randn(8, 3, 32, 32)
    plain, names = network.train()(x), list(network.state_dict())
    before = network.eval()(x)
    simulate_int8(network)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network.eval()(x), before, rtol=0, atol=0)
    coarse = network.train()(x)
    cosine = torch.nn.functional.cosine_similarity(coarse, plain)
    assert 0.9 < cosine.mean() < 0.99999
    coarse.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_network_without_such_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"schedule\.quantise=int8: the student has no Conv2d"):
        simulate_int8(nn.Sequential(nn.Flatten(), nn.ReLU()))
