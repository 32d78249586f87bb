"""The blocks of the hallucination network (RIM, arXiv 1905.10777; shapes as in the authors' FSRnet.py)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BOTTLENECKS = 3  # of each residual group of an hourglass


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias whose border is a reflection of the map."""
    return nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride, bias=False))


def normed(channels: int) -> list[nn.Module]:
    """Return an instance normalisation without parameters, and a ReLU."""
    return [nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]


def down(channels: int) -> nn.Sequential:
    """Return the stage (B, c, H, W) -> (B, 2c, H/2, W/2)."""
    wide = 2 * channels
    return nn.Sequential(convolution(channels, wide, stride=2), convolution(wide, wide), *normed(wide))


def up(channels: int) -> nn.Sequential:
    """Return the stage (B, c, H, W) -> (B, c/2, 2H, 2W)."""
    narrow = channels // 2
    larger = nn.ConvTranspose2d(channels, narrow, 3, 2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(larger, convolution(narrow, narrow), *normed(narrow))


def translator(channels: int, blocks: int) -> list[nn.Module]:
    """Return the body of the coarse network, encoder and decoder: two stages down, residual blocks, two stages up."""
    middle = [Residual(4 * channels) for _ in range(blocks)]
    return [down(channels), down(2 * channels), *middle, up(4 * channels), up(2 * channels)]


class Residual(nn.Module):
    """conv - norm - PReLU - conv - norm + x, without an activation after the sum: (B, c, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels, affine=True),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Bottleneck(nn.Module):
    """Norm and ReLU before each of the convolutions 1x1, 3x3, 1x1, + x: (B, c, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for kernel in (1, 3, 1):
            layers += [
                nn.InstanceNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Hourglass(nn.Module):
    """An hourglass (Newell et al., arXiv 1603.06937): (B, c, H, W) -> the same; H and W multiples of 2^depth.

    Each level adds what it sees at its own resolution to what the next level sees at half of it.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.beside, self.before, self.after = (_group(channels) for _ in range(3))
        self.inner = Hourglass(channels, depth - 1) if depth > 1 else _group(channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.after(self.inner(self.before(F.max_pool2d(x, 2))))
        return self.beside(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


def _group(channels: int) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels) for _ in range(BOTTLENECKS)))


@torch.no_grad()
def init_xavier(module: nn.Module) -> None:
    """Apply Glorot's initialisation to every convolution and linear layer, as published; biases become 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
