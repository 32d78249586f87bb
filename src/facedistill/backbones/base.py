"""The parts that all architectures share: the interface, channel rounding, and the output block."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from facedistill.errors import UsageError

OUTPUTS = ("plain", "bias", "affine")


class Backbone(nn.Module):
    """A network from normalised images (B, 3, H, W), or vectors of features, to raw embeddings (B, d).

    Attributes:
        embedding_dim: d.
        input_size: H = W that the network expects, or the number of features.
        takes_features: True if it takes vectors of features (B, input_size) in place of images.
        spec: {"name", "options"} with which `create_backbone` makes it again; empty if made by hand.
        has_features: True if `with_features` returns stage maps.
        resolved: options that `spec` holds instead of those given, e.g. a file's content instead of its path.
        foreign: True if the network is outside the module tree (in another runtime, or in models of their own), so that
            it counts its parameters and MACs, and gives its content, itself.
        part_names: of a network whose embedding is the sum of several networks', their names, which are its attributes;
            the first is of use without the others.
    """

    takes_features: bool = False
    has_features: bool = True
    foreign: bool = False
    part_names: tuple[str, ...] = ()

    def __init__(self, embedding_dim: int, input_size: int) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = embedding_dim, input_size
        self.spec: dict[str, Any] = {}
        self.resolved: dict[str, Any] = {}

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the embedding (B, d) and the stage maps, from high resolution to low."""
        raise NotImplementedError

    def parts(self, x: Tensor) -> dict[str, tuple[Tensor, tuple[Tensor, ...]]]:
        """Return the embedding and stage maps of each part, by `part_names`; only for a network that has parts."""
        raise NotImplementedError

    def part(self, name: str) -> "Backbone":
        """Return a part, one of `part_names`, as a network of its own that takes the same images."""
        return getattr(self, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.with_features(x)[0]

    def count_parameters(self) -> int:
        """Return the number of parameters; only for a foreign network."""
        raise NotImplementedError

    def count_macs(self) -> int:
        """Return the multiply-adds for one image; only for a foreign network."""
        raise NotImplementedError

    def content(self) -> bytes:
        """Return what of a foreign network decides the embeddings and is no tensor of it, for a fingerprint."""
        return b""


def sample_shape(module: nn.Module | None, input_size: int) -> tuple[int, ...]:
    """Return the shape of what a network takes: an image of this size, or a vector of so many features."""
    of_features = isinstance(module, Backbone) and module.takes_features
    return (input_size,) if of_features else (3, input_size, input_size)


def check_size(input_size: int) -> int:
    """Return the side of the last map of a network of total stride 16. Raises UsageError for other sizes."""
    if input_size < 32 or input_size % 16:
        raise UsageError(f"input_size {input_size}: expected a multiple of 16 from 32 up, e.g. 64, 96 or 112")
    return input_size // 16


def scaled(channels: int, width: float) -> int:
    """Return `channels * width`, rounded to a multiple of 8 and at least 8."""
    if width <= 0:
        raise UsageError(f"width {width}: expected a number above 0, e.g. 0.5")
    return max(8, int(channels * width / 8 + 0.5) * 8)


def outputs_of(stages: Iterable[nn.Module], x: Tensor) -> list[Tensor]:
    """Return what each stage makes of the one before; the first gets x."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


class OutputBlock(nn.Module):
    """The last linear layer and batch normalisation, always in fp32, because margins need exact cosines.

    `output` sets what follows the normalisation: nothing for "plain" (the embedding's mean is pinned to 0), a trained
    bias for "bias" (as in IResNet), a trained scale and bias for "affine". A student reaches its teacher's space best
    with the teacher's kind of output.
    """

    def __init__(self, inputs: int, embedding_dim: int, output: str, bias: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, embedding_dim, bias=bias)
        self.norm = output_norm(embedding_dim, output)

    def forward(self, x: Tensor) -> Tensor:
        return embed_fp32(x, self.linear, self.norm)


def output_norm(dim: int, output: str, eps: float = 1e-5) -> nn.BatchNorm1d:
    """Return the batch normalisation of the embedding; see `OutputBlock`."""
    if output not in OUTPUTS:
        raise UsageError(f"output '{output}': expected one of {', '.join(OUTPUTS)}")
    norm = nn.BatchNorm1d(dim, eps, affine=output != "plain")
    if output == "bias":
        norm.weight.requires_grad = False
    return norm


def embed_fp32(x: Tensor, linear: nn.Linear, norm: nn.BatchNorm1d) -> Tensor:
    """Flatten (B, C, h, w) in channel order and return norm(linear(x)) (B, d), in fp32 even under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return norm(linear(x.flatten(1).float()))


def init_kaiming(module: nn.Module) -> None:
    """Apply He initialisation by fan-in, which also fits depthwise convolutions (their fan-in is the kernel)."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
