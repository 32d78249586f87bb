"""ShuffleFaceNet: ShuffleNetV2's units, PReLU, and a global depthwise convolution at the end.

Martinez-Diaz et al., "ShuffleFaceNet" (ICCV workshops 2019), on ShuffleNetV2 (arXiv 1807.11164). The paper gives
rounded sizes and no code; at 128-d and 112x112 it is 0.5x 0.5 M parameters and 33.5 M MACs, 1.5x 2.6 M and 288.8 M,
2x 4.5 M and 525 M.
"""

import torch
from torch import Tensor, nn

from facedistill.backbones.base import Backbone, OutputBlock, check_size, init_kaiming, outputs_of
from facedistill.backbones.layers import conv, global_depthwise, shuffle
from facedistill.errors import UsageError

STEM, LAST = 24, 1024
REPEATS = (4, 8, 4)
# width -> channels of the three stages.
CHANNELS = {0.5: (48, 96, 192), 1.0: (116, 232, 464), 1.5: (176, 352, 704), 2.0: (244, 488, 976)}


class Unit(nn.Module):
    """Half of the channels pass, the other half is computed; or, strided, both halves from all. Then a shuffle."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.strided = stride > 1
        entering = inputs if self.strided else half
        self.computed = nn.Sequential(
            conv(entering, half, 1, activation="prelu"),
            conv(half, half, 3, stride, groups=half),
            conv(half, half, 1, activation="prelu"),
        )
        self.passed: nn.Module = nn.Identity()
        if self.strided:
            self.passed = nn.Sequential(
                conv(inputs, inputs, 3, stride, groups=inputs), conv(inputs, half, 1, activation="prelu")
            )

    def forward(self, x: Tensor) -> Tensor:
        passed, computed = (x, x) if self.strided else x.chunk(2, 1)
        return shuffle(torch.cat([self.passed(passed), self.computed(computed)], 1))


class ShuffleFaceNet(Backbone):
    """Stem, three stages, 1x1 convolution, global depthwise convolution, linear layer and normalisation.

    Args:
        width: 0.5, 1, 1.5 or 2, the paper's networks.
        output: what follows the last normalisation, see `OutputBlock`.

    `with_features` returns four maps, at 1/2, 1/4, 1/8 and 1/16 of the input.
    """

    def __init__(
        self, embedding_dim: int = 512, input_size: int = 112, width: float = 1.5, output: str = "affine"
    ) -> None:
        super().__init__(embedding_dim, input_size)
        final = check_size(input_size)
        if width not in CHANNELS:
            raise UsageError(f"width {width}: expected one of {', '.join(map(str, CHANNELS))}")
        self.stem = conv(3, STEM, 3, 2, activation="prelu")
        self.stages = nn.ModuleList()
        inputs = STEM
        for outputs, repeats in zip(CHANNELS[width], REPEATS):
            rest = (Unit(outputs, outputs, 1) for _ in range(repeats - 1))
            self.stages.append(nn.Sequential(Unit(inputs, outputs, 2), *rest))
            inputs = outputs
        self.last = conv(inputs, LAST, 1, activation="prelu")
        self.gdc = global_depthwise(LAST, final)
        self.output = OutputBlock(LAST, embedding_dim, output)
        init_kaiming(self)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = outputs_of([self.stem, *self.stages], x)
        return self.output(self.gdc(self.last(maps[-1]))), tuple(maps)
