"""Errors that are planted in a data set, for `clean.py` and `clean_worth.py`: one kind at a time."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from facedistill.cleaning import Faces, Pictures, small as small_image
from facedistill.data import Dataset, Embeddings, fuse, middle, sharpness
from facedistill.models import Model

SHARES = (0.0, 0.01, 0.05, 0.2)
AGAIN = "again "  # the new name of a person who is split
Finds = set[Any]


class Planted:
    """A data set with errors of one kind.

    `errors`: what is to be found, as `finds` names it. `files`: the content of images that are made anew, by key.
    `sharpness`: of each image, where a rival wants it.
    """

    def __init__(
        self,
        faces: Faces,
        errors: Finds,
        against: dict[str, Embeddings] | None = None,
        files: dict[str, bytes] | None = None,
        sharpness: np.ndarray | None = None,
    ) -> None:
        self.faces, self.errors, self.against, self.files = faces, errors, against or {}, files or {}
        self.sharpness = sharpness


def swapped(base: Faces, share: float, rng: np.random.Generator) -> Planted:
    labels = base.labels.copy()
    moved = rng.permutation(len(labels))[: int(share * len(labels))]
    labels[moved] = base.labels[rng.permutation(moved)]
    wrong = np.flatnonzero(labels != base.labels)
    return Planted(replace(base, labels=labels), {base.keys[i] for i in wrong})


def merged(base: Faces, share: float, rng: np.random.Generator) -> Planted:
    order, count = rng.permutation(len(base.class_names)), int(share * len(base.class_names))
    labels = base.labels.copy()
    for a, b in zip(order[:count], order[count : 2 * count], strict=True):
        labels[base.labels == b] = a
    return Planted(replace(base, labels=labels), {base.class_names[a] for a in order[:count]})


def split(base: Faces, share: float, rng: np.random.Generator) -> Planted:
    names, labels, errors = list(base.class_names), base.labels.copy(), set()
    large = np.flatnonzero(np.bincount(labels) >= 6)
    for person in rng.permutation(large)[: int(share * len(names))]:
        rows = rng.permutation(np.flatnonzero(base.labels == person))
        labels[rows[: max(3, int(len(rows) * rng.uniform(0.3, 0.5)))]] = len(names)
        names.append(f"{AGAIN}{names[person]}")
        errors.add(frozenset((names[person], names[-1])))
    return Planted(replace(base, labels=labels, class_names=names), errors)


def duplicate(base: Faces, share: float, rng: np.random.Generator, dataset: Dataset, model: Model) -> Planted:
    rows = rng.permutation(len(base.keys))[: int(share * len(base.keys))]
    again = rows[: len(rows) // 2]
    made, pictures = [], base.pictures
    keys = [f"copy {i} of {base.keys[row]}" for i, row in enumerate(rows)]
    files = {}
    for row, key in zip(again, keys, strict=False):
        image = Image.fromarray(dataset.image(int(row)))
        side = int(112 * rng.uniform(0.6, 1))
        content = io.BytesIO()
        image.resize((side, side), Image.Resampling.BICUBIC).save(content, "JPEG", quality=int(rng.integers(50, 95)))
        files[key] = content.getvalue()
        made.append(np.asarray(Image.open(content).convert("RGB").resize((112, 112), Image.Resampling.BILINEAR)))
    units, lengths, small = base.units[rows].copy(), base.lengths[rows].copy(), pictures.small[rows].copy()
    content_of = pictures.content[rows].copy()
    if made:
        units[: len(made)], lengths[: len(made)] = embedded(model, np.stack(made))
        small[: len(made)] = [small_image(image) for image in made]
        content_of[: len(made)] = [f"again {i}".encode() for i in range(len(made))]
    labels = base.labels[rows].copy()
    elsewhere = rng.random(len(rows)) < 0.5
    labels[elsewhere] = base.labels[rng.integers(0, len(base.keys), int(elsewhere.sum()))]
    pictures = type(pictures)(np.concatenate([pictures.content, content_of]), np.concatenate([pictures.small, small]))
    faces = replace(
        base,
        rows=np.arange(len(base.keys) + len(rows)),
        keys=base.keys + keys,
        labels=np.concatenate([base.labels, labels]),
        units=np.concatenate([base.units, units]),
        lengths=np.concatenate([base.lengths, lengths]),
        pictures=pictures,
    )
    return Planted(faces, set(keys), files=files)


def embedded(model: Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of images (N, H, W, 3), and the lengths of the raw ones."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            pixels = torch.from_numpy(images[start : start + 64].transpose(0, 3, 1, 2).copy())
            found.append(torch.stack([model(pixels), model(pixels.flip(-1))], dim=1).numpy())
    vectors = np.concatenate(found)
    return fuse(vectors, "sum"), np.linalg.norm(vectors[:, 0], axis=1)


def overlap(base: Faces, share: float, rng: np.random.Generator, lfw: Embeddings) -> Planted:
    units, counts = lfw.fused("sum"), np.bincount(lfw.labels, minlength=len(lfw.class_names))
    chosen = rng.permutation(np.flatnonzero(counts >= 6))[: int(share * len(base.class_names))]
    moved, labels = np.zeros(len(units), bool), []
    for number, person in enumerate(chosen):
        rows = rng.permutation(np.flatnonzero(lfw.labels == person))[: counts[person] // 2]
        moved[rows] = True
        labels.append((rows, len(base.class_names) + number))
    rows = np.concatenate([rows for rows, _ in labels]) if labels else np.zeros(0, np.int64)
    own = np.concatenate([np.full(len(rows), n) for rows, n in labels]) if labels else rows
    left = Embeddings(
        [lfw.keys[i] for i in np.flatnonzero(~moved)], lfw.class_names, lfw.labels[~moved], lfw.vectors[~moved]
    )
    faces = replace(
        base,
        rows=np.arange(len(base.keys) + len(rows)),
        keys=base.keys + [f"lfw {i}" for i in rows],
        labels=np.concatenate([base.labels, own]),
        class_names=base.class_names + [lfw.class_names[person] for person in chosen],
        units=np.concatenate([base.units, units[rows]]),
        lengths=np.concatenate([base.lengths, np.linalg.norm(lfw.vectors[rows, 0], axis=1)]),
        pictures=unlike(base.pictures, "lfw", len(rows), rng),
    )
    return Planted(faces, {lfw.class_names[person] for person in chosen}, {"lfw": left})


def unlike(pictures: Pictures, name: str, count: int, rng: np.random.Generator) -> Pictures:
    """The pictures and `count` more, of which none is a copy of another."""
    blank = rng.normal(size=(count, pictures.small.shape[1])).astype(np.float32)
    blank /= np.maximum(np.linalg.norm(blank, axis=1, keepdims=True), 1e-9)
    content = np.array([f"{name} {i}".encode() for i in range(count)], "S16")
    return type(pictures)(np.concatenate([pictures.content, content]), np.concatenate([pictures.small, blank]))


class Nobody:
    """Images that show nobody, with their embeddings: drawn once, then planted."""

    def __init__(self, lfw: Dataset, model: Model, dataset: Dataset) -> None:
        rng = np.random.default_rng(5)
        images = [nobody(lfw, i, rng) for i in range(int(max(SHARES) * len(dataset)))]
        self.units, self.lengths = embedded(model, np.stack(images))
        self.sharpness = np.array([sharpness(middle(image)) for image in images])
        self.of_faces = np.array([sharpness(middle(dataset.image(i))) for i in range(len(dataset))])

    def plant(self, base: Faces, share: float, rng: np.random.Generator) -> Planted:
        count = int(share * len(base.keys))
        rows = rng.permutation(len(self.units))[:count]
        keys = [f"nobody {i}" for i in range(count)]
        faces = replace(
            base,
            rows=np.arange(len(base.keys) + count),
            keys=base.keys + keys,
            labels=np.concatenate([base.labels, base.labels[rng.integers(0, len(base.keys), count)]]),
            units=np.concatenate([base.units, self.units[rows]]),
            lengths=np.concatenate([base.lengths, self.lengths[rows]]),
            pictures=unlike(base.pictures, "nobody", count, rng),
        )
        return Planted(faces, set(keys), sharpness=np.concatenate([self.of_faces, self.sharpness[rows]]))


def nobody(lfw: Dataset, number: int, rng: np.random.Generator) -> np.ndarray:
    """A background, noise, a corner of a face's image, or one that is blurred or tiny: in turns."""
    image = Image.fromarray(lfw.image(int(rng.integers(len(lfw)))))
    if number % 5 == 0:
        image = Image.fromarray(rng.integers(0, 255, (*rng.integers(2, 9, 2), 3), dtype=np.uint8))
    elif number % 5 == 1:
        side = int(rng.integers(28, 45))
        left, top = int(rng.integers(2)) * (112 - side), int(rng.integers(2)) * (112 - side)
        image = image.crop((left, top, left + side, top + side))
    elif number % 5 == 2:
        image = Image.fromarray(rng.integers(0, 255, (*rng.integers(20, 113, 2), 3), dtype=np.uint8))
    elif number % 5 == 3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(3, 8)))
    else:
        image = image.resize((int(rng.integers(6, 11)),) * 2, Image.Resampling.BOX)
    return np.asarray(image.resize((112, 112), Image.Resampling.BICUBIC))
