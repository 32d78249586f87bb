"""Mixup against its formula; the same in any number of processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facedistill.data.batch import Batch
from facedistill.data.views import mixup


def _batch(count: int = 6, progress: float = 0.25) -> Batch:
    images = torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(count) + 10
    return Batch(images, images, [(labels, 1.0)], torch.zeros(count, 2), progress, labels)


def test_neighbours_are_mixed_as_their_labels_are() -> None:
    batch, before = _batch(), _batch().images.clone()
    mixed = mixup(batch, 1.0, seed=0)
    (own, share), (other, rest) = mixed.targets
    assert own.tolist() == [10, 11, 12, 13, 14, 15] and other.tolist() == [11, 10, 13, 12, 15, 14]
    assert 0.5 <= share < 1 and share + rest == pytest.approx(1)
    x = batch.images.double().numpy()
    expected = share * x + (1 - share) * x[[1, 0, 3, 2, 5, 4]]
    np.testing.assert_allclose(mixed.images.numpy(), expected, rtol=1e-5)
    assert mixed.teacher_images is mixed.images
    assert torch.equal(batch.images, before) and len(batch.targets) == 1  # the batch itself is left alone
    assert mixed.index is batch.index and mixed.progress == batch.progress


def test_what_the_teacher_sees_is_mixed_alike() -> None:
    batch = replace(_batch(), teacher_images=_batch().images.flip(-1))
    mixed = mixup(batch, 1.0, seed=0)
    torch.testing.assert_close(mixed.teacher_images, mixed.images.flip(-1))


def test_the_last_of_an_odd_number_stays() -> None:
    for count in (1, 5):
        batch = _batch(count)
        mixed = mixup(batch, 1.0, seed=0)
        torch.testing.assert_close(mixed.images[-1], batch.images[-1].float())
        assert mixed.targets[1][0][-1] == mixed.targets[0][0][-1]


def test_slices_of_two_processes_are_mixed_as_the_whole_is() -> None:
    batch = _batch(8)
    whole = mixup(batch, 1.0, seed=3)
    for half in (slice(0, 4), slice(4, 8)):
        part = replace(batch, images=batch.images[half], teacher_images=batch.images[half])
        part.targets = [(labels[half], weight) for labels, weight in batch.targets]
        found = mixup(part, 1.0, seed=3)
        assert torch.equal(found.images, whole.images[half]) and found.targets[0][1] == whole.targets[0][1]
        assert torch.equal(found.targets[1][0], whole.targets[1][0][half])


def test_the_share_follows_seed_progress_and_alpha() -> None:
    def shares(alpha: float, seed: int = 0) -> list[float]:
        return [mixup(_batch(2, step / 300), alpha, seed).targets[0][1] for step in range(300)]

    assert shares(1.0) == shares(1.0) != shares(1.0, seed=1)
    # l uniform: max(l, 1 - l) has mean 3/4; a large alpha mixes halves, a small one hardly mixes.
    assert np.mean(shares(1.0)) == pytest.approx(0.75, abs=0.03)
    assert max(shares(1e4)) < 0.53 and np.mean(shares(0.05)) > 0.95
