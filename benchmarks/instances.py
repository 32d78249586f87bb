"""What a W with a row for every image costs in a step of training, at up to a million images.

    python benchmarks/instances.py run [--rows 100000 1000000] [--threads 1]
    python benchmarks/instances.py table

Loss and gradient of the margin softmax for a batch of 128 embeddings of 512 dimensions against a frozen W of random
unit rows, as the recipe sets it: method.classifier.rows (fp32, bf16, int8), negatives "exact" or "nearest", W whole or
in shares of two processes (each has half of the batch). Every case runs in a process of its own. The neighbours of
"nearest" are drawn at random, so that hardly two images share one: the most rows that a step can read. How long the
search for the real ones takes is reckoned from the first 1,024 rows. Beside it stands the step of a student:
MobileFaceNet, width 0.5, 64 x 64 pixels.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from command import run_verb
from docs_table import put_table
from result_file import write_result
from torch import Tensor
from torch.nn import functional as F

from facedistill import parallel
from facedistill.backbones import create_backbone
from facedistill.head import ArcFace, Rows, frozen_margin_softmax, neighbourhood
from facedistill.head.nearest import BLOCK, QUERIES, _nearest_to
from facedistill.head.rows import PIECE_ROWS, quantise, share
from facedistill.run import forget_peak, peak

RESULTS = Path(__file__).parent / "results" / "instances.json"
DIM, BATCH, NEIGHBOURS, STEPS = 512, 128, 64, 5
CASES = [("fp32", "exact", 1), ("bf16", "exact", 1), ("int8", "exact", 1), ("bf16", "exact", 2), ("bf16", "nearest", 1)]
STUDENT = "student"


def run(args: argparse.Namespace) -> None:
    student = _apart(["one", "--stored", STUDENT], 1, args.threads)
    rows = []
    for count in args.rows:
        for stored, negatives, processes in CASES:
            words = ["one", "--rows", str(count), "--stored", stored, "--negatives", negatives]
            found = _apart(words, processes, args.threads)
            rows.append({"rows": count, "stored": stored, "negatives": negatives, "processes": processes} | found)
            print(rows[-1], flush=True)
    about = {"command": "python benchmarks/instances.py run", "torch": torch.__version__, "threads": args.threads}
    about |= {"batch": BATCH, "dimensions": DIM, "neighbours": NEIGHBOURS, "steps": STEPS}
    write_result(RESULTS, about | {"student_ms": student["ms"], "cases": rows})
    put(args)


def _apart(words: list[str], processes: int, threads: int) -> dict[str, Any]:
    """Run one case in processes of its own and return what the first of them prints."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(several if processes > 1 else []), __file__, *words]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one(args: argparse.Namespace) -> None:
    """Print the median CPU milliseconds of a step, MB of W, and MB that steps take beside it, of the first process."""
    torch.manual_seed(0)
    with parallel.processes():
        found = student_step() if args.stored == STUDENT else head_step(args.rows, args.stored, args.negatives)
        if parallel.rank() == 0:
            print(json.dumps(found))


def timed(step: Callable[[], Any]) -> float:
    milliseconds = []
    for _ in range(STEPS + 1):
        start = time.process_time()
        step()
        milliseconds.append(1e3 * (time.process_time() - start))
    return round(statistics.median(milliseconds[1:]), 1)


def head_step(count: int, stored: str, negatives: str) -> dict[str, Any]:
    rank, world = parallel.rank(), parallel.world()
    rows = random_rows(count, stored, share(count, rank, world), world)
    labels = torch.randint(count, (BATCH,), generator=torch.Generator().manual_seed(1)).chunk(world)[rank]
    own = rows.of(labels)
    x = 20 * (0.5 * own + 0.75**0.5 * F.normalize(torch.randn(len(labels), DIM), dim=1))
    neighbours = torch.randint(count, (count, NEIGHBOURS), dtype=torch.int32) if negatives == "nearest" else None
    held = rows.values.numel() * rows.values.element_size() + (0 if neighbours is None else 4 * neighbours.numel())

    def step() -> None:
        read, places = (rows, labels) if neighbours is None else neighbourhood(rows, neighbours, labels)
        wide = x.clone().requires_grad_()
        frozen_margin_softmax(wide, places, read, ArcFace(), 32.0).mean().backward()

    step()
    before = peak_now()
    found: dict[str, Any] = {"ms": timed(step), "held_mb": round(held / 1e6), "more_mb": round((peak() - before) / 1e6)}
    if neighbours is not None:
        found["search_hours"] = round(search_seconds(rows) * count / QUERIES / 3600, 2)
    return found


