"""The interface of views: functions that change images before the networks see them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from facedistill.data.batch import Batch
from facedistill.data.dataset import ImageBatch
from facedistill.errors import UserError

TeacherSees = Literal["clean", "same"]


class View:
    """A function Batch -> Batch on pixels. The signature of __init__ is the schema of its options in a recipe.

    Attributes:
        teacher_sees: words for a message that name the changed images of the teacher, e.g. "the mixed images". The
            teacher must then be a network and runs at every step, because the cache holds outputs of unchanged images.
            Empty if the teacher sees unchanged images.
        rules_out: the values of moved_by ("nothing", "gradient" or "teacher") that do not work with this view, each
            with the message that says why.
        takes_features: True if it can change, or leave, vectors of features as well as images.
    """

    takes_features: ClassVar[bool] = False
    teacher_sees: str = ""
    rules_out: ClassVar[Mapping[str, str]] = {}

    @property
    def by_image(self) -> bool:
        """True if it changes each image by itself, so that training leaves it to the processes that decode (`seen`)."""
        return False

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image, see ImageView."""
        raise NotImplementedError

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return the changed batch. It depends on the arguments alone, so a resumed run sees the same images."""
        raise NotImplementedError


class Same(View):
    """Both networks see unchanged images."""

    takes_features = True

    def __call__(self, batch: Batch, seed: int) -> Batch:
        return batch


class ImageView(View):
    """A view that changes each image by itself; subclasses define `image`.

    Args:
        teacher: what the teacher sees: "clean" images (its cached embeddings stay valid), or the "same" as the student,
            changed in the same way; its network then runs at every step.
    """

    changed: ClassVar[str] = "changed"

    def __init__(self, teacher: TeacherSees = "clean") -> None:
        self.teacher_sees = f"the {self.changed} images" if teacher == "same" else ""

    @property
    def by_image(self) -> bool:
        return True

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image, uint8 (H, W, 3), RGB. It depends on the arguments alone; `image` stays as it is.

        Args:
            rng: a generator of its own for each image and moment. So neither a resume nor the number of processes nor
                the other images of the batch matter.
        """
        raise NotImplementedError

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return the batch with changed images, drawn anew for each value of its progress. Training calls `seen`."""
        moment = int(batch.progress * 2**40)
        pixels = batch.images.to("cpu", torch.uint8)
        found = _changed(self, pixels, [[seed, moment, *where] for where in batch.index.tolist()])
        found = found.to(batch.images.device)
        return replace(batch, images=found, teacher_images=found if self.teacher_sees else batch.teacher_images)


def seen(view: View, images: ImageBatch, seed: int, epoch: int, turns: np.ndarray) -> ImageBatch:
    """Return the batch with each image as a view by image shows it, as a function of (seed, epoch, image, turn).

    Args:
        turns: how many times each image has come before in the epoch: it looks different each time.

    Raises:
        UserError: the view fails, or returns something other than an image of the same size.
    """
    numbers = images.index[:, 0].tolist()
    seeds = [[seed, epoch, number, turn] for number, turn in zip(numbers, turns.tolist(), strict=True)]
    shown = _changed(view, images.images, seeds)
    return replace(images, images=shown if view.teacher_sees else images.images, shown=shown)


def _changed(view: View, images: Tensor, seeds: list[list[int]]) -> Tensor:
    """Return the images, uint8 (B, 3, H, W), each changed by the view with a generator of its own seed."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    shown = np.empty(tuple(images.shape), np.uint8)
    for place, numbers in enumerate(seeds):
        shown[place] = _image(view, pixels[place], np.random.default_rng(numbers)).transpose(2, 0, 1)
    return torch.from_numpy(shown)


def _image(view: View, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what the view makes of an image. The view may be a user's, and run in another process."""
    name = type(view).__name__
    try:
        found = view.image(image, rng)
    except Exception as e:
        raise UserError(f"view {name}: {type(e).__name__}: {e}") from e
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != image.shape:
        what = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise UserError(f"view {name}: `image` returned {what}; expected uint8 of shape {image.shape}, as it was given")
    return found
