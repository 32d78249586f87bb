"""The view `augment`: what happens to a face between a person and a file, with one number for how much of it."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from facedistill.data.degrade import shrink
from facedistill.data.transforms import blurred, covered, moved, noise, recoloured
from facedistill.data.view import ImageView, TeacherSees
from facedistill.recipe import Share

# How often each change happens. Its size is drawn between none and the largest, which is `strength` times LARGEST.
CHANCE = {
    "cover": 0.2,
    "move": 0.6,  # scale and shift
    "turn": 0.2,
    "colour": 0.6,
    "grey": 0.1,  # times the strength, because grey has no size
    "blur": 0.1,
    "shrink": 0.2,
    "noise": 0.2,
    "jpeg": 0.2,
}
LARGEST = {
    "cover": 0.3,  # of the area
    "scale": math.log(1.25),  # of the factor: enlarged, so that the borders are cut off, or smaller
    "shift": 0.1,  # of the side
    "turn": 20.0,  # degrees
    "colour": 0.5,  # brightness, contrast and saturation from 0.5 to 1.5
    "light": 0.2,  # red, green and blue each from 0.8 to 1.2
    "blur": 0.025,  # sigma, of the side
    "shrink": math.log(7),  # of the factor; the face is then enlarged again
    "noise": 16.0,  # standard deviation, of 0..255
    "jpeg": 80.0,  # quality from 100 down to 20
}


class Augment(ImageView):
    """Faces are cropped, scaled, shifted, turned, recoloured, covered, blurred, shrunk, made noisy and compressed.

    Args:
        strength: 0 changes nothing, 1 is as strong as a face bears. It multiplies the largest size of every change;
            how often a change happens stays the same (CHANCE, LARGEST).
        teacher: see ImageView.
    """

    changed = "augmented"

    def __init__(self, strength: Share = 0.5, teacher: TeacherSees = "clean") -> None:
        super().__init__(teacher)
        self.strength = strength

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.strength:
            return image
        happens = {name: draw < CHANCE[name] for name, draw in zip(CHANCE, rng.random(len(CHANCE)).tolist())}
        happens["grey"] = happens["grey"] and rng.random() < self.strength
        if happens["cover"]:
            image = self._covered(image, rng)
        picture = self._moved(image, happens, rng)
        if happens["colour"] or happens["grey"]:
            picture = self._recoloured(picture, happens, rng)
        if happens["blur"]:
            picture = blurred(picture, self._size("blur", rng) * min(picture.size))
        if happens["shrink"] or happens["noise"] or happens["jpeg"]:
            return self._stored(picture, happens, rng)
        return np.asarray(picture)

    def _size(self, name: str, rng: np.random.Generator) -> float:
        """Return a size between 0 and the largest."""
        return self.strength * LARGEST[name] * rng.random()

    def _sizes(self, names: Sequence[str], rng: np.random.Generator) -> list[float]:
        """Return sizes between the largest and its negative."""
        draws = rng.random(len(names)).tolist()
        return [self.strength * LARGEST[name] * (2 * draw - 1) for name, draw in zip(names, draws, strict=True)]

    def _covered(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        ratio, *place = rng.random(3).tolist()
        return covered(image, self._size("cover", rng), 3 ** (ratio - 0.5), place, rng.integers(256, size=3))

    def _moved(self, image: np.ndarray, happens: dict[str, bool], rng: np.random.Generator) -> Image.Image:
        if not (happens["move"] or happens["turn"]):
            return Image.fromarray(image)
        turn, scale, across, down = self._sizes(("turn", "scale", "shift", "shift"), rng)
        side = min(image.shape[:2])
        if not happens["turn"]:
            return moved(image, 0.0, math.exp(scale), across * side, down * side)
        if not happens["move"]:
            return moved(image, turn)
        return moved(image, turn, math.exp(scale), across * side, down * side)

    def _recoloured(self, picture: Image.Image, happens: dict[str, bool], rng: np.random.Generator) -> Image.Image:
        if not happens["colour"]:
            return recoloured(picture, saturation=0.0)
        sizes = self._sizes((*["colour"] * 3, *["light"] * 3), rng)
        brightness, contrast, saturation, *light = (1 + size for size in sizes)
        return recoloured(picture, brightness, contrast, 0.0 if happens["grey"] else saturation, light)

    def _stored(self, picture: Image.Image, happens: dict[str, bool], rng: np.random.Generator) -> np.ndarray:
        """Return the picture as a camera of few pixels takes it and a file keeps it."""
        width, height = picture.size
        smaller = math.exp(self._size("shrink", rng))
        side = max(1, round(min(width, height) / smaller)) if happens["shrink"] else None
        shape = (side, side, 3) if side else (height, width, 3)
        quality = round(100 - self._size("jpeg", rng)) if happens["jpeg"] else None
        grain = noise(shape, self._size("noise", rng), rng) if happens["noise"] else None
        return shrink(picture, side, 0, quality, grain)
