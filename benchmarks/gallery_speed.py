"""How fast a gallery opens, searches and grows, beside the hardware's floor and beside other programs.

    python benchmarks/gallery_speed.py search --size 1000000 --folder SCRATCH
    python benchmarks/gallery_speed.py index --size 100000 --folder SCRATCH
    python benchmarks/gallery_speed.py enrol --photos FACES --model TEACHER
    python benchmarks/gallery_speed.py table

The vectors are made at random, in clusters as faces are: four of each person, with a cosine of 0.55 between two of one
person, and of about 0 between people. Half of the 256 probes are new vectors of enrolled people, half are strangers.
All that is compared in a row of a table ran in turns in one process with one thread, and the median of the rounds is
given: seconds of the processor, because the machine was shared; of the clock for opening and enrolling. The bare
product is torch's, block by block, of the same mapped rows: it finds nobody. The floor of memory is one pass over the
rows that adds them up. numpy and faiss-cpu (IndexFlatIP) hold all vectors in memory; sqlite-vec searches one probe at a
time, and is measured with a few.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from command import run_verb
from docs_table import put_table
from result_file import write_result

from facedistill import __version__
from facedistill.backbones import processor
from facedistill.data import open_dataset
from facedistill.gallery import Gallery, enroll
from facedistill.models import load_model
from facedistill.results import markdown

RESULTS = Path(__file__).parent / "results" / "gallery_speed.json"
DIM, EACH, PROBES, ROUNDS, BLOCK = 512, 4, 256, 3, 4096
SPREAD = 0.9  # of a person's vectors around the centre: 1 / (1 + SPREAD^2) is the cosine of two of them
FEW = 4  # probes of sqlite-vec
ONES = 64  # probes, one at a time: one alone is too fast for the clock
INDEXED = (("exact", "index"), ("exact, one", "index, one"))

VEC = """
import sqlite3, sys, time
extension, path, dim, *probes = sys.stdin.read().split()
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension(extension)
db.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{dim}] distance_metric=cosine)")
db.execute("ATTACH ? AS g", (path,))
db.execute("INSERT INTO v (rowid, e) SELECT id, vector FROM g.vectors")
began = time.process_time()
for probe in probes:
    sql = "SELECT rowid FROM v WHERE e MATCH ? AND k = 5 ORDER BY distance"
    print(db.execute(sql, (bytes.fromhex(probe),)).fetchall()[0][0])
print(time.process_time() - began)
"""


def people(size: int) -> Any:
    """Yield the centres and vectors of 1,000 people at a time, float32."""
    rng = np.random.default_rng(0)
    for start in range(0, size // EACH, 1000):
        centres = rng.normal(size=(1000, DIM)).astype(np.float32)
        yield start, centres, centres[:, None] + SPREAD * rng.normal(size=(1000, EACH, DIM)).astype(np.float32)


def filled(path: Path, size: int, precision: str) -> float:
    """Make the gallery if it is absent; return the seconds that it took."""
    began = time.perf_counter()
    if not path.exists():
        with Gallery.create(path, space="s", dim=DIM, precision=precision) as gallery:  # type: ignore[arg-type]
            for start, _, vectors in people(size):
                with gallery.writing():
                    for i, of in enumerate(vectors, start):
                        gallery.add(f"person {i}", of, made_by="model")
    return time.perf_counter() - began


def probes_for(size: int) -> np.ndarray:
    """128 new vectors of enrolled people, then 128 strangers; unit rows."""
    rng = np.random.default_rng(1)
    _, centres, _ = next(iter(people(size)))
    mated = centres[:: 1000 // 125][: PROBES // 2]
    mated = np.concatenate([mated, centres[1 : 1 + PROBES // 2 - len(mated)]])
    mated = mated + SPREAD * rng.normal(size=mated.shape)
    both = np.concatenate([mated, rng.normal(size=(PROBES - len(mated), DIM))])
    return (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float32)


def timed(
    works: dict[str, Callable[[], Any]], clock: Callable[[], float] = time.process_time, rounds: int = ROUNDS
) -> dict[str, float]:
    """Run the works in turns; return the median seconds of each."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = clock()
            work()
            found[name].append(clock() - began)
    return {name: round(statistics.median(seconds), 4) for name, seconds in found.items()}


