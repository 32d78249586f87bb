"""What `clean` finds of planted errors, beside a fixed threshold and clustering, and what neighbours cost.

    python benchmarks/clean.py find --data FACES --teacher T.onnx --lfw lfw.bin
    python benchmarks/clean.py neighbours
    python benchmarks/clean.py table

`find` plants errors of one kind at a time in 0, 1, 5 and 20% of the images (swapped, copies) or persons (split, merged,
overlap). Embeddings are made once; only copies that are re-encoded are embedded anew. No data set is clean: what
`clean` lists in the data as they are (0%) counts neither for nor against anybody. All else that is not planted is
false.

- swapped: images change their labels among each other.
- duplicate: an image is there again, in half of the cases re-encoded (smaller, JPEG), in half under another name.
- split: 30 to 50% of a person's images (6 or more) get a new name. merged: two persons get one name.
- overlap: people of LFW with 6 or more images stand in the data with half of them, and in the set with the rest.
- unclear: images without a face (drawn backgrounds, noise, corners of LFW's images) and images of LFW that are blurred
  or of 6 to 10 pixels, under the names of random persons.

The rivals: a fixed cosine of 0.3 between an image and its person, 0.6 between centroids, 0.97 between copies, and a
sharpness of 5, the standard deviation of the Laplacian. And
scikit-learn's agglomerative clustering (average linkage, the same cosines) of each person's images (swapped: outside
the largest cluster; merged: two clusters of 10% or more) and of the centroids (split). Intervals: 95%, bootstrap.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from clean_planted import AGAIN, SHARES, Finds, Nobody, Planted, duplicate, merged, overlap, split, swapped
from command import run_verb
from docs_table import put_table
from result_file import write_result

from facedistill import __version__
from facedistill.cleaning import examine, faces_of, nearest
from facedistill.data import open_dataset
from facedistill.evaluation import resampled_mean
from facedistill.files import cache_dir
from facedistill.models import embed_dataset, load_model

RESULTS = Path(__file__).parent / "results" / "clean.json"
KINDS = ("swapped", "merged", "split", "duplicate", "overlap", "unclear")
GOALS = {"swapped": (0.95, 0.9), "merged": (0.95, 0.85), "split": (0.95, 0.9), "duplicate": (0.99, 0.98)}
GOALS |= {"overlap": (0.95, 0.95)}
FIXED, FIXED_COPY, FIXED_SHARPNESS = 0.3, 0.97, 5.0


def finds(kind: str, planted: Planted, listed: bool = False) -> Finds:
    """What `clean` acts on, named as the planted errors are; with `listed`, also what it only lists to look at."""
    found: Finds = set()
    for finding in examine(planted.faces, 0.95, planted.against):
        if finding.kind == kind and (finding.sure or listed):
            if kind == "split":
                found.add(frozenset((finding.person, finding.other)))
            elif kind == "duplicate":
                found.add(copy_of(finding.image, finding.other))
                if listed:
                    found.add(finding.other)  # which of two copies is left out may change with others planted
            else:
                found.add(finding.image or finding.person)
    return found


def copy_of(image: str, other: str) -> str:
    """The planted copy of two; else the first."""
    return other if other.startswith("copy ") else image


def as_before(find: Any) -> Any:
    """A pair of persons as it was called before one of them was split."""
    return frozenset(name.removeprefix(AGAIN) for name in find) if isinstance(find, frozenset) else find


def by_threshold(kind: str, planted: Planted) -> Finds | None:
    faces = planted.faces
    units, labels, names = faces.units, faces.labels, faces.class_names
    centres = means(units, labels, len(names))
    if kind == "swapped":
        return {faces.keys[i] for i in np.flatnonzero(np.einsum("nd,nd->n", units, centres[labels]) < FIXED)}
    if kind == "unclear":
        assert planted.sharpness is not None
        return {faces.keys[i] for i in np.flatnonzero(planted.sharpness < FIXED_SHARPNESS)}
    if kind == "duplicate":
        cosine, place = nearest(units, units, 8, leave_out_self=True)
        return {
            copy_of(faces.keys[max(i, place[i, k])], faces.keys[min(i, place[i, k])])
            for i, k in np.argwhere(cosine > FIXED_COPY)
        }
    if kind == "merged":
        return None  # no cosine of one image says so
    others = planted.against["lfw"] if kind == "overlap" else None
    targets = centres if others is None else means(others.fused("sum"), others.labels, len(others.class_names))
    cosine, place = nearest(centres, targets, 1, leave_out_self=others is None)
    near = np.flatnonzero((cosine[:, 0] > 2 * FIXED) & (np.bincount(labels, minlength=len(names)) > 0))
    return {names[i] if others else frozenset((names[i], names[place[i, 0]])) for i in near}


def by_clustering(kind: str, planted: Planted) -> Finds | None:
    from sklearn.cluster import AgglomerativeClustering

    def clusters(units: np.ndarray, cosine: float) -> np.ndarray:
        settings: dict[str, Any] = {"n_clusters": None, "metric": "cosine", "linkage": "average"}
        return AgglomerativeClustering(distance_threshold=1 - cosine, **settings).fit_predict(units)

    faces, found = planted.faces, set[Any]()
    if kind == "split":
        of = clusters(means(faces.units, faces.labels, len(faces.class_names)), 2 * FIXED)
        for cluster in np.flatnonzero(np.bincount(of) > 1):
            first, *others = [faces.class_names[i] for i in np.flatnonzero(of == cluster)]
            found |= {frozenset((first, other)) for other in others}
        return found
    if kind not in ("swapped", "merged"):
        return None
    for label in range(len(faces.class_names)):
        rows = np.flatnonzero(faces.labels == label)
        if len(rows) < 3:
            continue
        of = clusters(faces.units[rows], FIXED)
        sizes = np.bincount(of)
        if kind == "merged" and (sizes >= max(2, 0.1 * len(rows))).sum() > 1:
            found.add(faces.class_names[label])
        if kind == "swapped":
            found |= {faces.keys[row] for row in rows[of != sizes.argmax()]}
    return found


def means(units: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((count, units.shape[1]))
    np.add.at(sums, labels, units)
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)).astype(np.float32)


FINDERS: dict[str, Callable[[str, Planted], Finds | None]] = {
    "clean": finds,
    "fixed threshold": by_threshold,
    "clustering": by_clustering,
}


def find(args: argparse.Namespace) -> None:
    dataset, model, cache = open_dataset(args.data), load_model(args.teacher), cache_dir() / "embeddings"
    base = faces_of(dataset, embed_dataset(model, dataset, cache=cache), model)
    lfw = embed_dataset(model, open_dataset(args.lfw), cache=cache)
    without_face = Nobody(open_dataset(args.lfw), model, dataset)
    plant: dict[str, Callable[[float, np.random.Generator], Planted]] = {
        "swapped": lambda share, rng: swapped(base, share, rng),
        "merged": lambda share, rng: merged(base, share, rng),
        "split": lambda share, rng: split(base, share, rng),
        "duplicate": lambda share, rng: duplicate(base, share, rng, dataset, model),
        "overlap": lambda share, rng: overlap(base, share, rng, lfw),
        "unclear": lambda share, rng: without_face.plant(base, share, rng),
    }
    rows = [row for kind in KINDS for row in measured(kind, plant[kind])]
    store("find", rows)


def measured(kind: str, plant: Callable[[float, np.random.Generator], Planted]) -> Iterator[dict[str, Any]]:
    before: Finds = set()
    for share in SHARES:
        planted = plant(share, np.random.default_rng(int(1000 * share)))
        for name, finder in FINDERS.items():
            start = time.perf_counter()
            found = finder(kind, planted)
            if found is None:
                continue
            row = {"kind": kind, "share": share, "by": name, "planted": len(planted.errors), "found": len(found)}
            if share:
                counted = {one for one in found if one in planted.errors or as_before(one) not in before}
                hits = np.array([one in planted.errors for one in counted], float)
                recalled = np.array([one in found for one in planted.errors], float)
                row |= {"precision": estimate(hits), "recall": estimate(recalled)}
            elif name == "clean":
                before = finds(kind, planted, listed=True)
                row["listed"] = len(before)
            print(row | {"seconds": round(time.perf_counter() - start, 1)}, flush=True)
            yield row


def estimate(values: np.ndarray) -> list[float] | None:
    """The mean and its 95% interval."""
    if not len(values):
        return None
    ends = np.quantile(resampled_mean(values, np.arange(len(values)), 1000), [0.025, 0.975])
    return [round(float(number), 4) for number in (values.mean(), *ends)]


def neighbours(_: argparse.Namespace) -> None:
    rng, rows = np.random.default_rng(0), []
    nearest(np.ones((9, 128), np.float32), np.ones((9, 128), np.float32), 8)
    first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in (25_000, 50_000, 100_000):
        units = rng.normal(size=(count, 128)).astype(np.float32)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        start = time.perf_counter()
        nearest(units, units, 8, leave_out_self=True)
        seconds = time.perf_counter() - start
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first
        rows.append({"images": count, "seconds": round(seconds, 1), "more_memory_mb": round(more / 1024)})
        print(rows[-1], flush=True)
    store("neighbours", rows)


def store(what: str, rows: list[dict[str, Any]]) -> None:
    old = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    write_result(RESULTS, old | {"version": __version__, what: rows})


def tables(result: dict[str, Any]) -> dict[str, str]:
    made = {}
    if rows := result.get("find"):
        lines = ["| kind | planted | by | precision | recall |", "| --- | --- | --- | --- | --- |"]
        for row in rows:
            if row["share"]:
                goal = "" if row["share"] != 0.05 or row["by"] != "clean" else _goal(row)
                planted = f"{row['share']:.0%} ({row['planted']:,})"
                cells = [row["kind"], planted, row["by"], _rate(row["precision"]), _rate(row["recall"]) + goal]
                lines.append(f"| {' | '.join(cells)} |")
        made["clean find"] = "\n".join(lines)
        names = [name for name in FINDERS if any(row["by"] == name for row in rows)]
        lines = [f"| kind | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
        for kind in KINDS:
            counts = {row["by"]: f"{row['found']:,}" for row in rows if row["kind"] == kind and not row["share"]}
            lines.append(f"| {kind} | {' | '.join(counts.get(name, '') for name in names)} |")
        made["clean before"] = "\n".join(lines)
    if rows := result.get("neighbours"):
        lines = ["| images | seconds | more memory, MB |", "| --- | --- | --- |"]
        lines += [f"| {row['images']:,} | {row['seconds']:,} | {row['more_memory_mb']:,} |" for row in rows]
        made["clean neighbours"] = "\n".join(lines)
    return made


def _rate(estimate: list[float] | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (100 * number for number in estimate)
    return f"{value:.1f} [{low:.0f}, {high:.0f}]"


def _goal(row: dict[str, Any]) -> str:
    if row["kind"] not in GOALS:
        return ""
    precision, recall = GOALS[row["kind"]]
    reached = (row["precision"] or [0])[0] >= precision and row["recall"][0] >= recall
    return f" (goal {100 * precision:.0f} / {100 * recall:.0f}{': reached' if reached else ''})"


def write_tables(_: argparse.Namespace) -> None:
    for name, table in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("clean.md", name, table)
        print(table, end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, verb in (("find", find), ("neighbours", neighbours), ("table", write_tables)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        if name == "find":
            for option in ("data", "teacher", "lfw"):
                sub.add_argument(f"--{option}", required=True)
    run_verb(parser)
