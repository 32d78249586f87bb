"""A selection of another data set: a list of its images with their classes, which may differ from the original's."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from facedistill.data.sources.reading import read_text
from facedistill.data.sources.source import Source
from facedistill.errors import UserError
from facedistill.files import atomic_write, composed, fingerprint

NAME = "selection.csv"
MARK = "facedistill selection of"
EXPECTED = f"expected '{MARK}',DATA on the first line, and an image's key and its class on each other line"


class SelectionSource(Source):
    """Images of another data set, opened from a CSV that names it. Nothing is copied.

    A path of the original is relative to the folder of the CSV. Classes keep the original's order; new ones come after.

    Raises UserError for an image that the original does not have, or that is listed twice.
    """

    expected = "a selection.csv"
    inside = (NAME,)

    @classmethod
    def opens(cls, path: Path) -> bool:
        """Return whether this is a selection. Other lists are .csv files too, so the first bytes of one decide."""
        if path.is_dir():
            return super().opens(path)
        try:
            with open(path, "rb") as file:
                return path.suffix.lower() == ".csv" and MARK.encode() in file.read(len(MARK) + 4)
        except OSError:
            return False

    @classmethod
    def of(cls, path: str | Path, open_original: Callable[[str | Path], Source]) -> "SelectionSource":
        """Read the list at `path`, a file or its folder, and open the data set that it names."""
        file = Path(path) / NAME if Path(path).is_dir() else Path(path)
        data, rows = _read(file)
        beside = file.parent / data
        return cls(file, open_original(beside if beside.exists() else data), rows)

    def __init__(self, path: Path, original: Source, rows: Sequence[tuple[int, str, str]]) -> None:
        """`rows`: of each image the line number, for messages, the key, and the name of the class."""
        self.path, self.original = str(path), original
        self.keys = [key for _, key, _ in rows]
        self.places = _places(path, original, rows)
        names = [composed(name) for _, _, name in rows]
        self.class_names = list(dict.fromkeys([*original.class_names, *names]))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels = np.array([numbers[name] for name in names], dtype=np.int64)
        self.fingerprint = fingerprint("selection", original.fingerprint, self.places, "\0".join(names))
        self.stamp = original.stamp
        self.multi_hot = None if original.multi_hot is None else original.multi_hot[self.places]
        self.label_names, self.label_groups = original.label_names, original.label_groups
        self.features = original.features

    def read(self, i: int) -> bytes | np.ndarray:
        return self.original.read(int(self.places[i]))


def _places(path: Path, original: Source, rows: Sequence[tuple[int, str, str]]) -> np.ndarray:
    """Return where the images are in the original, int64 (N,)."""
    place = {key: i for i, key in enumerate(original.keys)}
    lines: dict[str, int] = {}
    for line, key, _ in rows:
        if key not in place:
            raise UserError(
                f"{path}, line {line}: no image {key} in {original.path}; the data set has changed: clean it again"
            )
        if lines.setdefault(key, line) != line:
            raise UserError(f"{path}, line {line}: {key} is listed before, on line {lines[key]}; remove one of them")
    return np.array([place[key] for _, key, _ in rows], dtype=np.int64)


def _read(file: Path) -> tuple[str, list[tuple[int, str, str]]]:
    """Return the text that names the original, and line number, key and class of each image."""
    reader = csv.reader(io.StringIO(read_text(file, EXPECTED, errors="surrogateescape"), newline=""))
    rows = []
    try:
        first = next(reader, [])
        if len(first) != 2 or first[0] != MARK or not first[1]:
            raise UserError(f"{file}, line 1: {','.join(first)[:100]!r}; {EXPECTED}")
        for row in reader:
            if len(row) != 2 or not all(row):
                raise UserError(f"{file}, line {reader.line_num}: {len(row)} cells, or an empty one; {EXPECTED}")
            rows.append((reader.line_num, row[0], row[1]))
    except csv.Error as e:
        raise UserError(f"{file}, line {reader.line_num}: {e}; {EXPECTED}") from e
    if not rows:
        raise UserError(f"{file}: no image is listed; {EXPECTED}")
    return first[1], rows


def save_selection(path: Path, data: str | Path, keys: Sequence[str], class_names: Sequence[str]) -> None:
    """Write the images `keys` of `data`, each with its class, as a CSV that `open_source` opens.

    A path beside the CSV's folder, or inside it, is written relative to it: the two can be moved together.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([MARK, _from(path.parent, str(data))])
        writer.writerows(zip(keys, class_names, strict=True))


def _from(folder: Path, data: str) -> str:
    if not os.path.exists(data):
        return data  # synthetic faces, or a class outside the package
    data, folder = os.path.realpath(data), Path(os.path.realpath(folder))
    if Path(data).is_relative_to(folder.parent):
        return Path(os.path.relpath(data, folder)).as_posix()
    return data
