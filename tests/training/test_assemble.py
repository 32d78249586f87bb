"""From a recipe to what trains: sizes that fit, teachers that run only where they must, what is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from facedistill.backbones import create_backbone
from facedistill.data.dataset import open_dataset
from facedistill.data.views import Mixup, Same
from facedistill.errors import UsageError, UserError
from facedistill.head.classifier import Classifier
from facedistill.models.folder import load_model, save_model
from facedistill.models.model import InputSpec, Model
from facedistill.recipe.read import make_recipe
from facedistill.terms.influence import Influence
from facedistill.training.assemble import Assembly, assemble
from facedistill.training.resolved import resolve

DATA = "synthetic:identities=6,images=3,size=32,seed=1"
NAMES = open_dataset(DATA).class_names


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _save(folder: Path, classifier: Classifier | None, dim: int = 8) -> Path:
    save_model(
        Model(create_backbone("mobilefacenet", embedding_dim=dim, input_size=32, width=0.25), None, classifier), folder
    )
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of 8 dimensions with a classifier of twice as many classes as the data has, in another order."""
    names = [*reversed(NAMES), *(f"stranger {i}" for i in range(6))]
    return _save(tmp_path_factory.mktemp("models") / "teacher", Classifier(torch.randn(12, 8), names))


def _assemble(teacher: Path | None = None, **changes: Any) -> Assembly:
    raw: dict[str, Any] = {
        "data": {"train": DATA},
        "student": {"input_size": 32, "options": {"width": 0.25}},
        "check": {"own_class": 0},
        "schedule": {"batch": 8},
    }
    if teacher is not None:
        raw["teachers"] = {"teacher": {"model": str(teacher)}}
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(raw.get(key), dict) and isinstance(value, dict) else value
    recipe = make_recipe(raw)
    return assemble(recipe, resolve(recipe.method))


def test_w_takes_the_datas_classes_in_the_datas_order(teacher: Path) -> None:
    found = _assemble(teacher, method="proxylesskd")
    weight, own = found.method.weight, found.models["teacher"].classifier
    assert weight is not None and own is not None and weight.frozen and found.origin == "teacher"
    assert weight.class_names == found.train.class_names == NAMES
    torch.testing.assert_close(weight.weight, own.weight[:6].flip(0))
    assert found.method.student.embedding_dim == 8


@pytest.mark.parametrize(("rows", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.int8)])
def test_w_is_held_as_short_as_asked(rows: str, dtype: torch.dtype, teacher: Path) -> None:
    found = _assemble(teacher, method={"name": "proxylesskd", "classifier": {"rows": rows}})
    weight, own = found.method.weight, found.models["teacher"].classifier
    assert weight is not None and own is not None and weight.rows.values.dtype == dtype and not weight.rows.sharded
    torch.testing.assert_close(weight.rows.of(torch.arange(6)), own.weight[:6].flip(0), rtol=0, atol=5e-3)


def test_what_it_is_evaluated_on_is_opened_before_training(teacher: Path, tmp_path: Path) -> None:
    found = _assemble(teacher, data={"hold_out": 0.4}, evaluation={"sets": [DATA]})
    assert list(found.sets) == [DATA, "hold-out"] and found.held_out is not None
    with pytest.raises(UserError, match=r"nothing\.bin: no such file"):
        _assemble(teacher, evaluation={"sets": [str(tmp_path / "nothing.bin")]})


def test_w_that_cannot_be_held_short(teacher: Path) -> None:
    with pytest.raises(UsageError, match="rows=int8 needs a W that nothing moves, not one moved by gradient"):
        _assemble(teacher, method={"name": "proxylesskd_finetune", "classifier": {"rows": "int8"}})
    terms = {"soft_targets": 1}
    with pytest.raises(UsageError, match="soft_targets: reads W as float32"):
        _assemble(teacher, method={"name": "proxylesskd", "classifier": {"rows": "bf16"}, "terms": terms})


def test_nearest_negatives_are_found_in_the_w_of_the_datas_classes(teacher: Path) -> None:
    nearest = {"terms": {"margin_softmax": {"negatives": "nearest", "nearest": 2}}}
    term = _assemble(teacher, method={"name": "proxylesskd", **nearest}).method.terms["margin_softmax"]
    assert term.neighbours.shape == (len(NAMES), 2)
    with pytest.raises(UsageError, match="negatives=nearest needs a W that nothing moves"):
        _assemble(teacher, method={"name": "proxylesskd_finetune", **nearest})


