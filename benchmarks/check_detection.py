"""Plant each single fault on a real teacher, run `check`, and record whether it notices the fault.

    python benchmarks/check_detection.py TEACHER.onnx FACES [--identities 120] [--seeds 3]

FACES has a folder per identity. Each seed draws other identities and other faults. Writes
benchmarks/results/check_detection.json and the table in docs/check.md (`--table` alone writes the table again).
"""

import argparse
import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_file import write_result
from torch import Tensor

from facedistill.backbones import Backbone, OnnxBackbone
from facedistill.check import check_teacher
from facedistill.check.conventions import conventions
from facedistill.data import Dataset, Embeddings, open_dataset
from facedistill.errors import UserError
from facedistill.files import atomic_write
from facedistill.head import ArcFace, Classifier, centres, fit_classifier
from facedistill.models import InputSpec, Model, embed_dataset

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "check_detection.json", ROOT / "docs" / "check.md"
COLUMNS = {
    "none": "no W (centres of this data)",
    "centres": "W: centres, stored",
    "fitted": "W: learned",
    "fitted on it": "W: learned on the faulty data",
}
TRUE = "RGB 0..255"
MARGIN, SCALE = ArcFace(0.5), 64.0


class Remembering(OnnxBackbone):
    """A model that embeds no image twice, because the same pixels occur under many planted faults."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.known: dict[bytes, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = x.round(decimals=2)  # pixels that went through another scale and back
        keys = [blake2b(row.numpy(), digest_size=16).digest() for row in x.contiguous()]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            self.known |= zip([keys[i] for i in new], super().forward(x[new]), strict=True)
        return torch.stack([self.known[key] for key in keys])


class Outside(Backbone):
    """The same network with its normalisation outside: made for RGB, / 127.5 - 1, as most checkpoints are."""

    def __init__(self, inner: OnnxBackbone) -> None:
        super().__init__(inner.embedding_dim, inner.input_size)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * 127.5 + 127.5)


@dataclass
class Case:
    """One planted fault. `columns`: the origins of W for which it makes sense."""

    name: str
    columns: list[str]
    plant: Callable[["Bench", str, np.random.Generator], Any]


class Bench:
    """A teacher and data without faults, for one draw of identities."""

    def __init__(self, backbone: OnnxBackbone, faces: Dataset, identities: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(faces.class_names))[:identities]
        self.backbone = backbone
        self.data = faces.subset(np.flatnonzero(np.isin(faces.labels, chosen))).in_memory()
        self.input = InputSpec(backbone.input_size, mean=(0.0,), std=(1.0,))
        self.clean = embed_dataset(Model(backbone, self.input), self.data)
        self.weights = {
            "none": None,
            "centres": centres(self.clean),
            "fitted": fit_classifier(self.clean, MARGIN, SCALE),
        }

    def model(self, column: str, input: str = TRUE, classifier: Classifier | None = None) -> Model:
        spec = conventions(self.input)[input]
        return Model(self.backbone, spec, classifier or self.weights[column])

    def stored(self, column: str) -> Classifier:
        """The W of a column that has one of its own."""
        own = self.weights[column]
        assert own is not None, column
        return own


def wrong_input(name: str) -> Callable[[Bench, str, np.random.Generator], Any]:
    return lambda bench, column, rng: (bench.model(column, name), bench.data)


def normalised(name: str) -> Callable[[Bench, str, np.random.Generator], Any]:
    """Return a network made for / 127.5 - 1 under another convention."""
    return lambda bench, column, rng: (Model(Outside(bench.backbone), conventions(bench.input)[name]), bench.data)


def permuted_names(share: float) -> Callable[[Bench, str, np.random.Generator], Any]:
    """Swap the names of a share of the rows of W (0: of two rows)."""

    def plant(bench: Bench, column: str, rng: np.random.Generator) -> Any:
        own = bench.stored(column)
        names = np.array(own.class_names)
        moved = rng.choice(len(names), max(2, round(share * len(names))), replace=False)
        names[moved] = names[np.roll(moved, 1)]
        return bench.model(
            column, classifier=Classifier(own.weight, names.tolist(), own.origin, own.counts)
        ), bench.data

    return plant


def swapped_labels(share: float) -> Callable[[Bench, str, np.random.Generator], Any]:
    """Swap the labels of a share of the images."""

    def plant(bench: Bench, column: str, rng: np.random.Generator) -> Any:
        source = copy.copy(bench.data.source)
        moved = rng.choice(len(source), round(share * len(source)), replace=False)
        source.labels = source.labels.copy()
        source.labels[moved] = source.labels[np.roll(moved, 1)]
        data = Dataset(source)
        if column != "fitted on it":
            return bench.model(column), data
        rows = Embeddings(bench.clean.keys, bench.clean.class_names, data.labels, bench.clean.vectors)
        return bench.model("none", classifier=fit_classifier(rows, MARGIN, SCALE)), data

    return plant


def lacking(bench: Bench, column: str, rng: np.random.Generator) -> Any:
    names = bench.data.class_names
    kept = sorted(rng.choice(len(names), len(names) - 10, replace=False))
    return bench.model(column, classifier=bench.stored(column).select([names[i] for i in kept])), bench.data


def too_many_rows(bench: Bench, column: str, rng: np.random.Generator) -> Any:
    own = bench.stored(column)
    return bench.model(column, classifier=Classifier(own.weight, own.class_names[:-10], own.origin)), bench.data


ALL, STORED = ["none", "centres", "fitted"], ["centres", "fitted"]
CASES = [
    Case("no fault", ALL, lambda bench, column, rng: (bench.model(column), bench.data)),
    Case("BGR for RGB", ALL, wrong_input("BGR 0..255")),
    Case("0..1 for 0..255", ALL, wrong_input("RGB 0..1")),
    Case("/127.5 - 1 for 0..255", ALL, wrong_input("RGB /127.5 - 1")),
    Case("ImageNet for 0..255", ALL, wrong_input("RGB ImageNet")),
    *(
        Case(f"made for /127.5 - 1: {given}", ["none"], normalised(convention))
        for given, convention in {
            "no fault": "RGB /127.5 - 1",
            "BGR": "BGR /127.5 - 1",
            "0..255": "RGB 0..255",
            "0..1": "RGB 0..1",
            "ImageNet": "RGB ImageNet",
            "(x - 127.5) / 128": "RGB (x - 127.5) / 128",
        }.items()
    ),
    Case("all class names permuted", STORED, permuted_names(1.0)),
    Case("10% of the class names permuted", STORED, permuted_names(0.1)),
    Case("two class names exchanged", STORED, permuted_names(0.0)),
    *(
        Case(f"{share:.0%} of the labels swapped", [*ALL, "fitted on it"], swapped_labels(share))
        for share in (0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
    ),
    Case("W lacks 10 of the classes", STORED, lacking),
    Case("10 more rows than class names", STORED, too_many_rows),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, nargs="?")
    parser.add_argument("faces", type=Path, nargs="?")
    parser.add_argument("--identities", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="measure only the faults that start so; the others stay as they are")
    parser.add_argument("--table", action="store_true", help="only write the table from the JSON again")
    args = parser.parse_args()
    if not args.table:
        torch.set_num_threads(1)
        began = time.time()
        rows = list(measure(args.teacher, args.faces, args.identities, args.seeds, args.only))
        result = {
            "schema": 1,
            "command": f"benchmarks/check_detection.py {args.teacher.name} {args.faces.name} "
            f"--identities {args.identities} --seeds {args.seeds}",
            "commit": git("rev-parse", "HEAD"),
            "teacher": args.teacher.name,
            "data": open_dataset(args.faces).fingerprint,
            "identities": args.identities,
            "seeds": args.seeds,
            "wall_seconds": round(time.time() - began),
            "runs": rows,
        }
        if args.only:
            result = merged(json.loads(RESULTS.read_text("utf-8")), result, args.only)
        write_result(RESULTS, result)
    write_table(json.loads(RESULTS.read_text("utf-8")))


def merged(old: dict[str, Any], new: dict[str, Any], only: str) -> dict[str, Any]:
    """Return the old result with the runs of the faults that start with `only` replaced, and a record of when."""
    if any(old[key] != new[key] for key in ("teacher", "data", "identities", "seeds")):
        raise SystemExit("--only: the results there are of another teacher, data, number of identities or seeds")
    order = [case.name for case in CASES]
    runs = [run for run in old["runs"] if not run["fault"].startswith(only)] + new["runs"]
    runs.sort(key=lambda run: (run["seed"], order.index(run["fault"])))
    again = {"only": only, "commit": new["commit"], "wall_seconds": new["wall_seconds"]}
    return old | {"measured_again": [*old.get("measured_again", []), again], "runs": runs}


def measure(teacher: Path, faces: Path, identities: int, seeds: int, only: str) -> Iterator[dict[str, Any]]:
    data, backbone = open_dataset(faces), Remembering(teacher)
    for seed in range(seeds):
        bench = Bench(backbone, data, identities, seed)
        backbone.known = dict(
            list(backbone.known.items())[-4 * len(bench.data) :]
        )  # earlier seeds need no more than this
        for case in (c for c in CASES if c.name.startswith(only)):
            for column in case.columns:
                run = {"fault": case.name, "w": column, "seed": seed, "images": len(bench.data)}
                yield run | outcome(case, bench, column, np.random.default_rng([seed, 1]))
                print(run["fault"], "|", column, "|", seed, flush=True)


def outcome(case: Case, bench: Bench, column: str, rng: np.random.Generator) -> dict[str, Any]:
    """Return faults and warnings by kind, the convention named as better, and the numbers behind them."""
    try:
        model, data = case.plant(bench, column, rng)
    except UserError as e:
        return {"faults": ["refused"], "warnings": [], "message": str(e)}
    report = check_teacher(model, data, MARGIN, SCALE)
    found: dict[str, Any] = {"faults": sorted(report.faults), "warnings": sorted(report.warnings)}
    fit = report.values["fit"]
    found |= {"own_class": round(fit["own_class"], 4), "loss": round(fit["loss"], 3)}
    found |= {"misnamed": round(report.values["fit_by_centres"]["misnamed"], 4)}
    if "right_input" in report.values:
        found["named"] = " or ".join(report.values["right_input"])
    return found


def write_table(result: dict[str, Any]) -> None:
    """Put the table between its markers in docs/check.md."""
    start, end = "<!-- table: check_detection -->", "<!-- end of table -->"
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(f"{before}{start}\n{table(result)}{end}{after}", "utf-8")


def table(result: dict[str, Any]) -> str:
    """Return one row per fault and one column per origin of W: how many seeds noticed it, and as what."""
    lines = [f"| planted fault | {' | '.join(COLUMNS.values())} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    for fault in dict.fromkeys(run["fault"] for run in result["runs"]):
        cells = [cell([r for r in result["runs"] if (r["fault"], r["w"]) == (fault, column)]) for column in COLUMNS]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(runs: list[dict[str, Any]]) -> str:
    if not runs:
        return ""
    ways = []
    for kind, says in {"faults": "fails", "warnings": "warns"}.items():
        for name in sorted({n for run in runs for n in run[kind]} - {"loss"}):  # "loss" is usual here
            times = sum(name in run[kind] for run in runs)
            named = (
                sorted({run["named"] for run in runs if "named" in run}) if name == "input" and kind == "faults" else []
            )
            ways.append(f"{says} {times}/{len(runs)} ({', '.join([name, *named])})")
    return "; ".join(ways) or "silent"


def git(*args: str) -> str:
    found = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


if __name__ == "__main__":
    main()
