"""Every recipe that comes with the program trains as it stands, here for two steps of tiny faces."""

import json
from pathlib import Path
from typing import Any

import pytest

from facedistill.methods import METHODS
from facedistill.models.folder import load_model
from facedistill.recipe.read import load_recipe, shipped_recipes
from facedistill.recipe.schema import TeacherSpec
from facedistill.training.engine import train
from facedistill.training.method import missing_teachers

TINY = [
    "data.train=synthetic:identities=6,images=4,size=32,seed=1",
    "data.imbalance=1",
    "student.input_size=32",
    "schedule.epochs=1",
    "schedule.batch=12",
    "schedule.log_steps=1",
    "check.own_class=0",
]
# For recipes of images with several labels; each label is on some image, and the hold-out would leave too few.
LABELS = ["data.train=synthetic:identities=6,images=4,size=32,seed=1,task=attributes", "data.hold_out=0"]
# Their embedding, or the teacher's W, ties the student to the teacher's space.
IN_THE_TEACHERS_SPACE = {
    "proxylesskd",
    "proxylesskd_subsets",
    "proxylesskd_instances_l2",
    "l2kd",
    "margin_softmax_l2",
    "shrinkteanet",
    "margin_distillation",
    "adadistill",
    "pocketnet",
    "csd",
    "raml",
    "rop",
    "d3still",
    "aml",
    "backward_compatible",
    "lce",
    "mixbct",
    "residual",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of the recipe scratch; the cache is the module's own."""
    root = tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(root / "cache"))
        yield train(load_recipe("scratch", [*TINY, "student.embedding_dim=16"]), root / "teacher")


def test_every_method_has_its_recipe() -> None:
    assert set(METHODS) <= set(shipped_recipes())


@pytest.fixture(scope="module")
def teacher_of_labels(teacher: Path) -> Path:
    """A run of the recipe bce."""
    return train(load_recipe("bce", [*TINY, *LABELS, "seed=5"]), teacher.parent / "bce")


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if not load_recipe(name).hallucination])
def test_a_shipped_recipe_trains(name: str, teacher: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    recipe = load_recipe(name, TINY)
    if "task=attributes" in load_recipe(name).data.sets[0]:
        recipe = load_recipe(name, [*TINY, *LABELS])
        teacher = request.getfixturevalue("teacher_of_labels")
    recipe.teachers = {missing: TeacherSpec(str(teacher)) for missing in missing_teachers(recipe)}
    run = train(recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line[term] >= 0 for line in lines for term, spec in recipe.method.terms.items() if spec.weight)
    student = load_model(run)
    if recipe.student.backbone == "residual":  # half of it is of use alone, in the same space
        half = load_model(run / "parts" / "student")
        assert (2 * half.parameters_count(), half.space) == (student.parameters_count(), student.space)
    assert (student.space == load_model(teacher).space) == (recipe.method.name in IN_THE_TEACHERS_SPACE)
    assert json.loads((run / "evaluation.json").read_text())["method"].startswith(recipe.method.name)
