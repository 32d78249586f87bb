"""How sharp an aligned face is."""

import numpy as np

from facedistill.data.decode import resize

SIDE = 112  # pixels at which sharpness is measured, whatever the image's size
GREY = np.array([0.299, 0.587, 0.114])  # the weights of red, green and blue


def sharpness(crop: np.ndarray) -> float:
    """Return the standard deviation of the Laplacian of an aligned crop, uint8 (H, W, 3), in grey at 112 x 112.

    Below 5 a face is blurred. The border, which may be black, does not count.
    """
    inner = (resize(crop, (SIDE, SIDE)) @ GREY)[16:-16, 16:-16]
    laplacian = inner[:-2, 1:-1] + inner[2:, 1:-1] + inner[1:-1, :-2] + inner[1:-1, 2:] - 4 * inner[1:-1, 1:-1]
    return float(laplacian.std())
