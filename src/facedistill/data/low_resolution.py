"""The view `degrade`: the student sees faces as a far camera gives them, the teacher sees them as they are."""

from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from facedistill.data.batch import Batch, paired
from facedistill.data.degrade import shrink
from facedistill.data.transforms import moved, noise
from facedistill.data.view import ImageView, TeacherSees
from facedistill.errors import UsageError
from facedistill.recipe import Count, Rate, Share

Quality = Annotated[int, Field(ge=1, le=100)]


class Degrade(ImageView):
    """Most images are moved as by a coarse detector, blurred, shrunk, made noisy, compressed, and enlarged again.

    Each is bicubic and averages when it shrinks, as `evaluate --resolution` does.

    Args:
        smallest, largest: of the side in pixels; drawn with equal chance for each factor (log-uniform). `largest` is
            at most the image's own.
        clean: the share of images that stay as they are, so that the student does not forget full resolution.
        blur: up to this sigma, in pixels of the original. noise: up to this standard deviation, of 0..255.
        jpeg: down to this quality of the small image; null for no compression.
        shift: up to this share of the side. rotate: up to so many degrees.
        teacher: see ImageView.
        pairs: the batch becomes twice as long: each image as it is, and after it the degraded one.
    """

    changed = "degraded"

    def __init__(
        self,
        smallest: Count = 8,
        largest: Count = 56,
        clean: Share = 0.2,
        blur: Rate = 1.0,
        noise: Rate = 4.0,
        jpeg: Quality | None = 50,
        shift: Share = 0.03,
        rotate: Rate = 4.0,
        teacher: TeacherSees = "clean",
        pairs: bool = False,
    ) -> None:
        super().__init__(teacher)
        if smallest > largest:
            raise UsageError(f"view 'degrade': smallest {smallest} is above largest {largest}")
        self.smallest, self.largest, self.clean = smallest, largest, clean
        self.blur, self.noise, self.jpeg, self.shift, self.rotate = blur, noise, jpeg, shift, rotate
        self.pairs = pairs

    @property
    def by_image(self) -> bool:
        return not self.pairs  # pairs are made of a batch

    def __call__(self, batch: Batch, seed: int) -> Batch:
        degraded = super().__call__(batch, seed)
        return paired(batch, degraded) if self.pairs else degraded

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < self.clean:
            return image
        height, width = image.shape[:2]
        largest = min(self.largest, height, width)
        side = round(np.exp(rng.uniform(np.log(min(self.smallest, largest)), np.log(largest))))
        angle = rng.uniform(-self.rotate, self.rotate)
        across, down = rng.uniform(-self.shift, self.shift, 2) * (width, height)
        face = moved(image, angle, 1.0, across, down, Image.Resampling.BICUBIC)
        quality = None if self.jpeg is None else int(rng.integers(self.jpeg, 101))
        grain = noise((side, side, 3), rng.uniform(0, self.noise), rng) if self.noise else None
        return shrink(face, side, rng.uniform(0, self.blur), quality, grain)
