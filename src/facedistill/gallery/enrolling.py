"""Enrol photos: read, judge, embed, and add each person whole; what is enrolled already costs a read."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from facedistill.data import Source, open_source
from facedistill.errors import UserError, printable
from facedistill.gallery.database import NothingThere
from facedistill.gallery.faces import Face, FaceReader
from facedistill.gallery.names import read_name, stored_name
from facedistill.gallery.photos import Photos
from facedistill.gallery.store import Gallery, Precision
from facedistill.models import Model
from facedistill.progress import track

T = TypeVar("T")
BATCH = 64  # faces that are embedded together
THREADS = 2  # that read and judge ahead


class Looked(NamedTuple):
    """An image of a source: its row, the hash of its content, and its faces."""

    row: int
    source: bytes
    faces: list[Face]


@dataclass
class Enrolled:
    """What `enroll` did.

    Attributes:
        added: new vectors. known: images that were enrolled before. people: who got a new vector.
        refused: why, by the images' keys.
    """

    added: int = 0
    known: int = 0
    people: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return what a person reads."""
        return (
            f"{self.added:,} vectors of {self.people:,} people added; {self.known:,} images were enrolled already; "
            f"{len(self.refused):,} refused"
        )


def enroll(
    gallery: str | Path,
    photos: str | Path,
    model: Model,
    *,
    detector: str | Path | None = None,
    precision: Precision | None = None,
    name: str | None = None,
) -> Enrolled:
    """Add people to a gallery, which is made if it is absent. A stopped command goes on where it was.

    A person is added with all vectors at once. An image that the person has already by the same model adds nothing.

    Args:
        photos: a data set with class names; with `name`, images of this one person.
        detector: finds the faces in photos (see `prepare`); None: the images are aligned crops.
        precision: of a new gallery; None: float32.

    Raises:
        UserError: the gallery is of another space, or it or the photos cannot be read, or no image was accepted.
    """
    source = open_source(photos) if name is None else Photos([photos], name)
    people = [read_name(stored_name(person)) for person in source.class_names]
    reader = FaceReader(model.input_size, detector)
    made_by, done = model.fingerprint(), Enrolled()
    with open_for(gallery, model, precision) as target:
        known = target.sources_by(made_by)
        mine: dict[bytes, str] = {}  # who has an image that this call saw

        def wanted(row: int, digest: bytes) -> bool:
            person = people[source.labels[row]]
            owner = mine.setdefault(digest, known.get(digest, person))
            if digest in known and owner == person:
                done.known += 1
            elif owner != person:
                done.refused[source.keys[row]] = f"the same image is enrolled as {printable(owner)}"
            return owner == person and digest not in known

        rows = np.argsort(source.labels, kind="stable").tolist()
        whole: dict[str, list[tuple[bytes, np.ndarray]]] = {}
        for person, vectors in _persons(source, rows, reader, model, target.flip, wanted, done):
            whole[person] = vectors
            if sum(map(len, whole.values())) >= BATCH:
                _add(target, whole, made_by, done)
        _add(target, whole, made_by, done)
    if not done.added and not done.known:
        first = next(iter(done.refused.items()), ("", "no images"))
        raise UserError(f"{photos}: nothing was enrolled; {len(done.refused):,} images refused: {first[0]}: {first[1]}")
    return done


def open_for(path: str | Path, model: Model, precision: Precision | None = None) -> Gallery:
    """Open the gallery that `model` enrols into, or make it.

    Raises UserError if the gallery is of another space, or of another precision than the one asked for.
    """
    try:
        gallery = Gallery.open(path)
    except NothingThere:
        return Gallery.create(path, space=model.space or "", dim=model.embedding_dim, precision=precision or "float32")
    require_space(gallery, model)
    if precision not in (None, gallery.precision):
        raise UserError(f"{path}: holds {gallery.precision} vectors; leave out --precision {precision}")
    return gallery


