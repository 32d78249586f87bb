"""A gallery of LFW's people: who is found in it by teacher and student, and what an upgrade of its model is worth.

    python benchmarks/gallery_upgrade.py identification --lfw lfw.bin --data FACES --teacher T --student RUN
    python benchmarks/gallery_upgrade.py upgrade --lfw lfw.bin --data FACES --old RUN --old-teacher T --new T2 \
        --same RUN --other RUN --compatible RUN
    python benchmarks/gallery_upgrade.py table

The gallery holds the first image of each person of LFW with several (1,680); the rest of their images are searched for,
and so are the images of the 4,069 people of whom there is one, who are strangers. FPIR: the share of strangers for whom
somebody is named. Thresholds that a product would use are calibrated on the identities that training held out (a tenth
of FACES), never on LFW. Intervals: 95%, bootstrap over identities.

`upgrade` puts a larger network in the place of a small student. The student's own teacher is of its space already. A
network of another space and 512 dimensions searches mapped vectors, or those of everybody enrolled again. And it gets
a new last layer, linear, of the old student's 128 dimensions, which is all that is trained, on its cached embeddings:
by the margin softmax alone (`independent`, the control) and by the compatible methods, with three seeds. So the whole
network costs seconds and the layers differ in the loss alone.

Three students of full width are trained as a whole, beforehand: by the old student's teacher (`same`), by the network
of another space (`other`: independent of the old one, so nothing but a map leads to it), and by BCT (`compatible`).
Their rows may be left out.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import run_verb
from docs_table import put_table
from result_file import write_result
from torch import nn
from torch.nn import functional as F

from facedistill import __version__
from facedistill.data import Batch, Dataset, Embeddings, Output, hold_out, open_dataset
from facedistill.evaluation import Estimate, Verification, all_pairs, compatibility, far_key, update_gain
from facedistill.evaluation.metrics import Roc, rates_at
from facedistill.evaluation.protocols.identification import Identification, identify, split_gallery
from facedistill.files import cache_dir
from facedistill.gallery import Mapping, fit_mapping
from facedistill.head import ClassWeight, random_classifier
from facedistill.models import Model, embed_dataset, load_model
from facedistill.recipe import make_recipe
from facedistill.training.method import Method, wire_terms
from facedistill.training.resolved import resolve
from facedistill.training.teacher import Teacher

RESULTS = Path(__file__).parent / "results" / "gallery_upgrade.json"
FARS, FPIRS = (1e-3, 1e-4), (1e-2, 1e-3)
CALIBRATED = (1e-3, 1e-4, 1e-5)  # of one comparison
RESAMPLES = 200
FITTED = 4000  # images that fit a map
SCALE = {"margin_softmax": {"scale": 32}}
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {  # new last layers: the method and its terms' options
    "independent": ("scratch", SCALE),
    "bct": ("backward_compatible", SCALE | {"influence": {"scale": 32}}),
    "lce": ("lce", SCALE),
    "lce_more": ("lce", SCALE | {"lce": {"align": 10_000, "boundary": 10}}),
    "mixbct": ("mixbct", {"mixbct": {"scale": 32}}),
    "mixbct_more": ("mixbct", {"mixbct": {"scale": 32, "share": 0.6}}),
}
WHOLE = ("same", "other", "compatible")
SEEDS, EPOCHS, BATCH = (0, 1, 2), 30, 256


class Seen:
    """LFW, the held-out and the training identities, as models see them. Embeddings are made once and cached."""

    def __init__(self, lfw: str, data: str) -> None:
        self.lfw = open_dataset(lfw)
        self.train, self.held = hold_out(open_dataset(data), 0.1, 0)
        self.labels = np.asarray(self.lfw.labels)
        self.enrolled, self.probes = split_gallery(self.labels)

    def of(self, model: Model, dataset: Dataset) -> np.ndarray:
        """Unit embeddings, image and mirror image summed."""
        return self.table(model, dataset).fused("sum")

    def table(self, model: Model, dataset: Dataset) -> Embeddings:
        return embed_dataset(model, dataset, cache=cache_dir() / "embeddings")

    def through(self, model: Model, layer: torch.Tensor) -> np.ndarray:
        """Unit embeddings of LFW by the model with a new last layer (d, 512)."""
        vectors = self.table(model, self.lfw).vectors.sum(axis=1) @ layer.numpy().T
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def search(self, probe: np.ndarray, gallery: np.ndarray) -> Identification:
        """Search LFW's probes, embedded by one model, in its gallery, embedded by another."""
        labels = self.labels
        return identify(
            probe[self.probes],
            labels[self.probes],
            gallery[self.enrolled],
            labels[self.enrolled],
            ranks=(1,),
            fpirs=FPIRS,
            resamples=RESAMPLES,
        )


