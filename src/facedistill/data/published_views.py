"""Augmentations as published with face-recognition models, by name: reconstructions from the authors' code.

Both mirror half of the images too; here the sampler does, because a teacher's cache holds the mirror images. The
authors enlarge and shrink by OpenCV, which does not average when it shrinks, but for one of its five filters; Pillow
always does.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from facedistill.data.transforms import covered
from facedistill.data.view import ImageView

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
FILTERS = [
    *(Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BOX),
    *(Image.Resampling.BICUBIC, Image.Resampling.LANCZOS),
]
COLOUR = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
ENHANCED = [*COLOUR, ImageEnhance.Sharpness]


def windowed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the picture, black but for a rectangle of 20 to 100% of its area; sides 3:4 to 4:3, in place.

    Ten tries, as torchvision's RandomResizedCrop has; if none fits, the picture stays as it is.
    """
    width, height = picture.size
    for _ in range(10):
        area = width * height * rng.uniform(0.2, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
            window = (left, top, left + wide, top + high)
            found = Image.new("RGB", picture.size)
            found.paste(picture.crop(window), window)
            return found
    return picture


def shrunk(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the picture shrunk to 20 to 100% of its side and enlarged again, each by one of five filters."""
    side = max(1, int(rng.uniform(0.2, 1.0) * picture.height))
    first, second = rng.integers(len(FILTERS), size=2)
    return picture.resize((side, side), FILTERS[first]).resize(picture.size, FILTERS[second])


def recoloured(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the picture with brightness, contrast and saturation times 0.5 to 1.5, in any order (ColorJitter)."""
    factors = rng.uniform(0.5, 1.5, len(COLOUR))
    for i in rng.permutation(len(COLOUR)):
        picture = COLOUR[i](picture).enhance(float(factors[i]))
    return picture


class AdaFaceAugment(ImageView):
    """AdaFace's (arXiv 2204.00964; CVLface's `basic_v1` is the same): window, low resolution, colour, each for 20%."""

    changed = "augmented"
    changes: tuple[Change, ...] = (windowed, shrunk, recoloured)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        happens = rng.random(len(self.changes)) < 0.2
        picture = Image.fromarray(image)
        for change in (change for change, so in zip(self.changes, happens) if so):
            picture = change(picture, rng)
        return np.asarray(picture)


class CVLfaceAugment(ImageView):
    """CVLface's `gridsample_v1`: scaled, shifted and turned, covered (20%), blurred (20%), and recoloured twice."""

    changed = "augmented"

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        picture = _placed(Image.fromarray(image), rng)
        if rng.random() < 0.2:
            picture = _holes(picture, rng) if rng.random() < 0.05 else windowed(picture, rng)
        if rng.random() < 0.2:
            picture = _blurred(picture, rng)
        for _ in range(2):
            picture = _rand_augmented(picture, rng)
        return np.asarray(picture)


def _placed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Scale 0.8 to 1.2; shift as far as that leaves room, and up to 10% more; turn a fifth by up to 20 degrees."""
    width, height = picture.size
    scale = rng.uniform(0.8, 1.2)
    reach = 1 - scale + rng.uniform(0, 0.1) * scale  # of half the side
    x, y = rng.choice([-1, 1], 2) * rng.random(2) * reach * (width / 2, height / 2)
    angle = np.deg2rad(rng.uniform(-20, 20)) if rng.random() < 0.2 else 0.0
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    x, y = x - width / 2, y - height / 2  # the shift comes first, from there to the source
    to_source = (cos, -sin, width / 2 + cos * x - sin * y, sin, cos, height / 2 + sin * x + cos * y)
    return picture.transform(picture.size, Image.Transform.AFFINE, to_source, Image.Resampling.BILINEAR)


def _holes(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """12 to 20 black squares of 16 pixels of 112 (CoarseDropout)."""
    image, black = np.asarray(picture), np.zeros(3, np.uint8)
    for place in rng.random((int(rng.integers(12, 21)), 2)):
        image = covered(image, (16 / 112) ** 2, 1.0, place.tolist(), black)
    return Image.fromarray(image)


def _blurred(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Low resolution in eight of ten cases; a mean over up to 9 pixels, or a Gaussian up to sigma 4, in the others."""
    kind = int(rng.integers(10))
    if kind == 0:
        return picture.filter(ImageFilter.BoxBlur((int(rng.integers(1, 10)) - 1) / 2))
    return picture.filter(ImageFilter.GaussianBlur(4 * rng.random())) if kind == 1 else shrunk(picture, rng)


def _rand_augmented(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the picture with its brightness, contrast, saturation or sharpness changed by 15 to 66%, or as it is.

    Histogram equalisation and grey are two further choices; each time they are drawn, up to twice, all are drawn again.
    """
    choices = 1 + len(ENHANCED) + 2
    draws = rng.integers(choices, size=3).tolist()
    kind = next((draw for draw in draws[:2] if draw <= len(ENHANCED)), draws[2])
    factor = 1 + rng.choice([-1, 1]) * 0.03 * rng.integers(5, 23)
    if kind == 0:
        return picture
    if kind <= len(ENHANCED):
        return ENHANCED[kind - 1](picture).enhance(float(factor))
    return ImageOps.equalize(picture) if kind == choices - 1 else picture.convert("L").convert("RGB")
