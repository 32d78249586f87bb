"""Views: what is done to a batch's images before the networks see them."""

import random
from dataclasses import replace

import torch
from torch import Tensor

from facedistill.data.batch import Batch


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
