"""Small images for the tests of sources and data sets."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def make_image(seed: int, size: int = 16, form: str = "JPEG", mode: str = "RGB") -> bytes:
    """An encoded image of smooth random colour: a JPEG of it stays within a few grey values."""
    small = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((size, size), Image.Resampling.BILINEAR).convert(mode)
    out = io.BytesIO()
    picture.save(out, form, **({"quality": 95} if form in ("JPEG", "WEBP") else {}))
    return out.getvalue()


@pytest.fixture
def image() -> Callable[..., bytes]:
    return make_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three identities b, a, c with 4, 2 and 6 images."""
    for k, (name, count) in enumerate([("b", 4), ("a", 2), ("c", 6)]):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "faces" / name / f"{i:02d}.jpg").write_bytes(make_image(10 * k + i))
    return tmp_path / "faces"


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Writes an image for each name in the folders that the test's module lists as FILES, and returns their folder."""

    def write(inside: str = ".", **changed: list[str]) -> Path:
        for folder, names in (request.module.FILES | changed).items():
            for seed, name in enumerate(names):
                path = tmp_path / inside / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(make_image(seed))
        return tmp_path

    return write
