"""The view `augment`: what happens to a face between a person and a file, with one number for how much of it."""

import numpy as np
from PIL import Image

from facedistill.data.degrade import shrink
from facedistill.data.transforms import covered, moved, noise, recoloured
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
    "scale": 0.25,  # the face is up to 1.25 times as large, so that its borders are cut off, or as small
    "shift": 0.1,  # of the side
    "turn": 20.0,  # degrees
    "colour": 0.5,  # brightness, contrast and saturation from 0.5 to 1.5
    "light": 0.2,  # red, green and blue each from 0.8 to 1.2
    "blur": 0.025,  # sigma, of the side
    "shrink": 7.0,  # times smaller, and enlarged again
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
            ratio = 3 ** rng.uniform(-0.5, 0.5)
            share = self._size("cover", rng)
            image = covered(image, share, ratio, rng.random(2).tolist(), rng.integers(0, 256, 3, dtype=np.uint8))
        picture = self._moved(image, happens, rng)
        if happens["colour"] or happens["grey"]:
            picture = self._recoloured(picture, happens["colour"], happens["grey"], rng)
        if happens["blur"] or happens["shrink"] or happens["noise"] or happens["jpeg"]:
            return self._taken(picture, happens, rng)
        return np.asarray(picture)

    def _size(self, name: str, rng: np.random.Generator) -> float:
        return self.strength * LARGEST[name] * rng.random()

    def _moved(self, image: np.ndarray, happens: dict[str, bool], rng: np.random.Generator) -> Image.Image:
        if not (happens["move"] or happens["turn"]):
            return Image.fromarray(image)
        draws = rng.uniform(-self.strength, self.strength, 4)
        turn = LARGEST["turn"] * draws[3] if happens["turn"] else 0.0
        scale, across, down = draws[:3] if happens["move"] else np.zeros(3)
        shift = LARGEST["shift"] * min(image.shape[:2])
        return moved(image, turn, (1 + LARGEST["scale"]) ** scale, across * shift, down * shift)

    def _recoloured(self, picture: Image.Image, colour: bool, grey: bool, rng: np.random.Generator) -> Image.Image:
        draws = rng.uniform(-self.strength, self.strength, 6) if colour else np.zeros(6)
        brightness, contrast, saturation = (1 + LARGEST["colour"] * draws[:3]).tolist()
        light = (1 + LARGEST["light"] * draws[3:]).tolist()
        return recoloured(picture, brightness, contrast, 0.0 if grey else saturation, light)

    def _taken(self, picture: Image.Image, happens: dict[str, bool], rng: np.random.Generator) -> np.ndarray:
        """Return the picture as a camera of few pixels takes it and a file keeps it."""
        width, height = picture.size
        smaller = LARGEST["shrink"] ** (self.strength * rng.random())
        side = max(1, round(min(width, height) / smaller)) if happens["shrink"] else None
        shape = (side, side, 3) if side else (height, width, 3)
        return shrink(
            picture,
            side,
            self._size("blur", rng) * min(width, height) if happens["blur"] else 0,
            round(100 - self._size("jpeg", rng)) if happens["jpeg"] else None,
            noise(shape, self._size("noise", rng), rng) if happens["noise"] else None,
        )
