"""Several models as one: its cosines are the mean of theirs, the projection is the best one, and the folder is safe."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from facedistill.backbones import create_backbone
from facedistill.cli.app import main
from facedistill.data.dataset import Dataset, open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.export import bench, export_model
from facedistill.head import centres, fit, make_margin
from facedistill.models.embed import embed_dataset
from facedistill.models.folder import load_model, save_model
from facedistill.models.fused import fuse_models, principal
from facedistill.models.model import InputSpec, Model
from facedistill.models.push import push_model
from facedistill.recipe.read import make_recipe
from facedistill.training.engine import train
from tiny_world import Tiny


def _member(dim: int, size: int, seed: int, **options: Any) -> Model:
    torch.manual_seed(seed)
    model = Model(create_backbone("mobilefacenet", dim, size, width=0.125), InputSpec(size, **options))
    with torch.no_grad():  # running statistics that are not the initial ones
        model.train()(_pixels(8, size))
    return model.eval()


def _onnx_file(path: Path, dim: int, size: int) -> Path:
    """A graph of the mean of each channel and a matrix product."""
    onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["embedding"]),
    ]
    ends = [helper.make_tensor_value_info("pixels", floats, ["N", 3, size, size])]
    ends += [helper.make_tensor_value_info("embedding", floats, ["N", dim])]
    matrix = np.random.default_rng(0).normal(size=(3, dim)).astype(np.float32)
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [onnx.numpy_helper.from_array(matrix, "matrix")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def _pixels(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def members() -> list[Model]:
    return [_member(8, 32, 0), _member(12, 48, 1, colour="bgr", mean=(0.0,), std=(255.0,))]


@pytest.fixture
def faces() -> Dataset:
    return open_dataset("synthetic:identities=6,images=4,size=48,seed=3").in_memory()


def test_the_cosine_is_the_mean_of_the_members_cosines(members: list[Model]) -> None:
    fused, images = fuse_models(members).model, _pixels(5, 48)
    found = fused(images)
    assert fused.embedding_dim == found.shape[1] == 20 and fused.input_size == 48
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    unit = [F.normalize(member(images.float()), dim=1) for member in members]
    torch.testing.assert_close(found @ found.T, sum(u @ u.T for u in unit) / 2, rtol=1e-5, atol=1e-6)
    assert fused.parameters_count() == sum(member.parameters_count() for member in members)
    assert fused.macs() == sum(member.macs() or 0 for member in members)
    assert not list(fused.parameters()) and not fused.train()(images).requires_grad


def test_the_projection_is_the_best_of_its_size(members: list[Model], faces: Dataset) -> None:
    fusion = fuse_models(members, dim=6, data=faces)
    x = embed_dataset(fuse_models(members).model, faces).vectors.reshape(-1, 20).astype(np.float64)
    _, singular, rows = np.linalg.svd(x, full_matrices=False)
    assert fusion.kept == pytest.approx((singular[:6] ** 2).sum() / (singular**2).sum(), rel=1e-4)
    assert fusion.model.projection is not None
    weight = fusion.model.projection.weight.double().numpy()
    np.testing.assert_allclose(weight @ weight.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(weight.T @ weight, rows[:6].T @ rows[:6], atol=1e-3)  # one space, any basis
    projected = embed_dataset(fusion.model, faces).vectors.reshape(-1, 6)
    np.testing.assert_allclose(projected, x @ weight.T, atol=1e-4)


def test_the_signs_of_the_rows_are_fixed_and_nothing_is_lost_at_full_rank() -> None:
    x = torch.randn(50, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, kept = principal(x.T @ x, 5)
    assert kept == pytest.approx(1) and (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(x @ rows.T @ rows, x)


def test_the_adaptor_separates_the_classes_better(members: list[Model], faces: Dataset, tmp_path: Path) -> None:
    def own(model: Model) -> float:
        """The mean of the cosine to the own class centre, minus that to all others."""
        table = embed_dataset(model, faces)
        rows = torch.from_numpy(table.fused("sum"))
        cosines = rows @ centres(table).weight.T
        mine = cosines.gather(1, torch.from_numpy(table.labels)[:, None])
        return float(mine.mean() - (cosines.sum() - mine.sum()) / (cosines.numel() - len(mine)))

    plain = fuse_models(members, 6, faces).model
    adapted = fuse_models(members, 6, faces, adaptor=True, margin="cosface", scale=16).model
    assert own(adapted) > own(plain) + 0.01
    assert adapted.space != plain.space and plain.classifier is None
    save_model(adapted, tmp_path / "fused")
    again = load_model(tmp_path / "fused")
    assert again.classifier is not None and again.classifier.class_names == faces.class_names
    assert again.classifier.weight.shape == (6, 6) and again.made["adaptor"]


def test_the_adaptor_is_what_adam_makes_of_the_loss_written_out(members: list[Model], faces: Dataset) -> None:
    """One step on all images: from the eigenvectors, Adam's first step is lr times the sign of the gradient."""
    rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.randn(8, 1, 5, generator=torch.Generator().manual_seed(1))
    weight, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 4
    moved, adaptor = fit(x, labels, weight, make_margin("cosface", size=0.2), 10, 1, 8, 0.01, rows)
    w, a = weight.double().requires_grad_(), rows.double().requires_grad_()
    cos = F.normalize(x[:, 0].double() @ a.T, dim=1) @ F.normalize(w, dim=1).T
    F.cross_entropy(10 * (cos - 0.2 * F.one_hot(labels, 4)), labels).backward()
    assert adaptor is not None and w.grad is not None and a.grad is not None
    torch.testing.assert_close(adaptor, (a - 0.01 * a.grad.sign()).float().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved, (w - 0.01 * w.grad.sign()).float().detach(), rtol=1e-4, atol=1e-5)


