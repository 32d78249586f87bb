"""MixFaceNet: depthwise convolutions of several kernel sizes side by side, with or without shuffled channels.

Boutros et al., "MixFaceNets" (arXiv 2107.13046), on MixConv (1907.09595), as in the authors' code. At 512-d and
112x112: XS 1,040,866 parameters and 76.6 M MACs, S 3,073,110 and 218.1 M, M 3,953,046 and 303.4 M.
"""

from functools import partial

import torch
from torch import Tensor, nn

from facedistill.backbones.base import Backbone, OutputBlock, check_size, outputs_of
from facedistill.backbones.layers import ACTIVATIONS, SqueezeExcite, conv, global_depthwise, unshuffle
from facedistill.errors import UsageError

# A unit: channels, splits of the expansion, kernels of the depthwise convolution (3, 5, ...: how many), splits of the
# projection, expansion, squeeze factor (0: none), stride.
Unit = tuple[int, int, int, int, int, int, int]
S: tuple[tuple[Unit, ...], ...] = (
    ((24, 2, 1, 2, 6, 0, 1), (24, 2, 1, 2, 3, 0, 1)),
    ((40, 1, 3, 1, 6, 2, 2), *[(40, 2, 2, 2, 6, 2, 1)] * 3),
    ((80, 1, 3, 2, 6, 4, 2), *[(80, 1, 2, 2, 6, 4, 1)] * 2, (120, 2, 3, 2, 6, 2, 1), *[(120, 2, 4, 2, 3, 2, 1)] * 2),
    ((200, 1, 5, 1, 6, 2, 2), *[(200, 1, 4, 2, 6, 2, 1)] * 2),
)
M: tuple[tuple[Unit, ...], ...] = (
    ((32, 2, 3, 2, 6, 0, 1), (32, 2, 1, 2, 3, 0, 1)),
    ((40, 1, 4, 1, 6, 2, 2), *[(40, 2, 2, 2, 6, 2, 1)] * 3),
    (
        (80, 1, 3, 1, 6, 4, 2),
        *[(80, 2, 4, 2, 6, 4, 1)] * 3,
        (120, 1, 1, 1, 6, 2, 1),
        *[(120, 2, 4, 2, 3, 2, 1)] * 3,
    ),
    ((200, 1, 4, 1, 6, 2, 2), *[(200, 1, 4, 2, 6, 2, 1)] * 3),
)


class MixConv(nn.Module):
    """Convolutions over equal parts of the channels, one kernel each, side by side; then batch normalisation.

    Args:
        kernels: one for each part. depthwise: each channel alone; otherwise each part is a full convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, kernels: list[int], stride: int, depthwise: bool, activation: str | None
    ) -> None:
        super().__init__()
        self.parts = parts(inputs, len(kernels))
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, k, stride, k // 2, groups=o if depthwise else 1, bias=False)
            for i, o, k in zip(self.parts, parts(outputs, len(kernels)), kernels)
        )
        self.norm = nn.BatchNorm2d(outputs)
        self.activ = nn.Identity() if activation is None else ACTIVATIONS[activation](outputs)

    def forward(self, x: Tensor) -> Tensor:
        mixed = [layer(part) for layer, part in zip(self.convs, x.split(self.parts, 1))]
        return self.activ(self.norm(torch.cat(mixed, 1)))


def parts(channels: int, count: int) -> list[int]:
    """Return `count` equal shares of the channels; the first has the remainder too."""
    share = channels // count
    return [channels - share * (count - 1), *[share] * (count - 1)]


class MixUnit(nn.Module):
    """Expansion, mixed depthwise convolution, squeeze-and-excitation, projection; a residual where shapes agree."""

    def __init__(self, inputs: int, unit: Unit, activation: str, shuffles: bool) -> None:
        super().__init__()
        outputs, expanding, kernels, projecting, expansion, squeeze, stride = unit
        middle = inputs * expansion
        self.residual, self.shuffles = stride == 1 and inputs == outputs, shuffles
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(MixConv(inputs, middle, [1] * expanding, 1, False, activation))
        layers.append(MixConv(middle, middle, [3 + 2 * i for i in range(kernels)], stride, True, activation))
        if squeeze:
            layers.append(SqueezeExcite(middle, middle // (expansion * squeeze), activation))
        layers.append(MixConv(middle, outputs, [1] * projecting, 1, False, None))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layers(x) if self.residual else self.layers(x)
        return unshuffle(x) if self.shuffles else x


class MixFaceNet(Backbone):
    """Stem, four stages, 1x1 convolution, global depthwise convolution, linear layer and normalisation.

    Args:
        stages: of units, S or M.
        inner: channels of the last convolutions.
        base: the width of the network of this name.
        width: beside it, scales the other numbers of channels, rounded to a multiple of 8.
        shuffle: if the channels are shuffled after each unit (ShuffleMixFaceNet). After the stem they always are.
        output: what follows the last normalisation, see `OutputBlock`.

    `with_features` returns four maps, at 1/2, 1/4, 1/8 and 1/16 of the input.
    """

    def __init__(
        self,
        stages: tuple[tuple[Unit, ...], ...],
        stem: int,
        inner: int,
        base: float,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: float = 1.0,
        shuffle: bool = False,
        output: str = "bias",
    ) -> None:
        super().__init__(embedding_dim, input_size)
        width = base * width
        final = check_size(input_size)
        inputs = eightfold(stem * width)
        self.stem = nn.Sequential(
            conv(3, inputs, 3, 2, activation="prelu"), MixUnit(inputs, (inputs, 1, 1, 1, 1, 0, 1), "prelu", True)
        )
        self.stages = nn.ModuleList()
        for i, units in enumerate(stages):
            layers = []
            for unit in units:
                unit = (eightfold(unit[0] * width), *unit[1:])
                layers.append(MixUnit(inputs, unit, "swish" if i else "prelu", shuffle))
                inputs = unit[0]
            self.stages.append(nn.Sequential(*layers))
        self.last = conv(inputs, inner, 1, activation="prelu")
        self.gdc = global_depthwise(inner, final)
        self.output = OutputBlock(inner, embedding_dim, output)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = outputs_of(self.stages, self.stem(x))
        return self.output(self.gdc(self.last(maps[-1]))), tuple(maps)


def eightfold(channels: float) -> int:
    """Return `channels`, rounded to a multiple of 8, at least 8, and not below nine tenths of it."""
    if channels <= 0:
        raise UsageError("width: expected a number above 0, e.g. 0.5")
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


mixfacenet_xs = partial(MixFaceNet, S, 16, 512, 0.5)
mixfacenet_s = partial(MixFaceNet, S, 16, 1024, 1.0)
mixfacenet_m = partial(MixFaceNet, M, 24, 1024, 1.0)
