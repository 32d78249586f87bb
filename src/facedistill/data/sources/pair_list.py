"""A verification set written by hand: a CSV of two image paths and whether they show the same person."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from facedistill.data.sources.reading import YES_OR_NO, is_image, read_file, read_table
from facedistill.data.sources.stamp import size_and_time
from facedistill.data.sources.verification import VerificationSet
from facedistill.errors import UserError
from facedistill.files import fingerprint

LABELS = YES_OR_NO | {"same": True, "different": False}
EXPECTED_LINES = (
    "expected two image paths and 1 or 0 (same person or not) on each line, and perhaps the two persons' names"
)


class PairList(VerificationSet):
    """Pairs of image files. Each image is read on request; `images` are not held in memory.

    Keys are the paths, relative to the folder of the list. Without identities every image is a class of its own.

    Args:
        files: size and time of every image file, by its key. The fingerprint covers keys and sizes, not contents.
    """

    expected = "a .csv of pairs"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    @classmethod
    def open(cls, argument: str) -> "PairList":
        return load_pair_list(argument)

    def __init__(
        self,
        path: Path,
        files: dict[str, tuple[int, int]],
        pairs: np.ndarray,
        same: np.ndarray,
        identities: list[str] | None,
    ) -> None:
        self.path, self.name, self.folder = str(path), path.stem, path.parent
        self.keys, self.pairs, self.same, self.identities = list(files), pairs, same, identities
        names, labels = np.unique(np.array(identities or self.keys), return_inverse=True)
        self.class_names, self.labels = names.tolist(), labels.astype(np.int64)
        sizes, times = np.array(list(files.values()), dtype=np.int64).T
        self.fingerprint = fingerprint("pair list", "\0".join(self.keys), sizes, pairs, same, *(identities or []))
        self.stamp = fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(self.folder / self.keys[i])


def load_pair_list(path: str | Path) -> PairList:
    """Read a CSV of pairs: `image, image, label`, or `image, image, label, person, person` on all lines.

    Image paths are relative to the folder of the CSV, with slashes or backslashes; equal ones are one image. Labels:
    1/0, true/false, same/different, yes/no. A header is optional; the delimiter is comma, tab or semicolon; UTF-8.

    Raises:
        UserError: names the line if an image is missing, a label is unknown, the number of columns is wrong, or label
            or persons contradict each other or an earlier line. Also for a file without pairs or that is not text.
    """
    path = Path(path)
    rows = list(read_table(path, EXPECTED_LINES))
    if rows and _is_header(path.parent, rows[0][1]):
        del rows[0]
    if not rows:
        raise UserError(f"{path}: no pairs; {EXPECTED_LINES}")
    columns = len(rows[0][1])
    files: dict[str, tuple[int, int]] = {}
    persons: dict[str, str] = {}
    labels: dict[frozenset[str], bool] = {}
    same = []
    for line, cells in rows:
        where = f"{path}, line {line}"
        if len(cells) not in (3, 5) or len(cells) != columns or "" in cells:
            empty = ", one of them empty" if "" in cells else ""
            raise UserError(f"{where}: {len(cells)} columns{empty}; {EXPECTED_LINES}, alike on all lines")
        if cells[2].lower() not in LABELS:
            raise UserError(f"{where}: label '{cells[2]}'; expected one of {', '.join(LABELS)}")
        same.append(LABELS[cells[2].lower()])
        if columns == 5 and same[-1] != (cells[3] == cells[4]):
            raise UserError(f"{where}: label '{cells[2]}' for {cells[3]} and {cells[4]}; correct one of them")
        cells[:2] = (_of_this_system(path.parent, cell) for cell in cells[:2])
        for image, person in zip(cells[:2], cells[3:] or ["", ""]):
            if image not in files:
                files[image] = _file(where, path.parent / image)
            if persons.setdefault(image, person) != person:
                raise UserError(f"{where}: {image} shows {person}, but {persons[image]} on a line before")
        if cells[0] == cells[1] and not same[-1]:
            raise UserError(f"{where}: label '{cells[2]}' for {cells[0]} and itself; correct one of them")
        if labels.setdefault(frozenset(cells[:2]), same[-1]) != same[-1]:
            raise UserError(f"{where}: label '{cells[2]}', but the same two images have another on a line before")
    place = {image: i for i, image in enumerate(files)}
    pairs = np.array([[place[a], place[b]] for _, (a, b, *_) in rows], dtype=np.int64)
    return PairList(path, files, pairs, np.array(same), [persons[image] for image in files] if columns == 5 else None)


def _is_header(folder: Path, cells: list[str]) -> bool:
    """Return whether neither cell is an image by its name or on disk: a first pair with a mistake is not a header."""
    return len(cells) > 2 and not any(is_image(cell) or os.path.isfile(folder / cell) for cell in cells[:2])


def _of_this_system(folder: Path, image: str) -> str:
    """Return the path, with slashes if it was written on Windows and lies here only so."""
    portable = image.replace("\\", "/")
    return os.path.normpath(image if os.path.exists(folder / image) else portable)


def _file(where: str, image: Path) -> tuple[int, int]:
    if not os.path.isfile(image):
        raise UserError(f"{where}: no image {image}; expected its path, relative to the folder of the list")
    return size_and_time(image)
