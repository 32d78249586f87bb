"""A folder of images and a table beside it with a column of 0 and 1 for each label: an image may have several labels.

ODIR-5K's and RFMiD's tables are read as they are: a patient a row with an image of either eye, and an image a row with
its number for a name.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from facedistill.data.sources.columns import import_pyarrow, path_inside
from facedistill.data.sources.reading import YES_OR_NO, is_hidden, is_image, read_file, read_headed
from facedistill.data.sources.source import Source, numbered
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError, closest, repeated, some
from facedistill.files import fingerprint

EXPECTED = "expected a table with a header, a column of images, and a column of 0 and 1 for each label"
NAMES = ("image", "filename", "file_name", "file", "id")  # columns that hold an image's name without its ending


class LabelTable(Source):
    """The images that the rows of a CSV or a Parquet table name, with a label for each column of 0 and 1.

    `labels:table=train.csv,images=train,group=patient`. Lists are joined by +, as in `columns=glaucoma+cataract`.

    Args:
        table: a .csv (commas, semicolons or tabs) or .parquet with a header.
        images: the folder of the images; the table's own if left out. A name without an ending is looked up there.
        image: the column of images' names, or several if a row has several images, each with the row's labels. If left
            out: all columns of file names, if no name is in two of them; else one called image, filename or ID.
        group: the column of what several rows may share, e.g. the patient: hold-out and intervals keep them together.
            If a row has several images, it is a group by itself. Left out otherwise: each image is alone.
        columns: the label columns; if left out, those with 0 and 1, or no and yes, in at least half of the rows.
        without: columns that are no labels, e.g. RFMiD's Disease_Risk, which only says that there is any.

    Raises:
        UserError: a column is missing, a cell of a label is empty, NaN or no 0 or 1, an image is missing or named
            twice.
    """

    expected = "labels:table=FILE"
    takes_options = True

    def __init__(
        self,
        table: str,
        images: str | None = None,
        image: str | None = None,
        group: str | None = None,
        columns: str | None = None,
        without: str | None = None,
    ) -> None:
        self.path, self.folder = table, images or os.path.dirname(table) or "."
        rows = _read(Path(table))
        drop = rows.named(without, "without")
        named = rows.named(image, "image") or _image_columns(rows, drop)
        groups = rows.named(group, "group")
        labels = rows.named(columns, "columns") or _label_columns(rows, {*named, *groups, *drop})
        if not labels:
            raise UserError(f"{table}: no column of 0 and 1; columns: {some(rows.header)}; {EXPECTED}")
        hot = np.array([_values(rows, name) for name in labels], dtype=bool).T
        found = _Images(self.folder, table)
        places = [(row, found.path(rows, row, name)) for row in range(len(rows.cells)) for name in named]
        self.keys, self._rows = [key for _, key in places], np.array([row for row, _ in places], dtype=np.int64)
        if twice := repeated(self.keys):
            raise UserError(f"{table}: {twice} is named twice; expected each image once: name its column by image=")
        self.multi_hot, self.label_names = hot[self._rows], labels
        self._group(rows, groups, len(named) > 1)
        files = np.array([size_and_time(os.path.join(self.folder, key)) for key in self.keys], dtype=np.int64)
        texts = ("\0".join(names) for names in (self.keys, self.label_names, self.class_names))
        self.fingerprint = fingerprint("label table", *texts, self.multi_hot, self.labels, files[:, 0])
        self.stamp = fingerprint(files[:, 1])

    def _group(self, rows: "_Rows", groups: Sequence[str], several: bool) -> None:
        """Set labels and class names: the groups, or each image alone, which is then of no known class."""
        if groups:
            names = ["/".join(rows.of(row, name) for name in groups) for row in range(len(rows.cells))]
            if "" in names:
                raise UserError(f"{self.path}, line {rows.lines[names.index('')]}: the column {groups[0]} is empty")
            self.labels, self.class_names = numbered([names[row] for row in self._rows])
        elif several:
            self.labels, self.class_names = self._rows, [f"row {line}" for line in rows.lines]
        else:
            self.labels, self.class_names = np.arange(len(self.keys)), self.keys
            self.unlabelled = np.ones(len(self.keys), dtype=bool)

    def read(self, i: int) -> bytes:
        return read_file(os.path.join(self.folder, self.keys[i]))


@dataclass
class _Rows:
    """The cells of a table's rows, as text; lines: the line number of each row, for messages."""

    path: Path
    header: list[str]
    lines: list[int]
    cells: list[list[str]]

    def of(self, row: int, column: str) -> str:
        place = self.header.index(column)
        return self.cells[row][place] if place < len(self.cells[row]) else ""

    def column(self, name: str) -> list[str]:
        return [self.of(row, name) for row in range(len(self.cells))]

    def named(self, text: str | None, option: str) -> list[str]:
        """Return the columns that an option names, joined by +. Raises UserError for one that is not there."""
        if text in self.header:  # a name may hold a +
            return [str(text)]
        names = text.split("+") if text else []
        for name in names:
            if name not in self.header:
                raise UserError(
                    f"{self.path}: {option}={name}: no such column{closest(name, self.header)}; columns: "
                    f"{', '.join(self.header)[:300]}"
                )
        return names


