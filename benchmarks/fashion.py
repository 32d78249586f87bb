"""Beyond faces: distilling a classifier of Fashion-MNIST, whole and with a long tail.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist*.deb fashion
    python benchmarks/fashion.py run --data fashion/usr/share/datasets/fashion-mnist --runs R [--seeds 0 1 2]
    python benchmarks/fashion.py table [--runs R]

A small ResNet learns the 60,000 training images; students of a quarter of its width see the first 15,000. The learning
rate of each method is the one of RATES that does best after an epoch on a tenth of these, held out; the test images are
read only at the end. Then the same 15,000 with a long tail: losses for tails, classifiers trained anew (cRT), and
teachers of the same images, one of all classes and one of each half, all with as many steps. These share one rate, that
of `scratch`. Every result is a file in R; finished ones are skipped, and a stopped training resumes. `table` adds the
results of R to benchmarks/results/fashion.json and writes the tables of docs/guides/other_tasks.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from result_file import write_result
from short_study import ahead, command_line, percent, store, stored, table_verb

from facedistill.data import long_tail, open_dataset, open_source, save_selection
from facedistill.errors import UserError
from facedistill.recipe import make_recipe
from facedistill.results import markdown
from facedistill.training import save_subsets, train

RESULTS = Path(__file__).parent / "results" / "fashion.json"
SEEN, TRIAL_EPOCHS, HELD_OUT, SIZE, DIM, BATCH = 15_000, 1, 0.1, 28, 64, 128
RATES, IMBALANCES = (0.03, 0.1, 0.3, 1.0, 3.0), (10, 100)
TEACHER, STUDENT, TAIL_TEACHER = 1.0, 0.25, 0.5  # widths
SOFTMAX = {"margin_softmax": {"margin": "cosface", "margin_options": {"size": 0.1}, "scale": 16}}
ALONE = {"name": "scratch", "terms": SOFTMAX}
METHODS: dict[str, dict[str, Any]] = {
    "scratch": {"terms": SOFTMAX},
    "kd": {"terms": SOFTMAX | {"soft_targets": {"scale": 16}}},
    "l2kd": {},
    "proxylesskd": {"terms": SOFTMAX},
    "rkd": {"terms": SOFTMAX},
    "cckd": {"terms": SOFTMAX, "sampler": {"kind": "pk", "k": 16}},  # of 10 classes, 8 in a batch
    "stkd": {"terms": {"margin_softmax": {"scale": 16}, "soft_targets": {"scale": 16}}},
}
LOSSES = ("class_balanced", "focal", "balanced_softmax", "ldam")
HALVES = ("first", "last")  # subsets of the classes, by their order in the tail
TAIL: dict[str, dict[str, Any]] = {
    "scratch": ALONE,
    **{name: {"name": name, "terms": {name: {"scale": 16}}} for name in LOSSES},
    "crt": ALONE | {"sampler": {"kind": "class_balanced"}},
    "kd": {"name": "kd", "terms": SOFTMAX | {"soft_targets": {"scale": 16, "teacher": "all"}}},
    "rskd": {
        "name": "scratch",
        "terms": SOFTMAX | {half: {"term": "rskd", "teacher": half, "temperature": 4} for half in HALVES},
    },
}
FIGURES = {"top1": "top 1", "centre_top1": "by centres", "knn": "vote of 5", "ece": "calibration error"}
SIDES = {"student": "S→S", "teacher": "S→T"}
# Of the tail; all test classes have as many images, so the mean over all of them is the top 1.
PARTS = {"top 1": slice(None), "first three classes": slice(3), "last three": slice(-3, None)}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    images, test = (str(Path(args.data) / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k"))
    few = selection(folder / "few.csv", images)
    study = Study(folder, few, {"sets": [test], "flip": "none"})
    teacher = study.train("teacher", TEACHER, ALONE, 0, 0.2, args.teacher_epochs, data={"train": images})
    rates = {name: study.chosen(name, str(teacher)) for name in METHODS}
    for seed in args.seeds:
        for name, method in METHODS.items():
            spec = {"name": name} | method
            study.train(f"whole-{name}-{seed}", STUDENT, spec, seed, rates[name], args.epochs, teacher=str(teacher))
        for imbalance in args.imbalance:
            study.tail(imbalance, seed, rates["scratch"], 2 * args.epochs)


def selection(file: Path, images: str) -> str:
    """Write the list of the first SEEN images; return its path."""
    source = open_source(images)
    names = [source.class_names[label] for label in source.labels[:SEEN].tolist()]
    save_selection(file, images, source.keys[:SEEN], names)
    return str(file)


@dataclass
class Study:
    """Trainings in a folder, on the data set `few`, measured as `evaluation` says."""

    folder: Path
    few: str
    evaluation: dict[str, Any]

    def train(
        self, name: str, width: float, method: Mapping[str, Any], seed: int, rate: float, epochs: int, **more: Any
    ) -> Path:
        """Train, and keep what was measured in NAME.json; a finished training is left as it is. Return the run."""
        out, done = self.folder / name, self.folder / f"{name}.json"
        if done.exists():
            return out
        raw = {
            "task": "classification",
            "data": {"train": self.few} | more.pop("data", {}),
            "student": {
                "backbone": "resnet_small",
                "input_size": SIZE,
                "embedding_dim": DIM,
                "options": {"width": width},
            }
            | more.pop("student", {}),
            "method": method,
            "schedule": {"epochs": epochs, "batch": BATCH, "lr": rate, "warmup_epochs": epochs / 10},
            "evaluation": self.evaluation,
            "check": {"own_class": 0},
            "purpose": "symmetric",
            "seed": seed,
        }
        train(make_recipe(raw | more), out)
        found = {"run": name, "method": method["name"], "seed": seed, "lr": rate, "epochs": epochs, "width": width}
        store(done, found | measured(out))
        print(name, found, flush=True)
        return out

    def chosen(self, name: str, teacher: str) -> float:
        """Return the rate of RATES with the best accuracy by centres on held-out images; one that diverges is out."""
        reached = {}
        trials = Study(self.folder, self.few, {"flip": "none"})
        for rate in RATES:
            trial, spec = f"trial-{name}-{rate:g}", {"name": name} | METHODS[name]
            data = {"hold_out": HELD_OUT}
            try:
                trials.train(trial, STUDENT, spec, 0, rate, TRIAL_EPOCHS, teacher=teacher, data=data)
            except UserError as error:
                if not str(error).startswith("training: loss"):
                    raise
                continue
            (row,) = stored(self.folder, f"{trial}.json")
            reached[rate] = row["student"]["centre_top1"][0]
        return max(reached, key=lambda rate: reached[rate])

    def tail(self, imbalance: int, seed: int, rate: float, epochs: int) -> None:
        """Train what TAIL names on a long tail, and the teachers that it needs."""
        data, halves = {"imbalance": imbalance}, self.folder / "halves.csv"
        images = long_tail(open_dataset(self.few), imbalance, seed=0)
        names, of_class = images.class_names, np.bincount(images.labels)
        parts = dict(zip(HALVES, np.split(np.arange(len(names)), 2), strict=True))
        save_subsets(halves, {half: [names[i] for i in part] for half, part in parts.items()})
        teachers = {}
        for subset in ("all", *HALVES):
            own = data | ({} if subset == "all" else {"subset": f"{halves}:{subset}"})
            name = f"tail{imbalance}-teacher-{subset}-{seed}"
            # The last half has few images: in as many epochs its teacher would make too few steps to learn anything.
            length = round(epochs * len(images) / of_class[parts.get(subset, slice(None))].sum())
            teachers[subset] = str(self.train(name, TAIL_TEACHER, ALONE, seed, rate, length, data=own))
        for name, method in TAIL.items():
            used = {key: path for key, path in teachers.items() if f"'{key}'" in str(method)}
            start, own_epochs = {}, epochs
            if name == "crt":
                first = self.folder / f"tail{imbalance}-scratch-{seed}"
                start, own_epochs = {"student": {"start": str(first), "frozen": True}}, epochs // 2
            more = start | ({"teachers": used} if used else {})
            self.train(f"tail{imbalance}-{name}-{seed}", STUDENT, method, seed, rate, own_epochs, data=data, **more)


def measured(run: Path) -> dict[str, Any]:
    """Return what was measured of the student by itself and with the teacher's gallery: value, low and high."""
    results = json.loads((run / "evaluation.json").read_text("utf-8"))["results"]
    found: dict[str, Any] = {}
    for row in results:
        if row["probe"] == "student" and row["gallery"] in SIDES:
            side = found.setdefault(row["gallery"], {})
            knn = {"knn": row["knn"]["5"]} if "knn" in row else {}
            side |= {key: _interval(one) for key, one in (row | knn).items() if key in FIGURES}
            if row["gallery"] == "student" and "of_classes" in row:
                side["of_classes"] = [round(one.get("top1", 0.0), 4) for one in row["of_classes"]]
    return found


