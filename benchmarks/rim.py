"""RIM's study, the part of the hallucination network: faces of 8 pixels to full size, with it and without it.

    python benchmarks/rim.py train --data FACES --priors INDEX --teacher T.onnx --runs R
    python benchmarks/rim.py measure --teacher T.onnx --lfw lfw.bin --runs R
    python benchmarks/rim.py table

`train` distils the recognisers of each seed (the student, and HRN, the residual pair that saw degraded faces), trains
the network in stages (priors, then pairs with the first student's features), and then network and HRN jointly, from the
same parts, for each seed. `measure` compares each system's embedding of small probes with the teacher's gallery at full
resolution: LFW over all pairs, without the mirror image. Finished runs and measured systems are skipped, and
stopped ones resume. `--changes key=value` changes all trainings, for a trial.

Every system gets the same probes: shrunk and enlarged again, bicubic. The plain recognisers see them as they are.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docs_table import put_table
from result_file import write_result
from torch import Tensor

from facedistill import __version__
from facedistill.backbones import Backbone, count_macs, count_parameters
from facedistill.data import open_dataset
from facedistill.evaluation import evaluate
from facedistill.evaluation.options import Resolution
from facedistill.hallucination import FHN, compose, network_of
from facedistill.hallucination.pairs import to_pixels
from facedistill.models import Model, load_model

RESULTS = Path(__file__).parent / "results" / "rim_fhn.json"
PROBES, FARS, SEEDS, SIZE = (8, 12, 16, 20, 28, 56), (1e-3, 1e-4), (0, 1, 2), 64
METHOD = (
    "method.classifier.start=instances",
    "method.terms.margin_softmax.margin_options.size=0.35",
    "method.terms.embedding_l2=16",
)
RECOGNISERS = {  # folder -> recipe, and the network of the student of the README: MobileFaceNet of half the width
    "student": ("proxylesskd_l2", "student.options.width=0.5", *METHOD),
    "hrn": ("residual_low", "student.options.options.width=0.5"),
}
DISTIL = ("schedule.batch=128", "schedule.lr=1", "schedule.warmup_epochs=1", "schedule.epochs=10", "data.hold_out=0")
JOINT = ("schedule.batch=32", "schedule.lr=0.05", "schedule.warmup_epochs=0.2", "schedule.epochs=2", "data.hold_out=0")
FHN_LENGTHS = {"priors": ("schedule.epochs=3", "schedule.lr=0.002"), "pairs": ("schedule.epochs=6",)}
HOLD_OUT = 0.05  # of the people, on whom the network itself is measured
SYSTEMS = {  # name -> its recogniser; None: the teacher, which has no seed
    "teacher": None,
    "student": "student",
    "HRN": "hrn",
    "FHN + teacher": None,
    "FHN + student": "student",
    "FHN + HRN": "hrn",
    "FHN + HRN, joint": "joint",
}


class BeforeAny(Backbone):
    """A network before any model, an ONNX file too: for measuring in this process; it cannot be saved."""

    foreign, has_features = True, False

    def __init__(self, network: FHN, size: int, recogniser: Model) -> None:
        super().__init__(recogniser.embedding_dim, size)
        self.network, self.recogniser = network, recogniser

    def forward(self, x: Tensor) -> Tensor:
        return self.recogniser(to_pixels(self.network(x)))

    def count_parameters(self) -> int:
        return count_parameters(self.network) + self.recogniser.parameters_count()

    def count_macs(self) -> int:
        return count_macs(self.network, self.input_size) + (self.recogniser.macs() or 0)


def facedistill(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "facedistill", *map(str, words)], check=True)


def train(args: argparse.Namespace) -> None:
    runs, teacher = Path(args.runs), f"teacher={args.teacher}"
    data = f"data.train={args.data}"
    for name, (recipe, *own) in RECOGNISERS.items():
        for seed in args.seeds:
            options = (data, teacher, f"student.input_size={SIZE}", *own, *DISTIL, "check.own_class=0", f"seed={seed}")
            facedistill("train", recipe, "--out", runs / f"{name}-{seed}", *options, *args.changes)
    features = f"teachers.features={runs / f'student-{args.seeds[0]}'}"
    of_network = (data, teacher, features, f"hallucination.priors={args.priors}", f"hallucination.size={SIZE}")
    for stage, length in FHN_LENGTHS.items():
        facedistill(
            *("hallucinate", "train", "fhn", "--out", runs / "fhn", "--stage", stage),
            *(*of_network, f"data.hold_out={HOLD_OUT}", *length, *args.changes),
        )
    for seed in args.seeds:
        out = runs / f"joint-{seed}"
        if not (out / "pairs").exists():
            shutil.copytree(runs / "fhn" / "pairs", out / "pairs")
        options = (data, teacher, f"student.start={runs / f'hrn-{seed}'}", *METHOD, *JOINT, "check.own_class=0")
        facedistill(
            *("hallucinate", "train", "proxylesskd_l2", "--out", out, "--stage", "joint"),
            *(*options, f"hallucination.size={SIZE}", f"seed={seed}", *args.changes),
        )


def system(name: str, seed: int, runs: Path, teacher: Model) -> Model:
    """Return the model that embeds the probes."""
    network, size = network_of(runs / "fhn")
    if name == "teacher":
        return teacher
    if name == "FHN + teacher":
        return Model(BeforeAny(network, size, teacher), space=teacher.space).eval()
    folder = f"{SYSTEMS[name]}-{seed}"
    if name.endswith("joint"):
        return load_model(runs / folder / "joint")
    recogniser = load_model(runs / folder)
    return compose(network, size, recogniser) if name.startswith("FHN") else recogniser


def measure(args: argparse.Namespace) -> None:
    runs, teacher = Path(args.runs), load_model(args.teacher)
    out = Path(args.json)
    found = json.loads(out.read_text("utf-8")) if out.exists() else {"systems": []}
    figures = json.loads((runs / "fhn" / "pairs" / "measures.json").read_text("utf-8"))
    done = {(row["system"], row["seed"]) for row in found["systems"]}
    for name, recogniser in SYSTEMS.items():
        for seed in args.seeds if recogniser else args.seeds[:1]:
            if (name, seed) not in done:
                row = {"system": name, "seed": seed, **measured(system(name, seed, runs, teacher), teacher, args.lfw)}
                found["systems"].append(row)
                print(row, flush=True)
                lengths = {"distil": DISTIL, "joint": JOINT, "fhn": FHN_LENGTHS}
                about = {"version": __version__, "data": open_dataset(args.lfw).fingerprint, "lengths": lengths}
                write_result(out, about | {"network": figures, "systems": found["systems"]})


def measured(model: Model, teacher: Model, lfw: str) -> dict[str, Any]:
    """Return the rates of the system's probes in the teacher's gallery by probe size, and what the system costs."""
    models = {"probe": model, "teacher": teacher}
    resolutions = tuple(Resolution(pixels) for pixels in PROBES)
    result = evaluate(
        models, [lfw], protocols=("all-pairs",), fars=FARS, resolutions=resolutions, resamples=0, flip="none"
    )
    rates: dict[str, dict[str, float]] = {}
    for one in result["results"]:
        resolution = one["settings"].get("resolution", {})
        if (one["probe"], one["gallery"]) == ("probe", "teacher") and "gallery" not in resolution:
            far = {far: round(at["value"], 4) for far, at in one["tar_at_far"].items()}
            rates[str(resolution.get("probe", "full"))] = far
    return {
        "parameters": model.parameters_count(),
        "macs": model.macs(),
        "milliseconds": latency(model),
        "rates": rates,
    }


@torch.inference_mode()
def latency(model: Model) -> float:
    """Return the median milliseconds of one image, on this machine's processor."""
    image, times = torch.zeros(1, 3, model.input_size, model.input_size, dtype=torch.uint8), []
    for _ in range(23):
        start = time.perf_counter()
        model(image)
        times.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(times[3:])), 2)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the page, by name: a system's rates at each probe size; the network's own figures."""
    sizes = [*map(str, PROBES), "full"]
    far = f"{FARS[0]:g}".replace("0.001", "1e-3")
    head = [
        "system",
        "seeds",
        "M parameters",
        "M MACs",
        "ms",
        *(f"{size} px" if size != "full" else size for size in sizes),
    ]
    lines = [
        f"TAR in percent at FAR {far}, probe against the teacher's gallery at full resolution.",
        "",
        *_row(head, True),
    ]
    for name in SYSTEMS:
        rows = [row for row in result["systems"] if row["system"] == name]
        if rows:
            cost = [
                f"{rows[0]['parameters'] / 1e6:.2f}",
                f"{rows[0]['macs'] / 1e6:,.0f}",
                f"{rows[0]['milliseconds']:.0f}",
            ]
            rates = [_mean([row["rates"][size][_key(row, size)] for row in rows]) for size in sizes]
            lines += _row([name, str(len(rows)), *cost, *rates])
    network = result["network"]["rows"]
    names = [name for name in ("psnr", "ssim", "identity", "features") if name in network[0]]
    own = _row(["pixels", *(f"{name}, bicubic" if second else name for name in names for second in (0, 1))], True)
    for row in network[:-1]:
        own += _row([f"{row['pixels']:.0f}", *(f"{row[f'{n}{b}']:.3f}" for n in names for b in ("", "_bicubic"))])
    return {"rim fhn": "\n".join(lines), "rim network": "\n".join(own)}


def _key(row: dict[str, Any], size: str) -> str:
    return next(iter(row["rates"][size]))


def _row(cells: list[str], is_head: bool = False) -> list[str]:
    line = f"| {' | '.join(cells)} |"
    return [line, "|" + " --- |" * len(cells)] if is_head else [line]


def _mean(values: list[float]) -> str:
    spread = f" ± {100 * float(np.std(values, ddof=1)):.1f}" if len(values) > 1 else ""
    return f"{100 * float(np.mean(values)):.1f}{spread}"


def write_tables(args: argparse.Namespace) -> None:
    for name, table in tables(json.loads(Path(args.json).read_text("utf-8"))).items():
        if args.show:
            print(f"{name}\n\n{table}\n")
        else:
            put_table("hallucination.md", name, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    options = {"train": ("data", "priors", "teacher", "runs"), "measure": ("teacher", "lfw", "runs"), "table": ()}
    for name, verb in (("train", train), ("measure", measure), ("table", write_tables)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        for option in options[name]:
            sub.add_argument(f"--{option}", required=True)
        sub.add_argument("--json", default=RESULTS, help="the file of the results")
        sub.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
        sub.add_argument("--show", action="store_true", help="print the tables instead of writing the page")
        sub.add_argument("--changes", nargs="*", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    arguments.verb(arguments)


if __name__ == "__main__":
    main()
