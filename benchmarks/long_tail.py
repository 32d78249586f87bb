"""Rendered attributes of a long tail: losses for several labels an image, and RSKD, for a tiny student.

    python benchmarks/long_tail.py run --runs R [--imbalance 10 50 100] [--seeds 0 1 2] [--tune] [--only bce kd ...]
    python benchmarks/long_tail.py table [--runs R]

The images are drawn once and kept as PNG files with tables of their attributes.

Every method trains the same student by the same schedule. RSKD's teachers are networks of twice the width: one for each
region of the face, for labels with many, medium and few images, or for labels drawn at random; `kd` has one such
teacher of all labels. All teachers make as many steps, and the student imitates them on all images, with a temperature
of 1. The test set has other people, and 30% of its images have each attribute.

Every method has the same settings until `--tune` has tried three for each, at an imbalance of 100 and with the first
seed: rates for the losses, weights of the imitation for `kd` and RSKD with regions. The best one counts, judged by mAP
on people who are neither in training nor in the test set; the other forms of RSKD take that of the regions.

Every result is a file in R; finished ones are skipped, and a stopped training resumes. `table` adds the results of R to
benchmarks/results/long_tail.json and writes the tables of docs/guides/other_tasks.md. A training takes one to
five minutes of one core of this project's machine.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from command import run_verb
from PIL import Image
from result_file import write_result
from short_study import ahead, command_line, percent, store, stored, table_verb

from facedistill import train
from facedistill.data import open_dataset, open_source
from facedistill.evaluation import by_shots
from facedistill.files import atomic_write
from facedistill.recipe import make_recipe
from facedistill.results import markdown
from facedistill.training import save_subsets
from facedistill.training.subsets import take_subset

RESULTS = Path(__file__).parent / "results" / "long_tail.json"
FIGURES = {"map": "mAP", "many_map": "many", "medium_map": "medium", "few_map": "few", "label_auc": "AUC", "ece": "ECE"}
TAIL, DECIDING = "few_map", "map"
IMBALANCES, SEEDS, TUNED_AT = (10, 50, 100), (0, 1, 2), 100
PEOPLE, IMAGES, SIZE, DIM, EPOCHS, BATCH = 500, 4, 32, 32, 72, 64
FIRST = {"train": 0, "test": 1_000_000, "tuning": 2_000_000}  # the number of each set's first person
OTHERS = {"test": 250, "tuning": 250}  # people
STUDENT, TEACHER = 0.25, 0.5  # widths
OPTIMIZER = {"optimizer": "adamw", "weight_decay": 0.01}
RATES, WEIGHTS = (0.03, 0.01, 0.1), (10, 1, 100)  # the untuned one first
TEACHER_RATE = 0.01  # at 0.03 a teacher of all labels is as good or better, and its student learns less
LOSSES = ("bce", "focal_bce", "class_balanced_bce", "asymmetric", "distribution_balanced")
ALL, REGION = "all", "rskd, regions"
TUNED = (*LOSSES, "kd", REGION)
# RSKD's forms: which subsets, and how a subset is weighted
RSKD = {
    REGION: ("region", "none"),
    "rskd, regions, inverse frequency": ("region", "inverse_frequency"),
    "rskd, regions, self-paced": ("region", "self_paced"),
    "rskd, many, medium, few": ("shots", "none"),
    "rskd, at random": ("random", "none"),
}
# Rows of teachers, and whose they are.
OWN_ROWS = {"its teacher of all labels": "kd", "its teachers of regions, each for its own labels": REGION}
HELD_OUT = 0.1  # of the people, where the self-paced weight measures the student and its teachers


class Setting(NamedTuple):
    """The rate of learning, and the weight of the imitation, which a loss alone does not have."""

    rate: float = RATES[0]
    weight: float = WEIGHTS[0]


def settings(method: str, base: Setting) -> list[Setting]:
    """Return the three settings of a method, the untuned one first; imitation has the rate of plain `bce`."""
    if method in LOSSES:
        return [Setting(rate) for rate in RATES]
    return [Setting(base.rate, weight) for weight in WEIGHTS]


def chosen(rows: Sequence[Mapping[str, Any]], method: str) -> Setting:
    """Return the best setting of a method on the people for tuning; the first before all three are tried."""
    tuned = method if method in TUNED else REGION
    tried = settings(tuned, Setting() if tuned in LOSSES else chosen(rows, "bce"))
    reached = {
        (row["rate"], row["weight"]): row["tuning"][DECIDING]
        for row in rows
        if (row["method"], row["imbalance"], row["seed"]) == (tuned, TUNED_AT, SEEDS[0]) and "tuning" in row
    }
    if not all(setting in reached for setting in tried):
        return tried[0]
    return max(tried, key=lambda setting: reached[setting])


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    for method, imbalance, seed, setting in jobs(args, folder):
        slug = method.replace(",", "").replace(" ", "-")
        name = f"{imbalance}-{slug}-{setting.rate:g}-{setting.weight:g}-{seed}"
        done = folder / f"tail-{name}.json"
        if done.exists() or method not in (args.only or [method]):
            continue
        teachers = teachers_of(folder, method, imbalance, seed)
        if method in OWN_ROWS:
            runs = list(teachers.values())
        else:
            more = {"teachers": {name: str(path) for name, path in teachers.items()}} if teachers else {}
            raw = recipe(folder, imbalance, seed, spec(method, teachers, setting), setting.rate, STUDENT) | more
            raw["data"] |= held_out(method)
            runs = [train(make_recipe(raw), folder / name)]
        figures = measured(runs[0]) if len(runs) == 1 else together(runs)
        found = {"method": method, "imbalance": imbalance, "seed": seed} | setting._asdict() | figures
        store(done, found)
        print(found, flush=True)


def jobs(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int, int, Setting]]:
    """Yield method, imbalance, seed and setting: trials first, then all methods of an imbalance and a seed."""
    for method in TUNED if args.tune else ():
        for setting in settings(method, chosen(known(folder), "bce")):
            yield method, TUNED_AT, SEEDS[0], setting
    for seed in args.seeds:
        for imbalance in args.imbalance:
            for method in (*LOSSES, "kd", *RSKD):
                yield method, imbalance, seed, chosen(known(folder), method)
            yield from ((row, imbalance, seed, Setting()) for row in OWN_ROWS)


def drawn(folder: Path, name: str, people: int, imbalance: int, seed: int) -> str:
    """Draw a set of people as a folder of PNG files with a table, or take what was drawn before; return its spec."""
    place = folder / f"{name}-{people}-{imbalance}-{seed}"
    table = place / f"{name}.csv"  # results call a set after its file
    if not table.exists():
        place.mkdir(exist_ok=True)
        about = f"identities={people},images={IMAGES},size={SIZE},task=attributes,imbalance={imbalance}"
        source = open_source(f"synthetic:{about},seed={seed},first={FIRST[name]}")
        assert source.multi_hot is not None
        rows: list[Sequence[Any]] = [("image", "person", *source.label_names)]
        for i, (key, has) in enumerate(zip(source.keys, source.multi_hot, strict=True)):
            image = f"{key.replace('/', '_')}.png"
            Image.fromarray(np.asarray(source.read(i))).save(place / image)
            rows.append((image, key.partition("/")[0], *has.astype(int).tolist()))
        with atomic_write(table) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return f"labels:table={table},image=image,group=person"


def recipe(
    folder: Path, imbalance: int, seed: int, method: Mapping[str, Any], rate: float, width: float
) -> dict[str, Any]:
    sets = [drawn(folder, name, people, 1, seed) for name, people in OTHERS.items()]
    return {
        "data": {"train": drawn(folder, "train", PEOPLE, imbalance, seed), "in_memory": True},
        "student": {
            "backbone": "resnet_small",
            "input_size": SIZE,
            "embedding_dim": DIM,
            "options": {"width": width},
        },
        "method": dict(method),
        "schedule": {"epochs": EPOCHS, "batch": BATCH, "lr": rate, "warmup_epochs": 1, **OPTIMIZER},
        "evaluation": {"sets": sets, "flip": "none"},
        "seed": seed,
        "purpose": "symmetric",
    }


def spec(method: str, teachers: Mapping[str, Path], setting: Setting) -> dict[str, Any]:
    """Return a method as a recipe names it: a term for each teacher."""
    if method in LOSSES:
        return {"name": method}
    shared = {"term": "rskd", "temperature": 1, "images": "all", "weight": setting.weight}
    balance = RSKD[method][1] if method in RSKD else "none"
    terms = {name: shared | {"teacher": name, "balance": balance} for name in teachers}
    return {"name": "rskd", "terms": {"rskd": 0, **terms}}


def teachers_of(folder: Path, method: str, imbalance: int, seed: int) -> dict[str, Path]:
    """Return the runs of the teachers that a method needs, by subset; they are trained if they are not there."""
    if method in LOSSES:
        return {}
    of = OWN_ROWS.get(method, method)
    subsets = _subsets(folder, RSKD[of][0], imbalance, seed) if of in RSKD else {ALL: ""}
    images, found = open_dataset(drawn(folder, "train", PEOPLE, imbalance, seed)), {}
    apart = held_out(method)
    role = "teacher-held-out" if apart else "teacher"
    for name, subset in subsets.items():
        raw = recipe(folder, imbalance, seed, {"name": "bce"}, TEACHER_RATE, TEACHER)
        raw["data"] |= apart
        if subset:
            seen = len(take_subset(images, subset))
            raw["data"]["subset"] = subset
            # In as many epochs, a teacher of few images would make too few steps to learn anything.
            raw["schedule"] |= {"epochs": round(EPOCHS * len(images) / seen), "batch": min(BATCH, seen)}
        found[name] = train(make_recipe(raw), folder / f"{imbalance}-{role}-{name}-{seed}")
    return found


def held_out(method: str) -> dict[str, float]:
    """Return the hold-out of a method and of its teachers: they must not have seen what the weight is measured on."""
    return {"hold_out": HELD_OUT} if "self-paced" in method else {}


def _subsets(folder: Path, kind: str, imbalance: int, seed: int) -> dict[str, str]:
    """Return what `data.subset` is for each subset of a kind; random ones are as large as the regions."""
    if kind == "shots":
        counts = open_dataset(drawn(folder, "train", PEOPLE, imbalance, seed)).target_counts
        return {shot: shot for shot, there in by_shots(counts).items() if there.any()}
    file, groups = folder / f"{kind}-{seed}.csv", dict(open_source("synthetic:task=attributes").label_groups or {})
    if kind == "random":
        names = np.random.default_rng(seed).permutation([name for group in groups.values() for name in group])
        ends = np.cumsum([len(group) for group in groups.values()])[:-1]
        groups = {f"random{i + 1}": tuple(group.tolist()) for i, group in enumerate(np.split(names, ends))}
    save_subsets(file, groups)
    return {name: f"{file}:{name}" for name in groups}


def measured(run: Path) -> dict[str, Any]:
    """Return the figures of a run's student by set."""
    return {
        name: {key: round(row[key]["value"], 4) for key in FIGURES if key in row} for name, row in _own(run).items()
    }


