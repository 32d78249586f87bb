"""Recipes: shorthands, overrides, YAML's traps, and errors that name the key and suggest the near one."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from facedistill.errors import UsageError
from facedistill.methods import METHODS
from facedistill.recipe.dialect import parse_value
from facedistill.recipe.read import dump_recipe, load_recipe, make_recipe, shipped_recipes
from facedistill.recipe.schema import Data, Recipe, Schedule, TermSpec
from facedistill.training.method import wire_terms
from facedistill.training.resolved import resolve, resolved_recipe


def _load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    return load_recipe(str(tmp_path / "r.yaml"), overrides)


def _error(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        _load(tmp_path, text, *overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    assert _load(tmp_path, "") == _load(tmp_path, "# nothing\n") == make_recipe({}) == Recipe()
    assert Recipe().method.name == "proxylesskd" and Recipe().schedule == Schedule() and Recipe().teachers == {}


def test_shorthands(tmp_path: Path) -> None:
    recipe = _load(tmp_path, "method: l2kd\nteacher: models/t\ndata: faces\nstudent: iresnet18\n")
    assert recipe.method.name == "l2kd" and recipe.data == Data("faces") and recipe.student.backbone == "iresnet18"
    assert recipe.teachers["teacher"].model == "models/t" and recipe.teachers["teacher"].cache
    recipe = _load(tmp_path, "teacher: {model: t, cache: false}\nteachers: {assistant: a}\n")
    assert {n: (t.model, t.cache) for n, t in recipe.teachers.items()} == {
        "teacher": ("t", False),
        "assistant": ("a", True),
    }


def test_terms_take_a_weight_their_options_or_nothing(tmp_path: Path) -> None:
    text = "margin_softmax: {scale: 32, weight: 2}\n  embedding_l2: 0.5\n  soft_targets:\n"
    assert _load(tmp_path, f"method:\n name: kd\n terms:\n  {text}").method.terms == {
        "margin_softmax": TermSpec(2.0, options={"scale": 32}),
        "embedding_l2": TermSpec(0.5),
        "soft_targets": TermSpec(),
    }


def test_folders_may_be_called_by_a_number(tmp_path: Path) -> None:
    recipe = _load(tmp_path, "data: 2024\nteacher: 7\n", "evaluation.sets=[2025, b]", "student.start=6")
    assert recipe.data == Data("2024") and recipe.teachers["teacher"].model == "7"
    assert recipe.evaluation.sets == ["2025", "b"] and recipe.student.start == "6"
    assert _load(tmp_path, "data: [2023, 2024]\n", "teacher=8").data.train == ["2023", "2024"]


def test_one_set_needs_no_list(tmp_path: Path) -> None:
    assert _load(tmp_path, "evaluation: {sets: lfw.bin}\n").evaluation.sets == ["lfw.bin"]
    assert _load(tmp_path, "", "evaluation.sets=2025").evaluation.sets == ["2025"]


@pytest.mark.parametrize("key", ["seed", "data.hold_out_seed"])
def test_a_seed_is_neither_negative_nor_endless(key: str, tmp_path: Path) -> None:
    for value in (-1, 10**30):
        with pytest.raises(UsageError, match=f"{key}: Input should be"):
            _load(tmp_path, "", f"{key}={value}")


def test_overrides(tmp_path: Path) -> None:
    text = "method: {name: kd, terms: {soft_targets: {temperature: 2}}}\nschedule:\nteacher: t\n"
    recipe = _load(
        tmp_path, text, "schedule.epochs=3", "schedule.milestones=[1, 2]", "method.terms.soft_targets.weight=4",
        "student=iresnet18", "student.input_size=64", "teacher.cache=false", "evaluation.sets=[a.bin]", "data=a=b",
    )  # fmt: skip
    assert recipe.schedule.epochs == 3 and recipe.schedule.milestones == [1.0, 2.0]
    assert recipe.method.terms == {"soft_targets": TermSpec(4.0, options={"temperature": 2})}
    assert (recipe.student.backbone, recipe.student.input_size) == ("iresnet18", 64)
    assert (recipe.teachers["teacher"].model, recipe.teachers["teacher"].cache) == ("t", False)
    assert recipe.evaluation.sets == ["a.bin"] and recipe.data.train == "a=b"
    assert _load(tmp_path, text, "method=scratch").method.terms == _load(tmp_path, text).method.terms


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1), ("5E3", 5000.0), ("1.5e-4", 1.5e-4), (".5", 0.5), ("3.", 3.0), ("-2", -2), ("0", 0), ("+7", 7),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("-.inf", -float("inf")),
        ("on", "on"), ("off", "off"), ("no", "no"), ("yes", "yes"), ("NO", "NO"), ("y", "y"),
        ("1:30", "1:30"), ("2024-05-01", "2024-05-01"), ("0x1f", "0x1f"), ("010", "010"), ("1_000", "1_000"),
        ("1e", "1e"), (".", "."), ("-", ["-"]), ("'3'", "3"), ("[1, 1e3]", [1, 1000.0]), ("{a: on}", {"a": "on"}),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    if value == ["-"]:
        value = [None]
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_words_that_yaml_takes_for_booleans_stay_keys(tmp_path: Path) -> None:
    assert "'on'" in _error(tmp_path, "on: 3\n")
    assert "'schedule.no'" in _error(tmp_path, "schedule: {no: 3}\n")
    assert _load(tmp_path, "teachers: {no: t, on: u}\n").teachers.keys() == {"no", "on"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shedule: {}", "unknown key 'shedule' (did you mean 'schedule'?); known here: data, student"),
        ("schedule: {epoch: 3}", "unknown key 'schedule.epoch' (did you mean 'epochs'?)"),
        ("method: {clasifier: {}}", "unknown key 'method.clasifier' (did you mean 'classifier'?)"),
        ("method: {classifier: {strat: random}}", "'method.classifier.strat' (did you mean 'start'?)"),
        ("teachers: {senior: {model: t, cahce: true}}", "'teachers.senior.cahce' (did you mean 'cache'?)"),
        ("teachers: {keys: {model: t, cahce: true}}", "'teachers.keys.cahce' (did you mean 'cache'?)"),
        ("teachers: {teachers: {model: t, cahce: true}}", "'teachers.teachers.cahce' (did you mean 'cache'?)"),
        ("method: {sampler: {kidn: pk}}", "'method.sampler.kidn' (did you mean 'kind'?)"),
        ("method: {terms: {a: {options: {}, wieght: 1}}}", "'method.terms.a.wieght' (did you mean 'weight'?)"),
        ("1: {}", "1: Keys should be strings"),
        ("schedule: {epochs: twelve}", "schedule.epochs: Input should be a valid integer"),
        ("schedule: {epochs: twelve}", "found 'twelve'"),
        ("schedule: {epochs: 2.5}", "schedule.epochs: "),
        ("schedule: {lr: fast}", "schedule.lr: Input should be a valid number"),
        ("schedule: {lr: .nan}", "schedule.lr: "),
        ("schedule: {lr: -0.1}", "schedule.lr: Input should be greater than or equal to 0, found -0.1"),
        ("schedule: {epochs: 0}", "schedule.epochs: Input should be greater than or equal to 1, found 0"),
        ("schedule: {log_steps: 0}", "schedule.log_steps: "),
        ("schedule: {batch: [8]}", "schedule.batch: Input should be a valid integer, found [8]"),
        ("schedule: {decay: linear}", "schedule.decay: Input should be 'step', 'polynomial', 'cosine' or 'none'"),
        ("data: {hold_out: 1.5}", "data.hold_out: "),
        ("data: {in_memory: perhaps}", "data.in_memory: "),
        ("data: true", "data.train: Input should be a valid string, or: Input should be a valid list, found True"),
        ("data: 1.10", "data: Input should be a dictionary or an instance of Data, found 1.1; expected {name: value}"),
        ("data: {train: [1.10]}", "data.train.0: Input should be a valid string, found 1.1; quotes make a word of it"),
        ("data: [a, {b: 1}]", "data.train.1: Input should be a valid string, found {'b': 1}"),
        ("data: {weights: [1, 2]}", "data.weights: Input should be a valid dictionary, found [1, 2]; expected {name"),
        ("track: [mlfolw]", "track.0: Input should be 'tensorboard', 'wandb' or 'mlflow', found 'mlfolw'"),
        ("seed: one", "seed: Input should be a valid integer"),
        ("schedule: 3", "schedule: "),
        ("teachers: t", "teachers: Input should be a valid dictionary, found 't'"),
        ("teachers: [t]", "teachers: Input should be a valid dictionary"),
        ("teachers: {a: {}}", "teachers.a.model"),
        ("method: {terms: [embedding_l2]}", "method.terms: Input should be a valid dictionary"),
        ("method: {terms: {embedding_l2: heavy}}", "method.terms.embedding_l2: "),
        ("method: {terms: {embedding_l2: {weight: heavy}}}", "method.terms.embedding_l2.weight: "),
        ("method: {classifier: {start: 3}}", "method.classifier.start: Input should be a valid string, found 3"),
        ("method: {classifier: {moved_by: me}}", "method.classifier.moved_by: Input should be 'nothing', 'gradient'"),
        ("- data", "expected keys such as data, student, method; found list"),
        ("faces", "expected keys such as data, student, method; found str"),
        ("0", "expected keys such as data, student, method; found int"),
        ("data: [1,\nseed: 2", "is not YAML"),
        ("\tdata: x", "is not YAML"),
        ("seed: 1\ndata: a\nseed: 2\n", "the key 'seed' is there twice (line 3)"),
        ("schedule: {lr: 1, lr: 2}", "the key 'lr' is there twice (line 1)"),
    ],
)  # fmt: skip
def test_errors_name_key_and_value(text: str, expected: str, tmp_path: Path) -> None:
    message = _error(tmp_path, text)
    assert expected in message and message.startswith("recipe '")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("schedule.epochs", "expected key=value"),
        ("schedule.epoch=3", "did you mean 'epochs'"),
        ("seed.value=3", "'seed' is a value, not a group of keys"),
        ("schedule.milestones=[1,", "'[1,' is not a YAML value"),
        ("schedule.lr=fast", "schedule.lr: "),
        ("=3", "unknown key ''"),
    ],
)  # fmt: skip
def test_bad_overrides(override: str, expected: str, tmp_path: Path) -> None:
    assert expected in _error(tmp_path, "seed: 1\n", override)


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file and no shipped recipe"):
        load_recipe(str(tmp_path / "nothing.yaml"))
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(str(tmp_path / "picture.yaml"))


def test_a_tag_runs_no_code(tmp_path: Path) -> None:
    assert "is not YAML" in _error(tmp_path, f"seed: !!python/object/apply:os.mkdir ['{tmp_path}/proof']\n")
    assert not (tmp_path / "proof").exists()


def test_options_of_a_term_are_checked_by_the_term(tmp_path: Path) -> None:
    for option, expected in [
        ("scal: 32", r"term 'margin_softmax' has no option 'scal' \(did you mean 'scale'\?\)"),
        ("scale: large", "term 'margin_softmax': option 'scale': Input should be a valid number, .* found 'large'"),
        ("margin: arcfase", r"margin 'arcfase' is unknown \(did you mean 'arcface'\?\)"),
        ("margin_options: {sise: 1}", r"margin 'arcface' has no option 'sise' \(did you mean 'size'\?\)"),
        ("margin_options: {size: big}", "margin 'arcface': option 'size': .* found 'big'"),
    ]:
        recipe = _load(tmp_path, f"method: {{name: scratch, terms: {{margin_softmax: {{{option}}}}}}}\n")
        with pytest.raises(UsageError, match=expected):
            wire_terms(resolve(recipe.method))


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12) | st.sampled_from(
    ["1e-1", "on", "no", "null", "~", "true", "1:30", "2024-05-01", "=", "<<", "0x1", "010", ".inf", "- a", "a: b", "'"]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS


@given(
    train=WORDS,
    sets=st.lists(WORDS, max_size=3),
    lr=st.floats(0, 1e3),
    epochs=st.integers(1, 99),
    milestones=st.lists(st.floats(allow_nan=False), max_size=3),
    options=st.dictionaries(WORDS, VALUES, max_size=3),
    teacher=WORDS,
    weight=st.none() | st.floats(-10, 10),
    memory=st.none() | st.booleans(),
)
def test_a_dumped_recipe_loads_to_an_equal_one(
    train: str, sets: list[str], lr: float, epochs: int, milestones: list[float], options: dict[str, Any], teacher: str,
    weight: float | None, memory: bool | None,
) -> None:  # fmt: skip
    recipe = make_recipe(
        {
            "data": {"train": train, "in_memory": memory},
            "student": {"options": options},
            "teachers": {teacher: {"model": train}},
            "evaluation": {"sets": sets},
            "schedule": {"lr": lr, "epochs": epochs, "milestones": milestones},
            "method": {"terms": {"embedding_l2": {"weight": weight, "normalise": False}}},
        }
    )
    text = dump_recipe(recipe)
    again = make_recipe(parse_value(text))
    assert again == recipe and dump_recipe(again) == text


@pytest.mark.parametrize("name", METHODS)
def test_a_resolved_recipe_stays_as_it_is(name: str) -> None:
    recipe = make_recipe({"method": {"name": name, "terms": {"embedding_l2": 0, "margin_softmax": {"scale": 8}}}})
    recipe = resolved_recipe(recipe)
    again = make_recipe(parse_value(dump_recipe(recipe)))
    assert again == recipe and resolve(again.method).spec == recipe.method


def test_shipped_recipes_load_resolve_and_are_short() -> None:
    assert set(shipped_recipes()) <= set(METHODS) | set(shipped_recipes())
    for name in shipped_recipes():
        recipe = load_recipe(name)
        assert wire_terms(resolve(recipe.method)), name


def test_yaml_elsewhere_is_left_alone() -> None:
    assert yaml.safe_load("on") is True and yaml.safe_load("1e-1") == "1e-1"


def test_a_group_named_by_one_value_keeps_its_other_keys(tmp_path: Path) -> None:
    text = """
