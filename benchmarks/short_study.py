"""What the short studies on real faces share: a student's recipe, LFW over all pairs, and a file for each result.

The recipe is the one that docs/comparison.md recommends for few people: one row of W for every image, plus L2.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docs_table import put_tables
from scipy.stats import ttest_rel

from facedistill import __version__
from facedistill.data import Dataset
from facedistill.evaluation import all_pairs, far_key
from facedistill.files import atomic_write, cache_dir
from facedistill.models import Model, embed_dataset
from facedistill.recipe import Recipe, make_recipe
from facedistill.results.reading import points

FARS, RESAMPLES, BATCH = (1e-3, 1e-4), 100, 128
SIDES = {"student": "S→S", "teacher": "S→T"}
INHERITED = {"name": "proxylesskd_instances_l2", "terms": {"margin_softmax": {"margin_options": {"size": 0.5}}}}


def recipe_of(
    data: str,
    teacher: str | None,
    student: Mapping[str, Any],
    size: int,
    epochs: int,
    seed: int,
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe of one student; `changes` replace whole groups of it."""
    raw = {
        "data": {"train": data, "in_memory": True},
        "student": {**student, "input_size": size},
        "method": INHERITED,
        "schedule": {"epochs": epochs, "batch": BATCH, "lr": 0.3, "warmup_epochs": min(1, epochs / 4)},
        "check": {"own_class": 0},
        "seed": seed,
    }
    return make_recipe(raw | ({"teacher": teacher} if teacher else {}) | dict(changes or {}))


def embedded(model: Model, lfw: Dataset) -> np.ndarray:
    """Return unit embeddings of every image, without mirror images."""
    return embed_dataset(model, lfw, flips=False, cache=cache_dir() / "embeddings").fused("none")


def rates(model: Model, lfw: Dataset, gallery: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """Return TAR, with its interval, by FAR: against the student's own gallery and against the teacher's."""
    probe, found = embedded(model, lfw), {}
    for side, other in (("student", probe), ("teacher", gallery)):
        measured = all_pairs(probe, other, lfw.labels, fars=FARS, resamples=RESAMPLES).tar_at_far
        found[side] = {
            far: [round(number, 4) for number in (estimate.value, *(estimate.ci95 or ()))]
            for far, (_, estimate) in measured.items()
        }
    return found


def cost(run: Path) -> dict[str, Any]:
    training = json.loads((run / "evaluation.json").read_text("utf-8"))["training"]
    return {key: training[key] for key in ("epochs", "seconds", "images", "images_per_second", "data")}


def command_line(
    about: str,
    run: Callable[[argparse.Namespace], None],
    table: Callable[[argparse.Namespace], None],
    required: Sequence[str] = ("data", "teacher", "lfw", "runs"),
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Return the parser of a study's verbs, `run` and `table`, and that of `run`, which the study completes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run")
    running.set_defaults(verb=run)
    for option in required:
        running.add_argument(f"--{option}", required=True)
    running.add_argument("--threads", type=int, default=1)
    writing = verbs.add_parser("table")
    writing.set_defaults(verb=table)
    writing.add_argument("--runs")
    return parser, running


def table_verb(
    page: str,
    results: Path,
    tables: Callable[[Mapping[str, Any]], Mapping[str, str]],
    collect: Callable[[Path], None],
) -> Callable[[argparse.Namespace], None]:
    """Return the verb `table`: `collect` adds the results of a folder, if one is named; a page gets all `tables`."""

    def write(args: argparse.Namespace) -> None:
        if args.runs:
            collect(Path(args.runs))
        put_tables(page, tables(json.loads(results.read_text("utf-8"))))

    return write


def store(file: Path, found: Mapping[str, Any]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = {"version": __version__, "commit": commit, "threads": torch.get_num_threads()}
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(about | dict(found)), "utf-8")


def stored(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        raise SystemExit(f"{folder}: no such folder of results")
    for file in sorted(folder.glob(pattern)):
        yield json.loads(file.read_text("utf-8"))


def heads() -> list[str]:
    """Return the headers of the four figures: each side at each FAR."""
    return [f"{side}, FAR {far_key(far)}" for side in SIDES.values() for far in FARS]


def figures(runs: list[Mapping[str, Any]]) -> list[str]:
    """Return the TAR in percent for each of `heads`; empty without runs."""
    return [cell([run["tar"][side][far_key(far)] for run in runs]) for side in SIDES for far in FARS]


def cell(found: Sequence[Sequence[float]]) -> str:
    """Return a figure of one run with its interval, or of several: their mean with the least and the greatest."""
    if len(found) == 1 and len(found[0]) == 3:
        value, low, high = (100 * number for number in found[0])
        return f"{value:.1f} ({low:.1f} to {high:.1f})"
    return percent([row[0] for row in found])


def percent(values: Sequence[float]) -> str:
    """Return the mean, and of several values the least and the greatest; "" without values."""
    if not values:
        return ""
    spread = f" ({100 * min(values):.1f} to {100 * max(values):.1f})" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def ahead(one: Mapping[int, float], two: Mapping[int, float]) -> str:
    """Return one - two in points: the mean over the seeds of both, with its 95% interval (paired t) over several."""
    pairs = [(one[seed], two[seed]) for seed in sorted(one.keys() & two.keys())]
    if not pairs:
        return ""
    mine, others = zip(*pairs, strict=True)
    mean = points(float(np.mean(mine) - np.mean(others)))
    if len(pairs) == 1:
        return mean
    low, high = ttest_rel(mine, others).confidence_interval()
    return f"{mean} [{points(low)}, {points(high)}]"
