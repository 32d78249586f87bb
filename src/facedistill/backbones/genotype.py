"""The genotype of a searched network: which operations its two cells consist of. Data, no network.

Liu et al., "DARTS" (arXiv 1806.09055): a cell has two inputs (the outputs of the two cells before it, states 0 and 1)
and four nodes (states 2 to 5). A node is the sum of two edges; an edge is an operation on an earlier state. The cell's
output is its nodes side by side. A network has normal cells, which keep the size, and reduction cells, which halve it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facedistill.errors import UsageError, UserError, closest

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "dw_conv_3x3",
    "dw_conv_5x5",
    "dw_conv_7x7",
    "dw_conv_1x1",
)
INPUTS = 2
NODES = 4
EDGES = 2  # edges of a node
KINDS = ("normal", "reduce")
Edge = tuple[str, int]
Cell = tuple[tuple[Edge, ...], ...]


@dataclass(frozen=True)
class Genotype:
    """The nodes of the normal and of the reduction cell; an edge is (operation, state that it reads)."""

    normal: Cell
    reduce: Cell

    def to_json(self) -> dict[str, Any]:
        """Return lists and strings, as `genotype_from` reads them."""
        return {kind: [[list(edge) for edge in node] for node in getattr(self, kind)] for kind in KINDS}


# "softmax_casia" of PocketNet's authors: searched on CASIA-WebFace (arXiv 2108.10710).
POCKETNET = Genotype(
    normal=(
        (("dw_conv_3x3", 0), ("dw_conv_1x1", 1)),
        (("dw_conv_3x3", 2), ("dw_conv_5x5", 0)),
        (("dw_conv_3x3", 3), ("dw_conv_3x3", 0)),
        (("dw_conv_3x3", 4), ("skip_connect", 0)),
    ),
    reduce=(
        (("dw_conv_3x3", 1), ("dw_conv_7x7", 0)),
        (("skip_connect", 2), ("dw_conv_5x5", 1)),
        (("max_pool_3x3", 0), ("skip_connect", 2)),
        (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    ),
)
GENOTYPES = {"pocketnet": POCKETNET}


def read_genotype(source: str) -> Genotype:
    """Return the genotype of that name in GENOTYPES, or of the JSON file of that path.

    Raises UsageError for a name that is neither, UserError for a file that is no genotype.
    """
    if source in GENOTYPES:
        return GENOTYPES[source]
    if not Path(source).is_file():
        names = ", ".join(GENOTYPES)
        raise UsageError(f"genotype '{source}'{closest(source, GENOTYPES)}: expected a file, or one of {names}")
    try:
        value = json.loads(Path(source).read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: no JSON ({error}); expected a genotype that `facedistill search` wrote") from None
    return genotype_from(value, source)


def genotype_from(value: Any, where: str = "genotype") -> Genotype:
    """Return the genotype of {"normal": [[[operation, state], ...], ...], "reduce": ...}.

    Raises UserError if a node or an edge is missing or too many, for an unknown operation, and for an edge that reads
    its own or a later node.
    """
    if not isinstance(value, dict) or set(value) != set(KINDS):
        raise UserError(f"{where}: expected the cells 'normal' and 'reduce', found {_shown(value)}")
    return Genotype(**{kind: _cell(value[kind], f"{where}: cell '{kind}'") for kind in KINDS})


def _cell(nodes: Any, where: str) -> Cell:
    if not isinstance(nodes, list | tuple) or len(nodes) != NODES:
        raise UserError(f"{where}: expected {NODES} nodes, found {_count(nodes)}")
    return tuple(_node(edges, i, f"{where}, node {i}") for i, edges in enumerate(nodes, INPUTS))


def _node(edges: Any, state: int, where: str) -> tuple[Edge, ...]:
    if not isinstance(edges, list | tuple) or len(edges) != EDGES:
        raise UserError(f"{where}: expected {EDGES} edges, found {_count(edges)}")
    return tuple(_edge(edge, state, where) for edge in edges)


def _edge(edge: Any, state: int, where: str) -> Edge:
    if not isinstance(edge, list | tuple) or len(edge) != 2:
        raise UserError(f"{where}: expected an edge [operation, state], found {_shown(edge)}")
    operation, source = edge
    if operation not in OPERATIONS:
        hint = closest(operation, OPERATIONS) if isinstance(operation, str) else ""
        raise UserError(
            f"{where}: unknown operation {_shown(operation)}{hint}; expected one of {', '.join(OPERATIONS)}"
        )
    if type(source) is not int or not 0 <= source < state:
        raise UserError(
            f"{where}: an edge reads state {_shown(source)}, but only states 0 to {state - 1} come before this node"
        )
    return operation, source


def _count(value: Any) -> str:
    return str(len(value)) if isinstance(value, list | tuple) else _shown(value)


def _shown(value: Any) -> str:
    return repr(value)[:60]
