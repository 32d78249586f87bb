"""Measure what augmentation costs beside decoding, and beside what one would write with Pillow or OpenCV; draw it.

    python benchmarks/augmentation.py run [--faces FOLDER]
    python benchmarks/augmentation.py table
    python benchmarks/augmentation.py picture

`run` decodes JPEG files of 112 x 112 pixels and changes them, one thread, in turns; figures are medians of CPU seconds,
because they vary less than wall seconds on a shared machine. The two rivals make the same changes, as often and of the
same sizes as `augment` at strength 1, the way one writes it first. `picture` draws docs/images/augmentation.jpg.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import augmentation_rivals as rivals
import cv2
import numpy as np
import PIL
import simplejpeg
import torch
from command import run_verb
from docs_table import DOCS, put_table
from PIL import Image
from result_file import write_result

from facedistill.data import Dataset, ImageBatch, View, make_view, open_dataset, resize, seen
from facedistill.data.augment import CHANCE, LARGEST

RESULTS = Path(__file__).parent / "results" / "augmentation.json"
PICTURE = DOCS / "images" / "augmentation.jpg"
SIDE, BATCH, REPEATS = 112, 64, 15
DECODING = "decoding alone"
VIEWS = {
    "`augment`, strength 0.25": ("augment", {"strength": 0.25}),
    "`augment`, strength 0.5": ("augment", {"strength": 0.5}),
    "`augment`, strength 1": ("augment", {"strength": 1.0}),
    "`adaface`": ("adaface", {}),
    "`cvlface`": ("cvlface", {}),
    "`degrade`": ("degrade", {}),
}
RIVALS = {
    "the changes of `augment`, strength 1, by Pillow": rivals.by_pillow,
    "the changes of `augment`, strength 1, by OpenCV": rivals.by_opencv,
}


def files(faces: str | None) -> list[bytes]:
    """Return BATCH faces as JPEG files of SIDE x SIDE pixels."""
    dataset = open_dataset(faces or f"synthetic:identities=16,images=4,size={SIDE},seed=1")
    places = np.linspace(0, len(dataset) - 1, BATCH).astype(int).tolist()
    pixels = [np.ascontiguousarray(resize(dataset.image(i), (SIDE, SIDE))) for i in places]
    return [simplejpeg.encode_jpeg(image, 95, "RGB", "420") for image in pixels]


def decoded(images: Sequence[bytes]) -> ImageBatch:
    pixels = np.empty((len(images), 3, SIDE, SIDE), np.uint8)
    for place, data in enumerate(images):
        pixels[place] = simplejpeg.decode_jpeg(data).transpose(2, 0, 1)
    places = torch.arange(len(images))
    return ImageBatch(torch.from_numpy(pixels), places, torch.stack([places, torch.zeros_like(places)], 1))


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = files(args.faces)
    steps: dict[str, Callable[[int], Any]] = {DECODING: lambda _: decoded(images)}
    for name, (kind, options) in VIEWS.items():
        view = make_view(kind, **options)
        steps[name] = partial(viewed, view, images)
    for name, rival in RIVALS.items():
        steps[name] = partial(changed, rival, images)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for epoch in range(REPEATS + 1):
        for name, step in steps.items():
            start = time.process_time()
            step(epoch)
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(found[1:]) / BATCH for name, found in seconds.items()}
    rows = [
        {
            "what": name,
            "images_per_second": round(1 / median),
            "change_alone": None if name == DECODING else round(1 / (median - medians[DECODING])),
            "over_decoding": round(median / medians[DECODING], 2),
        }
        for name, median in medians.items()
    ]
    versions = {"pillow": PIL.__version__, "opencv": cv2.__version__, "numpy": np.__version__}
    about = {"command": "python benchmarks/augmentation.py run --faces FOLDER", "side": SIDE, "repeats": REPEATS}
    write_result(RESULTS, about | {"threads": 1} | versions | {"rows": rows})
    put(args)


def viewed(view: View, images: Sequence[bytes], epoch: int) -> None:
    seen(view, decoded(images), 0, epoch, np.zeros(BATCH, dtype=np.int64))


def changed(rival: Callable[..., np.ndarray], images: Sequence[bytes], epoch: int) -> None:
    """Decode and change a batch as `seen` does, from a generator of each image's own."""
    found = np.empty((len(images), 3, SIDE, SIDE), np.uint8)
    for place, data in enumerate(images):
        rng = np.random.default_rng([0, epoch, place])
        found[place] = rival(simplejpeg.decode_jpeg(data), rng).transpose(2, 0, 1)


def tables(result: dict[str, Any]) -> dict[str, str]:
    lines = [
        "| 112 x 112, one core | images/s with decoding | without | time, decoding = 1 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        alone = f"{row['change_alone']:,}" if row["change_alone"] else ""
        lines.append(f"| {row['what']} | {row['images_per_second']:,} | {alone} | {row['over_decoding']:.1f} |")
    return {"augmentation": "\n".join(lines), "augmentation changes": changes()}


def changes() -> str:
    """Return the table of the changes, from the numbers of the code."""
    size = LARGEST
    described = [
        ("a rectangle of one colour covers a part", CHANCE["cover"], f"{size['cover']:.0%} of the area"),
        (
            "scaled (enlarged: the borders are cut off)",
            CHANCE["move"],
            f"{math.exp(size['scale']):.3g} times as large or small",
        ),
        ("shifted, together with the scale", CHANCE["move"], f"{size['shift']:.0%} of the side"),
        ("turned", CHANCE["turn"], f"{size['turn']:.0f} degrees"),
        ("brightness, contrast, saturation", CHANCE["colour"], f"± {size['colour']:.0%} each"),
        ("coloured light, together with these", CHANCE["colour"], f"± {size['light']:.0%} of red, green and blue"),
        ("grey", CHANCE["grey"], "the chance itself is times the strength"),
        ("blurred", CHANCE["blur"], f"sigma {size['blur']:.1%} of the side"),
        ("shrunk and enlarged again", CHANCE["shrink"], f"{math.exp(size['shrink']):.3g} times smaller"),
        ("noise", CHANCE["noise"], f"standard deviation {size['noise']:g} of 255"),
        ("JPEG", CHANCE["jpeg"], f"quality {100 - size['jpeg']:.0f}"),
    ]
    lines = ["| change, in this order | images | largest, at strength 1 |", "| --- | ---: | --- |"]
    return "\n".join(lines + [f"| {what} | {chance:.0%} | {largest} |" for what, chance, largest in described])


def put(_: argparse.Namespace) -> None:
    for name, table in tables(json.loads(RESULTS.read_text("utf-8"))).items():
        put_table("augmentation.md", name, table)
        print(table)


def picture(_: argparse.Namespace) -> None:
    """Draw the same ten faces in a row for each of: clean, three strengths, the published ones, few pixels."""
    dataset: Dataset = open_dataset("synthetic:identities=10,images=1,size=80,seed=3")
    batch = dataset.batch(range(10))
    shown = [batch.images]
    for kind, options in VIEWS.values():
        images = seen(make_view(kind, **options), batch, 1, 1, np.zeros(10, dtype=np.int64)).shown
        assert images is not None
        shown.append(images)
    sheet = torch.stack(shown).permute(0, 3, 1, 4, 2).reshape(80 * len(shown), 800, 3)
    Image.fromarray(sheet.numpy()).save(PICTURE, quality=80)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run")
    running.add_argument("--faces")
    running.set_defaults(verb=run)
    verbs.add_parser("table").set_defaults(verb=put)
    verbs.add_parser("picture").set_defaults(verb=picture)
    run_verb(parser)


if __name__ == "__main__":
    main()
