"""The recipe of the house on real faces: from the best recipe of the comparison on, one factor changed at a time.

    facedistill fuse T.onnx U.onnx --dim 128 --data FACES --out FUSED
    python benchmarks/house.py run --faces FACES --teacher T.onnx --fused FUSED --lfw lfw.bin --runs R
    python benchmarks/house.py table
    python benchmarks/house.py trial --teacher T.onnx --runs R

The student is MobileFaceNet of width 0.5 (0.28 M parameters) at 64 x 64 pixels. The first round changes the base in
one factor: augmentation (three strengths, what the teacher sees, the published ones), the terms beside or instead of
L2, a moving average of the weights, two teachers fused, epochs, further people who are drawn. Of each factor, the best
option that beats the base goes into `together`; then l2kd, AdaDistill + L2 and D3still get all of that but the terms.
People held out of the training set decide (student-student TAR at FAR 1e-3, one seed); LFW is only measured. The rows
of the second round and the base get three seeds.

A finished run is skipped, and a stopped one resumes. `trial` is the same on a few drawn people for one epoch; it keeps
no result.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from result_file import write_result

from facedistill.files import fingerprint
from facedistill.recipe import Recipe, dump_recipe, make_recipe
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "house.json"
SEEDS, FARS = (0, 1, 2), ("1e-3", "1e-4")
DRAWN = "synthetic:identities={},images=5,size=64,seed=7"
BASE: dict[str, Any] = {
    "student": {"backbone": "mobilefacenet", "options": {"width": 0.5}, "input_size": 64},
    "method": {
        "name": "proxylesskd",
        "classifier": {"start": "instances"},
        "terms": {
            "margin_softmax": {"margin": "arcface", "margin_options": {"size": 0.35}, "scale": 32},
            "embedding_l2": {"weight": 64},
        },
    },
    "schedule": {"batch": 128, "epochs": 14, "lr": 0.3, "warmup_epochs": 1, "log_steps": 50},
    "check": {"own_class": 0},
}
VIEW, TERMS = "method.view", "method.terms"
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
        **{f"{term} beside L2": {f"{TERMS}.{term}": {"weight": 1.0}} for term in ("csd", "raml")},
        **{
            f"{term} instead of L2": {f"{TERMS}.{term}": {"weight": 1.0}, f"{TERMS}.embedding_l2.weight": 0}
            for term in ("csd", "raml")
        },
    },
    "weights": {f"moving average, {ema:g}": {"schedule.ema": ema} for ema in (0.99, 0.999)},
    "teacher": {"two teachers fused": {"fused": True}},
    "epochs": {f"{epochs} epochs": {"schedule.epochs": epochs} for epochs in (40, 100)},
    "people": {f"{count:,} drawn images": {"people": DRAWN.format(count // 5)} for count in (25_000, 100_000)},
}
RIVALS: dict[str, dict[str, Any]] = {
    "l2kd": {"method": {"name": "l2kd"}, "schedule": {"lr": 1.0}},
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
    "d3still": {
        "method": {
            "name": "d3still",
            "terms": {"margin_softmax": {"margin": "arcface", "margin_options": {"size": 0.2}, "scale": 32}},
        },
        "schedule": {"lr": 0.1},
    },
}
Rows = dict[str, dict[str, dict[str, Any]]]  # row -> seed -> what was measured


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
    people, teacher = changed.pop("people", None), args.fused if changed.pop("fused", False) else args.teacher
    raw["data"] = {"train": [args.faces, people] if people else args.faces, "hold_out": 0.1}
    raw |= {"teacher": teacher, "seed": seed, "evaluation": {"sets": [args.lfw] if args.lfw else []}}
    if args.epochs:
        changed["schedule.epochs"] = args.epochs
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
    value: float = rows[row][str(SEEDS[0])]["hold-out"]["student-student"]["1e-3"]
    return value


def jobs(rows: Rows) -> Iterator[tuple[str, int]]:
    """Yield row and seed, the base and the cheapest factors first; the second round follows the first's results."""
    yield "base", SEEDS[0]
    for options in FACTORS.values():
        yield from ((option, SEEDS[0]) for option in options)
    for seed in SEEDS:
        yield from ((row, seed) for row in ("together", *RIVALS, "base"))


