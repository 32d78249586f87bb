"""Parquet: a file, or a folder of them, with a column of image bytes and one of labels."""

import os
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from facedistill.data.sources.columns import classes_of, find_columns, image_bytes, import_pyarrow, keys_of
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import stamp_of
from facedistill.errors import UserError
from facedistill.files import fingerprint

GROUPS_KEPT = 4
SPLIT = re.compile(r"(.+)-\d+-of-\d+.*|(train|validation|valid|val|dev|test|eval)")  # as the hub names its files


class ParquetSource(Source):
    """Rows in the order of file names, then in file order. The label column is text, integers, or a ClassLabel.

    Parquet unpacks a whole row group (often 100 to 1,000 images) at a time. The last few are kept, so reading in order
    is fast, and reading in random order is slow. To train from it, load it into memory.

    Raises UserError for a folder with several splits (naming them: open one) and for files that cannot be read.
    """

    expected = ".parquet"
    suffixes = (".parquet",)
    inside = ("*.parquet",)

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        import_pyarrow(path)
        self._files = [str(path)] if os.path.isfile(path) else [str(p) for p in sorted(Path(path).glob("*.parquet"))]
        _stop_at_several_splits(path, self._files)
        self._forget()
        opened = [self._open(file) for file in self._files]
        schema = opened[0].schema_arrow
        self._columns = find_columns(schema, path)
        for file, other in zip(self._files, opened, strict=True):
            for name in (self._columns.image, self._columns.label):
                if name not in other.schema_arrow.names:
                    raise UserError(f"{file}: no column {name!r}, which {self._files[0]} has; expected equal columns")
        groups = [
            (f, g, p.metadata.row_group(g).num_rows) for f, p in enumerate(opened) for g in range(p.num_row_groups)
        ]
        self._groups = [(f, g) for f, g, _ in groups]
        self._starts = np.concatenate([[0], np.cumsum([rows for *_, rows in groups], dtype=np.int64)]).astype(np.int64)
        values = [v for p in opened for v in p.read([self._columns.label]).column(0).to_pylist()]
        if not values:
            raise UserError(f"{path}: no rows; a data set needs at least one image")
        self.labels, self.class_names = classes_of(values, self._columns.class_names, path)
        names = self._names(opened)
        self.keys = keys_of(names, self.labels, self.class_names, self._rows(opened))
        sizes = [os.path.getsize(file) for file in self._files]
        self.fingerprint = fingerprint("parquet", sizes, self.labels, "\0".join(self.class_names + self.keys))
        self.stamp = stamp_of([*self._files, *filter(None, names)])  # a row may hold only an image's path

    def read(self, i: int) -> bytes:
        group = int(np.searchsorted(self._starts, i, side="right")) - 1
        return image_bytes(self._group(group)[i - int(self._starts[group])].as_py())

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
                file, number = self._groups[group]
                table = self._open(self._files[file]).read_row_group(number, columns=[self._columns.image])
                self._kept[group] = table.column(0)
                if len(self._kept) > GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]

    def _open(self, file: str) -> Any:
        import pyarrow
        import pyarrow.parquet

        if file not in self._opened:
            try:
                self._opened[file] = pyarrow.parquet.ParquetFile(file)
            except (pyarrow.ArrowException, OSError) as e:
                raise UserError(f"{file}: not a Parquet file that can be read: {str(e).splitlines()[0]}") from e
        return self._opened[file]

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


def _stop_at_several_splits(path: str | Path, files: list[str]) -> None:
    found = {match[1] or match[2] for file in files if (match := SPLIT.fullmatch(Path(file).stem))}
    if len(found) > 1:
        raise UserError(
            f"{path}: holds several splits ({', '.join(sorted(found))}); name one file, or put the files of one split "
            "into a folder of their own"
        )


def _leaves(file: Any) -> list[Any]:
    return [file.schema.column(i) for i in range(len(file.schema))]