def identification(arguments: argparse.Namespace) -> None:
    seen = Seen(arguments.lfw, arguments.data)
    models = {"T": load_model(arguments.teacher), "S": load_model(arguments.student)}
    lfw = {name: seen.of(model, seen.lfw) for name, model in models.items()}
    held = {name: seen.of(model, seen.held) for name, model in models.items()}
    rows = []
    for probe, gallery in (("S", "T"), ("S", "S"), ("T", "T")):
        found = seen.search(lfw[probe], lfw[gallery])
        row: dict[str, Any] = {
            "pair": f"{probe}/{gallery}",
            "probes": found.mated,
            "strangers": found.probes - found.mated,
        }
        row |= {"enrolled": found.gallery_identities, "rank_1": _estimate(found.rank[1])}
        row |= {"dir": {key: _estimate(e) for key, (_, e) in found.tpir_at_fpir.items()}}
        calibration = all_pairs(held[probe], held[gallery], np.asarray(seen.held.labels), fars=CALIBRATED, resamples=0)
        row["calibrated"] = [
            _at_threshold(seen, lfw[probe], lfw[gallery], float(far), point.threshold, point.impostors)
            for far, (point, _) in calibration.tar_at_far.items()
        ]
        rows.append(row)
        print(row, flush=True)
    about = {name: _about(model) for name, model in models.items()}
    store("identification", {"models": about, "held_out": len(seen.held), "rows": rows})


def _at_threshold(
    seen: Seen, probe: np.ndarray, gallery: np.ndarray, far: float, threshold: float, impostors: int
) -> dict[str, Any]:
    """What a threshold that was calibrated elsewhere gives in the gallery."""
    labels, enrolled, probes = seen.labels, seen.enrolled, seen.probes
    scores = probe[probes] @ gallery[enrolled].T
    mates = labels[probes][:, None] == labels[enrolled][None]
    mated = mates.any(1)
    right = mates[np.arange(len(scores)), scores.argmax(1)]
    accepted = scores.max(1) >= threshold
    obtained, _ = rates_at(Roc.of(scores[mates], scores[~mates]), threshold)
    return {
        "far": far,
        "decided_by": impostors,
        "threshold": round(threshold, 4),
        "far_obtained": obtained,
        "fpir": float(accepted[~mated].mean()),
        "found": float((accepted & right)[mated].mean()),
    }


def upgrade(arguments: argparse.Namespace) -> None:
    seen = Seen(arguments.lfw, arguments.data)
    given = [name for name in ("old", "old_teacher", "new", *WHOLE) if getattr(arguments, name)]
    models = {name: load_model(getattr(arguments, name)) for name in given}
    lfw = {name: seen.of(model, seen.lfw) for name, model in models.items()}
    began = time.perf_counter()
    maps = {name: fitted(seen, models["old"], models[name]) for name in ("new", "other") if name in models}
    spent: dict[str, Any] = {"images": FITTED, "seconds": round((time.perf_counter() - began) / len(maps))}
    spent |= {name: line for name, (_, line) in maps.items()}
    mapped = {name: mapping(lfw["old"]) for name, (mapping, _) in maps.items()}
    rows, before = compared(seen, None, "old", lfw["old"], {"its own": lfw["old"]})
    for of_space in sorted({"old_teacher", "same", "compatible"} & models.keys()):
        own = {"the old vectors": lfw["old"], "its own": lfw[of_space]}
        rows += compared(seen, before, of_space, lfw[of_space], own)[0]
    for other, vectors in mapped.items():
        own = {"the old vectors, mapped": vectors, "its own": lfw[other]}
        rows += compared(seen, before, other, lfw[other], own)[0]
    for layer in LAYERS:
        for seed in SEEDS:
            found = seen.through(models["new"], last_layer(seen, models, layer, seed))
            own = {"the old vectors": lfw["old"], "its own": found}
            rows += [row | {"seed": seed} for row in compared(seen, before, layer, found, own)[0]]
    about = {name: _about(model, getattr(arguments, name)) for name, model in models.items()}
    store("upgrade", {"models": about, "map": spent, "epochs": EPOCHS, "rows": rows})