def run(args: argparse.Namespace) -> None:
    rows: Rows = json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() and not args.trial else {}
    for row, seed in jobs(rows):
        if str(seed) in rows.get(row, {}):
            continue
        rows.setdefault(row, {})[str(seed)] = measured(row, seed, args, rows)
        print(row, seed, rows[row][str(seed)], flush=True)
        if not args.trial:
            write_result(RESULTS, {"command": "python benchmarks/house.py run", "rows": rows})
    if args.trial:
        print(table(rows))


def measured(row: str, seed: int, args: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    """Train a row and return TAR by set, pair of models and FAR, and what the training cost."""
    recipe = recipe_of(row, seed, args, rows)
    out = train(recipe, Path(args.runs) / fingerprint(dump_recipe(recipe)))
    evaluation = json.loads((out / "evaluation.json").read_text("utf-8"))
    found: dict[str, Any] = {}
    for result in evaluation["results"]:
        if result["protocol"] == "all-pairs" and result["probe"] == "student":
            of_set = found.setdefault("hold-out" if result["set"] == "hold-out" else "lfw", {})
            rates = {far: round(result["tar_at_far"][far]["value"], 4) for far in FARS if far in result["tar_at_far"]}
            of_set[f"student-{result['gallery']}"] = rates
    cost = {key: evaluation["training"][key] for key in ("epochs", "images", "seconds", "images_per_second")}
    return found | cost


def table(rows: Rows) -> str:
    """Return the rows in the order of the plan; a cell that was not measured is empty, and means are over the seeds."""
    columns = [(of, pair, far) for of in ("hold-out", "lfw") for far in FARS for pair in PAIRS]
    heads = [f"{of} {far}, S/{'S' if pair == PAIRS[0] else 'T'}" for of, pair, far in columns]
    lines = [f"| recipe | seeds | epochs | {' | '.join(heads)} |", "| --- | ---: | ---: |" + " ---: |" * len(heads)]
    for row in dict.fromkeys(row for row, _ in jobs(rows)):
        runs = list(rows.get(row, {}).values())
        cells = [_mean([run.get(of, {}).get(pair, {}).get(far) for run in runs]) for of, pair, far in columns]
        epochs = str(runs[0]["epochs"]) if runs else ""
        lines.append(f"| {row} | {len(runs) or ''} | {epochs} | {' | '.join(cells)} |")
    chosen = ", ".join(best(rows).values()) if "base" in rows else ""
    return "\n".join(
        [*lines, "", f"`together`: {chosen or 'nothing beats the base yet'}. TAR in %; held-out people decide."]
    )


PAIRS = ("student-student", "student-teacher")


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * sum(known) / len(known):.1f}" if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("table")
    for name in ("run", "trial"):
        verb = verbs.add_parser(name)
        verb.add_argument("--teacher", required=True)
        verb.add_argument("--runs", required=True)
        if name == "run":
            verb.add_argument("--faces", required=True)
            verb.add_argument("--fused", required=True)
            verb.add_argument("--lfw", required=True)
    args = parser.parse_args()
    if args.verb == "table":
        print(table(json.loads(RESULTS.read_text("utf-8"))["rows"] if RESULTS.exists() else {}))
        return
    args.trial, args.epochs = args.verb == "trial", 1 if args.verb == "trial" else None
    if args.trial:
        args.faces, args.lfw = "synthetic:identities=120,images=5,size=64,seed=3", None
        FACTORS["people"] = {"40 drawn images": {"people": DRAWN.format(8)}}
        del FACTORS["teacher"]
    run(args)


if __name__ == "__main__":
    main()