@pytest.mark.parametrize("method", ["l2kd", "margin_softmax_l2", "shrinkteanet", "proxylesskd", "kd"])
def test_an_embedding_size_of_its_own_needs_a_projection_where_spaces_meet(method: str, teacher: Path) -> None:
    if method == "kd":  # logits meet, not embeddings
        assert _assemble(teacher, method=method, student={"embedding_dim": 5}).method.student.embedding_dim == 5
        return
    with pytest.raises(UsageError, match=r"student\.embedding_dim is 5 but the teacher's space has 8 dimensions"):
        _assemble(teacher, method=method, student={"embedding_dim": 5})
    student = _assemble(teacher, method=method, student={"embedding_dim": 5, "projection": True}).method.student
    assert student.embedding_dim == 8 and student.projection is not None and student.backbone is not None
    assert student.backbone.embedding_dim == 5


def test_without_a_teacher_the_student_has_the_size_it_asks_for() -> None:
    assert _assemble(method="scratch").method.student.embedding_dim == 512
    found = _assemble(method="scratch", student={"embedding_dim": 24})
    assert found.method.weight is not None and tuple(found.method.weight.weight.shape) == (6, 24)


def test_a_random_w_depends_on_the_recipe() -> None:
    student = {"embedding_dim": 8}
    weights = [_assemble(method="scratch", student=student, seed=seed).method.weight for seed in (0, 0, 1)]
    first, again, other = (w.weight for w in weights if w is not None)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("method", "cache", "cached"),
    [("proxylesskd", True, False), ("l2kd", True, True), ("l2kd", False, False), ("kd", True, True)],
)
def test_a_teacher_is_cached_only_where_a_term_asks_it(method: str, cache: bool, cached: bool, teacher: Path) -> None:
    found = _assemble(method=method, teachers={"teacher": {"model": str(teacher), "cache": cache}})
    assert (found.method.teachers["teacher"].cache is not None) == cached


def test_a_removed_term_stays_removed(teacher: Path) -> None:
    found = _assemble(teacher, method={"name": "margin_softmax_l2", "terms": {"margin_softmax": 0}})
    assert list(found.method.terms) == ["embedding_l2"] and found.method.weight is None


def test_a_term_that_needs_w_where_the_method_has_none(teacher: Path) -> None:
    method: dict[str, Any] = {"name": "l2kd", "terms": {"margin_softmax": 1}}
    with pytest.raises(UsageError, match=r"method l2kd has no W.*set method\.classifier\.start"):
        _assemble(teacher, method=method)
    method["classifier"] = {"start": "centres", "moved_by": "nothing"}
    assert _assemble(teacher, method=method).origin == "centres"


def test_what_a_teacher_lacks_is_said(teacher: Path, tmp_path: Path) -> None:
    bare = _save(tmp_path / "bare", None)
    with pytest.raises(
        UserError, match=r"teacher 'teacher' brings no classifier; set method\.classifier\.start=centres"
    ):
        _assemble(bare, method="proxylesskd")
    with pytest.raises(UserError, match="needs the student's and the teacher's classifier"):
        _assemble(bare, method="kd")
    fewer = _save(tmp_path / "fewer", Classifier(torch.randn(4, 8), NAMES[:4]))
    with pytest.raises(UserError, match="2 of 6 classes of the data have no row in W"):
        _assemble(fewer, method="proxylesskd")
    with pytest.raises(UsageError, match="W starts from 'teacher' but the recipe has no teacher 'teacher'"):
        _assemble(method="proxylesskd")
    with pytest.raises(UsageError, match="needs the teacher 'teacher'"):
        _assemble(method="l2kd")
    with pytest.raises(UsageError, match="fitted needs the term margin_softmax"):
        _assemble(teacher, method={"name": "kd", "classifier": {"start": "fitted"}, "terms": {"margin_softmax": 0}})


def test_a_w_that_does_not_fit_is_refused_before_training(teacher: Path) -> None:
    with pytest.raises(UserError):  # the rows are random numbers
        _assemble(teacher, method="proxylesskd", check={"own_class": 0.9})


