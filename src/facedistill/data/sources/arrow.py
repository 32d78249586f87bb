"""A Hugging Face data set on disk, as `datasets.Dataset.save_to_disk` writes it: Arrow streams, memory-mapped."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facedistill.data.sources.columns import (
    checked_columns,
    class_labels,
    classes_of,
    find_columns,
    image_bytes,
    import_pyarrow,
    keys_of,
)
from facedistill.data.sources.guarded import try_in_child
from facedistill.data.sources.reading import read_text
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import stamp_of
from facedistill.errors import UserError
from facedistill.files import fingerprint

EXPECTED = "expected what datasets.save_to_disk writes"
# Offsets into a damaged file's buffers end the process, so all are checked before one is used.
VALIDATE = "import pyarrow as pa; pa.ipc.open_stream(pa.memory_map(file)).read_all().validate(full=True)"


class ArrowSource(Source):
    """A folder with state.json and the data-*.arrow files it lists; columns as in Parquet. Random access is fast.

    Raises UserError for a DatasetDict (naming its splits: open one of them) and for files that cannot be read.
    """

    expected = "a Hugging Face data set on disk"
    inside = ("state.json", "dataset_dict.json")
    takes_columns = True

    def __init__(self, path: str | Path, columns: Mapping[str, str] | None = None) -> None:
        path, given = Path(path), checked_columns(columns)
        self.path, self._folder = str(path), given.get("folder", str(path))
        import_pyarrow(path)
        if (path / "dataset_dict.json").exists():
            splits = [str(split) for split in _list(path / "dataset_dict.json", "splits")]
            raise UserError(
                f"{path}: holds several splits ({', '.join(splits)}); name one, e.g. {path / (splits or ['train'])[0]}"
            )
        self._files = _data_files(path)
        try_in_child(VALIDATE, self._files, "an Arrow stream")
        self._table, self._pid = self._open(), os.getpid()
        self._columns = find_columns(self._table.schema, path, given, self._values)
        if not len(self._table):
            raise UserError(f"{path}: no rows; a data set needs at least one image")
        values = self._values(self._columns.label)
        names = class_labels(self._table.schema).get(self._columns.label)
        self.labels, self.class_names = classes_of(values, names, path)
        files = self._names()
        self.keys = keys_of(files, self.labels, self.class_names, [str(row) for row in range(len(values))])
        sizes = [os.path.getsize(file) for file in self._files]
        self.fingerprint = fingerprint("arrow", sizes, self.labels, "\0".join(self.class_names + self.keys))
        named = [os.path.join(self._folder, file) for file in files if file]  # a row may hold only an image's path
        self.stamp = stamp_of([*self._files, *named])

    def read(self, i: int) -> bytes:
        if self._table is None or self._pid != os.getpid():
            self._table, self._pid = self._open(), os.getpid()
        return image_bytes(self._table.column(self._columns.image)[i].as_py(), self._folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}

    def _values(self, name: str) -> list[Any]:
        return self._table.column(name).to_pylist()

    def _open(self) -> Any:
        import pyarrow

        tables = []
        for file in self._files:
            try:
                tables.append(pyarrow.ipc.open_stream(pyarrow.memory_map(file)).read_all())
            except (pyarrow.ArrowException, OSError) as e:
                raise UserError(f"{file}: not an Arrow stream that can be read: {str(e).splitlines()[0]}") from e
        try:
            return pyarrow.concat_tables(tables)
        except pyarrow.ArrowException as e:
            raise UserError(f"{self.path}: its files differ in their columns: {str(e).splitlines()[0]}") from e

    def _names(self) -> list[str | None]:
        import pyarrow.compute

        kind = self._table.schema.field(self._columns.image).type
        if not self._columns.nested or all(field.name != "path" for field in kind):
            return []
        return pyarrow.compute.struct_field(self._table.column(self._columns.image), "path").to_pylist()


def _data_files(path: Path) -> list[str]:
    """Return the files that state.json lists; each must be a plain name, a file in the folder itself."""
    names = []
    for entry in _list(path / "state.json", "_data_files"):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
            raise UserError(f"{path / 'state.json'}: data file {ascii(entry)[:100]}; {EXPECTED}")
        names.append(str(path / name))
    if not names:
        raise UserError(f"{path}: state.json lists no data files; {EXPECTED}")
    return names


def _list(path: Path, key: str) -> list[Any]:
    """Return the list under `key` of a JSON file; [] if there is none."""
    try:
        found = json.loads(read_text(path, EXPECTED))
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: {e}; {EXPECTED}") from e
    value = found.get(key) if isinstance(found, dict) else found
    if not isinstance(value, list | None) or not isinstance(found, dict):
        raise UserError(f"{path}: {ascii(value)[:60]} where a list of {key} should be; {EXPECTED}")
    return value or []
