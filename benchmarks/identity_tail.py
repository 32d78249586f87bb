"""The long tail of people: is a person of two photos recognised as well as one of forty?

    python benchmarks/identity_tail.py run --data FACES --teacher T.onnx --lfw lfw.bin --runs R [--seeds 0] [--only ...]
    python benchmarks/identity_tail.py table [--runs R]

Of each person of the training photos two images are kept apart, and the students learn the others: losses for long
tails, as many images of each person, imitation of the teacher, a W made of its embeddings, and both. Then the two
images of a person are one genuine pair; at one threshold for all, what share of the people is accepted, by the number
of images that training saw of them? These people are known from training, unlike everywhere else here: so LFW is
measured, too.

All rows share margin and scale. The rates are those that `benchmarks/comparison.py` chose on the same photos for
training without a teacher, for L2 and for a W of embeddings; nothing else is tuned. Every result is a file in R;
finished ones are skipped. `table` adds the results of R to benchmarks/results/identity_tail.json and writes the table
of docs/guides/other_tasks.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from result_file import write_result
from short_study import (
    SIDES,
    ahead,
    cell,
    command_line,
    cost,
    embedded,
    percent,
    rates,
    recipe_of,
    store,
    stored,
    table_verb,
)

from facedistill.data import Dataset, open_dataset, save_selection
from facedistill.evaluation import far_key, resampled_mean
from facedistill.models import load_model
from facedistill.results import markdown
from facedistill.training import train

RESULTS = Path(__file__).parent / "results" / "identity_tail.json"
KEPT_APART, LEAST, SIZE, EPOCHS, BATCH, FAR = 2, 2, 48, 8, 128, 1e-3  # images kept apart, and at least seen
STUDENT = {"backbone": "mobilefacenet", "options": {"width": 0.5}}
KINDS = {"2 or 3 images": (2, 3), "4 to 9": (4, 9), "10 and more": (10, np.inf)}
SHARED = {"margin": "arcface", "margin_options": {"size": 0.2}, "scale": 32}
REFERENCE = "l2kd"
ALONE = {"name": "scratch", "terms": {"margin_softmax": SHARED}}


def _inherited(start: str, **terms: Any) -> dict[str, Any]:
    """Return ProxylessKD with a W that starts from the teacher's embeddings, and further terms."""
    return {
        "name": "proxylesskd",
        "classifier": {"start": start},
        "terms": {"margin_softmax": SHARED, **terms},
    }


METHODS: dict[str, tuple[dict[str, Any], float]] = {  # the method, and its rate
    "scratch": (ALONE, 0.1),
    "scratch, as many images of each person": (ALONE | {"sampler": {"kind": "class_balanced"}}, 0.1),
    **{
        name: ({"name": name, "terms": {name: SHARED}}, 0.1) for name in ("class_balanced", "focal", "balanced_softmax")
    },
    "ldam": ({"name": "ldam", "terms": {"ldam": {"scale": 32}}}, 0.1),
    "l2kd": ({"name": "l2kd"}, 1.0),
    "proxylesskd, centres": (_inherited("centres"), 0.3),
    "proxylesskd, centres, balanced softmax": (
        _inherited("centres", margin_softmax={"weight": 0}, balanced_softmax=SHARED),
        0.3,
    ),
    "proxylesskd, centres, with L2": (_inherited("centres", embedding_l2=64), 0.3),
    "proxylesskd, instances, with L2": (_inherited("instances", embedding_l2=64), 0.3),
}
TAUGHT = ("l2kd", "proxylesskd")  # with a teacher


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    folder = Path(args.runs)
    folder.mkdir(parents=True, exist_ok=True)
    seen, known = split(args.data, folder)
    counts = images_seen(seen, known)
    sets, teacher = {"known": known, "lfw": open_dataset(args.lfw)}, load_model(args.teacher)
    galleries = {name: embedded(teacher, one) for name, one in sets.items()}
    schedule = {"epochs": args.epochs, "batch": BATCH, "warmup_epochs": min(1, args.epochs / 4)}
    for seed in args.seeds:
        for number, (name, (method, rate)) in enumerate(METHODS.items()):
            done, out = folder / f"tail-{number}-{seed}.json", folder / f"{number}-{seed}"
            if done.exists() or name not in (args.only or METHODS):
                continue
            needed = args.teacher if method["name"] in TAUGHT else None
            student = STUDENT if needed else STUDENT | {"embedding_dim": teacher.embedding_dim}
            changes = {"method": method, "schedule": schedule | {"lr": rate}}
            train(recipe_of(str(folder / "seen.csv"), needed, student, SIZE, args.epochs, seed, changes), out)
            model = load_model(out)
            found = {"method": name, "seed": seed, "tar": rates(model, sets["lfw"], galleries["lfw"])}
            found["known"] = by_kind(embedded(model, known), galleries["known"], known.labels, counts)
            store(done, found | cost(out))
            print(name, seed, found["known"], flush=True)
    for kind, (low, high) in KINDS.items():
        print(kind, int(((low <= counts) & (counts <= high)).sum()), "people")


