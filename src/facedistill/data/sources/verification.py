"""Verification sets in the field's .bin format: a pickle of (2P images, P bools), read without running any code."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from facedistill.data.sources.pickled import Array, CarriesCode, NotData, Pickled
from facedistill.data.sources.reading import read_file, read_lines
from facedistill.data.sources.source import Source
from facedistill.errors import UserError
from facedistill.files import atomic_write, fingerprint

EXPECTED_BIN = "expected the field's .bin: a pickle of a list of 2P images and a list of P bools"


class VerificationSet(Source):
    """Face pairs: the distinct `images`, `pairs` (P, 2) int64 indexes into them, `same` (P,) bool, in file order.

    The order of the pairs matters, because folds are positional. `identities` names the person of every distinct image,
    or is None. As a Source its keys are "0", "1", ... and its classes are the identities; without identities every
    image is a class of its own.
    """

    expected = ".bin"
    suffixes: ClassVar[tuple[str, ...]] = (".bin",)

    @classmethod
    def open(cls, argument: str) -> "VerificationSet":
        return load_verification(argument)

    def __init__(
        self,
        images: list[bytes | np.ndarray],
        pairs: np.ndarray,
        same: np.ndarray,
        name: str,
        identities: list[str] | None = None,
        path: str = "",
    ) -> None:
        self.images, self.pairs, self.same, self.name, self.identities = images, pairs, same, name, identities
        self.path = path or name
        self.keys = [str(i) for i in range(len(images))]
        if identities is None:
            self.class_names, self.labels = self.keys, np.arange(len(images), dtype=np.int64)
        else:
            names, labels = np.unique(np.array(identities), return_inverse=True)
            self.class_names, self.labels = names.tolist(), labels.astype(np.int64)
        contents = (image if isinstance(image, bytes) else image.tobytes() for image in images)
        self.fingerprint = fingerprint("verification", *contents, pairs, same, "\0".join(self.class_names))
        self.stamp = fingerprint(self.labels)  # the fingerprint covers people's names, not who is on which image

    def read(self, i: int) -> bytes | np.ndarray:
        return self.images[i]


def load_verification(path: str | Path) -> VerificationSet:
    """Read a file in the format of lfw.bin; images of equal content become one.

    A file `<stem>_bin_names.txt` beside it, if present, gives "person/file" for each of the 2P images, in order.
    Raises UserError if the file is not such a pickle, or carries code.
    """
    path = Path(path)
    bins, same = _unpickle(path)
    if len(bins) != 2 * len(same) or not len(same):
        raise UserError(f"{path}: {len(bins)} images for {len(same)} pairs; {EXPECTED_BIN}")
    images: list[bytes | np.ndarray] = []
    first: dict[Any, int] = {}
    met: dict[int, int] = {}  # a pickle may name one object many times
    places = np.empty(len(bins), dtype=np.int64)
    for i, item in enumerate(bins):
        if id(item) in met:
            places[i] = met[id(item)]
            continue
        image = _image(path, i, item)
        content = image if isinstance(image, bytes) else (image.shape, image.tobytes())
        places[i] = met[id(item)] = first.setdefault(content, len(images))
        if places[i] == len(images):
            images.append(image)
    identities = _identities(path, places, len(images))
    return VerificationSet(images, places.reshape(-1, 2), same, path.stem, identities, str(path))


def draw_pairs(source: Source, pairs: int, seed: int) -> VerificationSet:
    """Draw `pairs` distinct pairs of a labelled source, genuine and impostor in turn.

    Every fold then holds equal numbers of both kinds. Images in no pair are left out. All pairs of the source are
    listed in memory, so it should have a few thousand images at most.

    Raises:
        UserError: the source has fewer genuine or impostor pairs than half of `pairs`.
    """
    rng = np.random.default_rng(seed)
    labels, half = source.labels, pairs // 2
    i, j = np.triu_indices(len(labels), 1)
    same = labels[i] == labels[j]
    if min(same.sum(), (~same).sum()) < half:
        raise UserError(
            f"{source.path}: {same.sum()} genuine and {(~same).sum()} impostor pairs; expected {half} of each: give "
            "more images, or ask for fewer pairs"
        )
    chosen = np.stack([rng.permutation(np.flatnonzero(kind))[:half] for kind in (same, ~same)], axis=1).ravel()
    used, places = np.unique(np.stack([i[chosen], j[chosen]], axis=1), return_inverse=True)
    images = [source.read(int(k)) for k in used]
    identities = [source.class_names[c] for c in labels[used]]
    return VerificationSet(images, places.reshape(-1, 2), same[chosen], "pairs", identities, source.path)


def save_verification(faces: VerificationSet, path: str | Path) -> None:
    """Write a .bin (pixels as PNG), and <stem>_bin_names.txt beside it if the identities are known."""
    path = Path(path)
    found = (faces.read(i) for i in range(len(faces)))
    images = [image if isinstance(image, bytes) else _png(image) for image in found]
    order = faces.pairs.ravel().tolist()
    if faces.identities is not None:
        names = "".join(f"{faces.identities[i]}/{faces.keys[i]}\n" for i in order)
        with atomic_write(path.with_name(f"{path.stem}_bin_names.txt")) as temporary:
            temporary.write_text(names, encoding="utf-8")
    with atomic_write(path) as temporary:
        # Pickle writes an image of several pairs only once.
        temporary.write_bytes(pickle.dumps(([images[i] for i in order], faces.same.tolist()), protocol=4))


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _image(path: Path, i: int, item: object) -> bytes | np.ndarray:
    if isinstance(item, bytes):
        return item
    if isinstance(item, Array) and item.kind[1:] == "u1":
        if len(item.shape) == 1 or max(item.shape, default=0) == len(item.data) > 3:  # (n, 1): older OpenCV's encoder
            return item.data
        item = _pixels(item)
    if isinstance(item, np.ndarray) and item.ndim == 3:
        if item.shape[2] == 3:
            return np.ascontiguousarray(item)
        if item.shape[0] == 3:
            return np.ascontiguousarray(item.transpose(1, 2, 0))
    raise UserError(f"{path}: image {i} is neither encoded bytes nor uint8 (H, W, 3) pixels; {EXPECTED_BIN}")


def _identities(path: Path, places: np.ndarray, count: int) -> list[str] | None:
    beside = path.with_name(f"{path.stem}_bin_names.txt")
    if not beside.exists():
        return None
    names = read_lines(beside)
    if len(names) != len(places):
        raise UserError(
            f"{beside}: {len(names)} names for the {len(places)} images of {path.name}; expected one a line"
        )
    identities = [""] * count
    for place, name in zip(places.tolist(), names, strict=True):
        person = name.rpartition("/")[0] or name
        if identities[place] not in ("", person):
            raise UserError(f"{beside}: one image of {path.name} is named {identities[place]} and {person}")
        identities[place] = person
    return identities


def _unpickle(path: Path) -> tuple[Sequence[Any], np.ndarray]:
    """Return the images as the pickle holds them, and the labels."""
    try:
        found = Pickled(read_file(path)).value()
    except CarriesCode as e:
        raise UserError(f"{path}: carries code: it asks for {e}; nothing was run. {EXPECTED_BIN}") from e
    except NotData as e:
        raise UserError(f"{path}: not a pickle of images and bools ({e}); {EXPECTED_BIN}") from e
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; {EXPECTED_BIN}") from e
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise UserError(f"{path}: a pickle of something else; {EXPECTED_BIN}")
    bins, same = (_rows(part) for part in found)
    if bins is None or same is None:
        raise UserError(f"{path}: a pickle of something else; {EXPECTED_BIN}")
    for i, label in enumerate(same):
        if not isinstance(label, int) or label not in (0, 1):
            shown = label if isinstance(label, int) else f"of type {type(label).__name__}"
            raise UserError(f"{path}: label {shown} of pair {i}; not True or False, 1 or 0; {EXPECTED_BIN}")
    return bins, np.array(same, dtype=bool)


def _rows(part: Any) -> Sequence[Any] | None:
    """Return a list as it is, an array of numbers as a list, an array of images as its images; else None."""
    if isinstance(part, (tuple, list)):
        return part
    if not isinstance(part, Array) or not part.kind:
        return None
    if len(part.shape) == 1:
        return part.numbers()
    if len(part.shape) != 4 or part.kind[1:] != "u1":
        return None
    return list(_pixels(part))


def _pixels(array: Array) -> np.ndarray:
    """Return an array of uint8 as numpy's. Its size was compared with its bytes when it was read."""
    return np.frombuffer(array.data, np.uint8).reshape(array.shape, order="F" if array.fortran else "C")
