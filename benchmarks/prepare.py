"""What `prepare` finds, how exactly it aligns, what that costs a recogniser, and how fast it is.

    python benchmarks/prepare.py scenes --crops FOLDER --detector D.onnx ...
    python benchmarks/prepare.py lfw --lfw lfw.bin --teacher T.onnx --detector D.onnx ...
    python benchmarks/prepare.py speed --crops FOLDER --detector D.onnx ...
    python benchmarks/prepare.py table

`scenes` pastes aligned crops, scaled and turned, into larger images of 200 to 4,000 pixels, one to six in a scene; a
crop's template says where its landmarks are. A find counts if its centre lies within half a face of a planted one.
`lfw` pads each image of LFW by half of its size on each side with its own blurred border, prepares it, and evaluates
the teacher on the prepared images and on the original crops; images without a face keep their crop, and are counted.
`speed` compares photos a second of `prepare` with one process to the detector's bare passes at 640 x 480.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from command import run_verb
from docs_table import put_table
from PIL import Image, ImageFilter
from result_file import write_result

from facedistill import __version__
from facedistill.data import TEMPLATE, VerificationSet, open_dataset, open_source, save_verification
from facedistill.evaluation import evaluate, open_sets
from facedistill.models import load_model
from facedistill.preparation import Detector, find_faces, prepare

RESULTS = Path(__file__).parent / "results" / "prepare.json"
SCENES, SIZES = 100, (200, 400, 800, 1600, 4000)
ROOM = 0.5  # of a crop's side, added on each side
SPEED_PHOTOS, ROUNDS = 240, 3


def crops_of(folder: str, count: int) -> list[Image.Image]:
    dataset = open_dataset(folder)
    rows = np.random.default_rng(0).permutation(len(dataset))[:count]
    return [Image.fromarray(dataset.image(int(row))) for row in rows]


def scene(
    crops: list[Image.Image], size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[np.ndarray, float]]]:
    """An image, and the planted landmarks (5, 2) with the side of each face's crop."""
    height = int(size * rng.uniform(0.66, 1))
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    image = small.resize((size, height), Image.Resampling.BICUBIC)
    planted = []
    columns = min(3, max(1, size // 200))
    for place in range(len(crops)):
        cell = (size // columns, height // max(1, -(-len(crops) // columns)))
        side = int(min(cell) * rng.uniform(0.35, 0.65))
        if side < 48:
            continue
        angle = float(rng.uniform(-25, 25))
        crop = crops[place].resize((side, side), Image.Resampling.BICUBIC)
        mask = Image.new("L", crop.size, 255)
        left = place % columns * cell[0] + int(rng.integers(0, cell[0] - side))
        top = place // columns * cell[1] + int(rng.integers(0, cell[1] - side))
        image.paste(crop.rotate(angle, Image.Resampling.BICUBIC), (left, top), mask.rotate(angle))
        turn, middle = np.radians(-angle), (side - 1) / 2
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = (TEMPLATE + 0.5) * side / 112 - 0.5
        planted.append(((points - middle) @ matrix.T + middle + [left, top], float(side)))
    return np.asarray(image), planted


def scenes(args: argparse.Namespace) -> None:
    crops, rows = crops_of(args.crops, 700), []
    for file in args.detector:
        detector = Detector(file)
        for size in SIZES:
            rng = np.random.default_rng(size)
            planted_count = found_count = false = 0
            errors: list[float] = []
            for _ in range(SCENES // len(SIZES)):
                chosen = [crops[i] for i in rng.choice(len(crops), int(rng.integers(1, 7)), replace=False)]
                image, planted = scene(chosen, size, rng)
                found = find_faces(detector, image, thorough=True)
                free = set(range(len(found)))
                for points, side in planted:
                    planted_count += 1
                    apart = {i: float(np.linalg.norm(found.points[i].mean(0) - points.mean(0))) for i in free}
                    near = min(apart, key=lambda i: apart[i], default=None)
                    if near is not None and apart[near] < side / 4:
                        free.discard(near)
                        found_count += 1
                        away = np.linalg.norm(found.points[near] - points, axis=1).mean()
                        errors.append(float(away) * 112 / side)
                false += len(free)
            rows.append(
                {
                    "detector": Path(file).name,
                    "pixels": size,
                    "planted": planted_count,
                    "found": found_count,
                    "false": false,
                    "error": round(float(np.mean(errors)), 2),
                }
            )
            print(rows[-1], flush=True)
    store("scenes", rows)


def padded(image: np.ndarray) -> np.ndarray:
    """The image in the middle of its own blurred, stretched border."""
    side = image.shape[0]
    more = int(ROOM * side)
    wide = Image.fromarray(image).resize((side + 2 * more,) * 2, Image.Resampling.BICUBIC)
    wide = wide.filter(ImageFilter.GaussianBlur(side / 6))
    wide.paste(Image.fromarray(image), (more, more))
    return np.asarray(wide)


def lfw(args: argparse.Namespace) -> None:
    teacher, rows = load_model(args.teacher), []
    original = open_source(args.lfw)
    assert isinstance(original, VerificationSet)
    rows.append({"images": "original crops", "refused": 0} | figures(teacher, args.lfw))
    dataset = open_dataset(args.lfw)
    for file in args.detector:
        with TemporaryDirectory() as folder:
            photos, out = Path(folder) / "photos", Path(folder) / "faces"
            (photos / "lfw").mkdir(parents=True)
            for i in range(len(dataset)):
                Image.fromarray(padded(dataset.image(i))).save(photos / "lfw" / f"{i}.jpg", quality=97, subsampling=0)
            done = prepare(photos, out, detector=file, faces="central", min_size=20, workers=args.workers)
            made = Path(folder) / "made.bin"
            kept = {int(path.stem): path.read_bytes() for path in (out / "lfw").glob("*.jpg")}
            images = [kept.get(i, image) for i, image in enumerate(original.images)]
            save_verification(VerificationSet(images, original.pairs, original.same, "lfw", original.identities), made)
            row = {"images": f"prepared by {Path(file).name}", "refused": done.photos - done.kept}
            rows.append(row | figures(teacher, str(made)))
        print(rows[-1], flush=True)
    store("lfw", rows)


def figures(teacher: Any, lfw_file: str) -> dict[str, Any]:
    found = evaluate(
        {"teacher": teacher}, open_sets([lfw_file]), protocols=["pairs", "all-pairs"], fars=(1e-3, 1e-4), resamples=200
    )
    made: dict[str, Any] = {}
    for row in found["results"]:
        if "accuracy" in row:
            made |= {"accuracy": round(row["accuracy"], 5)}
        if row["protocol"] == "all-pairs":
            made |= {far: [round(at["value"], 5), at.get("ci95")] for far, at in row["tar_at_far"].items()}
    return made


def speed(args: argparse.Namespace) -> None:
    rng, rows = np.random.default_rng(3), []
    crops = crops_of(args.crops, SPEED_PHOTOS)
    with TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        (photos / "a").mkdir(parents=True)
        for i, crop in enumerate(crops):
            image, _ = scene([crop], 640, rng)
            Image.fromarray(image).resize((640, 480)).save(photos / "a" / f"{i}.jpg", quality=92)
        for file in args.detector:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            name, bare, whole = session.get_inputs()[0].name, [], []
            blank = rng.normal(size=(1, 3, 480, 640)).astype(np.float32)
            for turn in range(ROUNDS + 1):
                start = time.perf_counter()
                for _ in range(SPEED_PHOTOS):
                    session.run(None, {name: blank})
                middle = time.perf_counter()
                prepare(photos, Path(folder) / f"{Path(file).stem}-{turn}", detector=file, workers=1)
                if turn:
                    bare.append(SPEED_PHOTOS / (middle - start))
                    whole.append(SPEED_PHOTOS / (time.perf_counter() - middle))
            rows.append(
                {
                    "detector": Path(file).name,
                    "bare": round(statistics.median(bare), 1),
                    "prepare": round(statistics.median(whole), 1),
                    "ratio": round(statistics.median(w / b for w, b in zip(whole, bare, strict=True)), 2),
                }
            )
            print(rows[-1], flush=True)
    store("speed", rows)


def store(what: str, rows: list[dict[str, Any]]) -> None:
    """Add the rows to the results; a row that is there under the same name is replaced."""

    def name(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(key) for key in ("images", "detector", "pixels"))

    old = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    known = {name(row): row for row in [*old.get(what, []), *rows]}
    write_result(RESULTS, old | {"version": __version__, what: list(known.values())})


def tables(result: dict[str, Any]) -> dict[str, str]:
    made = {}
    if rows := result.get("scenes"):
        made["prepare scenes"] = "\n".join(
            [
                "| detector | pixels of the photo | faces | recall | false finds | landmarks off, pixels at 112 |",
                "| --- | --- | --- | --- | --- | --- |",
                *(
                    f"| {r['detector']} | {r['pixels']:,} | {r['planted']} | {r['found'] / r['planted']:.3f} | "
                    f"{r['false']} | {r['error']:.1f} |"
                    for r in rows
                ),
            ]
        )
    if rows := result.get("lfw"):
        made["prepare lfw"] = "\n".join(
            [
                "| images | no face | accuracy | TAR at FAR 1e-3 | 1e-4 |",
                "| --- | --- | --- | --- | --- |",
                *(
                    f"| {r['images']} | {r['refused']} | {100 * r['accuracy']:.2f} | {_rate(r, '0.001', '1e-3')} | "
                    f"{_rate(r, '0.0001', '1e-4')} |"
                    for r in rows
                ),
            ]
        )
    if rows := result.get("speed"):
        made["prepare speed"] = "\n".join(
            [
                "| detector | bare passes a second | photos a second | ratio |",
                "| --- | --- | --- | --- |",
                *(f"| {r['detector']} | {r['bare']} | {r['prepare']} | {r['ratio']:.2f} |" for r in rows),
            ]
        )
    return made


def _rate(row: dict[str, Any], *names: str) -> str:
    value, interval = next(row[name] for name in names if name in row)
    return f"{100 * value:.2f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")


def write_tables(_: argparse.Namespace) -> None:
    for name, table in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("prepare.md", name, table)
        print(table, end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, verb in (("scenes", scenes), ("lfw", lfw), ("speed", speed), ("table", write_tables)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        if name == "table":
            continue
        sub.add_argument("--detector", nargs="+", required=True)
        if name == "lfw":
            sub.add_argument("--lfw", required=True)
            sub.add_argument("--teacher", required=True)
            sub.add_argument("--workers", type=int)
        else:
            sub.add_argument("--crops", required=True)
    run_verb(parser)
