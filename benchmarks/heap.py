"""What keeping freed memory is worth on a CPU: a network's passes with glibc's defaults and with `keep_freed_memory`.

    python benchmarks/heap.py run [--rounds 3]
    python benchmarks/heap.py table

Each measurement is a process of its own with one thread, because the setting cannot be taken back; they take turns, and
the median of the rounds is given. MobileFaceNet 1x: training steps of 128 images and forward passes of 64.
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
from pathlib import Path
from typing import Any

import torch
from docs_table import put_table
from result_file import write_result

from facedistill.backbones import create_backbone, processor
from facedistill.heap import keep_freed_memory
from facedistill.results import markdown

RESULTS = Path(__file__).parent / "results" / "heap.json"
SIZES, SETTINGS = (64, 112), ("default", "kept")
TRAINED, PASSED, STEPS = 128, 64, 8  # images at a time, and how often


def measure(setting: str, size: int) -> dict[str, float]:
    """Return images a second of training and of forward passes, and the peak of memory in bytes."""
    if setting == "kept":
        assert keep_freed_memory()
    torch.set_num_threads(1)
    network = create_backbone("mobilefacenet", embedding_dim=128, input_size=size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(TRAINED, 3, size, size).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        network(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    rates = {"train": TRAINED / _seconds(step)}
    network.eval()
    with torch.inference_mode():
        rates["forward"] = PASSED / _seconds(lambda: network(images[:PASSED]))
    return rates | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _seconds(work: Any) -> float:
    work()
    began = time.perf_counter()
    for _ in range(STEPS):
        work()
    return (time.perf_counter() - began) / STEPS


def run(args: argparse.Namespace) -> None:
    found: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(args.rounds):
        for size in SIZES:
            for setting in SETTINGS:
                command = [sys.executable, __file__, "measure", setting, str(size)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                for name, value in json.loads(done.stdout).items():
                    found[size, setting][name].append(value)
    rows = [
        {"size": size, "setting": setting} | {name: round(statistics.median(v), 1) for name, v in values.items()}
        for (size, setting), values in found.items()
    ]
    made = {"torch": torch.__version__, "machine": f"{processor()}, {platform.system()}", "rounds": args.rounds}
    write_result(RESULTS, made | {"rows": rows})
    table(args)


def tables(result: dict[str, Any]) -> dict[str, str]:
    rows = {(row["size"], row["setting"]): row for row in result["rows"]}
    cells = []
    for size in SIZES:
        default, kept = rows[size, "default"], rows[size, "kept"]
        cells.append([f"{size} x {size}"])
        for name in ("train", "forward"):
            cells[-1] += [f"{default[name]:.0f}", f"{kept[name]:.0f}", f"{kept[name] / default[name]:.2f}"]
        cells[-1].append(f"{kept['peak'] / default['peak']:.2f}")
    head = ["images", "trained a second", "kept", "ratio", "forward a second", "kept", "ratio", "ratio of peak memory"]
    return {"heap": markdown(head, cells)}


def table(_: argparse.Namespace) -> None:
    for name, text in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        print(text)
        put_table("training.md", name, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    asked = commands.add_parser("run")
    asked.add_argument("--rounds", type=int, default=3)
    asked.set_defaults(work=run)
    commands.add_parser("table").set_defaults(work=table)
    asked = commands.add_parser("measure")
    asked.add_argument("setting", choices=SETTINGS)
    asked.add_argument("size", type=int)
    asked.set_defaults(work=lambda args: print(json.dumps(measure(args.setting, args.size))))
    arguments = parser.parse_args()
    arguments.work(arguments)
