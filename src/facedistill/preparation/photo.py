"""From a photo to aligned faces: decode at the size that is needed, find, choose, judge, crop."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facedistill.data import TEMPLATE, align_face, decode_image, reduced, similarity
from facedistill.preparation.detector import Detector
from facedistill.preparation.faces import Faces
from facedistill.preparation.quality import Quality, quality
from facedistill.preparation.search import SIDE, find_faces

DECODED = 2 * SIDE  # the longer side that a photo is decoded at first


@dataclass
class Found:
    """One face of a photo, or a photo without one.

    Attributes:
        box: float (4,), left, top, right, bottom; points: float (5, 2). In pixels of the upright photo; None without a
            face.
        crop: uint8 (size, size, 3); None where nothing was cropped.
        why: why it is refused; "" where it is kept.
    """

    box: np.ndarray | None = None
    points: np.ndarray | None = None
    score: float | None = None
    quality: Quality | None = None
    crop: np.ndarray | None = None
    why: str = ""


def largest(faces: Faces, shape: tuple[int, int]) -> Faces:
    """The face with the largest box."""
    return faces.take(np.argsort(-faces.sides, kind="stable")[:1])


def central(faces: Faces, shape: tuple[int, int]) -> Faces:
    """The face nearest to the photo's middle; half of its size is taken off the distance."""
    middle = np.array([shape[1], shape[0]]) / 2
    away = np.linalg.norm((faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - middle, axis=1)
    return faces.take(np.argsort(away - faces.sides / 2, kind="stable")[:1])


def every(faces: Faces, shape: tuple[int, int]) -> Faces:
    """All faces."""
    return faces


CHOICES: dict[str, Callable[[Faces, tuple[int, int]], Faces]] = {"largest": largest, "central": central, "all": every}


def faces_of(
    data: bytes, detector: Detector, faces: str, size: int, min_size: float, thorough: bool | None = None
) -> list[Found]:
    """Return the chosen faces of a photo's bytes; a photo without a face gives one Found that says so.

    Args:
        thorough: look for small faces beside large ones; None: if all faces are chosen.

    Raises ValueError if the data is no image that can be read.
    """
    pixels, scale = reduced(data, DECODED)
    thorough = faces == "all" if thorough is None else thorough
    chosen = CHOICES[faces](find_faces(detector, pixels, thorough), pixels.shape[:2])
    if not len(chosen):
        return [Found(why="no face")]
    if scale < 1 and _grows(chosen, size):
        pixels, chosen, scale = decode_image(data, upright=True), chosen.moved(scale), 1.0
    return [
        _judged(pixels, box, points, float(score), size, min_size, scale)
        for box, points, score in zip(chosen.boxes, chosen.points, chosen.scores, strict=True)
    ]


def given(data: bytes, points: list[np.ndarray], size: int, min_size: float) -> list[Found]:
    """Return the faces whose landmarks are given, in pixels of the upright photo.

    Raises ValueError if the data is no image that can be read.
    """
    pixels = decode_image(data, upright=True)
    return [_judged(pixels, _box_around(five), five, None, size, min_size) for five in points]


def _grows(faces: Faces, size: int) -> bool:
    """Whether cropping enlarges one of the faces, so that a photo decoded at its full size gives a sharper crop."""
    eyes = np.linalg.norm(faces.points[:, 1] - faces.points[:, 0], axis=1)
    return bool(eyes.min() < np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]) * size / 112)


def _judged(
    pixels: np.ndarray,
    box: np.ndarray,
    points: np.ndarray,
    score: float | None,
    size: int,
    min_size: float,
    scale: float = 1.0,
) -> Found:
    """Crop and judge the face at `box` and `points` in `pixels`, which is `scale` of the photo's size."""
    found = Found((box + 0.5) / scale - 0.5, (points + 0.5) / scale - 0.5, score)
    side = min(box[2] - box[0], box[3] - box[1]) / scale
    if side < min_size:
        found.why = f"{side:.0f} pixels, less than {min_size:g}"
        return found
    try:
        crop = align_face(pixels, points, size)
    except ValueError:
        found.why = "landmarks that no face has"
        return found
    found.crop, found.quality = crop, quality(crop, points)
    return found


def _box_around(points: np.ndarray) -> np.ndarray:
    """Return where a detector's box would lie: 15 to 97 of the template's 112 pixels across, 10 to 112 down."""
    try:
        back = np.linalg.inv(np.vstack([similarity(points, TEMPLATE), [0, 0, 1]]))[:2]
    except ValueError:
        return np.array([*points.min(0), *points.max(0)])
    corners = np.array([[15, 10, 1], [97, 10, 1], [15, 112, 1], [97, 112, 1]]) @ back.T
    return np.array([*corners.min(0), *corners.max(0)])
