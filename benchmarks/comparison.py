"""The comparison on real faces: every method under one student, one recipe and one evaluator.

    python benchmarks/comparison.py run --faces FOLDER --lfw lfw.bin --easy A.onnx --hard B.onnx --runs R
    python benchmarks/comparison.py table

`run` first tunes every method on the held-out identities with the same number of trials, each as long as the runs
that count (short ones favour what learns fast); the chosen trial is the run of the first seed, and the other seeds
follow. It skips what is done, so it may be stopped and started, and several such processes may share the work.
Results go to benchmarks/results/comparison/, one JSON a run; `table` writes docs/comparison.md's tables from them.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docs_table import put_table

from facedistill.assemble import open_training_data
from facedistill.classifier import Classifier
from facedistill.data.dataset import Dataset, open_dataset
from facedistill.embed import embed_dataset
from facedistill.engine import train
from facedistill.evaluation.across_runs import differences_to, over_seeds
from facedistill.evaluation.markdown import render
from facedistill.evaluation.overview import overview
from facedistill.evaluation.tables import Cell, across_recipes, text
from facedistill.files import atomic_write, cache_dir, claimed
from facedistill.model import Model, load_model, save_model
from facedistill.recipe import Data, make_recipe
from facedistill.starts import centres

RESULTS = Path(__file__).parent / "results" / "comparison"
EPOCHS, SEEDS, HOLD_OUT = 14, (0, 1, 2), 0.1
STUDENT = {"backbone": "mobilefacenet", "options": {"width": 0.5}, "input_size": 64}
SCHEDULE = {"batch": 128, "warmup_epochs": 1, "decay": "cosine", "weight_decay": 5e-4, "clip": 5.0, "log_steps": 50}
SCALE = 32  # few identities; the same for every margin softmax here
Setting = dict[str, Any]
Job = tuple[str, str, Setting, int]  # row, teacher, setting, seed
# method -> three trials of the learning rate and the method's one main weight: the margin, or the weight of its term.
# Trials of four epochs (results/comparison/trial-*, three a method too) had narrowed down where the first four lie.
TRIALS: dict[str, list[Setting]] = {
    "scratch": [{"lr": lr, "margin": m} for lr, m in ((0.1, 0.2), (0.3, 0.2), (0.3, 0.5))],
    "l2kd": [{"lr": lr} for lr in (0.3, 1.0, 3.0)],
    "proxylesskd_centres": [{"lr": lr, "margin": m} for lr, m in ((0.3, 0.2), (1.0, 0.2), (0.3, 0.5))],
    "proxylesskd_l2": [{"lr": 0.3, "l2": weight} for weight in (16.0, 64.0, 256.0)],
    "proxylesskd_instances": [{"lr": lr, "margin": m} for lr, m in ((0.3, 0.5), (1.0, 0.5), (0.3, 0.2))],
    "proxylesskd_instances_l2": [{"lr": lr, "l2": w} for lr, w in ((1.0, 16.0), (1.0, 64.0), (0.3, 64.0))],
    "margin_softmax_l2": [{"lr": 0.3, "weight": weight} for weight in (64.0, 256.0, 16.0)],
    "rkd": [{"lr": 0.1, "weight": weight} for weight in (1.0, 4.0, 16.0)],
    "cckd": [{"lr": 0.1, "weight": weight} for weight in (10.0, 100.0, 1000.0)],
    "adadistill": [{"lr": lr, "start": start} for lr, start in ((0.3, "random"), (0.3, "centres"), (0.1, "centres"))],
}
ORTHOGONAL = "W orthogonal"
TWO = "proxylesskd_two_teachers"  # the easy one, in whose space the student lives, and the centred one
# One thing changed in a tuned row: overrides of its recipe.
CHANGES: dict[str, list[str]] = {
    "P x K": ["method.sampler.kind=pk"],
    "scale 16": ["method.terms.margin_softmax.scale=16"],
    "scale 64": ["method.terms.margin_softmax.scale=64"],
    "margin 0": ["method.terms.margin_softmax.margin_options.size=0"],
    "margin 0.2": ["method.terms.margin_softmax.margin_options.size=0.2"],
    "margin 0.35": ["method.terms.margin_softmax.margin_options.size=0.35"],
    "warm-up": ["method.terms.margin_softmax.margin_warmup=0.5"],
    "finetuned": ["method.classifier.moved_by=gradient"],
    "W random": ["method.classifier.start=random"],
    ORTHOGONAL: ["method.classifier.start=teacher"],
    "wide": ["student.options.width=1.0", "schedule.keep=epochs"],
    "64 dimensions": ["student.embedding_dim=64", "student.projection=true"],
}
# The margin where it is not tuned: of a W that is learnt the one chosen for scratch, of AdaDistill the published one.
MARGINS = {"proxylesskd_l2": 0.35, "proxylesskd_instances_l2": 0.35, "adadistill": 0.45}
# Between a class a person and a class an image: every person becomes several classes.
PARTS = ("4 images a class", "2 images a class")
ABLATIONS = [*(change for change in CHANGES if change not in ("P x K", "wide")), *PARTS]
BEST = "proxylesskd_instances_l2"  # is it better than every rival?
# A student of full width is the teacher whose W was trained, and whose epochs and stage maps are there.
OWN = "margin_softmax_l2, wide"
# (row, teacher, settings of): the fitted W takes those of the centres, another teacher those chosen with the easy one.
FINALS = [
    ("l2kd", "easy", "l2kd"),
    ("proxylesskd_centres", "easy", "proxylesskd_centres"),
    ("proxylesskd_l2", "easy", "proxylesskd_l2"),
    ("scratch", "easy", "scratch"),
    ("proxylesskd_fitted", "easy", "proxylesskd_centres"),
    *((name, "easy", name) for name in list(TRIALS)[4:]),
    ("scratch, P x K", "easy", "scratch"),
    ("l2kd, P x K", "easy", "l2kd"),
    ("proxylesskd_centres, P x K", "easy", "proxylesskd_centres"),
    ("l2kd", "centred", "l2kd"),
    ("proxylesskd_centres", "centred", "proxylesskd_centres"),
    ("proxylesskd_l2", "centred", "proxylesskd_l2"),
    ("proxylesskd_centres", "hard", "proxylesskd_centres"),
]
# Fewer people, with the settings of all of them; one seed.
NUMBERS = ("200 identities", "600 identities")
PEOPLE = [
    (f"{name}, {number}", "easy", name)
    for number in NUMBERS
    for name in ("l2kd", "proxylesskd_centres", "proxylesskd_instances", "scratch")
]
# One seed, one setting, not tuned and not ranked: near the published weight, or less where that one swamps the softmax.
OTHERS: dict[str, float] = {
    "kd": 1.0,
    "margin_distillation": 1.0,
    "shrinkteanet": 16.0,
    "triplet_distillation": 4.0,
    "similarity_preserving": 300.0,
    "darkrank": 1.0,
    "pkt": 469.0,
    "ekd": 1.0,
    "stkd": 1.0,
}
FINALS += [*((name, "easy", name) for name in OTHERS), (TWO, "easy", "proxylesskd_centres")]
OWNED = {"pocketnet": 0.78, "fitnet": 1.0, "attention_transfer": 10.0}
FINALS += [(OWN, "easy", "margin_softmax_l2")]
FINALS += [("proxylesskd_trained", "own", "proxylesskd_centres"), ("proxylesskd_centres", "own", "proxylesskd_centres")]
FINALS += [("l2kd", "own", "l2kd"), *((name, "own", name) for name in OWNED)]


def method_of(name: str, setting: Setting) -> dict[str, Any]:
    """Return the recipe's `method` for a row (`METHOD`, or `METHOD, CHANGE`) and its tuned setting."""
    name = name.partition(", ")[0]
    softmax = {
        "scale": SCALE,
        "margin": "arcface",
        "margin_options": {"size": setting.get("margin", MARGINS.get(name, 0.2))},
    }
    terms: dict[str, Any] = {"margin_softmax": softmax}
    if name == "l2kd":
        return {"name": "l2kd"}
    if name == "adadistill":
        return {"name": name, "classifier": {"start": setting["start"]}, "terms": terms}
    if name == "margin_distillation":
        return {"name": name, "classifier": {"start": "centres"}, "terms": {name: {"scale": SCALE}}}
    if name.startswith("proxylesskd"):
        if name.endswith("_l2"):
            terms["embedding_l2"] = {"weight": setting["l2"]}
        start = next((start for start in ("fitted", "instances") if start in name), "centres")
        start = "teacher" if name.endswith("_trained") else start
        if name == TWO:
            terms["second"] = {"term": "margin_softmax", "teacher": "second", **softmax}
        return {"name": "proxylesskd", "classifier": {"start": start}, "terms": terms}
    if name == "stkd":  # two labels an image: no margin
        terms["margin_softmax"] = {"scale": SCALE}
    if name in ("kd", "stkd"):
        terms["soft_targets"] = {"weight": setting["weight"], "scale": SCALE}
    elif name != "scratch":
        terms["embedding_l2" if name in ("margin_softmax_l2", "pocketnet") else name] = {"weight": setting["weight"]}
    return {"name": name, "terms": terms}


