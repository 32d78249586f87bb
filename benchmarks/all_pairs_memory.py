"""Memory that all-pairs takes beside the embeddings, by number of images.

python benchmarks/all_pairs_memory.py 10000 [TILES]

One number of images a call, because a process cannot forget its peak everywhere. TILES ends the pass early: memory no
longer grows once the shares are full. The bootstrap has 20 resamples; each takes the same memory. Each call adds
its row to results/all_pairs_memory.json, from which the table of docs/hardness.md is made.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from docs_table import put_table
from result_file import write_result

from facedistill.evaluation.protocols import all_pairs as module
from facedistill.evaluation.statistics import draws, resampled_points
from facedistill.results import markdown
from facedistill.run import forget_peak, peak

DIM, PER_PERSON = 64, 20
RESULT = Path(__file__).parent / "results" / "all_pairs_memory.json"


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


def record(row: dict[str, Any]) -> None:
    """Put a row into the JSON, in the place of an earlier one for as many images, and the table into the page."""
    rows = json.loads(RESULT.read_text("utf-8"))["rows"] if RESULT.exists() else []
    rows = sorted([other for other in rows if other["images"] != row["images"]] + [row], key=lambda row: row["images"])
    write_result(RESULT, {"dim": DIM, "images_per_person": PER_PERSON, "rows": rows})
    put_table("hardness.md", "all-pairs memory", table(json.loads(RESULT.read_text("utf-8"))))


def table(result: dict[str, Any]) -> str:
    """Return the memory beside the embeddings by number of images."""
    rows = []
    for row in result["rows"]:
        whole = row["tiles"] == row["all_tiles"]
        share = min(row["intervals_from"].values(), default=1.0)
        rows.append(
            [
                f"{row['images']:,}",
                f"{row['images'] * (row['images'] - 1) // 2:,}",
                f"{row['mb']:,}",
                "all" if whole else f"the first {row['tiles']:,} of {row['all_tiles']:,} blocks",
                f"{row['seconds']:,.0f}" if whole else "",
                "all" if share == 1 else f"1 in {1 / share:,.0f}",
            ]
        )
    head = ["images", "pairs", "memory, MB", "compared", "seconds", "impostors that the intervals are drawn from"]
    return markdown(head, rows)


if __name__ == "__main__":
    made = main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
    print(json.dumps(made))
    record(made)
