"""Published sizes of IResNet, and the names of arcface_torch's state dicts."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone


@pytest.mark.parametrize(
    ("depth", "parameters", "macs"), [(18, 24.03, 2.61), (34, 34.14, 4.46), (50, 43.59, 6.31), (100, 65.16, 12.09)]
)
def test_published_parameters_and_macs(depth: int, parameters: float, macs: float) -> None:
    network = create_backbone(f"iresnet{depth}")
    assert round(count_parameters(network) / 1e6, 2) == parameters
    assert round(count_macs(network, 112) / 1e9, 2) == macs


def arcface_torch_names(blocks: tuple[int, ...]) -> list[str]:
    """The state dict's names by the definition of the network, in its order."""

    def norm(name: str) -> list[str]:
        return [f"{name}.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    names = ["conv1.weight", *norm("bn1"), "prelu.weight"]
    for layer, count in enumerate(blocks, 1):
        for block in range(count):
            at = f"layer{layer}.{block}"
            names += [*norm(f"{at}.bn1"), f"{at}.conv1.weight", *norm(f"{at}.bn2"), f"{at}.prelu.weight"]
            names += [f"{at}.conv2.weight", *norm(f"{at}.bn3")]
            if block == 0:
                names += [f"{at}.downsample.0.weight", *norm(f"{at}.downsample.1")]
    return [*names, *norm("bn2"), "fc.weight", "fc.bias", *norm("features")]


@pytest.mark.parametrize(("depth", "blocks"), [(18, (2, 2, 2, 2)), (50, (3, 4, 14, 3))])
def test_names_are_those_of_arcface_torch(depth: int, blocks: tuple[int, ...]) -> None:
    network = create_backbone(f"iresnet{depth}", 16, 32, width=0.125)
    assert list(network.state_dict()) == arcface_torch_names(blocks)


def test_the_last_scale_is_frozen_to_one_and_its_bias_trained() -> None:
    network = create_backbone("iresnet18", 16, 32, width=0.125)
    last = network.features
    assert isinstance(last, torch.nn.BatchNorm1d)
    assert torch.equal(last.weight, torch.ones(16)) and not last.weight.requires_grad
    assert last.bias.requires_grad


def test_dropout_acts_only_in_training() -> None:
    network = create_backbone("iresnet18", 16, 32, width=0.125, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
