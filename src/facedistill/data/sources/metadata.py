"""Hugging Face's imagefolder: image files, and beside them a metadata.csv or metadata.jsonl with their labels."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data.sources.columns import checked_columns, inside, label_column
from facedistill.data.sources.reading import is_hidden, is_image, read_file, read_lines, read_table
from facedistill.data.sources.source import Source, numbered
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError, some
from facedistill.files import fingerprint

METADATA = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"
LEVELS = 3  # folders above a folder of images in which its metadata may be
EXPECTED = f"expected a column {FILE}, the image's path from this folder, and one of labels"


class MetadataSource(Source):
    """The images that the rows of metadata.csv or metadata.jsonl name, in their order, with the labels in a column.

    Keys are the paths, relative to the folder. The fingerprint covers names, labels and file sizes, not contents.

    Raises UserError for a row that names a file outside the folder, an image without a row, an image named twice, or
    several columns that could hold the labels.
    """

    expected = "a folder with metadata.csv"
    inside = METADATA
    takes_columns = True

    @classmethod
    def opens(cls, path: Path) -> bool:
        return super().opens(path) or path.name in METADATA

    def __init__(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        path, given = Path(path), checked_columns(columns)
        self.path = str(path)
        file = path if path.is_file() else next(path / name for name in METADATA if (path / name).exists())
        self.folder = given.get("folder", str(file.parent))
        rows = list(_rows(file))
        image = given.get("image", FILE)
        if not rows or image not in rows[0][1]:
            columns = ", ".join(rows[0][1]) if rows else "none"
            raise UserError(f"{file}: no column {image}; columns: {columns[:200]}; {EXPECTED}")
        names = [name for name in rows[0][1] if name != image and _is_label([row.get(name) for _, row in rows])]
        described = {name: name for name in rows[0][1]}
        label = label_column(
            names, lambda name: [row.get(name) for _, row in rows], given.get("label"), described, file
        )
        self.keys, files, classes = [], [], []
        for line, row in rows:
            where = f"{file}, line {line}"
            value = row.get(label)
            if value in (None, ""):
                raise UserError(f"{where}: no label in column {label}; every image needs one")
            try:
                place = inside(self.folder, str(row[image]))
            except (KeyError, ValueError) as e:
                raise UserError(f"{where}: {e if isinstance(e, ValueError) else f'no {image}'}; {EXPECTED}") from e
            self.keys.append(Path(os.path.relpath(place, self.folder)).as_posix())
            files.append(size_and_time(place))
            classes.append(str(value))
        self._stop_if_others(file)
        self.labels, self.class_names = numbered(classes)
        sizes, times = np.array(files, dtype=np.int64).T
        self.fingerprint = fingerprint("metadata", "\0".join(self.keys), "\0".join(classes), sizes)
        self.stamp = fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(os.path.join(self.folder, self.keys[i]))

    def _stop_if_others(self, file: Path) -> None:
        """Raise UserError if an image is listed twice, or not at all."""
        listed = set(self.keys)
        if len(listed) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            raise UserError(f"{file}: {twice} is listed twice; expected every image once")
        if self.folder == str(file.parent) and (others := sorted(set(_images(self.folder)) - listed)):
            raise UserError(
                f"{file}: {len(others):,} images beside it have no row ({some(others)}); add their rows, or remove them"
            )


def lists_images_of(folder: Path) -> Path | None:
    """Return the metadata file above `folder`, or in a folder of it, whose rows name images of it; None without one."""
    for above in folder.absolute().parents[:LEVELS]:
        start = f"{folder.absolute().relative_to(above).as_posix()}/"
        for name in METADATA:
            if _mentions(above / name, FILE) and _mentions(above / name, start, whole=True):
                return above / name
    below = (place / name for place in sorted(folder.glob("*/")) if not is_hidden(place.name) for name in METADATA)
    return next((file for file in below if _mentions(file, FILE)), None)


def _mentions(file: Path, text: str, whole: bool = False) -> bool:
    """Return whether a file's head, or the whole file, holds `text`."""
    try:
        with open(file, "rb") as f:
            return text.encode() in f.read(-1 if whole else 4096)
    except OSError:
        return False


def _is_label(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, str | int) for value in values)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line and its row."""
    if file.suffix == ".jsonl":
        for number, line in enumerate(read_lines(file, EXPECTED), start=1):
            try:
                row = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError) as e:
                raise UserError(f"{file}, line {number}: {e}; {EXPECTED}") from e
            if row is not None and not isinstance(row, dict):
                raise UserError(f"{file}, line {number}: no JSON object; {EXPECTED}")
            if row:
                yield number, row
        return
    table = read_table(file, EXPECTED)
    _, header = next(table, (0, []))
    if not header:
        return
    for number, cells in table:
        if len(cells) > len(header):
            raise UserError(f"{file}, line {number}: {len(cells)} cells for {len(header)} columns; {EXPECTED}")
        yield number, dict(zip(header, cells, strict=False))


def _images(folder: str) -> Iterator[str]:
    """Yield the paths of all images in a folder, relative to it."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        inside = Path(parent).relative_to(folder)
        yield from ((inside / name).as_posix() for name in names if is_image(name))