def setting_of(setting: Setting, between: str = " ", after: str = ", ") -> str:
    return after.join(f"{k}{between}{v if isinstance(v, str) else f'{v:g}'}" for k, v in setting.items())


def result_file(name: str, teacher: str, setting: Setting, seed: int) -> Path:
    label = setting_of(setting, "", "_")
    row = name.replace(", ", "-").replace(" ", "")
    return RESULTS / f"final-{teacher}-{row}-{label}-s{seed}.json"


def run_one(args: argparse.Namespace, name: str, teacher: str, setting: Setting, seed: int) -> None:
    """Train and evaluate one run and store its result."""
    file = result_file(name, teacher, setting, seed)
    raw: dict[str, Any] = {
        "data": {"train": args.faces, "hold_out": HOLD_OUT},
        "student": STUDENT,
        "teacher": str(teacher_of(args, name, teacher)),
        "method": method_of(name, setting),
        "schedule": {**SCHEDULE, "epochs": EPOCHS, "lr": setting["lr"]},
        "evaluation": {"sets": [args.lfw]},
        "check": {"own_class": 0.0},
        "seed": seed,
    }
    if name == TWO:
        raw["teachers"] = {"second": str(centred(args))}
    change = name.partition(", ")[2]
    if change in (*NUMBERS, *PARTS):
        raw |= of_other_classes(args, change, raw["schedule"])
    recipe = make_recipe(raw, CHANGES.get(change, []))
    start = time.time()
    run = train(recipe, Path(args.runs) / file.stem)
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
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(result, indent=1))


