"""A small residual network for images of 28 x 28 pixels and more.

He et al., "Deep Residual Learning" (arXiv 1512.03385, section 4.2): the ResNet-20 for CIFAR. Three stages of three
blocks on a 3x3 stem of stride 1, then the mean of the last map. Where a block changes the size, its shortcut is 1x1 and
BN (the paper's option B; its CIFAR networks pad with zeros, which has no parameters).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from facedistill.backbones.base import Backbone, OutputBlock, init_kaiming, outputs_of, scaled
from facedistill.backbones.layers import conv
from facedistill.errors import UsageError

CHANNELS = (16, 32, 64)
BLOCKS = 3  # of each stage
LEAST = 28


class Block(nn.Module):
    """3x3 (strided), BN, ReLU, 3x3, BN; then the sum with the shortcut, and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride, activation="relu")
        self.conv2 = conv(outputs, outputs, 3)
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(self.conv1(x)))


class ResNetSmall(Backbone):
    """The small ResNet, see the module. `with_features` returns three stage maps, at 1, 1/2 and 1/4 of the input.

    Args:
        width: multiplies the channels 16, 32 and 64. output: see `OutputBlock`.
    """

    def __init__(
        self, embedding_dim: int = 512, input_size: int = 32, width: float = 1.0, output: str = "bias"
    ) -> None:
        super().__init__(embedding_dim, input_size)
        if input_size < LEAST:
            raise UsageError(f"input_size {input_size}: expected {LEAST} or more")
        widths = [scaled(c, width) for c in CHANNELS]
        self.stem = conv(3, widths[0], 3, activation="relu")
        self.stages = nn.ModuleList()
        for inputs, outputs, stride in zip([widths[0], *widths], widths, (1, 2, 2), strict=False):
            rest = (Block(outputs, outputs, 1) for _ in range(BLOCKS - 1))
            self.stages.append(nn.Sequential(Block(inputs, outputs, stride), *rest))
        self.output = OutputBlock(widths[-1], embedding_dim, output)
        init_kaiming(self)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = outputs_of(self.stages, self.stem(x))
        return self.output(maps[-1].mean((2, 3))), tuple(maps)