def require_space(gallery: Gallery, model: Model) -> None:
    """Raise UserError if the model's vectors may not be compared with the gallery's."""
    if gallery.space != model.space:
        raise UserError(
            f"{gallery.path}: holds vectors of space {gallery.space}, and this model is of space {model.space}: they "
            f"cannot be compared. Use a model of space {gallery.space} (`facedistill show MODEL` prints it), or "
            f"`facedistill upgrade {gallery.path} --from OLD --to NEW`"
        )


def _add(gallery: Gallery, whole: dict[str, list[tuple[bytes, np.ndarray]]], made_by: str, done: Enrolled) -> None:
    """Add people in one transaction, and empty the list."""
    with gallery.writing():
        for person, found in whole.items():
            sources, vectors = zip(*found, strict=True)
            new = gallery.add(person, np.stack(vectors), made_by=made_by, sources=sources)
            done.added, done.people = done.added + new, done.people + bool(new)
    whole.clear()


def _persons(
    source: Source,
    rows: list[int],
    reader: FaceReader,
    model: Model,
    flip: str,
    wanted: Callable[[int, bytes], bool],
    done: Enrolled,
) -> Iterator[tuple[str, list[tuple[bytes, np.ndarray]]]]:
    """Yield each person with the (hash, vector) of all new images; `rows` are in the order of people."""

    def accepted() -> Iterator[tuple[str, bytes, Face]]:
        looked = look(source, rows, reader.one_person, wanted)
        for row, digest, (face,) in track(looked, "enrolling", len(rows)):
            if face.refused:
                done.refused[source.keys[row]] = face.refused
            elif face.crop is not None:
                yield source.class_names[source.labels[row]], digest, face

    now: tuple[str, list[tuple[bytes, np.ndarray]]] | None = None
    for (person, digest, _), vector in embedded(accepted(), lambda one: one[2].crop, model, flip):
        if now and now[0] != person:
            yield now
            now = None
        now = now or (person, [])
        now[1].append((digest, vector))
    if now:
        yield now


def look(
    source: Source,
    rows: Iterable[int],
    faces: Callable[[bytes | np.ndarray], list[Face]],
    wanted: Callable[[int, bytes], bool] = lambda row, digest: True,
) -> Iterator[Looked]:
    """Yield the images at `rows`, in order, read and judged by threads; those that are not wanted have one empty face.

    Args:
        wanted: asked in this thread, with the row and the hash of the content, before the faces are looked for.
    """

    def read(row: int) -> tuple[int, bytes, bytes | np.ndarray | None, str]:
        try:
            data = source.read(row)
        except (OSError, ValueError) as e:
            return row, b"", None, f"cannot be read: {e}"
        content = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        return row, hashlib.sha256(content).digest()[:16], data, ""

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[tuple[int, bytes, Future[list[Face]] | list[Face]]] = deque()
        todo = iter(rows)
        while chunk := list(islice(todo, BATCH)):
            for row, digest, data, error in pool.map(read, chunk):
                found: Future[list[Face]] | list[Face] = [Face(None, error)]
                if data is not None:
                    found = pool.submit(faces, data) if wanted(row, digest) else [Face(None)]
                waiting.append((row, digest, found))
            while len(waiting) > 2 * BATCH:
                yield _done(*waiting.popleft())
        while waiting:
            yield _done(*waiting.popleft())


def _done(row: int, digest: bytes, found: Future[list[Face]] | list[Face]) -> Looked:
    return Looked(row, digest, found if isinstance(found, list) else found.result())


def embedded(
    items: Iterable[T], crop: Callable[[T], np.ndarray | None], model: Model, flip: str
) -> Iterator[tuple[T, np.ndarray]]:
    """Yield items with the unit vector, float32 (d,), of the crop of each."""
    todo = iter(items)
    while batch := list(islice(todo, BATCH)):
        pixels = np.stack([pixels for item in batch if (pixels := crop(item)) is not None])
        vectors = model.embed(torch.from_numpy(pixels).permute(0, 3, 1, 2), flip).cpu().numpy()
        yield from zip(batch, vectors, strict=True)
