"""GhostFaceNet: half of each layer's channels come from a cheap depthwise convolution of the other half.

Alansari et al., "GhostFaceNets" (IEEE Access 2023), on GhostNet (arXiv 1911.11907) and GhostNetV2 (2211.12905), as in
the authors' code: PReLU everywhere, a global depthwise convolution at the end. At width 1.3 and stride 1, V1 has
4,059,748 parameters (4,060,260 with a biased last layer), V2 6,795,720, running statistics apart. Strided convolutions
pad both sides, where TensorFlow pads one.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones.base import Backbone, OutputBlock, init_kaiming, outputs_of
from facedistill.backbones.layers import SqueezeExcite, check_activation, conv, global_depthwise
from facedistill.errors import UsageError

# Of each block: kernel, expanded channels, channels, stride, and whether it has squeeze-and-excitation.
BLOCKS = (
    (3, 16, 16, 1, False),
    (3, 48, 24, 2, False),
    (3, 72, 24, 1, False),
    (5, 72, 40, 2, True),
    (5, 120, 40, 1, True),
    (3, 240, 80, 2, False),
    (3, 200, 80, 1, False),
    (3, 184, 80, 1, False),
    (3, 184, 80, 1, False),
    (3, 480, 112, 1, True),
    (3, 672, 112, 1, True),
    (5, 672, 160, 2, True),
    (5, 960, 160, 1, False),
    (5, 960, 160, 1, True),
    (5, 960, 160, 1, False),
)
LAST_V1, LAST_V2 = 512, 960  # expanded channels of the sixteenth block, and channels of the last 1x1 convolution
PLAIN = 2  # in V2, the first blocks without attention


class Ghost(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W): a 1x1 convolution makes one half, 3x3 of that half the other."""

    def __init__(self, inputs: int, outputs: int, activation: str | None) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = conv(inputs, half, 1, activation=activation)
        self.cheap = conv(half, half, 3, groups=half, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


class AttentiveGhost(Ghost):
    """GhostNetV2: a ghost module times a gate that sees whole rows and columns, computed at half the size (DFC)."""

    def __init__(self, inputs: int, outputs: int, activation: str | None) -> None:
        super().__init__(inputs, outputs, activation)
        layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        for kernel, padding in (((1, 5), (0, 2)), ((5, 1), (2, 0))):
            layers += [
                nn.Conv2d(outputs, outputs, kernel, padding=padding, groups=outputs, bias=False),
                nn.BatchNorm2d(outputs),
            ]
        self.attention = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.attention(F.avg_pool2d(x, 2)).sigmoid()
        return super().forward(x) * F.interpolate(gate, x.shape[-2:], mode="bilinear")


class Block(nn.Module):
    """Ghost module to the expanded channels, strided depthwise, squeeze-and-excitation, ghost module; a shortcut."""

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        kernel: int,
        stride: int,
        squeeze: bool,
        ghost: type[Ghost],
        activation: str,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ghost(inputs, expanded, activation)]
        if stride > 1:
            layers.append(conv(expanded, expanded, kernel, stride, groups=expanded))
        if squeeze:
            layers.append(SqueezeExcite(expanded, fourfold(expanded / 4), activation, nn.Hardsigmoid))
        layers.append(Ghost(expanded, outputs, None))
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, inputs, kernel, stride, groups=inputs), conv(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.layers(x)


class GhostFaceNet(Backbone):
    """Stem, sixteen blocks, 1x1 convolution, global depthwise convolution, linear layer and normalisation.

    Args:
        version: 1, or 2 with attention.
        width: scales every number of channels, rounded to a multiple of 4; published networks have 1.3.
        stride: of the stem; 2 needs about a quarter of the work.
        activation: a name in ACTIVATIONS.
        bias: if the last linear layer has one (the published V1 of stride 1 does).
        output: what follows the last normalisation, see `OutputBlock`.

    `with_features` returns the four maps before each halving after the stem, and the last: with stride 1 at 1/2 to
    1/16 of the input, with stride 2 at 1/4 to 1/32.
    """

    def __init__(
        self,
        version: int,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: float = 1.3,
        stride: int = 2,
        bias: bool = False,
        activation: str = "prelu",
        output: str = "affine",
    ) -> None:
        super().__init__(embedding_dim, input_size)
        check_activation(activation)
        if stride not in (1, 2):
            raise UsageError(f"stride {stride}: expected 1 or 2")
        if width <= 0:
            raise UsageError(f"width {width}: expected a number above 0, e.g. 1.3")
        total = 16 * stride
        if input_size % 16 or input_size < 2 * total:
            raise UsageError(f"input_size {input_size}: expected a multiple of 16 from {2 * total} up, e.g. 64 or 112")
        last = LAST_V1 if version == 1 else LAST_V2
        inputs = fourfold(16 * width)
        self.stem = conv(3, inputs, 3, stride, activation=activation)
        self.stages = nn.ModuleList([nn.Sequential()])
        for i, (kernel, expanded, outputs, step, squeeze) in enumerate((*BLOCKS, (5, last, 160, 1, True))):
            ghost = AttentiveGhost if version == 2 and i >= PLAIN else Ghost
            expanded, outputs = fourfold(expanded * width), fourfold(outputs * width)
            if step > 1:
                self.stages.append(nn.Sequential())
            stage = self.stages[-1]
            assert isinstance(stage, nn.Sequential)
            stage.append(Block(inputs, expanded, outputs, kernel, step, squeeze, ghost, activation))
            inputs = outputs
        inner = fourfold(last * width)
        self.last = conv(inputs, inner, 1, activation=activation)
        self.gdc = global_depthwise(inner, -(-input_size // total))
        self.output = OutputBlock(inner, embedding_dim, output, bias)
        init_kaiming(self)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = outputs_of(self.stages, self.stem(x))
        return self.output(self.gdc(self.last(maps[-1]))), tuple(maps[1:])


def fourfold(channels: float) -> int:
    """Return `channels`, rounded to a multiple of 4, at least 4, and not below nine tenths of it."""
    rounded = max(4, int(channels + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * channels else rounded


# V1: plain convolutions only, which NPUs compute well. V2: attention over rows and columns from the third block on.
ghostfacenet_v1, ghostfacenet_v2 = (partial(GhostFaceNet, version) for version in (1, 2))
