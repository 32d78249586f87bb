"""The whole way by the command line, from raw photos to a device that recognises people, and what each step gives.

    python benchmarks/photos_to_device.py run --crops FOLDER --detector D.onnx --teacher T.onnx --lfw lfw.bin --work W
    python benchmarks/photos_to_device.py table

A photo is a crop of a real person in the middle of its own blurred, stretched border, scaled, shifted and turned. Every
person has a folder. Some photos lie in another person's folder, as in life. They are prepared and cleaned, a student is
distilled and exported, in fp32 and in int8; the device gets int8 if that passes its check. Then the teacher enrols raw
photos of people whom no step has seen, and the exported student, and the teacher for comparison, say who is on other
raw photos of them and of strangers. The thresholds are calibrated on LFW. Each step is a process of its own, as a user
runs it; its seconds are those of the whole process.
W is a new folder.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from command import run_verb
from docs_table import put_table
from PIL import Image
from prepare import padded
from result_file import write_result

from facedistill import __version__
from facedistill.data import open_dataset

RESULTS = Path(__file__).parent / "results" / "photos_to_device.json"
PEOPLE, LEAST, SIDES = 800, 6, (480, 800)  # people with so many photos, of so many pixels
SWAPPED = 0.05  # of the photos lie in another person's folder
ENROLLED, STRANGERS = 40, 40  # others, who are not trained on
EPOCHS, FAR, GALLERY_FAR = 26, 1e-4, 1e-4
OPTIONS = (  # docs/guides/ship.md, for few people
    *("method.classifier.start=instances", "method.terms.embedding_l2.weight=64"),
    *("method.terms.margin_softmax.scale=32", "schedule.lr=0.3", "schedule.batch=128", f"schedule.epochs={EPOCHS}"),
    *("student.options.width=0.5", "student.input_size=64"),
)
Row = dict[str, Any]
Places = dict[str, dict[str, Any]]  # photo -> person, and where the face's middle and side are


def draw_photos(crops: str, work: Path) -> Places:
    """Write a photo for each crop: photos/ to train on, enrolled/ and visitors/; return what photos/ really shows."""
    dataset, rng, planted = open_dataset(crops), np.random.default_rng(0), Places()
    counts = np.bincount(dataset.labels)
    people = rng.permutation(np.flatnonzero(counts >= LEAST))[: PEOPLE + ENROLLED + STRANGERS]
    trained, enrolled = people[:PEOPLE], people[PEOPLE : PEOPLE + ENROLLED]
    for person in people.tolist():
        for number, row in enumerate(np.flatnonzero(dataset.labels == person).tolist()):
            image, middle, side = photo_of(dataset.image(row), int(rng.integers(*SIDES)), rng)
            at, part = person, "enrolled" if person in enrolled and number % 2 else "visitors"
            if person in trained:
                part = "photos"
                if rng.random() < SWAPPED:
                    at = int(rng.choice(trained[trained != person]))
            photo = f"{dataset.class_names[at]}/{row}.jpg"
            (work / part / photo).parent.mkdir(parents=True, exist_ok=True)
            image.save(work / part / photo, quality=92)
            if part == "photos":
                planted[photo] = {"person": dataset.class_names[person], "middle": middle, "side": side}
    return planted


def photo_of(crop: np.ndarray, size: int, rng: np.random.Generator) -> tuple[Image.Image, list[float], float]:
    """Return a photo of that size, and where the crop's middle and its side are in it."""
    wide = Image.fromarray(padded(padded(crop))).rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC)
    shown = len(crop) * 2  # of the wide image: twice the crop, so that its turned corners stay outside
    left, top = ((wide.width - shown) / 2 + rng.uniform(-0.2, 0.2, 2) * len(crop)).tolist()
    image = wide.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + shown, top + shown))
    middle = [(wide.width / 2 - edge) * size / shown for edge in (left, top)]
    return image, middle, len(crop) * size / shown


