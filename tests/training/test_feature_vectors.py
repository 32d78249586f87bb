"""Training on vectors of features: scikit-learn's digits as 64 numbers each, a teacher, and students of every kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from facedistill.check import check_teacher
from facedistill.data import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.export import bench, export_model
from facedistill.head import make_margin
from facedistill.models import embed_dataset, fuse_models, import_model, load_model, save_model
from facedistill.recipe import make_recipe
from facedistill.training import train
from tiny_world import Tiny

SOFTMAX = {"margin_softmax": {"margin": "cosface", "margin_options": {"size": 0.1}, "scale": 16}}


def write_digits(path: Path, first: int, last: int) -> Path:
    digits = load_digits()
    np.savez(
        path,
        keys=[str(i) for i in range(first, last)],
        class_names=[str(c) for c in range(10)],
        labels=digits.target[first:last],
        vectors=digits.data[first:last],
    )
    return path


def recipe(folder: Path, method: Any, **more: Any) -> dict[str, Any]:
    return {
        "task": "classification",
        "data": f"features:{folder / 'train.npz'}",
        "student": {"backbone": "mlp", "input_size": 64, "options": {"hidden": 16}},
        "method": method,
        "schedule": {"epochs": 4, "batch": 32, "lr": 0.2},
        "evaluation": {"sets": [f"features:{folder / 'test.npz'}"], "flip": "none"},
    } | more


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("vectors")
    write_digits(root / "train.npz", 0, 1000)
    write_digits(root / "test.npz", 1000, 1400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEDISTILL_CACHE", str(root / "cache"))
        raw = recipe(root, {"name": "scratch", "terms": SOFTMAX})
        raw["student"] |= {"embedding_dim": 32, "options": {"hidden": 128}}
        raw["schedule"]["epochs"] = 10
        train(make_recipe(raw), root / "teacher")
        yield root


def top1(run: Path, figure: str = "top1") -> float:
    rows = json.loads((run / "evaluation.json").read_text())["results"]
    own = [r for r in rows if (r["protocol"], r["probe"], r["gallery"]) == ("classification", "student", "student")]
    return float(own[0][figure]["value"])


def test_a_teacher_of_digits_and_what_it_tells_of_itself(digits: Path) -> None:
    assert top1(digits / "teacher") > 0.9
    model = load_model(digits / "teacher")
    card = (digits / "teacher" / "model" / "README.md").read_text()
    assert model.takes_features and "64 features in, 32 numbers out" in card and "face crop" not in card
    table = embed_dataset(model, open_dataset(f"features:{digits / 'test.npz'}"))
    np.testing.assert_array_equal(table.vectors[:, 0], table.vectors[:, 1])  # there are no mirror images
    x = torch.from_numpy(load_digits().data[1000:1003])
    np.testing.assert_allclose(model.embed(x).numpy(), table.fused("none")[:3], atol=1e-5)
    report = check_teacher(model, open_dataset(f"features:{digits / 'train.npz'}"), make_margin("cosface"), 16)
    assert report.values["fit_by_centres"]["own_class"] > 0.9


@pytest.mark.parametrize(
    "method",
    [
        {"name": "proxylesskd", "terms": SOFTMAX},
        {"name": "l2kd"},
        {"name": "rkd", "terms": SOFTMAX},
        {"name": "stkd", "terms": {"soft_targets": {"scale": 16}, "margin_softmax": {"scale": 16}}},
        {"name": "proxylesskd", "classifier": {"start": "instances"}, "terms": SOFTMAX},
    ],
    ids=lambda method: f"{method['name']}{'-instances' * ('classifier' in method)}",
)
def test_students_of_a_quarter_of_its_width(digits: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    run = train(make_recipe(recipe(digits, method, teacher=str(digits / "teacher"))), tmp_path / "run")
    student = load_model(run)
    assert student.embedding_dim == 32
    rows = json.loads((run / "evaluation.json").read_text())["results"]
    found = {(r["probe"], r["gallery"]): r for r in rows if r["protocol"] == "classification"}
    assert found["student", "student"]["centre_top1"]["value"] > 0.6
    if method["name"] in ("proxylesskd", "l2kd"):
        assert student.space == load_model(digits / "teacher").space
        assert found["student", "teacher"]["centre_top1"]["value"] > 0.6


def test_a_table_of_a_teachers_embeddings_hands_down_its_centres(digits: Path, tmp_path: Path) -> None:
    teacher = load_model(digits / "teacher")
    embed_dataset(teacher, open_dataset(f"features:{digits / 'train.npz'}")).save(tmp_path / "teacher.npz")
    save_model(import_model(tmp_path / "teacher.npz"), tmp_path / "table")
    raw = recipe(digits, {"name": "proxylesskd", "terms": SOFTMAX}, teacher=str(tmp_path / "table"))
    assert top1(train(make_recipe(raw), tmp_path / "run"), "centre_top1") > 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"backbone": "resnet_small"}}, "resnet_small cannot take .* vectors of 64 features; set .*=mlp"),
        ({"student": {"backbone": "mlp", "input_size": 32}}, r"student\.input_size=32: .* set 64"),
        ({"method": {"name": "l2kd", "view": {"kind": "augment"}}}, "Augment changes images"),
        ({"data": "synthetic:identities=4,images=4,size=32"}, "student.backbone=mlp cannot take .* images; choose"),
    ],
)
def test_networks_and_views_of_the_other_kind(
    digits: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    raw = recipe(digits, {"name": "l2kd"}, teacher=str(digits / "teacher")) | changes
    with pytest.raises(UsageError, match=message):
        train(make_recipe(raw), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_terms_of_stage_maps(digits: Path, tmp_path: Path, tiny: Tiny) -> None:
    for teacher, kind, message in (
        (digits / "teacher", UserError, "a term needs the stage features of teacher 'teacher'"),
        (tiny.teacher, UsageError, "term 'fitnet' compares stage maps of images; .* 64 features"),
    ):
        with pytest.raises(kind, match=message):
            train(make_recipe(recipe(digits, "fitnet", teacher=str(teacher))), tmp_path / "run")


def test_a_teacher_of_images(digits: Path, tmp_path: Path, tiny: Tiny) -> None:
    raw = recipe(digits, {"name": "l2kd"}, teacher=str(tiny.teacher))
    with pytest.raises(UserError, match="teacher 'teacher' takes other samples than vectors of 64 features"):
        train(make_recipe(raw), tmp_path / "run")


def test_two_teachers_of_features_are_fused(digits: Path, tiny: Tiny) -> None:
    teacher, data = load_model(digits / "teacher"), open_dataset(f"features:{digits / 'test.npz'}")
    fused = fuse_models([teacher, teacher], dim=16, data=data, adaptor=True, margin="cosface", scale=16).model
    assert fused.takes_features and embed_dataset(fused, data).vectors.shape[2] == 16
    with pytest.raises(UserError, match="samples of several kinds"):
        fuse_models([teacher, load_model(tiny.teacher)])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_is_exported_and_the_file_is_a_model_again(digits: Path, tmp_path: Path, precision: Any) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="the extra 'onnx' is not installed")
    data = f"features:{digits / 'train.npz'}"
    made = export_model(digits / "teacher", "onnx", tmp_path / "t.onnx", precision=precision, calibrate=data)
    assert made.gate.mean_cosine > (0.9999 if precision == "fp32" else 0.95)
    assert made.input == "N x 64 features, float32"
    model, file = load_model(digits / "teacher"), load_model(made.path)
    x = torch.from_numpy(load_digits().data[1000:1050])
    assert file.takes_features and file.space == model.space and file.input_size == 64
    assert (file.embed(x) * model.embed(x)).sum(1).mean() > (0.9999 if precision == "fp32" else 0.95)
    with pytest.raises(UserError, match=r"the model takes 64 features.* \[3, 32, 32\]"):
        export_model(
            digits / "teacher", "onnx", tmp_path / "x.onnx", calibrate="synthetic:identities=9,images=3,size=32"
        )


def test_an_onnx_file_of_features_from_elsewhere(digits: Path, tmp_path: Path) -> None:
    """A graph of one matrix, with the number of features open: imported with --size, and a teacher of a student."""
    onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    matrix = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    for width, name in ((64, "fixed.onnx"), ("K", "open.onnx")):
        ends = [helper.make_tensor_value_info("x", floats, ["N", width])]
        ends += [helper.make_tensor_value_info("y", floats, ["N", 32])]
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "net",
            ends[:1],
            ends[1:],
            [onnx.numpy_helper.from_array(matrix, "w")],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(made, str(tmp_path / name))
    teacher = load_model(tmp_path / "fixed.onnx")
    x = torch.from_numpy(load_digits().data[:5]).float()
    torch.testing.assert_close(teacher(x), x @ torch.from_numpy(matrix), rtol=1e-4, atol=1e-3)
    assert teacher.takes_features and teacher.macs() == 64 * 32
    with pytest.raises(UserError, match="leaves the number of features open; give it with --size"):
        import_model(tmp_path / "open.onnx")
    assert import_model(tmp_path / "open.onnx", size=64).input_size == 64
    with pytest.raises(UserError, match="takes features, not images; drop --colour"):
        import_model(tmp_path / "fixed.onnx", colour="bgr")
    run = train(make_recipe(recipe(digits, {"name": "l2kd"}, teacher=str(tmp_path / "fixed.onnx"))), tmp_path / "run")
    assert load_model(run).space == teacher.space


def test_what_is_made_for_images_says_so(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="target litert takes images, and this model features"):
        export_model(digits / "teacher", "litert", tmp_path / "out.tflite")
    with pytest.raises(UserError, match="takes vectors of features; models of images are measured"):
        bench([digits / "teacher"])
    model = load_model(digits / "teacher")
    with pytest.raises(UserError, match=r"samples of shape \[2, 3, 64, 64\]; expected N x 64 features"):
        model(torch.zeros(2, 3, 64, 64))