def random_rows(count: int, stored: str, mine: range, world: int) -> Rows:
    """Return this process's unit rows; made piece by piece, so that short ones are never held in float32."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[stored]
    values, scales = torch.empty(len(mine), DIM, dtype=dtype), torch.empty(len(mine))
    for start in range(0, len(mine), PIECE_ROWS):
        piece = F.normalize(torch.randn(min(PIECE_ROWS, len(mine) - start), DIM), dim=1)
        if stored == "int8":
            short = quantise(piece)
            assert short.scales is not None
            values[start : start + PIECE_ROWS], scales[start : start + PIECE_ROWS] = short.values, short.scales
        else:
            values[start : start + PIECE_ROWS] = piece
    classes = count if world > 1 else None
    return Rows(values, scales if stored == "int8" else None, classes, mine.start if world > 1 else 0)


def peak_now() -> int:
    """Return the memory that this process has now, in bytes, and begin to measure its peak anew."""
    forget_peak()
    return peak()


def search_seconds(rows: Rows) -> float:
    wanted, others = torch.empty(QUERIES, DIM), torch.empty(BLOCK, DIM)
    start = time.process_time()
    _nearest_to(rows.read(0, QUERIES, wanted), 0, rows, NEIGHBOURS, others)
    return time.process_time() - start


def student_step() -> dict[str, Any]:
    network = create_backbone("mobilefacenet", embedding_dim=DIM, input_size=64, width=0.5).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(BATCH, 3, 64, 64).to(memory_format=torch.channels_last)

    def step() -> Tensor:
        network.zero_grad(set_to_none=True)
        loss: Tensor = network(images).square().mean()
        loss.backward()
        return loss

    return {"ms": timed(step)}


def table(result: dict[str, Any]) -> str:
    lines = ["| images | rows of W | negatives | processes | CPU ms a step, each | W, MB, each | more, MB |"]
    lines.append("| ---: | --- | --- | ---: | ---: | ---: | ---: |")
    for case in result["cases"]:
        near = f"nearest {result['neighbours']}" if case["negatives"] == "nearest" else "exact"
        cells = [f"{case['rows']:,}", case["stored"], near, str(case["processes"])]
        cells += [f"{case[key]:,.0f}" for key in ("ms", "held_mb", "more_mb")]
        lines.append(f"| {' | '.join(cells)} |")
    hours = {case["rows"]: case["search_hours"] for case in result["cases"] if "search_hours" in case}
    search = ", ".join(f"{count:,} images: {h:.2g} hours" for count, h in hours.items())
    about = f"{result['threads']} thread, batch {result['batch']}, {result['dimensions']} dimensions."
    student = f"The student's own step (MobileFaceNet, width 0.5, 64 x 64): {result['student_ms']:,.0f} ms."
    return "\n".join(
        [*lines, "", about, student, f"The one search for the nearest, reckoned from 1,024 rows: {search}."]
    )


def put(_: argparse.Namespace) -> None:
    text = table(json.loads(RESULTS.read_text("utf-8")))
    put_table("classifier.md", "instances", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    verb.add_argument("--threads", type=int, default=1)
    verb.set_defaults(verb=run)
    verbs.add_parser("table").set_defaults(verb=put)
    single = verbs.add_parser("one")
    single.add_argument("--rows", type=int, default=0)
    single.add_argument("--stored", required=True)
    single.add_argument("--negatives", default="exact")
    single.set_defaults(verb=one)
    run_verb(parser)


if __name__ == "__main__":
    main()
