"""Priors of training images: where 68 landmarks lie, and which of 13 parts of a face each pixel shows.

Rendered faces know theirs exactly (`synthetic:...,priors=true`). For photographs, a face mesh makes pseudo-labels, or
an index of them is read:

    landmarks68.npz   names (N,) paths of images; landmarks (N, 68, 2), (x, y) in pixels, in the iBUG order;
                      optionally size, the side of the images that the pixels count (112 if it is left out)
    parsing.tgz       a palette or grey PNG for every image, of the same name, or the folder parsing/ with them;
                      0 background, 1 hair, 2 skin, 3 upper lip, 4 lower lip, 5 left eye, 6 right eye, 7 left ear,
                      8 right ear, 9 nose, 10 mouth, 11 right brow, 12 left brow
"""

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from facedistill.data import Dataset, open_union
from facedistill.data.sources import Source
from facedistill.errors import UsageError, UserError, printable, repeated, some
from facedistill.files import fingerprint
from facedistill.hallucination import face_mesh
from facedistill.hallucination.fhn import CLASSES, LANDMARKS
from facedistill.progress import track
from facedistill.recipe import Data

SIDE = 112  # of the images whose pixels an index counts
OUTSIDE = 0.5  # of the side: a point further outside its image is no landmark of it
FILE, FOLDER, ARCHIVE = "landmarks68.npz", "parsing", "parsing.tgz"
# Which landmark, and which class, each becomes in the mirror image.
MIRRORED_LANDMARKS = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(*range(54, 47, -1), *range(59, 54, -1)),
        *(*range(64, 59, -1), 67, 66, 65),
    ]
)
MIRRORED_CLASSES = np.array([0, 1, 2, 3, 4, 6, 5, 8, 7, 9, 10, 12, 11], np.uint8)


