"""The options of an evaluation: the same by keywords, as an object and on the command line; wrong ones are refused."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from evaluation_toys import model, write_folder
from facedistill.cli.app import main
from facedistill.errors import UsageError
from facedistill.evaluation import EvaluationOptions, Resolution, evaluate
from tiny_world import Tiny

OPTIONS = st.builds(
    EvaluationOptions,
    protocols=st.none() | st.lists(st.sampled_from(["pairs", "a.b:C"]), max_size=2),
    flip=st.sampled_from(["sum", "concat", "none"]),
    threshold=st.sampled_from(["grid", "exact"]),
    fars=st.none() | st.lists(st.floats(1e-9, 0.99), max_size=3),
    resolutions=st.lists(st.builds(Resolution, pixels=st.integers(1, 99)), max_size=2),
    resamples=st.integers(0, 9),
    seed=st.integers(0, 9),
    media_pooling=st.booleans(),
)


def keywords(options: EvaluationOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in fields(options)}


@given(options=OPTIONS, other=OPTIONS)
def test_keywords_make_the_object_and_replace_what_it_says(
    options: EvaluationOptions, other: EvaluationOptions
) -> None:
    assert options.changed({}) == EvaluationOptions(**keywords(options)) == options
    assert EvaluationOptions().changed(keywords(options)) == options
    assert options.changed(keywords(other)) == other
    assert options.changed({"seed": other.seed}).changed({"seed": options.seed}) == options


def test_an_object_and_keywords_measure_the_same(tmp_path: Path) -> None:
    folder, models = write_folder(tmp_path / "faces"), {"m": model(noise=0.5)}
    options = EvaluationOptions(protocols=("retrieval",), flip="none", resamples=5, seed=3)
    by_object, by_keywords = evaluate(models, [folder], options), evaluate(models, [folder], **keywords(options))
    assert by_object == by_keywords and by_object["results"][0]["settings"]["seed"] == 3
    assert evaluate(models, [folder], options, seed=0) == evaluate(
        models, [folder], protocols=["retrieval"], flip="none", resamples=5
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"flips": "sum"}, "evaluate has no option 'flips'.*did you mean 'flip'"),
        ({"flip": "concatenate"}, "flip 'concatenate'.*did you mean 'concat'.*expected one of sum, concat, none"),
        ({"flip": None}, "flip 'None'.*expected one of"),
        ({"threshold": "best"}, "threshold 'best': expected one of grid, exact"),
        ({"protocols": "pairs"}, "protocols: .*found 'pairs'"),
        ({"protocols": [3]}, "protocols: "),
        ({"fars": [10]}, r"false-accept rates \[10.0\]: expected numbers between 0 and 1"),
        ({"fars": [0]}, "between 0 and 1"),
        ({"fars": [float("nan")]}, "between 0 and 1"),
        ({"fars": ["many"]}, "fars: "),
        ({"resamples": -1}, "resamples -1: expected 0 or a larger number"),
        ({"seed": -1}, "seed -1"),
        ({"resamples": 1.5}, "resamples: "),
        ({"resolutions": [14]}, "resolutions: "),
        ({"latency": "perhaps"}, "latency: "),
    ],
)
def test_wrong_options_are_refused_before_anything_is_opened(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        evaluate({}, ["no/such/set"], **wrong)
    assert "\n" not in str(refused.value)


def test_the_command_line_makes_the_same_object(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    seen: list[EvaluationOptions] = []

    def spy(models: Any, sets: Any, options: EvaluationOptions, **more: Any) -> dict[str, Any]:
        seen.append(options)
        return evaluate(models, sets, options, **more)

    monkeypatch.setattr("facedistill.evaluation.run.evaluate", spy)
    monkeypatch.setattr("facedistill.evaluation.evaluate", spy)
    line = ["evaluate", str(tiny.teacher), "--on", str(tiny.photos), "--protocol", "retrieval", "all-pairs"]
    line += ["--flip", "none", "--far", "0.1", "0.01", "--resolution", "14", "--jpeg", "50", "--no-media-pooling"]
    with pytest.raises(SystemExit) as ended:
        main([*line, "--json", str(tmp_path / "r.json")])
        raise SystemExit(0)
    assert ended.value.code in (0, None)
    assert seen == [
        EvaluationOptions(
            protocols=("retrieval", "all-pairs"),
            flip="none",
            fars=(0.1, 0.01),
            resolutions=(Resolution(14, 0.0, 50),),
            media_pooling=False,
            cache=tmp_path / "cache" / "embeddings",
        )
    ]
    found = json.loads((tmp_path / "r.json").read_text())
    assert {r["protocol"] for r in found["results"]} == {"retrieval", "all-pairs"}
