import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.data import loader
from facedistill.data.dataset import Dataset, ImageBatch, open_dataset
from facedistill.data.loader import Loader, decoded
from facedistill.data.samplers import make_sampler
from facedistill.errors import UsageError, UserError


def batches(dataset: Dataset, workers: int = 0, epoch: int = 0, skip: int = 0, batch: int = 4) -> list[ImageBatch]:
    sampler = make_sampler("uniform", dataset.labels, batch, 5)
    return list(Loader(dataset, sampler, workers=workers).epoch(epoch, skip))


def same(a: list[ImageBatch], b: list[ImageBatch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.images, y.images) and torch.equal(x.index, y.index) and torch.equal(x.labels, y.labels)
        for x, y in zip(a, b)
    )


def test_workers_memory_and_inline_give_the_same_batches(folder: Path) -> None:
    dataset = open_dataset(folder)
    inline = batches(dataset)
    assert len(inline) == 3 and sorted(i for b in inline for i in b.index[:, 0].tolist()) == list(range(12))
    assert same(inline, batches(dataset, workers=2))
    assert same(inline, batches(dataset.in_memory(), workers=2))


def test_workers_live_on_and_follow_each_epochs_plan(folder: Path) -> None:
    dataset = open_dataset(folder)
    loader = Loader(dataset, make_sampler("uniform", dataset.labels, 4, 5), workers=1)
    assert same(list(loader.epoch(1)), batches(dataset, epoch=1))
    next(iter(loader.epoch(2)))  # left in the middle
    assert same(list(loader.epoch(3, skip=1)), batches(dataset, epoch=3)[1:])
    assert list(loader.epoch(4, skip=3)) == []


def test_skip_resumes_within_an_epoch(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert same(batches(dataset, skip=2), batches(dataset)[2:])


def test_the_ranks_slices_concatenate_to_the_global_batch(folder: Path) -> None:
    dataset = open_dataset(folder).in_memory()
    sampler = make_sampler("uniform", dataset.labels, 6, 0)
    whole = list(Loader(dataset, sampler).epoch(2))
    parts = [list(Loader(dataset, sampler, rank, 3).epoch(2)) for rank in range(3)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([part[step].images for part in parts]))
        assert torch.equal(batch.index, torch.cat([part[step].index for part in parts]))
    with pytest.raises(UsageError, match="6 images cannot be shared equally by 4"):
        Loader(dataset, sampler, 0, 4)
    with pytest.raises(UsageError, match="batch=6: batch normalisation needs two images in each process"):
        Loader(dataset, sampler, 0, 6)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_counted_wherever_they_were_met(folder: Path, workers: int) -> None:
    (folder / "a" / "01.jpg").write_bytes((folder / "a" / "01.jpg").read_bytes()[:300])
    dataset = open_dataset(folder, max_unreadable=0.1)
    found = batches(dataset, workers)
    assert sum(len(b) for b in found) == 11 and dataset.unreadable == ["a/01.jpg"]
    with pytest.raises(UserError, match="1 of 12 images cannot be read") as e:
        batches(open_dataset(folder, max_unreadable=0.05), workers)
    assert "Traceback" not in str(e.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_state_stays_as_it_is(folder: Path, workers: int) -> None:
    """A resumed run restores it: what a step draws from it must not depend on how often workers were started."""
    before = torch.get_rng_state()
    batches(open_dataset(folder), workers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_an_image_that_can_be_read_is_an_error(folder: Path, workers: int) -> None:
    dataset = open_dataset(folder, max_unreadable=1.0)
    dataset.shape  # noqa: B018 - found before the images go
    for file in folder.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="a whole batch of images is unreadable") as e:
        batches(dataset, workers)
    assert "Traceback" not in str(e.value)


def test_an_epoch_with_a_short_set_checks_at_its_end(folder: Path) -> None:
    """8 of the 12 images make an epoch of one batch of 8: fewer than the set has, and still judged."""
    for file in folder.rglob("*.jpg"):
        if np.frombuffer(file.name.encode(), np.uint8)[1] % 2:
            file.write_bytes(b"broken")
    with pytest.raises(UserError, match="of 8 images cannot be read"):
        batches(open_dataset(folder), batch=8)


@pytest.mark.parametrize("begin", ["decoded(dataset, 4)", "Loader(dataset, sampler, workers=2).epoch(0)"])
def test_a_process_that_leaves_an_epoch_in_the_middle_ends_in_silence(begin: str) -> None:
    """The generator outlives its own module, as one in a reference cycle does."""
    code = f"""
import json
from facedistill.data import Loader, decoded, make_sampler, open_dataset
dataset = open_dataset("synthetic:identities=4,images=6,size=32,seed=1")
sampler = make_sampler("uniform", dataset.labels, 4, 0)
json.kept = {begin}
next(json.kept)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_batches_are_bounded_in_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(folder)
    assert [len(batch) for batch in decoded(dataset, 5)] == [5, 5, 2]
    monkeypatch.setattr(loader, "BATCH_BYTES", 4 * 3 * 16 * 16 - 1)
    assert [len(batch) for batch in decoded(dataset, 5)] == [3, 3, 3, 3]
    monkeypatch.setattr(loader, "BATCH_BYTES", 10)
    assert [len(batch) for batch in decoded(dataset, 5)] == [1] * 12
