"""Faces of 8 to 56 pixels: what ways of training a student are worth against a gallery of sharp faces.

    python benchmarks/low_resolution.py run --data FACES --teacher T.onnx --lfw lfw.bin --runs R [--seeds 0 1 2]
    python benchmarks/low_resolution.py table [--runs R]

`run` trains a student by each method and seed, and measures LFW over all pairs with probes of each size: against a
gallery of unchanged faces that the teacher enrolled, and against faces as small as the probe, enrolled by the student
itself. At last it times the ONNX files of all networks in turns. Every result is a file in R; finished ones are
skipped, and a stopped training resumes. `table` copies the results of R into benchmarks/results/low_resolution.json
and writes the tables of docs/low_resolution.md. The rows of a hallucination network (FHN) are made by rim.py.

Learning rates and margins are those that the comparison on real faces chose without low resolution; the residual
methods have the rate of L2. Those that fine-tune the clean student have a third of the rate, octuplet a tenth. Images
are embedded without their mirror image.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from exported import milliseconds
from result_file import write_result
from short_study import command_line, cost, percent, store, stored, table_verb

from facedistill.data import Dataset, open_dataset
from facedistill.evaluation import Resolution, all_pairs, far_key
from facedistill.files import cache_dir
from facedistill.hallucination import compose, network_of
from facedistill.models import Model, embed_dataset, load_model
from facedistill.recipe import make_recipe
from facedistill.results import markdown
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "low_resolution.json"
SIZES = (8, 12, 16, 20, 28, 56, None)  # None: unchanged
FARS, RESAMPLES, EPOCHS = (1e-3, 1e-4), 100, 4
SIZE, WIDTH, TWIN = 64, 0.5, 0.71  # of the student; TWIN: the width of twice its multiply-adds
FULL = "full"
PROBE, BOTH = "probe low", "both low"
DEGRADE: dict[str, Any] = {"kind": "degrade"}
HALF = DEGRADE | {"options": {"clean": 0.5}}  # as the recipe proxylesskd_low: half of the faces stay sharp, not a fifth
BEST, MARGIN = "proxylesskd_instances_l2", 0.5
INHERITED: dict[str, Any] = {"name": BEST, "terms": {"margin_softmax": {"margin_options": {"size": MARGIN}}}}
OCTUPLET = {
    "name": "l2kd",
    "terms": {"embedding_l2": 1, "octuplet": 1},
    "sampler": {"kind": "pk", "k": 4},
    "view": DEGRADE | {"options": {"pairs": True, "clean": 0}},
}
L2 = {"name": "l2kd", "view": DEGRADE}
RESIDUAL = {"name": "residual", "terms": {"residual": {"normalise": True}}, "view": DEGRADE}
ONE = {"backbone": "mobilefacenet", "options": {"width": WIDTH}}
AFFINE = {"output": "affine"}
# What is trained, in this order: the student, the method, the learning rate. Those of AFTER start from "clean".
TRAINED: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "clean": (ONE, INHERITED, 0.3),
    "clean_after": (ONE, INHERITED, 0.1),
    "proxylesskd_low": (ONE, INHERITED | {"view": DEGRADE}, 0.3),
    "proxylesskd_low_after": (ONE, INHERITED | {"view": DEGRADE}, 0.1),
    "half_low_after": (ONE, INHERITED | {"view": HALF}, 0.1),
    "l2kd_low": (ONE, L2, 1.0),
    "l2kd_low_after": (ONE, L2, 0.3),
    "octuplet_low": (ONE, OCTUPLET, 0.1),
    "residual": (
        {"backbone": "residual", "options": {"options": {"width": WIDTH} | AFFINE}},
        RESIDUAL,
        1.0,
    ),
    "single": ({"backbone": "mobilefacenet", "options": {"width": TWIN} | AFFINE}, L2, 1.0),
}
AFTER = ("clean_after", "proxylesskd_low_after", "half_low_after", "l2kd_low_after", "octuplet_low")
PARTS = {"residual_s": "residual"}  # rows that are a part of another row's model
ROWS = {
    "teacher": "teacher, enlarged faces",
    "clean": "student trained on clean faces",
    "clean_after": "student trained on clean faces, as long again",
    "proxylesskd_low": "`proxylesskd_low`, a fifth of the faces sharp",
    "proxylesskd_low_after": "`proxylesskd_low`, a fifth of the faces sharp, after the clean student",
    "half_low_after": "`proxylesskd_low`, after the clean student",
    "l2kd_low": "`l2kd_low`",
    "l2kd_low_after": "`l2kd_low`, after the clean student",
    "octuplet_low": "`octuplet_low`, after the clean student",
    "residual_s": "`residual_low`, student alone (s)",
    "residual": "`residual_low`, both (s + a)",
    "single": "`residual_single_low`, one network as large as both",
    "fhn_teacher": "FHN, then the teacher",
    "fhn_clean": "FHN, then the student trained on clean faces",
    "fhn_residual": "FHN, then `residual_low`, trained apart",
    "fhn_joint": "FHN and `residual_low`, trained jointly",
}
BEHIND = {"fhn_teacher": "teacher", "fhn_clean": "clean", "fhn_residual": "residual", "fhn_joint": "residual"}  # FHN
BY = ("enlarged", "FHN")
# Where the models are whose ONNX files are timed: of every network, one row. FHN is timed before the clean student.
TIMED = {
    "clean": "clean-{}",
    "residual_s": "residual-{}/parts/student",
    "residual": "residual-{}",
    "single": "single-{}",
}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    lfw, teacher = open_dataset(args.lfw), load_model(args.teacher)
    gallery = embedded(teacher, lfw, None)
    if not (done := folder / "teacher.json").exists():
        store(done, {"method": "teacher"} | measured(teacher, lfw, gallery))
    for seed in args.seeds:
        for name in TRAINED:
            out = folder / f"{name}-{seed}"
            rows = {name: out / "model"} | {part: out / "parts" / "student" for part, of in PARTS.items() if of == name}
            if name not in args.only or all((folder / f"{row}-{seed}.json").exists() for row in rows):
                continue
            train(recipe_of(args, name, seed), out)
            for row, path in rows.items():
                found = {"method": row, "seed": seed} | cost(out) | measured(load_model(path), lfw, gallery)
                store(folder / f"{row}-{seed}.json", found)
                print(row, found["tar"][PROBE], flush=True)
    timed(folder, teacher, args.seeds[0])


def timed(folder: Path, teacher: Model, seed: int) -> None:
    """Time one image in every network of this seed whose results the folder has."""
    there = [row for row in (*TIMED, "fhn_clean") if (folder / f"{row}-{seed}.json").exists()]
    models = {"teacher": teacher} | {row: load_model(folder / TIMED[row].format(seed)) for row in there if row in TIMED}
    if {"clean", "fhn_clean"} <= set(there):
        models["fhn_clean"] = compose(*network_of(folder / "fhn"), models["clean"])
    store(folder / "ms.json", {"ms": milliseconds(models)})


def recipe_of(args: argparse.Namespace, name: str, seed: int) -> Any:
    (student, method, lr), epochs = TRAINED[name], args.epochs
    if name in AFTER:
        student = student | {"start": str(Path(args.runs) / f"clean-{seed}")}
    if name == "octuplet_low":  # each image is in its batches twice
        epochs = max(1, epochs // 2)
    raw = {
        "data": {"train": args.data, "in_memory": True},
        "student": student | {"input_size": SIZE},
        "teacher": args.teacher,
        "method": method,
        "schedule": {"epochs": epochs, "batch": 128, "lr": lr, "warmup_epochs": min(1, epochs / 4)},
        "check": {"own_class": 0},
        "seed": seed,
    }
    if name in ("residual", "single"):
        raw["schedule"]["clip"] = None  # one norm for both networks would tie them together
    return make_recipe(raw)


def measured(model: Model, lfw: Dataset, gallery: np.ndarray, sizes: Sequence[int | None] = SIZES) -> dict[str, Any]:
    """The rates of the model as the probe, at every size of the images, and the network's own size."""
    tar: dict[str, dict[str, Any]] = {PROBE: {}, BOTH: {}}
    for size in sizes:
        probe = embedded(model, lfw, size)
        for sides, other in ((PROBE, gallery), (BOTH, probe)):
            found = all_pairs(probe, other, lfw.labels, fars=FARS, resamples=RESAMPLES)
            tar[sides][str(size or FULL)] = {
                far: [round(number, 4) for number in (estimate.value, *(estimate.ci95 or ()))]
                for far, (_, estimate) in found.tar_at_far.items()
            }
    return {"parameters": model.parameters_count(), "macs": model.macs(), "lfw": lfw.fingerprint, "tar": tar}


