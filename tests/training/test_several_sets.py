"""A run on several data sets: W, cache, hold-out, resume, and what is refused before anything is embedded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from facedistill.cli.app import main
from facedistill.errors import UsageError, UserError
from facedistill.recipe.read import dump_recipe, load_recipe, make_recipe
from facedistill.recipe.schema import Recipe
from facedistill.training.assemble import Assembly, assemble
from facedistill.training.distill import distillation_recipe
from facedistill.training.engine import train
from facedistill.training.resolved import resolve
from facedistill.training.teacher import Teacher
from tiny_world import TINY_STUDENT, Tiny

DRAWN = "synthetic:identities=5,images=4,size=32,seed=1,first=900"
UNKNOWN = "unlabelled:synthetic:identities=10,images=1,size=32,seed=1,first=700"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))


def _recipe(tiny: Tiny, *sets: str, **changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "data": {"train": [str(tiny.photos), *sets]},
        "student": TINY_STUDENT,
        "teacher": str(tiny.teacher),
        "method": {
            "name": "proxylesskd",
            "classifier": {"start": "instances"},
            "terms": {"margin_softmax": {"scale": 16}, "embedding_l2": 4},
        },
        "schedule": {"epochs": 2, "batch": 12, "lr": 0.05, "checkpoint_steps": 2, "log_steps": 1},
        "check": {"own_class": 0},
    }
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) else value
    return make_recipe(raw)


def _assembled(recipe: Recipe) -> Assembly:
    return assemble(recipe, resolve(recipe.method))


def test_every_image_has_its_row_its_cached_embedding_and_its_weight(tiny: Tiny) -> None:
    name = tiny.photos.name
    found = _assembled(_recipe(tiny, DRAWN, UNKNOWN, data={"weights": {"synthetic": 0.5, "synthetic-2": 2.0}}))
    weight, teacher = found.method.weight, found.method.teachers["teacher"]
    assert weight is not None and isinstance(teacher, Teacher) and teacher.cache is not None
    assert weight.rows.total == len(teacher.cache) == len(found.train) == 72 + 20 + 10
    names = [key.partition("/")[0] for key in found.train.keys]
    assert names == [name] * 72 + ["synthetic"] * 20 + ["synthetic-2"] * 10
    assert found.sampler.steps == (72 + 10 + 20) // 12
    indices = found.sampler.epoch(0)[0]
    assert (indices >= 92).sum() >= 19 and ((indices >= 72) & (indices < 92)).sum() <= 10


def test_it_trains_resumes_to_the_same_bits_and_holds_out_known_people(tiny: Tiny, tmp_path: Path) -> None:
    recipe = _recipe(tiny, DRAWN, UNKNOWN, data={"hold_out": 0.25, "weights": {"synthetic-2": 0.5}})
    alone = _assembled(_recipe(tiny, data={"train": str(tiny.photos), "hold_out": 0.25})).held_out
    held = _assembled(recipe).held_out
    assert held is not None and alone is not None
    assert [key.partition("/")[2] for key in held.keys] == alone.keys and len(held.class_names) == 3
    run = train(recipe, tmp_path / "run")
    expected = load_file(run / "model" / "model.safetensors")
    assert json.loads((run / "evaluation.json").read_text())["training"]["images"] == 54 + 20 + 10
    (run / "evaluation.json").unlink()
    max((run / "checkpoints").glob("*.pt")).unlink()
    train(load_recipe(str(run / "recipe.yaml")), run)
    found = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_unknown_people_may_be_classes_of_centres_or_embeddings_alone(tiny: Tiny) -> None:
    centres = {"method": {"classifier": {"start": "centres"}}}
    weight = _assembled(_recipe(tiny, UNKNOWN, **centres)).method.weight
    assert weight is not None and weight.rows.total == 12 + 10
    alone = _assembled(_recipe(tiny, data={"train": UNKNOWN}, method="l2kd", schedule={"batch": 5}))
    assert len(alone.train) == 10 and alone.method.weight is None


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "scratch", "terms": {}, "classifier": {}}, "the term 'margin_softmax' needs one; leave out the unl"),
        ({"classifier": {"start": "teacher"}}, r"needs one; .*make W of the teacher's embeddings \(method.classifier"),
        (
            {"name": "ekd", "classifier": {}},
            r"10 of 82 images have no label, and the term '(ekd|margin_softmax)'",
        ),
        ({"name": "l2kd", "terms": {"aml": {}}, "classifier": {}}, "the term 'aml' needs one"),
    ],
)
def test_a_term_that_needs_labels_is_refused_beside_unlabelled_images(
    tiny: Tiny, method: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _assembled(_recipe(tiny, UNKNOWN, method=method))


def test_classes_asked_for_where_w_has_images_are_refused(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match=r"term 'soft_targets' compares the classes .*start=instances\); choose"):
        _assembled(_recipe(tiny, DRAWN, method={"terms": {"soft_targets": 1}}))


def test_a_recipe_names_one_set_or_several(tiny: Tiny) -> None:
    one, several = make_recipe({"data": "photos"}), make_recipe({"data": ["photos", DRAWN]})
    assert (one.data.sets, several.data.sets) == (["photos"], ["photos", DRAWN])
    assert "weights" not in dump_recipe(one) and "classes" not in dump_recipe(several)
    for recipe in (several, make_recipe({"data": "photos"}, [f"data=[photos, '{DRAWN}']", "data.weights={photos: 2}"])):
        assert make_recipe(_read(dump_recipe(recipe))) == recipe and recipe.data.sets == ["photos", DRAWN]
    two: dict[str, Any] = {"train": ["a", "b"]}
    wrong: list[dict[str, Any]] = [{"train": []}, two | {"weights": {"a": 0}}, two | {"weights": {"a": "x"}}]
    for bad in wrong:
        with pytest.raises(UsageError, match=r"data\.(train|weights)"):
            make_recipe({"data": bad})


def _read(text: str) -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_distill_and_check_take_several_sets(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check.own_class=0", "student.input_size=32", "student.options.width=0.25"]
    recipe = distillation_recipe(
        tiny.teacher, [str(tiny.photos), DRAWN], "mobilefacenet", tmp_path / "run", "l2kd", words
    )
    assert recipe.data.sets == [str(tiny.photos), DRAWN]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["check", str(tiny.teacher), "--data", str(tiny.photos), "--data", DRAWN])
    assert "17" in capsys.readouterr().out  # people