def fitted(seen: Seen, old: Model, new: Model) -> tuple[Mapping, str]:
    rows = np.random.default_rng(0).permutation(len(seen.train))[:FITTED]
    return fit_mapping(seen.of(old, seen.train)[rows], seen.of(new, seen.train)[rows])


def compared(
    seen: Seen, before: Verification | None, name: str, probe: np.ndarray, galleries: dict[str, np.ndarray]
) -> tuple[list[dict[str, Any]], Verification]:
    """Search each gallery; return a row for each, and what the last gallery gives, the model's own."""
    pairs = [all_pairs(probe, one, seen.labels, fars=FARS, resamples=RESAMPLES) for one in galleries.values()]
    made = []
    for (what, vectors), found in zip(galleries.items(), pairs, strict=True):
        searched = seen.search(probe, vectors)
        row: dict[str, Any] = {"way": way(name, what), "model": name, "gallery": what}
        row |= {"rank_1": _estimate(searched.rank[1])}
        row["dir"] = {key: _estimate(e) for key, (_, e) in searched.tpir_at_fpir.items()}
        row["tar"] = {key: _estimate(e) for key, (_, e) in found.tar_at_far.items()}
        if before is not None:
            row["criterion"] = _criterion(found, before, pairs[-1])
        made.append(row)
        print(row, flush=True)
    return made, pairs[-1]


def way(model: str, gallery: str) -> str:
    if model == "old":
        return "before"
    if gallery == "its own":
        return "c"
    return "b" if gallery.endswith("mapped") else "control" if model == "independent" else "a"


def last_layer(seen: Seen, models: dict[str, Model], name: str, seed: int) -> torch.Tensor:
    """Train a last layer (d, 512) for the new network by a method of the table, with the terms that recipes use."""
    old, new = (seen.table(models[key], seen.train) for key in ("old", "new"))
    kind, options = LAYERS[name]
    method = resolve(make_recipe({"method": {"name": kind, "terms": options}}).method)
    terms = wire_terms(method)
    torch.manual_seed(seed)
    student = Layer(nn.Linear(new.vectors.shape[2], old.vectors.shape[2], bias=False))
    weight = ClassWeight(random_classifier(new.class_names, old.vectors.shape[2], seed), "gradient")
    for wired in terms.values():
        if wired.term.needs_table:
            wired.term.bind_table(old, None)
    teachers = {"teacher": Teacher("teacher", models["old"], cache=old)}
    trained = Method(student, weight, teachers, terms).train()  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    labels = torch.from_numpy(new.labels)
    inputs = F.normalize(torch.from_numpy(new.vectors), dim=2)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if step * BATCH % len(labels) < BATCH:
            order = torch.randperm(len(labels))
        rows = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(labels)]
        index = torch.stack([rows, torch.randint(2, (len(rows),))], 1)
        images = inputs[index[:, 0], index[:, 1]]
        who = labels[rows]
        losses = trained(Batch(images, images, [(who, 1.0)], index, step / steps, who))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
    print(name, {key: round(loss.item(), 3) for key, loss in losses.items()}, flush=True)
    return student.layer.weight.detach()


class Layer(nn.Module):
    """A student that is a last layer: its images are the network's embeddings."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def outputs(self, images: torch.Tensor, features: bool = False) -> Output:
        return Output(self.layer(images))


def _criterion(found: Verification, before: Verification, possible: Verification) -> dict[str, Any]:
    """BCT's criterion, new/gallery above old/old, and the update gain, at each FAR."""
    gains = update_gain(found, before, possible)
    return {
        path.partition(".")[2]: {
            "difference": [round(v, 4) for v in (difference["value"], *difference["ci95"])],
            "compatible": difference.get("compatible"),
            "gain": round(gains[far].value, 3) if (far := path.partition(".")[2]) in gains else None,
        }
        for path, difference in compatibility(found, before).items()
    }


def _estimate(estimate: Estimate) -> list[float]:
    return [round(number, 4) for number in (estimate.value, *(estimate.ci95 or ()))]


def _about(model: Model, path: str = "") -> dict[str, Any]:
    """Facts of a model and, if it is a run, of its training."""
    about: dict[str, Any] = {"dim": model.embedding_dim, "parameters": model.parameters_count(), "space": model.space}
    run = Path(path) / "evaluation.json"
    if path and run.exists():
        result = json.loads(run.read_text("utf-8"))
        about |= {"method": result["method"]} | {key: result["training"][key] for key in ("epochs", "seed", "seconds")}
    return about


