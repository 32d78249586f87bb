"""What the tests of short studies share: people to measure on, and how to read what a study left."""

import json
from pathlib import Path
from typing import Any

import pytest

TEST = "synthetic:identities=20,images=3,size=32,seed=1,first=700"


def results(monkeypatch: pytest.MonkeyPatch, module: Any, folder: Path) -> Any:
    monkeypatch.setattr(module, "RESULTS", folder / "results.json")
    module.collect(folder)
    return json.loads((folder / "results.json").read_text())


def column(table: str, place: int) -> list[str]:
    """Return the cells of a column below its head; the first is 1, the last -2."""
    return [line.split("|")[place].strip() for line in table.splitlines()[2:]]


def files(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*-*.json")}
