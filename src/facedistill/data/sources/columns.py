"""Tables of images (Parquet, Arrow, metadata.csv): find the columns of images and labels, and the class names."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from facedistill.data.sources.reading import read_file
from facedistill.errors import UsageError, UserError, closest

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes", "data")
LABEL_NAMES = ("label", "labels", "identity", "class", "class_name", "person", "person_id", "id", "name", "cls")
ROW_NUMBER = "id"  # a column of this name often numbers the rows
KEYS = ("image", "label", "folder")


def import_pyarrow(path: object) -> Any:
    """Return the module pyarrow, or raise a UserError that says how to install it."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"{path}: reading it needs pyarrow; run: pip install 'facedistill[parquet]'") from None
    return pyarrow


def checked_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return what a user says about columns. Raises UsageError for a key that is not one of KEYS."""
    for key in columns or {}:
        if key not in KEYS:
            raise UsageError(f"data.columns has no key '{key}'{closest(key, KEYS)}; it has: {', '.join(KEYS)}")
    return dict(columns or {})


@dataclass
class Columns:
    """`image` and `label`: column names. `nested`: the image is a struct {bytes, path} as Hugging Face writes it."""

    image: str
    label: str
    nested: bool


def find_columns(
    schema: Any, path: object, given: Mapping[str, str], values: Callable[[str], Sequence[Any]]
) -> Columns:
    """Find image and label in a pyarrow schema by type, and by name if several columns have the type.

    Args:
        given: names that the user gives for "image" and "label".
        values: returns the values of a column, to tell labels from numbers of rows.
    """
    import pyarrow.types as types

    described = {field.name: f"{field.name} ({field.type})" for field in schema}
    images = [field.name for field in schema if _is_image(field.type)]
    image = _image_column(images, given.get("image"), described, path)
    labels = [f.name for f in schema if _is_text(f.type) or types.is_integer(_plain(f.type))]
    label = label_column(labels, values, given.get("label"), described, path, list(class_labels(schema)))
    return Columns(image, label, types.is_struct(schema.field(image).type))


def _plain(kind: Any) -> Any:
    import pyarrow.types as types

    return kind.value_type if types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return any(
        is_kind(_plain(kind)) for is_kind in (types.is_string, types.is_large_string, _newer(types, "is_string_view"))
    )


def _is_image(kind: Any) -> bool:
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind) or _newer(types, "is_binary_view")(kind)

    return is_bytes(kind) or (types.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind))


def _newer(types: Any, name: str) -> Callable[[Any], bool]:
    """Return the test for a type that older versions of pyarrow do not know."""
    return getattr(types, name, lambda kind: False)


def is_number(kind: Any) -> bool:
    """Return whether a label column's type is a whole number."""
    import pyarrow.types as types

    return types.is_integer(_plain(kind))


def class_labels(schema: Any) -> dict[str, list[str]]:
    """Return the class names of every ClassLabel column, whose integers index them."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(text)["info"]["features"] if text else {}
        return {
            name: list(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and name in schema.names
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _image_column(candidates: list[str], given: str | None, described: Mapping[str, str], path: object) -> str:
    if given is None and len(candidates) == 1:
        return candidates[0]
    named = [name for name in candidates if name.lower() in IMAGE_NAMES]
    if given is None and len(named) == 1:
        return named[0]
    return _given("image", given, named or candidates, candidates, described, path)


def label_column(
    candidates: list[str],
    values: Callable[[str], Sequence[Any]],
    given: str | None,
    described: Mapping[str, str],
    path: object,
    class_labels: Sequence[str] = (),
) -> str:
    """Return the column of labels among `candidates`, which hold text or integers.

    A ClassLabel or one of LABEL_NAMES. If there are several, they must divide the images into the same classes; a
    column whose values are all different numbers the rows, so it is not taken before another.

    Raises UserError if the choice is open; it lists the candidates with their numbers of classes.
    """
    values = cache(values)
    named = [name for known in LABEL_NAMES for name in candidates if name.lower() == known]
    named = list(dict.fromkeys([*class_labels, *named]))

    def repeats(name: str) -> bool:
        return len(set(values(name))) < len(values(name))

    if given is None:
        if named[1:]:
            named = [name for name in named if repeats(name)] or named
        elif not named and len(candidates) == 1 and repeats(candidates[0]):
            return candidates[0]
        doubtful = named and named[0].lower() == ROW_NUMBER and len(candidates) > 1 and not repeats(named[0])
        if named and not doubtful and all(_same_classes(values(named[0]), values(name)) for name in named[1:]):
            return named[0]
    options = [f"{name} ({len(set(values(name))):,} classes)" for name in named or candidates] if given is None else []
    return _given("label", given, options, candidates, described, path)


def _same_classes(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Return whether two columns divide the rows into the same classes."""
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))