def of_other_classes(args: argparse.Namespace, change: str, schedule: dict[str, Any]) -> dict[str, Any]:
    """The recipe's parts that change with "N identities" or "N images a class"; the same people are held out.

    Of fewer people as many images are seen, in more epochs: with fewer steps every method would be cut short, not for
    want of people. N images a class are drawn among one person's, who becomes several classes.
    """
    train, held_out = open_training_data(Data(args.faces, hold_out=HOLD_OUT))
    assert held_out is not None
    number, draw = int(change.split()[0]), np.random.default_rng(0)
    people = by_class(train)
    if change in NUMBERS:
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
        "schedule": schedule | {"epochs": round(EPOCHS * len(train) / images)},
        "evaluation": {"sets": [args.lfw, str(Path(args.runs) / "hold-out")]},
    }


def by_class(faces: Dataset) -> dict[str, list[str]]:
    """The keys of every class's images."""
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
    """Take out the TAR in every bootstrap resample, and return LFW all-pairs': pair -> FAR -> values.

    They are for paired differences between runs; those of the other sets and figures would only fill the repository.
    """
    found = {}
    for r in evaluation["results"]:
        values = r.pop("resampled", {})
        if (r["set"].removesuffix(".bin"), r["protocol"], r["probe"]) == ("lfw", "all-pairs", "student"):
            at = {far: values[f"tar_at_far.{far}"] for far in ("1e-3", "1e-4", "1e-5")}
            found[f"student-{r['gallery']}"] = {far: [round(v, 5) for v in v_] for far, v_ in at.items()}
    return found


