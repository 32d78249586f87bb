"""Views: what is done to a batch's images before the networks see them."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from facedistill.data.batch import Batch
from facedistill.recipe import Positive, build, find


class View:
    """Batch -> Batch, on pixels. The signature of a view's __init__ is the schema of its options in a recipe.

    Attributes:
        teacher_sees: what the teacher sees that is not an image of the data set, in words for a message, e.g. "the
            mixed images". Then the teacher must be a network and runs at every step, because cached outputs are those
            of the images as they are. Empty: the teacher sees the images as they are.
        rules_out: what may not move W beside this view ("nothing", "gradient" or "teacher"), and the message that says
            why.
    """

    teacher_sees: ClassVar[str] = ""
    rules_out: ClassVar[Mapping[str, str]] = {}

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return what the networks see. A function of its arguments alone: a resumed run sees the same."""
        raise NotImplementedError


class Same(View):
    """Both networks see the images as they are."""

    def __call__(self, batch: Batch, seed: int) -> Batch:
        return batch


class Mixup(View):
    """Both networks see mixed images, see `mixup`."""

    teacher_sees = "the mixed images"
    rules_out: ClassVar[Mapping[str, str]] = {
        "teacher": "a W that the teacher moves cannot follow mixed images; set method.view.kind=same"
    }

    def __init__(self, alpha: Positive = 0.2) -> None:
        self.alpha = alpha

    def __call__(self, batch: Batch, seed: int) -> Batch:
        return mixup(batch, self.alpha, seed)


def mixup(batch: Batch, alpha: float, seed: int) -> Batch:
    """Mix neighbours in the batch, the first with the second and so on, and their targets alike (arXiv 1710.09412).

    x~_i = lam x_i + (1 - lam) x_j, y~_i = lam y_i + (1 - lam) y_j, lam = max(l, 1 - l), l ~ Beta(alpha, alpha): the
    larger share is the image's own, and its label the first of the targets. One lam a batch, a function of seed and
    progress alone: it is the same after a resume, and with the pairs the same in any number of processes whose slices
    are even. The last of an odd number of images stays as it is.
    """
    share = random.Random(f"{seed} {batch.progress}").betavariate(alpha, alpha)
    share = max(share, 1 - share)
    places = torch.arange(len(batch.images), device=batch.images.device)
    partner = (places ^ 1).clamp_max(len(places) - 1)

    def mix(images: Tensor) -> Tensor:
        return share * images + (1 - share) * images[partner]

    images = mix(batch.images)
    teacher_images = images if batch.teacher_images is batch.images else mix(batch.teacher_images)
    own = [(labels, weight * share) for labels, weight in batch.targets]
    other = [(labels[partner], weight * (1 - share)) for labels, weight in batch.targets]
    return replace(batch, images=images, teacher_images=teacher_images, targets=own + other)


VIEWS: dict[str, type[View]] = {"same": Same, "mixup": Mixup}


def make_view(kind: str, **options: object) -> View:
    """Return the view of that name. Raises UsageError for an unknown name or an option that does not fit."""
    return build(find(VIEWS, kind, "view", View), options, f"view '{kind}'")
