"""The face hallucination network of RIM: a blurred face of any small size becomes a sharp one, by way of its priors.

Zhao et al. (arXiv 1905.10777). Layers, sizes and channels are those of the authors' code (SUPER_RESOLUTION/model/
FSRnet.py), to the last parameter. A hallucinated face is an invention of the network, and no evidence of anything.

Our presets add the network's output to its input, and begin by leaving the image as it is. The published network makes
every pixel anew, and first has to learn what enlarging does by itself; the parameters and MACs are the same.
"""

from typing import NamedTuple

from torch import Tensor, cat, nn

from facedistill.errors import UsageError, closest
from facedistill.hallucination.layers import Hourglass, Residual, convolution, init_xavier, normed, translator

LANDMARKS, CLASSES = 68, 13
HEAD = 1e-3  # the deviation of the prior heads' first weights
DEPTH = 4  # of an hourglass: the side of an image is a multiple of 2^4


class Preset(NamedTuple):
    """The size of a network: channels of its first maps, residual blocks, hourglasses, prior network's own blocks; and
    whether its images are added to what they were made from."""

    channels: int
    blocks: int
    hourglasses: int
    prior_blocks: int = 1
    adds: bool = True


# All but "paper" are ours, for machines without a GPU.
PRESETS = {
    "tiny": Preset(16, 3, 1),
    "small": Preset(24, 3, 1),
    "base": Preset(32, 4, 2),
    "paper": Preset(64, 6, 4, 2, adds=False),
}


class CoarseNetwork(nn.Sequential):
    """Image (B, inputs, H, W), -1..1 -> a first, coarse sharp image (B, 3, H, W), -1..1."""

    def __init__(self, channels: int, blocks: int, inputs: int = 3) -> None:
        first = [convolution(inputs, channels, 7), *normed(channels)]
        super().__init__(*first, *translator(channels, blocks), convolution(channels, 3), nn.Tanh())


class PriorNetwork(nn.Module):
    """Coarse image (B, 3, H, W) -> features (B, c, H, W), heat maps (B, 68, H, W), logits of classes (B, 13, H, W)."""

    def __init__(self, channels: int, blocks: int, hourglasses: int) -> None:
        super().__init__()
        self.first = nn.Sequential(convolution(3, channels, 7), *normed(channels))
        self.blocks = nn.Sequential(*(Residual(channels) for _ in range(blocks)))
        self.hourglasses = nn.Sequential(*(Hourglass(channels, DEPTH) for _ in range(hourglasses)))
        self.parsing = nn.Conv2d(channels, CLASSES, 1)
        self.landmarks = nn.Conv2d(channels, LANDMARKS, 1, bias=False)

    def forward(self, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.hourglasses(self.blocks(self.first(coarse)))
        return features, self.landmarks(features), self.parsing(features)


class FineEncoder(nn.Sequential):
    """Coarse image (B, 3, H, W) -> features (B, c, H, W)."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(convolution(3, channels), *translator(channels, blocks))


class FineDecoder(nn.Sequential):
    """Features of priors and encoder together (B, 2c, H, W) -> the fine image (B, 3, H, W), -1..1."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(*translator(2 * channels, blocks), convolution(2 * channels, 3), nn.Tanh())


class Hallucinated(NamedTuple):
    """What a hallucination network gives for images (B, 3, H, W).

    Attributes:
        coarse, fine: images (B, 3, H, W), -1..1.
        landmarks: heat maps (B, 68, H, W), about 1 at a landmark and 0 elsewhere.
        parsing: logits of the classes (B, 13, H, W).
    """

    coarse: Tensor
    fine: Tensor
    landmarks: Tensor
    parsing: Tensor


class FHN(nn.Module):
    """Coarse network, prior estimation, fine encoder and fine decoder. `create_fhn` makes one by name.

    `forward` takes images (B, 3, H, W) of -1..1 and returns the fine image alone; `with_priors` returns all. H and W
    are multiples of 16 from 32 up. The arguments are those of a `Preset`.

    Attributes:
        preset: the name that `create_fhn` made it by.
    """

    def __init__(self, channels: int, blocks: int, hourglasses: int, prior_blocks: int = 1, adds: bool = True) -> None:
        super().__init__()
        self.preset, self.adds = "", adds
        self.coarse = CoarseNetwork(channels, blocks)
        self.prior = PriorNetwork(channels, prior_blocks, hourglasses)
        self.encoder = FineEncoder(channels, blocks)
        self.decoder = FineDecoder(channels, blocks)
        init_xavier(self)
        for head in (self.prior.landmarks, self.prior.parsing):  # ours: maps that are nearly empty start near 0
            nn.init.normal_(head.weight, std=HEAD)
        if adds:
            begin_small(self.coarse)
            begin_small(self.decoder)

    def with_priors(self, images: Tensor) -> Hallucinated:
        coarse = self._changed(images, self.coarse(images))
        features, landmarks, parsing = self.prior(coarse)
        made = self.decoder(cat([features, self.encoder(coarse)], 1))
        return Hallucinated(coarse, self._changed(coarse, made), landmarks, parsing)

    def forward(self, images: Tensor) -> Tensor:
        return self.with_priors(images).fine

    def _changed(self, before: Tensor, made: Tensor) -> Tensor:
        return (before + made).clamp(-1, 1) if self.adds else made


def begin_small(network: nn.Sequential) -> None:
    """Let a network that ends in an image begin with an image near 0, so that what it is added to stays as it is."""
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    nn.init.normal_(last.weight, std=HEAD)


def create_fhn(preset: str) -> FHN:
    """Return a freshly initialised network: tiny, small, base or paper. Raises UsageError for another name."""
    if preset not in PRESETS:
        raise UsageError(f"FHN '{preset}'{closest(preset, PRESETS)}: expected one of {', '.join(PRESETS)}")
    network = FHN(*PRESETS[preset])
    network.preset = preset
    return network


def check_size(size: int) -> int:
    """Return the side of the images. Raises UsageError if a hallucination network cannot take it."""
    if size < 32 or size % 2**DEPTH:
        raise UsageError(f"hallucination.size={size}: expected a multiple of {2**DEPTH} from 32 up, e.g. 64 or 112")
    return size