@cache
def read(file: Path) -> dict[str, Any]:
    """A result, which never changes once it is there."""
    return json.loads(file.read_text())


def score(result: dict[str, Any]) -> float:
    """What tuning looks at: student-student TAR at FAR 1e-3 over all pairs of the held-out identities."""
    for r in result["evaluation"]["results"]:
        if r["set"] == "hold-out" and r["probe"] == r["gallery"] == "student":
            return r["tar_at_far"]["1e-3"]["value"]
    raise KeyError("hold-out")


def centred(args: argparse.Namespace) -> Path:
    """The hard teacher less its mean training embedding, as `import --centre` makes it."""

    def make() -> Model:
        model = load_model(args.hard)
        faces = open_dataset(args.faces).in_memory()
        mean = embed_dataset(model, faces, cache=cache_dir() / "embeddings").vectors.mean((0, 1))
        model.subtract_mean(torch.from_numpy(mean))
        return model

    return made(Path(args.runs) / "hard-centred", make)


def with_classifier(args: argparse.Namespace, name: str) -> Path:
    """The easy teacher with a classifier: for `name` "orthogonal" a random one, else the centres of its embeddings.

    More rows than dimensions cannot be orthogonal: the columns are orthonormal.
    """

    def make() -> Model:
        model = load_model(args.easy)
        faces, _ = open_training_data(Data(args.faces, hold_out=HOLD_OUT))
        if name == "orthogonal":
            columns = torch.empty(len(faces.class_names), model.embedding_dim)
            torch.nn.init.orthogonal_(columns, generator=torch.Generator().manual_seed(0))
            model.classifier = Classifier(columns, faces.class_names)
        else:
            model.classifier = centres(embed_dataset(model, faces, cache=cache_dir() / "embeddings"))
        return model

    return made(Path(args.runs) / f"easy-{name}", make)


def teacher_of(args: argparse.Namespace, name: str, teacher: str) -> Path:
    """The teacher's model, for a row that needs its classifier with one."""
    if name in ("kd", "stkd"):  # their term compares logits
        return with_classifier(args, "centres")
    if name.endswith(ORTHOGONAL):
        return with_classifier(args, "orthogonal")
    if teacher == "own":
        return Path(args.runs) / own_teacher().stem
    return centred(args) if teacher == "centred" else Path(getattr(args, teacher))


def own_teacher() -> Path:
    """The result of the full-width student, whose run is a teacher afterwards."""
    return result_file(OWN, "easy", chosen("margin_softmax_l2") or {}, SEEDS[0])


def made(folder: Path, make: Callable[[], Model]) -> Path:
    """The model folder; made by one of the processes, for which the others wait."""
    while not folder.exists():
        with claimed(folder.with_suffix(".lock")) as mine:
            if mine and not folder.exists():
                save_model(make(), folder)
        time.sleep(1)
    return folder


def jobs() -> list[Job]:
    """What is known by now to be wanted, in order: stopped early, it should leave every tuned row with all its seeds.

    A method's trials come first, then its further seeds with the setting that they chose; pointers of one seed last.
    """
    found: list[Job] = []
    for name, settings in TRIALS.items():
        found += [(name, "easy", setting, SEEDS[0]) for setting in settings]
        setting = chosen(name)
        found += [(name, "easy", setting, seed) for seed in SEEDS if setting is not None]
    tuned_rows = [row for row in FINALS if row[0] not in (*OTHERS, OWN, TWO) and row[1] not in ("hard", "own")]
    changes = [(f"proxylesskd_centres, {change}", "easy", "proxylesskd_centres") for change in ABLATIONS]
    one = [*PEOPLE, *changes, *(row for row in FINALS if row not in tuned_rows)]
    rows = [(row, seed) for seed in SEEDS for row in tuned_rows] + [(row, SEEDS[0]) for row in one]
    settings_of = {tuned: chosen(tuned) for (_, _, tuned), _ in rows}
    found += [
        (name, teacher, settings_of[of], seed) for (name, teacher, of), seed in rows if settings_of[of] is not None
    ]
    return found


