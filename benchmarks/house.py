"""The recipe of the house on real faces: from the best recipe of the comparison on, one factor changed at a time.

    facedistill fuse T.onnx U.onnx --dim 128 --data FACES --out FUSED
    python benchmarks/house.py run --data FACES --teacher T.onnx --fused FUSED --lfw lfw.bin --runs R [--only base ...]
    python benchmarks/house.py table [--runs R]

The student is MobileFaceNet of width 0.5 (0.28 M parameters) at 64 x 64 pixels. The first round changes the base in
one factor: augmentation (three strengths, what the teacher sees, the published ones), the terms beside or instead of
L2 or one term alone, a moving average of the weights, two teachers fused, epochs, further people who are drawn. Of each
factor, the best option that beats the base goes into `together`; then l2kd, AdaDistill + L2 and CSD get all of that but
the terms.
People held out of the training set decide (student-student TAR at FAR 1e-3, one seed); LFW is only measured. The rows
of the second round and the base get three seeds.

Every result is a file in R; finished ones are skipped, and a stopped training resumes. `table` adds the results of R to
benchmarks/results/house.json and writes the table of docs/comparison.md.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from result_file import write_result
from short_study import SIDES, cell, command_line, cost, store, stored, table_verb

from facedistill.files import fingerprint
from facedistill.recipe import Recipe, dump_recipe, make_recipe
from facedistill.results import markdown
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "house.json"
SEEDS, FARS = (0, 1, 2), ("1e-3", "1e-4")
DRAWN = "synthetic:identities={},images=5,size=64,seed=7"
BASE: dict[str, Any] = {
    "student": {"backbone": "mobilefacenet", "options": {"width": 0.5}, "input_size": 64},
    "method": {"name": "proxylesskd_instances_l2"},
    "schedule": {"batch": 128, "epochs": 14, "lr": 0.3, "warmup_epochs": 1, "log_steps": 50},
    "check": {"own_class": 0},
}
VIEW, TERMS = "method.view", "method.terms"
ALONE = {"l2kd": 1.0, "csd": 2.0}  # methods of one term, with the rate of their recipes
# factor -> option -> overrides of the base, the cheap factors first. Further people are at "people", "fused" asks for
# the other teacher.
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "augmentation": {
        **{
            f"augment {strength:g}, {sees}": {
                VIEW: {"kind": "augment", "options": {"strength": strength, "teacher": sees}}
            }
            for strength in (0.25, 0.5, 0.75)
            for sees in ("clean", "same")
        },
        **{f"{kind}, clean": {VIEW: {"kind": kind}} for kind in ("adaface", "cvlface")},
    },
    "terms": {
        **{f"{term} beside L2": {f"{TERMS}.{term}": {"weight": 64}} for term in ("csd", "raml")},
        **{
            f"{term} instead of L2": {f"{TERMS}.{term}": {"weight": 64}, f"{TERMS}.embedding_l2.weight": 0}
            for term in ("csd", "raml")
        },
        **{f"{name} alone": {"method": {"name": name}, "schedule.lr": lr} for name, lr in ALONE.items()},
    },
    "weights": {f"moving average, {ema:g}": {"schedule.ema": ema} for ema in (0.99, 0.999)},
    "teacher": {"two teachers fused": {"fused": True}},
    "epochs": {f"{epochs} epochs": {"schedule.epochs": epochs} for epochs in (40, 100)},
    "people": {f"{count:,} drawn images": {"people": DRAWN.format(count // 5)} for count in (25_000, 100_000)},
}
RIVALS: dict[str, dict[str, Any]] = {
    **{name: {"method": {"name": name}, "schedule": {"lr": lr}} for name, lr in ALONE.items()},
    "adadistill + L2": {
        "method": {
            "name": "adadistill",
            "classifier": {"start": "centres"},
            "terms": {
                "margin_softmax": {"margin": "arcface", "margin_options": {"size": 0.45}, "scale": 32},
                "embedding_l2": {"weight": 64},
            },
        },
        "schedule": {"lr": 0.3},
    },
}
Rows = dict[str, dict[int, Mapping[str, Any]]]  # row -> seed -> what was measured


def recipe_of(row: str, seed: int, args: argparse.Namespace, rows: Rows) -> Recipe:
    """Return the recipe of a row: base, an option, `together`, or a rival with all of `together` but its terms."""
    raw: dict[str, Any] = json.loads(json.dumps(BASE))
    changed: dict[str, Any] = {}
    if row in RIVALS:
        raw["method"] = RIVALS[row]["method"]
        raw["schedule"] |= RIVALS[row]["schedule"]
    if row == "together" or row in RIVALS:
        for factor, option in best(rows).items():
            if factor != "terms" or row == "together":
                changed |= FACTORS[factor][option]
    changed |= next((options[row] for options in FACTORS.values() if row in options), {})
    people, fused = changed.pop("people", None), changed.pop("fused", False)
    if fused and not args.fused:
        raise SystemExit(f"{row!r} needs --fused, the model that `facedistill fuse` made of two teachers")
    raw["data"] = {"train": [args.data, people] if people else args.data, "hold_out": 0.1}
    raw |= {"teacher": args.fused if fused else args.teacher, "seed": seed, "evaluation": {"sets": [args.lfw]}}
    return make_recipe(raw, [f"{key}={json.dumps(value)}" for key, value in changed.items()])


def best(rows: Rows) -> dict[str, str]:
    """Return the best option of each factor by the held-out people, of those that beat the base."""
    found = {}
    for factor, options in FACTORS.items():
        measured = {option: score(rows, option) for option in options if option in rows}
        option = max(measured, key=lambda name: measured[name], default=None)
        if option is not None and measured[option] > score(rows, "base"):
            found[factor] = option
    return found


def score(rows: Rows, row: str) -> float:
    value: float = rows[row][SEEDS[0]]["hold-out"]["student"][FARS[0]][0]
    return value


def jobs() -> Iterator[tuple[str, int]]:
    """Yield row and seed, the base and the cheapest factors first; the second round follows the first's results."""
    yield "base", SEEDS[0]
    for options in FACTORS.values():
        yield from ((option, SEEDS[0]) for option in options)
    for seed in SEEDS:
        yield from ((row, seed) for row in ("together", *RIVALS, "base") if (row, seed) != ("base", SEEDS[0]))


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    for row, seed in jobs():
        rows = known(folder)
        if seed in rows.get(row, {}) or row not in (args.only or [row]):
            continue
        recipe = recipe_of(row, seed, args, rows)
        name = fingerprint(dump_recipe(recipe))
        out = train(recipe, folder / name)
        found = {"row": row, "seed": seed} | measured(out) | cost(out)
        store(folder / f"house-{name}.json", found)
        print(found, flush=True)