def _interval(estimate: Mapping[str, Any]) -> list[float]:
    return [round(number, 4) for number in (estimate["value"], *estimate.get("ci95", ()))]


def collect(folder: Path) -> None:
    """Add the results of a folder to the stored ones, in place of those of the same run."""
    known = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    rows = {row["run"]: row for row in known} | {
        row["run"]: row
        for pattern in ("teacher", "trial-*", "whole-*", "tail*")
        for row in stored(folder, f"{pattern}.json")
    }
    write_result(RESULTS, {"runs": [rows[name] for name in sorted(rows)]})


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    runs = result["runs"]
    made = {"fashion": methods_table(runs)}
    return made | {f"fashion tail {imbalance}": tail_table(runs, imbalance) for imbalance in IMBALANCES}


def methods_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Each method's figures, the mean over seeds with the least and the greatest; the teacher's own below."""
    heads = [f"{side}, {words}" for side in SIDES.values() for words in FIGURES.values()]
    rows = []
    for name in (*(f"whole-{method}" for method in METHODS), "teacher"):
        own = [row for row in runs if row["run"] == name or row["run"].rpartition("-")[0] == name]
        cells = [
            percent([row[side][key][0] for row in own if key in row.get(side, {})]) for side in SIDES for key in FIGURES
        ]
        rate = f"{own[0]['lr']:g}" if own else ""
        rows.append([f"`{name.removeprefix('whole-')}`", str(len(own) or ""), rate, *cells])
    return markdown(["method", "seeds", "rate", *heads], rows)


def tail_table(runs: Sequence[Mapping[str, Any]], imbalance: int) -> str:
    """Top 1 over all classes, and over the first and the last three of the tail, each less what `scratch` reaches."""
    rows = []
    plain = _parts(runs, f"tail{imbalance}-scratch")
    for name in (*TAIL, "teacher-all"):
        own = _parts(runs, f"tail{imbalance}-{name}")
        less = [ahead(own[part], plain[part]) if name != "scratch" else "" for part in PARTS]
        cells = [percent([*own[figure].values()]) for figure in (*PARTS, "calibration error")]
        rows.append([f"`{name}`", str(len(own["top 1"]) or ""), *cells, *less])
    heads = ["method", "seeds", *PARTS, "calibration error", *(f"{part}, less `scratch`" for part in PARTS)]
    return markdown(heads, rows) if any(row[1] for row in rows) else "Not measured yet."


def _parts(runs: Sequence[Mapping[str, Any]], name: str) -> dict[str, dict[int, float]]:
    """Return the figures of one row of a long tail, by seed."""
    own = {row["seed"]: row["student"] for row in runs if row["run"].rpartition("-")[0] == name}
    found = {
        part: {seed: float(np.mean(row["of_classes"][classes])) for seed, row in own.items()}
        for part, classes in PARTS.items()
    }
    return found | {"calibration error": {seed: row["ece"][0] for seed, row in own.items() if "ece" in row}}


if __name__ == "__main__":
    writing = table_verb("guides/other_tasks.md", RESULTS, tables, collect)
    parser, running = command_line(__doc__, run, writing, ("data", "runs"))
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--imbalance", type=int, nargs="*", choices=IMBALANCES, default=[*IMBALANCES])
    running.add_argument("--epochs", type=int, default=6, help="of each student; twice as many with a long tail")
    running.add_argument("--teacher-epochs", type=int, default=3)
    run_verb(parser)