def embedded(model: Model, lfw: Dataset, size: int | None) -> np.ndarray:
    table = embed_dataset(model, Resolution(size).of(lfw), flips=False, cache=cache_dir() / "embeddings")
    return table.fused("none")


def collect(folder: Path) -> None:
    """Put the results of a folder into the stored ones, in place of those of the same method and seed."""
    known = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"runs": [], "ms": {}}
    found = [row for row in stored(folder, "*.json") if "method" in row]
    rows = {(row["method"], row.get("seed")): row for row in (*known["runs"], *found)}
    order, ms = list(ROWS), known["ms"]
    for row in stored(folder, "ms.json"):
        ms |= row["ms"]
    runs = sorted(rows.values(), key=lambda r: (order.index(r["method"]), r.get("seed") or 0))
    write_result(RESULTS, {"runs": runs, "ms": ms})


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    runs = result["runs"]
    made = {"low resolution cost": cost_table(runs, result["ms"])} | network_table(runs)
    sizes = {f"{size} px" if size else FULL: str(size or FULL) for size in SIZES}
    for sides in (PROBE, BOTH):
        for far in map(far_key, FARS):
            rows = [
                [words, *(percent(_values(runs, name, (sides, size, far))) for size in sizes.values())]
                for name, words in ROWS.items()
            ]
            made[f"{sides}, {far}"] = markdown(["way", *sizes], rows)
    return made