def measured(run: Path) -> dict[str, Any]:
    """Return TAR, with its interval, by set, gallery and FAR."""
    found: dict[str, Any] = {"hold-out": {}, "lfw": {}}
    for result in json.loads((run / "evaluation.json").read_text("utf-8"))["results"]:
        if result["protocol"] == "all-pairs" and result["probe"] == "student":
            tar = {far: one for far, one in result["tar_at_far"].items() if far in FARS}
            rates = {
                far: [round(number, 4) for number in (one["value"], *one.get("ci95", ()))] for far, one in tar.items()
            }
            found["hold-out" if result["set"] == "hold-out" else "lfw"][result["gallery"]] = rates
    return found


def known(folder: Path) -> Rows:
    """Return the stored results and those of a folder."""
    runs = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    return by_row([*runs, *stored(folder, "house-*.json")])


def by_row(runs: Iterable[Mapping[str, Any]]) -> Rows:
    rows: Rows = {}
    for found in runs:
        rows.setdefault(found["row"], {})[found["seed"]] = found
    return rows


def collect(folder: Path) -> None:
    """Add the results of a folder to the stored ones."""
    runs = [found for of in known(folder).values() for found in of.values()]
    write_result(RESULTS, {"runs": runs})


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    return {"house": table(by_row(result["runs"]))}


def table(rows: Rows) -> str:
    """Return the rows that were measured, in the order of the plan."""
    columns = [(of, side, far) for of in ("hold-out", "lfw") for far in FARS for side in SIDES]
    heads = [f"{of}, FAR {far}, {SIDES[side]}" for of, side, far in columns]
    lines = []
    for row in dict.fromkeys(row for row, _ in jobs() if row in rows):
        runs = list(rows[row].values())
        cells = [
            cell([run[of][side][far] for run in runs if far in run[of].get(side, {})]) for of, side, far in columns
        ]
        minutes = f"{np.mean([run['seconds'] for run in runs]) / 60:.0f}"
        lines.append([row, str(len(runs)), str(runs[0]["epochs"]), minutes, *cells])
    return markdown(["recipe", "seeds", "epochs", "minutes", *heads], lines)


if __name__ == "__main__":
    writing = table_verb("comparison.md", RESULTS, tables, collect)
    parser, running = command_line(__doc__, run, writing)
    running.add_argument("--fused", help="two teachers fused; without it, the row that needs it is an error")
    running.add_argument("--only", nargs="+", metavar="ROW", help="some of the rows")
    run_verb(parser)