def _read(path: Path) -> _Rows:
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    header, rows = read_headed(path, EXPECTED)
    table = list(rows)
    if not table:
        raise UserError(f"{path}: no row under a header; {EXPECTED}")
    return _Rows(path, header, [line for line, _ in table], [cells for _, cells in table])


def _read_parquet(path: Path) -> _Rows:
    """Return the cells of a Parquet table of names and numbers."""
    import_pyarrow(path)
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        cells = [["" if cell is None else str(cell) for cell in row.values()] for row in table.to_pylist()]
    except Exception as e:  # a damaged file raises almost anything
        why = (str(e) or type(e).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read: {why}; {EXPECTED}") from e
    if not cells:
        raise UserError(f"{path}: no row; {EXPECTED}")
    return _Rows(path, list(table.column_names), list(range(1, len(cells) + 1)), cells)


def _image_columns(rows: _Rows, drop: Iterable[str]) -> list[str]:
    """Return the columns of images' names. Raises UserError if several of them name the same images, or none does."""
    texts = {name: rows.column(name) for name in rows.header if name not in drop}
    found = [name for name, cells in texts.items() if all(map(is_image, cells))]
    files = {name: {os.path.basename(cell) for cell in texts[name]} for name in found}
    if any(files[a] & files[b] for a, b in combinations(found, 2)):
        raise UserError(
            f"{rows.path}: the columns {', '.join(found)} name the same images; say which to read: image={found[-1]}"
        )
    if found:
        return found
    plain = [name for name in texts if name.lower() in NAMES]
    if not plain:
        raise UserError(
            f"{rows.path}: no column holds names of images; say which: image=COLUMN; columns: "
            f"{', '.join(rows.header)[:300]}"
        )
    return [min(plain, key=lambda name: NAMES.index(name.lower()))]


def _label_columns(rows: _Rows, others: set[str]) -> list[str]:
    """Return the columns with 0 and 1 in at least half of the rows. One called ID numbers the rows, few as they are."""
    others |= {name for name in rows.header if name.lower() in NAMES}
    return [
        name
        for name in rows.header
        if name not in others and 2 * sum(_value(cell) is not None for cell in rows.column(name)) >= len(rows.cells)
    ]


def _value(cell: str) -> float | None:
    """Return 0 or 1, or None if the cell is neither."""
    if cell.lower() in YES_OR_NO:
        return float(YES_OR_NO[cell.lower()])
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if number in (0, 1) and math.isfinite(number) else None


def _values(rows: _Rows, name: str) -> list[bool]:
    found = []
    for row, cell in enumerate(rows.column(name)):
        value = _value(cell)
        if value is None:
            raise UserError(
                f"{rows.path}, line {rows.lines[row]}: label {name!r} is {cell[:40]!r}; expected 0 or 1 in every row; "
                f"correct the cell, or leave the column out: without={name}"
            )
        found.append(value == 1)
    return found


class _Images:
    """The images in a folder, found by the name that a cell gives, with or without its ending."""

    def __init__(self, folder: str, table: str) -> None:
        self.folder, self.table = folder, table
        try:
            names = sorted(name for name in os.listdir(folder) if is_image(name) and not is_hidden(name))
        except OSError as e:
            raise UserError(f"{folder}: {e.strerror}; expected the folder of the images of {table}: images=") from e
        self.by_stem: dict[str, list[str]] = {}
        for name in names:
            self.by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
        self.there = set(names)

    def path(self, rows: _Rows, row: int, column: str) -> str:
        """Return the image's path in the folder. Raises UserError if it is not there."""
        where, cell = f"{self.table}, line {rows.lines[row]}", rows.of(row, column)
        if cell in self.there:
            return cell
        found = self.by_stem.get(cell, [])
        if len(found) > 1:
            raise UserError(f"{where}: {cell!r} may be any of {some(found)} in {self.folder}; write the ending, too")
        if not found:
            try:
                if cell and is_image(cell) and os.path.isfile(path_inside(self.folder, cell)):
                    return cell
            except ValueError as e:
                raise UserError(f"{where}: {e}") from e
            raise UserError(f"{where}: no image {cell!r} in {self.folder}; add it, remove the row, or set images=")
        return found[0]
