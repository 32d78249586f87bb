"""Published sizes of MobileFaceNet."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone


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