def store(what: str, found: dict[str, Any]) -> None:
    before = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    write_result(RESULTS, before | {what: {"version": __version__, "commit": commit.stdout.strip()} | found})


def tables(result: dict[str, Any]) -> dict[str, str]:
    made = {}
    if found := result.get("identification"):
        made["gallery identification"] = _table(
            ["probe / gallery", "rank 1", *(f"DIR at FPIR {far_key(far)}" for far in FPIRS)],
            [[row["pair"], _rate(row["rank_1"]), *_rates(row["dir"], FPIRS)] for row in found["rows"]],
        )
        made["gallery calibrated"] = _table(
            ["probe / gallery", "calibrated for FAR", "threshold", "FAR obtained", "FPIR", "found"],
            [
                [row["pair"], far_key(at["far"]), f"{at['threshold']:.3f}", f"{at['far_obtained']:.1e}"]
                + [f"{100 * at[key]:.1f}" for key in ("fpir", "found")]
                for row in found["rows"]
                for at in row["calibrated"]
            ],
        )
    if found := result.get("upgrade"):
        kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in found["rows"]:
            kinds.setdefault((row["way"], NAMES[row["model"]], row["gallery"]), []).append(row)
        rows = [[*kind, *_upgraded(same)] for kind, same in kinds.items()]
        heads = [*(f"DIR at FPIR {far_key(f)}" for f in FPIRS), *(f"TAR at FAR {far_key(f)}" for f in FARS)]
        made["gallery upgrade"] = _table(
            ["way", "searching model", "gallery", *heads, "against old/old, FAR 1e-4", "update gain"], rows
        )
    return made


def _upgraded(rows: list[dict[str, Any]]) -> list[str]:
    """The cells of one kind of upgrade: an estimate with its interval, or the mean of several seeds and their range."""
    of = {key: [row[key] for row in rows] for key in ("dir", "tar")}
    cells = [
        *(_over([found[far_key(at)] for found in of["dir"] if far_key(at) in found]) for at in FPIRS),
        *(_over([found[far_key(at)] for found in of["tar"] if far_key(at) in found]) for at in FARS),
    ]
    criteria = [row["criterion"]["1e-4"] for row in rows if "criterion" in row]
    verdicts = sorted({VERDICTS[one["compatible"]] for one in criteria})
    gains = [one["gain"] for one in criteria if one["gain"] is not None and rows[0]["gallery"] != "its own"]
    return [*cells, " or ".join(verdicts), f"{np.mean(gains):.2f}" if gains else ""]


def _over(estimates: list[list[float]]) -> str:
    if len(estimates) < 2:
        return _rate(estimates[0]) if estimates else ""
    values = [100 * value for value, *_ in estimates]
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


VERDICTS = {True: "above", False: "below", None: "not distinguishable"}
NAMES = {
    "old": "the old student (0.28 M)",
    "old_teacher": "the old student's teacher",
    "independent": "the new network, last layer independent",
    "bct": "the new network, last layer by `backward_compatible`",
    "lce": "the new network, last layer by `lce`",
    "lce_more": "the new network, last layer by `lce`, align 10,000, boundary 10",
    "mixbct": "the new network, last layer by `mixbct`",
    "mixbct_more": "the new network, last layer by `mixbct`, share 0.6",
    "same": "a student of full width, of the old student's teacher",
    "other": "a student of full width, of the new network",
    "compatible": "a student of full width, by `backward_compatible`",
    "new": "the new network as it is, 512 dimensions",
}


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def _rate(estimate: list[float]) -> str:
    value, *interval = (100 * number for number in estimate)
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _rates(found: dict[str, list[float]], targets: tuple[float, ...]) -> list[str]:
    """A cell for each target; empty where the set is too small for it."""
    return [_rate(found[key]) if (key := far_key(target)) in found else "" for target in targets]


def write_tables(_: argparse.Namespace) -> None:
    for name, table in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("gallery-upgrade.md", name, table)
        print(table, end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    options = {
        identification: ("lfw", "data", "teacher", "student"),
        upgrade: ("lfw", "data", "old", "old-teacher", "new", *WHOLE),
        write_tables: (),
    }
    for name, verb in (("identification", identification), ("upgrade", upgrade), ("table", write_tables)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        for option in options[verb]:
            sub.add_argument(f"--{option}", required=option not in WHOLE)
    run_verb(parser)
