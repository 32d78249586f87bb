"""From photos to a data set of aligned faces: in parallel, resumable, with an index and a page to look at."""

import importlib.util
import math
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg

from facedistill.errors import UsageError, UserError, some
from facedistill.files import atomic_write, held_folder, require_own, writing
from facedistill.preparation.detector import Detector, require_detector
from facedistill.preparation.fetch import detector_file
from facedistill.preparation.journal import INDEX, Journal, Row, write_index
from facedistill.preparation.landmarks import landmarks_of_photos, read_landmarks
from facedistill.preparation.pack import pack
from facedistill.preparation.photo import CHOICES, Found, faces_of, given
from facedistill.preparation.photos import Photo, list_photos
from facedistill.preparation.sheet import write_sheet
from facedistill.progress import bar, say

WORK = ".prepare"  # the folder inside the data set that a later run goes on from
SHEET = "index.html"
CHUNK = 8  # photos that a process takes at a time
JPEG_QUALITY = 97
LARGEST = 4096  # pixels of a crop
FORMS = ("folder", "parquet")
Form = Literal["folder", "parquet"]


@dataclass(frozen=True)
class Settings:
    """What decides the crops; a data set is made with one of them."""

    photos: str
    faces: str
    size: int
    min_size: float
    form: str
    detector: str  # its file; "" where landmarks are given
    landmarks: str


@dataclass
class Prepared:
    """What `prepare` made.

    Attributes:
        photos: how many were looked at. kept: crops in the data set. people: with at least one crop.
        refused: why -> how many photos and faces.
    """

    path: Path
    photos: int
    kept: int
    people: int
    borderline: int
    refused: dict[str, int]

    def text(self) -> str:
        """Return what a person reads."""
        refused = ", ".join(f"{count:,} {why}" for why, count in self.refused.items())
        return (
            f"{self.path}: {self.kept:,} faces of {self.people:,} people from {self.photos:,} photos; "
            f"{self.borderline:,} of them to look at; refused: {refused or 'none'}"
        )


def prepare(
    photos: str | Path,
    out: str | Path,
    *,
    detector: str | Path | None = None,
    faces: Literal["largest", "central", "all"] = "largest",
    size: int = 112,
    landmarks: str | Path | None = None,
    min_size: float = 40,
    form: Form = "folder",
    workers: int | None = None,
) -> Prepared:
    """Find the faces in a folder of photos, align them, and write a data set. Nothing in `photos` is changed.

    A photo's person is the first folder on its way down from `photos`. A run that was stopped goes on where it was, and
    one that is finished takes in photos that came since.

    Args:
        out: the data set: OUT/person/photo.jpg, or Parquet; with index.csv, a line a face, and index.html to look at.
        detector: an ONNX file (YuNet or SCRFD), or "yunet", which is fetched; not needed with `landmarks`.
        faces: which faces of a photo. size: of a crop. min_size: the least shorter side of a face's box, in pixels.
        landmarks: a file of points, see `read_landmarks`; photos that it does not name are refused.
        workers: processes; None: one a core.

    Raises:
        UsageError: an unknown option, or `out` was made with other settings.
        UserError: no photos, no detector, or `out` cannot be written. Unreadable photos are counted and named.
    """
    photos, out = Path(photos), Path(out)
    settings = _settings(photos, detector, faces, size, landmarks, min_size, form, workers)
    known = read_landmarks(landmarks) if landmarks else {}
    require_own(out, out / WORK, photos, "prepare")
    found = list_photos(photos)
    points = landmarks_of_photos(known, (photo.source for photo in found), landmarks) if landmarks else None
    with held_folder(out, out / WORK / "lock", "preparing this data set"), writing(out):
        _require_same(out, settings)
        journal = Journal(out / WORK / "journal.jsonl")
        crops = out if form == "folder" else out / WORK / "crops"
        work = Work(settings, str(crops), points)
        todo = [photo for photo in found if not journal.has(photo.source, photo.stamp)]
        if todo:
            _look(todo, len(found) - len(todo), work, journal, workers)
        rows = [row for photo in found for row in journal.done[photo.source]]
        if form == "parquet":
            pack(rows, crops, out)
        write_index(rows, out / INDEX)
        done = _summary(out, len(found), rows)
        write_sheet(rows, photos, crops, out / SHEET, done.text())
    return done


def _settings(
    photos: Path,
    detector: str | Path | None,
    faces: str,
    size: int,
    landmarks: str | Path | None,
    min_size: float,
    form: str,
    workers: int | None,
) -> Settings:
    for what, value, known in (("faces", faces, tuple(CHOICES)), ("form", form, FORMS)):
        if value not in known:
            raise UsageError(f"prepare: {what} '{value}'; expected one of {', '.join(known)}")
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError("prepare: --form parquet needs pyarrow; run: pip install 'facedistill[parquet]'")
    if not 16 <= size <= LARGEST:
        raise UsageError(f"prepare: size {size}; expected 16 to {LARGEST:,} pixels, usually 112")
    if not 0 <= min_size < math.inf:
        raise UsageError(f"prepare: min_size {min_size:g}; expected a number of pixels, 0 or more")
    if workers is not None and workers < 1:
        raise UsageError(f"prepare: workers {workers}; expected 1 or more")
    if landmarks is None and detector is None:
        raise UsageError(
            "prepare: finding faces needs a detector: give --detector yunet (230 kB are fetched once, licence MIT), "
            "--detector FILE.onnx, or --landmarks FILE"
        )
    if landmarks is not None and detector is not None:
        raise UsageError("prepare: --landmarks says where the faces are, and so does --detector; give one of them")
    file = "" if detector is None else str(detector_file(detector).resolve())
    if file:
        require_detector(file)  # before anything is written
    points = "" if landmarks is None else str(Path(landmarks).resolve())
    return Settings(str(photos.resolve()), faces, size, min_size, form, file, points)


