"""Parquet: a file, or a folder of them, with a column of image bytes and one of labels."""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data.sources.columns import (
    checked_columns,
    class_labels,
    classes_of,
    find_columns,
    image_bytes,
    import_pyarrow,
    is_number,
    keys_of,
)
from facedistill.data.sources.guarded import try_in_child
from facedistill.data.sources.reading import shards
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import stamp_of
from facedistill.errors import UserError
from facedistill.files import fingerprint

GROUPS_KEPT = 4
# The head of every file, and the first 256 MB of the set; each later row group is validated when it is read.
VALIDATE = """
import pyarrow.parquet
read = globals().get("read", 0)
with pyarrow.parquet.ParquetFile(file) as opened:
    for group in range(opened.num_row_groups):
        if read < 1 << 28:
            table = opened.read_row_group(group)
            table.validate(full=True)
            read += table.nbytes
"""


class ParquetSource(Source):
    """Rows in the order of file names, then in file order. The label column is text, integers, or a ClassLabel.

    Parquet unpacks a whole row group (often 100 to 1,000 images) at a time. The last few are kept, so reading in order
    is fast, and reading in random order is slow. To train from it, load it into memory.

    A row may hold only the path of an image; then the file must lie in the folder of the set.

    Raises UserError for a folder with several splits (naming them: open one), for a missing part, and for files that
    cannot be read.
    """

    expected = ".parquet"
    suffixes = (".parquet",)
    inside = ("*.parquet",)
    takes_columns = True

    def __init__(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        self.path, given = str(path), checked_columns(columns)
        import_pyarrow(path)
        self._files = [str(file) for file in shards(path, "*.parquet")]
        self._folder = given.get("folder", os.path.dirname(self._files[0]))
        try_in_child(VALIDATE, self._files, "a Parquet file")
        self._forget()
        opened = [self._open(file) for file in self._files]
        self._columns = find_columns(opened[0].schema_arrow, path, given, lambda name: self._values(opened, name))
        for file, other in zip(self._files, opened, strict=True):
            self._stop_if_other_columns(file, other.schema_arrow, opened[0].schema_arrow)
        groups = [
            (f, g, p.metadata.row_group(g).num_rows) for f, p in enumerate(opened) for g in range(p.num_row_groups)
        ]
        self._groups = [(f, g) for f, g, _ in groups]
        self._starts = np.concatenate([[0], np.cumsum([rows for *_, rows in groups], dtype=np.int64)]).astype(np.int64)
        self.labels, self.class_names = self._classes(opened)
        names = self._names(opened)
        self.keys = keys_of(names, self.labels, self.class_names, self._rows(opened))
        sizes = [os.path.getsize(file) for file in self._files]
        self.fingerprint = fingerprint("parquet", sizes, self.labels, "\0".join(self.class_names + self.keys))
        named = [os.path.join(self._folder, name) for name in names if name]  # a row may hold only an image's path
        self.stamp = stamp_of([*self._files, *named])

    def read(self, i: int) -> bytes:
        group = int(np.searchsorted(self._starts, i, side="right")) - 1
        return image_bytes(self._group(group)[i - int(self._starts[group])].as_py(), self._folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_kept": None, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._opened: dict[str, Any] = {}

    def _group(self, group: int) -> Any:
        """Return the image column of one row group, a pyarrow chunked array."""
        if self._pid != os.getpid():  # a worker process opens its own files
            self._forget()
        with self._lock:
            if group not in self._kept:
                self._kept[group] = self._read_group(group)
                if len(self._kept) > GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def _read_group(self, group: int) -> Any:
        """Return the image column of a row group from its file. Raises ValueError if it is damaged."""
        file, number = self._groups[group]
        try:
            opened = self._open(self._files[file])
            column = opened.read_row_group(number, columns=[self._columns.image]).column(0)
            column.validate(full=True)
        except Exception as e:  # damaged bytes make pyarrow raise almost anything
            raise ValueError(f"row group {number} of {self._files[file]}: {str(e).splitlines()[0]}") from e
        if len(column) != self._starts[group + 1] - self._starts[group]:
            raise ValueError(
                f"row group {number} of {self._files[file]} holds {len(column)} rows, fewer than announced"
            )
        return column

    def _open(self, file: str) -> Any:
        import pyarrow
        import pyarrow.parquet

        if file not in self._opened:
            try:
                self._opened[file] = pyarrow.parquet.ParquetFile(file)
            except (pyarrow.ArrowException, OSError) as e:
                raise UserError(f"{file}: not a Parquet file that can be read: {str(e).splitlines()[0]}") from e
        return self._opened[file]

    def _values(self, opened: list[Any], name: str) -> list[Any]:
        """Return a column's values in all files."""
        for file, p in zip(self._files, opened, strict=True):
            if name not in p.schema_arrow.names:
                raise UserError(f"{file}: no column {name!r}, which {self._files[0]} has; expected equal columns")
        return [value for p in opened for value in p.read([name]).column(0).to_pylist()]

    def _stop_if_other_columns(self, file: str, schema: Any, first: Any) -> None:
        for name in (self._columns.image, self._columns.label):
            if name not in schema.names:
                raise UserError(f"{file}: no column {name!r}, which {self._files[0]} has; expected equal columns")
        label = self._columns.label
        if is_number(schema.field(label).type) != is_number(first.field(label).type):
            raise UserError(
                f"{file}: column {label!r} holds {schema.field(label).type}, and {first.field(label).type} in "
                f"{self._files[0]}; expected one kind of label in all files"
            )

    def _classes(self, opened: list[Any]) -> tuple[np.ndarray, list[str]]:
        """Return labels and class names. If the files number their ClassLabels differently, names decide."""
        label = self._columns.label
        named = [class_labels(p.schema_arrow).get(label) for p in opened]
        if (without := [file for file, names in zip(self._files, named, strict=True) if names is None]) and any(named):
            raise UserError(
                f"{without[0]}: labels without class names, which other files of the set have for {label!r}"
            )
        names = list(dict.fromkeys(name for own in named for name in own or [])) or None
        columns = [p.read([label]).column(0).to_pylist() for p in opened]
        if not any(columns):
            raise UserError(f"{self.path}: no rows; a data set needs at least one image")
        if names is None:
            return classes_of([value for values in columns for value in values], None, self.path)
        place = {name: number for number, name in enumerate(names)}
        labels = []
        for file, values, own in zip(self._files, columns, named, strict=True):
            numbers, own = classes_of(values, own, file)
            labels.append(np.array([place[name] for name in own], dtype=np.int64)[numbers])
        return np.concatenate(labels), names

    def _names(self, opened: list[Any]) -> list[str | None]:
        column = f"{self._columns.image}.path"
        if not self._columns.nested or any(column not in [c.path for c in _leaves(p)] for p in opened):
            return []
        return [(v or {}).get("path") for p in opened for v in p.read([column]).column(0).to_pylist()]

    def _rows(self, opened: list[Any]) -> list[str]:
        several = len(opened) > 1
        return [
            f"{Path(file).stem}:{row}" if several else str(row)
            for file, p in zip(self._files, opened, strict=True)
            for row in range(p.metadata.num_rows)
        ]


def _leaves(file: Any) -> list[Any]:
    return [file.schema.column(i) for i in range(len(file.schema))]
