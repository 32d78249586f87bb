"""The cells that a search can end with: draw some at random, and how likely a finished search finds given ones."""

import math
from pathlib import Path

import numpy as np

from facedistill.architecture_search import latency
from facedistill.backbones import EDGES, INPUTS, KINDS, NODES, OPERATIONS, Genotype, Supernet
from facedistill.errors import UserError

Weights = dict[str, list[list[list[float]]]]
DIGITS = 6  # of a stored weight


def random_genotype(seed: int) -> Genotype:
    """Return cells drawn evenly from all that a search can end with: the baseline of every architecture search.

    A node reads two different earlier states, each through any of the operations.
    """
    rng = np.random.default_rng(seed)

    def node(states: int) -> tuple[tuple[str, int], ...]:
        sources = sorted(rng.choice(states, EDGES, replace=False).tolist())
        return tuple((OPERATIONS[int(rng.integers(len(OPERATIONS)))], source) for source in sources)

    return Genotype(**{kind: tuple(node(INPUTS + i) for i in range(NODES)) for kind in KINDS})


def weights_of(network: Supernet) -> Weights:
    """Return the softmax of every edge: {"normal", "reduce"} -> node -> earlier state -> operations, and "none"."""
    return {
        kind: [
            [[round(weight, DIGITS) for weight in row] for row in rows.detach().softmax(1).tolist()]
            for rows in network.rows(kind)
        ]
        for kind in KINDS
    }


def read_weights(file: str | Path) -> Weights:
    """Return the weights that a finished search wrote (`weights.json`). Raises UserError for another file."""
    try:
        found = latency.read(Path(file).read_bytes())
    except (OSError, ValueError) as e:
        raise UserError(f"{file}: {e}; expected the weights.json of a finished search") from None
    shape = [[len(OPERATIONS) + 1] * (INPUTS + node) for node in range(NODES)]
    if {kind: [[len(row) for row in node] for node in nodes] for kind, nodes in found.items()} != {
        kind: shape for kind in KINDS
    }:
        raise UserError(f"{file}: not the edges of two cells; expected the weights.json of a finished search")
    return dict(found)


def log_likelihood(genotype: Genotype, weights: Weights) -> float:
    """Return the sum of the logs of the weights that a search gives the 16 operations of a genotype, at most 0.

    A search ends with cells for which this is high, so it is the search's ranking of all others (ours). -inf where a
    weight is 0.
    """
    chosen = (
        weights[kind][node][state][OPERATIONS.index(name)]
        for kind in KINDS
        for node, edges in enumerate(getattr(genotype, kind))
        for name, state in edges
    )
    return sum(math.log(weight) if weight else -math.inf for weight in chosen)
