"""The view `degrade`: what it does to an image, and that it depends on nothing but seed, image and progress."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from facedistill.data.batch import Batch
from facedistill.data.degrade import shrink
from facedistill.data.low_resolution import Degrade
from facedistill.data.views import make_view
from facedistill.errors import UsageError

PLAIN: dict[str, Any] = {"blur": 0.0, "noise": 0.0, "jpeg": None, "shift": 0.0, "rotate": 0.0, "clean": 0.0}


def faces(count: int = 6, side: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = coarse.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    index = torch.stack([torch.arange(count), torch.zeros(count, dtype=torch.long)], 1)
    labels = torch.arange(count)
    return Batch(images, images, [(labels, 1.0)], index, 0.25, labels)


def test_it_is_what_the_evaluation_does_and_the_teacher_sees_the_clean_face() -> None:
    batch = faces()
    changed = Degrade(smallest=16, largest=16, **PLAIN)(batch, 0)
    assert changed.teacher_images is batch.images and changed.images.dtype == torch.uint8
    for before, after in zip(batch.images, changed.images):
        expected = shrink(Image.fromarray(before.permute(1, 2, 0).numpy()), 16)
        assert np.array_equal(after.permute(1, 2, 0).numpy(), expected)


def test_an_image_depends_on_seed_image_and_progress_alone() -> None:
    batch, view = faces(), make_view("degrade")
    whole = view(batch, 7).images
    assert torch.equal(view(batch, 7).images, whole)
    part = replace(batch, images=batch.images[2:4], index=batch.index[2:4])  # as another process gets it
    assert torch.equal(view(part, 7).images, whole[2:4])
    assert not torch.equal(view(batch, 8).images, whole)
    assert not torch.equal(view(replace(batch, progress=0.5), 7).images, whole)
    mirrored = replace(batch, index=batch.index + torch.tensor([0, 1]))
    assert not torch.equal(view(mirrored, 7).images, whole)


def test_sizes_are_log_uniform_and_the_clean_share_is_kept() -> None:
    seen: list[int] = []

    class Watched(Degrade):
        def _moved(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            seen.append(1)
            return image

    image, view = faces(1).images[0].permute(1, 2, 0).numpy(), Watched(clean=0.25)
    for i in range(2000):
        view.degraded(image, np.random.default_rng(i))
    assert len(seen) / 2000 == pytest.approx(0.75, abs=0.03)


def test_moving_keeps_the_middle_and_repeats_the_edge() -> None:
    image = np.full((33, 33, 3), 200, np.uint8)
    image[14:19, 14:19] = 20
    still = Degrade(shift=0, rotate=45)._moved(image, np.random.default_rng(3))
    assert still[16, 16].max() < 60 and still.min() < 60 and abs(int(still[0, 0, 0]) - 200) < 3
    rows = []
    for seed in range(40):
        moved = Degrade(shift=0.2, rotate=0)._moved(image, np.random.default_rng(seed))
        assert abs(int(moved[0, 0, 0]) - 200) < 3 and abs(int(moved[-1, -1, 0]) - 200) < 3
        rows.append(np.argwhere(moved[..., 0] < 100)[:, 0].mean() - 16)
    assert max(map(abs, rows)) <= 0.2 * 33 + 1 and max(rows) > 2 and min(rows) < -2


def test_a_teacher_that_sees_the_same_cannot_be_cached() -> None:
    view = make_view("degrade", teacher="same")
    batch = faces()
    changed = view(batch, 0)
    assert view.teacher_sees == "the degraded images" and torch.equal(changed.teacher_images, changed.images)
    assert not make_view("degrade").teacher_sees


def test_pairs_are_each_image_as_it_is_and_degraded() -> None:
    batch, plain = faces(), make_view("degrade", clean=0)(faces(), 3)
    pairs = make_view("degrade", clean=0, pairs=True)(batch, 3)
    assert torch.equal(pairs.images[::2], batch.images) and torch.equal(pairs.images[1::2], plain.images)
    for name in ("index", "labels"):
        assert torch.equal(getattr(pairs, name), getattr(batch, name).repeat_interleave(2, 0))
    assert torch.equal(pairs.teacher_images, batch.images.repeat_interleave(2, 0))
    assert torch.equal(pairs.targets[0][0], pairs.labels) and pairs.targets[0][1] == 1.0
    same = make_view("degrade", clean=0, pairs=True, teacher="same")(batch, 3)
    assert torch.equal(same.teacher_images, pairs.images)


def test_small_images_are_not_enlarged_first() -> None:
    changed = Degrade(smallest=8, largest=112, **PLAIN)(faces(4, 16), 0)
    assert changed.images.shape == (4, 3, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest": 60}, "smallest 60 is above largest 56"),
        ({"clean": 1.5}, "option 'clean'"),
        ({"jpeg": 0}, "option 'jpeg'"),
        ({"teacher": "dirty"}, "option 'teacher'"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_view("degrade", **options)
