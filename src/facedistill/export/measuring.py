"""What a model costs where it runs: latency, throughput, size and memory of models and exported files, side by side."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from facedistill import __version__
from facedistill.backbones import OnnxBackbone, note_latency, processor
from facedistill.errors import UsageError, UserError
from facedistill.export.contestant import COMPILED, TORCH
from facedistill.export.deployable import Form
from facedistill.export.export import TARGETS
from facedistill.models import Facts, Fused, facts_of, load_model
from facedistill.progress import say
from facedistill.results import accuracy_of, load_evaluations

SCHEMA = 1
ROUNDS = 20  # turns of each contestant; between two of its turns all others have theirs
BATCHES = (1, 8, 64)
COMPILE_LIMIT = 180.0  # seconds
LIMIT = 600.0  # seconds that anything else may take
PROGRAM = "from facedistill.export.contestant import main; main()"


def bench(
    contestants: Sequence[str | Path],
    *,
    evaluations: Sequence[str | Path] = (),
    threads: Sequence[int] | None = None,
    rounds: int = ROUNDS,
    compiled: bool = True,
    limit: float = COMPILE_LIMIT,
) -> dict[str, Any]:
    """Measure models and exported files on this machine's CPU, each in a process of its own, in turns.

    A model runs in PyTorch, as it is and compiled; a file in its own runtime: .onnx in ONNX Runtime, .tflite in LiteRT,
    .pte in ExecuTorch. Images are noise: the time does not depend on them.

    Args:
        contestants: model folders, runs, .onnx files, and files that `export` wrote.
        evaluations: files of `evaluate --json` whose models are among the contestants, by path. That of a run is found.
        threads: numbers of threads. Default: one, and as many as the process may use.
        rounds: turns of each contestant.
        compiled: also compile each model.
        limit: seconds that compiling may take; a model that takes longer is left out.

    Returns:
        {"schema", "made", "threads", "contestants": [...], "left_out": [{"name", "runtime", "why"}]}. A contestant:
        "name", "path", "runtime", "precision", "parameters", "macs" (multiply-adds), "bytes", "latency_ms": threads ->
        {"median", "p95", "images"}, "throughput" (images/s with all threads): batch -> rate, "memory": bytes of the
        "process" and of the "network", which is what exceeds PyTorch and this program, and "accuracy", where known.

    Raises:
        UsageError: no contestant, or an evaluation of none of them.
        UserError: a contestant cannot be read.
    """
    if not contestants:
        raise UsageError("bench: name a model or an exported file, e.g. facedistill bench run student.onnx")
    if rounds < 1 or any(n < 1 for n in threads or ()):
        raise UsageError("bench: rounds and threads; expected 1 or more")
    entries = [entry for path in dict.fromkeys(map(Path, contestants)) for entry in _entries(path, compiled)]
    _add_accuracy(entries, [Path(e) for e in evaluations])
    counts = sorted({*(threads or (1, _cores()))})
    left_out: list[dict[str, str]] = []
    with ExitStack() as stack:
        workers = {i: stack.enter_context(_Worker(entry)) for i, entry in enumerate(entries)}
        for count in counts:
            _measure_latency(entries, workers, count, rounds, left_out, limit)
            if count == counts[0]:
                for i, worker in workers.items():
                    entries[i]["memory"] = worker.ask("memory")
        for batch in BATCHES * 3:  # in turns, like the latency
            for i, worker in workers.items():
                entries[i]["throughput"][str(batch)] = max(
                    entries[i]["throughput"].get(str(batch), 0.0), round(worker.ask("throughput", batch)["rate"], 1)
                )
        measured = [entries[i] for i in workers]
    _note(measured)
    made = {
        "facedistill": __version__,
        "torch": torch.__version__,
        "processor": processor(),
        "cores": _cores(),
        "rounds": rounds,
    }
    shown = [{key: value for key, value in e.items() if key not in ("form", "size", "network")} for e in measured]
    return {"schema": SCHEMA, "made": made, "threads": counts, "contestants": shown, "left_out": left_out}


def _measure_latency(
    entries: Sequence[dict[str, Any]],
    workers: "dict[int, _Worker]",
    threads: int,
    rounds: int,
    left_out: list[dict[str, str]],
    limit: float,
) -> None:
    """Add latency with so many threads to the entries; a contestant that does not open leaves the race."""
    for i in list(workers):
        try:
            workers[i].ask("open", threads, limit=limit if entries[i]["runtime"] == COMPILED else LIMIT)
        except UserError as e:
            if entries[i]["runtime"] != COMPILED:
                raise
            why = str(e).removeprefix(f"{workers[i].name}: ")
            left_out.append({"name": entries[i]["name"], "runtime": COMPILED, "why": why})
            workers.pop(i).close()
    times: dict[int, list[float]] = {i: [] for i in workers}
    for _ in range(rounds):
        for i, worker in workers.items():
            times[i] += worker.ask("latency")["ms"]
    for i, found in times.items():
        entries[i]["latency_ms"][str(threads)] = {
            "median": round(median(found), 4),
            "p95": round(float(np.percentile(found, 95)), 4),
            "images": len(found),
        }


def _note(entries: Sequence[Mapping[str, Any]]) -> None:
    """Note the latency of networks in PyTorch, for `list backbones`."""
    for entry in entries:
        if entry["runtime"] == TORCH and "1" in entry["latency_ms"]:
            note_latency(entry["network"], entry["macs"], entry["latency_ms"]["1"]["median"])


class _Worker:
    """A contestant's process. `ask` raises UserError where it cannot do it, ends, or takes too long."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry, self.name = entry, f"bench: {entry['name']} in {entry['runtime']}"

    def __enter__(self) -> "_Worker":
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""},
        )
        about = {key: self.entry[key] for key in ("path", "runtime", "size", "form")}
        self.ask("begin", about)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def ask(self, command: str, *arguments: Any, limit: float = LIMIT) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps([command, *arguments])}\n".encode())
            self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        if not ready:
            raise UserError(f"{self.name}: not done after {limit:g} s ({command})")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise UserError(f"{self.name}: the process ended with code {self.process.returncode} ({said[-1]})")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.name}: {answer['error']}")
        return answer