def _require_same(out: Path, settings: Settings) -> None:
    """Keep the settings in the data set's folder. Raises UsageError where it was made with others."""
    file, written = out / WORK / "settings.txt", "".join(f"{k} = {v}\n" for k, v in vars(settings).items())
    if not file.exists():
        with atomic_write(file) as temporary:
            temporary.write_text(written, encoding="utf-8", errors="surrogateescape")
    before = file.read_text(encoding="utf-8", errors="surrogateescape")
    if before != written:
        line = next((line for line in before.splitlines() if line not in written.splitlines()), "")
        raise UsageError(f"{out} was made with other settings (there: {line}); choose another --out")


@dataclass(frozen=True)
class Work:
    """What a process needs to know."""

    settings: Settings
    crops: str
    points: Mapping[str, list[np.ndarray]] | None


def _look(todo: list[Photo], before: int, work: Work, journal: Journal, workers: int | None) -> None:
    """Look at photos in processes, and write each chunk into the journal as it comes back."""
    count = min(workers or os.cpu_count() or 1, -(-len(todo) // CHUNK))
    with bar() as display:
        task = display.add_task("preparing", total=before + len(todo), completed=before, unit="photos", note="")
        for done in _chunks(todo, work, count):
            journal.write(done)
            kept = sum(bool(row.crop) for _, _, rows in done for row in rows)
            display.update(task, advance=len(done), note=f"{kept} of {len(done)} kept")


Done = list[tuple[str, list[int], list[Row]]]


def _chunks(todo: list[Photo], work: Work, count: int) -> Iterator[Done]:
    chunks = iter([todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)])
    if count <= 1:
        _open(work)
        yield from map(_do, chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # ONNX Runtime's threads do not survive a fork
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_open, initargs=(work,)) as pool:
        waiting: set[Future[Done]] = {pool.submit(_do, chunk) for chunk in islice(chunks, 3 * count)}
        while waiting:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
            waiting |= {pool.submit(_do, chunk) for chunk in islice(chunks, len(ready))}


_here: list[tuple[Work, Detector | None]] = []  # of this process


def _open(work: Work) -> None:
    _here[:] = [(work, Detector(work.settings.detector) if work.settings.detector else None)]


def _do(chunk: list[Photo]) -> Done:
    return [(photo.source, photo.stamp, list(_rows(photo))) for photo in chunk]


def _rows(photo: Photo) -> Iterator[Row]:
    """Look at one photo, write its crops, and yield a row for each of its faces."""
    work, detector = _here[0]
    try:
        found = _faces(photo, work, detector)
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        found = [Found(why=f"unreadable: {reason}")]
    for number, face in enumerate(found):
        crop = ""
        if face.crop is not None:
            stem = f"{photo.stem}_{number}" if work.settings.faces == "all" else photo.stem
            crop = f"{photo.person}/{stem}.jpg"
            file = Path(work.crops) / crop
            data = simplejpeg.encode_jpeg(np.ascontiguousarray(face.crop), quality=JPEG_QUALITY, colorsubsampling="444")
            with writing(file):  # a crop half written is not in the journal, and made again
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        yield Row.of(photo.source, photo.person, number, crop, replace(face, crop=None))


def _faces(photo: Photo, work: Work, detector: Detector | None) -> list[Found]:
    settings = work.settings
    data = (Path(settings.photos) / photo.source).read_bytes()
    if detector is not None:
        return faces_of(data, detector, settings.faces, settings.size, settings.min_size)
    assert work.points is not None
    points = work.points.get(photo.source)
    if points is None:
        return [Found(why="not in the file of landmarks")]
    return given(data, points if settings.faces == "all" else points[:1], settings.size, settings.min_size)


def _summary(out: Path, photos: int, rows: list[Row]) -> Prepared:
    kept = [row for row in rows if row.crop]
    if not kept:
        why = Counter(row.why for row in rows).most_common(1)[0][0]
        raise UserError(f"{out}: no face was kept of {photos:,} photos (most: {why}); look at {out / INDEX}")
    unreadable = [row for row in rows if row.why.startswith("unreadable")]
    if unreadable:
        named = some([f"{row.source} ({row.why.partition(': ')[2]})" for row in unreadable])
        say(f"{len(unreadable):,} photos cannot be read: {named}")
    refused = Counter("unreadable" if row in unreadable else _kind(row.why) for row in rows if row.why)
    people = len({row.person for row in kept})
    return Prepared(out, photos, len(kept), people, sum(bool(row.borderline) for row in kept), dict(refused))


def _kind(why: str) -> str:
    return "too small" if "pixels, less than" in why else why
