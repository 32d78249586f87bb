"""The expected time of a supernet's cells, from times of single operations measured on this machine (ours).

FBNet's idea (Wu et al., arXiv 1812.03443): a table of measured times makes an architecture's time a differentiable sum.
"""

import statistics
import time
from collections.abc import Mapping
from functools import cache

import torch
from pydantic import NonNegativeFloat, TypeAdapter, ValidationError
from torch import Tensor

from facedistill.backbones import OPERATIONS, Supernet, edge_stride, operation

WARM, TIMED = 3, 15  # passes of an operation before, and while, it is timed
Table = Mapping[str, list[list[list[float]]]]


def measure(network: Supernet) -> dict[str, list[list[list[float]]]]:
    """Return the seconds of one image through each operation at each edge, summed over the cells of a kind.

    {"normal", "reduce"} -> for each node, for each state before it, for each operation of OPERATIONS.
    """
    table = {kind: [[[0.0] * len(OPERATIONS) for _ in rows] for rows in network.rows(kind)] for kind in network.alphas}
    timed = cache(_seconds)
    for place in network.places:
        reduces = place.kind == "reduce"
        for node in table[place.kind]:
            for state, row in enumerate(node):
                stride = edge_stride(reduces, state)
                size = place.size // 2 if reduces and stride == 1 else place.size
                for i, name in enumerate(OPERATIONS):
                    row[i] += timed(name, place.channels, size, stride)
    return table


def read(content: bytes) -> Table:
    """Return the table that `measure` made, from its JSON. Raises ValueError if it has another shape."""
    try:
        return TypeAdapter(dict[str, list[list[list[NonNegativeFloat]]]]).validate_json(content)
    except ValidationError as e:
        raise ValueError(e.errors()[0]["msg"]) from None


@torch.no_grad()
def _seconds(name: str, channels: int, size: int, stride: int) -> float:
    """Return the median time of one image through an operation, on one thread."""
    layer, x = operation(name, channels, stride).eval(), torch.zeros(1, channels, size, size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = []
        for _ in range(WARM + TIMED):
            start = time.perf_counter()
            layer(x)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return statistics.median(times[WARM:])


def expected(network: Supernet, table: Table) -> Tensor:
    """Return the expected time of the cells, as a share of what equal weights would take: a scalar with gradients.

    "none" takes no time.
    """
    parts, uniform = [], 0.0
    for kind, nodes in table.items():
        for rows, times in zip(network.rows(kind), nodes):
            cost = torch.tensor(times, dtype=rows.dtype, device=rows.device)
            parts.append((rows.softmax(1)[:, : len(OPERATIONS)] * cost).sum())
            uniform += float(cost.sum()) / (len(OPERATIONS) + 1)
    return torch.stack(parts).sum() / uniform
