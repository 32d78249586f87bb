"""Detectors: what outputs mean, against OpenCV's post-processing; which of two finds stays; what is refused."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from drawn_detector import POINTS, SIDE, photo, save_detector
from facedistill.data import open_dataset
from facedistill.errors import UserError
from facedistill.preparation import Detector
from facedistill.preparation.detector import Scrfd, require_detector
from facedistill.preparation.faces import Faces, merged

SHARED = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not (SHARED / "models").exists(), reason="the shared models are not here")


def test_yunet_outputs(tmp_path: Path) -> None:
    faces = Detector(save_detector(tmp_path / "d.onnx"))(np.asarray(photo((200, 152), [(80, 64), (136, 104)])))
    order = np.argsort(faces.boxes[:, 0])
    assert len(faces) == 2 and faces.scores.min() > 0.99
    for row, corner in zip(order, [(80, 64), (136, 104)], strict=True):
        np.testing.assert_allclose(faces.points[row], POINTS + corner, atol=1e-4)
        half = np.array([-SIDE, -SIDE, SIDE, SIDE]) / 2
        np.testing.assert_allclose(faces.boxes[row], np.tile(corner, 2) + half, atol=1e-4)


def test_scrfd_outputs() -> None:
    """Two anchors a cell, row by row; distances and offsets in strides; outputs known by their last axes."""

    class Named:
        def __init__(self, width: int) -> None:
            self.name, self.shape = "443", [None, width]

    layout = Scrfd.of([Named(width) for width in (1, 1, 1, 4, 4, 4, 10, 10, 10)])
    assert layout is not None and Scrfd.of([Named(1)] * 9) is None
    sizes = [2 * (64 // s) * (32 // s) for s in (8, 16, 32)]
    scores, boxes, points = ([np.zeros((n, w), np.float32) for n in sizes] for w in (1, 4, 10))
    cell = 2 * (1 * 8 + 3) + 1  # row 1, column 3 of the map of stride 8, second anchor
    scores[0][cell], boxes[0][cell] = 0.9, [1, 2, 3, 4]
    points[0][cell] = np.arange(10)
    faces = layout.faces([*scores, *boxes, *points], (32, 64))
    assert len(faces) == 1 and faces.scores[0] == pytest.approx(0.9)
    np.testing.assert_allclose(faces.boxes[0], [24 - 8, 8 - 16, 24 + 24, 8 + 32])
    np.testing.assert_allclose(faces.points[0], np.arange(10).reshape(5, 2) * 8 + [24, 8])


def test_of_two_finds_of_a_face_the_surer_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [6, 0, 16, 10], [40, 40, 50, 50]], np.float64)
    faces = merged([Faces(boxes, np.zeros((4, 5, 2)), np.array([0.7, 0.9, 0.8, 0.65]))])
    assert faces.scores.tolist() == [0.9, 0.8, 0.65]  # 9 of 11 columns overlap; 5 of 15 do not count as the same
    assert len(merged([Faces(boxes[:0], np.zeros((0, 5, 2)), np.zeros(0))])) == 0


def test_faces_before_a_cut_and_a_scaling() -> None:
    """The middle of a pixel stays the middle: at half size, place 0 lies between the pixels 0 and 1."""
    points = np.zeros((1, 5, 2))
    back = Faces(np.zeros((1, 4)), points, np.ones(1)).moved(0.5, left=10, top=20)
    np.testing.assert_allclose(back.points[0, 0], [10.5, 20.5])
    np.testing.assert_allclose(back.boxes[0], [10.5, 20.5, 10.5, 20.5])


def test_a_graph_that_is_no_detector_is_refused(tmp_path: Path) -> None:
    torch.onnx.export(nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 32, 32),), str(tmp_path / "n.onnx"), dynamo=True)
    with pytest.raises(UserError, match="not a face detector that is known"):
        Detector(tmp_path / "n.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(UserError, match="not a usable ONNX model"):
        Detector(tmp_path / "text.onnx")
    whole = save_detector(tmp_path / "d.onnx").read_bytes()
    (tmp_path / "name.onnx").write_bytes(whole.replace(b"n16", b"n\x00\x80"))  # of a side, and no text
    with pytest.raises(UserError, match="not a usable ONNX model"):
        Detector(tmp_path / "name.onnx")


def _by_opencv(file: Path, image: np.ndarray) -> np.ndarray:
    """OpenCV's own post-processing: x, y, width, height, landmarks, score; the surest first. Sides: multiples of 32."""
    size = (image.shape[1], image.shape[0])
    found = cv2.FaceDetectorYN.create(str(file), "", size, 0.6, 0.4, 5000).detect(image[..., ::-1].copy())[1]
    return found[np.argsort(-found[:, 14], kind="stable")]


def _as_opencv(faces: Faces) -> np.ndarray:
    return np.hstack([faces.boxes[:, :2], faces.boxes[:, 2:] - faces.boxes[:, :2], faces.points.reshape(-1, 10)])


def test_drawn_faces_as_opencv_finds_them(tmp_path: Path) -> None:
    file, image = save_detector(tmp_path / "d.onnx"), np.asarray(photo((224, 160), [(80, 64), (136, 104), (24, 120)]))
    ours, theirs = _as_opencv(Detector(file)(image)), _by_opencv(file, image)[:, :14]
    np.testing.assert_allclose(ours[np.argsort(ours[:, 0])], theirs[np.argsort(theirs[:, 0])], atol=1e-3)


@real
def test_real_faces_as_opencv_finds_them() -> None:
    file = SHARED / "models" / "yunet_2026may.onnx"
    lfw = open_dataset(SHARED / "verification" / "lfw.bin")
    scene = np.full((480, 672, 3), 120, np.uint8)
    for i in range(12):
        side = 60 + 8 * i
        crop = np.asarray(Image.fromarray(lfw.image(50 * i)).resize((side, side)))
        top, left = 20 + i // 4 * 155, 15 + i % 4 * 165
        scene[top : top + side, left : left + side] = crop
    ours = Detector(file)(scene)
    theirs = _by_opencv(file, scene)
    assert len(ours) >= 10
    np.testing.assert_allclose(_as_opencv(ours), theirs[:, :14], atol=1e-3)
    np.testing.assert_allclose(ours.scores, theirs[:, 14], atol=1e-5)


def _with_outputs(path: Path, changed: dict[str, list[float]]) -> Path:
    """The drawn detector with constants of other shapes, as a damaged file may have."""
    graph = onnx.load(str(save_detector(path)))
    for stored in graph.graph.initializer:
        if stored.name in changed:
            stored.CopyFrom(onnx.numpy_helper.from_array(np.array(changed[stored.name], np.float32), stored.name))
    onnx.save(graph, str(path))
    return path


def test_a_detector_whose_outputs_have_other_shapes_is_one_line(tmp_path: Path) -> None:
    path = _with_outputs(tmp_path / "d.onnx", {"bbox8": [0.0] * 5})
    for use in (require_detector, lambda file: Detector(file)(np.zeros((64, 64, 3), np.uint8))):
        with pytest.raises(UserError, match=r"d\.onnx: not a face detector that works") as said:
            use(path)
        assert "\n" not in str(said.value)
    require_detector(save_detector(tmp_path / "sound.onnx"))


def test_a_detector_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_ONNX_SECONDS", "0.01")
    with pytest.raises(UserError, match=r"not a face detector that works \(not done after 0.01 seconds"):
        require_detector(save_detector(tmp_path / "d.onnx"))
