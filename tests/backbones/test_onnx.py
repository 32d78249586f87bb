"""OnnxBackbone on graphs built by the onnx library itself."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.backbones import OnnxBackbone, count_macs, count_parameters
from facedistill.backbones.onnx_graph import SILENT
from facedistill.errors import UsageError, UserError

onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE, DIM = 32, 6


def write(
    path: Path, batch: str | int = "N", outputs: int = 1, shape: list[str | int] | None = None, external: bool = False
) -> Path:
    """A convolution of 4x4 patches, its mean over positions, and a matrix product with a bias."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(5, 3, 4, 4)),
        "matrix": rng.normal(size=(5, DIM)),
        "shift": rng.normal(size=DIM),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["maps"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "shift"], ["embedding"]),
        helper.make_node("Neg", ["embedding"], ["other"]),
    ]
    shape = shape or [batch, 3, SIZE, SIZE]
    made = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, DIM])]
    made += [helper.make_tensor_value_info("other", TensorProto.FLOAT, [batch, DIM])] if outputs == 2 else []
    if outputs == 0:
        made = [helper.make_tensor_value_info("maps", TensorProto.FLOAT, [batch, 5, SIZE // 4, SIZE // 4])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        made,
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path), save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


def reference(path: Path, x: torch.Tensor) -> torch.Tensor:
    weights = {
        w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in onnx.load(str(path)).graph.initializer
    }
    maps = torch.nn.functional.conv2d(x, weights["kernel"], stride=4)
    return maps.mean((2, 3)) @ weights["matrix"] + weights["shift"]


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_embeddings_for_open_and_fixed_batches(tmp_path: Path, batch: str | int) -> None:
    network = OnnxBackbone(write(tmp_path / "net.onnx", batch))
    assert (network.embedding_dim, network.input_size) == (DIM, SIZE)
    x = torch.randn(7, 3, SIZE, SIZE)
    torch.testing.assert_close(network(x), reference(network.path, x), rtol=1e-4, atol=1e-5)
    assert network(x[:0]).shape == (0, DIM)


def test_nothing_about_its_use_is_stored_or_sent(tmp_path: Path) -> None:
    """onnxruntime opens a store of telemetry in the user's cache when its first session starts."""
    use = "import sys; from facedistill.backbones import OnnxBackbone; OnnxBackbone(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if k != SILENT[0] and not k.startswith("XDG_")}
    given = environment | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", use, str(write(tmp_path / "net.onnx"))], check=True, env=given)
    assert not list(tmp_path.rglob("*icrosoft*"))


def test_a_graph_of_whole_pixels_gets_the_nearest(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT)
    nodes = [cast, helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[2, 3], keepdims=0)]
    ends = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 3, SIZE, SIZE])]
    made = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(nodes, "whole", ends, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "n.onnx")
    pixels = torch.tensor([0.4, 127.6, 255.0]).view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE)
    assert OnnxBackbone(tmp_path / "n.onnx")(pixels).tolist() == [[0, 128, 255]]


def test_a_graph_of_channels_last_gets_them_there(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0)]
    ends = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", "H", "W", 3])]
    made = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N", 3])]
    graph = helper.make_graph(nodes, "last", ends, made)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "n.onnx")
    network = OnnxBackbone(tmp_path / "n.onnx", SIZE)
    x = torch.randn(2, 3, SIZE, SIZE)
    assert (network.layout, network.input_size, network.pixels) == ("nhwc", SIZE, "float32")
    torch.testing.assert_close(network(x), x.mean((2, 3)))


def test_size_is_asked_for_where_the_graph_leaves_it_open(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", shape=["N", 3, "H", "W"])
    assert OnnxBackbone(path).input_size == 112
    for size in (0, -3):
        with pytest.raises(UsageError, match="expected the height and width"):
            OnnxBackbone(path, size)
    assert OnnxBackbone(path, 64)(torch.zeros(2, 3, 64, 64)).shape == (2, DIM)


def test_pickled_without_its_session(tmp_path: Path) -> None:
    network = OnnxBackbone(write(tmp_path / "net.onnx"))
    x = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_parameters_and_macs_from_the_graph(tmp_path: Path) -> None:
    network = OnnxBackbone(write(tmp_path / "net.onnx"))
    assert count_parameters(network) == 5 * 3 * 16 + 5 * DIM + DIM
    assert count_macs(network, SIZE) == 8 * 8 * 5 * 48 + 5 * DIM
    assert count_macs(OnnxBackbone(write(tmp_path / "four.onnx", batch=4)), SIZE) == count_macs(network, SIZE)


def test_external_weights_are_saved_into_one_file(tmp_path: Path) -> None:
    network = OnnxBackbone(write(tmp_path / "net.onnx", external=True))
    assert (tmp_path / "weights.bin").exists()
    (tmp_path / "alone").mkdir()
    network.save(tmp_path / "alone" / "model.onnx")
    x = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(OnnxBackbone(tmp_path / "alone" / "model.onnx")(x), network(x))
    before = network.content()
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[::-1])
    assert network.content() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": 2}, "2 outputs .*'other'"),
        ({"outputs": 0}, r"shape \[1, 5, 8, 8\]; expected N x d"),
        ({"shape": ["N", SIZE, SIZE, 3]}, r"does not run on images of \['N', 32, 32, 3\]"),
        ({"shape": ["N", SIZE, SIZE, 4]}, "expected N x 3 x H x W or N x H x W x 3"),
        ({"shape": ["N", 1, SIZE, SIZE]}, "expected N x 3 x H x W"),
        ({"shape": ["N", 3, SIZE, 64]}, "H = W"),
    ],
)
def test_other_inputs_and_outputs(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        OnnxBackbone(write(tmp_path / "net.onnx", **options))


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"net\.onnx: not a usable ONNX model"):
        OnnxBackbone(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="no such file"):
        OnnxBackbone(tmp_path / "none.onnx")