def together(runs: Sequence[Path]) -> dict[str, Any]:
    """Return the figures of several networks by set, each of which is asked for the labels that it knows."""
    found = {}
    for name in OTHERS:
        labels = [label for run in runs for label in _own(run)[name]["of_classes"]]
        precisions = np.array([label["average_precision"] for label in labels])
        shots = by_shots(np.array([label["training_images"] for label in labels]))
        found[name] = {"map": precisions.mean(), "label_auc": np.mean([label["auc"] for label in labels])}
        found[name] |= {f"{shot}_map": precisions[there].mean() for shot, there in shots.items() if there.any()}
    return {name: {key: round(float(value), 4) for key, value in row.items()} for name, row in found.items()}


def _own(run: Path) -> dict[str, dict[str, Any]]:
    """Return what a run's student reaches by itself, by set."""
    results = json.loads((run / "evaluation.json").read_text("utf-8"))["results"]
    return {row["set"]: row for row in results if row["probe"] == row["gallery"] == "student" and row["set"] in OTHERS}


def known(folder: Path) -> list[dict[str, Any]]:
    """Return the stored results and those of a folder, in place of the stored ones of the same training."""
    rows = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    return list({_training(row): row for row in (*rows, *stored(folder, "tail-*.json"))}.values())


def _training(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("method", "imbalance", "seed", *Setting._fields))


