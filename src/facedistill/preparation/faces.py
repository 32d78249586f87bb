"""Faces found in an image: boxes, landmarks and scores, and which of two finds of the same face stays."""

from dataclasses import dataclass

import numpy as np

OVERLAP = 0.4  # two boxes whose intersection is a larger share of their union are one face
INSIDE = 0.7  # and so is a box with a larger share of its area in a surer one: a part of a large face


@dataclass
class Faces:
    """N faces in pixels of the image, whole numbers at pixel centres.

    Attributes:
        boxes: float64 (N, 4), left, top, right, bottom.
        points: float64 (N, 5, 2), eyes (left and right as seen), nose, corners of the mouth.
        scores: float64 (N,), 0 to 1.
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: np.ndarray) -> "Faces":
        return Faces(self.boxes[rows], self.points[rows], self.scores[rows])

    def moved(self, scale: float, left: float = 0.0, top: float = 0.0) -> "Faces":
        """Return the faces where they were before the image was cut off at (left, top) and then scaled by `scale`."""
        corner = np.array([left, top])
        points = (self.points + 0.5) / scale - 0.5 + corner
        boxes = (self.boxes + 0.5) / scale - 0.5 + np.tile(corner, 2)
        return Faces(boxes, points, self.scores)

    @property
    def sides(self) -> np.ndarray:
        """The shorter side of each box."""
        return np.minimum(self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1])


def none() -> Faces:
    return Faces(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


def merged(parts: list[Faces]) -> Faces:
    """Return all faces, the surest first, without those that overlap a surer one (non-maximum suppression)."""
    boxes = np.concatenate([part.boxes for part in parts])
    points = np.concatenate([part.points for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    kept: list[int] = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[order, :2])
        high = np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        apart = shared <= OVERLAP * (areas[first] + areas[order] - shared)
        order = order[apart & (shared <= INSIDE * areas[order])]
    return Faces(boxes[kept], points[kept], scores[kept])
