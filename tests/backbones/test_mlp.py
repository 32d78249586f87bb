"""The perceptron of features: its size, its cost, and that the features' units do not matter."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone, sample_shape, takes_features
from facedistill.errors import UsageError


def test_its_cost_is_that_of_its_matrices() -> None:
    network = create_backbone("mlp", 8, 20, hidden=32, depth=2)
    matrices = 20 * 32 + 32 * 32 + 32 * 8
    assert count_macs(network, 20) == matrices
    assert count_parameters(network) == matrices + 2 * 2 * 32 + 2 * 8  # two norms of the layers, that of the output
    assert sample_shape(network, 20) == (20,) and sample_shape(create_backbone("mobilefacenet"), 64) == (3, 64, 64)


def test_the_units_of_the_features_do_not_matter() -> None:
    torch.manual_seed(0)
    network, x = create_backbone("mlp", 8, 5).train(), torch.randn(64, 5)
    scaled = x * torch.tensor([1e3, 1.0, 1e-1, 50.0, 2.0]) + torch.tensor([7.0, -3.0, 0.0, 1e3, 2.0])
    torch.testing.assert_close(network(scaled), network(x), rtol=2e-2, atol=2e-2)


def test_without_hidden_layers_it_is_linear() -> None:
    network = create_backbone("mlp", 4, 6, depth=0).eval()
    x = torch.randn(3, 6)
    torch.testing.assert_close(network(2 * x) - network(x), network(x) - network(0 * x))


def test_only_it_takes_features_and_bad_options_are_refused() -> None:
    assert takes_features("mlp") and not takes_features("vit_t") and not takes_features("timm:resnet18")
    for options in ({"hidden": 0}, {"depth": -1}, {"input_size": 0}):
        with pytest.raises(UsageError, match="expected 1, 1 and 0 or more"):
            create_backbone("mlp", **options)
