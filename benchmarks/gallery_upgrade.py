"""A gallery of LFW's people: who is found in it by teacher and student, and what an upgrade of its model is worth.

    python benchmarks/gallery_upgrade.py identification --lfw lfw.bin --data FACES --teacher T --student RUN
    python benchmarks/gallery_upgrade.py upgrade --lfw lfw.bin --data FACES --old RUN --old-teacher T
        --independent RUN --compatible RUN --new-teacher T2
    python benchmarks/gallery_upgrade.py table

The gallery holds the first image of each person of LFW with several (1,680); the rest of their images are searched for,
and so are the images of the 4,069 people of whom there is one, who are strangers. FPIR: the share of strangers for whom
somebody is named. Thresholds that a product would use are calibrated on the identities that training held out (a tenth
of FACES), never on LFW. Intervals: 95%, bootstrap over identities.

Both new students of `upgrade` have the same network, data, epochs and seed. `independent` inherits the embeddings of a
new teacher of 512 dimensions, through 128 and a linear layer that it keeps. `compatible` does the same through a linear
layer that is dropped, and has BCT's influence loss of the old student's class centres beside it (the recipes are in
the result). Without its linear layer, `independent` is the control of 128 dimensions.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from docs_table import put_table
from result_file import write_result

from facedistill import __version__
from facedistill.data import Dataset, Embeddings, hold_out, open_dataset
from facedistill.evaluation import Estimate, Verification, all_pairs, compatibility, update_gain
from facedistill.evaluation.metrics import Roc, rates_at
from facedistill.evaluation.protocols.identification import Identification, identify, split_gallery
from facedistill.files import cache_dir
from facedistill.gallery import fit_mapping
from facedistill.models import Model, embed_dataset, load_model

RESULTS = Path(__file__).parent / "results" / "gallery_upgrade.json"
FARS, FPIRS = (1e-3, 1e-4), (1e-2, 1e-3)
CALIBRATED = (1e-3, 1e-4, 1e-5)  # of one comparison
RESAMPLES = 300
FITTED = 4000  # images that fit a map


class Seen:
    """LFW, the held-out and the training identities, as models see them. Embeddings are made once and cached."""

    def __init__(self, lfw: str, data: str) -> None:
        self.lfw = open_dataset(lfw)
        self.train, self.held = hold_out(open_dataset(data), 0.1, 0)
        rows = np.sort(np.random.default_rng(0).permutation(len(self.train))[:FITTED])
        self.fitting = self.train.subset(rows)
        self.labels = np.asarray(self.lfw.labels)
        self.enrolled, self.probes = split_gallery(self.labels)

    def of(self, model: Model, dataset: Dataset) -> np.ndarray:
        """Unit embeddings, image and mirror image summed."""
        table: Embeddings = embed_dataset(model, dataset, cache=cache_dir() / "embeddings")
        return table.fused("sum")

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
    names = ("old", "old_teacher", "independent", "compatible", "new_teacher")
    models = {name: load_model(getattr(arguments, name)) for name in names}
    independent = models["independent"]
    models["control"] = Model(independent.backbone, independent.input).eval()
    lfw = {name: seen.of(model, seen.lfw) for name, model in models.items()}
    old, before = seen.of(models["old"], seen.fitting), lfw["old"]
    galleries = {}
    for name in ("independent", "new_teacher"):
        began = time.perf_counter()
        new = seen.of(models[name], seen.fitting)
        middle = time.perf_counter()
        mapping, line = fit_mapping(old, new)
        spent = {"images": len(new), "embed_seconds": round(middle - began), "line": line}
        galleries[name] = (mapping(before), spent | {"fit_seconds": round(time.perf_counter() - middle)})
    wanted = [
        ("before", "old", "old", before, None),
        ("a", "old_teacher", "the old vectors", before, None),
        ("c", "old_teacher", "its own", lfw["old_teacher"], None),
        ("a", "compatible", "the old vectors", before, None),
        ("c", "compatible", "its own", lfw["compatible"], None),
        ("control", "control", "the old vectors", before, None),
        ("control", "control", "its own", lfw["control"], None),
        ("b", "independent", "the old vectors, mapped", *galleries["independent"]),
        ("c", "independent", "its own", lfw["independent"], None),
        ("b", "new_teacher", "the old vectors, mapped", *galleries["new_teacher"]),
        ("c", "new_teacher", "its own", lfw["new_teacher"], None),
    ]
    pairs = [
        all_pairs(lfw[by], enrolled, seen.labels, fars=FARS, resamples=RESAMPLES) for _, by, _, enrolled, _ in wanted
    ]
    own = {by: found for (_, by, what, *_), found in zip(wanted, pairs, strict=True) if what in ("its own", "old")}
    rows = []
    for (way, by, what, enrolled, spent), found in zip(wanted, pairs, strict=True):
        searched = seen.search(lfw[by], enrolled)
        row: dict[str, Any] = {"way": way, "model": by, "gallery": what, "rank_1": _estimate(searched.rank[1])}
        row["dir"] = {key: _estimate(e) for key, (_, e) in searched.tpir_at_fpir.items()}
        row |= {"tar": {key: _estimate(e) for key, (_, e) in found.tar_at_far.items()}, "spent": spent}
        row |= {"criterion": _criterion(found, pairs[0], own[by])} if way != "before" else {}
        rows.append(row)
        print(row, flush=True)
    about = {name: _about(model, getattr(arguments, name, "")) for name, model in models.items()}
    store("upgrade", {"models": about, "rows": rows})


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
            ["probe / gallery", "rank 1", *(f"DIR at FPIR {far}" for far in found["rows"][0]["dir"])],
            [[row["pair"], _rate(row["rank_1"]), *map(_rate, row["dir"].values())] for row in found["rows"]],
        )
        made["gallery calibrated"] = _table(
            ["probe / gallery", "calibrated for FAR", "threshold", "FAR obtained", "FPIR", "found"],
            [
                [row["pair"], f"{at['far']:g}", f"{at['threshold']:.3f}", f"{at['far_obtained']:.1e}"]
                + [f"{100 * at[key]:.1f}" for key in ("fpir", "found")]
                for row in found["rows"]
                for at in row["calibrated"]
            ],
        )
    if found := result.get("upgrade"):
        rows = []
        for row in found["rows"]:
            at = row.get("criterion", {}).get("1e-4", {})
            verdict = {True: "above", False: "below", None: "not distinguishable"}[at.get("compatible")] if at else ""
            gain = "" if at.get("gain") is None or row["gallery"] == "its own" else f"{at['gain']:.2f}"
            name = NAMES[row["model"]]
            rates = [*row["dir"].values(), *row["tar"].values()]
            rows.append([row["way"], name, row["gallery"], *map(_rate, rates), verdict, gain])
        heads = [*(f"DIR at FPIR {f:g}".replace("e-0", "e-") for f in FPIRS), *(f"TAR at FAR {f:g}" for f in FARS)]
        made["gallery upgrade"] = _table(
            ["way", "searching model", "gallery", *heads, "against old/old, FAR 1e-4", "update gain"], rows
        )
        made["gallery models"] = _table(
            ["model", "dimensions", "parameters", "method", "epochs", "seed", "minutes"],
            [
                [NAMES[name], str(m["dim"]), f"{m['parameters']:,}", *_training(m)]
                for name, m in found["models"].items()
            ],
        )
    return made


def _training(model: dict[str, Any]) -> list[str]:
    """The cells of a model that was trained for this study, empty for others."""
    if "seconds" not in model:
        return [""] * 4
    return [model["method"], str(model["epochs"]), str(model["seed"]), f"{model['seconds'] / 60:.0f}"]


NAMES = {
    "old": "old student",
    "old_teacher": "the old student's teacher",
    "compatible": "new student, compatible",
    "control": "new student, independent, without its last layer",
    "independent": "new student, independent",
    "new_teacher": "the new student's teacher",
}


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def _rate(estimate: list[float]) -> str:
    value, *interval = (100 * number for number in estimate)
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def write_tables(_: argparse.Namespace) -> None:
    for name, table in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("gallery-upgrade.md", name, table)
        print(table, end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    options = {
        identification: ("lfw", "data", "teacher", "student"),
        upgrade: ("lfw", "data", "old", "old-teacher", "independent", "compatible", "new-teacher"),
        write_tables: (),
    }
    for name, verb in (("identification", identification), ("upgrade", upgrade), ("table", write_tables)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        for option in options[verb]:
            sub.add_argument(f"--{option}", required=True)
    arguments = parser.parse_args()
    arguments.verb(arguments)
