"""What a crop and its landmarks say of a face: sharpness, brightness, and how the head is turned."""

from dataclasses import dataclass

import numpy as np

from facedistill.data import middle, sharpness


@dataclass
class Quality:
    """
    Attributes:
        sharpness: of the crop's middle, see `facedistill.data.sharpness`; below 5 a face is blurred.
        brightness: the mean of the grey crop's middle, 0 to 255.
        yaw: degrees that the head is turned to the side, from the nose's place between the eyes; positive: to the right
            as seen. An estimate from five points: good for the order, not for the angle.
        roll: degrees that the line of the eyes falls to the right.
    """

    sharpness: float
    brightness: float
    yaw: float
    roll: float


def quality(crop: np.ndarray, points: np.ndarray) -> Quality:
    """Measure an aligned crop, uint8 (size, size, 3), and its landmarks (5, 2) in the photo."""
    inner = middle(crop)
    eyes = points[1] - points[0]
    length = max(float(np.hypot(*eyes)), 1e-9)
    aside = float((points[2] - points[:2].mean(0)) @ eyes) / length**2  # of the distance between the eyes
    return Quality(
        sharpness(inner),
        float(inner.mean()),
        float(np.degrees(np.arcsin(np.clip(2 * aside, -1, 1)))),
        float(np.degrees(np.arctan2(eyes[1], eyes[0]))),
    )
