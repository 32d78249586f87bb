"""PocketNet, and any network of a genotype's cells.

Boutros et al., "PocketNet" (arXiv 2108.10710), the networks of its authors' code: a strided stem, cells, and
MobileFaceNet's end. At 112x112, S-128: 925,632 parameters and 283.5 M MACs; S-256: 991,424; M-128: 1,686,656 and
538.2 M MACs; M-256: 1,752,448. (The paper's "587 MFLOPs" counts a multiply-add twice, and normalisations too.)
"""

from typing import Any

from torch import Tensor, nn

from facedistill.backbones.base import Backbone, OutputBlock, check_size, scaled
from facedistill.backbones.cells import Cell
from facedistill.backbones.genotype import NODES, POCKETNET, Genotype, genotype_from, read_genotype
from facedistill.backbones.layers import global_depthwise
from facedistill.backbones.prelu import PReLU
from facedistill.errors import UsageError

STEM = 4  # channels of the stem for each channel of a node
LAST = 512


class CellNetwork(Backbone):
    """Stem of stride 2, `cells` cells of which three reduce, 1x1 convolution, global depthwise convolution, linear.

    Args:
        channels: of a node in the first cells, any number from 1; each reduction doubles it.
        cells: their number, at least 4: those at a third, at two thirds and at the end reduce.
        width: scales every number of channels, rounded to a multiple of 8; 1 leaves them as they are.
        output: what follows the last normalisation, see `OutputBlock`.

    `with_features` returns four maps, at 1/2, 1/4, 1/8 and 1/16 of the input.
    """

    def __init__(
        self,
        genotype: Genotype,
        embedding_dim: int = 128,
        input_size: int = 112,
        channels: int = 16,
        cells: int = 18,
        width: float = 1.0,
        output: str = "affine",
    ) -> None:
        super().__init__(embedding_dim, input_size)
        final = check_size(input_size)
        if cells < 4:
            raise UsageError(f"{cells} cells: expected at least 4, because three of them reduce the size")
        if channels < 1:
            raise UsageError(f"{channels} channels: expected 1 or more, e.g. 16")
        node = channels if width == 1 else scaled(channels, width)
        before = last = STEM * node
        self.stem = nn.Sequential(nn.Conv2d(3, last, 3, 2, 1, bias=False), nn.BatchNorm2d(last))
        self.reductions = reductions(cells)
        self.cells = nn.ModuleList()
        for i in range(cells):
            reduces = i in self.reductions
            node *= 2 if reduces else 1
            nodes = genotype.reduce if reduces else genotype.normal
            self.cells.append(Cell(nodes, before, last, node, i - 1 in self.reductions, reduces))
            before, last = last, NODES * node
        # As in the authors' code, an embedding of 512 gets twice the channels.
        inner = scaled(LAST * (2 if embedding_dim == 512 else 1), width)
        self.last = nn.Sequential(
            PReLU(last), nn.Conv2d(last, inner, 1, bias=False), nn.BatchNorm2d(inner), PReLU(inner)
        )
        self.gdc = global_depthwise(inner, final)
        self.output = OutputBlock(inner, embedding_dim, output)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight)

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        before = last = self.stem(x)
        maps = []
        for i, cell in enumerate(self.cells):
            if i in self.reductions:
                maps.append(last)
            before, last = last, cell(before, last)
        return self.output(self.gdc(self.last(last))), (*maps, last)


def reductions(cells: int) -> tuple[int, int, int]:
    """Return which of the cells reduce the size: those at a third, at two thirds and at the end."""
    return cells // 3, 2 * cells // 3, cells - 1


def pocketnet_s(
    embedding_dim: int = 128, input_size: int = 112, width: float = 1.0, output: str = "affine"
) -> CellNetwork:
    """PocketNetS: 18 narrow cells; 925,632 parameters at 128-d, 991,424 at 256-d."""
    return CellNetwork(POCKETNET, embedding_dim, input_size, 16, 18, width, output)


def pocketnet_m(
    embedding_dim: int = 128, input_size: int = 112, width: float = 1.0, output: str = "affine"
) -> CellNetwork:
    """PocketNetM: 9 wide cells; 1,686,656 parameters at 128-d, 1,752,448 at 256-d."""
    return CellNetwork(POCKETNET, embedding_dim, input_size, 32, 9, width, output)


def genotype(
    embedding_dim: int = 128,
    input_size: int = 112,
    file: str | None = None,
    cells: dict[str, Any] | None = None,
    channels: int = 16,
    depth: int = 18,
    width: float = 1.0,
    output: str = "affine",
) -> CellNetwork:
    """The network of a genotype: a `file` (or a name: pocketnet), or `cells`, its content.

    The network's `spec` holds the content, so that a saved model needs no file.
    """
    if (file is None) == (cells is None):
        raise UsageError("genotype: expected the option 'file' (or the name 'pocketnet'), or 'cells', its content")
    found = read_genotype(file) if file is not None else genotype_from(cells)
    network = CellNetwork(found, embedding_dim, input_size, channels, depth, width, output)
    network.resolved = {"file": None, "cells": found.to_json()}
    return network
