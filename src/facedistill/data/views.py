"""The registry of views, and mixup."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from facedistill.data.augment import Augment
from facedistill.data.batch import Batch
from facedistill.data.low_resolution import Degrade
from facedistill.data.published_views import AdaFaceAugment, CVLfaceAugment
from facedistill.data.view import Same, View
from facedistill.recipe import Positive, build, find


class Mixup(View):
    """Both networks see mixed pairs of images, see `mixup`."""

    takes_features = True
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
    several = None if batch.multi_hot is None else mix(batch.multi_hot)
    return replace(batch, images=images, teacher_images=teacher_images, targets=own + other, multi_hot=several)


VIEWS: dict[str, type[View]] = {
    "same": Same,
    "mixup": Mixup,
    "degrade": Degrade,
    "augment": Augment,
    "adaface": AdaFaceAugment,
    "cvlface": CVLfaceAugment,
}


def make_view(kind: str, /, **options: object) -> View:
    """Return the view of that name. Raises UsageError for an unknown name or an option that does not fit."""
    return build(find(VIEWS, kind, "view", View), options, f"view '{kind}'")