def run(args: argparse.Namespace) -> None:
    """Do the jobs in their order, leaving out what other processes do; return when all are done."""
    torch.set_num_threads(args.threads)
    Path(args.runs).mkdir(parents=True, exist_ok=True)
    while pending := [job for job in jobs() if not result_file(*job).exists()]:
        for job in (job for job in pending if job[1] != "own" or own_teacher().exists()):
            with claimed(Path(args.runs) / f"{result_file(*job).stem}.lock") as mine:
                if mine and not result_file(*job).exists():
                    run_one(args, *job)
                    break  # what comes next may have been done meanwhile
        else:
            time.sleep(10)


def chosen(method: str) -> Setting | None:
    """Return the setting with the best trial; None before all of the method's trials are there."""
    if method in OTHERS or method in OWNED:
        return {"lr": 0.1, "weight": (OTHERS | OWNED)[method]}
    files = [result_file(method, "easy", setting, SEEDS[0]) for setting in TRIALS[method]]
    if not all(file.exists() for file in files):
        return None
    scores = [score(read(file)) for file in files]
    return TRIALS[method][scores.index(max(scores))]


def stored(name: str, teacher: str, settings_of: str) -> list[dict[str, Any]]:
    """The results of one row that are there, in the order of seeds; none before its settings are chosen."""
    setting = chosen(settings_of)
    files = [] if setting is None else [result_file(name, teacher, setting, seed) for seed in SEEDS]
    return [read(file) for file in files if file.exists()]


def cell(values: list[float]) -> str:
    """Mean over seeds, and the range of the seeds."""
    if not values:
        return ""
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def entry(run: dict[str, Any], on: str, protocol: str, probe: str, gallery: str) -> dict[str, Any]:
    """The evaluation's result of that set, protocol and pair; {} where there is none."""
    for r in run["evaluation"]["results"]:
        if (r["set"].removesuffix(".bin"), r["protocol"], r["probe"], r["gallery"]) == (on, protocol, probe, gallery):
            return r
    return {}


def finals() -> dict[str, dict[str, Any]]:
    """The runs with the chosen settings as `facedistill compare` takes them, by row and seed; resamples put back."""
    found = {}
    for name, teacher, settings_of in FINALS:
        for run in stored(name, teacher, settings_of):
            row, evaluation = row_of(name, teacher), run["evaluation"]
            training = evaluation.get("training", {"images_per_second": run["images_per_second"]})
            training |= {"recipe": row, "seed": run["seed"], "epochs": run["epochs"], "data": "all"}
            found[f"{row}-s{run['seed']}"] = evaluation | {
                "training": training,
                "results": [with_resamples(r, run["resampled"]) for r in evaluation["results"]],
            }
    return found


def row_of(name: str, teacher: str) -> str:
    return name if teacher == "easy" else f"{name}, teacher {teacher}"


def with_resamples(result: dict[str, Any], resampled: dict[str, Any]) -> dict[str, Any]:
    result = result | {"set": result["set"].removesuffix(".bin")}
    if (result["set"], result["protocol"], result["probe"]) != ("lfw", "all-pairs", "student"):
        return result
    drawn = resampled[f"student-{result['gallery']}"]
    return result | {"resampled": {f"tar_at_far.{far}": values for far, values in drawn.items()}}


def results_tables() -> list[str]:
    """What `facedistill compare` shows of these runs, a table for each set; a row without a run is empty."""
    recipes = over_seeds(finals())
    missing = [row for name, teacher, _ in FINALS if (row := row_of(name, teacher)) not in recipes]
    tables = overview(recipes)
    for table in tables:
        table.rows += [[text(row), *[Cell()] * (len(table.columns) - 1)] for row in missing]
    return [render(table) for table in tables]


def differences_table(base: str) -> str:
    """Paired differences of seed means to `base`, with the easy teacher."""
    easy = {run: evaluation for run, evaluation in finals().items() if ", teacher " not in run}
    return render(across_recipes([d for d in differences_to(easy, [base]) if d["set"] == "lfw"]))


