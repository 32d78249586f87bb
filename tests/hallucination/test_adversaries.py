"""The opponents of the adversarial stage, which are ours: their interface, and that they can learn their task."""

import pytest
import torch
from torch.nn import functional as F

from facedistill.backbones import count_parameters
from facedistill.hallucination.adversaries import SCALES, DegradationGenerator, Discriminator, scale_of


def test_a_discriminator_gives_a_map_of_an_eighth() -> None:
    network = Discriminator()
    assert network(torch.zeros(2, 3, 112, 112)).shape == (2, 1, 14, 14)
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256) + 64 + 128 + 256
    assert count_parameters(network) == convolutions + 9 * 256 + 1


def test_the_one_of_low_images_tells_scales_too() -> None:
    network = Discriminator(len(SCALES))
    real, scales = network.with_scales(torch.randn(2, 3, 32, 32))
    assert real.shape == (2, 1, 4, 4) and scales.shape == (2, 3)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    sharp = torch.randn(6, 3, 32, 32)
    images = torch.cat([F.interpolate(F.avg_pool2d(sharp, s), scale_factor=float(s)) for s in SCALES])
    wanted = torch.arange(3).repeat_interleave(6)
    for _ in range(25):
        loss = F.cross_entropy(network.with_scales(images)[1], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network.with_scales(images)[1].argmax(1) == wanted).double().mean() > 0.9


def test_the_generator_follows_the_scale() -> None:
    """A constant map for each scale would be removed by the first instance normalisation."""
    network, x = DegradationGenerator(8, 1), torch.rand(2, 3, 32, 32) * 1.8 - 0.9
    begun = network(x, torch.tensor([0, 2]))
    assert begun.shape == x.shape and (begun - x).abs().mean() < 0.02  # it begins by leaving the image as it is
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    torch.nn.init.xavier_normal_(last.weight)
    made = [network(x, torch.tensor([i, i])) for i in range(3)]
    assert all(m.abs().max() <= 1 for m in made)
    assert all((made[i] - made[j]).abs().mean() > 0.1 for i, j in ((0, 1), (1, 2), (0, 2)))


@pytest.mark.parametrize(
    ("side", "scale"),
    [(1, 8), (10, 8), (14, 8), (19, 8), (20, 4), (28, 4), (39, 4), (40, 2), (56, 2), (112, 2), (500, 2)],
)
def test_the_scale_of_an_image_is_the_nearest_factor(side: int, scale: int) -> None:
    assert SCALES[scale_of(side, 112)] == scale
