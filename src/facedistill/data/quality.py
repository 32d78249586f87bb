"""How sharp an aligned face is."""

import numpy as np

from facedistill.data.decode import resize

SIDE = 112  # pixels at which a face is judged, whatever the image's size
GREY = np.array([0.299, 0.587, 0.114])  # the weights of red, green and blue


def middle(crop: np.ndarray) -> np.ndarray:
    """Return an aligned crop, uint8 (H, W, 3), in grey at 112 x 112 without its border, which may be black."""
    return (resize(crop, (SIDE, SIDE)) @ GREY)[16:-16, 16:-16]


def sharpness(inner: np.ndarray) -> float:
    """Return the standard deviation of the Laplacian of what `middle` gives; below 5 a face is blurred."""
    laplacian = inner[:-2, 1:-1] + inner[2:, 1:-1] + inner[1:-1, :-2] + inner[1:-1, 2:] - 4 * inner[1:-1, 1:-1]
    return float(laplacian.std())
