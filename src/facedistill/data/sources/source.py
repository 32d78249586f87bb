"""A Source: images with class names, in whatever form they are stored."""

import inspect
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np

from facedistill.data.sources.reading import files_in
from facedistill.errors import UsageError, UserError, some
from facedistill.recipe import build

BETWEEN_OPTIONS = re.compile(r",(?=\w+=)")  # a comma that no option follows is part of a value, e.g. of a path
UNUSABLE = ("Cc", "Zl", "Zp")  # control characters, line and paragraph ends


class Source(ABC):
    """Random access to images with labels. Implementations pickle cheaply and open their files once per process.

    Attributes:
        path: the source's origin, for messages.
        keys: a unique, stable name for every image.
        labels: int64 (N,), index into `class_names`.
        class_names: one name per class, in a deterministic order.
        fingerprint: 16 hex characters that change with keys, labels, class names or (if cheap) image sizes. The same
            on every machine.
        stamp: a text that changes when the files are written, even with the same content; "" if there are no files or
            the fingerprint covers their contents. Valid on this machine only.
        unlabelled: bool (N,), the images of unknown people, each of them a class of its own; None if there are none.
        extra: bool (N,), the images that only add to the training, so that nobody is held out of them; None: none.
        weights: float (N,), how often each image comes in an epoch; None: once.
        multi_hot: bool (N, L), which of `label_names` each image has, if it may have several at once or none; else
            None. A class is then whoever the image is of, e.g. a patient, or the image alone (`unlabelled`).
        label_names: L names. label_groups: subsets of them by name, e.g. of a region; None if there are none.
        features: the length of each sample if it is a vector and no image; None for images.
        has_priors: True if `priors` tells the landmarks and parsing classes of every image.

    Entries of SOURCES also declare (a class of your own, opened as `package.module:Class`, needs none of these):
        expected: the form's name in "expected .rec, .parquet, ..." of an error message.
        suffixes: the file name endings that it opens, in lower case.
        inside: patterns; it opens a folder that holds a file which matches one of them.
        takes_columns: True for a table: __init__ takes `columns` as its second parameter, see `open_source`.
        takes_data: True if it is opened by its name followed by another data set, `NAME:DATA`.
        takes_options: True if it is opened by its name followed by options, `NAME:size=64,seed=1`, which are the
            parameters of __init__. False if one text follows, e.g. a path.
    """

    expected: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    inside: ClassVar[tuple[str, ...]] = ()
    takes_options: ClassVar[bool] = False
    takes_columns: ClassVar[bool] = False
    takes_data: ClassVar[bool] = False

    path: str
    keys: list[str]
    labels: np.ndarray
    class_names: list[str]
    fingerprint: str
    stamp: str = ""
    unlabelled: np.ndarray | None = None
    extra: np.ndarray | None = None
    weights: np.ndarray | None = None
    multi_hot: np.ndarray | None = None
    label_names: Sequence[str] = ()
    label_groups: Mapping[str, Sequence[str]] | None = None
    features: int | None = None
    has_priors: bool = False

    @abstractmethod
    def read(self, i: int) -> bytes | np.ndarray:
        """Return image `i` as encoded bytes (JPEG, PNG, ...) or as RGB uint8 (H, W, 3), or float32 (features,)."""

    def priors(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the landmarks of image `i`, float32 (68, 2), (x, y) in its pixels, and the parsing class of each of
        its pixels, uint8 (H, W); see `facedistill.hallucination`."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def opens(cls, path: Path) -> bool:
        """Return whether this form opens the file or folder at `path`. It reads names only, not file contents."""
        if path.is_dir():
            return any(files_in(path, pattern) for pattern in cls.inside)
        return path.suffix.lower() in cls.suffixes

    @classmethod
    def open(cls, argument: str) -> "Source":
        """Return the source made from a path, or from the text that follows the class's name ("" if none does).

        Raises UsageError if __init__ does not accept it.
        """
        parameters = list(inspect.signature(cls).parameters)
        if cls.takes_options:
            options = _options(cls.__name__, argument, parameters)
        elif argument and not parameters:
            raise UsageError(f"{cls.__name__} takes no argument, found '{argument}'; give its name alone")
        else:
            options = {parameters[0]: argument} if argument else {}
        return build(cls, options, cls.__name__)


def _options(kind: str, argument: str, known: Sequence[str]) -> dict[str, str]:
    """Return the options of a text such as "table=a,b.csv,image=file": a comma ends a value if another option follows.

    Raises UsageError for text that is no option, and for an option that is given twice.
    """
    found: dict[str, str] = {}
    for item in BETWEEN_OPTIONS.split(argument.strip(",")) if argument else []:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"{kind}: '{item}' is no option; expected name=value, as in {known[0]}=...")
        if name in found:
            raise UsageError(f"{kind}: the option '{name}' is given twice")
        found[name] = value
    return found


def classes_with_images(labels: np.ndarray, class_names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Drop the classes without images: return the renumbered labels and the remaining names."""
    used = np.bincount(labels, minlength=len(class_names)) > 0
    if used.all():
        return labels, class_names
    return (np.cumsum(used) - 1)[labels], list(compress(class_names, used))


def sorted_classes(names: Iterable[str]) -> list[str]:
    """Return the distinct class names in order: by number if all are numbers, else as text."""
    distinct = set(names)
    numbers = all(name.isascii() and name.isdigit() for name in distinct)
    return sorted(distinct, key=(lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)) if numbers else None)


def numbered(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return (labels int64 (N,), class_names) of the class name of every image."""
    class_names = sorted_classes(names)
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.array([numbers[name] for name in names], dtype=np.int64), class_names


def classes_of_folders(path: object, names: Sequence[str], expected: str) -> list[str]:
    """Return the class of every image of a whole set from its folders: `names` are paths with /, relative to the set.

    Folders that all images share are left out. All images must be equally deep: a folder inside a person's folder
    would else become another person.

    Raises UserError for an image in no folder, and for images at different depths.
    """
    folders = [name.rpartition("/")[0] for name in names]
    if "" in folders:
        raise UserError(f"{path}: {names[folders.index('')]} is in no class's folder; {expected}")
    parts = {folder: folder.split("/") for folder in dict.fromkeys(folders)}
    by_depth = {len(part): folder for folder, part in reversed(parts.items())}
    if len(by_depth) > 1:
        raise UserError(
            f"{path}: images lie at different depths, in {some([by_depth[depth] for depth in sorted(by_depth)])}; "
            f"{expected}, all equally deep: move or remove what is no class"
        )
    levels = list(zip(*parts.values(), strict=True))
    shared = next((depth for depth, names in enumerate(levels[:-1]) if len(set(names)) > 1), len(levels) - 1)
    return ["/".join(parts[folder][shared:]) for folder in folders]


def stop_if_unusable(class_names: Sequence[str], path: object) -> None:
    """Raise UserError if a class name cannot be saved as a line of a text file: empty, or with control characters."""
    for name in class_names:
        if not name or (not name.isprintable() and any(unicodedata.category(c) in UNUSABLE for c in name)):
            raise UserError(
                f"{path}: class name {name[:60]!a}; expected text without line breaks and control characters; rename "
                "the class"
            )
