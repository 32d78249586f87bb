"""What an exported file costs: latency with one thread, size, and cosine to the model, in fp32, fp16 and int8.

    python benchmarks/export.py run [--public FILE.onnx ...] [--faces FOLDER] [--verify LFW.bin]
    python benchmarks/export.py trained RUN ... --faces FOLDER --verify LFW.bin --against TEACHER
    python benchmarks/export.py faults
    python benchmarks/export.py table

`run` times everything in turns, in one process: each round runs each network once on one image, and the figure is the
median over the rounds. Our networks have random weights, which is enough for latency and size. `--public` adds ONNX
files of others (input N x 3 x H x W float32, RGB 0..255): their latency, and what our int8 makes of them. `--faces`
gives the images (default: synthetic faces). `--verify` measures TAR at FAR 1e-4 over all pairs, of each public network
before and after int8; minutes a network.
`trained` exports students as `facedistill export` does, in fp32 and int8, gate and all, and times that.
`faults` breaks an export in each known way and notes what the gate says. `table` writes the tables of docs/export.md.
"""

import argparse
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from command import run_verb
from docs_table import put_table
from export_faults import FAULTS, as_trained, naive
from result_file import write_result
from timing import medians

from facedistill.data import open_dataset
from facedistill.evaluation import evaluate, open_sets
from facedistill.export import Deployable, Form, export_model
from facedistill.export.graph import without_prelu
from facedistill.export.onnx import Onnx, float_graph
from facedistill.export.quantise import cosine_of, quantised
from facedistill.models import Model, Precision, load_model

RESULTS = Path(__file__).parent / "results" / "export.json"
SYNTHETIC = "synthetic:identities=128,images=2,size={},seed=5"
CALIBRATION, OTHERS = 192, 64
NETWORKS = {
    "0.28 M at 64 x 64": {"embedding_dim": 128, "size": 64, "width": 0.5},
    "1.20 M at 112 x 112": {"embedding_dim": 512, "size": 112, "width": 1.0},
}
ACTIVATIONS = ("prelu", "relu")
FAR = 1e-4


def images_of(data: str | None, size: int) -> np.ndarray:
    """uint8 (N, 3, size, size), shuffled."""
    dataset = open_dataset(data or SYNTHETIC.format(size))
    rows = np.random.default_rng(0).permutation(len(dataset))[: CALIBRATION + OTHERS]
    images = dataset.batch(rows).images
    if images.shape[-1] != size:
        images = torch.nn.functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return images.round().clamp(0, 255).to(torch.uint8).numpy() if images.is_floating_point() else images.numpy()


def session(file: Path, folded: Path | None = None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if folded is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def embed(opened: Any, images: np.ndarray) -> np.ndarray:
    name = opened.get_inputs()[0].name
    return np.concatenate([opened.run(None, {name: images[i : i + 8]})[0] for i in range(0, len(images), 8)])


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    records: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], Any]] = {}
    with TemporaryDirectory() as folder:
        for name, network in NETWORKS.items():
            images = images_of(args.faces, int(network["size"]))
            for activation in ACTIVATIONS:
                model = as_trained(**network, activation=activation)  # type: ignore[arg-type]
                title = f"{name}, {activation}"
                records.append(_ours(title, model, images, Path(folder), calls) | {"activation": activation})
        public = [_public(Path(path), args, Path(folder), calls) for path in args.public]
        took = medians(calls, args.rounds)
        _store(args, records, public, took)
        for record, path in zip(public if args.verify else [], args.public, strict=False):
            files = {kind: Path(folder) / f"{Path(path).stem}.{kind}.onnx" for kind in ("fp32", "int8")}
            record["tar"] = _rates(files, args.verify)
            write_result(RESULTS, json.loads(RESULTS.read_text("utf-8")) | {"public": public})
    write_table(args)


def _store(
    args: argparse.Namespace, records: list[dict[str, Any]], public: list[dict[str, Any]], took: dict[str, float]
) -> None:
    for record in (*records, *public):
        record["ms"] = {kind: took[f"{record['network']} {kind}"] for kind in record.pop("kinds")}
    command = "python benchmarks/export.py run" + "".join(
        f" --{flag} {' '.join(what)}"
        for flag, what in (
            ("public", [Path(p).name for p in args.public]),
            ("faces", ["FOLDER"] if args.faces else []),
            ("verify", ["LFW.bin"] if args.verify else []),
        )
        if what
    )
    old = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    result = {
        "command": command,
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
        "vnni": "avx512_vnni" in Path("/proc/cpuinfo").read_text("utf-8"),
        "rounds": args.rounds,
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip(),
        "networks": records,
        "public": public,
    }
    write_result(RESULTS, old | result)


