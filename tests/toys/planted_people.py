"""People as clouds of unit vectors, and images whose pixels are a person's pattern: errors are planted in both."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facedistill.backbones import Backbone
from facedistill.models import Model

SIDE = 8  # of the pattern


def clouds(people: int, images: int, seed: int, dim: int = 64, spread: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 (people * images, dim) around random centres, and their labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, dim))
    labels = np.repeat(np.arange(people), images)
    vectors = centres[labels] + spread * rng.normal(size=(len(labels), dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


class Patterns(Backbone):
    """Its embedding is the image's own pattern: a teacher that never errs."""

    def __init__(self) -> None:
        super().__init__(embedding_dim=SIDE * SIDE, input_size=32)

    def forward(self, x: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), SIDE).flatten(1)
        return small - small.mean(1, keepdim=True)


def pattern_teacher() -> Model:
    return Model(Patterns())


def draw_people(folder: Path, people: int, images: int, seed: int = 0) -> None:
    """Write folder/pNN/N.png: a person is a pattern; each image has noise of its own."""
    rng = np.random.default_rng(seed)
    for person in range(people):
        pattern = rng.uniform(60, 196, (SIDE, SIDE))
        (folder / f"p{person:02}").mkdir(parents=True)
        for i in range(images):
            noisy = np.kron(pattern + rng.normal(0, 22, (SIDE, SIDE)), np.ones((4, 4))) + rng.normal(0, 8, (32, 32))
            grey = np.clip(noisy, 0, 255).astype(np.uint8)
            Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(folder / f"p{person:02}" / f"{i}.png")
