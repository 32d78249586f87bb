"""The input of a training step, and the output of a network."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """One step's images on the training device.

    Attributes:
        images: uint8 (B, 3, H, W), RGB 0..255, for the student; or features, float32 (B, d).
        teacher_images: the images for the teacher: the same tensor, unless a view made two of it.
        targets: [(rows of W int64 (B,), weight)]; more than one entry if images were mixed.
        index: int64 (B, 2), sample number and flip: the key of cached teacher outputs.
        progress: 0..1 of the whole schedule.
        labels: int64 (B,), the class of each image. If every image has its own row of W, the row's number differs.
        multi_hot: float32 (B, L), 1 for each label of an image, if it may have several; shares after mixup.
    """

    images: Tensor
    teacher_images: Tensor
    targets: list[tuple[Tensor, float]]
    index: Tensor
    progress: float
    labels: Tensor
    multi_hot: Tensor | None = None


def paired(first: Batch, second: Batch) -> Batch:
    """Return the batch of the first image of `first`, the first of `second`, the second of `first` and so on.

    Both are of the same moment and as long as each other.
    """

    def alternate(own: Tensor, other: Tensor) -> Tensor:
        return torch.stack([own, other], 1).flatten(0, 1)

    return Batch(
        alternate(first.images, second.images),
        alternate(first.teacher_images, second.teacher_images),
        [(alternate(own, other), w) for (own, w), (other, _) in zip(first.targets, second.targets, strict=True)],
        alternate(first.index, second.index),
        first.progress,
        alternate(first.labels, second.labels),
        None if first.multi_hot is None or second.multi_hot is None else alternate(first.multi_hot, second.multi_hot),
    )


@dataclass
class Output:
    """The output of a network: `embedding` (B, d) raw, stage maps if asked for, and parts of a composed student."""

    embedding: Tensor
    features: tuple[Tensor, ...] = ()
    parts: dict[str, Any] = field(default_factory=dict)
