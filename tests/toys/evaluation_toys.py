"""Networks, photos and sets as fast as a test wants them."""

import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facedistill.backbones.base import Backbone
from facedistill.models.model import InputSpec, Model

PEOPLE, PHOTOS = 12, 4


class Pixels(Backbone):
    """A fixed random projection of the pixels: a network as fast as a test wants, and not symmetric under mirroring."""

    matrix: Tensor

    def __init__(self, seed: int, dim: int = 16, noise: float = 0.0) -> None:
        super().__init__(dim, 16)
        generator = torch.Generator().manual_seed(0)
        matrix = torch.randn(3 * 16 * 16, dim, generator=generator)
        matrix += noise * torch.randn(matrix.shape, generator=generator.manual_seed(seed))
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix


def model(seed: int = 1, dim: int = 16, noise: float = 0.0, space: str | None = None) -> Model:
    return Model(Pixels(seed, dim, noise), InputSpec(size=16), space=space)


def photo(person: int, number: int) -> bytes:
    base = np.random.default_rng(person).integers(0, 256, (16, 16, 3))
    noise = np.random.default_rng([person, number]).normal(0, 60, (16, 16, 3))
    file = BytesIO()
    Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, people: range = range(PEOPLE), photos: int = PHOTOS) -> Path:
    """A folder per person, p00, p01, ..."""
    for person in people:
        (root / f"p{person:02}").mkdir(parents=True)
        for number in range(photos):
            (root / f"p{person:02}" / f"{number}.png").write_bytes(photo(person, number))
    return root


def write_bin(path: Path, names: bool, damage: int | None = None) -> Path:
    rng = np.random.default_rng(0)
    images, same, people = [], [], []
    for k in range(60):
        a = int(rng.integers(PEOPLE))
        b = a if k % 2 else (a + 1 + int(rng.integers(PEOPLE - 1))) % PEOPLE
        i = int(rng.integers(PHOTOS))
        j = (i + 1) % PHOTOS
        images += [photo(a, i), photo(b, j)]
        people += [f"p{a}/{i}.png", f"p{b}/{j}.png"]
        same.append(a == b)
    if damage is not None:
        images[damage] = images[damage][:40]
    path.write_bytes(pickle.dumps((images, same)))
    if names:
        path.with_name(f"{path.stem}_bin_names.txt").write_text("\n".join(people) + "\n")
    return path
