"""The CIFAR ResNet-20 of He et al., counted by hand."""

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters, create_backbone
from facedistill.errors import UsageError


def _convolutions(widths: tuple[int, int, int], size: int) -> list[tuple[int, int, int]]:
    """(weights, outputs, places) of every convolution by the paper's table; 1x1 where the size changes."""
    found = [(3 * 9 * widths[0], widths[0], size * size)]
    inputs = widths[0]
    for stage, width in enumerate(widths):
        places = (size >> stage) ** 2
        for block in range(3):
            found += [(inputs * 9 * width, width, places), (width * 9 * width, width, places)]
            if block == 0 and stage:
                found.append((inputs * width, width, places))
            inputs = width
    return found


@pytest.mark.parametrize(("width", "widths"), [(1.0, (16, 32, 64)), (2.0, (32, 64, 128)), (0.5, (8, 16, 32))])
@pytest.mark.parametrize("size", [28, 32])
def test_parameters_and_macs_of_the_paper(width: float, widths: tuple[int, int, int], size: int) -> None:
    network = create_backbone("resnet_small", 100, size, width=width)
    layers = _convolutions(widths, size)
    head = widths[-1] * 100
    norms = 2 * sum(outputs for _, outputs, _ in layers)
    assert count_parameters(network) == sum(weights for weights, *_ in layers) + norms + head + 2 * 100
    assert count_macs(network, size) == sum(weights * places for weights, _, places in layers) + head


def test_the_size_that_the_paper_prints() -> None:
    """0.27 M with 10 classes: here with W beside the network, and 2,560 weights more in the two shortcuts."""
    network = create_backbone("resnet_small", 10, 32)
    assert round((count_parameters(network) - 2 * 10 - (16 * 32 + 32 * 64)) / 1e6, 2) == 0.27


@pytest.mark.parametrize(
    ("size", "sides"), [(28, [28, 14, 7]), (30, [30, 15, 8]), (32, [32, 16, 8]), (64, [64, 32, 16])]
)
def test_stage_maps(size: int, sides: list[int]) -> None:
    network = create_backbone("resnet_small", 12, size).eval()
    embedding, maps = network.with_features(torch.randn(2, 3, size, size))
    assert embedding.shape == (2, 12)
    assert [tuple(m.shape[1:]) for m in maps] == [(c, s, s) for c, s in zip((16, 32, 64), sides, strict=True)]


def test_too_small_an_input_is_refused() -> None:
    with pytest.raises(UsageError, match="input_size 27: expected 28 or more"):
        create_backbone("resnet_small", 12, 27)


def test_mobilefacenet_takes_images_of_32_pixels() -> None:
    network = create_backbone("mobilefacenet", 12, 32, width=0.25).train()
    embedding, maps = network.with_features(torch.randn(4, 3, 32, 32))
    embedding.square().sum().backward()
    assert embedding.shape == (4, 12) and [m.shape[-1] for m in maps] == [16, 8, 4, 2]
