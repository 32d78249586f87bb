"""OnnxBackbone on graphs built by the onnx library itself."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.backbones import OnnxBackbone, count_macs, count_parameters
from facedistill.errors import UserError

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
