"""Int8: what stays, what is better than the naive way, and that the gate lets no broken file pass."""

import json
import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from export_faults import FAULTS, as_trained, naive
from onnx import numpy_helper

from facedistill.data import Dataset, open_dataset
from facedistill.export import Deployable, Form, export_model
from facedistill.export.calibration import METHODS, Seen, observe
from facedistill.export.equalise import equalised
from facedistill.export.graph import without_prelu
from facedistill.export.onnx import Onnx
from facedistill.export.quantise import cosine_of, quantised, worst_layer
from facedistill.models import Model
from traced import traced

FORM = Form("int8", batch="dynamic")


def exact_int8() -> bool:
    """Whether this CPU adds products of int8 without saturation: all but those of x86 that have no VNNI."""
    facts = Path("/proc/cpuinfo")
    return platform.machine() not in ("x86_64", "AMD64") or not facts.exists() or "vnni" in facts.read_text("utf-8")


@pytest.fixture(scope="module")
def faces() -> Dataset:
    return open_dataset("synthetic:identities=40,images=3,size=32,seed=3")


@pytest.fixture(scope="module")
def images(faces: Dataset) -> np.ndarray:
    return faces.batch(np.random.default_rng(0).permutation(120)).images.numpy()


@pytest.fixture(scope="module")
def model() -> Model:
    return as_trained(32, 32, 0.25)


@pytest.fixture(scope="module")
def graph(model: Model) -> onnx.ModelProto:
    return traced(Deployable(model, FORM), FORM)


def _embed(graph: onnx.ModelProto | Path, images: np.ndarray) -> np.ndarray:
    data = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]


def test_int8_keeps_the_form_and_the_facts_and_scales_every_channel(
    model: Model, images: np.ndarray, tmp_path: Path
) -> None:
    told = Onnx().write(Deployable(model, FORM), FORM, images, {"facedistill": "{}"}, tmp_path / "m.onnx")
    made = onnx.load(str(tmp_path / "m.onnx"))
    assert {p.key: p.value for p in made.metadata_props} == {"facedistill": "{}"}
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    taken, given = session.get_inputs()[0], session.get_outputs()[0]
    assert (taken.name, taken.type, taken.shape[1:]) == ("image", "tensor(uint8)", [3, 32, 32])
    assert (given.name, given.type, given.shape[1:]) == ("embedding", "tensor(float)", [32])
    assert _embed(tmp_path / "m.onnx", images[:1]).shape == (1, 32)
    assert _embed(tmp_path / "m.onnx", images[:5]).shape == (5, 32)
    np.testing.assert_allclose(np.linalg.norm(_embed(tmp_path / "m.onnx", images[:5]), axis=1), 1, atol=1e-5)
    weights = {w.name: numpy_helper.to_array(w) for w in made.graph.initializer}
    whole = {n: w for n, w in weights.items() if n.endswith(".weight_q")}
    assert len(whole) >= 50 and all(w.dtype == np.int8 for w in whole.values())
    for name, weight in whole.items():
        scale = weights[name.removesuffix("_q") + "_s"]
        assert scale.shape == (weight.shape[0],)
        assert (np.abs(weight.reshape(len(weight), -1)).max(1) >= 126).mean() > 0.9  # each channel uses its range
    assert told is not None and set(told["cosines"]) == set(METHODS)
    assert told["cosines"][told["method"]] == max(told["cosines"].values())
    json.dumps(told)


@pytest.mark.skipif(not exact_int8(), reason="int8 products saturate on this CPU, which has no VNNI")
def test_it_is_nearer_to_float_than_the_naive_way(graph: onnx.ModelProto, images: np.ndarray, tmp_path: Path) -> None:
    onnx.save(graph, str(tmp_path / "float.onnx"))
    fresh = open_dataset("synthetic:identities=64,images=1,size=32,seed=8").batch(np.arange(64)).images.numpy()
    expected = _embed(graph, fresh)
    made, report = quantised(graph, images)
    ours = cosine_of(expected, _embed(made, fresh)).mean()
    theirs = {}
    for per_channel in (False, True):
        naive(tmp_path / "float.onnx", tmp_path / "naive.onnx", images, per_channel)
        theirs[per_channel] = cosine_of(expected, _embed(tmp_path / "naive.onnx", fresh)).mean()
    assert theirs[False] < theirs[True] < ours and ours > 0.985, (theirs, ours, report)
    assert report.mean_cosine == pytest.approx(ours, abs=0.01)


