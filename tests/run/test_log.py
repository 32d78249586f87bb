"""A log is a record: what is damaged in it is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from facedistill.run.log import read_log


@pytest.mark.parametrize(
    "row",
    [
        {"step": 2, "epoch": 0, "loss": "x"},
        {"step": 2, "epoch": 0, "loss": [1]},
        {"step": 2, "epoch": 0, "loss": float("nan")},
        {"step": 2, "epoch": 0, "loss": float("inf")},
        {"step": 2, "epoch": 0, "loss": 10**400},
        {"step": 2, "epoch": 0, "loss": True},
        {"step": "2", "epoch": 0, "loss": 1},
        {"epoch": 0, "loss": 1},
        [],
    ],
)
def test_rows_that_hold_anything_but_numbers_are_left_out(row: Any, tmp_path: Path) -> None:
    sound = {"step": 1, "epoch": 0, "loss": 0.5, "lr": 1}
    lines = [json.dumps(sound), json.dumps(row), "{", "[" * 5000]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_log(tmp_path / "log.jsonl") == [sound]