def cost_table(runs: Sequence[Mapping[str, Any]], ms: Mapping[str, float]) -> str:
    """Each way's cost, and what it loses at full resolution."""
    rows = []
    for name, words in ROWS.items():
        own = [row for row in runs if row["method"] == name]
        cells = [""] * 7
        if own:
            one, seeds = own[0], [row for row in own if "seed" in row]
            cells = [f"{one['parameters'] / 1e6:.2f} M", f"{one['macs'] / 1e6:.1f} M"]
            cells.append(_ms(ms, name))
            cells += [str(len(seeds) or ""), _epochs(name, seeds)]
            cells.append(f"{np.mean([row['seconds'] for row in seeds]) / 60:.0f}" if seeds else "")
            cells.append(_loss(runs, name))
        rows.append([words, *cells])
    heads = ["parameters", "MACs", "ms", "seeds", "epochs", "minutes of training", "lost at full resolution, points"]
    return markdown(["way", *heads], rows)


def network_table(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The hallucinated faces themselves beside enlarged ones: of held-out people, and their identity on LFW; no table
    if none was measured."""
    found = next((row for row in runs if "network" in row), None)
    if not found:
        return {}
    words = {"psnr": "PSNR, dB", "ssim": "SSIM", "features": "feature distance", "identity": "identity cosine"}
    names = {name: text for name, text in words.items() if name in found["network"][0]}
    heads = ["pixels", *(f"{text}, {by}" for text in (*names.values(), "identity cosine on LFW") for by in BY)]
    rows = [
        [
            f"{row['pixels']:.0f}",
            *(f"{row[f'{name}{by}']:.3f}" for name in names for by in ("_bicubic", "")),
            *(_cosine(found["identity"][by].get(str(int(row["pixels"])))) for by in BY),
        ]
        for row in found["network"][:-1]
    ]
    return {"hallucinated faces": markdown(heads, rows)}


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ms(ms: Mapping[str, float], name: str) -> str:
    """The milliseconds of a row; those of one network are the same, and FHN takes as long before any recogniser."""
    if TRAINED.get(name, ({},))[0] is ONE:
        name = "clean"
    if (other := BEHIND.get(name)) and {"fhn_clean", "clean", other} <= ms.keys():
        return f"{ms['fhn_clean'] - ms['clean'] + ms[other]:.1f}"
    return f"{ms[name]:.1f}" if name in ms else ""


def _epochs(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    found = " and ".join(sorted({str(row["epochs"]) for row in runs}))
    return f"{found} more" if name in AFTER and found else found


def _loss(runs: Sequence[Mapping[str, Any]], name: str) -> str:
    """The points of TAR at FAR 1e-3 that a way loses, over the seeds that both have: against "clean", or the network
    that FHN is before; bold above one point."""
    if name in ("teacher", "clean"):
        return ""
    path = (PROBE, FULL, far_key(FARS[0]))
    plain, own = (
        {row.get("seed"): value for row in runs for value in _values([row], one, path)}
        for one in (BEHIND.get(name, "clean"), name)
    )
    pairs = [(plain[of], own[seed]) for seed in own for of in (seed, None) if of in plain]  # the teacher has no seed
    if not pairs:
        return ""
    lost = round(100 * float(np.mean([before - after for before, after in pairs])), 1) + 0.0  # no -0.0
    return f"**{lost:.1f}**" if lost > 1 else f"{lost:.1f}"


def _values(runs: Sequence[Mapping[str, Any]], name: str, path: Sequence[str]) -> list[float]:
    sides, size, far = path
    found = [row["tar"][sides].get(size, {}).get(far) for row in runs if row["method"] == name]
    return [figure[0] for figure in found if figure is not None]


if __name__ == "__main__":
    writing = table_verb("low_resolution.md", RESULTS, tables, collect)
    parser, running = command_line(__doc__, run, writing)
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--epochs", type=int, default=EPOCHS)
    running.add_argument("--only", nargs="+", choices=TRAINED, default=list(TRAINED), help="these ways and no other")
    run_verb(parser)