class Priors(ABC):
    """The priors of every image of a data set, in its order, for square images of `size` pixels.

    Attributes:
        fingerprint: 16 hex characters that change with them.
    """

    size: int
    fingerprint: str

    @abstractmethod
    def of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the landmarks of the images at `indices`, float32 (B, 68, 2), and classes, uint8 (B, size, size)."""


class Rendered(Priors):
    """Those that a source computes itself."""

    def __init__(self, source: Source, places: Sequence[int], size: int) -> None:
        self.source, self.places, self.size = source, list(places), size
        self.fingerprint = fingerprint("rendered priors", source.fingerprint, size)

    def of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [self.source.priors(self.places[i]) for i in indices.tolist()]
        points = [scaled(landmarks, classes.shape[0], self.size) for landmarks, classes in found]
        return np.stack(points), np.stack([resized_classes(classes, self.size) for _, classes in found])


class Indexed(Priors):
    """Those of an index, read whole: landmarks float32 (N, 68, 2), classes uint8 (N, size, size)."""

    def __init__(self, landmarks: np.ndarray, classes: np.ndarray) -> None:
        self.landmarks, self.classes, self.size = landmarks, classes, classes.shape[1]
        self.fingerprint = fingerprint("indexed priors", landmarks, classes)

    def of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.landmarks[indices], self.classes[indices]


class Meshed(Priors):
    """Those of a face mesh, whose points (N, 468, 2) are shares of the side; classes are painted when asked for."""

    def __init__(self, points: np.ndarray, size: int) -> None:
        self.points, self.size = points, size
        self.fingerprint = fingerprint("mesh priors", points, size)

    def of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = self.points[indices]
        landmarks = face_mesh.landmarks_of(points) * self.size
        return landmarks, np.stack([face_mesh.classes_of(one, self.size) for one in points])


def open_priors(index: str | None, data: Data, dataset: Dataset, size: int) -> Priors | None:
    """Return the priors of the images of `dataset`, or None if there is no index and the source has none.

    Args:
        index: the folder of an index, or the file of a face mesh, .onnx or .tflite.
        data: the group of the recipe that the data set was opened by.

    Raises:
        UserError: the index does not fit the images, or the file is no face mesh.
    """
    if index is not None and Path(index).suffix.lower() in face_mesh.SUFFIXES:
        return Meshed(face_mesh.mesh_points(Path(index), dataset), size)
    if index is not None:
        return read_index(Path(index), dataset.keys, size)
    source = open_union(data.sets, data.columns, data.classes, data.weights)
    if not source.has_priors:
        return None
    places = {key: place for place, key in enumerate(source.keys)}
    return Rendered(source, [places[key] for key in dataset.keys], size)


def read_index(folder: Path, keys: Sequence[str], size: int) -> Priors:
    """Return the priors of the images `keys` from the index in `folder`; it may hold more images.

    Raises:
        UserError: a file is missing or damaged, or its priors do not fit: names, shapes, classes, points.
    """
    if not folder.is_dir():
        raise UserError(f"hallucination.priors {folder}: no such folder; expected {FILE} and {ARCHIVE} in it")
    landmarks = _landmarks(folder / FILE, keys, size)
    if twice := repeated(map(_png, keys)):
        raise UserError(
            f"{folder}: {printable(twice)} would be the parsing map of two images, whose names differ in "
            "their ending alone; rename one"
        )
    classes = np.empty((len(keys), size, size), np.uint8)
    with _parsing(folder) as read:
        for i, key in enumerate(track(keys, "reading priors", len(keys))):
            classes[i] = resized_classes(read(key), size)
    return Indexed(landmarks, classes)


def _landmarks(file: Path, keys: Sequence[str], size: int) -> np.ndarray:
    expected = f"expected names (N,) and landmarks (N, {LANDMARKS}, 2)"
    try:
        with np.load(file, allow_pickle=False) as stored:
            names, points = stored["names"], stored["landmarks"]
            side = int(stored["size"]) if "size" in stored else SIDE
    except Exception as e:  # a damaged archive makes numpy raise almost anything
        raise UserError(f"{file}: cannot be read ({e}); {expected}") from e
    if names.ndim != 1 or points.shape != (len(names), LANDMARKS, 2) or side < 1:
        raise UserError(f"{file}: {names.shape} names, landmarks of shape {points.shape}, size {side}; {expected}")
    places = {str(name): place for place, name in enumerate(names.tolist())}
    if twice := repeated(map(str, names.tolist())):
        raise UserError(f"{file}: {printable(twice)} is named twice; expected every image once")
    if missing := [key for key in keys if key not in places]:
        raise UserError(
            f"{file}: {len(missing):,} of {len(keys):,} images have no landmarks, e.g. {some(missing)}; it names "
            f"images such as {some(list(places))}: make it of these images"
        )
    points = points[[places[key] for key in keys]].astype(np.float32)
    far = ~np.isfinite(points).all((1, 2)) | (points < -OUTSIDE * side).any((1, 2))
    far |= (points > (1 + OUTSIDE) * side).any((1, 2))
    if far.any():
        name = printable(keys[int(far.argmax())])
        raise UserError(
            f"{file}: {name}: a landmark is outside the image of {side} x {side} by more than half of it, or is no "
            f"number; {int(far.sum()):,} images have such points: are the points in pixels of these images?"
        )
    return scaled(points, side, size)


Reader = Callable[[str], np.ndarray]


@contextmanager
def _parsing(folder: Path) -> Iterator[Reader]:
    """Yield a function that returns the classes of an image by its key."""
    if (folder / FOLDER).is_dir():
        yield lambda key: _classes(folder / FOLDER, key, (folder / FOLDER / _png(key)).read_bytes)
        return
    archive = folder / ARCHIVE
    try:
        with tarfile.open(archive) as tar:  # a compressed archive is read from its beginning for every step back
            stored = {m.name.removeprefix("./"): f.read() for m in tar if (f := m.isfile() and tar.extractfile(m))}
    except (OSError, tarfile.TarError, EOFError) as e:
        raise UserError(f"{archive}: cannot be read ({e}); expected it, or the folder {FOLDER}, beside {FILE}") from e
    yield lambda key: _classes(archive, key, lambda: stored[_png(key)])


def _png(key: str) -> str:
    return str(PurePosixPath(key).with_suffix(".png"))


def _classes(where: Path, key: str, content: Callable[[], bytes]) -> np.ndarray:
    """Return the classes that a PNG holds. Raises UserError if it is missing or is none."""
    name = printable(_png(key))
    try:
        with Image.open(io.BytesIO(content()), formats=["PNG"]) as image:
            if image.mode not in ("P", "L") or image.size[0] != image.size[1] or image.size[0] > 4096:
                raise ValueError(f"mode {image.mode}, {image.size[0]} x {image.size[1]}")
            found = np.asarray(image)
    except (KeyError, FileNotFoundError):
        raise UserError(f"{where}: {name} is missing; every image needs its parsing map") from None
    except Exception as e:  # damaged bytes make Pillow raise almost anything
        raise UserError(f"{where}: {name}: no parsing map ({e}); expected a square palette or grey PNG") from e
    if found.max() >= CLASSES:
        raise UserError(f"{where}: {name} has the class {found.max()}; expected 0 to {CLASSES - 1}")
    return found


def scaled(landmarks: np.ndarray, before: int, after: int) -> np.ndarray:
    """Return landmarks in the pixels of the image resized from side `before` to `after`."""
    return ((landmarks + 0.5) * (after / before) - 0.5).astype(np.float32)


def resized_classes(classes: np.ndarray, size: int) -> np.ndarray:
    """Return a map of classes (H, H) as (size, size): the nearest pixel, because classes have no mean."""
    places = ((np.arange(size) + 0.5) * (len(classes) / size)).astype(int)
    return classes[places[:, None], places[None, :]]


def mirrored(landmarks: np.ndarray, classes: np.ndarray, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the priors of a batch whose images are mirrored where `flips` is true: left parts become right ones."""
    landmarks, classes = landmarks.copy(), classes.copy()
    turned = landmarks[flips][:, MIRRORED_LANDMARKS]
    turned[..., 0] = classes.shape[-1] - 1 - turned[..., 0]
    landmarks[flips] = turned
    classes[flips] = MIRRORED_CLASSES[classes[flips][:, :, ::-1]]
    return landmarks, classes


def require_priors(priors: Priors | None) -> Priors:
    """Return the priors. Raises UsageError if there are none."""
    if priors is None:
        raise UsageError(
            "hallucinate train: stage priors needs landmarks and parsing maps: name an index (hallucination.priors), "
            "or train on rendered faces that know theirs (data.train=synthetic:priors=true)"
        )
    return priors