def timed(*words: object) -> tuple[float, int]:
    """Run a verb as a user does; return its seconds and its exit code, 0 or 1."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "facedistill", *map(str, words)])
    if done.returncode not in (0, 1):
        done.check_returncode()
    return round(time.perf_counter() - start, 1), done.returncode


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def prepared(args: argparse.Namespace, work: Path, planted: Places) -> Row:
    seconds, _ = timed("prepare", work / "photos", "--out", work / "faces", "--detector", args.detector)
    hits = kept = 0
    for row in lines(work / "faces" / "index.csv"):
        if row["kept"] == "1":
            known = planted[row["source"]]
            box = [float(row[side]) for side in ("left", "top", "right", "bottom")]
            away = np.hypot((box[0] + box[2]) / 2 - known["middle"][0], (box[1] + box[3]) / 2 - known["middle"][1])
            kept, hits = kept + 1, hits + int(away < known["side"] / 4)
    found = {"right faces": hits, "faces": kept, "photos": len(planted)}
    return {"step": "prepare", "seconds": seconds, "bytes": size_of(work / "faces"), **found}


def cleaned(args: argparse.Namespace, work: Path, planted: Places) -> Row:
    seconds, _ = timed("clean", work / "faces", "--teacher", args.teacher, "--out", work / "cleaned")
    wrong = {photo for photo, known in planted.items() if not photo.startswith(f"{known['person']}/")}
    wrong &= set(open_dataset(work / "faces").keys)
    found = [row for row in lines(work / "cleaned" / "findings.csv") if row["done"] != "nothing"]
    left_out = {row["image"] for row in found if row["kind"] == "swapped"}
    known = {"wrong": len(wrong), "left out": len(left_out), "rightly": len(left_out & wrong)}
    images = len(open_dataset(work / "cleaned"))
    return {"step": "clean", "seconds": seconds, "bytes": size_of(work / "cleaned"), "images": images, **known}


def lines(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def distilled(args: argparse.Namespace, work: Path) -> Row:
    words = ("--teacher", args.teacher, "--data", work / "cleaned", "--out", work / "run", *OPTIONS)
    seconds, _ = timed("distill", *words)
    weights = work / "run" / "model" / "model.safetensors"
    return {"step": "distil", "seconds": seconds, "bytes": size_of(weights), **rates(args, work / "run", work)}


def exported(args: argparse.Namespace, work: Path, precision: str) -> Row:
    file = work / f"{precision}.onnx"
    words: tuple[object, ...] = ("--precision", precision, "--verify", args.lfw, "--against", args.teacher)
    if precision == "int8":
        words += ("--calibrate", work / "cleaned")
    seconds, code = timed("export", work / "run", "--to", "onnx", "--out", file, *words)
    row: Row = {"step": f"export {precision}", "seconds": seconds, "passed": not code}
    return row if code else row | {"bytes": size_of(file), **rates(args, file, work)}


def device_file(work: Path) -> Path:
    """What the device gets: the int8 file, or the fp32 one where int8 did not pass its check."""
    return next(file for file in (work / "int8.onnx", work / "fp32.onnx") if file.exists())


def rates(args: argparse.Namespace, model: Path, work: Path) -> Row:
    """TAR on LFW over all pairs: of the model, against the teacher's gallery, and the teacher's own."""
    result = work / "lfw.json"
    words = ("--against", args.teacher, "--protocol", "all-pairs", "--far", FAR, "--json", result)
    timed("evaluate", model, "--on", args.lfw, *words)
    found = json.loads(result.read_text("utf-8"))["results"]
    return {
        f"{row['probe']}-{row['gallery']}": [round(at["value"], 4), at["ci95"]]
        for row in found
        for at in row["tar_at_far"].values()
    }


def enrolled(args: argparse.Namespace, work: Path) -> Row:
    gallery, result = work / "door.gallery", work / "enrolled.json"
    words = ("--model", args.teacher, "--detector", args.detector, "--json", result)
    seconds, _ = timed("enroll", gallery, work / "enrolled", *words)
    photos = sum(1 for _ in (work / "enrolled").rglob("*.jpg"))
    people = sum(1 for _ in (work / "enrolled").iterdir())
    refused = len(json.loads(result.read_text("utf-8"))["refused"])
    return {"step": "enrol", "seconds": seconds, "bytes": size_of(gallery), "people": people} | {
        "photos": photos,
        "refused": refused,
    }


def identified(args: argparse.Namespace, work: Path, step: str, model: Path) -> Row:
    """Who is on the visitors' photos: the enrolled ones among them, and strangers."""
    result = work / "answers.json"
    words = ("--detector", args.detector, "--calibrate", args.lfw, "--far", GALLERY_FAR, "--json", result)
    seconds, _ = timed("identify", work / "door.gallery", work / "visitors", "--model", model, *words)
    known = {folder.name for folder in (work / "enrolled").iterdir()}
    counts = dict.fromkeys(("known", "first", "accepted", "wrong", "strangers", "let in", "refused"), 0)
    for answer in json.loads(result.read_text("utf-8"))["answers"]:
        person = Path(answer["photo"]).parent.name
        counts["known" if person in known else "strangers"] += 1
        if "hits" not in answer:
            counts["refused"] += 1
        elif person in known:
            counts["first"] += answer["hits"][0]["name"] == person
            counts["accepted"] += answer["name"] == person
            counts["wrong"] += answer["name"] not in (person, None)
        else:
            counts["let in"] += answer["accepted"]
    return {"step": step, "seconds": seconds} | counts


