"""Hugging Face's imagefolder: image files, and beside them a metadata.csv or metadata.jsonl with their labels."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data.sources.columns import checked_columns, label_column, path_inside
from facedistill.data.sources.reading import is_hidden, is_image, read_file, read_headed, read_lines
from facedistill.data.sources.source import Source, numbered
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError, repeated, some
from facedistill.files import fingerprint

METADATA = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"
HEAD = 4096  # bytes at the head of a file, among which the names of its columns are
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
            found = ", ".join(rows[0][1]) if rows else "none"
            raise UserError(f"{file}: no column {image}; columns: {found[:200]}; {EXPECTED}")
        self.keys = [_key(f"{file}, line {line}", self.folder, row.get(image)) for line, row in rows]
        self._stop_if_others(file)
        classes = _labels(file, rows, image, given.get("label"))
        self.labels, self.class_names = numbered(classes)
        files = [size_and_time(os.path.join(self.folder, key)) for key in self.keys]
        sizes, times = np.array(files, dtype=np.int64).T
        self.fingerprint = fingerprint("metadata", "\0".join(self.keys), "\0".join(classes), sizes)
        self.stamp = fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(os.path.join(self.folder, self.keys[i]))

    def _stop_if_others(self, file: Path) -> None:
        """Raise UserError if an image is listed twice, or not at all."""
        if twice := repeated(self.keys):
            raise UserError(f"{file}: {twice} is listed twice; expected every image once")
        if self.folder == str(file.parent) and (others := sorted(set(_images(self.folder)) - set(self.keys))):
            raise UserError(
                f"{file}: {len(others):,} images beside it have no row ({some(others)}); add their rows, or remove them"
            )


def metadata_above(folder: Path) -> Path | None:
    """Return the metadata file in a folder above `folder` whose rows name images in it, or None."""
    folder = folder.absolute()
    for above in folder.parents[:LEVELS]:
        start = f"{folder.relative_to(above).as_posix()}/"
        for file in (above / name for name in METADATA):
            if lists_images(file) and os.fsencode(start) in file.read_bytes():
                return file
    return None


def lists_images(file: Path) -> bool:
    """Return whether a file called metadata.csv is a list of images."""
    if not file.is_file():
        return False
    with open(file, "rb") as f:
        return FILE.encode() in f.read(HEAD)


def _labels(file: Path, rows: list[tuple[int, dict[str, Any]]], image: str, given: str | None) -> list[str]:
    """Return the label of every row, as text."""

    def values(name: str) -> list[Any]:
        return [row.get(name) for _, row in rows]

    columns = list(rows[0][1])
    candidates = [c for c in columns if c != image and all(v is None or isinstance(v, str | int) for v in values(c))]
    label = label_column(candidates, values, given, {name: name for name in columns}, file)
    for line, row in rows:
        if row.get(label) in (None, ""):
            raise UserError(f"{file}, line {line}: no label in column {label}; every image needs one")
    return [str(value) for value in values(label)]


def _key(where: str, folder: str, name: object) -> str:
    """Return an image's path relative to the folder. Raises UserError if it is not inside."""
    if not name or not isinstance(name, str):
        raise UserError(f"{where}: no image; {EXPECTED}")
    try:
        return Path(os.path.relpath(path_inside(folder, name), folder)).as_posix()
    except ValueError as e:
        raise UserError(f"{where}: {e}") from e


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
    header, rows = read_headed(file, EXPECTED)
    for number, cells in rows:
        yield number, dict(zip(header, cells, strict=False))


def _images(folder: str) -> Iterator[str]:
    """Yield the paths of all images in a folder, relative to it."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        inside = Path(parent).relative_to(folder)
        yield from ((inside / name).as_posix() for name in names if is_image(name))
