"""A file that is no evaluation is refused in one line, which names what is wrong and where; a real one is not."""

import gzip
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from facedistill.errors import UserError
from facedistill.evaluation.figures import Figure
from facedistill.evaluation.protocols import PROTOCOLS
from facedistill.results.html import write_comparison
from facedistill.results.shape import require_shape
from facedistill.results.stored import load_evaluations
from tiny_world import Tiny

RUNS = Path(__file__).parents[2] / "benchmarks" / "results" / "comparison" / "runs.jsonl.gz"
EVALUATION = {
    "schema": 1,
    "models": {"student": {"parameters": 5}},
    "results": [
        {
            "protocol": "pairs",
            "set": "lfw",
            "probe": "student",
            "gallery": "student",
            "settings": {},
            "accuracy": 0.9,
            "tar_at_far": {"1e-3": {"value": 1, "impostors": 3}},
        }
    ],
    "method": "l2kd",
    "training": {"recipe": "a", "seed": 0, "epochs": 14, "data": "faces"},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    """The evaluation with something else at a place; "absent" takes away what is there."""
    found: Any = deepcopy(EVALUATION)
    *groups, last = (int(key) if key.isdigit() else key for key in place.split(" "))
    group = found
    for key in groups:
        group = group[key]
    if value == "absent":
        del group[last]
    else:
        group[last] = value
    return found


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((f"training {key}", "absent") for key in ("recipe", "seed", "epochs", "data")),
        ("training seed", "0"),
        ("training", None),
        ("models", "absent"),
        ("models student", None),
        ("models student parameters", "5"),
        ("results 0", 1),
        *((f"results 0 {key}", "absent") for key in ("protocol", "set", "probe", "gallery", "settings")),
        ("results 0 settings", None),
        ("results 0 accuracy", "0.9"),
        ("results 0 tar_at_far", None),
        ("results 0 tar_at_far 1e-3", 0.9),
        ("results 0 tar_at_far low", {"value": 0.9}),
        ("results 0 curves", None),
        ("results 0 settings", {"resolution": 14}),
        ("results 0 settings", {"resolution": {"probe": "14"}}),
        ("results 0 curves", {"roc": {"far": [0.1, 0.2], "tar": [0.5]}}),
        ("results 0 curves", {"roc": {"far": [0.1, float("nan")], "tar": [0.5, 0.6]}}),
        ("results 0 curves", {"roc": {"far": [0.1, "x"], "tar": [0.5, 0.6]}}),
        ("results 0 curves", {"roc": {"far": [0.1, [0.2]], "tar": [0.5, 0.6]}}),
        ("results 0 curves", {"scores": {"low": 1, "high": -1, "genuine": [1], "impostor": [2]}}),
        ("results 0 curves", {"scores": {"low": -1, "high": 1, "genuine": [1, 2], "impostor": [2]}}),
        ("results 0 curves", {"scores": {"low": -1, "high": 1, "genuine": [], "impostor": []}}),
        ("errors", [{"set": "lfw"}]),
        ("made", []),
        ("differences", [{}]),
        ("groups", None),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, place: str, value: Any) -> None:
    (tmp_path / "e.json").write_text(json.dumps(changed(place, value)))
    with pytest.raises(UserError, match=r"expected a finished run") as refused:
        load_evaluations([tmp_path / "e.json"])
    said = str(refused.value)
    assert said.startswith(f"{tmp_path}/e.json: {place.replace(' ', '.')}") and "\n" not in said and len(said) < 350


def test_json_that_is_nested_without_end_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_evaluations([tmp_path / "e.json"])


def test_what_is_said_of_the_making_may_have_any_shape(tmp_path: Path) -> None:
    made = {"made": {"threads": [2, {"a": 1}], "torch": {"b": [None]}}}
    (tmp_path / "e.json").write_text(json.dumps(EVALUATION | made))
    write_comparison(load_evaluations([tmp_path / "e.json"]), tmp_path / "e.html")
    assert "{&#34;a&#34;: 1}" in (tmp_path / "e.html").read_text()


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(UserError) as refused:
        require_shape(changed("results 0 tar_at_far", ["x" * 9999]), Path("e.json"), "expected another")
    assert len(str(refused.value)) < 200 and str(refused.value).endswith("; expected another")


def test_real_ones_are_read(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(EVALUATION))
    assert list(load_evaluations([tmp_path / "e.json", tiny.student])) == ["e", "student"]
    runs = [json.loads(line) for line in gzip.decompress(RUNS.read_bytes()).splitlines()]
    assert len(runs) > 100
    for run in runs:
        require_shape(run["evaluation"], RUNS, "")


DECLARED = [(kind.name, figure) for kind in PROTOCOLS.values() for figure in kind.figures]


@pytest.mark.parametrize(("protocol", "figure"), DECLARED, ids=lambda x: x if isinstance(x, str) else x.key)
def test_every_figure_of_the_tables_has_its_type(protocol: str, figure: Figure) -> None:
    value = {"value": 0.5} | ({figure.target.decided_by: 7} if figure.target else {})
    right = 0.5 if figure.bare else {"1e-1": value} if figure.family else value
    found = changed("results 0 protocol", protocol)
    found["results"][0] |= {figure.key: right}
    require_shape(found, Path("e.json"), "")
    wrong: list[Any] = [None, "0.5", {"value": "0.5"}, {"1": {"value": None}}]
    wrong += [{"1": {"value": 0.5, figure.target.decided_by: 0.7}}] if figure.target else []
    wrong += [{"1": value}] if not figure.family else [0.5, {"low": value}]
    for other in wrong:
        found["results"][0][figure.key] = other
        with pytest.raises(UserError, match=rf"^e.json: results\.0\.{figure.key}"):
            require_shape(found, Path("e.json"), "")
