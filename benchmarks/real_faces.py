"""The main job on real faces: scratch, l2kd, proxylesskd and proxylesskd + l2 under one student and one recipe.

    python benchmarks/real_faces.py run --faces FOLDER --lfw lfw.bin --easy A.onnx --hard B.onnx --runs R
    python benchmarks/real_faces.py table

`run` first tunes every method on the held-out identities with the same number of trials, each as long as the runs
that count (short ones favour what learns fast); the chosen trial is the run of the first seed, and the other seeds
follow. It skips what is done, so it may be stopped and started, and several such processes may share the work.
Results go to benchmarks/results/real_faces/, one JSON a run; `table` writes docs/real_faces.md's tables from them.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from docs_table import put_table

from facedistill.data.dataset import open_dataset
from facedistill.embed import embed_dataset
from facedistill.engine import train
from facedistill.evaluation.across_runs import seed_difference
from facedistill.evaluation.all_pairs import all_pairs
from facedistill.evaluation.statistics import Estimate
from facedistill.files import atomic_write, cache_dir, claimed
from facedistill.model import load_model, save_model
from facedistill.recipe import make_recipe

RESULTS = Path(__file__).parent / "results" / "real_faces"
EPOCHS, SEEDS = 14, (0, 1, 2)
STUDENT = {"backbone": "mobilefacenet", "options": {"width": 0.5}, "input_size": 64}
SCHEDULE = {"batch": 128, "warmup_epochs": 1, "decay": "cosine", "weight_decay": 5e-4, "clip": 5.0, "log_steps": 50}
SCALE = 32  # few identities; the same for every margin softmax here
# method -> three trials of the learning rate and the method's one main weight: the margin, or the weight of the L2.
# Trials of four epochs (results/real_faces/trial-*, three a method too) had narrowed down where these lie.
TRIALS: dict[str, list[dict[str, float]]] = {
    "scratch": [{"lr": lr, "margin": m} for lr, m in ((0.1, 0.2), (0.3, 0.2), (0.3, 0.5))],
    "l2kd": [{"lr": lr} for lr in (0.3, 1.0, 3.0)],
    "proxylesskd_centres": [{"lr": lr, "margin": m} for lr, m in ((0.3, 0.2), (1.0, 0.2), (0.3, 0.5))],
    "proxylesskd_l2": [{"lr": 0.3, "l2": weight} for weight in (16.0, 64.0, 256.0)],
}
# (row, teacher, settings of): the fitted W takes those of the centres, the hard teacher those chosen with the easy one.
FINALS = [
    ("l2kd", "easy", "l2kd"),
    ("proxylesskd_centres", "easy", "proxylesskd_centres"),
    ("proxylesskd_l2", "easy", "proxylesskd_l2"),
    ("scratch", "easy", "scratch"),
    ("proxylesskd_fitted", "easy", "proxylesskd_centres"),
    ("proxylesskd_centres, instances", "easy", "proxylesskd_centres"),
    ("l2kd", "centred", "l2kd"),
    ("proxylesskd_centres", "centred", "proxylesskd_centres"),
    ("proxylesskd_l2", "centred", "proxylesskd_l2"),
    ("proxylesskd_centres", "hard", "proxylesskd_centres"),
]
# What helps proxylesskd: one thing changed, one seed.
CHANGES: dict[str, dict[str, Any]] = {
    "scale 16": {"terms": {"margin_softmax": {"scale": 16}}},
    "scale 64": {"terms": {"margin_softmax": {"scale": 64}}},
    "margin 0": {"terms": {"margin_softmax": {"margin_options": {"size": 0.0}}}},
    "warm-up": {"terms": {"margin_softmax": {"margin_warmup": 0.5}}},
    "instances": {"classifier": {"start": "instances"}},
}


def method_of(name: str, setting: dict[str, float]) -> dict[str, Any]:
    """Return the recipe's `method` for a row (or `proxylesskd_centres, CHANGE`) and its tuned setting."""
    name, _, change = name.partition(", ")
    if change:
        changed = CHANGES[change]
        method = method_of(name, setting)
        method["terms"]["margin_softmax"].update(changed.get("terms", {}).get("margin_softmax", {}))
        return method | {k: v for k, v in changed.items() if k != "terms"}
    softmax = {"scale": SCALE, "margin": "arcface", "margin_options": {"size": setting.get("margin", 0.35)}}
    if name == "l2kd":
        return {"name": "l2kd"}
    if name == "scratch":
        return {"name": "scratch", "terms": {"margin_softmax": softmax}}
    start = "fitted" if name == "proxylesskd_fitted" else "centres"
    terms: dict[str, Any] = {"margin_softmax": softmax}
    if name == "proxylesskd_l2":
        terms["embedding_l2"] = {"weight": setting["l2"]}
    return {"name": "proxylesskd", "classifier": {"start": start}, "terms": terms}


