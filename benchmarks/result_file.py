"""Results as small, readable JSON: an object or a list is on one line if it fits."""

import json
from pathlib import Path
from typing import Any

from facedistill.files import atomic_write

WIDTH = 1000  # characters


def write_result(file: Path, result: dict[str, Any]) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(f"{in_lines(result)}\n", "utf-8")


def in_lines(value: Any) -> str:
    """Return JSON in which every object or list longer than WIDTH has a line for each of its elements."""
    text = json.dumps(value)
    if len(text) <= WIDTH or not isinstance(value, dict | list):
        return text
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(in_lines, value)) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {in_lines(of)}" for key, of in value.items()) + "\n}"
