"""Rendered attributes of a long tail: losses for several labels an image, and RSKD, for a tiny student.

    python benchmarks/long_tail.py run --out FOLDER [--seeds 0 1 2] [--imbalance 100] [--people 500] [--epochs 12]
    python benchmarks/long_tail.py table

Every method trains the same student by the same schedule, and none is tuned. The test set has other people, and 30% of
its images have each attribute. RSKD's teachers are networks of twice the width, one for each region of the face; `kd`
has one such teacher of all labels. FOLDER keeps the runs, so a run that was stopped goes on.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docs_table import put_table
from result_file import write_result

from facedistill import train
from facedistill.recipe import make_recipe

RESULTS = Path(__file__).parent / "results" / "long_tail.json"
FIGURES = {"map": "mAP", "many_map": "many", "medium_map": "medium", "few_map": "few", "label_auc": "AUC", "ece": "ECE"}
REGIONS = ("eyes", "mouth", "skin", "hair")
LOSSES = ("bce", "focal_bce", "class_balanced_bce", "asymmetric", "distribution_balanced")
TEACHER = "all"


def methods() -> dict[str, dict[str, Any]]:
    """Return each method of the study, by its name in the table."""
    found: dict[str, dict[str, Any]] = {name: {"name": name} for name in LOSSES}
    found["kd"] = {"name": "rskd", "terms": {"rskd": {"teacher": TEACHER}}}
    for name, balance in (("rskd", "none"), ("rskd, inverse frequency", "inverse_frequency")):
        terms = {region: {"term": "rskd", "teacher": region, "weight": 100, "balance": balance} for region in REGIONS}
        found[name] = {"name": "rskd", "terms": {"rskd": 0, **terms}}
    return found


def recipe(args: argparse.Namespace, seed: int, method: Mapping[str, Any], width: float, **more: Any) -> dict[str, Any]:
    data = f"synthetic:images=4,size=32,task=attributes,seed={seed}"
    return {
        "data": {"train": f"{data},identities={args.people},imbalance={args.imbalance}", "workers": 0},
        "student": {
            "backbone": "resnet_small",
            "input_size": 32,
            "embedding_dim": 32,
            "options": {"width": width},
        },
        "method": dict(method),
        "schedule": {"epochs": args.epochs, "batch": 64, "lr": 0.1, "warmup_epochs": 1},
        "evaluation": {"sets": [f"{data},identities={args.test},first=1000000,imbalance=1"], "flip": "none"},
        "seed": seed,
        "purpose": "symmetric",
        **more,
    }


def run(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        at = args.out / str(seed)
        teachers = {}
        for subset in (TEACHER, *REGIONS):
            raw = recipe(args, seed, {"name": "bce"}, 0.5)
            raw["data"] |= {} if subset == TEACHER else {"subset": subset}
            teachers[subset] = str(train(make_recipe(raw), at / subset))
        for name, method in methods().items():
            used = {key: path for key, path in teachers.items() if f"'{key}'" in str(method)}
            folder = at / name.replace(", ", "-").replace(" ", "_")
            done = train(make_recipe(recipe(args, seed, method, 0.25, teachers=used)), folder)
            rows.append({"method": name, "seed": seed} | figures_of(done, "student"))
        rows.append({"method": "its teacher of all labels", "seed": seed} | figures_of(Path(teachers[TEACHER])))
    about = {"command": "python benchmarks/long_tail.py run", "imbalance": args.imbalance, "epochs": args.epochs}
    write_result(RESULTS, about | {"people": args.people, "test": args.test, "runs": rows})
    put()


def figures_of(folder: Path, model: str = "student") -> dict[str, Any]:
    """Return the figures of a run's own result, to four digits."""
    results = json.loads((folder / "evaluation.json").read_text("utf-8"))["results"]
    own = next(result for result in results if result["probe"] == result["gallery"] == model)
    return {key: round(own[key]["value"], 4) for key in FIGURES if key in own}


def table(result: Mapping[str, Any]) -> str:
    lines = [f"| method | {' | '.join(FIGURES.values())} |", f"| --- |{' ---: |' * len(FIGURES)}"]
    for name in dict.fromkeys(row["method"] for row in result["runs"]):
        runs = [row for row in result["runs"] if row["method"] == name]
        cells = [_cell([100 * row[key] for row in runs if key in row]) for key in FIGURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    seeds = len({row["seed"] for row in result["runs"]})
    of = "one seed" if seeds == 1 else f"mean over {seeds} seeds and half of the range"
    about = (
        f"In percent, {of}. {4 * result['people']:,} training images, "
        f"imbalance {result['imbalance']:g}, {result['epochs']} epochs; {4 * result['test']:,} test images."
    )
    return "\n".join([*lines, "", about])


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def put() -> None:
    text = table(json.loads(RESULTS.read_text("utf-8")))
    put_table("guides/other_tasks.md", "long tail", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("--out", type=Path, required=True)
    verb.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    verb.add_argument("--imbalance", type=float, default=100)
    verb.add_argument("--people", type=int, default=500)
    verb.add_argument("--test", type=int, default=250)
    verb.add_argument("--epochs", type=int, default=12)
    verbs.add_parser("table")
    args = parser.parse_args()
    {"run": run, "table": lambda _: put()}[args.verb](args)


if __name__ == "__main__":
    main()
