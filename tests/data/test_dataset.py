import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.data.dataset import Dataset, UnreadableImage, open_dataset
from facedistill.data.sources.source import Source
from facedistill.errors import UserError


class Pixels(Source):
    """`count` images in `classes` classes, all pixels of image i equal to i; those in `bad` cannot be read."""

    def __init__(self, count: int, classes: int = 2, bad: tuple[int, ...] = (), size: int = 8) -> None:
        self.path, self.size, self.bad = "pixels", size, bad
        self.keys = [f"image{i}" for i in range(count)]
        self.labels = np.arange(count, dtype=np.int64) % classes
        self.class_names = [f"class{c}" for c in range(classes)]
        self.fingerprint = f"pixels{count}"

    def read(self, i: int) -> bytes | np.ndarray:
        if i in self.bad:
            return b"\xff\xd8 broken"
        pixels = np.full((self.size, self.size, 3), i % 256, dtype=np.uint8)
        pixels[:, 0, 0] = 255  # the left edge is red: shows a flip and the order of colours
        return pixels


Shapes = dict[int, tuple[int, int] | None]


class Sizes(Pixels):
    """40 images of 8 x 8 pixels, but those in `shapes`: (height, width), None one that cannot be read."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(40, bad=tuple(i for i, shape in shapes.items() if shape is None))
        self.shapes = shapes

    def read(self, i: int) -> bytes | np.ndarray:
        shape = self.shapes.get(i)
        return super().read(i) if shape is None else np.zeros((*shape, 3), dtype=np.uint8)


def test_batch_gives_labels_flips_and_index() -> None:
    batch = Dataset(Pixels(10)).batch([7, 2, 2], [False, True, False])
    assert batch.images.shape == (3, 3, 8, 8) and batch.images.dtype == torch.uint8 and batch.images.is_contiguous()
    assert batch.labels.tolist() == [1, 0, 0] and batch.index.tolist() == [[7, 0], [2, 1], [2, 0]]
    assert batch.images[:, 1, 0, 0].tolist() == [7, 2, 2]
    assert batch.images[:, 0, 0, 0].tolist() == [255, 2, 255]
    assert batch.images[:, 0, 0, 7].tolist() == [7, 255, 2]


def test_in_memory_gives_the_same_batches(folder: Path) -> None:
    for size in (None, 9):
        dataset = open_dataset(folder, size=size)
        memory = dataset.in_memory()
        assert memory.is_in_memory and not dataset.is_in_memory
        assert (memory.fingerprint, memory.keys, memory.class_names) == (
            dataset.fingerprint,
            dataset.keys,
            dataset.class_names,
        )
        assert memory.source.stamp == dataset.source.stamp != ""
        order, flips = np.array([11, 0, 5, 5]), np.array([True, False, True, False])
        a, b = dataset.batch(order, flips), memory.batch(order, flips)
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.index, b.index)
        assert a.images.shape[2:] == ((9, 9) if size else (16, 16))


def test_a_batch_in_memory_is_a_copy() -> None:
    memory = Dataset(Pixels(4)).in_memory()
    memory.batch([0, 1], [True, True]).images.zero_()
    assert memory.batch([1]).images[0, 1, 0, 0] == 1


def test_subset_keeps_names_and_recounts_classes() -> None:
    dataset = Dataset(Pixels(12, classes=4))
    part = dataset.subset([3, 1, 7])
    assert part.class_names == ["class1", "class3"] and part.labels.tolist() == [1, 0, 1]
    assert part.keys == ["image3", "image1", "image7"] and part.image(1)[0, 1, 0] == 1
    again = part.subset([2])
    assert again.class_names == ["class3"] and again.labels.tolist() == [0] and again.keys == ["image7"]
    memory = dataset.in_memory().subset([3, 1, 7])
    assert memory.fingerprint == part.fingerprint != dataset.fingerprint
    assert torch.equal(memory.batch([0, 1, 2]).images, part.batch([0, 1, 2]).images)
    assert dataset.subset([1, 3]).fingerprint != dataset.subset([3, 1]).fingerprint


def test_size_changes_the_fingerprint_and_the_shape() -> None:
    small = Dataset(Pixels(3), size=4)
    assert small.fingerprint != Dataset(Pixels(3)).fingerprint
    assert small.image(2).shape == (4, 4, 3) and small.batch([0]).images.shape == (1, 3, 4, 4)


def test_without_a_size_neither_one_small_nor_one_large_image_decides(
    folder: Path, image: Callable[..., bytes]
) -> None:
    usual = open_dataset(folder).shape
    for name, size in (("a/00.jpg", 8), ("c/00.jpg", 400)):
        (folder / name).write_bytes(image(1, size=size))
    assert open_dataset(folder).batch(range(12)).images.shape == (12, 3, *usual)
    assert open_dataset(folder).subset([0]).batch([0]).images.shape == (1, 3, *usual)  # as in the whole set


def test_the_shape_comes_from_the_first_32_images_that_can_be_read() -> None:
    few: Shapes = dict.fromkeys(range(1, 16), (9, 12))
    many: Shapes = dict.fromkeys(range(1, 18), (9, 12))
    rest: Shapes = {0: None, **dict.fromkeys(range(33, 40), (90, 90))}
    shapes = [Dataset(Sizes(rest | first)).shape for first in (few, many)]
    assert shapes[0] != shapes[1] == (9, 12)
    assert Dataset(Sizes(rest | many)).image(33).shape == (9, 12, 3)
    with pytest.raises(UserError, match="pixels: none of the first images can be read: pixels: image image39"):
        Dataset(Sizes(dict.fromkeys(range(40)))).shape  # noqa: B018


def test_classes_without_an_image_are_dropped_and_the_others_counted_anew() -> None:
    source = Pixels(6, classes=2)
    source.class_names, source.labels = ["none", "x", "nobody", "y", "last"], source.labels * 2 + 1
    dataset = Dataset(source)
    assert dataset.class_names == ["x", "y"] and dataset.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.fingerprint == source.fingerprint and dataset.subset([1]).class_names == ["y"]


def test_an_unreadable_image_is_left_out_and_named() -> None:
    dataset = Dataset(Pixels(200, bad=(1,)))
    batch = dataset.batch([0, 1, 2], [True, True, False])
    assert batch.unreadable == dataset.unreadable == ["image1"]
    assert batch.index.tolist() == [[0, 1], [2, 0]] and batch.labels.tolist() == [0, 0] and len(batch) == 2
    assert batch.images[:, 1, 0, 0].tolist() == [0, 2]
    with pytest.raises(UnreadableImage, match="pixels: image image1 cannot be read"):
        dataset.image(1)


def test_too_many_unreadable_images_are_an_error_once_enough_were_met() -> None:
    dataset = Dataset(Pixels(200, bad=(1, 150)), max_unreadable=0.01)
    dataset.batch(range(40))  # 1 of 40, but too few to judge by
    dataset.batch(range(2, 140))
    with pytest.raises(UserError, match=r"2 of 180 images cannot be read.*0\.01: image1, image150"):
        dataset.batch([150, 151])


def test_a_small_set_is_judged_at_its_end() -> None:
    with pytest.raises(UserError, match="1 of 10 images"):
        Dataset(Pixels(10, bad=(1,))).batch(range(10))
    assert len(Dataset(Pixels(10, bad=(1,)), max_unreadable=0.1).batch(range(10))) == 9


def test_a_batch_with_nothing_readable_is_empty_and_counted() -> None:
    dataset = Dataset(Pixels(1000, bad=(3, 4)))
    batch = dataset.batch([3, 4], [True, False])
    assert len(batch) == 0 and batch.images.shape == (0, 3, 8, 8) and batch.index.shape == (0, 2)
    assert batch.unreadable == dataset.unreadable == ["image3", "image4"]
    with pytest.raises(UserError, match="2 of 102 images cannot be read"):
        dataset.batch(range(100, 200))


def test_in_memory_drops_and_counts_unreadable_images() -> None:
    dataset = Dataset(Pixels(200, classes=200, bad=(0, 5)))
    memory = dataset.in_memory()
    assert memory.unreadable == dataset.unreadable == ["image0", "image5"]
    assert len(memory) == len(memory.class_names) == 198  # no class of an image that left
    assert memory.class_names[0] == "class1" and memory.labels.tolist() == list(range(198))
    assert memory.fingerprint != dataset.fingerprint
    assert memory.batch([3, 4]).images[:, 1, 0, 0].tolist() == [4, 6]
    with pytest.raises(UserError, match="3 of 200 images cannot be read"):
        Dataset(Pixels(200, bad=(0, 5, 7))).in_memory()


def test_an_image_file_that_vanished_is_unreadable(folder: Path) -> None:
    dataset = open_dataset(folder, max_unreadable=0.5)
    (folder / "a" / "00.jpg").unlink()
    assert dataset.batch([0, 1]).unreadable == ["a/00.jpg"]


def test_an_empty_set_is_an_error() -> None:
    for make in (lambda: Dataset(Pixels(0)), lambda: Dataset(Pixels(3)).subset([])):
        with pytest.raises(UserError, match="no images"):
            make()


def test_a_dataset_pickles(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert torch.equal(pickle.loads(pickle.dumps(dataset)).batch([3]).images, dataset.batch([3]).images)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((3000, 4000), (886, 1182)),
        ((4000, 3000), (1182, 886)),
        ((1, 4_000_000), (1, 1 << 20)),
    ],
)
def test_photos_are_shrunk_where_they_are_read(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    """12 megapixels take 36 MB, so a batch of 64 takes 2.3 GB; networks look at 112 x 112."""
    dataset = Dataset(Sizes({i: shape for i in range(40)}))
    assert dataset.shape == expected and expected[0] * expected[1] <= 1 << 20
    assert dataset.batch([0]).images.shape == (1, 3, *expected)
