"""The operations and cells of searched networks (DARTS, with the operations of PocketNet)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from facedistill.backbones import genotype
from facedistill.backbones.prelu import PReLU


class Separable(nn.Sequential):
    """PReLU, depthwise convolution (which has the stride), pointwise convolution, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            PReLU(inputs),
            nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halve the size without losing pixels: two strided pointwise paths, the second moved by one pixel.

    x (B, inputs, 2h, 2w) -> (B, outputs, h, w).
    """

    def __init__(self, inputs: int, outputs: int, affine: bool = True) -> None:
        super().__init__()
        self.relu = PReLU(inputs)
        self.even, self.odd = (
            nn.Sequential(
                nn.Conv2d(inputs, inputs, 1, 2, groups=inputs, bias=False),
                nn.Conv2d(inputs, outputs // 2, 1, bias=False),
            )
            for _ in range(2)
        )
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


def pool(channels: int, stride: int, affine: bool, layer: Callable[..., nn.Module]) -> nn.Module:
    """Return a pooling of 3x3 and a batch normalisation; an average does not count the padding."""
    options = {} if layer is nn.MaxPool2d else {"count_include_pad": False}
    return nn.Sequential(layer(3, stride, 1, **options), nn.BatchNorm2d(channels, affine=affine))


def operation(name: str, channels: int, stride: int, affine: bool = True) -> nn.Module:
    """Return the layer of that name in `genotype.OPERATIONS`: (B, channels, H, W) -> the same, by stride smaller.

    Args:
        affine: if the batch normalisation has a scale and a bias. (In a search it has none, so that the weight of an
            operation cannot hide in its scale.)
    """
    if name == "max_pool_3x3":
        return pool(channels, stride, affine, nn.MaxPool2d)
    if name == "avg_pool_3x3":
        return pool(channels, stride, affine, nn.AvgPool2d)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    return Separable(channels, channels, int(name[-1]), stride, affine)


class Preprocess(nn.Module):
    """Bring the outputs of the two cells before to this cell's channels and size.

    Args:
        before, last: their channels. halved: if the last cell reduced, so that the one before is twice as large.
    """

    def __init__(self, before: int, last: int, channels: int, halved: bool, affine: bool = True) -> None:
        super().__init__()
        self.before = (FactorizedReduce if halved else _pointwise)(before, channels, affine)
        self.last = _pointwise(last, channels, affine)

    def forward(self, before: Tensor, last: Tensor) -> list[Tensor]:
        return [self.before(before), self.last(last)]


def _pointwise(inputs: int, outputs: int, affine: bool = True) -> Separable:
    return Separable(inputs, outputs, 1, affine=affine)


class Cell(nn.Module):
    """A cell of a genotype: (B, ., H, W) twice -> (B, 4 channels, H, W), or half the size if it reduces."""

    def __init__(
        self, nodes: genotype.Cell, before: int, last: int, channels: int, halved: bool, reduces: bool
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess(before, last, channels, halved)
        self.sources = [[source for _, source in edges] for edges in nodes]
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                operation(name, channels, 2 if reduces and source < genotype.INPUTS else 1) for name, source in edges
            )
            for edges in nodes
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = self.preprocess(before, last)
        for edges, sources in zip(self.nodes, self.sources):
            assert isinstance(edges, nn.ModuleList)
            first, second = (layer(states[source]) for layer, source in zip(edges, sources))
            states.append(first + second)
        return torch.cat(states[genotype.INPUTS :], 1)
