"""Find the faces of a photo: small ones at double size, large ones with room around them, groups by tiles."""

from collections.abc import Iterator

import numpy as np

from facedistill.data import resize
from facedistill.preparation.detector import Detector
from facedistill.preparation.faces import Faces, merged

SIDE = 640  # pixels of the longer side in the first pass
TILE, STEP = 1280, 960  # pixels of a tile in the photo, and from one to the next
SMALL_FIND = 0.15  # of the photo's shorter side: a smaller face may be in the background of one that was missed
MARGIN = 0.5  # of a photo's sides, on each side: a face that fills its photo needs room to be found
FILLS = 160  # pixels of the longer side where such a face is looked for


def find_faces(detector: Detector, pixels: np.ndarray, thorough: bool) -> Faces:
    """Return the faces of RGB uint8 (H, W, 3), the surest first.

    Args:
        thorough: look for small faces although large ones were found. Several times slower.
    """
    height, width = pixels.shape[:2]
    found = _scaled(detector, pixels, SIDE / max(height, width))
    large = len(found) and found.sides.max() >= SMALL_FIND * min(height, width)
    if not large:
        found = merged([found, _with_room(detector, pixels)])
    if thorough or not len(found):
        found = merged([found, *_closer(detector, pixels)])
    return found


def _closer(detector: Detector, pixels: np.ndarray) -> Iterator[Faces]:
    """Yield the faces at double the first pass's size, and those of tiles where the photo has still more pixels."""
    height, width = pixels.shape[:2]
    double = 2 * SIDE / max(height, width)
    yield _scaled(detector, pixels, double, enlarge=True)
    if double < 0.75:
        for top in range(0, max(1, height - TILE + STEP), STEP):
            for left in range(0, max(1, width - TILE + STEP), STEP):
                part = pixels[top : top + TILE, left : left + TILE]
                yield _scaled(detector, part, 1.0).moved(1.0, left, top)


def _scaled(detector: Detector, pixels: np.ndarray, scale: float, enlarge: bool = False) -> Faces:
    height, width = pixels.shape[:2]
    if not enlarge:
        scale = min(scale, 1.0)
    if detector.fixed:
        scale = min(scale, detector.fixed[0] / height, detector.fixed[1] / width)
    shape = (max(1, int(height * scale)), max(1, int(width * scale)))
    return detector(resize(pixels, shape)).moved(scale)


def _with_room(detector: Detector, pixels: np.ndarray) -> Faces:
    height, width = pixels.shape[:2]
    scale = min(1.0, FILLS / max(height, width))
    small = resize(pixels, (max(1, int(height * scale)), max(1, int(width * scale))))
    above, beside = int(MARGIN * small.shape[0]), int(MARGIN * small.shape[1])
    room = np.pad(small, ((above, above), (beside, beside), (0, 0)))
    return _scaled(detector, room, 1.0).moved(1.0, -beside, -above).moved(scale)