def trials_table() -> str:
    """Every trial and what was chosen: hold-out TAR at FAR 1e-3, student-student, in percent."""
    lines = ["| method | setting | hold-out TAR at 1e-3 | chosen |", "| --- | --- | --- | --- |"]
    for name, settings in TRIALS.items():
        files = [result_file(name, "easy", setting, SEEDS[0]) for setting in settings]
        scores = [score(read(file)) if file.exists() else None for file in files]
        for setting, found in zip(settings, scores, strict=True):
            label = setting_of(setting)
            shown = "" if found is None else f"{100 * found:.1f}"
            lines.append(f"| {name} | {label} | {shown} | {'yes' if setting == chosen(name) else ''} |")
    return "\n".join(lines)


def changes_table() -> str:
    """ProxylessKD with class centres and one thing changed, one seed: LFW all-pairs and hold-out TAR in percent."""
    header = ["proxylesskd_centres", *(f"all-pairs TAR at 1e-4 {pair}" for pair in ("s-s", "s-t"))]
    header += ["hold-out TAR at 1e-3 s-s", "s-t"]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for change in ("", *ABLATIONS):
        name = f"proxylesskd_centres, {change}" if change else "proxylesskd_centres"
        runs = stored(name, "easy", "proxylesskd_centres")[:1]
        row = [change or "as above"]
        for on, far in (("lfw", "1e-4"), ("hold-out", "1e-3")):
            for gallery in ("student", "teacher"):
                results = [entry(r, on, "all-pairs", "student", gallery) for r in runs]
                row.append(cell([r["tar_at_far"][far]["value"] for r in results]))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def people_table() -> str:
    """The same methods and settings with fewer training people, one seed: LFW all-pairs TAR in percent."""
    header = ["method (W)", *(f"{number} s-s | s-t" for number in (*NUMBERS, "all"))]
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " --- |" * 2 * (len(NUMBERS) + 1)]
    for method in dict.fromkeys(tuned for _, _, tuned in PEOPLE):
        row = [method]
        for name in (*(f"{method}, {number}" for number in NUMBERS), method):
            runs = stored(name, "easy", method)[:1]
            for gallery in ("student", "teacher"):
                results = [entry(r, "lfw", "all-pairs", "student", gallery) for r in runs]
                row.append(cell([r["tar_at_far"]["1e-4"]["value"] for r in results]))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def cost_table() -> str:
    """How many runs stand here and what they took, each with one thread; two ran at a time on two cores."""
    runs = [read(file) for file in sorted(RESULTS.glob("final-*.json"))]
    images = 13_798 * EPOCHS
    hours = [images / r["images_per_second"] / 3600 for r in runs]
    rates = sorted(r["images_per_second"] for r in runs)
    lines = ["| runs | hours of training, one thread each | images a second, median (least to most) |"]
    lines += ["| ---: | ---: | ---: |"]
    lines.append(
        f"| {len(runs)} | {sum(hours):.1f} | {rates[len(rates) // 2]:.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) |"
    )
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Every table of docs/comparison.md by name."""
    on_lfw, on_hold_out = results_tables()
    return {
        "results": on_lfw,
        "hold_out": on_hold_out,
        "differences_l2kd": differences_table("l2kd"),
        "differences_proxylesskd": differences_table("proxylesskd_centres"),
        "differences_best": differences_table(BEST),
        "changes": changes_table(),
        "trials": trials_table(),
        "people": people_table(),
        "cost": cost_table(),
    }


def write_tables(_: argparse.Namespace) -> None:
    for name, table in tables().items():
        put_table("comparison.md", name, table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    run_parser = verbs.add_parser("run")
    for option in ("faces", "lfw", "easy", "hard", "runs"):
        run_parser.add_argument(f"--{option}", required=True)
    run_parser.add_argument("--threads", type=int, default=1)
    run_parser.set_defaults(verb=run)
    verbs.add_parser("table").set_defaults(verb=write_tables)
    arguments = parser.parse_args()
    arguments.verb(arguments)