def _ours(
    title: str, model: Model, images: np.ndarray, folder: Path, calls: dict[str, Callable[[], Any]]
) -> dict[str, Any]:
    with torch.inference_mode():
        net = Deployable(model, Form())
        expected = np.concatenate([net(torch.from_numpy(p.copy())).numpy() for p in np.split(images[CALIBRATION:], 8)])
    files: dict[str, Path] = {}
    cosines = {}
    told: dict[str, Any] = {}
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    for precision in precisions:
        form = Form(precision, batch="dynamic")
        files[precision] = folder / f"{len(calls)}.{precision}.onnx"
        written = Onnx().write(Deployable(model, form), form, images[:CALIBRATION], {}, files[precision])
        told = dict(written or told)
    files["fp32 with PRelu"] = folder / f"{len(calls)}.plain.onnx"
    form = Form(batch="dynamic")
    onnx.save(float_graph(Deployable(model, form), form), str(files["fp32 with PRelu"]))
    files["int8 of ONNX Runtime"] = folder / f"{len(calls)}.naive.onnx"
    naive(files["fp32 with PRelu"], files["int8 of ONNX Runtime"], images[:CALIBRATION], per_channel=True)
    for kind, file in files.items():
        opened = session(file)
        found = cosine_of(expected, embed(opened, images[CALIBRATION:]))
        cosines[kind] = [round(float(found.mean()), 5), round(float(np.percentile(found, 1)), 5)]
        if kind != "fp16":
            calls[f"{title} {kind}"] = partial(embed, opened, images[:1])
    one = torch.from_numpy(images[:1].copy())

    def eager() -> None:
        with torch.inference_mode():
            net(one)

    calls[f"{title} torch"] = eager
    nodes = Counter(node.op_type for node in onnx.load(str(files["fp32"])).graph.node)
    told.pop("text", None)
    return {
        "network": title,
        "parameters": model.parameters_count(),
        "macs": model.macs(),
        "kinds": ["torch", *(kind for kind in files if kind != "fp16")],
        "bytes": {kind: file.stat().st_size for kind, file in files.items()},
        "cosine": cosines,
        "nodes": dict(nodes),
        "int8": {key: value for key, value in told.items() if key != "measured"},
    }