def collect(folder: Path) -> None:
    """Add the results of a folder to the stored ones."""
    write_result(RESULTS, {"runs": known(folder)})


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    made = {f"long tail {imbalance}": table(result["runs"], imbalance) for imbalance in IMBALANCES}
    return made | {"long tail trials": trials_table(result["runs"])}


def table(rows: Sequence[Mapping[str, Any]], imbalance: int) -> str:
    """Return the figures of each method with its chosen setting: the mean over seeds, the least and the greatest."""
    lines, plain = [], _counted(rows, "bce", imbalance)
    for method in (*LOSSES, "kd", *RSKD, *OWN_ROWS):
        runs = _counted(rows, method, imbalance)
        cells = [percent([row["test"][key] for row in runs.values() if key in row["test"]]) for key in FIGURES]
        lines.append([method, str(len(runs) or ""), *cells, _ahead(runs, plain, TAIL), _ahead(runs, plain, "many_map")])
    heads = ["method", "seeds", *FIGURES.values(), "few, above bce", "many, above bce"]
    return markdown(heads, lines) if any(line[1] for line in lines) else "Not measured yet."


def _counted(rows: Sequence[Mapping[str, Any]], method: str, imbalance: int) -> dict[int, Mapping[str, Any]]:
    """Return the runs of a method that count, by seed."""
    setting = Setting() if method in OWN_ROWS else chosen(rows, method)
    of = [row for row in rows if (row["method"], row["imbalance"]) == (method, imbalance)]
    return {row["seed"]: row for row in of if (row["rate"], row["weight"]) == setting}