def run(args: argparse.Namespace) -> None:
    work = Path(args.work)
    planted = draw_photos(args.crops, work)
    photos = {"step": "photos", "bytes": size_of(work / "photos"), "photos": len(planted), "people": PEOPLE}
    rows: list[Row] = [photos]
    steps = (
        lambda: prepared(args, work, planted),
        lambda: cleaned(args, work, planted),
        lambda: distilled(args, work),
        lambda: exported(args, work, "fp32"),
        lambda: exported(args, work, "int8"),
        lambda: enrolled(args, work),
        lambda: identified(args, work, "identify with the student", device_file(work)),
        lambda: identified(args, work, "identify with the teacher", Path(args.teacher)),
    )
    for step in steps:
        rows.append(step())
        print(rows[-1], flush=True)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        write_result(RESULTS, {"version": __version__, "epochs": EPOCHS, "threads": threads, "steps": rows})


def table(result: dict[str, Any]) -> str:
    told = TOLD | dict.fromkeys(("identify with the student", "identify with the teacher"), _found)
    lines = ["| step | what comes out | MB | seconds | how good it is |", "| --- | --- | --- | --- | --- |"]
    for row in result["steps"]:
        made, good = told[row["step"]](row)
        size = f"{row['bytes'] / 1e6:.2f}" if "bytes" in row else ""
        lines.append(f"| {row['step']} | {made} | {size} | {row.get('seconds', '')} | {good} |")
    return "\n".join(lines)


def _tar(row: Row) -> str:
    cells = []
    for pair in ("student-student", "student-teacher", "teacher-teacher"):
        value, (low, high) = row[pair]
        cells.append(f"{pair.replace('-', ' → ')} {100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return ", ".join(cells)


def _found(row: Row) -> tuple[str, str]:
    known, strangers = row["known"], row["strangers"]
    return (
        f"answers about {known + strangers:,} faces",
        f"of {known} faces of enrolled people {100 * row['first'] / known:.1f}% have the right name first, "
        f"{100 * row['accepted'] / known:.1f}% are accepted under it, {100 * row['wrong'] / known:.1f}% under another; "
        f"of {strangers} of strangers {100 * row['let in'] / strangers:.1f}% are accepted",
    )


def _file(row: Row) -> tuple[str, str]:
    return ("one ONNX file", _tar(row)) if row["passed"] else ("no file: the check failed", "")


TOLD = {
    "photos": lambda row: (f"{row['photos']:,} photos of {row['people']} people", ""),
    "prepare": lambda row: (
        f"{row['faces']:,} aligned faces",
        f"{100 * row['right faces'] / row['photos']:.1f}% of the planted faces; {row['faces'] - row['right faces']} "
        "others",
    ),
    "clean": lambda row: (
        f"a list of {row['images']:,} images",
        f"of {row['wrong']} in a wrong folder {row['rightly']} left out, and {row['left out'] - row['rightly']} others",
    ),
    "distil": lambda row: ("a student in fp32", _tar(row)),
    "enrol": lambda row: (
        f"a gallery of {row['people']} people",
        f"of {row['photos']} photos {row['refused']} refused",
    ),
    "export fp32": _file,
    "export int8": _file,
}


def write_table(_: argparse.Namespace) -> None:
    made = table(json.loads(RESULTS.read_text("utf-8")))
    put_table("guides/photos_to_device.md", "photos to device", made)
    print(made)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, verb in (("run", run), ("table", write_table)):
        sub = verbs.add_parser(name)
        sub.set_defaults(verb=verb)
        if name == "run":
            for option in ("crops", "detector", "teacher", "lfw", "work"):
                sub.add_argument(f"--{option}", required=True)
    run_verb(parser)
