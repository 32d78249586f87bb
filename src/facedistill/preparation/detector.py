"""A face detector in ONNX, of one of two layouts, which its outputs tell apart: YuNet, and SCRFD with landmarks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from facedistill.backbones import inputs, one_line, open_session, outputs, read_graph, tried
from facedistill.errors import UserError
from facedistill.preparation.faces import Faces, merged

STRIDES = (8, 16, 32)  # pixels between the cells of the three maps
MULTIPLE = 32  # the input's sides, which are padded with black
SURE = 0.6  # the least score of a face


class Layout(Protocol):
    """How a family of detectors takes pixels, and what its outputs mean."""

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Return the network's input for RGB uint8 (1, H, W, 3): float32 (1, 3, H, W)."""

    def faces(self, outputs: list[np.ndarray], shape: tuple[int, int]) -> Faces:
        """Return the faces of at least the score SURE; H and W of the input are `shape`."""


@dataclass
class YuNet:
    """cls, obj, bbox and kps for each stride, a face a cell (Wu et al., "YuNet", 2023; opencv_zoo).

    The score is the root of cls x obj. A box is its centre's distance from the cell and the logarithm of its sides; a
    landmark its distance from the cell; all in strides. The input is BGR, 0..255.
    """

    order: list[int]  # places of cls, obj, bbox, kps among the outputs, stride by stride

    @classmethod
    def of(cls, outputs: list[Any]) -> "YuNet | None":
        names = [output.name for output in outputs]
        wanted = [f"{what}_{stride}" for stride in STRIDES for what in ("cls", "obj", "bbox", "kps")]
        return cls([names.index(name) for name in wanted]) if set(wanted) <= set(names) else None

    def pixels(self, images: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2)).astype(np.float32)

    def faces(self, outputs: list[np.ndarray], shape: tuple[int, int]) -> Faces:
        boxes, points, scores = [], [], []
        for level, stride in enumerate(STRIDES):
            kind, is_object, box, five = (outputs[i][0] for i in self.order[4 * level : 4 * level + 4])
            score = np.sqrt(kind[:, 0].clip(0, 1) * is_object[:, 0].clip(0, 1))
            sure = np.flatnonzero(score >= SURE)
            score, box, five = _exact(sure, score, box, five)
            cells = _cells(sure, shape, stride, 1)
            scores.append(score)
            centre, half = (cells + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride / 2
            boxes.append(np.hstack([centre - half, centre + half]))
            points.append((cells[:, None] + five.reshape(-1, 5, 2)) * stride)
        return Faces(np.vstack(boxes), np.concatenate(points), np.concatenate(scores))


@dataclass
class Scrfd:
    """Score, box and landmarks for each stride, two anchors a cell (Guo et al., "SCRFD", arXiv 2105.04714).

    A box is the distances of its sides from the cell, a landmark its offset; both in strides. The input is RGB,
    (x - 127.5) / 128.
    """

    order: list[int]  # places of score, box, landmarks among the outputs, stride by stride

    @classmethod
    def of(cls, outputs: list[Any]) -> "Scrfd | None":
        """Outputs have numbers for names; their last axes (1, 4, 10) and their order (strides ascending) tell them."""
        by_width = {
            width: [i for i, o in enumerate(outputs) if o.shape and o.shape[-1] == width] for width in (1, 4, 10)
        }
        if len(outputs) != 9 or any(len(places) != 3 for places in by_width.values()):
            return None
        return cls([by_width[width][level] for level in range(3) for width in (1, 4, 10)])

    def pixels(self, images: np.ndarray) -> np.ndarray:
        wide = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
        return (wide - np.float32(127.5)) / np.float32(128)

    def faces(self, outputs: list[np.ndarray], shape: tuple[int, int]) -> Faces:
        boxes, points, scores = [], [], []
        for level, stride in enumerate(STRIDES):
            score, box, five = (outputs[i] for i in self.order[3 * level : 3 * level + 3])
            score = score.reshape(-1)
            sure = np.flatnonzero(score >= SURE)
            score, box, five = _exact(sure, score, box.reshape(-1, 4) * stride, five.reshape(-1, 10))
            cells = _cells(sure, shape, stride, 2) * stride
            scores.append(score)
            boxes.append(np.hstack([cells - box[:, :2], cells + box[:, 2:]]))
            points.append(cells[:, None] + five.reshape(-1, 5, 2) * stride)
        return Faces(np.vstack(boxes), np.concatenate(points), np.concatenate(scores))


LAYOUTS: dict[str, Any] = {"YuNet": YuNet, "SCRFD": Scrfd}


class Detector:
    """The detector at `path`, run by ONNX Runtime with one thread.

    Raises:
        UserError: the file is no ONNX graph, or its outputs are of no known detector.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._session = open_session(self.path, threads=1)
        (self._input, *others), outputs = self._session.get_inputs(), self._session.get_outputs()
        known = [layout for kind in LAYOUTS.values() if (layout := kind.of(outputs)) is not None]
        if not known or others or len(self._input.shape) != 4:
            found = ", ".join(f"{output.name} {output.shape}" for output in outputs[:4])
            raise UserError(
                f"{path}: not a face detector that is known (outputs {found}{', ...' if len(outputs) > 4 else ''}); "
                f"expected the outputs of {' or '.join(LAYOUTS)} with five landmarks"
            )
        self.layout: Layout = known[0]
        height, width = self._input.shape[2:]
        self.fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def __call__(self, pixels: np.ndarray) -> Faces:
        """Return the faces in RGB uint8 (H, W, 3), the surest first; none is found twice.

        A detector of a fixed size takes images up to that size.
        """
        height, width = pixels.shape[:2]
        full = self.fixed or (_up(height), _up(width))
        if height > full[0] or width > full[1]:
            raise ValueError(f"an image of {width} x {height} for a detector of {full[1]} x {full[0]}")
        padded = np.zeros((1, *full, 3), np.uint8)
        padded[0, :height, :width] = pixels
        try:
            found = self._session.run(None, {self._input.name: self.layout.pixels(padded)})
            return merged([self.layout.faces(found, full)])
        except Exception as e:  # onnxruntime raises its own classes, and numpy its own for outputs of other shapes
            raise UserError(f"{self.path}: not a face detector that works ({one_line(e)}); take another") from e


def require_detector(path: str | Path) -> None:
    """Raise UserError unless the file is a detector that can look at a grey image.

    A graph may loop without end or crash, so it runs in a process of its own first.
    """
    graph = read_graph(Path(path)).graph
    taken, made = inputs(graph), outputs(graph)
    if taken and made and len(taken[0].shape) == 4:
        sides = [side if isinstance(side, int) else 2 * MULTIPLE for side in taken[0].shape[2:]]
        trial = tried(Path(path), taken[0].name, made[0].name, [1, 3, *sides], "float32")
        if trial.error:
            raise UserError(f"{path}: not a face detector that works ({trial.error}); take another")
    detector = Detector(path)
    detector(np.full((*(detector.fixed or (2 * MULTIPLE, 2 * MULTIPLE)), 3), 127, np.uint8))


def _up(side: int) -> int:
    return -(-side // MULTIPLE) * MULTIPLE


def _exact(rows: np.ndarray, *outputs: np.ndarray) -> list[np.ndarray]:
    """Return those rows of each, in float64."""
    return [output[rows].astype(np.float64) for output in outputs]


def _cells(places: np.ndarray, shape: tuple[int, int], stride: int, anchors: int) -> np.ndarray:
    """Return column and row of the cells at `places` (N,), counted row by row, each `anchors` times: (N, 2)."""
    rows, columns = np.divmod(places // anchors, shape[1] // stride)
    return np.stack([columns, rows], axis=1).astype(np.float64)
