"""The supernet: a network whose every edge holds all operations at once, each with a weight that a search learns.

Liu et al., "DARTS" (arXiv 1806.09055), with the operations, stem and end of PocketNet (2108.10710, and its code): with
16 channels, 8 cells, 128-d and 112x112 it has 2,792,528 parameters, the weights of the operations apart.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from facedistill.backbones.base import Backbone, OutputBlock, check_size
from facedistill.backbones.cells import Preprocess, operation
from facedistill.backbones.genotype import EDGES, INPUTS, KINDS, NODES, OPERATIONS, Cell, Genotype
from facedistill.backbones.pocketnet import reductions
from facedistill.backbones.prelu import PReLU
from facedistill.errors import UsageError

STEM, LAST, GROUPS = 3, 512, 128
NONE = len(OPERATIONS)  # the place of "none" among an edge's weights: an edge may be nothing


class MixedOperation(nn.Module):
    """The sum of all operations on x, weighted: (B, C, H, W) -> the same, by stride smaller.

    Args:
        auxiliary: add a skip connection of weight beta (DARTS-, arXiv 2009.01027). It gives the training the help that
            a skip gives, so that skips do not win for that alone.
    """

    def __init__(self, channels: int, stride: int, auxiliary: bool) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operation(name, channels, stride, affine=False) for name in OPERATIONS)
        self.auxiliary = operation("skip_connect", channels, stride, affine=False) if auxiliary else None

    def forward(self, x: Tensor, weights: Tensor, beta: float) -> Tensor:
        mixed = [weight * layer(x) for weight, layer in zip(weights[:NONE], self.operations)]
        if self.auxiliary is not None:
            mixed.append(beta * self.auxiliary(x))
        return torch.stack(mixed).sum(0)


class SearchCell(nn.Module):
    """A cell with an edge from every earlier state to every node."""

    def __init__(self, before: int, last: int, channels: int, halved: bool, reduces: bool, auxiliary: bool) -> None:
        super().__init__()
        self.preprocess = Preprocess(before, last, channels, halved, affine=False)
        self.nodes = nn.ModuleList(
            nn.ModuleList(MixedOperation(channels, edge_stride(reduces, state), auxiliary) for state in range(node))
            for node in range(INPUTS, INPUTS + NODES)
        )

    def forward(self, before: Tensor, last: Tensor, weights: list[Tensor], beta: float) -> Tensor:
        states = self.preprocess(before, last)
        for edges, rows in zip(self.nodes, weights):
            mixed = [edge(state, row, beta) for edge, state, row in zip(cast(nn.ModuleList, edges), states, rows)]
            states.append(torch.stack(mixed).sum(0))
        return torch.cat(states[INPUTS:], 1)


class Place(NamedTuple):
    """Where a cell stands: its kind, the channels of its nodes, and the side of the maps that enter it."""

    kind: str
    channels: int
    size: int


class Supernet(Backbone):
    """The network of a search.

    Args:
        channels, cells: as of `CellNetwork`, usually fewer of both.
        auxiliary: see `MixedOperation`.

    Attributes:
        alphas: {"normal", "reduce"} -> for each of the four nodes a matrix (states before it, operations and none). An
            edge's weights are the softmax of its row.
        beta: the weight of the auxiliary skips; the search lets it fall from 1 to 0.
        places: of the cells.

    `with_features` returns four maps, at 1/2, 1/4, 1/8 and 1/16 of the input.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        input_size: int = 112,
        channels: int = 16,
        cells: int = 8,
        auxiliary: bool = False,
    ) -> None:
        super().__init__(embedding_dim, input_size)
        final = check_size(input_size)
        if cells < 4 or channels < 2 or channels % 2:
            raise UsageError(
                f"a supernet of {cells} cells, {channels} channels: expected 4 cells or more, even channels"
            )
        self.beta = 1.0
        last = before = STEM * channels
        self.stem = nn.Sequential(nn.Conv2d(3, last, 3, 2, 1, bias=False), nn.BatchNorm2d(last))
        self.cells, self.places = nn.ModuleList(), []
        size, halved, halving = input_size // 2, False, reductions(cells)
        for i in range(cells):
            reduces = i in halving
            channels *= 2 if reduces else 1
            self.cells.append(SearchCell(before, last, channels, halved, reduces, auxiliary))
            self.places.append(Place(KINDS[reduces], channels, size))
            before, last, halved = last, NODES * channels, reduces
            size //= 2 if reduces else 1
        self.last = nn.Sequential(
            PReLU(last),
            nn.Conv2d(last, LAST, 1, bias=False),
            nn.BatchNorm2d(LAST),
            PReLU(LAST),
            nn.Conv2d(LAST, LAST, final, groups=GROUPS, bias=False),
            nn.BatchNorm2d(LAST),
        )
        self.output = OutputBlock(LAST, embedding_dim, "affine")
        self.alphas = nn.ModuleDict({kind: _alphas() for kind in KINDS})

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        weights = {kind: [rows.softmax(1) for rows in self.rows(kind)] for kind in KINDS}
        before = last = self.stem(x)
        maps = []
        for cell, place in zip(self.cells, self.places):
            if place.kind == "reduce":
                maps.append(last)
            before, last = last, cell(before, last, weights[place.kind], self.beta)
        return self.output(self.last(last)), (*maps, last)

    def rows(self, kind: str) -> Iterator[nn.Parameter]:
        """Return the matrix of alphas of each node of the cells of that kind."""
        return iter(cast(nn.ParameterList, self.alphas[kind]))

    def genotype(self) -> Genotype:
        """Return the strongest cells: of each edge the best operation but none, of each node the two best edges."""
        found = {kind: tuple(_node(rows.detach().softmax(1)) for rows in self.rows(kind)) for kind in KINDS}
        return Genotype(**cast(dict[str, Cell], found))


def edge_stride(reduces: bool, state: int) -> int:
    """Return the stride of an edge: 2 from the inputs of a reduction cell, which are twice as large as its nodes."""
    return 2 if reduces and state < INPUTS else 1


def _alphas() -> nn.ParameterList:
    sizes = range(INPUTS, INPUTS + NODES)
    return nn.ParameterList([nn.Parameter(1e-3 * torch.randn(states, NONE + 1)) for states in sizes])


def _node(weights: Tensor) -> tuple[tuple[str, int], ...]:
    best, operations = weights[:, :NONE].max(1)
    states = sorted(best.argsort(descending=True, stable=True)[:EDGES].tolist())
    return tuple((OPERATIONS[operations[state]], state) for state in states)
