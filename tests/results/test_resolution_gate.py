"""The gate of low resolution, on results written by hand."""

from typing import Any

import pytest

from facedistill.results.reading import Entry
from facedistill.results.resolution_gate import lost_at_full_resolution


def _entry(name: str, tar: float, low: bool = False, run: str = "") -> Entry:
    at = {"value": tar, "impostors": 500, "far": 1e-3, "threshold": 0.3}
    settings: dict[str, Any] = {"resolution": {"probe": 16, "gallery": 16}} if low else {}
    who = {"probe": name, "gallery": name, "set": "lfw", "protocol": "all-pairs"}
    return Entry(run, {**who, "settings": settings, "tar_at_far": {"1e-3": at}, "eer": 0.1, "auc": 0.9})


@pytest.mark.parametrize(("student", "lost"), [(0.50, "3.0"), (0.519, "1.1"), (0.521, None), (0.9, None)])
def test_more_than_a_point_is_a_line(student: float, lost: str | None) -> None:
    entries = [
        _entry("student", student),
        _entry("baseline", 0.53),
        _entry("teacher", 0.2),
        _entry("student", 0.1, True),
    ]
    expected = [f"The student loses {lost} points of TAR at FAR 1e-3 at full resolution against the baseline (gate: 1)"]
    assert lost_at_full_resolution(entries) == (expected if lost else [])


def test_each_run_has_its_own_baseline() -> None:
    entries = [_entry("model", 0.5, run="a"), _entry("baseline", 0.9, run="b"), _entry("model", 0.4, True, run="a")]
    assert lost_at_full_resolution(entries) == []
    (line,) = lost_at_full_resolution([*entries, _entry("baseline", 0.6, run="a")])
    assert line.startswith("a: the model loses 10.0 points")


def test_without_low_resolution_or_a_baseline_nothing_is_judged() -> None:
    assert lost_at_full_resolution([_entry("student", 0.1), _entry("baseline", 0.9)]) == []
    assert lost_at_full_resolution([_entry("student", 0.1), _entry("student", 0.1, True)]) == []
    assert lost_at_full_resolution([_entry("student", 0.1, True)]) == []
