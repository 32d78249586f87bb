"""Changes of one image: moved, turned and scaled, recoloured, covered; and noise. Images are uint8 RGB (H, W, 3)."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601: the brightness of red, green and blue
NOISE = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32)


def moved(
    image: np.ndarray,
    angle: float = 0.0,
    scale: float = 1.0,
    across: float = 0.0,
    down: float = 0.0,
    filter: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Return the image turned and scaled about its middle, then shifted. What comes in from outside repeats the edge.

    Args:
        angle: degrees, counter-clockwise. scale: above 1 enlarges the face, so that the borders are cut off.
        across, down: pixels to the left and upwards.
        filter: how pixels between pixels are made.
    """
    height, width = image.shape[:2]
    cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    x, y = width / 2, height / 2
    wide, high = abs(cos) * x + abs(sin) * y, abs(sin) * x + abs(cos) * y  # half of what is seen of the source
    reach = max(wide + abs(across) - x, high + abs(down) - y, 0)
    margin = math.ceil(reach) + 2  # a bicubic filter reads two pixels more
    padded = Image.fromarray(_padded(image, margin))
    x_source, y_source = margin + x + across, margin + y + down
    if not angle:  # a third of the time
        box = (x_source - wide, y_source - high, x_source + wide, y_source + high)
        return padded.resize((width, height), filter, box)
    to_source = (cos, sin, x_source - cos * x - sin * y, -sin, cos, y_source + sin * x - cos * y)
    return padded.transform((width, height), Image.Transform.AFFINE, to_source, filter)


def _padded(image: np.ndarray, margin: int) -> np.ndarray:
    """Return np.pad(..., mode="edge") of height and width, four times as fast."""
    height, width, channels = image.shape
    padded = np.empty((height + 2 * margin, width + 2 * margin, channels), np.uint8)
    inside = padded[margin:-margin]
    inside[:, margin:-margin] = image
    inside[:, :margin], inside[:, -margin:] = image[:, :1], image[:, -1:]
    padded[:margin], padded[-margin:] = inside[:1], inside[-1:]
    return padded


def recoloured(
    image: Image.Image,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    gains: Sequence[float] = (1.0, 1.0, 1.0),
) -> Image.Image:
    """Return the image in other light. 1 leaves everything as it is.

    Args:
        brightness, contrast, saturation: factors; contrast is about middle grey, and saturation 0 makes the image grey.
        gains: factors of red, green and blue, for coloured light.
    """
    matrix: list[float] = []  # plain numbers: numpy needs as long for this as Pillow for all pixels
    for row, gain in enumerate(gains):
        by = brightness * contrast * gain
        matrix += [by * ((1 - saturation) * luma + saturation * (row == column)) for column, luma in enumerate(LUMA)]
        matrix.append(brightness * 127.5 * (1 - contrast))
    return image.convert("RGB", tuple(matrix))


def blurred(image: Image.Image, sigma: float) -> Image.Image:
    """Return the mean over a square whose standard deviation is `sigma` pixels: a third of a Gaussian filter's time."""
    return image.filter(ImageFilter.BoxBlur((math.sqrt(12 * sigma**2 + 1) - 1) / 2))


def noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of standard deviation `sigma`, float32.

    It is a stretch of a table, from a place that `rng` draws: many times as fast as drawing every value.
    """
    count = int(np.prod(shape))
    table = NOISE if count < len(NOISE) else np.tile(NOISE, count // len(NOISE) + 1)
    place = int(rng.integers(len(table) - count + 1))
    return table[place : place + count].reshape(shape) * np.float32(sigma)


def covered(image: np.ndarray, share: float, ratio: float, place: Sequence[float], colour: np.ndarray) -> np.ndarray:
    """Return the image with a rectangle of `colour` in it (random erasing, arXiv 1708.04896).

    Args:
        share: of the image's area. ratio: height over width of the rectangle. place: of its middle, 0..1 across and
            down; a part of it may lie outside.
    """
    height, width = image.shape[:2]
    high, wide = np.sqrt(share * height * width * ratio), np.sqrt(share * height * width / ratio)
    left, top = place[0] * width - wide / 2, place[1] * height - high / 2
    found = image.copy()
    found[max(0, round(top)) : max(0, round(top + high)), max(0, round(left)) : max(0, round(left + wide))] = colour
    return found
