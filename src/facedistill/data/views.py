"""Views change a batch's images before the networks see them."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from facedistill.data.batch import Batch
from facedistill.recipe import Positive, build, find


class View:
    """A function Batch -> Batch on pixels. The signature of __init__ is the schema of its options in a recipe.

    Attributes:
        teacher_sees: words for a message that name the changed images of the teacher, e.g. "the mixed images". The
            teacher must then be a network and runs at every step, because the cache holds outputs of unchanged images.
            Empty if the teacher sees unchanged images.
        rules_out: the values of moved_by ("nothing", "gradient" or "teacher") that do not work with this view, each
            with the message that says why.
    """

    teacher_sees: ClassVar[str] = ""
    rules_out: ClassVar[Mapping[str, str]] = {}

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return the changed batch. It depends on the arguments alone, so a resumed run sees the same images."""
        raise NotImplementedError


class Same(View):
    """Both networks see unchanged images."""

    def __call__(self, batch: Batch, seed: int) -> Batch:
        return batch


class Mixup(View):
    """Both networks see mixed images: see `mixup`."""

    teacher_sees = "the mixed images"
    rules_out: ClassVar[Mapping[str, str]] = {
        "teacher": "a W that the teacher moves cannot follow mixed images; set method.view.kind=same"
    }

    def __init__(self, alpha: Positive = 0.2) -> None:
        self.alpha = alpha

    def __call__(self, batch: Batch, seed: int) -> Batch:
        return mixup(batch, self.alpha, seed)


def mixup(batch: Batch, alpha: float, seed: int) -> Batch:
    """Mix neighbours in the batch, the first with the second and so on, and their targets likewise (arXiv 1710.09412).

    x~_i = lam x_i + (1 - lam) x_j, y~_i = lam y_i + (1 - lam) y_j, lam = max(l, 1 - l), l ~ Beta(alpha, alpha). The
    image's own share is the larger one, and its own label is the first target. There is one lam per batch, a function
    of seed and progress alone: a resumed run draws the same. The pairs too are the same in any number of processes if
    each has an even number of images. If the number is odd, the last image is not mixed.
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


def make_view(kind: str, /, **options: object) -> View:
    """Return the view of that name. Raises UsageError for an unknown name or an option that does not fit."""
    return build(find(VIEWS, kind, "view", View), options, f"view '{kind}'")