def split(data: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Keep two images of each person apart; people with fewer than four are left out."""
    whole, rng = open_dataset(data), np.random.default_rng(0)
    chosen: dict[str, list[int]] = {"seen": [], "known": []}
    for label in range(len(whole.class_names)):
        own = rng.permutation(np.flatnonzero(whole.labels == label)).tolist()
        if len(own) >= KEPT_APART + LEAST:
            chosen["known"] += own[:KEPT_APART]
            chosen["seen"] += sorted(own[KEPT_APART:])
    for name, images in chosen.items():
        keys, names = zip(*((whole.keys[i], whole.class_names[whole.labels[i]]) for i in images), strict=True)
        save_selection(folder / f"{name}.csv", data, keys, names)
    return open_dataset(str(folder / "seen.csv")), open_dataset(str(folder / "known.csv"))


def images_seen(seen: Dataset, known: Dataset) -> np.ndarray:
    """Return how many images of each person training sees, int64 (people,), in the order of known's labels."""
    number = dict(zip(seen.class_names, np.bincount(seen.labels).tolist(), strict=True))
    return np.array([number[name] for name in known.class_names])


def by_kind(
    probe: np.ndarray, teacher: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> dict[str, dict[str, list[float]]]:
    """Return the share of accepted genuine pairs at FAR, with its interval over people, by side and kind of person.

    Args:
        probe, teacher: unit rows of both networks, float32 (N, d), of the same images. labels: int64 (N,), people.
        counts: int64 (people,), the images of each that training saw.
    """
    found: dict[str, dict[str, list[float]]] = {}
    same = labels[:, None] == labels
    first, second = np.nonzero(same & ~np.eye(len(labels), dtype=bool))
    for side, gallery in (("student", probe), ("teacher", teacher)):
        scores = probe @ gallery.T
        impostors = scores[~same]
        accepted = int(FAR * len(impostors))
        threshold = np.partition(impostors, -accepted - 1)[-accepted - 1]  # so many impostor pairs are above it
        right, of = (scores[first, second] > threshold).astype(float), counts[labels[first]]
        found[side] = {}
        for kind, (low, high) in {"all": (0, np.inf), **KINDS}.items():
            here = (low <= of) & (of <= high)
            if not here.any():
                continue
            drawn = np.quantile(resampled_mean(right[here], labels[first][here]), (0.025, 0.975))
            found[side][kind] = [round(float(number), 4) for number in (right[here].mean(), *drawn)]
    return found


def collect(folder: Path) -> None:
    """Add the results of a folder to the stored ones, in place of those of the same method and seed."""
    known = json.loads(RESULTS.read_text("utf-8"))["runs"] if RESULTS.exists() else []
    rows = {(row["method"], row["seed"]): row for row in (*known, *stored(folder, "tail-*.json"))}
    place = {name: number for number, name in enumerate(METHODS)}
    write_result(RESULTS, {"runs": sorted(rows.values(), key=lambda row: (place[row["method"]], row["seed"]))})


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    return {"identity tail": table(result["runs"]), "identity tail differences": differences(result["runs"])}


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the shares by kind against the student's own gallery and the teacher's, then LFW's TAR."""
    rows = []
    for name in METHODS:
        own = [run for run in runs if run["method"] == name]
        if not own:
            continue
        shares = [[run["known"][side].get(kind) for run in own] for side in SIDES for kind in KINDS]
        lfw = [percent([run["tar"][side][far_key(FAR)][0] for run in own]) for side in SIDES]
        cells = [cell([one for one in of if one]) for of in shares] + lfw
        rows.append([name, str(len(own)), *cells])
    kinds = [f"{side}, {kind}" for side in SIDES.values() for kind in KINDS]
    return markdown(["method", "seeds", *kinds, "LFW, S→S", "LFW, S→T"], rows)


def differences(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return what the methods with an inherited W reach above `l2kd`."""
    names = [name for name in METHODS if name.startswith("proxylesskd")]
    rows = []
    for side, words in SIDES.items():
        for kind in (*KINDS, "LFW"):
            of = {name: _by_seed(runs, name, side, kind) for name in (REFERENCE, *names)}
            rows.append([f"{words}, {kind}", *(ahead(of[name], of[REFERENCE]) for name in names)])
    return markdown([f"less {REFERENCE}", *names], rows)


def _by_seed(runs: Sequence[Mapping[str, Any]], name: str, side: str, kind: str) -> dict[int, float]:
    return {
        run["seed"]: run["tar"][side][far_key(FAR)][0] if kind == "LFW" else run["known"][side][kind][0]
        for run in runs
        if run["method"] == name
    }


if __name__ == "__main__":
    writing = table_verb("guides/other_tasks.md", RESULTS, tables, collect)
    parser, running = command_line(__doc__, run, writing)
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--epochs", type=int, default=EPOCHS)
    running.add_argument("--only", nargs="+", choices=list(METHODS), metavar="METHOD", help="some of the methods")
    run_verb(parser)
