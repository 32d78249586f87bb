"""MobileFaceNet, at the size of the distillation papers and at insightface's, with a width multiplier.

Chen et al., "MobileFaceNets" (arXiv 1804.07573). Two networks carry this name, and differ by a factor of two:
at 512-d the papers' has 1,199,488 parameters and 221.2 M MACs, insightface's `mbf` 2,059,520 and 437.5 M.
"""

from torch import Tensor, nn

from facedistill.backbones.base import Backbone, OutputBlock, check_size, init_kaiming, outputs_of, scaled
from facedistill.backbones.layers import check_activation, conv, global_depthwise

# For each stage: the expansion of its strided block, the number of residual blocks after it, and their expansion.
STAGES = ((128, 4, 128), (256, 6, 256), (512, 2, 256))
LAST = 512


class Bottleneck(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; a residual unless strided."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, activation: str) -> None:
        super().__init__()
        self.residual = stride == 1
        self.layers = nn.Sequential(
            conv(inputs, expansion, 1, activation=activation),
            conv(expansion, expansion, 3, stride, groups=expansion, activation=activation),
            conv(expansion, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileFaceNet(Backbone):
    """Stem, three stages, 1x1 convolution, global depthwise convolution (GDC), linear layer and normalisation.

    Args:
        channels: numbers of channels: of the stem and first stage, of the second stage, of the third.
        stem_group: channels per group of the second convolution; 1 is depthwise.
        width: scales every number of channels, rounded to a multiple of 8.
        output: what follows the last normalisation, see `OutputBlock`.
        activation: a name in `layers.ACTIVATIONS`; "relu" and "relu6" make a network for int8.

    `with_features` returns four maps, at 1/2, 1/4, 1/8 and 1/16 of the input, as IResNet does.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: float = 1.0,
        output: str = "plain",
        channels: tuple[int, int, int] = (64, 128, 128),
        stem_group: int = 1,
        activation: str = "prelu",
    ) -> None:
        super().__init__(embedding_dim, input_size)
        check_activation(activation)
        final = check_size(input_size)
        widths = [scaled(c, width) for c in channels]
        self.stem = nn.Sequential(
            conv(3, widths[0], 3, stride=2, activation=activation),
            conv(widths[0], widths[0], 3, groups=widths[0] // stem_group, activation=activation),
        )
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for outputs, (down, repeats, expansion) in zip(widths, STAGES):
            inner = scaled(expansion, width)
            blocks = [Bottleneck(inputs, outputs, scaled(down, width), 2, activation)]
            blocks += [Bottleneck(outputs, outputs, inner, 1, activation) for _ in range(repeats)]
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs
        last = scaled(LAST, width)
        self.last = conv(inputs, last, 1, activation=activation)
        self.gdc = global_depthwise(last, final)
        self.output = OutputBlock(last, embedding_dim, output)
        init_kaiming(self)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = outputs_of([self.stem, *self.stages], x)
        return self.output(self.gdc(self.last(maps[-1]))), tuple(maps)


def mobilefacenet(
    embedding_dim: int = 512,
    input_size: int = 112,
    width: float = 1.0,
    output: str = "plain",
    activation: str = "prelu",
) -> MobileFaceNet:
    """The network of the distillation papers: 1,199,488 parameters at 512-d, 1,002,880 at 128-d."""
    return MobileFaceNet(embedding_dim, input_size, width, output, activation=activation)


def mobilefacenet_large(
    embedding_dim: int = 512,
    input_size: int = 112,
    width: float = 1.0,
    output: str = "affine",
    activation: str = "prelu",
) -> MobileFaceNet:
    """insightface's `mbf`: twice the channels, the same expansions, a grouped second convolution."""
    return MobileFaceNet(embedding_dim, input_size, width, output, (128, 256, 256), 2, activation)
