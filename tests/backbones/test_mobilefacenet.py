"""Published sizes of MobileFaceNet."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone
from facedistill.errors import UsageError


@pytest.mark.parametrize(
    ("name", "dim", "parameters", "macs"),
    [
        ("mobilefacenet", 512, 1_199_488, 221.2),
        ("mobilefacenet", 128, 1_002_880, 221.0),
        ("mobilefacenet_large", 512, 2_059_520, 437.5),
    ],
)
def test_published_parameters_and_macs(name: str, dim: int, parameters: int, macs: float) -> None:
    network = create_backbone(name, dim)
    assert count_parameters(network) == parameters
    assert round(count_macs(network, 112) / 1e6, 1) == macs


def test_width_scales_all_channels_to_multiples_of_8() -> None:
    network = create_backbone("mobilefacenet", 128, width=0.5)
    assert 250_000 < count_parameters(network) < 320_000
    channels = {m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)}
    assert channels == {32, 64, 128, 256}
    odd = create_backbone("mobilefacenet_large", 128, width=0.3)
    assert all(m.out_channels % 8 == 0 for m in odd.modules() if isinstance(m, torch.nn.Conv2d))


@pytest.mark.parametrize("size", [32, 64, 112])
def test_the_global_convolution_covers_the_whole_last_map(size: int) -> None:
    network = create_backbone("mobilefacenet", 16, size, width=0.125).eval()
    assert isinstance(network.gdc, torch.nn.Sequential)
    assert network.gdc[0].kernel_size == (size // 16, size // 16)
    assert network(torch.randn(2, 3, size, size)).shape == (2, 16)


def test_plain_output_has_mean_zero_over_the_training_batch() -> None:
    network = create_backbone("mobilefacenet", 16, 32, width=0.25).train()
    assert network(torch.randn(8, 3, 32, 32)).mean(0).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["mobilefacenet", "mobilefacenet_large"])
def test_other_activations_have_no_slopes_and_the_same_names_otherwise(name: str) -> None:
    plain = create_backbone(name, 16, 32, width=0.25)
    assert (
        create_backbone(name, 16, 32, width=0.25, activation="prelu").state_dict().keys() == plain.state_dict().keys()
    )
    slopes = [m.weight.numel() for m in plain.modules() if isinstance(m, torch.nn.PReLU)]
    for activation, kind in (("relu", torch.nn.ReLU), ("relu6", torch.nn.ReLU6), ("hardswish", torch.nn.Hardswish)):
        network = create_backbone(name, 16, 32, width=0.25, activation=activation)
        assert count_parameters(network) == count_parameters(plain) - sum(slopes)
        assert sum(type(m) is kind for m in network.modules()) == len(slopes)
        missing = plain.state_dict().keys() - network.state_dict().keys()
        assert network.state_dict().keys() < plain.state_dict().keys() and len(missing) == len(slopes)
        assert network.spec["options"]["activation"] == activation
        embedding, maps = network.eval().with_features(torch.randn(2, 3, 32, 32))
        assert embedding.shape == (2, 16) and [m.shape[-1] for m in maps] == [16, 8, 4, 2]
        assert count_macs(network, 32) == count_macs(plain, 32)


@pytest.mark.parametrize("activation", ["prelu", "relu", "relu6", "hardswish", "swish"])
def test_every_activation_learns(activation: str) -> None:
    torch.manual_seed(0)
    network = create_backbone("mobilefacenet", 16, 32, width=0.25, activation=activation)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    losses = []
    for _ in range(6):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(UsageError, match=r"activation 'gelu': expected one of prelu, relu, relu6, hardswish, swish"):
        create_backbone("mobilefacenet", 16, 32, activation="gelu")