def search(args: argparse.Namespace) -> None:
    folder, probes = Path(args.folder), probes_for(args.size)
    nearest, rows = {}, []
    for precision in ("float32", "int8"):
        path = folder / f"{precision}-{args.size}"
        filling = filled(path, args.size, precision)
        opening = {}
        for name in ("first", "again"):
            began = time.perf_counter()
            with Gallery.open(path) as gallery:
                gallery._rows.current()
                opening[name] = round(time.perf_counter() - began, 3)
        with Gallery.open(path) as gallery:
            began = time.process_time()
            nearest[precision] = [hits[0].name for hits in gallery.search(probes, top=1)]
            first = time.process_time() - began
            found = timed(_works(gallery, probes))
        row = {"precision": precision, "size": args.size, "threads": torch.get_num_threads(), "seconds": found}
        row |= {"opening": opening, "first_search": round(first, 3), "filling": round(filling, 1)}
        row |= {"bytes": path.stat().st_size}
        rows.append(row)
        print(row, flush=True)
    same = np.array([a == b for a, b in zip(nearest["float32"], nearest["int8"], strict=True)])
    rows[-1]["recall"] = {"enrolled": float(same[: PROBES // 2].mean()), "strangers": float(same[PROBES // 2 :].mean())}
    _store("search", [row for row in _stored("search") if row["size"] != args.size] + rows)
    rivals = _rivals(folder / f"float32-{args.size}", probes, args.size)
    _store("rivals", [row for row in _stored("rivals") if row["size"] != args.size] + [rivals])


def _works(gallery: Gallery, probes: np.ndarray) -> dict[str, Callable[[], Any]]:
    rows = gallery._rows.current()
    turned = {kind: torch.from_numpy(probes).to(kind).T.contiguous() for kind in (torch.float32, torch.bfloat16)}

    def product(kind: torch.dtype) -> None:
        for _, block in rows.blocks(BLOCK):
            torch.from_numpy(block).to(kind) @ turned[kind]

    def read() -> None:
        for _, block in rows.blocks(BLOCK):
            torch.from_numpy(block).view(torch.int32).sum()

    return {
        "search": lambda: gallery.search(probes, top=5),
        "product float32": lambda: product(torch.float32),
        "product bfloat16": lambda: product(torch.bfloat16),
        "read": read,
    }


def _rivals(path: Path, probes: np.ndarray, size: int) -> dict[str, Any]:
    """The seconds of other programs for the same probes, checked to find the same nearest vectors."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    with Gallery.open(path) as gallery:
        rows = gallery._rows.current().parts[0]
        flat = faiss.IndexFlatIP(DIM)
        flat.add(np.ascontiguousarray(rows))

        def numpy_search() -> np.ndarray:
            best = []
            for start in range(0, len(rows), 100_000):
                scores = rows[start : start + 100_000] @ probes.T
                top = np.argpartition(-scores, 5, axis=0)[:5]
                best.append(np.stack([np.take_along_axis(scores, top, 0), top + start]))
            scores, places = np.concatenate(best, axis=1)
            return places[scores.argmax(axis=0), np.arange(PROBES)].astype(int)

        right = numpy_search().tolist()
        assert flat.search(probes, 5)[1][:, 0].tolist() == right
        works = {"facedistill": lambda: gallery.search(probes, top=5), "numpy": numpy_search}
        found = timed(works | {"faiss-cpu": lambda: flat.search(probes, 5)})
    if (vec := _sqlite_vec(path, probes[:FEW])) is not None:
        places, seconds = vec
        assert places == right[:FEW], (places, right[:FEW])
        found["sqlite-vec"] = round(seconds * PROBES / FEW, 1)
    row = {"size": size, "threads": torch.get_num_threads(), "seconds": found}
    print(row, flush=True)
    return row


def _sqlite_vec(path: Path, probes: np.ndarray) -> tuple[list[int], float] | None:
    """Return the nearest rows and the seconds, or None without a Python whose sqlite3 loads extensions."""
    import sqlite_vec

    words = [sqlite_vec.loadable_path(), str(path), str(DIM), *(probe.tobytes().hex() for probe in probes)]
    for python in ("/usr/bin/python3", sys.executable):
        done = subprocess.run([python, "-c", VEC], input="\n".join(words), capture_output=True, text=True)
        if done.returncode == 0:
            *places, seconds = done.stdout.split()
            return [int(place) - 1 for place in places], float(seconds)
    return None


def index(args: argparse.Namespace) -> None:
    path, probes = Path(args.folder) / f"float32-{args.size}", probes_for(args.size)
    filled(path, args.size, "float32")
    Path(f"{path}-index").unlink(missing_ok=True)
    with Gallery.open(path) as gallery:
        exact = gallery.search(probes, top=5)
        began = time.perf_counter()
        recall = gallery.index_recall()
        made = time.perf_counter() - began
        found = gallery.search(probes, top=5, index=True)
        same = np.array([a[0].name == b[0].name for a, b in zip(exact, found, strict=True)])
        works = {"exact": lambda: gallery.search(probes, top=5)}
        works |= {"index": lambda: gallery.search(probes, top=5, index=True)}
        works |= {"exact, one": lambda: gallery.search(probes[0], top=5)}
        works |= {"index, one": lambda: [gallery.search(one, top=5, index=True)[0] for one in probes[:ONES]]}
        seconds = timed(works)
        seconds["index, one"] /= ONES
    row: dict[str, Any] = {"size": args.size, "threads": torch.get_num_threads(), "made": round(made, 1)}
    row |= {"seconds": seconds, "bytes": Path(f"{path}-index").stat().st_size, "recall_printed": recall}
    row["recall"] = {"enrolled": float(same[: PROBES // 2].mean()), "strangers": float(same[PROBES // 2 :].mean())}
    print(row, flush=True)
    _store("index", [old for old in _stored("index") if old["size"] != args.size] + [row])


def enrol(args: argparse.Namespace) -> None:
    model, dataset = load_model(args.model, classifier=False), open_dataset(args.photos)
    pixels = dataset.batch(range(64)).images
    batches = -(-len(dataset) // 64)
    model.embed(pixels)

    def bare() -> None:
        for _ in range(batches):
            model.embed(pixels)

    def ours() -> None:
        with TemporaryDirectory() as folder:
            enroll(Path(folder) / "g", args.photos, model)

    seconds = timed({"enroll": ours, "bare": bare}, time.perf_counter)
    images = {"enroll": len(dataset), "bare": 64 * batches}
    rates = {name: round(images[name] / seconds[name], 1) for name in seconds}
    row = {"model": Path(args.model).name, "images": len(dataset), "threads": torch.get_num_threads(), "rates": rates}
    print(row, flush=True)
    _store("enrol", [row])


def _stored(name: str) -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text("utf-8")).get(name, []) if RESULTS.exists() else []


def _store(name: str, rows: list[dict[str, Any]]) -> None:
    result = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    made = {"version": __version__, "machine": _machine(), "load": os.getloadavg()[0]}
    made["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    write_result(RESULTS, result | {name: rows, f"{name}_made": made})


def _machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}"


def tables(result: dict[str, Any]) -> dict[str, str]:
    made = {}
    if rows := result.get("search"):
        head = ["vectors", "stored as", "open", "first search", "search", "product float32", "bfloat16", "read once"]
        head += ["float32 product over search", "file", "same nearest, enrolled / strangers"]
        made["gallery search"] = markdown(head, [_search_row(row) for row in rows])
    if rows := result.get("rivals"):
        names = ("facedistill", "numpy", "faiss-cpu", "sqlite-vec")
        cells = [
            [f"{r['size']:,}", *(f"{r['seconds'][name]:.2f} s" if name in r["seconds"] else "" for name in names)]
            for r in rows
        ]
        made["gallery rivals"] = markdown(["vectors", *names], cells)
    if rows := result.get("index"):
        head = ["vectors", "made in", "256 probes: exact", "index", "times faster", "one probe: exact", "index"]
        head += ["times faster", "recall at 1, enrolled / strangers", "printed"]
        cells = [
            [
                f"{r['size']:,}",
                f"{r['made']:.0f} s",
                *(cell for exact, index in INDEXED for cell in _beside(r["seconds"][exact], r["seconds"][index])),
                f"{r['recall']['enrolled']:.3f} / {r['recall']['strangers']:.3f}",
                f"{r['recall_printed']:.3f}",
            ]
            for r in rows
        ]
        made["gallery index"] = markdown(head, cells)
    if rows := result.get("enrol"):
        head = ["model", "images", "bare passes a second", "enrolled a second", "ratio"]
        cells = [
            [
                r["model"],
                f"{r['images']:,}",
                f"{r['rates']['bare']:.0f}",
                f"{r['rates']['enroll']:.0f}",
                f"{r['rates']['enroll'] / r['rates']['bare']:.2f}",
            ]
            for r in rows
        ]
        made["gallery enrol"] = markdown(head, cells)
    return made


def _beside(exact: float, index: float) -> tuple[str, str, str]:
    return f"{1000 * exact:.0f} ms", f"{1000 * index:.1f} ms", f"{exact / index:.1f}"


def _search_row(row: dict[str, Any]) -> list[str]:
    seconds, recall = row["seconds"], row.get("recall")
    times = [f"{value:.2f} s" for value in (row["opening"]["again"], row["first_search"], *seconds.values())]
    ratio = f"{seconds['product float32'] / seconds['search']:.2f}"
    same = f"{recall['enrolled']:.3f} / {recall['strangers']:.3f}" if recall else ""
    return [f"{row['size']:,}", row["precision"], *times, ratio, f"{row['bytes'] / 1e9:.2f} GB", same]


def table(args: argparse.Namespace) -> None:
    for name, text in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("gallery.md", name, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for command, work in (("search", search), ("index", index)):
        asked = commands.add_parser(command)
        asked.add_argument("--size", type=int, required=True)
        asked.add_argument("--folder", required=True)
        asked.set_defaults(verb=work)
    asked = commands.add_parser("enrol")
    asked.add_argument("--photos", required=True)
    asked.add_argument("--model", required=True)
    asked.set_defaults(verb=enrol)
    commands.add_parser("table").set_defaults(verb=table)
    run_verb(parser)
