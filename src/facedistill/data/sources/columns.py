"""Tables of images (Parquet, Arrow): find the columns of images and labels, and the class names."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from facedistill.errors import UserError

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes", "data")
LABEL_NAMES = ("label", "labels", "identity", "class", "class_name", "person", "person_id", "id", "name", "cls")


def import_pyarrow(path: object) -> Any:
    """Return the module pyarrow, or raise a UserError that says how to install it."""
    try:
        import pyarrow
    except ImportError:
        raise UserError(f"{path}: reading it needs pyarrow; run: pip install 'facedistill[parquet]'") from None
    return pyarrow


@dataclass
class Columns:
    """`image` and `label`: column names. `nested`: the image is a struct {bytes, path} as Hugging Face writes it.
    `class_names`: the names of a ClassLabel, whose integers index them; None for any other label."""

    image: str
    label: str
    nested: bool
    class_names: list[str] | None


def find_columns(schema: Any, path: object) -> Columns:
    """Find image and label in a pyarrow schema by type, and by name if several columns have the type."""
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    def is_image(kind: Any) -> bool:
        return is_bytes(kind) or (types.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind))

    def is_label(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)

    features = _features(schema)
    named = {name: f["names"] for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    image = _choose([f.name for f in schema if is_image(f.type)], IMAGE_NAMES, "image bytes", schema, path)
    candidates = [f.name for f in schema if is_label(f.type)]
    if len(named) == 1:
        candidates = list(named)
    label = _choose(candidates, LABEL_NAMES, "labels (integers or text)", schema, path)
    return Columns(image, label, types.is_struct(schema.field(image).type), named.get(label))


def _features(schema: Any) -> dict[str, Any]:
    """Return the Hugging Face description of the columns from a schema's metadata; {} if there is none."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        return json.loads(text)["info"]["features"] if text else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _choose(candidates: list[str], names: tuple[str, ...], what: str, schema: Any, path: object) -> str:
    if len(candidates) == 1:
        return candidates[0]
    for name in names:
        if name in candidates:
            return name
    columns = ", ".join(f"{f.name} ({f.type})" for f in schema)
    found = f"several columns could hold {what}" if candidates else f"no column holds {what}"
    raise UserError(f"{path}: {found}; expected one of them to be named {' or '.join(names[:3])}; columns: {columns}")


def image_bytes(value: Any) -> bytes:
    """Return the image in a cell: bytes, or {bytes, path}. `datasets` may store only the path of a file.

    Raises ValueError for an empty cell and OSError for a missing file.
    """
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if data is None and path is not None:
        with open(path, "rb") as f:
            return f.read()
    if data is None:
        raise ValueError("the row holds no image bytes")
    return data


def classes_of(values: list[Any], names: list[str] | None, path: object) -> tuple[np.ndarray, list[str]]:
    """Return (labels int64 (N,), class_names) of a label column's `values`: integers, text, or ClassLabel indexes.

    Without `names`, classes are the distinct values in ascending order (integers by number).
    """
    if any(value is None for value in values):
        raise UserError(f"{path}: row {values.index(None)} has no label; every image needs one")
    if names is not None:
        labels = np.array(values, dtype=np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            wrong = labels.min() if labels.min() < 0 else labels.max()
            raise UserError(
                f"{path}: label {wrong}; expected 0 to {len(names) - 1}, one of the {len(names)} class names"
            )
        return labels, list(names)
    found, labels = np.unique(np.array(values), return_inverse=True)
    return labels.astype(np.int64), [str(name) for name in found.tolist()]


def keys_of(files: Iterable[str | None], labels: np.ndarray, class_names: list[str], rows: list[str]) -> list[str]:
    """Return keys "class/file" from the images' file names if all are known and distinct, else `rows`."""
    named = [
        f"{class_names[label]}/{PurePosixPath(file).name}"
        for label, file in zip(labels.tolist(), files, strict=False)
        if file
    ]
    return named if len(set(named)) == len(rows) else rows
