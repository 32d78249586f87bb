"""Pairs: low and high lie pixel over pixel, and the priors move with them."""

import numpy as np
import pytest
import torch

from facedistill.data import make_view, open_dataset
from facedistill.hallucination.pairs import Geometry, Pairs, enlarged, make_pairs, moved, to_network, to_pixels
from facedistill.hallucination.priors import open_priors
from facedistill.recipe import Data

SPEC = "synthetic:identities=3,images=2,size=48,seed=4,priors=true"
STILL = Geometry(0, 0)


def pairs_of(geometry: Geometry = STILL, step: int = 0, flips: bool = False, size: int = 48, clean: float = 0) -> Pairs:
    dataset = open_dataset(SPEC)
    view = make_view("degrade", smallest=8, largest=12, clean=clean, shift=0, rotate=0, blur=0, noise=0, jpeg=None)
    images = dataset.batch([0, 3, 5], [flips] * 3)
    return make_pairs(images, open_priors(None, Data(SPEC), dataset, size), size, geometry, view, 7, step)


def test_what_a_step_gets() -> None:
    found = pairs_of(Geometry(10, 0.05))
    assert found.low.shape == found.high.shape == (3, 3, 48, 48) and found.low.dtype == torch.float32
    assert found.high.abs().max() <= 1 and not torch.equal(found.low, found.high)
    assert found.landmarks is not None and found.landmarks.shape == (3, 68, 2)
    assert found.parsing is not None and found.parsing.dtype == torch.int64
    assert (found.low - found.high).abs().mean() < 0.25  # the same faces, not moved against each other


def test_the_same_step_gives_the_same_images_and_another_one_others() -> None:
    one, again, other = (pairs_of(Geometry(10, 0.05), step) for step in (3, 3, 4))
    assert torch.equal(one.low, again.low) and torch.equal(one.high, again.high)
    assert not torch.equal(one.high, other.high)


def test_without_movement_the_clean_image_is_the_data_sets() -> None:
    dataset = open_dataset(SPEC)
    expected = dataset.batch([0, 3, 5]).images
    assert torch.equal(to_pixels(pairs_of(clean=1).high).round().to(torch.uint8), expected)
    assert torch.equal(pairs_of(clean=1).low, pairs_of(clean=1).high)
    assert pairs_of(size=32).high.shape[-1] == 32


@pytest.mark.parametrize("flips", [False, True])
def test_priors_move_with_the_image(flips: bool) -> None:
    """A bright dot at a landmark is at the moved landmark afterwards, and so is a patch of a class of its own."""
    dots = torch.zeros(1, 3, 64, 64)
    points = torch.tensor([[[20.0, 30.0]] * 68])
    classes = torch.zeros(1, 64, 64, dtype=torch.uint8)
    dots[0, :, 30, 20], classes[0, 29:32, 19:22] = 255.0, 7
    for seed in range(5):
        rng = np.random.default_rng(seed)
        image, where, parsing = moved(dots, points, classes, Geometry(25, 0.1), rng)
        assert where is not None and parsing is not None
        weight = image[0, 0] / image[0, 0].sum()
        rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        centre = torch.stack([(weight * columns).sum(), (weight * rows).sum()])
        assert (centre - where[0, 0]).norm() < 0.35
        patch = torch.nonzero(parsing[0] == 7).flip(1).double().mean(0)
        assert (patch - where[0, 0]).norm() < 0.7 and set(parsing.unique().tolist()) == {0, 7}


def test_a_quarter_turn_is_exact() -> None:
    """By 90 degrees nothing is interpolated: the image is numpy's, and a point goes where its pixel goes."""
    image = torch.rand(1, 3, 8, 8)
    points = torch.tensor([[[2.0, 1.0]] * 68])
    turned, where, _ = moved(image, points, None, Geometry(90, 0), _Fixed())
    assert where is not None
    column, row = (round(v) for v in where[0, 0].tolist())
    assert torch.allclose(turned[0, :, row, column], image[0, :, 1, 2], atol=1e-4)
    assert any(torch.allclose(turned[0], torch.rot90(image[0], k, (1, 2)), atol=1e-4) for k in (1, 3))


class _Fixed(np.random.Generator):
    """Draws the highest angle, and no shift."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def uniform(self, low: float = 0, high: float = 1, size: object = None) -> np.ndarray:  # type: ignore[override]
        return np.full(size, high)  # type: ignore[call-overload]


def test_pixels_there_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert to_network(pixels).min() == -1 and to_network(pixels).max() == 1
    assert torch.equal(to_pixels(to_network(pixels)).round().to(torch.uint8), pixels)


def test_enlarging_stays_within_pixels() -> None:
    small = torch.tensor([0.0, 255.0]).repeat(1, 3, 4, 2).to(torch.uint8)
    large = enlarged(small, 32)
    assert large.shape == (1, 3, 32, 32) and large.min() >= 0 and large.max() <= 255