def test_it_is_saved_and_loaded_with_an_onnx_file_among_its_members(tmp_path: Path, faces: Dataset) -> None:
    onnx = load_model(_onnx_file(tmp_path / "net.onnx", 8, 48))
    fused = fuse_models([onnx, _member(12, 32, 1)], dim=5, data=faces).model
    save_model(fused, tmp_path / "fused")
    again, images = load_model(tmp_path / "fused"), _pixels(3, 48)
    torch.testing.assert_close(again(images), fused(images), rtol=0, atol=0)
    assert again.space == fused.space == again.fingerprint() and again.made["by"] == "fuse"
    save_model(again, tmp_path / "copy")
    assert load_model(tmp_path / "copy").fingerprint() == again.fingerprint()
    with pytest.raises(UserError, match="a teacher; export a student"):
        export_model(again, "onnx", tmp_path / "out.onnx")
    with pytest.raises(UserError, match="measure each of them"):
        bench([tmp_path / "fused"])
    with pytest.raises(UsageError, match="push each of them"):
        push_model(tmp_path / "fused", "ada/fused")


def test_a_member_that_was_exchanged_or_lost_is_noticed(members: list[Model], tmp_path: Path) -> None:
    save_model(fuse_models(members).model, tmp_path / "fused")
    shutil.rmtree(tmp_path / "fused" / "members" / "1")
    with pytest.raises(UserError, match=r"members.1: no such folder"):
        load_model(tmp_path / "fused")
    save_model(_member(12, 48, 7), tmp_path / "fused" / "members" / "1")
    with pytest.raises(UserError, match="not the model that was fused"):
        load_model(tmp_path / "fused")
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    config["options"]["members"] = 2
    (tmp_path / "fused" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"options\.members: expected a list"):
        load_model(tmp_path / "fused")


def test_bad_input_is_one_line(members: list[Model], faces: Dataset) -> None:
    for models, options, said in (
        (members[:1], {}, "1 models; expected two or more"),
        (members, {"dim": 4}, "give dim and data together"),
        (members, {"data": faces}, "give dim and data together"),
        (members, {"dim": 20, "data": faces}, "20 dimensions; expected 1 to 19"),
        (members, {"dim": 0, "data": faces}, "0 dimensions"),
        (members, {"adaptor": True}, "an adaptor needs dim and data"),
        (members, {"dim": 4, "data": faces, "adaptor": True, "margin": "arcfac"}, "did you mean 'arcface'"),
    ):
        with pytest.raises(UsageError, match=said):
            fuse_models(models, **options)
    with pytest.raises(UserError, match="model 2 holds embeddings only"):
        fuse_models([members[0], Model(None, embedding_dim=4)])
    with pytest.raises(UserError, match="4 embeddings cannot decide 6 dimensions"):
        fuse_models(members, 6, faces.subset([0, 1]))


def test_it_teaches_a_student_and_is_measured(tiny: Tiny, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    fused = tmp_path / "fused"
    words = [
        "fuse",
        str(tiny.teacher),
        str(tiny.student),
        "--dim",
        "20",
        "--data",
        str(tiny.photos),
        "--out",
        str(fused),
    ]
    with pytest.raises(SystemExit, match="0"):
        main(words)
    assert "20 dimensions keep" in capsys.readouterr().out
    raw = {
        "data": {"train": str(tiny.photos), "hold_out": 0.2},
        "student": {"input_size": 32, "options": {"width": 0.125}},
        "teacher": str(fused),
        "method": {
            "name": "proxylesskd",
            "classifier": {"start": "instances"},
            "terms": {"embedding_l2": {"weight": 4}},
        },
        "schedule": {"epochs": 1, "batch": 12, "lr": 0.05},
        "check": {"own_class": 0},
    }
    run = train(make_recipe(raw), tmp_path / "run")
    student = load_model(run)
    assert student.space == load_model(fused).space and student.embedding_dim == 20
    measured = json.loads((run / "evaluation.json").read_text())["results"]
    pairs = {(r["probe"], r["gallery"]) for r in measured}
    assert {("student", "student"), ("student", "teacher"), ("teacher", "teacher")} <= pairs
    assert all(r["same_space"] for r in measured)
    online = raw | {"teachers": {"teacher": {"model": str(fused), "cache": False}}}
    del online["teacher"]
    train(make_recipe(online), tmp_path / "online")
