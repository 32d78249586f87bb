"""Groups of sets against their definition written out."""

import json
from typing import Any

import pytest

from facedistill.evaluation.groups import group_results


def result(name: str, accuracy: float | None, probe: str = "s", **settings: Any) -> dict[str, Any]:
    found = {"protocol": "pairs", "set": name, "probe": probe, "gallery": "t", "settings": settings}
    return found if accuracy is None else found | {"accuracy": accuracy}


def test_mean_std_and_skewed_error_ratio() -> None:
    four = {"African": 0.75, "Asian": 0.8, "Caucasian": 0.95, "Indian": 0.9}
    (found,) = group_results("rfw", [result(name, accuracy) for name, accuracy in four.items()])
    mean = (0.75 + 0.8 + 0.95 + 0.9) / 4
    assert found == {
        "group": "rfw",
        "protocol": "pairs",
        "probe": "s",
        "gallery": "t",
        "sets": four,
        "mean": pytest.approx(mean),
        "std": pytest.approx((sum((x - mean) ** 2 for x in four.values()) / 4) ** 0.5),
        "skewed_error_ratio": pytest.approx(0.25 / 0.05),
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_no_ratio_over_an_error_of_zero() -> None:
    (found,) = group_results("rfw", [result("a", 1.0), result("b", 0.5)])
    assert "skewed_error_ratio" not in found
    assert (found["mean"], found["std"]) == (0.75, 0.25)


def test_pairs_of_models_and_resolutions_are_apart() -> None:
    low, high = {"probe": 7, "gallery": 112}, {"probe": 112, "gallery": 112}
    given = [
        result("a", 0.5),
        result("a", 0.7, probe="t"),
        result("b", 0.6),
        result("a", 0.1, resolution=low),
        result("a", 0.2, resolution=high),
        result("b", 0.8, probe="t"),
        result("b", 0.3, resolution=dict(low)),
        result("a", None),  # all pairs have no accuracy
    ]
    found = group_results("g", given)
    assert [(e["probe"], e.get("resolution"), e["sets"]) for e in found] == [
        ("s", None, {"a": 0.5, "b": 0.6}),
        ("t", None, {"a": 0.7, "b": 0.8}),
        ("s", low, {"a": 0.1, "b": 0.3}),
        ("s", high, {"a": 0.2}),
    ]
    assert "resolution" not in found[0]


def test_a_group_of_nothing() -> None:
    assert group_results("g", []) == []
    assert group_results("g", [result("a", None)]) == []
