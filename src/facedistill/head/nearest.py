"""The classes nearest to each class of a W that never changes: found once, and enough for a sampled softmax."""

import os
from pathlib import Path

import torch
from torch import Tensor

from facedistill import parallel
from facedistill.data import load_array, save_array
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir, fingerprint
from facedistill.head.rows import Rows, share
from facedistill.progress import say, track

QUERIES, BLOCK = 1024, 8192  # rows of W compared with each other at a time: their cosines take 32 MB


@torch.no_grad()
def nearest_classes(rows: Rows, count: int) -> Tensor:
    """Return the `count` other classes nearest to each class by the cosine of their rows: int32 (C, min(count, C - 1)).

    The nearest comes first. The search takes C^2 d multiplications in float32 and holds no C x C table. All processes
    call it together, each with all of W; each searches for its share of the classes, and all get the whole result.
    """
    if rows.sharded:
        raise ValueError("the nearest classes are searched for in all of W, not in a process's share")
    rows = rows.to(parallel.device())
    count = min(count, len(rows) - 1)
    mine = share(len(rows), parallel.rank(), parallel.world())
    found = torch.empty(len(mine), count, dtype=torch.int32, device=rows.values.device)
    wanted, others = (torch.empty(n, rows.dim, device=found.device) for n in (QUERIES, BLOCK))
    starts = range(mine.start, mine.stop, QUERIES)
    for start in track(starts, "nearest classes", len(mine), "classes", lambda s: min(QUERIES, mine.stop - s)):
        stop = min(start + QUERIES, mine.stop)
        block = found[start - mine.start : stop - mine.start]
        block.copy_(_nearest_to(rows.read(start, stop, wanted), start, rows, count, others))
    return parallel.gather(found).cpu()


def _nearest_to(queries: Tensor, start: int, rows: Rows, count: int, buffer: Tensor) -> Tensor:
    """Return the classes (q, count) nearest to `queries` (q, d), float32, which are the rows of W from `start` on."""
    best = queries.new_empty(len(queries), 0)
    classes = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
    for first in range(0, len(rows), len(buffer)):
        cosines = queries @ rows.read(first, first + len(buffer), buffer).T
        cosines.diagonal(start - first).fill_(-torch.inf)  # no class is its own neighbour
        near, place = cosines.topk(min(count, cosines.shape[1]), dim=1)
        best, classes = torch.cat([best, near], 1), torch.cat([classes, place + first], 1)
        best, order = best.topk(min(count, best.shape[1]), dim=1)
        classes = classes.gather(1, order)
    return classes


def cached_nearest(rows: Rows, count: int) -> Tensor:
    """Return `nearest_classes`, memory-mapped if an earlier call stored them for the same rows and `count`.

    A damaged cache is made anew, and one that cannot be written is left out; a line says so. All processes call it
    together.
    """
    count = min(count, len(rows) - 1)
    place = cache_dir() / "nearest" / f"{_fingerprint(rows, count)}.npy"
    found = _load(place, (len(rows), count))
    # Caches of several hosts may differ; the search needs all processes.
    if bool(parallel.maximum(torch.tensor(found is None, dtype=torch.int32, device=parallel.device()))):
        searched = nearest_classes(rows, count)
        if found is None:
            found = searched
            try:
                with atomic_write(place) as temporary:
                    save_array(temporary, found.numpy(), "<i4", place.name)
            except UserError as e:
                say(f"the nearest classes are not cached: {str(e).partition(';')[0]}")
    assert found is not None
    return found


def _fingerprint(rows: Rows, count: int) -> str:
    """Return a fingerprint of the stored rows, which are read in pieces."""
    parts = [rows.values] if rows.scales is None else [rows.values, rows.scales]
    pieces = (piece.contiguous().view(torch.uint8).cpu().numpy() for part in parts for piece in part.split(BLOCK))
    return fingerprint("nearest 1", count, rows.values.dtype, rows.values.shape, *map(fingerprint, pieces))


def _load(place: Path, shape: tuple[int, int]) -> Tensor | None:
    """Return the result that an earlier call stored, or None if it is missing or damaged."""
    if not os.path.isfile(place):
        return None
    try:
        return torch.from_numpy(load_array(place, shape, "<i4"))
    except (OSError, ValueError) as e:
        say(f"{place}: the cached nearest classes are not used ({e}); they are made anew")
        return None


def neighbourhood(rows: Rows, nearest: Tensor, labels: Tensor) -> tuple[Rows, Tensor]:
    """Return the rows of the batch's classes and of those nearest to each, and the labels' places among them.

    All processes call it together: the rows are those of the global batch, so that a loss over them does not depend on
    the number of processes.

    Args:
        rows: all of W. nearest: (C, k), see `nearest_classes`. labels: int64 (b,), of this process.

    Raises:
        UserError: a label outside 0..C-1.
    """
    classes = parallel.gather(labels).unique()
    rows.require(classes)
    near = nearest[classes.to(nearest.device)].to(classes)
    index = torch.cat([classes, near.flatten()]).unique()
    scales = None if rows.scales is None else rows.scales[index]
    return Rows(rows.values[index], scales), torch.searchsorted(index, labels)
