"""An exported ONNX is a model again: space, thresholds and embeddings are the model's, and its facts are checked."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from facedistill.cli.show import describe
from facedistill.errors import UserError
from facedistill.evaluation import evaluate
from facedistill.export import export_model
from facedistill.models import FACTS, facts_of, import_model, load_model, save_model
from tiny_world import Tiny

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
THRESHOLDS = [{"far": 1e-3, "value": 0.4, "interval": [0.3, 0.5], "probe": "p", "gallery": "g", "flip": "none"}]


@pytest.fixture(scope="module")
def exported(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student as ONNX, with a threshold."""
    model = load_model(tiny.student)
    model.thresholds = THRESHOLDS
    return export_model(model, "onnx", tmp_path_factory.mktemp("exported") / "student.onnx").path


def changed(file: Path, place: Path, **facts: Any) -> Path:
    """A copy of the file whose facts are changed; None leaves one out."""
    graph = onnx.load(str(file))
    said = json.loads({p.key: p.value for p in graph.metadata_props}[FACTS]) | facts
    onnx.helper.set_model_props(graph, {FACTS: json.dumps({k: v for k, v in said.items() if v is not None})})
    onnx.save(graph, str(place))
    return place


def test_space_thresholds_and_embeddings_are_kept(
    tiny: Tiny, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, again = load_model(tiny.student), load_model(exported)
    said = capsys.readouterr().err
    assert "exported by facedistill" in said and "taken as" not in said
    assert (again.space, again.thresholds, again.input_size) == (model.space, THRESHOLDS, 32)
    assert (again.parameters_count(), again.macs()) == (model.parameters_count(), model.macs())
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(again.embed(images, "none"), model.embed(images, "none"), rtol=0, atol=1e-5)
    save_model(again, tmp_path / "folder")
    folder = load_model(tmp_path / "folder")
    assert (folder.space, folder.thresholds, folder.macs()) == (model.space, THRESHOLDS, model.macs())
    assert torch.equal(folder.embed(images), again.embed(images))


@pytest.mark.parametrize(
    ("layout", "pixels", "batch"), [("nhwc", "uint8", None), ("nhwc", "float32", 2), ("nchw", "float32", None)]
)
def test_every_form_is_opened(tiny: Tiny, tmp_path: Path, layout: Any, pixels: Any, batch: Any) -> None:
    path = tmp_path / "student.onnx"
    export_model(tiny.student, "onnx", path, layout=layout, pixels=pixels, batch=batch, normalise=False)
    images = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    model, again = load_model(tiny.student), load_model(path)
    near = 1e-5 if pixels == "float32" else 3e-2  # pixels of images that are resized are rounded
    torch.testing.assert_close(again.embed(images), model.embed(images), rtol=0, atol=near)


@pytest.mark.parametrize(("flip", "normalise"), [("none", True), ("sum", False)])
def test_the_evaluation_of_the_file_is_that_of_the_model(
    tiny: Tiny, tmp_path: Path, flip: Any, normalise: bool
) -> None:
    path = tmp_path / "student.onnx"
    export_model(tiny.student, "onnx", path, normalise=normalise)
    models = {"model": load_model(tiny.student), "file": load_model(path), "teacher": load_model(tiny.teacher)}
    found = evaluate(models, [tiny.pairs], flip=flip, fars=[0.1], resamples=0)["results"]
    rows = {(r["protocol"], r["probe"], r["gallery"]): r for r in found}
    for protocol in {r["protocol"] for r in found}:
        for gallery in ("teacher", None):
            a, b = (rows[protocol, name, gallery or name] for name in ("model", "file"))
            assert (a["tar_at_far"]["1e-1"]["value"], a["auc"]) == pytest.approx(
                (b["tar_at_far"]["1e-1"]["value"], b["auc"]), abs=1e-4
            )
            assert b["same_space"] is True


def test_show_prints_the_facts(exported: Path) -> None:
    text = describe(str(exported))
    for words in ("fp32", "uint8 N x 3 x H x W", "32 x 32", "unit length", "threshold 0.4000 at FAR 0.001", "licence:"):
        assert words in text


def test_import_keeps_them_and_normalises_once(exported: Path, tiny: Tiny) -> None:
    model = import_model(exported)
    assert (model.space, model.thresholds) == (load_model(tiny.student).space, THRESHOLDS)
    with pytest.raises(UserError, match="colour order and normalisation inside"):
        import_model(exported, mean=[127.5], std=[127.5])


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"precision": "fp8"}, r"damaged \(precision: "),
        ({"space": None}, r"damaged \(space: Field required"),
        ({"schema": 2}, "schema 2; this version reads 1: update facedistill"),
        ({"thresholds": [{"far": 0.1}]}, "a threshold lacks far or value"),
        ({"thresholds": 3}, r"damaged \(thresholds: "),
        ({"embedding_dim": 99}, "says embedding size 99, but its graph has 16"),
        ({"input": {"size": 64}}, "says input size 64, but its graph has 32"),
        ({"layout": "nhwc"}, "says layout nhwc, but its graph has nchw"),
        ({"pixels": "float32"}, "says input type float32, but its graph has uint8"),
        ({"batch": 4}, "says batch 4, but its graph has dynamic"),
    ],
)
def test_damaged_and_untrue_facts(exported: Path, tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    path = changed(exported, tmp_path / "changed.onnx", **facts)
    with pytest.raises(UserError, match=message) as raised:
        load_model(path)
    assert "changed.onnx" in str(raised.value) and "\n" not in str(raised.value)


def test_unit_length_is_tried(tiny: Tiny, tmp_path: Path) -> None:
    path = export_model(tiny.student, "onnx", tmp_path / "s.onnx", normalise=False).path
    with pytest.raises(UserError, match="says unit length True, but its graph has False"):
        load_model(changed(path, tmp_path / "changed.onnx", normalise=True))


def test_what_a_later_version_adds_is_no_fault(exported: Path, tmp_path: Path) -> None:
    assert load_model(changed(exported, tmp_path / "later.onnx", colour_of_hair="blue")).thresholds == THRESHOLDS


def test_facts_without_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"damaged \(JSON: "):
        facts_of({FACTS: "{"}, tmp_path)
    assert facts_of({"producer": "another"}, tmp_path) is None


def test_a_file_without_facts_is_a_bare_file(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copyfile(exported, tmp_path / "bare.onnx")
    graph = onnx.load(str(tmp_path / "bare.onnx"))
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / "bare.onnx"))
    model = load_model(tmp_path / "bare.onnx")
    assert "taken as pixels 0..255" in capsys.readouterr().err
    assert model.space != load_model(exported).space and model.thresholds == []
