"""What keeping freed memory is worth on a CPU: a network's passes with glibc's defaults and with `keep_freed_memory`.

    python benchmarks/heap.py run [--rounds 3]
    python benchmarks/heap.py table

Each measurement is a process of its own with one thread: the setting cannot be taken back, and glibc's own limits adapt
to what the process did before. They take turns, and the median of the rounds is given. MobileFaceNet 1x: training steps
of 128 images and forward passes of 64.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from command import run_verb
from docs_table import put_tables
from result_file import write_result

from facedistill.backbones import create_backbone, processor
from facedistill.heap import keep_freed_memory
from facedistill.results import markdown

RESULTS = Path(__file__).parent / "results" / "heap.json"
SIZES, SETTINGS = (64, 112), ("default", "kept")
BATCH = {"train": 128, "forward": 64}  # images at a time
STEPS = 4
WORDS = {"train": "training", "forward": "forward passes"}


def measure(work: str, setting: str, size: int) -> dict[str, float]:
    """Return images a second, and the peak of memory in bytes."""
    if setting == "kept":
        assert keep_freed_memory()
    torch.set_num_threads(1)
    network = create_backbone("mobilefacenet", embedding_dim=128, input_size=size).train(work == "train")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(BATCH[work], 3, size, size).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        if work == "forward":
            with torch.inference_mode():
                network(images)
            return
        network(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    rate = STEPS * BATCH[work] / (time.perf_counter() - began)
    return {"rate": rate, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def run(args: argparse.Namespace) -> None:
    found: dict[tuple[str, int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _, work, size, setting in product(range(args.rounds), BATCH, SIZES, SETTINGS):
        command = [sys.executable, __file__, "measure", work, setting, str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, value in json.loads(done.stdout).items():
            found[work, size, setting][name].append(value)
    rows = [
        {"work": work, "size": size, "setting": setting}
        | {k: round(statistics.median(v), 1) for k, v in values.items()}
        for (work, size, setting), values in found.items()
    ]
    made = {"torch": torch.__version__, "machine": f"{processor()}, {platform.system()}", "rounds": args.rounds}
    write_result(RESULTS, made | {"rows": rows})
    table(args)


def tables(result: dict[str, Any]) -> dict[str, str]:
    rows = {(row["work"], row["size"], row["setting"]): row for row in result["rows"]}
    cells = []
    for work, size in product(BATCH, SIZES):
        default, kept = (rows[work, size, setting] for setting in SETTINGS)
        ratios = [f"{kept[name] / default[name]:.2f}" for name in ("rate", "peak")]
        cells.append([WORDS[work], f"{size} x {size}", f"{default['rate']:.0f}", f"{kept['rate']:.0f}", *ratios])
    head = ["work", "images", "a second", "a second, memory kept", "ratio", "ratio of peak memory"]
    return {"heap": markdown(head, cells)}


def table(_: argparse.Namespace) -> None:
    put_tables("training.md", tables(json.loads(RESULTS.read_text("utf-8"))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    asked = commands.add_parser("run")
    asked.add_argument("--rounds", type=int, default=3)
    asked.set_defaults(verb=run)
    commands.add_parser("table").set_defaults(verb=table)
    asked = commands.add_parser("measure")
    asked.add_argument("what", choices=BATCH)
    asked.add_argument("setting", choices=SETTINGS)
    asked.add_argument("size", type=int)
    asked.set_defaults(verb=lambda args: print(json.dumps(measure(args.what, args.setting, args.size))))
    run_verb(parser)