def _entries(path: Path, compiled: bool) -> Iterator[dict[str, Any]]:
    """What takes part for one argument: a model twice, a file once."""
    runtime = next((name for name, target in TARGETS.items() if target.suffix == path.suffix), None)
    if path.is_file() and runtime is not None and runtime != "onnx":
        facts = facts_of(TARGETS[runtime]().facts(path), path)
        if facts is None:
            raise UserError(f"{path}: does not say what it takes; only files that facedistill exported are measured")
        yield _entry(path, path, runtime, _form(facts), facts.input.size, facts.parameters, facts.macs)
        return
    if path.is_file() and runtime is None:
        known = ", ".join(target.suffix for target in TARGETS.values())
        raise UsageError(f"bench: {path}; expected a model folder, a run, or a file that ends in {known}")
    model = load_model(path, classifier=False)
    size, costs = model.input_size, (model.parameters_count(), model.macs() or 0)
    if model.backbone is None:
        raise UserError(f"bench: {path} holds embeddings only and no network")
    if model.takes_features:
        raise UserError(f"bench: {path} takes vectors of features; models of images are measured")
    if isinstance(model.backbone, Fused):
        raise UserError(f"bench: {path} is several models in one; measure each of them: {path}/members/0 and so on")
    if isinstance(model.backbone, OnnxBackbone):
        facts = facts_of(model.backbone.metadata, path)
        yield _entry(path, model.backbone.path, "onnx", _form(facts) if facts else _guess(model.backbone), size, *costs)
        return
    weights = next(path.glob("**/model.safetensors"))
    for runtime in (TORCH, COMPILED) if compiled else (TORCH,):
        yield _entry(path, path, runtime, Form(batch="dynamic", normalise=False), size, *costs) | {
            "bytes": weights.stat().st_size,
            "network": model.backbone.spec.get("name", ""),
        }


def _entry(path: Path, file: Path, runtime: str, form: Form, size: int, parameters: int, macs: int) -> dict[str, Any]:
    return {
        "name": str(path),
        "path": str(file),
        "runtime": runtime,
        "precision": form.precision,
        "parameters": parameters,
        "macs": macs,
        "bytes": file.stat().st_size,
        "latency_ms": {},
        "throughput": {},
        "form": asdict(form),
        "size": size,
    }


def _form(facts: Facts) -> Form:
    return Form(facts.precision, facts.layout, facts.pixels, facts.batch, facts.normalise)


def _guess(backbone: OnnxBackbone) -> Form:
    """The form of an ONNX file from elsewhere."""
    if backbone.pixels == "float16":
        raise UserError(f"bench: {backbone.path} takes float16; files that take uint8 or float32 are measured")
    layout, pixels = backbone.layout, backbone.pixels
    return Form("fp32", layout, pixels, backbone.batch or "dynamic", normalise=False)  # type: ignore[arg-type]


def _add_accuracy(entries: Sequence[dict[str, Any]], files: Sequence[Path]) -> None:
    """Add to each entry what an evaluation says of it: that of its run, or one that names its path."""
    for entry in entries:
        run = Path(entry["path"])
        if entry["runtime"] in (TORCH, COMPILED) and (run / "evaluation.json").is_file():
            (evaluation,) = load_evaluations([run]).values()
            if (name := _own_name(evaluation)) and (found := accuracy_of(evaluation, name)):
                entry["accuracy"] = found
    for file in files:
        (evaluation,) = load_evaluations([file]).values()
        known = {Path(m["path"]).resolve(): name for name, m in evaluation["models"].items() if m.get("path")}
        matched = [entry for entry in entries if Path(entry["name"]).resolve() in known]
        if not matched:
            measured = ", ".join(map(str, known)) or "no path"
            raise UsageError(f"bench: {file} measures none of the contestants; it names {measured}")
        for entry in matched:
            if found := accuracy_of(evaluation, known[Path(entry["name"]).resolve()]):
                entry["accuracy"] = found
            else:
                say(f"{file}: no figure of {entry['name']} against itself")


def _own_name(evaluation: Mapping[str, Any]) -> str | None:
    """The name of the run's own model in its evaluation."""
    return next((name for name in ("student", "model") if name in evaluation["models"]), None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