@pytest.mark.parametrize("method", ["fitnet", "attention_transfer"])
def test_stage_maps_need_a_network_that_gives_them(
    method: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _assemble(teacher, method=method)
    assert found.method.teachers["teacher"].cache is None  # stage maps are never cached
    trained = {name for name, _ in found.method.named_parameters() if name.startswith("terms.")}
    assert trained == (
        {f"terms.fitnet.projection.{part}" for part in ("0.weight", "1.weight", "1.bias")}
        if method == "fitnet"
        else set()
    )
    save_model(Model(None, classifier=Classifier(torch.randn(6, 8), NAMES)), tmp_path / "table")
    with pytest.raises(UserError, match="needs the stage features of teacher 'teacher', but only its embeddings"):
        _assemble(tmp_path / "table", method=method)
    monkeypatch.setattr(type(found.models["teacher"].backbone), "has_features", False)
    with pytest.raises(UserError, match="an ONNX file gives its embedding alone; import the teacher's checkpoint"):
        _assemble(teacher, method=method)


def test_residual_distillation_needs_two_networks_and_does_without_stage_maps(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = {"backbone": "residual", "options": {"options": {"width": 0.25}}}
    found = _assemble(teacher, method="residual", student=student)
    assert found.method.anchors == "teacher" and found.method.teachers["teacher"].cache is None
    assert "stage maps" not in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"term 'residual' needs .* student and assistant; set student.backbone=resid"):
        _assemble(teacher, method="residual")
    monkeypatch.setattr(type(found.models["teacher"].backbone), "has_features", False)
    found = _assemble(teacher, method="residual", student=student)
    assert "'residual': teacher 'teacher' gives no stage maps, so its embedding alone" in capsys.readouterr().err
    assert found.method.needs == {"teacher": {"embedding"}} and found.method.teachers["teacher"].cached


@pytest.mark.parametrize("method", ["similarity_preserving", "rkd", "darkrank", "pkt", "cckd", "ekd", "fitnet"])
def test_relations_and_stage_maps_tie_the_student_to_no_dimension(method: str, teacher: Path) -> None:
    found = _assemble(teacher, method=method, student={"embedding_dim": 5})
    assert found.method.student.embedding_dim == 5 and found.method.anchors is None
    assert _assemble(teacher, method=method).method.student.embedding_dim == 8


def _view(found: Assembly) -> type:
    assert isinstance(found.method.view, partial)
    return type(found.method.view.func)


def test_mixed_images_rule_out_what_knows_only_the_images_as_they_are(teacher: Path, tmp_path: Path) -> None:
    found = _assemble(teacher, method="stkd")
    assert found.method.teachers["teacher"].cache is None and _view(found) is Mixup
    assert _view(_assemble(teacher, method={"name": "stkd", "view": {"kind": "same"}})) is Same
    save_model(Model(None, classifier=Classifier(torch.randn(6, 8), NAMES)), tmp_path / "table")
    with pytest.raises(
        UserError, match="a term needs teacher 'teacher' to see the mixed images, but only its embeddings are known"
    ):
        _assemble(tmp_path / "table", method="stkd")
    mixed = {"name": "proxylesskd", "view": {"kind": "mixup"}}  # the teacher does not run
    assert _view(_assemble(teacher, method=mixed)) is Mixup
    with pytest.raises(UsageError, match=r"cannot follow mixed images; set method\.view\.kind=same"):
        _assemble(teacher, method={"name": "adadistill", "view": {"kind": "mixup"}})


TWO = {"margin_softmax": {"scale": 16}, "second": {"term": "margin_softmax", "teacher": "second", "scale": 16}}


@pytest.mark.parametrize("classifier", [{}, {"start": "centres"}, {"moved_by": "gradient"}, {"moved_by": "teacher"}])
def test_several_teachers_bring_a_w_each(classifier: dict[str, str], teacher: Path, tmp_path: Path) -> None:
    own = Classifier(torch.randn(6, 12), NAMES)
    models = {"teacher": {"model": str(teacher)}, "second": {"model": str(_save(tmp_path / "second", own, dim=12))}}
    found = _assemble(teachers=models, method={"name": "proxylesskd", "terms": TWO, "classifier": classifier})
    first, second = found.method.weights
    assert found.method.student.embedding_dim == 8 and first.projection is None and second.projection is not None
    assert tuple(second.projection.weight.shape) == (12, 8)
    if not classifier:
        torch.testing.assert_close(second.weight, own.weight)
        assert "further.0.projection.weight" in found.method.state_dict()
    gradient = classifier.get("moved_by") == "gradient"
    assert found.method.anchors == (None if gradient else "teacher")
    with pytest.raises(UsageError, match="'second'"):
        _assemble(teacher, method={"name": "proxylesskd", "terms": TWO, "classifier": classifier})


def test_a_learned_w_is_one_for_the_terms_of_all_teachers(teacher: Path) -> None:
    terms = {"second": {"term": "soft_targets", "teacher": "second"}}
    models = {name: {"model": str(teacher)} for name in ("teacher", "second")}
    assert len(_assemble(teachers=models, method={"name": "kd", "terms": terms}).method.weights) == 1


def test_start_from_a_model(teacher: Path, tmp_path: Path) -> None:
    found = _assemble(method="scratch", student={"start": str(teacher), "embedding_dim": 8})
    own, start = found.method.student.state_dict(), load_model(teacher).state_dict()
    assert all(torch.equal(own[name], start[name]) for name in own)
    with pytest.raises(UserError, match=r"student\.start .*: 'backbone.* is \(.*the student expects \("):
        _assemble(method="scratch", student={"start": str(teacher), "embedding_dim": 8, "options": {"width": 0.5}})


def test_a_student_sees_pixels_and_gives_embeddings_as_the_model_it_starts_from(teacher: Path, tmp_path: Path) -> None:
    own = load_model(teacher)
    start = Model(own.backbone, InputSpec(own.input_size, "bgr", (0.0,), (255.0,)), offset=torch.ones(8)).eval()
    save_model(start, tmp_path / "start")
    student = _assemble(method="scratch", student={"start": str(tmp_path / "start"), "embedding_dim": 8}).method.student
    images = torch.randint(0, 256, (3, 3, own.input_size, own.input_size), dtype=torch.uint8)
    torch.testing.assert_close(student.embed(images), start.embed(images))


def test_sizes_of_the_student_are_not_options(teacher: Path) -> None:
    with pytest.raises(UsageError, match=r"student\.options\.embedding_dim: set student\.embedding_dim instead"):
        _assemble(method="scratch", student={"options": {"embedding_dim": 8}})


@pytest.mark.parametrize("start", ["random", "centres", "teacher"])
def test_a_w_that_the_teacher_moves_is_of_its_dimension_wherever_it_starts(start: str, teacher: Path) -> None:
    method = {"name": "adadistill", "classifier": {"start": start}}
    found = _assemble(teacher, method=method)
    assert found.method.weight is not None and found.method.teachers["teacher"].cache is not None
    assert (found.origin, tuple(found.method.weight.weight.shape)) == (start, (6, 8))
    assert found.method.anchors == "teacher" and found.method.student.embedding_dim == 8
    with pytest.raises(UsageError, match=r"student\.embedding_dim is 5 but the teacher's space has 8"):
        _assemble(teacher, method=method, student={"embedding_dim": 5})
    with pytest.raises(UsageError, match="needs the teacher 'teacher'" if start == "random" else "has no teacher"):
        _assemble(method=method)


def test_held_out_identities_are_not_trained(teacher: Path) -> None:
    found = _assemble(teacher, method="proxylesskd", data={"hold_out": 0.4})
    assert found.held_out is not None and found.method.weight is not None
    assert not set(found.held_out.class_names) & set(found.train.class_names)
    assert found.method.weight.class_names == found.train.class_names and len(found.train.class_names) == 4
    assert _assemble(teacher, method="proxylesskd").held_out is None


COMPATIBLE = ("backward_compatible", "lce", "mixbct")


@pytest.mark.parametrize("method", COMPATIBLE)
def test_a_compatible_student_lives_in_the_old_models_space(method: str, teacher: Path) -> None:
    found = _assemble(teacher, method=method)
    weight = found.method.weight
    assert found.method.anchors == "teacher" and found.method.student.embedding_dim == 8
    assert weight is not None and weight.moved_by == "gradient" and tuple(weight.weight.shape) == (6, 8)
    name = {"backward_compatible": "influence"}.get(method, method)
    with pytest.raises(UsageError, match=f"term '{name}' needs the teacher 'teacher'; the recipe has: none"):
        _assemble(method=method)
    with pytest.raises(UsageError, match=r"student\.embedding_dim is 5 but the teacher's space has 8 dimensions"):
        _assemble(teacher, method=method, student={"embedding_dim": 5})


def test_a_compatible_student_may_be_distilled_from_a_new_teacher(teacher: Path, tmp_path: Path) -> None:
    """It lives in the old model's space, and a projection leads to the new teacher's W."""
    new = {"model": str(_save(tmp_path / "new", None, dim=12))}
    method = {
        "name": "backward_compatible",
        "classifier": {"start": "instances", "moved_by": "nothing"},
        "terms": {"margin_softmax": {"teacher": "new"}},
    }
    found = _assemble(teachers={"teacher": {"model": str(teacher)}, "new": new}, method=method)
    weight, influence = found.method.weight, found.method.terms["influence"]
    assert found.method.anchors == "teacher" and found.method.student.embedding_dim == 8
    assert weight is not None and weight.projection is not None and tuple(weight.projection.weight.shape) == (12, 8)
    assert isinstance(influence, Influence)
    assert len(weight.class_names) == len(found.train) and influence.weight.class_names == NAMES
    own = found.models["teacher"].classifier
    assert own is not None
    torch.testing.assert_close(influence.weight.weight, own.weight[:6].flip(0))
