"""The blocks of which the convolutional networks are made."""

from collections.abc import Callable

from torch import Tensor, nn

from facedistill.backbones.prelu import PReLU
from facedistill.errors import UsageError

# name -> the layer for so many channels. Only PReLU has parameters. Runtimes with int8 kernels fuse ReLU and ReLU6 into
# the convolution before them; PReLU and hard swish they compute in float.
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "prelu": PReLU,
    "relu": lambda channels: nn.ReLU(),
    "relu6": lambda channels: nn.ReLU6(),
    "hardswish": lambda channels: nn.Hardswish(),
    "swish": lambda channels: nn.SiLU(),
}


def check_activation(name: str) -> None:
    """Raise UsageError unless ACTIVATIONS has that name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"activation '{name}': expected one of {', '.join(ACTIVATIONS)}")


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: str | None = None
) -> nn.Sequential:
    """Convolution without bias, batch normalisation and the activation, if one is named; odd kernels keep the size."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(ACTIVATIONS[activation](outputs))
    return nn.Sequential(*layers)


def global_depthwise(channels: int, size: int) -> nn.Sequential:
    """One weight for each channel and place of a (size, size) map, then batch normalisation: (B, C, 1, 1).

    It replaces average pooling in face networks, because places of an aligned face differ in worth (MobileFaceNets).
    """
    return nn.Sequential(nn.Conv2d(channels, channels, size, groups=channels, bias=False), nn.BatchNorm2d(channels))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the means of all: x (B, C, H, W) times gate (B, C, 1, 1).

    Hu et al., "Squeeze-and-Excitation Networks" (arXiv 1709.01507).

    Args:
        activation: a name in ACTIVATIONS, between the two 1x1 convolutions. gate: the last function.
    """

    def __init__(self, channels: int, reduced: int, activation: str, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, reduced, 1)
        self.activ = ACTIVATIONS[activation](reduced)
        self.conv2 = nn.Conv2d(reduced, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv2(self.activ(self.conv1(x.mean((2, 3), keepdim=True)))))


def shuffle(x: Tensor) -> Tensor:
    """Return x (B, 2k, H, W) with its two halves of channels interleaved (Zhang et al., ShuffleNet, 1707.01083)."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def unshuffle(x: Tensor) -> Tensor:
    """Undo `shuffle`: the even channels first, then the odd ones."""
    return x.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