def _given(
    key: str, given: str | None, options: list[str], candidates: list[str], described: Mapping[str, str], path: object
) -> str:
    """Return the column that the user gives, or raise UserError with the columns that are possible."""
    if given in candidates:
        return str(given)
    what = "image bytes" if key == "image" else "labels (integers or text)"
    columns = ", ".join(described.values())
    if given is not None:
        raise UserError(f"{path}: data.columns names {given!r}, which holds no {what}; columns: {columns}")
    if not candidates:
        raise UserError(f"{path}: no column holds {what}; columns: {columns}")
    raise UserError(
        f"{path}: several columns could hold {what}: {', '.join(options)}; give data.columns={{{key}: NAME}} in a "
        f"recipe, or call one column {key} and leave out the others; columns: {columns}"
    )


def path_inside(folder: str | os.PathLike, name: str) -> str:
    """Return the path of the file that a row of a table in `folder` names.

    Raises ValueError if it is not inside the folder: a table from elsewhere must not open any file of this machine.
    """
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    if "\0" in name or os.path.commonpath([root, path]) != root or path == root:
        raise ValueError(
            f"the row names a file outside {root}: {name[:100]!a}; if you trust the table, give "
            "data.columns={folder: FOLDER}, the folder of the files"
        )
    return path


def image_bytes(value: Any, folder: str | os.PathLike) -> bytes:
    """Return the image in a cell: bytes, or {bytes, path}. `datasets` may store only the path of a file.

    Raises ValueError for an empty cell or a file outside `folder`, and OSError for a missing or unusual file.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if data is None and path is not None:
        return read_file(path_inside(folder, path))
    if data is None:
        raise ValueError("the row holds no image bytes")
    return data


def classes_of(values: Sequence[Any], names: list[str] | None, path: object) -> tuple[np.ndarray, list[str]]:
    """Return (labels int64 (N,), class_names) of a label column's `values`: integers, text, or ClassLabel indexes.

    Without `names`, classes are the distinct values in ascending order (integers by number).
    """
    if any(value is None for value in values):
        raise UserError(f"{path}: row {list(values).index(None)} has no label; every image needs one")
    if names is not None:
        labels = np.array(values, dtype=np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise UserError(
                f"{path}: label {wrong}; expected 0 to {len(names) - 1}, one of the {len(names)} class names"
            )
        return labels, list(names)
    found = sorted(set(values))
    numbers = {value: number for number, value in enumerate(found)}
    return np.array([numbers[value] for value in values], dtype=np.int64), [str(value) for value in found]


def keys_of(files: Iterable[str | None], labels: np.ndarray, class_names: list[str], rows: list[str]) -> list[str]:
    """Return keys "class/file" from the images' file names if all are known and distinct, else `rows`."""
    named = [
        f"{class_names[label]}/{PurePosixPath(file).name}"
        for label, file in zip(labels.tolist(), files, strict=False)
        if file
    ]
    return named if len(set(named)) == len(rows) else rows