def result_file(name: str, teacher: str, setting: dict[str, float], seed: int) -> Path:
    label = "_".join(f"{k}{v:g}" for k, v in setting.items())
    row = name.replace(", ", "-").replace(" ", "")
    return RESULTS / f"final-{teacher}-{row}-{label}-s{seed}.json"


def run_one(args: argparse.Namespace, name: str, teacher: str, setting: dict[str, float], seed: int) -> None:
    """Train and evaluate one run and store its result."""
    file = result_file(name, teacher, setting, seed)
    if teacher == "centred":
        args.teachers[teacher] = centred(args)
    recipe = make_recipe(
        {
            "data": {"train": args.faces, "hold_out": 0.1},
            "student": STUDENT,
            "teacher": str(args.teachers[teacher]),
            "method": method_of(name, setting),
            "schedule": {**SCHEDULE, "epochs": EPOCHS, "lr": setting["lr"]},
            "evaluation": {"sets": [args.lfw]},
            "check": {"own_class": 0.0},
            "seed": seed,
        }
    )
    start = time.time()
    run = train(recipe, Path(args.runs) / file.stem)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    result = {
        "name": name,
        "teacher": teacher,
        "setting": setting,
        "epochs": EPOCHS,
        "seed": seed,
        "images_per_second": sorted(line["images_per_second"] for line in log)[len(log) // 2],
        "seconds": round(time.time() - start),
        "threads": torch.get_num_threads(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "evaluation": json.loads((run / "evaluation.json").read_text()),
        "resampled": resamples(args, run / "model", args.teachers[teacher]),
    }
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(result, indent=1))


def resamples(args: argparse.Namespace, student: Path, teacher: str) -> dict[str, dict[str, list[float]]]:
    """LFW all-pairs TAR in every bootstrap resample, for paired differences between runs: pair -> FAR -> values."""
    lfw = open_dataset(args.lfw)
    s, t = (embed_dataset(load_model(m), lfw, cache=cache_dir() / "embeddings") for m in (student, teacher))
    found = {}
    for pair, gallery in (("student-student", s), ("student-teacher", t)):
        probe, labels = s.fused("sum"), s.labels
        measured = all_pairs(probe, probe if gallery is s else gallery.fused("sum"), labels, fars=(1e-3, 1e-4, 1e-5))
        found[pair] = {far: e.resampled.round(5).tolist() for far, (_, e) in measured.tar_at_far.items()}
    return found


def score(result: dict[str, Any]) -> float:
    """What tuning looks at: student-student TAR at FAR 1e-3 over all pairs of the held-out identities."""
    for r in result["evaluation"]["results"]:
        if r["set"] == "hold-out" and r["probe"] == r["gallery"] == "student":
            return r["tar_at_far"]["1e-3"]["value"]
    raise KeyError("hold-out")


def centred(args: argparse.Namespace) -> Path:
    """The hard teacher less its mean training embedding, as `import --centre` makes it; one process makes it."""
    folder = Path(args.runs) / "hard-centred"
    while not folder.exists():
        with claimed(Path(args.runs) / f"{folder.name}.lock") as mine:
            if mine:
                model = load_model(args.hard)
                faces = open_dataset(args.faces).in_memory()
                mean = embed_dataset(model, faces, cache=cache_dir() / "embeddings").vectors.mean((0, 1))
                model.subtract_mean(torch.from_numpy(mean))
                save_model(model, folder)
        time.sleep(1)
    return folder


Job = tuple[str, str, dict[str, float], int]  # row, teacher, setting, seed


def work(args: argparse.Namespace, jobs: list[Job]) -> None:
    """Do the jobs in their order, leaving out what other processes do; return when all are done."""
    while pending := [job for job in jobs if not result_file(*job).exists()]:
        for job in pending:
            with claimed(Path(args.runs) / f"{result_file(*job).stem}.lock") as mine:
                if mine and not result_file(*job).exists():
                    run_one(args, *job)
                    break  # what comes next may have been done meanwhile
        else:
            time.sleep(10)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    Path(args.runs).mkdir(parents=True, exist_ok=True)
    args.teachers = {"easy": args.easy, "hard": args.hard}
    work(args, [(name, "easy", setting, SEEDS[0]) for name, settings in TRIALS.items() for setting in settings])
    main, others, first, more = FINALS[:4], FINALS[4:], SEEDS[:1], SEEDS[1:]
    changes = [(f"proxylesskd_centres, {change}", "easy", "proxylesskd_centres") for change in CHANGES]
    # Stopped early, it should leave the easy teacher's main rows with all seeds, then every row with one.
    rows = [(row, seed) for row in main for seed in more] + [(row, seed) for row in others for seed in first]
    rows += [(row, seed) for row in changes for seed in first] + [(row, seed) for row in others for seed in more]
    work(args, [(name, teacher, chosen(tuned) or {}, seed) for (name, teacher, tuned), seed in rows])


def chosen(method: str) -> dict[str, float] | None:
    """Return the setting with the best trial; None before all of the method's trials are there."""
    files = [result_file(method, "easy", setting, SEEDS[0]) for setting in TRIALS[method]]
    if not all(file.exists() for file in files):
        return None
    scores = [score(json.loads(file.read_text())) for file in files]
    return TRIALS[method][scores.index(max(scores))]


def finals() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The results with the chosen settings by (row, teacher), in the order of FINALS, each list in that of seeds."""
    return {(name, teacher): stored(name, teacher, settings_of) for name, teacher, settings_of in FINALS}


def stored(name: str, teacher: str, settings_of: str) -> list[dict[str, Any]]:
    """The results of one row that are there, in the order of seeds; none before its settings are chosen."""
    setting = chosen(settings_of)
    files = [] if setting is None else [result_file(name, teacher, setting, seed) for seed in SEEDS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def cell(values: list[float]) -> str:
    """Mean over seeds, and the range of the seeds."""
    if not values:
        return ""
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def entry(run: dict[str, Any], on: str, protocol: str, probe: str, gallery: str) -> dict[str, Any]:
    """The evaluation's result of that set, protocol and pair; {} where there is none."""
    for r in run["evaluation"]["results"]:
        if (r["set"], r["protocol"], r["probe"], r["gallery"]) == (on, protocol, probe, gallery):
            return r
    return {}


def results_table() -> str:
    """One row a method and teacher; every figure in percent."""
    header = ["method (W)", "teacher", "seeds", "setting", "LFW accuracy s-s", "s-t"]
    header += [f"all-pairs TAR at {far} {pair}" for pair in ("s-s", "s-t") for far in ("1e-3", "1e-4", "1e-5")]
    header += ["at the teacher's threshold for 1e-4: FAR, TAR", "hold-out TAR at 1e-3 s-s", "s-t", "cosine of ceiling"]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for (name, teacher), runs in finals().items():
        row = [name, teacher, str(len(runs))]
        row.append(", ".join(f"{k} {v:g}" for k, v in runs[0]["setting"].items()) if runs else "")
        for gallery in ("student", "teacher"):
            row.append(cell([entry(r, "lfw.bin", "pairs", "student", gallery)["accuracy"] for r in runs]))
        crossed = [entry(r, "lfw.bin", "all-pairs", "student", "teacher") for r in runs]
        for results in ([entry(r, "lfw.bin", "all-pairs", "student", "student") for r in runs], crossed):
            row += [cell([r["tar_at_far"][far]["value"] for r in results]) for far in ("1e-3", "1e-4", "1e-5")]
        at = [r["at_gallery_threshold"]["1e-4"] for r in crossed]
        row.append(f"{sum(a['far'] for a in at) / len(at):.1e}, {cell([a['tar'] for a in at])}" if at else "")
        for gallery in ("student", "teacher"):
            held = [entry(r, "hold-out", "all-pairs", "student", gallery) for r in runs]
            row.append(cell([r["tar_at_far"]["1e-3"]["value"] for r in held]))
        cosines = [r["mean_cosine"] for r in crossed]
        row.append(f"{sum(c['value'] for c in cosines) / len(cosines):.3f}" if cosines else "")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def differences_table(base: str) -> str:
    """Paired differences of seed means to `base`, easy teacher: points of LFW all-pairs TAR, 95% interval, verdict."""
    lines = ["| method | pair | " + " | ".join(f"TAR at FAR {far}" for far in ("1e-3", "1e-4", "1e-5")) + " |"]
    lines.append("| --- | --- | --- | --- | --- |")
    rows = finals()
    for (name, teacher), runs in rows.items():
        others = rows[base, "easy"]
        seeds = sorted({r["seed"] for r in runs} & {r["seed"] for r in others})
        if teacher != "easy" or name == base or not seeds:
            continue
        for pair in ("student-student", "student-teacher"):
            cells = [difference(runs, others, seeds, pair, far) for far in ("1e-3", "1e-4", "1e-5")]
            lines.append(f"| {name} - {base} ({len(seeds)} seeds) | {pair} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference(a: list[dict[str, Any]], b: list[dict[str, Any]], seeds: list[int], pair: str, far: str) -> str:
    """Real only if the interval of the seed mean excludes 0 and all seeds agree in sign (and there are several)."""
    gallery = pair.partition("-")[2]

    def estimates(runs: list[dict[str, Any]]) -> list[Estimate]:
        chosen = [next(r for r in runs if r["seed"] == seed) for seed in seeds]
        values = [entry(r, "lfw.bin", "all-pairs", "student", gallery)["tar_at_far"][far]["value"] for r in chosen]
        return [Estimate(v, np.array(r["resampled"][pair][far])) for v, r in zip(values, chosen, strict=True)]

    found = seed_difference(estimates(a), estimates(b))
    low, high = found["ci95"]
    verdict = "one seed" if len(seeds) == 1 else "" if found["distinguishable"] else "not distinguishable"
    text = f"{100 * found['value']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{text} {verdict}".strip()


def trials_table() -> str:
    """Every trial and what was chosen: hold-out TAR at FAR 1e-3, student-student, in percent."""
    lines = ["| method | setting | hold-out TAR at 1e-3 | chosen |", "| --- | --- | --- | --- |"]
    for name, settings in TRIALS.items():
        files = [result_file(name, "easy", setting, SEEDS[0]) for setting in settings]
        scores = [score(json.loads(file.read_text())) if file.exists() else None for file in files]
        for setting, found in zip(settings, scores, strict=True):
            label = ", ".join(f"{k} {v:g}" for k, v in setting.items())
            shown = "" if found is None else f"{100 * found:.1f}"
            lines.append(f"| {name} | {label} | {shown} | {'yes' if setting == chosen(name) else ''} |")
    return "\n".join(lines)


def changes_table() -> str:
    """ProxylessKD with one thing changed, one seed: LFW all-pairs and hold-out TAR in percent."""
    header = ["proxylesskd_centres", *(f"all-pairs TAR at 1e-4 {pair}" for pair in ("s-s", "s-t"))]
    header += ["hold-out TAR at 1e-3 s-s", "s-t"]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for change in ("", *CHANGES):
        name = f"proxylesskd_centres, {change}" if change else "proxylesskd_centres"
        runs = stored(name, "easy", "proxylesskd_centres")[:1]
        row = [change or "as above"]
        for on, far in (("lfw.bin", "1e-4"), ("hold-out", "1e-3")):
            for gallery in ("student", "teacher"):
                results = [entry(r, on, "all-pairs", "student", gallery) for r in runs]
                row.append(cell([r["tar_at_far"][far]["value"] for r in results]))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Every table of docs/real_faces.md by name."""
    return {
        "results": results_table(),
        "differences_l2kd": differences_table("l2kd"),
        "differences_proxylesskd": differences_table("proxylesskd_centres"),
        "changes": changes_table(),
        "trials": trials_table(),
    }


def write_tables(_: argparse.Namespace) -> None:
    for name, table in tables().items():
        put_table("real_faces.md", name, table)


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
