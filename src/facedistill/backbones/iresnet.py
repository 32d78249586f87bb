"""IResNet-18/34/50/100: the residual networks of face recognition, with the parameter names of arcface_torch.

Deng et al., "ArcFace" (arXiv 1801.07698): blocks BN-conv-BN-PReLU-conv-BN on a 3x3 stem of stride 1, then
BN-dropout-linear-BN, whose last scale is frozen to 1. At width 1 and 112x112 a `backbone.pth` of insightface's
arcface_torch loads strictly.
"""

from functools import partial

from torch import Tensor, nn

from facedistill.backbones.base import Backbone, check_size, embed_fp32, output_norm, outputs_of, scaled
from facedistill.backbones.prelu import PReLU
from facedistill.recipe import Share

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
CHANNELS = (64, 128, 256, 512)


class Block(nn.Module):
    """BN, 3x3, BN, PReLU, 3x3 (strided), BN; the shortcut of a strided block is 1x1 and BN."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return shortcut + self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))


def stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Return `blocks` blocks, the first of stride 2."""
    rest = (Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, 2), *rest)


class IResNet(Backbone):
    """IResNet, see the module. `with_features` returns four stage maps, at 1/2, 1/4, 1/8 and 1/16 of the input."""

    def __init__(
        self,
        depth: int,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: float = 1.0,
        dropout: Share = 0.0,
        output: str = "bias",
    ) -> None:
        super().__init__(embedding_dim, input_size)
        final = check_size(input_size)
        widths = [scaled(c, width) for c in CHANNELS]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = PReLU(widths[0])
        inputs = [widths[0], *widths]
        self.layer1, self.layer2, self.layer3, self.layer4 = map(stage, inputs, widths, DEPTHS[depth])
        self.bn2 = nn.BatchNorm2d(widths[-1])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1] * final * final, embedding_dim)
        self.features = output_norm(embedding_dim, output)
        self._init()

    def _init(self) -> None:
        # N(0, 0.1) as in arcface_torch. A normalisation follows every convolution, so the scale only sets how fast
        # directions move at a given learning rate, and the published rates belong to this scale.
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.normal_(m.weight, std=0.1)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        maps = outputs_of(layers, self.prelu(self.bn1(self.conv1(x))))
        x = self.dropout(self.bn2(maps[-1]))
        return embed_fp32(x, self.fc, self.features), tuple(maps)


iresnet18, iresnet34, iresnet50, iresnet100 = (partial(IResNet, depth) for depth in DEPTHS)
