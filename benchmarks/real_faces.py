"""The main job on real faces: scratch, l2kd, proxylesskd and proxylesskd + l2 under one student and one recipe.

    python benchmarks/real_faces.py run --faces FOLDER --lfw lfw.bin --easy A.onnx --hard B.onnx --runs RUNS [--part 0/2]
    python benchmarks/real_faces.py table

`run` first tunes every method with the same number of short trials on the held-out identities, then trains the chosen
settings with three seeds; it skips what is done, so it may be stopped and started, and two parts may run side by side.
Results go to benchmarks/results/real_faces/, one JSON a run; `table` writes docs/real_faces.md's tables from them.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from facedistill.embed import embed_dataset
from facedistill.engine import train
from facedistill.files import atomic_write, cache_dir
from facedistill.model import load_model, save_model
from facedistill.recipe import make_recipe

RESULTS = Path(__file__).parent / "results" / "real_faces"
EPOCHS, TRIAL_EPOCHS, SEEDS = 14, 4, (0, 1, 2)
STUDENT = {"backbone": "mobilefacenet", "options": {"width": 0.5}, "input_size": 64}
SCHEDULE = {"batch": 128, "warmup_epochs": 1, "decay": "cosine", "weight_decay": 5e-4, "clip": 5.0, "log_steps": 50}
SCALE = 32  # few identities; the same for every margin softmax here
SOFTMAX_TRIALS = [{"lr": lr, "margin": m} for lr in (0.1, 0.3) for m in (0.2, 0.5)]

# method -> (four trials). The learning rate and the method's one main weight: the margin, or the weight of the L2.
TRIALS: dict[str, list[dict[str, float]]] = {
    "scratch": SOFTMAX_TRIALS,
    "l2kd": [{"lr": lr} for lr in (0.1, 0.3, 1.0, 3.0)],
    "proxylesskd_centres": SOFTMAX_TRIALS,
    "proxylesskd_fitted": SOFTMAX_TRIALS,
    "proxylesskd_l2": [{"lr": lr, "l2": w} for lr in (0.1, 0.3) for w in (16.0, 64.0)],
}
# The hard teacher takes the settings chosen with the easy one: (row, teacher, settings of).
FINALS = [
    *(
        (name, "easy", name)
        for name in ("l2kd", "proxylesskd_centres", "proxylesskd_l2", "scratch", "proxylesskd_fitted")
    ),
    ("l2kd", "centred", "l2kd"),
    ("proxylesskd_centres", "centred", "proxylesskd_centres"),
    ("proxylesskd_l2", "centred", "proxylesskd_l2"),
    ("proxylesskd_centres", "hard", "proxylesskd_centres"),
]


def method_of(name: str, setting: dict[str, float]) -> dict[str, Any]:
    """Return the recipe's `method` for a row and its tuned setting."""
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


def run_one(
    args: argparse.Namespace, name: str, teacher: str, setting: dict[str, float], epochs: int, seed: int, trial: bool
) -> dict[str, Any]:
    """Train one run unless its result stands already; return the result."""
    label = "_".join(f"{k}{v:g}" for k, v in setting.items())
    key = f"{'trial' if trial else 'final'}-{teacher}-{name}-{label}-s{seed}"
    file = RESULTS / f"{key}.json"
    if file.exists():
        return json.loads(file.read_text())
    recipe = make_recipe(
        {
            "data": {"train": args.faces, "hold_out": 0.1},
            "student": STUDENT,
            "teacher": str(args.teachers[teacher]),
            "method": method_of(name, setting),
            "schedule": {**SCHEDULE, "epochs": epochs, "lr": setting["lr"]},
            "evaluation": {"sets": [] if trial else [args.lfw]},
            "check": {"own_class": 0.0},
            "seed": seed,
        }
    )
    start = time.time()
    run = train(recipe, Path(args.runs) / key)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    result = {
        "name": name,
        "teacher": teacher,
        "setting": setting,
        "epochs": epochs,
        "seed": seed,
        "trial": trial,
        "images_per_second": sorted(line["images_per_second"] for line in log)[len(log) // 2],
        "seconds": round(time.time() - start),
        "threads": torch.get_num_threads(),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "evaluation": json.loads((run / "evaluation.json").read_text()),
    }
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    return result


def score(result: dict[str, Any]) -> float:
    """What tuning looks at: student-student TAR at FAR 1e-3 over all pairs of the held-out identities."""
    for r in result["evaluation"]["results"]:
        if r["set"] == "hold-out" and r["probe"] == r["gallery"] == "student":
            return r["tar_at_far"]["1e-3"]["value"]
    raise KeyError("hold-out")


def centred(args: argparse.Namespace) -> Path:
    """The hard teacher with its mean training embedding subtracted, as `import --centre` makes it."""
    folder = Path(args.runs) / "hard-centred"
    if not folder.exists():
        from facedistill.data.dataset import open_dataset

        model = load_model(args.hard)
        faces = open_dataset(args.faces).in_memory()
        mean = embed_dataset(model, faces, cache=cache_dir() / "embeddings").vectors.mean((0, 1))
        model.subtract_mean(torch.from_numpy(mean))
        save_model(model, folder)
    return folder


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    part, parts = (int(n) for n in args.part.split("/"))
    args.teachers = {"easy": args.easy, "hard": args.hard}
    trials = [(name, setting) for name, settings in TRIALS.items() for setting in settings]
    for name, setting in trials[part::parts]:
        run_one(args, name, "easy", setting, TRIAL_EPOCHS, 0, trial=True)
    while len(list(RESULTS.glob("trial-*.json"))) < len(trials):
        time.sleep(10)  # another part is still tuning
    args.teachers["centred"] = centred(args)
    jobs = [(*row, seed) for seed in SEEDS for row in FINALS]
    # Stopped early, it should leave the easy teacher's main rows with all seeds and the others with one.
    jobs.sort(key=lambda job: (job[3] > 0) * (1 + (job[:2] not in [row[:2] for row in FINALS[:4]])))
    for name, teacher, tuned, seed in jobs[part::parts]:
        tried = [
            (score(run_one(args, tuned, "easy", s, TRIAL_EPOCHS, 0, trial=True)), i)
            for i, s in enumerate(TRIALS[tuned])
        ]
        run_one(args, name, teacher, TRIALS[tuned][max(tried)[1]], EPOCHS, seed, trial=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    run_parser = verbs.add_parser("run")
    for option in ("faces", "lfw", "easy", "hard", "runs"):
        run_parser.add_argument(f"--{option}", required=True)
    run_parser.add_argument("--part", default="0/1")
    run_parser.add_argument("--threads", type=int, default=1)
    run_parser.set_defaults(verb=run)
    arguments = parser.parse_args()
    arguments.verb(arguments)
