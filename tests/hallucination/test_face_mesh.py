"""Priors by a face mesh: what its points become, what is kept, and files that are none."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from facedistill.data import Dataset, open_dataset
from facedistill.errors import UserError
from facedistill.hallucination import face_mesh
from facedistill.hallucination.priors import MIRRORED_LANDMARKS, open_priors
from facedistill.recipe import Data

SIDE = 192


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """Two bright photos and a dark one."""
    for i, light in enumerate((200, 200, 0)):
        file = tmp_path / "photos" / "ann" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (112, 112), (light,) * 3).save(file)
    return open_dataset(tmp_path / "photos")


def ring(points: np.ndarray, outline: list[int], middle: tuple[float, float], radius: tuple[float, float]) -> None:
    angles = np.linspace(0, 2 * np.pi, len(outline), endpoint=False)
    points[outline, 0] = middle[0] + radius[0] * np.cos(angles)
    points[outline, 1] = middle[1] + radius[1] * np.sin(angles)


def mesh_of_circles() -> np.ndarray:
    """Points (468, 3) in pixels of the frame: every outline an ellipse around a place of its own."""
    points = np.full((468, 3), 96.0, np.float32)
    ring(points, face_mesh.FACE, (96, 96), (60, 70))
    ring(points, [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7], (70, 80), (10, 5))
    ring(points, [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249], (122, 80), (10, 5))
    return points


def write_onnx(path: Path, points: np.ndarray, score: bool = True, layout: str = "nhwc") -> Path:
    """A graph whose points are constant and whose score is the image's mean less a half."""
    shape = [1, SIDE, SIDE, 3] if layout == "nhwc" else [1, 3, SIDE, SIDE]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "half"], ["logit"]),
        helper.make_node("Reshape", ["logit", "one"], ["score"]),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["points_at", "nothing"], ["points"]),
    ]
    given = {
        "half": np.array(0.5, np.float32),
        "zero": np.array(0, np.float32),
        "one": np.array([1, 1, 1, 1]),
        "points_at": points.reshape(1, 1, 1, -1).astype(np.float32),
    }
    made = [helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, 1, 1, points.size])]
    if score:
        made = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1, 1, 1]), *made]
    graph = helper.make_graph(
        nodes,
        "mesh",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        made,
        [numpy_helper.from_array(value, name) for name, value in given.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_points_become_landmarks_and_classes(
    tmp_path: Path, photos: Dataset, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    points = mesh_of_circles()
    file = write_onnx(tmp_path / "mesh.onnx", points, layout=layout)
    priors = open_priors(str(file), Data(str(tmp_path / "photos")), photos, 112)
    assert priors is not None and "sees no face in 1 of 3 images" in capsys.readouterr().err
    landmarks, classes = priors.of(np.array([0, 1, 2]))
    # the frame of 192 pixels shows 140 of the crop's pixels, 14 of them beyond each border
    assert np.allclose(landmarks[1], points[face_mesh.LANDMARKS, :2] * 140 / 192 - 14, atol=1e-4)
    assert classes.shape == (3, 112, 112) and classes.dtype == np.uint8
    right, left = ([int(v * 140 / 192 - 14) for v in at] for at in ((70, 80), (122, 80)))
    assert classes[0, right[1], right[0]] == 6 and classes[0, left[1], left[0]] == 5  # the person's own left
    assert classes[0, 0, 0] == 0 and classes[0, 80, 56] == 2
    skin = (classes[0] > 0).sum()
    assert skin == pytest.approx(np.pi * 60 * 70 * (140 / 192) ** 2, rel=0.03)
    small = open_priors(str(file), Data(str(tmp_path / "photos")), photos, 56)
    assert small is not None and np.allclose(small.of(np.array([0]))[0], landmarks[:1] / 2)


def test_a_mesh_with_irises_and_without_a_score(tmp_path: Path, photos: Dataset) -> None:
    points = np.concatenate([mesh_of_circles(), np.full((10, 3), 7.0, np.float32)])
    found = face_mesh.mesh_points(write_onnx(tmp_path / "m.onnx", points, score=False), photos)
    assert found.shape == (3, 468, 2) and np.allclose(found[0], (points[:468, :2] / 192 * 140 - 14) / 112, atol=1e-6)


def test_points_are_kept_and_read_again(tmp_path: Path, photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_onnx(tmp_path / "m.onnx", mesh_of_circles())
    first = face_mesh.mesh_points(file, photos)
    (kept,) = (tmp_path / "cache" / "face_mesh").iterdir()
    monkeypatch.setattr(face_mesh, "_framed", lambda *_: pytest.fail("placed again"))
    assert np.array_equal(face_mesh.mesh_points(file, photos), first)
    monkeypatch.undo()
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    whole = kept.read_bytes()
    flipped = bytes([whole[len(whole) // 2] ^ 1])
    for damaged in (whole[:100], whole[: len(whole) // 2] + flipped + whole[len(whole) // 2 + 1 :]):
        kept.write_bytes(damaged)  # what is damaged is made anew
        assert np.array_equal(face_mesh.mesh_points(file, photos), first) and kept.read_bytes() == whole


def test_photos_that_changed_are_placed_again(tmp_path: Path, photos: Dataset) -> None:
    file = write_onnx(tmp_path / "m.onnx", mesh_of_circles())
    face_mesh.mesh_points(file, photos)
    os.utime(tmp_path / "photos" / "ann" / "0.png", (1, 1))
    face_mesh.mesh_points(file, open_dataset(tmp_path / "photos"))
    assert len(list((tmp_path / "cache" / "face_mesh").iterdir())) == 2


def test_landmarks_keep_their_order_in_the_mirror_image() -> None:
    """Points whose place is symmetric change as MIRRORED_LANDMARKS says: left parts have right ones as partners."""
    partner = {33: 263, 133: 362, 61: 291, 78: 308, 162: 389, 97: 326, 70: 300, 105: 334, 152: 152, 4: 4, 0: 0, 17: 17}
    for ours, theirs in partner.items():
        if ours in face_mesh.LANDMARKS.tolist():
            place = face_mesh.LANDMARKS.tolist().index(ours)
            assert face_mesh.LANDMARKS[MIRRORED_LANDMARKS[place]] == theirs


def test_files_that_are_no_mesh(tmp_path: Path, photos: Dataset) -> None:
    few = write_onnx(tmp_path / "few.onnx", np.zeros((100, 3)))
    with pytest.raises(UserError, match=r"few.onnx: gives .*expected a face mesh: 468 or 478 points"):
        face_mesh.mesh_points(few, photos)
    nan = write_onnx(tmp_path / "nan.onnx", np.full((468, 3), np.nan))
    with pytest.raises(UserError, match="points that are no numbers"):
        face_mesh.mesh_points(nan, photos)
    (tmp_path / "text.onnx").write_text("a mesh")
    with pytest.raises(UserError, match="not a usable ONNX model"):
        open_priors(str(tmp_path / "text.onnx"), Data("x"), photos, 64)
    with pytest.raises(UserError, match="no such file"):
        open_priors(str(tmp_path / "none.onnx"), Data("x"), photos, 64)


def test_a_tflite_file(tmp_path: Path, photos: Dataset) -> None:
    pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")
    (tmp_path / "text.tflite").write_text("a mesh")
    for name, words in (("text.tflite", "not a usable TFLite model"), ("none.tflite", "no such file")):
        with pytest.raises(UserError, match=words):
            face_mesh.mesh_points(tmp_path / name, photos)


def test_a_tflite_file_without_its_package(tmp_path: Path, photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    (tmp_path / "m.tflite").write_bytes(b"0")
    with pytest.raises(UserError, match=r"pip install 'facedistill\[litert\]'"):
        face_mesh.mesh_points(tmp_path / "m.tflite", photos)