def test_prelu_and_equal_channels_leave_the_values_as_they_are(graph: onnx.ModelProto, images: np.ndarray) -> None:
    expected = _embed(graph, images[:8])
    for for_int8 in (False, True):
        made = without_prelu(graph, for_int8)
        assert not any(node.op_type == "PRelu" for node in made.graph.node)
        np.testing.assert_allclose(_embed(made, images[:8]), expected, atol=2e-5)
    reach = {name: seen.reach for name, seen in observe(graph, images[:16]).items()}
    equal = equalised(graph, reach)
    np.testing.assert_allclose(_embed(equal, images[:8]), expected, atol=2e-5)

    def unequal(of: onnx.ModelProto) -> float:
        seen = {name: s.reach for name, s in observe(of, images[:16]).items()}
        rows = [seen[n.output[0]] for n in of.graph.node if n.op_type == "PRelu"]
        return float(np.mean([row.max() / np.median(row) for row in rows]))

    assert unequal(equal) < 0.8 * unequal(graph)


def test_ranges_of_the_methods() -> None:
    seen, rng = Seen(), np.random.default_rng(0)
    for _ in range(10):
        values = rng.normal(size=(10, 2, 50, 50)).astype(np.float32)
        values[:, :, 0, 0] = 5.0
        values[0, 0, 0, 0] = 50.0  # one image in ten has an outlier
        seen.add(values)
    assert METHODS["minmax"](seen)[1] == 50
    low, high = METHODS["percentile"](seen)
    assert low < -3 and 5 <= high < 10
    low, high = METHODS["entropy"](seen)
    assert 2 < high < 50 and low >= seen.low
    np.testing.assert_allclose(seen.reach, [50, 5.0])
    np.testing.assert_allclose(seen.mean, 0, atol=0.05)


def test_layers_go_back_to_float_where_int8_alone_is_too_coarse(
    graph: onnx.ModelProto, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPREAD", "RESERVE"):
        monkeypatch.setattr(f"facedistill.export.quantise.{name}", 1.0)
    monkeypatch.setattr("facedistill.export.quantise.CLOSE", {"int8": (0.9, 0.5)})
    _, before = quantised(graph, images[:96])
    bound = 1 - 0.8 * (1 - before.mean_cosine)
    monkeypatch.setattr("facedistill.export.quantise.CLOSE", {"int8": (bound, 0.5)})
    made, report = quantised(graph, images[:96])
    assert not before.left and not before.measured and report.left and report.mean_cosine >= bound
    assert [part.gain for part in report.measured] == sorted((x.gain for x in report.measured), reverse=True)
    tried = [name for part in report.measured for name in part.layers]
    assert len(tried) == report.layers and set(report.left) < set(tried)
    assert all(name in report.text() for name in report.left)
    names = {w.name for w in made.graph.initializer}
    floats = [name for name in report.left if f"{name}.weight" in names]
    slopes = [node.output[0] for node in made.graph.node if node.op_type == "PRelu"]
    whole = {name.removesuffix(".weight_q") for name in names if name.endswith(".weight_q")}
    assert {*floats, *slopes} <= set(report.left) and floats and not whole & set(report.left)


def test_the_worst_layer_is_the_broken_one(graph: onnx.ModelProto, images: np.ndarray) -> None:
    made, _ = quantised(graph, images[:64])
    broken = "backbone.stages.1.2.layers.1.0"
    for tensor in made.graph.initializer:
        if tensor.name == f"{broken}.weight_q":
            weight = numpy_helper.to_array(tensor).copy()
            tensor.CopyFrom(numpy_helper.from_array((weight // 32 * 32).astype(np.int8)[::-1].copy(), tensor.name))
    name, before, after = worst_layer(graph, made, images[:8])
    assert name == broken and before > after + 3


@pytest.mark.parametrize("name", FAULTS)
def test_the_gate_catches_every_known_fault(name: str, model: Model, faces: Dataset, tmp_path: Path) -> None:
    to, precision = FAULTS[name]
    made = export_model(model, to, tmp_path / "m.onnx", precision=precision, calibrate=faces)
    assert not made.gate.passed, made.gate.text()
    assert made.path.name == "m.failed.onnx" and not (tmp_path / "m.onnx").exists()
    assert ("the worst layer is" in made.gate.text()) == (precision == "int8")


@pytest.mark.skipif(not exact_int8(), reason="int8 products saturate on this CPU, which has no VNNI")
def test_a_sound_int8_file_passes_and_tells_how_it_was_made(model: Model, faces: Dataset, tmp_path: Path) -> None:
    made = export_model(model, "onnx", tmp_path / "m.onnx", precision="int8", calibrate=faces)
    assert made.gate.passed, made.gate.text()
    told = json.loads(json.dumps(made.to_json(), default=str))["written"]
    assert told["method"] in METHODS and told["mean_cosine"] > 0.99 and told["layers"] > 50
    assert not told["left"] and made.bytes < 4 * model.parameters_count()
