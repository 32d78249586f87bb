"""A Hugging Face data set on disk, as `datasets.Dataset.save_to_disk` writes it: Arrow streams, memory-mapped."""

import json
import os
from pathlib import Path
from typing import Any

from facedistill.data.sources.columns import classes_of, find_columns, image_bytes, import_pyarrow, keys_of
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import stamp_of
from facedistill.errors import UserError
from facedistill.files import fingerprint


class ArrowSource(Source):
    """A folder with state.json and the data-*.arrow files it lists; columns as in Parquet. Random access is fast.

    Raises UserError for a DatasetDict (naming its splits: open one of them) and for files that cannot be read.
    """

    expected = "a Hugging Face data set on disk"
    inside = ("state.json", "dataset_dict.json")

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = str(path)
        import_pyarrow(path)
        if (path / "dataset_dict.json").exists():
            splits = _json(path / "dataset_dict.json").get("splits", [])
            raise UserError(
                f"{path}: holds several splits ({', '.join(splits)}); name one, e.g. {path / (splits or ['train'])[0]}"
            )
        entries = _json(path / "state.json").get("_data_files") or []
        self._files = [str(path / entry["filename"]) for entry in entries]
        self._table, self._pid = self._open(), os.getpid()
        self._columns = find_columns(self._table.schema, path)
        if not len(self._table):
            raise UserError(f"{path}: no rows; a data set needs at least one image")
        values = self._table.column(self._columns.label).to_pylist()
        self.labels, self.class_names = classes_of(values, self._columns.class_names, path)
        names = self._names()
        self.keys = keys_of(names, self.labels, self.class_names, [str(row) for row in range(len(values))])
        sizes = [os.path.getsize(file) for file in self._files]
        self.fingerprint = fingerprint("arrow", sizes, self.labels, "\0".join(self.class_names + self.keys))
        self.stamp = stamp_of([*self._files, *filter(None, names)])  # a row may hold only an image's path

    def read(self, i: int) -> bytes:
        if self._table is None or self._pid != os.getpid():
            self._table, self._pid = self._open(), os.getpid()
        return image_bytes(self._table.column(self._columns.image)[i].as_py())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def _open(self) -> Any:
        import pyarrow

        if not self._files:
            raise UserError(f"{self.path}: state.json lists no data files; expected what datasets.save_to_disk writes")
        tables = []
        for file in self._files:
            try:
                tables.append(pyarrow.ipc.open_stream(pyarrow.memory_map(file)).read_all())
            except (pyarrow.ArrowException, OSError) as e:
                raise UserError(f"{file}: not an Arrow stream that can be read: {str(e).splitlines()[0]}") from e
        return pyarrow.concat_tables(tables)

    def _names(self) -> list[str | None]:
        import pyarrow.compute

        kind = self._table.schema.field(self._columns.image).type
        if not self._columns.nested or all(field.name != "path" for field in kind):
            return []
        return pyarrow.compute.struct_field(self._table.column(self._columns.image), "path").to_pylist()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: {e}; expected what datasets.save_to_disk writes") from e
