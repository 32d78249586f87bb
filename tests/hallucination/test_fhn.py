"""The hallucination network: its published size, its outputs, and that all of it trains."""

from pathlib import Path

import pytest
import torch

from facedistill.backbones import count_macs, count_parameters
from facedistill.errors import UsageError
from facedistill.hallucination.fhn import FHN, PRESETS, check_size, create_fhn
from facedistill.hallucination.layers import Hourglass, Residual, convolution

# Parameters and MACs at 112 x 112 of coarse network, priors, encoder and decoder, as derived from the authors' code.
PUBLISHED = {
    "coarse": (8_755_584, 8.463),
    "prior": (7_221_389, 15.571),
    "encoder": (8_746_176, 8.345),
    "decoder": (34_965_888, 33.338),
}
SIZES = {
    "tiny": (2_077_149, 2.45),
    "small": (4_663_429, 5.43),
    "base": (10_496_589, 11.83),
    "paper": (59_689_037, 65.72),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_and_macs_of_every_preset(preset: str) -> None:
    with torch.device("meta"):
        network = create_fhn(preset)
    assert count_parameters(network) == SIZES[preset][0]
    macs = count_macs(network, 112)
    assert round(macs / 1e9, 2) == SIZES[preset][1]
    assert macs == sum(_macs_by_hand(*PRESETS[preset][:4], 112).values())


def test_the_page_has_the_sizes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hallucination.md").read_text("utf-8")
    for preset, (parameters, macs) in SIZES.items():
        assert f"| `{preset}` | {parameters / 1e6:.2f} M | {macs:.2f} |" in page


def test_the_paper_network_part_by_part() -> None:
    with torch.device("meta"):
        network = create_fhn("paper")
    assert {name: count_parameters(part) for name, part in network.named_children()} == {
        name: parameters for name, (parameters, _) in PUBLISHED.items()
    }


def _macs_by_hand(channels: int, blocks: int, hourglasses: int, prior_blocks: int, size: int) -> dict[str, float]:
    """Multiply-adds from the layers' definitions: kernel x kernel x inputs x outputs x places, written out."""
    full, half, quarter = size**2, (size // 2) ** 2, (size // 4) ** 2

    def body(c: int) -> int:  # the translator of c channels
        down = 9 * (c * 2 * c + 2 * c * 2 * c) * half + 9 * (2 * c * 4 * c + 4 * c * 4 * c) * quarter
        middle = blocks * 2 * 9 * (4 * c) ** 2 * quarter
        # A transposed convolution does its work once for every place of its input.
        up = 9 * 4 * c * 2 * c * quarter + 9 * (2 * c) ** 2 * half + 9 * 2 * c * c * half + 9 * c * c * full
        return down + middle + up

    c = channels
    group = 3 * (c * c + 9 * c * c + c * c)  # three bottlenecks of 1x1, 3x3, 1x1
    levels = sum((full >> 2 * level) + 2 * (full >> 2 * (level + 1)) for level in range(4)) + (full >> 8)
    return {
        "coarse": (49 * 3 * c + 9 * c * 3) * full + body(c),
        "prior": 49 * 3 * c * full
        + prior_blocks * 2 * 9 * c * c * full
        + hourglasses * group * levels
        + (13 + 68) * c * full,
        "encoder": 9 * 3 * c * full + body(c),
        "decoder": body(2 * c) + 9 * 2 * c * 3 * full,
    }


def test_the_macs_are_those_of_the_layers_written_out() -> None:
    by_hand = _macs_by_hand(64, 6, 4, 2, 112)
    assert {name: round(value / 1e9, 3) for name, value in by_hand.items()} == {n: m for n, (_, m) in PUBLISHED.items()}


def test_what_it_gives() -> None:
    network = create_fhn("tiny")
    found = network.with_priors(torch.rand(2, 3, 32, 32) * 2 - 1)
    shapes = [tuple(x.shape[1:]) for x in found]
    assert shapes == [(3, 32, 32), (3, 32, 32), (68, 32, 32), (13, 32, 32)]
    assert found.coarse.abs().max() <= 1 and found.fine.abs().max() <= 1
    assert torch.equal(network(torch.zeros(1, 3, 32, 32)), network.with_priors(torch.zeros(1, 3, 32, 32)).fine)


def test_every_weight_has_a_gradient() -> None:
    network = create_fhn("tiny")
    found = network.with_priors(torch.randn(2, 3, 32, 32))
    torch.stack([(x * torch.randn_like(x)).sum() for x in found]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_the_fine_image_depends_on_the_priors() -> None:
    network, x = create_fhn("tiny"), torch.randn(1, 3, 32, 32)
    before = network(x)
    with torch.no_grad():
        network.prior.blocks[0].layers[0].weight.mul_(2)  # type: ignore[union-attr, index]
    assert not torch.allclose(before, network(x))


def test_a_residual_block_has_no_activation_after_the_sum() -> None:
    block = Residual(4)
    with torch.no_grad():
        block.layers[-1].weight.zero_()  # type: ignore[operator]
    x = torch.randn(1, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_an_hourglass_sees_half_the_size_at_every_level() -> None:
    """With bottlenecks that change nothing, a level is x + upsampled(maxpool(x) ...), by hand for two levels."""
    network = Hourglass(1, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    x = torch.randn(1, 1, 8, 8)
    half = x[0, 0].view(4, 2, 4, 2).amax((1, 3))
    quarter = half.view(2, 2, 2, 2).amax((1, 3))
    expected = x[0, 0] + torch.kron(half + torch.kron(quarter, torch.ones(2, 2)), torch.ones(2, 2))
    assert torch.allclose(network(x)[0, 0], expected)


def test_a_convolution_reflects_its_border() -> None:
    layer = convolution(1, 1)
    with torch.no_grad():
        layer[1].weight.copy_(torch.tensor([[[[0.0, 0, 0], [1, 0, 0], [0, 0, 0]]]]))  # type: ignore[operator]
    assert layer(torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]]))[0, 0].tolist() == [
        [2, 1, 2],
        [5, 4, 5],
        [8, 7, 8],
    ]


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "paper"])
def test_our_presets_begin_with_the_image_as_it_is(preset: str) -> None:
    x = torch.rand(1, 3, 32, 32) * 1.9 - 0.95
    found = create_fhn(preset).with_priors(x)
    assert (found.coarse - x).abs().mean() < 0.05 and (found.fine - x).abs().mean() < 0.1


def test_the_published_network_makes_every_pixel_anew() -> None:
    assert not PRESETS["paper"].adds
    network, x = FHN(8, 1, 1, adds=False), torch.rand(1, 3, 32, 32)
    assert torch.equal(network.with_priors(x).coarse, network.coarse(x))


def test_wrong_names_and_sizes() -> None:
    with pytest.raises(UsageError, match=r"FHN 'tinny' \(did you mean 'tiny'\?\): expected one of tiny, small, base"):
        create_fhn("tinny")
    for size in (16, 100):
        with pytest.raises(UsageError, match=f"hallucination.size={size}: expected a multiple of 16 from 32 up"):
            check_size(size)
