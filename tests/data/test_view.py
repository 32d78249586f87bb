"""What a view of single images shows depends on seed, epoch, image and turn alone, wherever it is done."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from facedistill.data.dataset import Dataset, open_dataset
from facedistill.data.loader import Loader
from facedistill.data.samplers import make_sampler
from facedistill.data.view import ImageView
from facedistill.data.views import VIEWS, make_view
from facedistill.errors import UserError
from viewed import look, squares

BY_IMAGE = [name for name, kind in VIEWS.items() if issubclass(kind, ImageView)]


@pytest.mark.parametrize("kind", BY_IMAGE)
@given(order=st.permutations(range(6)), first=st.integers(1, 6), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
@settings(max_examples=8)
def test_neither_order_nor_the_other_images_matter(
    kind: str, order: list[int], first: int, seed: int, epoch: int
) -> None:
    batch, view = squares(side=32), make_view(kind)
    whole = look(view, batch, seed, epoch).shown
    assert whole is not None
    mine = torch.tensor(order[:first])  # as another process gets them
    part = replace(batch, images=batch.images[mine], index=batch.index[mine], labels=batch.labels[mine])
    shown = look(view, part, seed, epoch).shown
    assert shown is not None and torch.equal(shown, whole[mine])


@pytest.mark.parametrize("kind", BY_IMAGE)
def test_seed_epoch_and_turn_change_what_is_seen(kind: str) -> None:
    batch, view = squares(24, 32), make_view(kind)
    before = batch.images.clone()

    def shown(**where: int) -> Tensor:
        found = look(view, batch, **where)
        assert found.images is batch.images and found.shown is not None
        return found.shown

    base = shown()
    assert base.dtype == torch.uint8 and base.shape == batch.images.shape and torch.equal(shown(), base)
    for other in (shown(seed=1), shown(epoch=1), shown(turn=1)):
        assert not torch.equal(other, base)
    assert torch.equal(batch.images, before)


@pytest.mark.parametrize("kind", BY_IMAGE)
def test_the_teacher_sees_clean_images_or_the_same(kind: str) -> None:
    batch, same = squares(8, 32), make_view(kind, teacher="same")
    assert not make_view(kind).teacher_sees and same.teacher_sees in ("the augmented images", "the degraded images")
    found, clean = look(same, batch), look(make_view(kind), batch)
    assert found.shown is not None and clean.shown is not None and torch.equal(found.shown, clean.shown)
    assert found.images is found.shown and clean.images is batch.images


class Number(ImageView):
    """An image is its draw of the generator: one number."""

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full_like(image, rng.integers(256))


def _seen(dataset: Dataset, sampler: str = "uniform", **options: int) -> list[tuple[list[int], list[int]]]:
    """The images of each batch of epoch 1, and the numbers that the view drew for them."""
    made = make_sampler(sampler, dataset.labels, 4, 5, **({"k": 2} if sampler == "pk" else {}))
    loader = Loader(dataset, made, view=Number(), seed=3, **options)
    return [(b.index[:, 0].tolist(), _numbers(b.shown)) for b in loader.epoch(1)]


def _numbers(shown: Tensor | None) -> list[int]:
    assert shown is not None
    return shown[:, 0, 0, 0].tolist()


def test_processes_workers_and_memory_do_not_matter(folder: Path) -> None:
    dataset = open_dataset(folder)
    alone = _seen(dataset)
    assert len(alone) == 3 and len({n for _, numbers in alone for n in numbers}) > 9
    assert _seen(dataset, workers=2) == _seen(dataset.in_memory(), workers=1) == _seen(dataset.in_memory()) == alone
    ranks = [_seen(dataset, rank=rank, world=2) for rank in (0, 1)]
    assert [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*ranks)] == alone


class Faulty(ImageView):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.fault == "raises":
            raise KeyError("x")
        return {"float": image / 2, "crop": image[1:], "none": None}[self.fault]  # type: ignore[return-value]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "^view Faulty: KeyError: 'x'$"),
        ("float", r"returned float64 of shape \(16, 16, 3\); expected uint8 of shape \(16, 16, 3\)"),
        ("crop", r"returned uint8 of shape \(15, 16, 3\); expected"),
        ("none", "returned NoneType; expected"),
    ],
)
def test_a_faulty_view_is_one_line(folder: Path, fault: str, message: str, workers: int) -> None:
    dataset = open_dataset(folder)
    loader = Loader(dataset, make_sampler("uniform", dataset.labels, 4, 5), view=Faulty(fault), workers=workers)
    with pytest.raises(UserError, match=message):
        list(loader.epoch(0))


def test_a_data_set_in_memory_gets_workers_only_for_a_view_of_images(folder: Path) -> None:
    dataset = open_dataset(folder).in_memory()
    sampler = make_sampler("uniform", dataset.labels, 4, 0)
    for view, workers in ((None, 0), (make_view("mixup"), 0), (Number(), 2)):
        assert Loader(dataset, sampler, workers=2, view=view).workers == workers


def test_an_image_that_comes_twice_looks_different_each_time(folder: Path) -> None:
    dataset = open_dataset(folder)
    drawn = [pair for images, numbers in _seen(dataset, "pk") for pair in zip(images, numbers)]
    images = [image for image, _ in drawn]
    assert len(images) > len(set(images)), "no image came twice"
    assert len(set(drawn)) == len(drawn)


def test_resuming_in_the_middle_shows_the_same(folder: Path) -> None:
    dataset = open_dataset(folder)
    loader = Loader(dataset, make_sampler("uniform", dataset.labels, 4, 5), view=Number(), seed=3)
    later = [_numbers(batch.shown) for batch in loader.epoch(1, skip=2)]
    assert later == [numbers for _, numbers in _seen(dataset)[2:]]


def _last_numbers(dataset: Dataset) -> dict[int, int]:
    """The number of each image, of its last turn."""
    return {image: number for batch in _seen(dataset, "pk") for image, number in zip(*batch)}


def test_an_unreadable_image_leaves_the_others_as_they_are(folder: Path) -> None:
    whole = _last_numbers(open_dataset(folder))
    (folder / "a" / "01.jpg").write_bytes(b"broken")
    dataset = open_dataset(folder, max_unreadable=1.0)
    found = _last_numbers(dataset)
    assert set(whole) - set(found) == {dataset.keys.index("a/01.jpg")}
    assert all(whole[image] == number for image, number in found.items())
