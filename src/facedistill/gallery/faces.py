"""From a photo to the faces that may be enrolled or searched for, and why the others may not, with the measure."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from facedistill.data import decode_image, middle, resize, sharpness
from facedistill.preparation import Detector, detector_file, faces_of

ALIGNED = 112  # pixels of a face that is cut out of a photo, at least; so it is judged as any other
LEAST = 40  # pixels of the shorter side of a face in a photo, as `prepare` has it
BLURRED = 5.0  # sharpness of an aligned face; see `facedistill.data.sharpness`
JUDGED = 56  # pixels of a crop from which its sharpness is measured; a smaller one is smooth because it is enlarged
SQUARE = 1.25  # the longest side of an aligned crop over the shortest
LARGEST = 600  # pixels of an aligned crop; more is a photo
BESIDE = 0.5  # of the largest face's size: a smaller face is in the background, not a second person


class Face(NamedTuple):
    """A face of a photo.

    Attributes:
        crop: uint8 (size, size, 3), aligned; None if it is refused.
        refused: why; "" for a face that may be used.
        side: pixels of its shorter side in the photo.
    """

    crop: np.ndarray | None
    refused: str = ""
    side: float = 0.0


class FaceReader:
    """Reads photos with a detector, or aligned crops without one, for a model that takes `size` x `size` pixels.

    Raises:
        UserError, UsageError: the detector is none, or cannot be fetched.
    """

    def __init__(self, size: int, detector: str | Path | None = None) -> None:
        self.size = size
        self.detector = None if detector is None else Detector(detector_file(detector))

    def faces(self, data: bytes | np.ndarray) -> list[Face]:
        """Return all faces of an image, encoded or RGB uint8 (H, W, 3), the largest first; at least one, perhaps
        refused."""
        try:
            if self.detector is None:
                return [self._crop(data if isinstance(data, np.ndarray) else decode_image(data))]
            if isinstance(data, np.ndarray):
                return [Face(None, "pixels without a file, in which no face is looked for; leave out the detector")]
            found = faces_of(data, self.detector, "all", max(self.size, ALIGNED), LEAST, thorough=False)
        except (ValueError, OSError) as e:
            return [Face(None, f"cannot be read: {e}")]
        faces = []
        for one in found:
            side = 0.0 if one.box is None else float(min(one.box[2:] - one.box[:2]))
            faces.append(Face(None, one.why, side) if one.crop is None else self._judged(one.crop, side))
        return sorted(faces, key=lambda face: -face.side)

    def one_person(self, data: bytes | np.ndarray) -> list[Face]:
        """Return the one face of the only person in an image; refused if there are two."""
        first, *others = self.faces(data)
        beside = [face for face in others if face.side >= BESIDE * first.side]
        if not beside:
            return [first]
        sides = ", ".join(f"{face.side:.0f}" for face in [first, *beside])
        return [Face(None, f"{1 + len(beside)} people ({sides} pixels); crop the one who is meant", first.side)]

    def _crop(self, pixels: np.ndarray) -> Face:
        short, long = sorted(pixels.shape[:2])
        size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        if long > SQUARE * short or long > LARGEST:
            return Face(None, f"{size}: a photo, not an aligned face; find the face with --detector yunet")
        if short < self.size / 2:
            return Face(None, f"tiny: {size} for a model that takes {self.size} x {self.size}", short)
        return self._judged(pixels, short)

    def _judged(self, crop: np.ndarray, side: float) -> Face:
        """Judge an aligned face of any size; make it as large as the model takes it."""
        measured = sharpness(middle(crop))
        if measured < BLURRED and min(crop.shape[:2]) >= JUDGED:
            return Face(None, f"blurred: sharpness {measured:.1f}, less than {BLURRED:g}", side)
        return Face(resize(crop, (self.size, self.size)), "", side)
