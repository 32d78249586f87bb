"""The rows nearest to each row, in blocks of matrix products: memory does not grow with the square of the rows."""

import numpy as np
import torch

from facedistill.progress import track

BLOCK_BYTES = 128 << 20  # of one block of products


def nearest(rows: np.ndarray, others: np.ndarray, count: int, leave_out_self: bool = False) -> tuple[np.ndarray, ...]:
    """Return the `count` rows of `others` with the largest product with each of `rows`, the nearest first.

    Args:
        rows: float32 (N, d). others: float32 (M, d).
        leave_out_self: `others` are the same rows, and a row is not its own neighbour.

    Returns:
        Products float32 (N, K), places int64 (N, K); K = `count`, or all others if they are fewer.
    """
    count = min(count, len(others) - leave_out_self)
    products, places = np.empty((len(rows), count), np.float32), np.empty((len(rows), count), np.int64)
    if count <= 0:
        return products, places
    step = max(1, BLOCK_BYTES // (4 * len(others)))
    turned = torch.from_numpy(np.ascontiguousarray(others)).T
    blocks = [slice(start, start + step) for start in range(0, len(rows), step)]
    for block in track(blocks, "comparing", len(rows), unit="rows", size=lambda block: len(rows[block])):
        product = torch.from_numpy(np.ascontiguousarray(rows[block])) @ turned
        if leave_out_self:
            product.diagonal(block.start).fill_(-torch.inf)
        best = product.topk(count)
        products[block], places[block] = best.values.numpy(), best.indices.numpy()
    return products, places
