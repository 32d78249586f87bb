"""A model as a file: the same embeddings in another runtime, in every form; what does not fit is refused."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from facedistill.backbones import create_backbone
from facedistill.errors import UsageError, UserError
from facedistill.export import TARGETS, Deployable, Form, Target, export_model
from facedistill.export.onnx import Onnx
from facedistill.models.folder import load_model
from facedistill.models.model import InputSpec, Model
from tiny_world import Tiny


def _model(**changes: object) -> Model:
    torch.manual_seed(5)
    backbone = create_backbone("mobilefacenet", embedding_dim=16, input_size=32, width=0.25)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):  # as after training: no two channels alike
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return Model(backbone, **changes).eval()  # type: ignore[arg-type]


def _images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    """By ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize(("layout", "pixels", "batch"), [("nchw", "uint8", "dynamic"), ("nhwc", "float32", 2)])
def test_every_form_gives_the_models_embeddings(layout: str, pixels: str, batch: int | str, tmp_path: Path) -> None:
    model = _model(
        input=InputSpec(32, "bgr", (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)),
        offset=torch.linspace(-1, 1, 8),
        projection=nn.Linear(16, 8, bias=False),
    )
    made = export_model(model, "onnx", tmp_path / "m.onnx", layout=layout, pixels=pixels, batch=batch)  # type: ignore[arg-type]
    assert made.gate.passed, made.gate.text()
    images = _images(4 if batch == "dynamic" else 2)
    given = images.transpose(0, 2, 3, 1) if layout == "nhwc" else images
    found = _run(made.path, given.astype(pixels))
    expected = F.normalize(model(torch.from_numpy(images)), dim=1)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=2e-5)


def test_a_student_and_its_assistant_are_one_graph(tmp_path: Path) -> None:
    model = Model(create_backbone("residual", 8, 32, options={"width": 0.125})).eval()
    made = export_model(model, "onnx", tmp_path / "m.onnx")
    assert made.gate.passed, made.gate.text()
    expected = F.normalize(model(torch.from_numpy(_images())), dim=1)
    torch.testing.assert_close(torch.from_numpy(_run(made.path, _images())), expected, rtol=0, atol=2e-5)
    again = load_model(made.path)
    assert (again.parameters_count(), again.macs()) == (model.parameters_count(), model.macs())


def test_the_graph_is_folded_and_says_what_it_is(tmp_path: Path) -> None:
    model = _model(space="abc", thresholds=[{"far": 1e-3, "value": 0.4}])
    made = export_model(model, "onnx", tmp_path / "m.onnx")
    graph = onnx.load(str(made.path))
    onnx.checker.check_model(graph, full_check=True)
    assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]
    facts = json.loads({p.key: p.value for p in graph.metadata_props}["facedistill"])
    assert "site-packages" not in str(graph) and ".py" not in str(graph), "no paths of this machine"
    assert facts["space"] == "abc" and facts["thresholds"] == model.thresholds and facts["precision"] == "fp32"
    assert facts["model"] == model.fingerprint() and facts["input"] == {
        "size": 32,
        "colour": "rgb",
        "range": [0, 255],
        "takes": "images",
    }
    assert made.input == "N x 3 x 32 x 32 uint8, RGB 0..255"


def test_raw_length_on_demand(tmp_path: Path) -> None:
    model, images = _model(), _images()
    made = export_model(model, "onnx", tmp_path / "m.onnx", normalise=False)
    expected = model(torch.from_numpy(images))
    torch.testing.assert_close(torch.from_numpy(_run(made.path, images)), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_is_half_the_file(tmp_path: Path) -> None:
    whole = export_model(_model(), "onnx", tmp_path / "m.onnx")
    half = export_model(_model(), "onnx", tmp_path / "h.onnx", precision="fp16")
    assert half.gate.passed and half.bytes < 0.65 * whole.bytes
    assert _run(half.path, _images()).dtype == np.float32


class Deaf(Onnx):
    """Writes a network that does not look at its input."""

    def write(
        self, net: Deployable, form: Form, calibration: np.ndarray | None, facts: Mapping[str, str], path: Path
    ) -> None:
        net.std.fill_(1e9)
        super().write(net, form, calibration, facts, path)


def test_a_file_that_fails_gets_another_name_and_what_stood_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "deaf", Deaf)
    out = tmp_path / "m.onnx"
    out.write_bytes(b"the old one")
    made = export_model(_model(), "deaf", out)
    assert not made.gate.passed and made.path == tmp_path / "m.failed.onnx" and made.path.stat().st_size > 1000
    assert out.read_bytes() == b"the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.failed.onnx", "m.onnx"], "nothing else is left"


def test_rates_on_a_set_of_the_users_and_against_the_teachers_gallery(tiny: Tiny, tmp_path: Path) -> None:
    made = export_model(tiny.student, "onnx", tmp_path / "m.onnx", verify=str(tiny.photos), against=tiny.teacher)
    assert made.gate.passed and set(made.gate.rates) == {
        "student against student",
        "student against the teacher's gallery, at its threshold",
    }
    assert all(abs(rate["file"] - rate["model"]) < 0.005 for rate in made.gate.rates.values())


def test_what_cannot_be_exported_is_said_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    for error, match, arguments, options in (
        (UsageError, r"target 'onxx' is unknown \(did you mean 'onnx'", ("onxx", out), {}),
        (UsageError, r"target executorch cannot write int4; it writes", ("executorch", tmp_path / "m.pte"),
         {"precision": "int4"}),
        (UsageError, r"int8 needs a hundred images or more to calibrate on", ("onnx", out), {"precision": "int8"}),
        (UsageError, r"expected a name that ends in \.onnx", ("onnx", tmp_path / "m.pte"), {}),
        (UsageError, r"layout 'hwc'; expected one of nchw, nhwc", ("onnx", out), {"layout": "hwc"}),
        (UsageError, r"batch 0; expected 1 or more", ("onnx", out), {"batch": 0}),
        (UserError, r"no such file or folder", ("onnx", out), {"calibrate": str(tmp_path / "nothing")}),
        (UsageError, r"the verification set holds an image of the calibration", ("onnx", out),
         {"calibrate": str(tiny.photos), "verify": str(tiny.photos)}),
    ):  # fmt: skip
        with pytest.raises(error, match=match):
            export_model(_model(), *arguments, **options)
    with pytest.raises(UserError, match="holds embeddings only and no network"):
        export_model(Model(None, embedding_dim=4), "onnx", out)
    made = export_model(_model(), "onnx", out)
    with pytest.raises(UserError, match="an ONNX file already"):
        export_model(load_model(made.path), "onnx", tmp_path / "again.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Far(Onnx):
        packages = ("a_package_that_nobody_has",)
        extra = "far"

    monkeypatch.setitem(TARGETS, "far", Far)

    with pytest.raises(UserError, match=r"the package 'a_package_that_nobody_has'; pip install 'facedistill\[far\]'"):
        export_model(_model(), "far", tmp_path / "m.onnx")


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*m\.onnx"):
        export_model(_model(), "onnx", tmp_path / "file" / "m.onnx")
    assert issubclass(Onnx, Target)
