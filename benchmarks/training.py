"""Measure the cost of a training step by phase: scratch, proxylesskd, l2kd with a cached and an online teacher.

    python benchmarks/training.py --faces FOLDER --teacher TEACHER.onnx [--steps 15] [--threads 1]

The methods' steps are interleaved in one process; figures are medians over steps after a warm-up. CPU seconds are
recorded beside wall seconds, because they vary less on a shared machine. Writes benchmarks/results/training.json and
the table in docs/training.md. Recipe: MobileFaceNet at width 0.5, 64 x 64 pixels, batch 128, W from centres.
"""

import argparse
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from docs_table import put_table
from result_file import write_result

from facedistill.data.batch import Batch
from facedistill.data.loader import Loader
from facedistill.data.samplers import make_sampler
from facedistill.recipe.read import make_recipe
from facedistill.training.assemble import Assembly, assemble
from facedistill.training.optimisation import make_optimizer
from facedistill.training.resolved import resolve

RESULTS = Path(__file__).parent / "results" / "training.json"
BATCH = 128
METHODS: dict[str, dict[str, Any]] = {
    "scratch": {"method": {"name": "scratch", "terms": {"margin_softmax": {"scale": 32}}}},
    "proxylesskd": {
        "method": {
            "name": "proxylesskd",
            "classifier": {"start": "centres"},
            "terms": {"margin_softmax": {"scale": 32}},
        }
    },
    "l2kd, cached teacher": {"method": "l2kd"},
    "l2kd, online teacher": {"method": "l2kd", "online": True},
}


class Stepper:
    """One method's training, step by step, with the seconds of each phase: (wall, CPU)."""

    def __init__(self, assembly: Assembly, schedule: Any) -> None:
        self.assembly, self.method = assembly, assembly.method.train()
        self.method.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.method, schedule)
        sampler = make_sampler("uniform", assembly.train.labels, BATCH, 0)
        self.batches = Loader(assembly.train, sampler).epoch(0)

    def step(self) -> dict[str, tuple[float, float]]:
        phases: dict[str, tuple[float, float]] = {}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            result = work()
            phases[name] = time.perf_counter() - wall, time.process_time() - cpu
            return result

        images = timed("data", lambda: next(self.batches))
        batch = Batch(images.images, images.images, [(images.labels, 1.0)], images.index, 0.5, images.labels)
        method = self.method
        student = timed("student forward", lambda: method.student.outputs(batch.images, features=False))
        teachers = timed("teacher", lambda: {n: t(batch, method.needs[n]) for n, t in method.teachers.items()})
        loss = timed(
            "terms",
            lambda: torch.stack(
                [w.weight * w.term(student, teachers.get("teacher"), batch) for w in method.wired.values()]
            ).sum(),
        )
        timed("backward", loss.backward)

        def update() -> None:
            torch.nn.utils.clip_grad_norm_(list(method.student.parameters()), 5.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

        timed("optimiser", update)
        wall, cpu = (sum(seconds) for seconds in zip(*phases.values(), strict=True))
        phases["step"] = wall, cpu
        return phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    steppers = {}
    for name, row in METHODS.items():
        recipe = make_recipe(
            {
                "data": args.faces,
                "student": {"options": {"width": 0.5}, "input_size": 64},
                "teachers": {"teacher": {"model": args.teacher, "cache": not row.get("online", False)}},
                "method": row["method"],
                "check": {"own_class": 0.0},
            }
        )
        steppers[name] = Stepper(assemble(recipe, resolve(recipe.method)), recipe.schedule)
    measured: dict[str, dict[str, list[tuple[float, float]]]] = {name: defaultdict(list) for name in steppers}
    for i in range(args.steps + 3):
        for name, stepper in steppers.items():
            for phase, seconds in stepper.step().items():
                if i >= 3:
                    measured[name][phase].append(seconds)
    medians = {
        name: {
            phase: {
                "wall_ms": 1e3 * statistics.median(w for w, _ in s),
                "cpu_ms": 1e3 * statistics.median(c for _, c in s),
            }
            for phase, s in phases.items()
        }
        for name, phases in measured.items()
    }
    cost = {name: phases["step"]["cpu_ms"] for name, phases in medians.items()}
    result = {
        "command": "python benchmarks/training.py --faces FOLDER --teacher TEACHER.onnx",
        "teacher": Path(args.teacher).name,
        "classes": len(steppers["proxylesskd"].assembly.train.class_names),
        "batch": BATCH,
        "threads": args.threads,
        "steps": args.steps,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "images_per_second": {n: round(1e3 * BATCH / p["step"]["wall_ms"], 1) for n, p in medians.items()},
        "images_per_cpu_second": {n: round(1e3 * BATCH / c, 1) for n, c in cost.items()},
        "proxylesskd_over_scratch": round(cost["proxylesskd"] / cost["scratch"], 3),
        "l2kd_online_over_proxylesskd": round(cost["l2kd, online teacher"] / cost["proxylesskd"], 3),
        "phases": medians,
    }
    write_result(RESULTS, result)
    put_table("training.md", "training", table(result))
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """Return CPU milliseconds per step, by phase, and the two ratios."""
    phases = list(result["phases"]["scratch"])
    lines = [f"| CPU ms a step of {result['batch']} | {' | '.join(phases)} | images a CPU second |"]
    lines.append("| --- |" + " --- |" * (len(phases) + 1))
    for name, row in result["phases"].items():
        cells = " | ".join(f"{row[phase]['cpu_ms']:.1f}" for phase in phases)
        lines.append(f"| {name} | {cells} | {result['images_per_cpu_second'][name]:.0f} |")
    lines += [
        "",
        f"proxylesskd over scratch: {result['proxylesskd_over_scratch']:.3f}; l2kd with an online teacher over",
    ]
    lines.append(f"proxylesskd: {result['l2kd_online_over_proxylesskd']:.2f}. {result['classes']:,} classes.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
