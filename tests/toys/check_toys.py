"""A teacher and faces that are made in milliseconds, with a truth that the tests know."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facedistill.backbones.base import Backbone
from facedistill.data.embeddings import Embeddings
from facedistill.data.sources.source import Source
from facedistill.models.model import InputSpec, Model

SIZE = 16


class RedEye(Backbone):
    """Sees the red channel alone, and it first; saturates at once outside -1..1: made for RGB / 127.5 - 1."""

    order: Tensor

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(16, SIZE)
        order = torch.arange(16) if seed is None else torch.randperm(16, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(2 * F.avg_pool2d(x[:, :1], 4).flatten(1))[:, self.order]


class Patterns(Source):
    """A person is a pattern of 4 x 4 grey values in the red channel, noisy; green and blue are noise (or the same)."""

    def __init__(self, people: int = 40, photos: int = 5, grey: bool = False) -> None:
        rng = np.random.default_rng(0)
        self.path, self.fingerprint = "patterns", f"patterns{people}{photos}{grey}"
        self.labels = np.repeat(np.arange(people), photos).astype(np.int64)
        self.class_names = [f"person{i:03d}" for i in range(people)]
        self.keys = [f"{i}" for i in range(people * photos)]
        who = rng.uniform(40, 215, (people, 4, 4, 1))
        what = rng.uniform(40, 215, (people * photos, 4, 4, 3))
        what[..., :1] = who[self.labels] + rng.normal(0, 15, (people * photos, 4, 4, 1))
        if grey:
            what[...] = what[..., :1]
        self.pixels = np.clip(what, 0, 255).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)

    def read(self, i: int) -> np.ndarray:
        return self.pixels[i]


def red_eye(colour: str = "rgb", mean: float = 127.5, std: float = 127.5, **options: Any) -> Model:
    backbone = options.pop("backbone", None) or RedEye()
    return Model(backbone, InputSpec(SIZE, colour, (mean,), (std,)), **options)


def table_of(classes: int = 30, images: int = 6, dim: int = 32, noise: float = 0.6, seed: int = 0) -> Embeddings:
    """Random class directions with noise of the given length; two views; norms between 5 and 15."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(classes, dim)) / dim**0.5
    labels = np.repeat(np.arange(classes), images).astype(np.int64)
    vectors = directions[labels][:, None] + noise * rng.normal(size=(len(labels), 2, dim)) / dim**0.5
    vectors *= rng.uniform(5, 15, (len(labels), 1, 1))
    names = [f"c{i:03d}" for i in range(classes)]
    return Embeddings([str(i) for i in range(len(labels))], names, labels, vectors.astype(np.float32))
