"""Memory that all-pairs takes beside the embeddings, by number of images.

python benchmarks/all_pairs_memory.py 10000 [TILES]

One number of images a call, because a process cannot forget its peak everywhere. TILES ends the pass early: memory no
longer grows once the shares are full. The bootstrap has 20 resamples; each takes the same memory.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from facedistill.evaluation.protocols import all_pairs as module
from facedistill.evaluation.statistics import draws, resampled_points
from facedistill.run import forget_peak, peak

DIM, PER_PERSON = 64, 20


def main(images: int, most: int | None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((images, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tiles, done = module.tiles, 0

    def counted(probe: np.ndarray, gallery: np.ndarray) -> Iterator[Any]:
        nonlocal done
        for tile in islice(tiles(probe, gallery), most):
            done += 1
            yield tile

    module.tiles = counted
    forget_peak()
    before, began = peak(), time.perf_counter()
    person = np.arange(images) // PER_PERSON
    held = max(2 * int(max(module.FARS) * images**2 / 2), module.HELD_IMPOSTORS)
    scores = module.collect(vectors, vectors, person, held)
    seen = scores.roc.pairs[1]  # fewer than all if the pass ended early
    weights = (scores.weights(draw, seen) for draw in draws(int(person[-1]) + 1, 20))
    resampled_points(scores.genuine, scores.impostor, module.FARS, weights, complete=True)
    return {
        "images": images,
        "tiles": done,
        "all_tiles": sum(-(-(images - top) // module.TILE[1]) for top in range(0, images, module.TILE[0])),
        "seconds": round(time.perf_counter() - began, 1),
        "mb": round((peak() - before) / 2**20),
        "intervals_from": scores.sampled,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)))