def _ahead(runs: Mapping[int, Mapping[str, Any]], plain: Mapping[int, Mapping[str, Any]], key: str) -> str:
    if runs == plain:
        return ""
    one, two = ({seed: row["test"][key] for seed, row in of.items() if key in row["test"]} for of in (runs, plain))
    return ahead(one, two)


def trials_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what each trial reaches on the people for tuning."""
    lines = []
    for method in TUNED:
        for setting in settings(method, chosen(rows, "bce")):
            for row in rows:
                if _training(row) == (method, TUNED_AT, SEEDS[0], *setting) and "tuning" in row:
                    weight = "" if method in LOSSES else f"{setting.weight:g}"
                    counts = "yes" if setting == chosen(rows, method) else ""
                    reached = f"{100 * row['tuning'][DECIDING]:.1f}"
                    lines.append([method, f"{setting.rate:g}", weight, reached, counts])
    return markdown(["method", "rate", "weight", "mAP", "counts"], lines) or "Nothing is tried yet."


if __name__ == "__main__":
    writing = table_verb("guides/other_tasks.md", RESULTS, tables, collect)
    parser, running = command_line(__doc__, run, writing, required=("runs",))
    running.add_argument("--imbalance", type=int, nargs="+", choices=IMBALANCES, default=[*IMBALANCES])
    running.add_argument("--seeds", type=int, nargs="+", default=[*SEEDS])
    running.add_argument("--tune", action="store_true", help="try three settings of each method first")
    running.add_argument("--only", nargs="+", choices=[*LOSSES, "kd", *RSKD, *OWN_ROWS], metavar="METHOD")
    run_verb(parser)