data: {train: a, hold_out: 0.2, workers: 0}
student: {backbone: iresnet18, input_size: 64, options: {width: 0.5}}
teachers: {teacher: {model: t, cache: false}, assistant: {model: u, cache: false}}
method: {name: kd, sampler: {kind: pk}, terms: {soft_targets: {weight: 2, temperature: 3}, embedding_l2: 4}}
"""
    before = _load(tmp_path, text)
    after = _load(
        tmp_path,
        text,
        "data=b",
        "student=mobilefacenet",
        "teacher=v",
        "teachers.assistant=w",
        "method=l2kd",
        "method.terms.soft_targets=5",
        "method.terms.embedding_l2=6",
    )
    assert after.data == replace(before.data, train="b")
    assert after.student == replace(before.student, backbone="mobilefacenet")
    assert {n: (t.model, t.cache) for n, t in after.teachers.items()} == {
        "teacher": ("v", False),
        "assistant": ("w", False),
    }
    assert after.method.name == "l2kd" and after.method.sampler == before.method.sampler
    assert after.method.terms["soft_targets"] == TermSpec(5.0, options={"temperature": 3})
    assert after.method.terms["embedding_l2"] == TermSpec(6.0)
    assert _load(tmp_path, text, "data={train: c}").data == Data("c")  # a group given whole


TENFOLD = [(i, ", ".join([f"*a{i - 1}"] * 10)) for i in range(1, 12)]
ALIASES = "\n".join(["a0: &a0 {k: 1}", *(f"a{i}: &a{i} [{ten}]" for i, ten in TENFOLD)])
MERGES = "\n".join(["a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: [{ten}]}}" for i, ten in TENFOLD)])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (ALIASES, "more than 10,000 values"),
        (MERGES, "more than 10,000 values"),
        ("data: &a [*a]", "contains itself"),
        ("data: &a {train: {b: *a}}", "contains itself"),
        ("data: &a\n  <<: *a", "contains itself"),
        ("data: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("data: " + "[" * 50_000, "nested more than 50 deep"),
        ("data: a\x85b", "U+0085"),
        ("data: a\u2028b", "U+2028"),
        ("data: 'a\x00b'", "special characters"),
        ("seed: " + "1" * 10_000, "4300"),
        ("data: " + "x" * 2_000_000, "longer than 1,048,576 characters"),
        ("{[a]: b}", "unhashable key"),
    ],
    ids=lambda value: value[:20],
)
def test_a_hostile_file_is_one_line_at_once(tmp_path: Path, text: str, named: str) -> None:
    began = time.process_time()
    assert named in _error(tmp_path, text)
    if "\x85" not in text and len(text) < 1000:
        assert named in _error(tmp_path, "", f"data={text.removeprefix('data: ')}")
    assert time.process_time() - began < 5


def test_every_line_end_comes_back_from_a_recipe(tmp_path: Path) -> None:
    recipe = make_recipe({"data": "a\x85b\u2028c\u2029d\ne"})
    assert _load(tmp_path, dump_recipe(recipe)) == recipe
