"""Alignment: move a face by its five landmarks to where the field's networks expect it in 112 x 112 pixels."""

import numpy as np
import torch
from torch.nn.functional import grid_sample

# The eyes (left and right as seen), nose and mouth corners in ArcFace's training images: (x, y) in 112 x 112 pixels,
# with whole numbers at pixel centres.
TEMPLATE_SIZE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def align(pixels: np.ndarray, points: np.ndarray, size: int = TEMPLATE_SIZE) -> np.ndarray:
    """Move the face whose landmarks are `points` onto the template: uint8 (H, W, 3) -> uint8 (size, size, 3).

    Bilinear; black outside the image. `points` (5, 2): x, y in pixels, whole numbers at pixel centres.
    Raises ValueError for landmarks that determine no transform.
    """
    return warp(pixels, similarity(points, TEMPLATE * (size / TEMPLATE_SIZE)), size)


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the scaling, rotation and shift, without reflection, that moves `points` nearest to `target`.

    Nearest in the sense of least squares.

    Args:
        points, target: (K, 2), K at least 2.

    Returns:
        float64 (2, 3): target is about M[:, :2] @ point + M[:, 2].

    Raises:
        ValueError: no such transform has an inverse, e.g. because all points coincide or some are not finite.
    """
    # As complex numbers a scaling with a rotation is one factor, and least squares one division. It is the optimum
    # that Umeyama (1991) finds by a singular value decomposition in any dimension.
    with np.errstate(all="ignore"):
        z, w = (np.asarray(p, np.float64) @ [1, 1j] for p in (points, target))
        spread = z - z.mean()
        factor = np.vdot(spread, w) / np.vdot(spread, spread).real
        if not np.isfinite(1 / factor):
            raise ValueError(f"no face has such landmarks: {np.round(points, 1).tolist()}")
    shift = w.mean() - factor * z.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def warp(pixels: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """Apply `transform` (2, 3) to uint8 (H, W, 3): the pixel at (x, y) moves to `transform` @ (x, y, 1).

    Like cv2.warpAffine with its defaults, except that cv2 rounds coordinates to 1/32 pixel. Pillow's transform is no
    substitute: it counts from pixel corners, repeats the image's edge, and rounds brightness down.
    """
    back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
    place = np.arange(size)
    x, y = (row[0] * place + (row[1] * place + row[2])[:, None] for row in back)  # where each pixel comes from
    # Convert only the part of a large photo that is needed.
    height, width = pixels.shape[:2]
    left, right = np.clip([np.floor(x.min()), np.floor(x.max()) + 2], 0, width).astype(int)
    top, bottom = np.clip([np.floor(y.min()), np.floor(y.max()) + 2], 0, height).astype(int)
    part = torch.from_numpy(pixels[top:bottom, left:right].astype(np.float32)).permute(2, 0, 1)
    if not part.numel():
        return np.zeros((size, size, pixels.shape[2]), np.uint8)
    # The unit of grid_sample is half of the image, and its zero is the middle.
    scaled = [(2 * (x - left) + 1) / (right - left) - 1, (2 * (y - top) + 1) / (bottom - top) - 1]
    grid = torch.from_numpy(np.stack(scaled, axis=-1).astype(np.float32))
    moved = grid_sample(part[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    return moved.round().to(torch.uint8).permute(1, 2, 0).numpy()