def _public(file: Path, args: argparse.Namespace, folder: Path, calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """A network of others as it is, with PReLU in convolutions, and in int8."""
    model = load_model(file)
    images = images_of(args.faces, model.input_size).astype(np.float32)
    folded = folder / f"{file.stem}.folded.onnx"
    opened = session(file)
    session(file, folded)
    before = onnx.load(str(folded))
    began = time.perf_counter()
    graph, report = quantised(before, images[:CALIBRATION])
    seconds = time.perf_counter() - began
    files = {"fp32": folder / f"{file.stem}.fp32.onnx", "int8": folder / f"{file.stem}.int8.onnx"}
    onnx.save(without_prelu(before), str(files["fp32"]))
    onnx.save(graph, str(files["int8"]))
    found = cosine_of(embed(opened, images[CALIBRATION:]), embed(session(files["int8"]), images[CALIBRATION:]))
    kinds = {"as published": opened} | {kind: session(made) for kind, made in files.items()}
    for kind, runs in kinds.items():
        calls[f"{file.name} {kind}"] = partial(embed, runs, images[:1])
    return {
        "network": file.name,
        "parameters": model.parameters_count(),
        "macs": model.macs(),
        "kinds": list(kinds),
        "bytes": {"as published": file.stat().st_size} | {kind: made.stat().st_size for kind, made in files.items()},
        "cosine": [round(float(found.mean()), 5), round(float(np.percentile(found, 1)), 5)],
        "int8": {key: value for key, value in report.to_json().items() if key != "measured"},
        "seconds_to_quantise": round(seconds, 1),
    }


def _rates(files: dict[str, Path], verify: str) -> dict[str, float]:
    models = {kind: load_model(file) for kind, file in files.items()}
    result = evaluate(models, open_sets([verify]), protocols=["all-pairs"], flip="none", fars=[FAR], resamples=0)
    rates = {}
    for row in result["results"]:
        probe, gallery = row["probe"], row["gallery"]
        if probe == gallery:
            rates[probe] = round(next(iter(row["tar_at_far"].values()))["value"], 5)
        elif (probe, gallery) == ("int8", "fp32"):
            rates["int8 against the gallery of fp32, at its threshold"] = round(
                next(iter(row["at_gallery_threshold"].values()))["tar"], 5
            )
    return rates


def trained(args: argparse.Namespace) -> None:
    """Export trained students in fp32 and int8, and note the gate's figures, the seconds, the sizes and the latency."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], Any]] = {}
    with TemporaryDirectory() as folder:
        for path in args.runs:
            name, model = Path(path).name, load_model(path)
            row: dict[str, Any] = {"run": name, "parameters": model.parameters_count(), "size": model.input_size}
            precisions: tuple[Precision, ...] = ("fp32", "int8")
            for precision in precisions:
                began = time.perf_counter()
                out = Path(folder) / f"{name}.{precision}.onnx"
                made = export_model(path, "onnx", out, precision=precision, calibrate=args.faces)
                row[precision] = {"seconds": round(time.perf_counter() - began, 1), "bytes": made.bytes}
                if args.verify and precision == "int8":  # not timed: the teacher embeds the whole set
                    made = export_model(
                        path,
                        "onnx",
                        out,
                        precision="int8",
                        calibrate=args.faces,
                        verify=args.verify,
                        against=args.against,
                    )
                row[precision] |= {"gate": made.gate.to_json()}
                row[precision] |= {
                    key: made.written[key] for key in ("method", "equalised", "layers", "left") if made.written
                }
                opened, image = session(made.path), images_of(args.faces, model.input_size)[:1]
                calls[f"{name} {precision}"] = partial(embed, opened, image)
            rows.append(row)
        took = medians(calls, args.rounds)
    for row in rows:
        for precision in ("fp32", "int8"):
            row[precision]["ms"] = took[f"{row['run']} {precision}"]
    result = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    known = {row["run"]: row for row in [*result.get("trained", []), *rows]}
    write_result(RESULTS, result | {"trained": list(known.values())})
    write_table(args)


def faults(_: argparse.Namespace) -> None:
    """Break an export in each known way, and note what the gate says."""
    data, rows = "synthetic:identities=80,images=4,size=64,seed=3", []
    model = as_trained(128, 64, 0.25)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "x.onnx"
        sound: dict[str, tuple[str, Precision]] = {"none": ("onnx", "fp32"), "none, int8": ("onnx", "int8")}
        for name, (to, precision) in (sound | FAULTS).items():
            made = export_model(model, to, out, precision=precision, calibrate=data)
            gate = made.gate
            rows.append(
                {
                    "fault": name,
                    "precision": precision,
                    "mean_cosine": round(gate.mean_cosine, 4),
                    "first_percentile": round(gate.first_percentile, 4),
                    "spread": round(gate.spread, 3),
                    "passed": gate.passed,
                }
            )
            print(rows[-1], gate.faults)
    result = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    write_result(RESULTS, result | {"faults": rows})
    write_table(_)


def tables(result: dict[str, Any]) -> dict[str, str]:
    made = {}
    if "networks" in result:
        made["export"] = _latency(result["networks"])
        made["export of public networks"] = _trained(result["public"])
        made["export goals"] = _goals(result)
    if result.get("trained"):
        made["export of students"] = _students(result["trained"])
    if result.get("faults"):
        made["export faults"] = _faults(result["faults"])
    return made


def _latency(records: list[dict[str, Any]]) -> str:
    lines = [
        "| network | torch | fp32 | fp32 with PRelu | int8 | int8 of ONNX Runtime | int8 over fp32 | "
        "file fp32, fp16, int8 | int8 / fp32 |",
        "| --- |" + " --- |" * 8,
    ]
    for record in records:
        ms, size = record["ms"], record["bytes"]
        speeds = [ms[kind] for kind in ("torch", "fp32", "fp32 with PRelu", "int8", "int8 of ONNX Runtime")]
        sizes = ", ".join(f"{size[kind] / 1e6:.2f}" for kind in ("fp32", "fp16", "int8"))
        lines.append(
            f"| {record['network']} | {' | '.join(f'{value:.2f}' for value in speeds)} | "
            f"{ms['fp32'] / ms['int8']:.2f}x faster | {sizes} MB | {size['int8'] / size['fp32']:.2f} |"
        )
    return "\n".join(lines)


def _trained(records: list[dict[str, Any]]) -> str:
    lines = [
        "| network | as published, ms | fp32, ms | int8, ms | cosine of int8: mean, first percentile | "
        "layers in float | TAR fp32, int8 | int8 against the fp32 gallery |",
        "| --- |" + " --- |" * 7,
    ]
    for record in records:
        ms, tar = record["ms"], record.get("tar", {})
        shown = {key: f"{100 * value:.2f}" for key, value in tar.items()}
        mixed = next((value for key, value in shown.items() if "against" in key), "")
        lines.append(
            f"| {record['network']}, {record['parameters'] / 1e6:.2f} M | {ms['as published']:.2f} | "
            f"{ms['fp32']:.2f} | {ms['int8']:.2f} | {record['cosine'][0]:.4f}, {record['cosine'][1]:.4f} | "
            f"{len(record['int8']['left'])} of {record['int8']['layers']} | "
            f"{shown.get('fp32', '')}, {shown.get('int8', '')} | {mixed} |"
        )
    return "\n".join(lines)


def _students(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| student | int8 / fp32 file | cosine of int8: mean, first percentile | layers in float | "
        "TAR fp32, int8 | against the teacher's gallery | seconds to export fp32, int8 |",
        "| --- |" + " --- |" * 6,
    ]
    for row in rows:
        gate = row["int8"]["gate"]
        rates = [f"{100 * rate['model']:.2f}, {100 * rate['file']:.2f}" for rate in gate["rates"].values()] + ["", ""]
        lines.append(
            f"| {row['run']} | "
            f"{row['int8']['bytes'] / row['fp32']['bytes']:.2f} | {gate['mean_cosine']:.4f}, "
            f"{gate['first_percentile']:.4f} | {len(row['int8']['left'])} of {row['int8']['layers']} | "
            f"{rates[0]} | {rates[1]} | {row['fp32']['seconds']:.0f}, {row['int8']['seconds']:.0f} |"
        )
    return "\n".join(lines)


def _goals(result: dict[str, Any]) -> str:
    by_name = {record["network"]: record for record in result["networks"]}
    rows: list[tuple[str, str, str, bool | None]] = []
    for name, record in by_name.items():
        size, ms, large = record["bytes"], record["ms"], "1.20" in name
        ratio = size["int8"] / size["fp32"]
        rows.append((f"int8 file / fp32 file, {name}", f"{ratio:.3f}", "at most 0.30" if large else "", ratio <= 0.3))
        gain = ms["fp32"] / ms["int8"]
        rows.append((f"int8 faster than fp32, {name}", f"{gain:.2f}x", "1.5x" if large else "", gain >= 1.5))
        gain, goal = ms["torch"] / ms["fp32"], 1.0 if large else 3.0
        rows.append((f"fp32 faster than torch, {name}", f"{gain:.2f}x", f"{goal:g}x", gain >= goal))
        norms = record["nodes"].get("BatchNormalization", 0)
        rows.append(
            (f"nodes of BatchNormalization, {name}", f"{norms} of {sum(record['nodes'].values())}", "0", not norms)
        )
    for public in result["public"]:
        if "512" in public["network"]:
            ours = by_name["1.20 M at 112 x 112, prelu"]
            ratio = (ours["ms"]["fp32"] / ours["macs"]) / (public["ms"]["as published"] / public["macs"])
            rows.append((f"our fp32 per MAC / {public['network']} per MAC", f"{ratio:.2f}", "at most 1.0", ratio <= 1))
        for key, value in public.get("tar", {}).items():
            if key != "fp32":
                lost = 100 * (public["tar"]["fp32"] - value)
                rows.append((f"TAR lost, {key}, {public['network']}", f"{lost:.2f} points", "at most 0.5", lost <= 0.5))
    lines = ["| what | measured | goal | met |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {what} | {found} | {goal} | {('yes' if met else 'no') if goal else ''} |" for what, found, goal, met in rows
    ]
    return "\n".join(lines)


def _faults(rows: list[dict[str, Any]]) -> str:
    lines = ["| fault | precision | mean cosine | first percentile | spread | gate |", "| --- |" + " --- |" * 5]
    lines += [
        f"| {row['fault']} | {row['precision']} | {row['mean_cosine']:.4f} | {row['first_percentile']:.4f} | "
        f"{row['spread']:.3f} | {'passes' if row['passed'] else 'fails'} |"
        for row in rows
    ]
    return "\n".join(lines)


def write_table(_: argparse.Namespace) -> None:
    for name, table in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("export.md", name, table)
        print(table, end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    run_parser = verbs.add_parser("run")
    run_parser.add_argument("--public", nargs="*", default=[])
    run_parser.add_argument("--faces")
    run_parser.add_argument("--verify")
    run_parser.add_argument("--rounds", type=int, default=60)
    run_parser.set_defaults(verb=measure)
    trained_parser = verbs.add_parser("trained")
    trained_parser.add_argument("runs", nargs="+")
    trained_parser.add_argument("--faces", required=True)
    trained_parser.add_argument("--verify")
    trained_parser.add_argument("--against")
    trained_parser.add_argument("--rounds", type=int, default=60)
    trained_parser.set_defaults(verb=trained)
    verbs.add_parser("faults").set_defaults(verb=faults)
    verbs.add_parser("table").set_defaults(verb=write_table)
    run_verb(parser)