def test_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'facedistill\[onnx\]'"):
        OnnxBackbone(path)


def test_no_stage_features(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="embeddings only"):
        OnnxBackbone(write(tmp_path / "net.onnx")).with_features(torch.zeros(1, 3, SIZE, SIZE))


@pytest.mark.parametrize(
    ("name", "dim", "parameters", "macs"),
    [("mobilefacenet128", 128, 989_952, 233.8), ("mobilefacenet512", 512, 1_190_336, 221.2)],
)
def test_real_files(shared: Path, name: str, dim: int, parameters: int, macs: float) -> None:
    network = OnnxBackbone(shared / "models" / f"{name}.onnx")
    assert (network.embedding_dim, network.input_size) == (dim, 112)
    assert count_parameters(network) == parameters and round(count_macs(network, 112) / 1e6, 1) == macs


def test_a_real_detector_is_refused(shared: Path) -> None:
    with pytest.raises(UserError, match="9 outputs"):
        OnnxBackbone(shared / "models" / "scrfd_2.5g_bnkps.onnx")


def _net(
    path: Path,
    nodes: list,
    shape: list,
    out: list,
    weights: dict[str, np.ndarray] | None = None,
    kind: int = TensorProto.FLOAT,
    made: int = TensorProto.FLOAT,
) -> Path:
    """A graph from `pixels` to `embedding`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("embedding", made, out)],
        [numpy_helper.from_array(v, k) for k, v in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def _means(path: Path, inner: int) -> Path:
    """The mean of each colour of each image; the batch is open outside, and `inner` inside."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["embedding"]),
    ]
    return _net(path, nodes, ["N", 3, SIZE, SIZE], ["N", 3], {"shape": np.array([inner, 3])})


@pytest.mark.parametrize("inner", [1, 4])
def test_a_batch_open_outside_and_fixed_inside(tmp_path: Path, inner: int) -> None:
    network = OnnxBackbone(_means(tmp_path / "net.onnx", inner))
    assert network.batch == inner
    x = torch.rand(6, 3, SIZE, SIZE)
    torch.testing.assert_close(network(x), x.mean((2, 3)))
    assert OnnxBackbone(_means(tmp_path / "open.onnx", -1)).batch is None


def test_a_batch_that_becomes_one_long_row_is_run_one_image_at_a_time(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        helper.make_node("Reshape", ["mean", "shape"], ["embedding"]),
    ]
    path = _net(tmp_path / "n.onnx", nodes, ["N", 3, SIZE, SIZE], ["N", 3], {"shape": np.array([1, -1])})
    x = torch.rand(3, 3, SIZE, SIZE)
    torch.testing.assert_close(OnnxBackbone(path)(x), x.mean((2, 3)))


def test_an_embedding_that_depends_on_the_other_images_is_made_alone(tmp_path: Path) -> None:
    """The largest value of the batch divides all: the shapes show nothing."""
    nodes = [
        helper.make_node("ReduceMax", ["pixels"], ["largest"], keepdims=0),
        helper.make_node("Div", ["pixels", "largest"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["embedding"], axes=[2, 3], keepdims=0),
    ]
    network = OnnxBackbone(_net(tmp_path / "n.onnx", nodes, ["N", 3, SIZE, SIZE], ["N", 3]))
    x = torch.rand(3, 3, SIZE, SIZE) * torch.tensor([1.0, 9, 99]).view(3, 1, 1, 1)
    assert network.batch == 1
    torch.testing.assert_close(network(x), torch.cat([i.mean((1, 2))[None] / i.max() for i in x]))


def test_a_graph_without_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Mul", ["mean_in", "mean_in"], ["mean_out"])],
        "again",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("mean_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("mean_out", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Loop", ["", "true", "mean"], ["embedding"], body=again),
    ]
    path = _net(tmp_path / "n.onnx", nodes, ["N", 3, SIZE, SIZE], ["N", 3], {"true": np.array(True)})
    monkeypatch.setenv("FACEDISTILL_ONNX_SECONDS", "3")
    with pytest.raises(UserError, match=r"n\.onnx: does not run .*not done after 3 seconds; set FACEDISTILL_ONNX"):
        OnnxBackbone(path)


