"""The comparison on real faces: every method under one student, one recipe and one evaluator.

    python benchmarks/comparison.py run --faces FOLDER --lfw lfw.bin --easy A.onnx --hard B.onnx --runs R
    python benchmarks/comparison.py collect --runs R
    python benchmarks/comparison.py table

`run` first tunes every method on the held-out identities with the same number of trials, each as long as the runs
that count (short ones favour methods that learn fast); the chosen trial is the run of the first seed, and the other
seeds follow. It skips finished runs, so it may be stopped and started, and several such processes may share the work.
Each run writes its result to R/results. `collect` adds these results to benchmarks/results/comparison/, and `table`
writes the tables and the chart of docs/comparison.md and docs/comparison/ from there.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import comparison_plan as plan
import numpy as np
import torch
from command import run_verb
from comparison_chart import Figure, Row, chart
from comparison_store import GALLERIES, Results, collect
from docs_table import DOCS, put_table
from short_study import percent

from facedistill.data.dataset import Dataset, open_dataset
from facedistill.files import atomic_write, cache_dir, claimed
from facedistill.head.classifier import Classifier
from facedistill.head.starts import centres
from facedistill.models.embed import embed_dataset
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import Model
from facedistill.recipe.read import make_recipe
from facedistill.recipe.schema import Data
from facedistill.results.across_runs import differences_to, over_seeds
from facedistill.results.cells import Cell, text
from facedistill.results.overview import overview
from facedistill.results.reading import distinguishable, points
from facedistill.results.rendering import render
from facedistill.results.tables import across_recipes
from facedistill.training.engine import train
from facedistill.training.images import open_training_data

CHART = DOCS / "images" / "comparison.svg"


def run_one(
    args: argparse.Namespace, results: Results, name: str, teacher: str, setting: plan.Setting, seed: int
) -> None:
    """Train and evaluate one run and store its result."""
    stem = plan.run_name(name, teacher, setting, seed)
    raw: dict[str, Any] = {
        "data": {"train": args.faces, "hold_out": plan.HOLD_OUT},
        "student": plan.STUDENT,
        "teacher": str(teacher_of(args, results, name, teacher)),
        "method": plan.method_of(name, setting),
        "schedule": {**plan.SCHEDULE, "epochs": plan.EPOCHS, "lr": setting["lr"]},
        "evaluation": {"sets": [args.lfw]},
        "check": {"own_class": 0.0},
        "seed": seed,
    }
    if name == plan.TWO:
        raw["teachers"] = {"second": str(centred(args))}
    change = name.partition(", ")[2]
    if change in (*plan.NUMBERS, *plan.PARTS):
        raw |= of_other_classes(args, change, raw["schedule"])
    recipe = make_recipe(raw, plan.CHANGES.get(change, []))
    start = time.time()
    run = train(recipe, Path(args.runs) / stem)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    evaluation = json.loads((run / "evaluation.json").read_text())
    result = {
        "name": name,
        "teacher": teacher,
        "setting": setting,
        "epochs": recipe.schedule.epochs,
        "seed": seed,
        "images_per_second": sorted(line["images_per_second"] for line in log)[len(log) // 2],
        "seconds": round(time.time() - start),
        "threads": torch.get_num_threads(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "evaluation": evaluation,
        "resampled": resampled(evaluation),
    }
    results.add(stem, result)


def of_other_classes(args: argparse.Namespace, change: str, schedule: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe's parts that change with "N identities" or "N images a class"; the held-out people do not.

    With fewer people, there are more epochs, so that as many images are seen: fewer steps would cut every method short.
    The N images of a class are drawn from one person's, who becomes several classes.
    """
    train, held_out = open_training_data(Data(args.faces, hold_out=plan.HOLD_OUT))
    assert held_out is not None
    number, draw = int(change.split()[0]), np.random.default_rng(0)
    people = by_class(train)
    if change in plan.NUMBERS:
        classes = {name: people[name] for name in draw.permutation(train.class_names)[:number]}
    else:
        classes = {
            f"{name}-{i}": list(part)
            for name, images in people.items()
            for i, part in enumerate(np.array_split(draw.permutation(images), -(-len(images) // number)))
        }
    for folder, images_of in ((change, classes), ("hold-out", by_class(held_out))):
        link(Path(args.faces).resolve(), Path(args.runs) / folder, images_of)
    images = sum(map(len, classes.values()))
    return {
        "data": {"train": str(Path(args.runs) / change)},
        "schedule": schedule | {"epochs": round(plan.EPOCHS * len(train) / images)},
        "evaluation": {"sets": [args.lfw, str(Path(args.runs) / "hold-out")]},
    }


def by_class(faces: Dataset) -> dict[str, list[str]]:
    """Return the keys of every class's images."""
    names = enumerate(faces.class_names)
    return {name: [faces.keys[i] for i in np.flatnonzero(faces.labels == label)] for label, name in names}


def link(faces: Path, folder: Path, images_of: dict[str, list[str]]) -> None:
    """Make `folder` a data set of links to images of `faces`, by class; another process may be doing the same."""
    for name, images in images_of.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image in images:
            with suppress(FileExistsError):
                (folder / name / Path(image).name).symlink_to(faces / image)


def resampled(evaluation: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Remove the TAR in every bootstrap resample, and return that of LFW all-pairs: pair -> FAR -> values.

    Paired differences between runs need it; the values of other sets and figures would only fill the repository.
    """
    found = {}
    for r in evaluation["results"]:
        values = r.pop("resampled", {})
        if (r["set"].removesuffix(".bin"), r["protocol"], r["probe"]) == ("lfw", "all-pairs", "student"):
            at = {far: values[f"tar_at_far.{far}"] for far in ("1e-3", "1e-4", "1e-5")}
            found[f"student-{r['gallery']}"] = {far: [round(v, 5) for v in v_] for far, v_ in at.items()}
    return found


def centred(args: argparse.Namespace) -> Path:
    """Return the hard teacher less its mean training embedding, as `import --centre` makes it."""

    def make() -> Model:
        model = load_model(args.hard)
        faces = open_dataset(args.faces).in_memory()
        mean = embed_dataset(model, faces, cache=cache_dir() / "embeddings").vectors.mean((0, 1))
        model.subtract_mean(torch.from_numpy(mean))
        return model

    return made(Path(args.runs) / "hard-centred", make)


def with_classifier(args: argparse.Namespace, name: str) -> Path:
    """Return the easy teacher with a classifier: random for `name` "orthogonal", else the centres of its embeddings.

    More rows than dimensions cannot be orthogonal: the columns are orthonormal.
    """

    def make() -> Model:
        model = load_model(args.easy)
        faces, _ = open_training_data(Data(args.faces, hold_out=plan.HOLD_OUT))
        if name == "orthogonal":
            columns = torch.empty(len(faces.class_names), model.embedding_dim)
            torch.nn.init.orthogonal_(columns, generator=torch.Generator().manual_seed(0))
            model.classifier = Classifier(columns, faces.class_names)
        else:
            model.classifier = centres(embed_dataset(model, faces, cache=cache_dir() / "embeddings"))
        return model

    return made(Path(args.runs) / f"easy-{name}", make)


def teacher_of(args: argparse.Namespace, results: Results, name: str, teacher: str) -> Path:
    """Return the teacher's model, with a classifier if the row needs one."""
    if name in ("kd", "stkd"):  # their term compares logits
        return with_classifier(args, "centres")
    if name.endswith(plan.ORTHOGONAL):
        return with_classifier(args, "orthogonal")
    if teacher == "own":
        return Path(args.runs) / plan.own_teacher(results)
    return centred(args) if teacher == "centred" else Path(getattr(args, teacher))


def made(folder: Path, make: Callable[[], Model]) -> Path:
    """Return the model folder. One process makes it, and the others wait."""
    while not folder.exists():
        with claimed(folder.with_suffix(".lock")) as mine:
            if mine and not folder.exists():
                save_model(make(), folder)
        time.sleep(1)
    return folder


def run(args: argparse.Namespace) -> None:
    """Do the jobs in their order, without those of other processes; return when all are done."""
    torch.set_num_threads(args.threads)
    Path(args.runs).mkdir(parents=True, exist_ok=True)
    results = results_of(args)
    while pending := [job for job in plan.jobs(results) if plan.run_name(*job) not in results]:
        for job in (job for job in pending if job[1] != "own" or plan.own_teacher(results) in results):
            with claimed(Path(args.runs) / f"{plan.run_name(*job)}.lock") as mine:
                if mine and plan.run_name(*job) not in results:
                    run_one(args, results, *job)
                    break  # the next job may have been done meanwhile
        else:
            time.sleep(10)


def results_of(args: argparse.Namespace) -> Results:
    """Return the committed results and those that wait in the folder of runs."""
    return Results(Path(args.runs) / "results")


def collect_results(args: argparse.Namespace) -> None:
    collect(Path(args.runs) / "results", plan.paired)


def entry(run: dict[str, Any], on: str, protocol: str, probe: str, gallery: str) -> dict[str, Any]:
    """Return the evaluation's result of that set, protocol and pair; {} if there is none."""
    for r in run["evaluation"]["results"]:
        if (r["set"].removesuffix(".bin"), r["protocol"], r["probe"], r["gallery"]) == (on, protocol, probe, gallery):
            return r
    return {}


def finals(results: Results, rows: list[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
    """Return the runs of `rows`, of plan.FINALS, as `facedistill compare` takes them, by row and seed, with resamples.

    Images per second are the median over the log, which early runs have too.
    """
    found = {}
    for name, teacher, settings_of in rows:
        for stem, run in plan.stored(results, name, teacher, settings_of).items():
            row, evaluation = row_of(name, teacher), run["evaluation"]
            known = {key: run[key] for key in ("seed", "epochs", "images_per_second")}
            found[f"{row}-s{run['seed']}"] = evaluation | {
                "training": evaluation.get("training", {}) | known | {"recipe": row, "data": "all"},
                "results": [with_resamples(r, results.resampled(stem)) for r in evaluation["results"]],
            }
    return found


def row_of(name: str, teacher: str) -> str:
    return name if teacher == "easy" else f"{name}, teacher {teacher}"


def with_resamples(result: dict[str, Any], resampled: dict[str, Any]) -> dict[str, Any]:
    result = result | {"set": result["set"].removesuffix(".bin")}
    if (result["set"], result["protocol"], result["probe"]) != ("lfw", "all-pairs", "student"):
        return result
    if not resampled:
        return result
    drawn = resampled[f"student-{result['gallery']}"]
    return result | {"resampled": {f"tar_at_far.{far}": values for far, values in drawn.items()}}


def results_tables(results: Results) -> list[str]:
    """Return the tables that `facedistill compare` shows of these runs, one per set; a row without a run is empty."""
    recipes = over_seeds(finals(results, plan.FINALS))
    missing = [row for name, teacher, _ in plan.FINALS if (row := row_of(name, teacher)) not in recipes]
    tables = overview(recipes)
    for table in tables:
        table.rows += [[text(row), *[Cell()] * (len(table.columns) - 1)] for row in missing]
    return [render(table) for table in tables]


def differences_table(results: Results, base: str, teacher: str = "easy") -> str:
    """Return paired differences of seed means to the row `base`, among rows of one teacher that have several seeds.

    With P x K: among rows that draw several images per class.
    """
    like = plan.PK if base in plan.PK else [name for name, *_ in plan.FINALS if name not in plan.PK[1:]]
    rows = [row for row in plan.FINALS if row[1] == teacher and row[0] in like]
    differences = differences_to(finals(results, rows), [row_of(base, teacher)])
    return render(across_recipes([d for d in differences if d["set"] == "lfw" and d["seeds"] > 1]))


def trials_table(results: Results) -> str:
    """Return every trial and the chosen one: hold-out TAR at FAR 1e-3, student-student, in percent."""
    lines = ["| method | setting | hold-out TAR at 1e-3 | chosen |", "| --- | --- | --- | --- |"]
    for name, settings in plan.TRIALS.items():
        runs = [plan.run_name(name, "easy", setting, plan.SEEDS[0]) for setting in settings]
        scores = [plan.score(results[run]) if run in results else None for run in runs]
        for setting, found in zip(settings, scores, strict=True):
            label = plan.setting_of(setting)
            shown = "" if found is None else f"{100 * found:.1f}"
            lines.append(f"| {name} | {label} | {shown} | {'yes' if setting == plan.chosen(results, name) else ''} |")
    return "\n".join(lines)


def changes_table(results: Results) -> str:
    """Return ProxylessKD with class centres and one change, one seed: LFW all-pairs and hold-out TAR in percent."""
    header = ["proxylesskd_centres", *(f"all-pairs TAR at 1e-4 {pair}" for pair in ("s-s", "s-t"))]
    header += ["hold-out TAR at 1e-3 s-s", "s-t"]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    of = "proxylesskd_centres"
    setting = plan.chosen(results, of) or {}
    rows = {"as above": (of, setting), **{change: (f"{of}, {change}", setting) for change in plan.ABLATIONS}}
    for change, (name, settings_of) in plan.ALIKE.items():
        rows[change] = name, plan.chosen(results, settings_of) or {}
    for trial in plan.TRIALS["proxylesskd_l2"]:  # they differ from "margin 0.35" only in the added L2
        rows[f"margin 0.35, L2 of weight {trial['l2']:g}"] = ("proxylesskd_l2", trial)
    for change, (name, setting) in rows.items():
        run, row = plan.run_name(name, "easy", setting, plan.SEEDS[0]), [change]
        runs = [results[run]] if run in results else []
        for on, far in (("lfw", "1e-4"), ("hold-out", "1e-3")):
            for gallery in ("student", "teacher"):
                entries = [entry(r, on, "all-pairs", "student", gallery) for r in runs]
                row.append(percent([r["tar_at_far"][far]["value"] for r in entries]))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def people_table(results: Results) -> str:
    """Return the same methods and settings with fewer training people, one seed: LFW all-pairs TAR in percent."""
    header = ["method (W)", *(f"{number} s-s | s-t" for number in (*plan.NUMBERS, "all"))]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " --- |" * 2 * (len(plan.NUMBERS) + 1)]
    for method in dict.fromkeys(tuned for _, _, tuned in plan.PEOPLE):
        row = [method]
        for name in (*(f"{method}, {number}" for number in plan.NUMBERS), method):
            runs = list(plan.stored(results, name, "easy", method).values())[:1]
            for gallery in ("student", "teacher"):
                entries = [entry(r, "lfw", "all-pairs", "student", gallery) for r in runs]
                row.append(percent([r["tar_at_far"]["1e-4"]["value"] for r in entries]))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def cost_table(results: Results) -> str:
    """Return the number of runs and their cost, each with one thread; two ran at a time on two cores.

    The hours are those of the steps. For early runs, which did not record them, they follow from the median rate.
    """
    runs = [results[name] for name in results if name.startswith("final-")]
    images = 13_798 * plan.EPOCHS
    seconds = (r["evaluation"].get("training", {}).get("seconds", images / r["images_per_second"]) for r in runs)
    hours = sum(seconds) / 3600
    rates = sorted(r["images_per_second"] for r in runs)
    lines = ["| runs | hours of training, one thread each | images a second, median (least to most) |"]
    lines += ["| ---: | ---: | ---: |"]
    lines.append(f"| {len(runs)} | {hours:.1f} | {rates[len(rates) // 2]:.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) |")
    return "\n".join(lines)


def first_page(results: Results) -> dict[str, dict[str, Any]]:
    """Return the seed means of the rows of plan.FIRST_PAGE, in the order of that page: by group, the best row first."""
    wanted = [row for row in plan.TUNED if row[1] == "easy" and row[0] in plan.FIRST_PAGE]
    found = over_seeds(finals(results, wanted))
    groups = [plan.INHERITS, plan.OTHER]

    def place(row: str) -> tuple[int, float]:
        return groups.index(plan.FIRST_PAGE[row][0]), -at_low_far(found[row], "student")["value"]

    return {row: found[row] for row in sorted(found, key=place)}


def at_low_far(evaluation: dict[str, Any], gallery: str, probe: str = "student") -> dict[str, Any]:
    """Return LFW all-pairs TAR at FAR 1e-4."""
    return entry({"evaluation": evaluation}, "lfw", "all-pairs", probe, gallery)["tar_at_far"]["1e-4"]


def summary_table(results: Results) -> str:
    """Return the columns that a newcomer needs of the rows of the first page, in percent and points."""
    lines = [
        "| method (row of the detailed tables) | where W starts | seeds | LFW accuracy | TAR, student → student | "
        "TAR, student → teacher | difference to `l2kd`, student → student | difference to `l2kd`, student → teacher |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows = first_page(results)
    wanted = [row for row in plan.TUNED if row[1] == "easy" and row[0] in rows]
    to_l2kd = {
        (d["a"], d["gallery"]): d["of"]["tar_at_far.1e-4"]
        for d in differences_to(finals(results, wanted), ["l2kd"])
        if d["set"] == "lfw"
    }
    for row, evaluation in rows.items():
        _, method, w = plan.FIRST_PAGE[row]
        accuracy = entry({"evaluation": evaluation}, "lfw", "pairs", "student", "student")["accuracy"]["value"]
        cells = [f"{method} (`{row}`)", w, str(len(evaluation["training"]["seeds"])), f"{100 * accuracy:.1f}"]
        for gallery in GALLERIES:
            found = figure(at_low_far(evaluation, gallery))
            cells.append(f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]")
        for gallery in GALLERIES:
            difference = to_l2kd.get((row, gallery))
            cells.append("reference" if difference is None else against(difference))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(found: dict[str, Any]) -> Figure:
    return Figure(*(100 * value for value in (found["value"], *found["ci95"])))


def against(difference: dict[str, Any]) -> str:
    ends = ", ".join(points(end) for end in difference["ci95"])
    verdict = "" if distinguishable(difference) else " not distinguishable"
    return f"{points(difference['value'])} [{ends}]{verdict}"


def summary_chart(results: Results) -> str:
    """Return the chart of the first page: LFW all-pairs TAR at FAR 1e-4 with its interval."""
    found = first_page(results)
    rows = [
        Row(group, method, w if w == "no W" else f"W: {w}", *(figure(at_low_far(found[row], g)) for g in GALLERIES))
        for row, (group, method, w) in ((row, plan.FIRST_PAGE[row]) for row in found)
    ]
    teacher = figure(at_low_far(found["l2kd"], "teacher", "teacher")).value
    title = "Genuine pairs accepted at a false-accept rate of 1e-4 (LFW, all pairs of images)"
    return chart(title, "true-accept rate (TAR) in %, mean over three seeds; higher is better", rows, teacher)


def tables(results: Results) -> dict[str, dict[str, str]]:
    """Return every table by its page below docs/ and its name there."""
    on_lfw, on_hold_out = results_tables(results)
    return {
        "comparison.md": {"summary": summary_table(results)},
        "comparison/results.md": {"results": on_lfw, "hold_out": on_hold_out},
        "comparison/differences.md": {
            "differences_l2kd": differences_table(results, "l2kd"),
            "differences_best": differences_table(results, plan.BEST),
            "differences_proxylesskd": differences_table(results, "proxylesskd_centres"),
            "differences_pk": differences_table(results, "scratch, P x K"),
            "differences_centred": differences_table(results, "l2kd", "centred"),
        },
        "comparison/ablations.md": {"changes": changes_table(results), "people": people_table(results)},
        "comparison/tuning.md": {"trials": trials_table(results)},
        "comparison/repeat.md": {"cost": cost_table(results)},
    }


def write_tables(_: argparse.Namespace) -> None:
    results = Results()
    for page, of_page in tables(results).items():
        for name, table in of_page.items():
            put_table(page, name, table)
    with atomic_write(CHART) as temporary:
        temporary.write_text(summary_chart(results), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    run_parser = verbs.add_parser("run")
    for option in ("faces", "lfw", "easy", "hard", "runs"):
        run_parser.add_argument(f"--{option}", required=True)
    run_parser.add_argument("--threads", type=int, default=1)
    run_parser.set_defaults(verb=run)
    collect_parser = verbs.add_parser("collect")
    collect_parser.add_argument("--runs", required=True)
    collect_parser.set_defaults(verb=collect_results)
    verbs.add_parser("table").set_defaults(verb=write_tables)
    run_verb(parser)
