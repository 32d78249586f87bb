"""The view `degrade`: the student sees faces as a far camera gives them, the teacher sees them as they are."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from facedistill.data.batch import Batch, paired
from facedistill.data.degrade import shrink
from facedistill.data.view import View
from facedistill.errors import UsageError
from facedistill.recipe import Count, Rate, Share

Quality = Annotated[int, Field(ge=1, le=100)]


class Degrade(View):
    """Most images are moved as by a coarse detector, blurred, shrunk, made noisy, compressed, and enlarged again.

    Each is bicubic and averages when it shrinks, as `evaluate --resolution` does. What happens to an image depends on
    the seed, the image and the progress of training alone, so neither a resume nor the number of processes matters.

    Args:
        smallest, largest: of the side in pixels; drawn with equal chance for each factor (log-uniform). `largest` is
            at most the image's own.
        clean: the share of images that stay as they are, so that the student does not forget full resolution.
        blur: up to this sigma, in pixels of the original. noise: up to this standard deviation, of 0..255.
        jpeg: down to this quality of the small image; null for no compression.
        shift: up to this share of the side. rotate: up to so many degrees.
        teacher: what the teacher sees: "clean" images (its cached embeddings stay valid), or the "same" as the student.
        pairs: the batch becomes twice as long: each image as it is, and after it the degraded one.
    """

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
        teacher: Literal["clean", "same"] = "clean",
        pairs: bool = False,
    ) -> None:
        if smallest > largest:
            raise UsageError(f"view 'degrade': smallest {smallest} is above largest {largest}")
        self.smallest, self.largest, self.clean = smallest, largest, clean
        self.blur, self.noise, self.jpeg, self.shift, self.rotate = blur, noise, jpeg, shift, rotate
        self.teacher_sees = "the degraded images" if teacher == "same" else ""
        self.pairs = pairs

    def __call__(self, batch: Batch, seed: int) -> Batch:
        moment = int(batch.progress * 2**40)
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
        degraded = [
            self.degraded(image, np.random.default_rng([seed, moment, *where]))
            for image, where in zip(images, batch.index.tolist(), strict=True)
        ]
        found = torch.from_numpy(np.stack(degraded)).permute(0, 3, 1, 2).to(batch.images.device)
        changed = replace(batch, images=found, teacher_images=found if self.teacher_sees else batch.teacher_images)
        return paired(batch, changed) if self.pairs else changed

    def degraded(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image, uint8 (H, W, 3), degraded as `rng` draws."""
        if rng.random() < self.clean:
            return image
        largest = min(self.largest, *image.shape[:2])
        side = round(np.exp(rng.uniform(np.log(min(self.smallest, largest)), np.log(largest))))
        moved = self._moved(image, rng)
        quality = None if self.jpeg is None else int(rng.integers(self.jpeg, 101))
        noise = rng.normal(0, rng.uniform(0, self.noise), (side, side, 3)) if self.noise else None
        return shrink(Image.fromarray(moved), side, rng.uniform(0, self.blur), quality, noise)

    def _moved(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Turn and shift the image; what comes in from outside repeats its edge."""
        height, width = image.shape[:2]
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
        across, down = rng.uniform(-self.shift, self.shift, 2) * (width, height)
        margin = int(np.ceil(max(height, width) * (self.shift + np.sin(np.deg2rad(min(self.rotate, 90)))))) + 1
        padded = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = (width - 1) / 2, (height - 1) / 2  # the middle stays, but for the shift
        to_source = (
            *(cos, sin, margin + x - cos * x - sin * y + across),
            *(-sin, cos, margin + y + sin * x - cos * y + down),
        )
        size = (width, height)
        return np.asarray(padded.transform(size, Image.Transform.AFFINE, to_source, Image.Resampling.BICUBIC))
