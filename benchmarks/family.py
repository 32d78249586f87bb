"""The family of networks: what each costs at 112 x 112, in PyTorch and exported, and what a short distillation gives.

    python benchmarks/family.py run --data FACES --runs R
    python benchmarks/family.py train --data FACES --teacher T.onnx --lfw lfw.bin --runs R [--epochs 2] [--seeds 0]
    python benchmarks/family.py table [--runs R]

`run` exports every network at its smallest size in each of `--precisions`, gate and all. Then it times all of them in
turns, in CPU time of one thread: PyTorch, and ONNX Runtime in each precision. The weights are random but look trained,
which is enough for latency, size, and faults of the export. Where the processor's int8 products saturate (x86 without
VNNI), int8 says nothing: measure fp32 alone. `train` distils each from the teacher at 64 x 64. Every result is a
file in R; finished ones are skipped, and a stopped training resumes. `table` adds the results of R to those in
benchmarks/results/family.json, and writes the table and the chart of docs/model.md.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from command import run_verb
from docs_table import DOCS, put_tables
from export import embed, images_of, session
from export_faults import looking_trained
from family_chart import Network, chart
from result_file import write_result
from short_study import FARS, SIDES, cost, embedded, figures, heads, rates, recipe_of, store, stored
from timing import medians

from facedistill.backbones import create_backbone
from facedistill.data import open_dataset
from facedistill.evaluation import far_key
from facedistill.export import export_model
from facedistill.files import atomic_write
from facedistill.models import Precision, load_model, save_model
from facedistill.results import markdown
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "family.json"
CHART = DOCS / "images" / "family.svg"
COSTS = ("parameters, M", "multiply-adds, M", "ms in ONNX Runtime, fp32")
DIM, SIZE, TRAINED_SIZE, ROUNDS = 128, 112, 64, 40
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilefacenet": ("mobilefacenet", {}),
    "mobilefacenet, width 0.5": ("mobilefacenet", {"width": 0.5}),
    "mobilefacenet, ReLU": ("mobilefacenet", {"activation": "relu"}),
    "pocketnet_s": ("pocketnet_s", {}),
    "ghostfacenet_v1": ("ghostfacenet_v1", {}),
    "ghostfacenet_v2": ("ghostfacenet_v2", {}),
    "mixfacenet_xs": ("mixfacenet_xs", {}),
    "shufflefacenet, width 0.5": ("shufflefacenet", {"width": 0.5}),
    "edgeface_xxs": ("edgeface_xxs", {}),
    "vit_t": ("vit_t", {}),
    "resnet_small": ("resnet_small", {}),
    "iresnet18": ("iresnet18", {}),
}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    images = torch.from_numpy(images_of(args.data, SIZE))[:64]
    for name, (backbone, options) in NETWORKS.items():
        done, out = folder / f"export-{_file(name)}.json", folder / _file(name)
        if done.exists():
            continue
        torch.manual_seed(0)
        model = looking_trained(create_backbone(backbone, DIM, SIZE, **options), images)
        save_model(model, out)
        found: dict[str, Any] = {"network": name, "parameters": model.parameters_count(), "macs": model.macs()}
        for precision in args.precisions:
            began = time.perf_counter()
            made = export_model(out, "onnx", out / f"{precision}.onnx", precision=precision, calibrate=args.data)
            found[precision] = {"file": made.path.name, "bytes": made.bytes, "gate": made.gate.to_json()}
            found[precision]["seconds"] = round(time.perf_counter() - began)
            print(name, precision, made.gate.mean_cosine, made.gate.faults, flush=True)
        store(done, found)
    timed(folder, args.data)


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "")


def timed(folder: Path, data: str) -> None:
    """Time every network in turns: PyTorch, and both files in ONNX Runtime."""
    image, calls = images_of(data, SIZE)[:1], dict[str, Callable[[], Any]]()
    one = torch.from_numpy(image.copy())
    for row in stored(folder, "export-*.json"):
        name, out = row["network"], folder / _file(row["network"])
        calls[f"{name}: torch"] = partial(_inferred, load_model(out).eval(), one)
        for precision in (one for one in PRECISIONS if one in row):
            calls[f"{name}: {precision}"] = partial(embed, session(out / row[precision]["file"]), image)
    store(folder / "ms.json", {"ms": medians(calls, ROUNDS, time.process_time)})


def _inferred(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(images)


def distil(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    lfw, teacher = open_dataset(args.lfw), load_model(args.teacher)
    gallery = embedded(teacher, lfw)
    for seed, (name, (backbone, options)) in product(args.seeds, NETWORKS.items()):
        done, out = folder / f"train-{_file(name)}-{seed}.json", folder / f"train-{_file(name)}-{seed}"
        if done.exists() or (args.only and name not in args.only):
            continue
        student = {"backbone": backbone, "options": options}
        train(recipe_of(args.data, args.teacher, student, TRAINED_SIZE, args.epochs, seed), out)
        found: dict[str, Any] = {"network": name, "seed": seed, "tar": rates(load_model(out), lfw, gallery)}
        if "int8" in args.precisions:
            made = export_model(out, "onnx", out / "int8.onnx", precision="int8", calibrate=args.data)
            found["int8"] = made.gate.to_json()
        store(done, found | cost(out))
        print(name, seed, found["tar"], flush=True)


def collect(folder: Path) -> None:
    """Add the results of a folder to the stored ones, in place of those of the same network and seed."""
    rows = {row["network"]: row for row in json.loads(RESULTS.read_text("utf-8"))["networks"]}
    trained = {(name, run["seed"]): run for name, row in rows.items() for run in row["trained"]}
    for row in stored(folder, "train-*.json"):
        kept = ("commit", "seed", "tar", "int8", "epochs", "seconds", "images", "data")
        trained[row["network"], row["seed"]] = {key: row[key] for key in kept if key in row}
    for timed in stored(folder, "ms.json"):
        rows = {row["network"]: row for row in stored(folder, "export-*.json")}
        for name, row in rows.items():
            kinds = ("torch", *(one for one in PRECISIONS if one in row))
            row["ms"] = {kind: timed["ms"][f"{name}: {kind}"] for kind in kinds}
    for name, row in rows.items():
        row["trained"] = [run for (network, _), run in sorted(trained.items()) if network == name]
    write_result(RESULTS, {"size": SIZE, "networks": [rows[name] for name in NETWORKS if name in rows]})


def table(result: Mapping[str, Any]) -> str:
    rows = []
    for row in result["networks"]:
        cells = [f"{row['parameters'] / 1e6:.2f}", f"{row['macs'] / 1e6:.0f}"]
        cells += [f"{row['ms'][kind]:.1f}" if kind in row["ms"] else "" for kind in ("torch", *PRECISIONS)]
        cells += [f"{row[one]['bytes'] / 1e6:.1f}" if one in row else "" for one in PRECISIONS]
        cells += [_gate(row[one]["gate"]) if one in row else "" for one in PRECISIONS]
        trained = row["trained"]
        cells += [_gate(next((run["int8"] for run in trained if "int8" in run), None)), str(len(trained) or "")]
        rows.append([f"`{row['network']}`", *cells, *figures(trained)])
    about = ["parameters, M", "MACs, M", "torch, ms", "ONNX fp32, ms", "ONNX int8, ms", "fp32, MB", "int8, MB"]
    gates = ["gate of fp32", "gate of int8", "gate of int8, trained"]
    return markdown(["network", *about, *gates, "seeds", *heads()], rows)


def drawing(result: Mapping[str, Any]) -> str:
    """Return the chart of the trained networks; empty without any."""
    networks, (name, words), far = [], list(SIDES.items())[-1], far_key(FARS[0])
    for row in result["networks"]:
        found = [run["tar"][name][far] for run in row["trained"]]
        if found:
            costs = (row["parameters"] / 1e6, row["macs"] / 1e6, row["ms"]["fp32"])
            value, *ends = (100 * sum(column) / len(found) for column in zip(*found))
            networks.append(Network(row["network"], dict(zip(COSTS, costs)), (value, ends[0], ends[1])))
    about = f"TAR of {words} at FAR {far} in percent, with its interval; costs at {SIZE} x {SIZE}, on logarithmic axes"
    return chart("What a short distillation gives for the price", about, COSTS, networks) if networks else ""


def _gate(gate: Mapping[str, Any] | None) -> str:
    return "" if gate is None else f"{'passes' if gate['passed'] else '**fails**'}, {gate['mean_cosine']:.4f}"


def write_table(args: argparse.Namespace) -> None:
    if args.runs:
        collect(Path(args.runs))
    result = json.loads(RESULTS.read_text("utf-8"))
    put_tables("model.md", {"family": table(result)})
    if drawn := drawing(result):
        with atomic_write(CHART) as temporary:
            temporary.write_text(drawn, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for verb, does in (("run", run), ("train", distil), ("table", write_table)):
        made = verbs.add_parser(verb)
        made.set_defaults(verb=does)
        made.add_argument("--runs", required=verb != "table")
        if verb != "table":
            made.add_argument("--data", required=True)
            made.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
        if verb == "train":
            made.add_argument("--teacher", required=True)
            made.add_argument("--lfw", required=True)
            made.add_argument("--epochs", type=int, default=2)
            made.add_argument("--seeds", type=int, nargs="+", default=[0])
            made.add_argument("--threads", type=int, default=1)
            made.add_argument("--only", nargs="+", choices=list(NETWORKS), help="some of the networks")
    run_verb(parser)
