"""The opponents of the adversarial stage: discriminators, the classifier of scales, and the degradation generator.

The authors' code calls these networks and contains none of them at any commit, so they are ours: their inputs and
outputs follow from the calls, their layers are those of the usual PatchGAN (Isola et al., arXiv 1611.07004) and of the
coarse network.

The calls give the generator a constant map for each scale (as StarGAN, arXiv 1711.09020). That tells it nothing: an
instance normalisation removes whatever is constant over a map. Here each scale has input channels of its own.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.hallucination.fhn import CoarseNetwork, begin_small
from facedistill.hallucination.layers import init_xavier

SCALES = (2, 4, 8)  # by which a face was shrunk: the classes of the scale classifier
WIDTHS = (64, 128, 256)


class Discriminator(nn.Module):
    """Image (B, 3, H, W), -1..1 -> logits (B, 1, H/8, W/8): is each part of it from a real image?

    Args:
        scales: the number of scales that it also tells apart; 0 for none.
    """

    def __init__(self, scales: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *WIDTHS), WIDTHS):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)]
        del layers[1]  # the first has no normalisation
        self.layers = nn.Sequential(*layers)
        self.real = nn.Conv2d(WIDTHS[-1], 1, 3, padding=1)
        self.scales = nn.Linear(WIDTHS[-1], scales) if scales else None
        init_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.real(self.layers(images))

    def with_scales(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of `forward`, and those of the scales (B, scales)."""
        assert self.scales is not None
        maps = self.layers(images)
        return self.real(maps), self.scales(maps.mean((2, 3)))


class DegradationGenerator(nn.Module):
    """Clean images (B, 3, H, W), -1..1, and scales (B,), indexes into SCALES -> images as a poor camera gives them.

    The image enters in the channels of its scale; the others are 0. What the network makes is added to the image.
    """

    def __init__(self, channels: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.network = CoarseNetwork(channels, blocks, inputs=3 * len(SCALES))
        init_xavier(self)
        begin_small(self.network)

    def forward(self, images: Tensor, scales: Tensor) -> Tensor:
        wanted = F.one_hot(scales, len(SCALES)).to(images.dtype)[:, :, None, None, None]
        made = self.network((wanted * images[:, None]).flatten(1, 2))
        return (images + made).clamp(-1, 1)


def scale_of(side: int, size: int) -> int:
    """Return the index into SCALES that is nearest, as a factor, to an image of `side` pixels enlarged to `size`."""
    factor = max(size / max(side, 1), 1.0)
    return min(range(len(SCALES)), key=lambda i: max(factor / SCALES[i], SCALES[i] / factor))
