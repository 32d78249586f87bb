"""PocketNet's multi-step distillation: no teacher, the finished one, or the teacher of the same epoch.

    python benchmarks/multi_step.py run --runs R [--seeds 0 1 2] [--data D --test T]
    python benchmarks/multi_step.py table [--runs R]

A teacher trains from scratch and keeps the weights of every epoch. Students of half its width train for as many epochs
with the same recipe, each with a classifier of its own: alone (none), with L2 to the finished teacher (last), and with
L2 to the teacher as it was after the same epoch (same). Default data: rendered faces, and other rendered people to test
on. Every result is a file in R; finished ones are skipped, and a stopped training resumes. `table` copies the results
of R into benchmarks/results/multi_step.json and writes the table of docs/methods.md.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from command import run_verb
from docs_table import put_tables
from result_file import write_result
from short_study import command_line, cost, embedded, figures, heads, rates, recipe_of, store, stored

from facedistill.data import open_dataset
from facedistill.models import load_model
from facedistill.recipe import Recipe
from facedistill.results import markdown
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "multi_step.json"
DATA = "synthetic:identities=400,images=8,size=48,seed=1"
TEST = "synthetic:identities=150,images=12,size=48,seed=1,first=10000"
SIZE, DIM, EPOCHS, BATCH = 48, 128, 12, 64
SOFTMAX = {"margin_softmax": {"margin": "cosface", "scale": 32, "margin_options": {"size": 0.35}}}
ALONE = {"name": "scratch", "terms": SOFTMAX}
WIDTHS = {"teacher": 0.5, "student": 0.25}
ARMS: dict[str, dict[str, Any]] = {
    "none": ALONE,
    "last": {"name": "pocketnet", "terms": SOFTMAX, "teacher_epoch": "last"},
    "same": {"name": "pocketnet", "terms": SOFTMAX, "teacher_epoch": "same"},
}
WORDS = {
    "teacher": "the teacher",
    "none": "no teacher",
    "last": "the finished teacher in every epoch",
    "same": "the teacher of the same epoch",
}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    train(of_arm(args, "none", "teacher", 0, keep="epochs"), folder / "teacher")
    test, teacher = open_dataset(args.test), load_model(folder / "teacher")
    gallery = embedded(teacher, test)
    if not (done := folder / "arm-teacher.json").exists():
        store(done, {"arm": "teacher", "tar": rates(teacher, test, gallery)} | cost(folder / "teacher"))
    for seed in args.seeds:
        for arm in ARMS:
            done, out = folder / f"arm-{arm}-{seed}.json", folder / f"{arm}-{seed}"
            if not done.exists():
                train(of_arm(args, arm, "student", seed), out)
                found = {"arm": arm, "seed": seed, "tar": rates(load_model(out), test, gallery)}
                store(done, found | cost(out))
                print(arm, seed, found["tar"], flush=True)


def of_arm(args: argparse.Namespace, arm: str, who: str, seed: int, keep: str = "last") -> Recipe:
    student: dict[str, Any] = {"backbone": "mobilefacenet", "options": {"width": WIDTHS[who]}, "embedding_dim": DIM}
    schedule = {"epochs": args.epochs, "batch": BATCH, "lr": 0.2, "warmup_epochs": 1, "keep": keep}
    teacher = None if arm == "none" else str(Path(args.runs) / "teacher")
    changes = {"method": ARMS[arm], "schedule": schedule}
    return recipe_of(args.data, teacher, student, SIZE, args.epochs, seed, changes)


def collect(folder: Path) -> None:
    rows = list(stored(folder, "arm-*.json"))
    order = list(WORDS)
    write_result(RESULTS, {"runs": sorted(rows, key=lambda row: (order.index(row["arm"]), row.get("seed", 0)))})


def table(result: Mapping[str, Any]) -> str:
    rows = []
    for arm, words in WORDS.items():
        runs = [row for row in result["runs"] if row["arm"] == arm]
        epochs = " and ".join(sorted({str(row["epochs"]) for row in runs}))
        rows.append([words, str(len(runs) or ""), epochs, *figures(runs)])
    return markdown(["student learns from", "seeds", "epochs", *heads()], rows)


def write_table(args: argparse.Namespace) -> None:
    if args.runs:
        collect(Path(args.runs))
    put_tables("methods.md", {"multi-step": table(json.loads(RESULTS.read_text("utf-8")))})


if __name__ == "__main__":
    parser, running = command_line(__doc__, run, write_table, ("runs",))
    running.add_argument("--data", default=DATA)
    running.add_argument("--test", default=TEST)
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--epochs", type=int, default=EPOCHS)
    run_verb(parser)
