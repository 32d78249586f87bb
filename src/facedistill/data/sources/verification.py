"""Verification sets in the field's .bin format: a pickle of (2P images, P bools), read without running any code."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

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
    places = np.empty(len(bins), dtype=np.int64)
    for i, item in enumerate(bins):
        image = _image(path, i, item)
        content = image if isinstance(image, bytes) else (image.shape, image.tobytes())
        places[i] = first.setdefault(content, len(images))
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
    if isinstance(item, (bytes, bytearray)):
        return bytes(item)
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        if item.ndim == 1:  # an encoded file
            return item.tobytes()
        if item.ndim == 3 and item.shape[2] == 3:
            return np.ascontiguousarray(item)
        if item.ndim == 3 and item.shape[0] == 3:
            return np.ascontiguousarray(item.transpose(1, 2, 0))
    raise UserError(f"{path}: image {i} is neither encoded bytes nor uint8 (H, W, 3) pixels; {EXPECTED_BIN}")


def _identities(path: Path, places: np.ndarray, count: int) -> list[str] | None:
    beside = path.with_name(f"{path.stem}_bin_names.txt")
    if not beside.exists():
        return None
    names = beside.read_text(encoding="utf-8").splitlines()
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


def _unpickle(path: Path) -> tuple[Any, np.ndarray]:
    try:
        with open(path, "rb") as f:
            found = _Unpickler(f, path).load()
    except UserError:
        raise
    except OSError as e:
        raise UserError(f"{path}: {e.strerror or e}; {EXPECTED_BIN}") from e
    except Exception as e:  # a broken pickle raises almost anything
        raise UserError(f"{path}: not a pickle ({str(e) or type(e).__name__}); {EXPECTED_BIN}") from e
    if not isinstance(found, (tuple, list)) or len(found) != 2 or any(not hasattr(part, "__len__") for part in found):
        raise UserError(f"{path}: a pickle of something else; {EXPECTED_BIN}")
    bins, same = found
    if any(not isinstance(s, (bool, int, np.bool_, np.integer)) for s in same):
        raise UserError(f"{path}: the second list holds other things than bools; {EXPECTED_BIN}")
    return bins, np.array([bool(s) for s in same], dtype=bool)


def _latin1(text: str, encoding: str | bytes = "latin1") -> bytes:
    """Encode text as pickle protocols 0 to 2 encode bytes. It replaces codecs.encode and knows this one codec."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """An unpickler of lists, tuples, bytes, bools and numpy arrays that refuses any other name in a pickle."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="bytes")  # Python 2 wrote the insightface packs; its strings are bytes
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        numpy_module = module.replace("numpy._core", "numpy.core")  # renamed in numpy 2
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
            ("builtins", "bytes"): bytes,
            ("builtins", "bytearray"): bytearray,
            ("__builtin__", "bytes"): bytes,  # the same two, as pickle protocols 0 to 2 name them
            ("__builtin__", "bytearray"): bytearray,
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if (numpy_module, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy.core.numeric", "_frombuffer"),
        ):
            return super().find_class(numpy_module.replace("numpy.core", "numpy._core"), name)
        raise UserError(f"{self.path}: carries code: it asks for {module}.{name}; nothing was run. {EXPECTED_BIN}")