def test_why_it_does_not_run_is_onnxruntimes_own_reason_in_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["pixels", "shape"], ["embedding"], name="last")]
    path = _net(tmp_path / "n.onnx", nodes, ["N", 3, SIZE, SIZE], ["N", 7], {"shape": np.array([-1, 7])})
    with pytest.raises(UserError, match=r"running Reshape node\. Name:'last'.*requested shape:\{-1,7\}") as caught:
        OnnxBackbone(path)
    assert str(caught.value).isprintable()


def test_an_embedding_in_a_column(tmp_path: Path) -> None:
    pool = helper.make_node("GlobalAveragePool", ["pixels"], ["embedding"])
    for batch in (1, "N"):
        network = OnnxBackbone(_net(tmp_path / f"{batch}.onnx", [pool], [batch, 3, SIZE, SIZE], [batch, 3, 1, 1]))
        x = torch.rand(5, 3, SIZE, SIZE)
        torch.testing.assert_close(network(x), x.mean((2, 3)))


def test_an_output_of_integers_is_no_embedding(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Cast", ["mean"], ["embedding"], to=TensorProto.INT64),
    ]
    path = _net(tmp_path / "n.onnx", nodes, ["N", 3, SIZE, SIZE], ["N", 3], made=TensorProto.INT64)
    with pytest.raises(UserError, match=r"shape \[1, 3\] of int64; expected N x d"):
        OnnxBackbone(path)


def test_half_precision_in_and_out(tmp_path: Path) -> None:
    mean = helper.make_node("ReduceMean", ["pixels"], ["embedding"], axes=[2, 3], keepdims=0)
    half = TensorProto.FLOAT16
    network = OnnxBackbone(_net(tmp_path / "n.onnx", [mean], ["N", 3, SIZE, SIZE], ["N", 3], kind=half, made=half))
    x = torch.rand(5, 3, SIZE, SIZE)
    assert network.pixels == "float16" and network(x).dtype == torch.float32
    torch.testing.assert_close(network(x), x.mean((2, 3)), rtol=1e-2, atol=1e-2)


def test_one_of_two_outputs_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", outputs=2)
    x = torch.randn(2, 3, SIZE, SIZE)
    plain, other = OnnxBackbone(path, output="embedding"), OnnxBackbone(path, output="other")
    torch.testing.assert_close(other(x), -plain(x))
    assert plain.content() != other.content()
    with pytest.raises(UserError, match=r"no output 'othr' .did you mean 'other'.*import --output"):
        OnnxBackbone(path, output="othr")


def test_weights_in_constants_and_branches_are_counted(tmp_path: Path) -> None:
    matrix = numpy_helper.from_array(np.ones((3, 4), np.float32), "matrix")
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Constant", [], ["m"], value=matrix),
        helper.make_node("MatMul", ["mean", "m"], ["embedding"]),
    ]
    network = OnnxBackbone(_net(tmp_path / "n.onnx", nodes, ["N", 3, SIZE, SIZE], ["N", 4]))
    assert (network.count_parameters(), network.count_macs()) == (12, 12)


@pytest.mark.parametrize("form", ["QDQ", "QOperator", "dynamic"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_graphs_count_as_the_float_graph(tmp_path: Path, form: str, per_channel: bool) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Noise(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        left = 4

        def get_next(self) -> dict | None:
            self.left -= 1
            return {"pixels": np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)} if self.left else None

    path, made = write(tmp_path / "net.onnx"), tmp_path / "int8.onnx"
    if form == "dynamic":
        quantization.quantize_dynamic(path, made, per_channel=per_channel)
    else:
        kind = quantization.QuantFormat[form]
        quantization.quantize_static(path, made, Noise(), quant_format=kind, per_channel=per_channel)
    network = OnnxBackbone(made)
    assert count_parameters(network) == 5 * 3 * 16 + 5 * DIM + DIM
    assert count_macs(network, SIZE) == 8 * 8 * 5 * 48 + 5 * DIM
    x = torch.rand(3, 3, SIZE, SIZE)
    cosine = torch.nn.functional.cosine_similarity(network(x), reference(path, x))
    assert cosine.min() > 0.98  # products of int8 saturate on CPUs without VNNI


@pytest.mark.parametrize("name", ["../weights.bin", "/dev/zero", "gone.bin", "C:\\weights.bin"])
def test_weights_are_read_beside_the_graph_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(4096))
    (tmp_path / "inner").mkdir()
    path = write(tmp_path / "inner" / "net.onnx", external=True)
    network = OnnxBackbone(path)
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = name if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="which is no file beside it"):
        network.content()
