"""Degraded images against Pillow's own steps written out, and data sets that stay what they were."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from facedistill.data.dataset import Dataset, open_dataset, open_source
from facedistill.data.decode import decode
from facedistill.data.degrade import DegradedSource, degraded
from facedistill.data.sources.verification import VerificationSet, draw_pairs
from facedistill.errors import UsageError, UserError

BICUBIC = Image.Resampling.BICUBIC


def noise(seed: int, height: int = 24, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixel_set(*images: np.ndarray) -> VerificationSet:
    return VerificationSet(list(images), np.array([[0, 1]]), np.array([True]), "x")


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resample(pixels: np.ndarray, size: int) -> np.ndarray:
    """Along the first axis: the kernel as wide as the step between new pixels when shrinking, cut at the border."""
    scale = len(pixels) / size
    centres, places = (np.arange(size) + 0.5) * scale, np.arange(len(pixels)) + 0.5
    weights = cubic((places - centres[:, None]) / max(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(np.rint(np.tensordot(weights, pixels.astype(np.float64), 1)), 0, 255)


@pytest.mark.parametrize("shape", [(24, 24), (31, 20)])
@pytest.mark.parametrize("pixels", [1, 7, 20])
def test_down_and_up_is_bicubic_with_antialias(shape: tuple[int, int], pixels: int) -> None:
    original = noise(0, *shape)
    found = DegradedSource(pixel_set(original, original), pixels).read(0)
    expected = original.astype(np.float64)
    for height, width in ((pixels, pixels), shape):  # as Pillow does: along the rows, then along the columns
        expected = resample(expected.swapaxes(0, 1), width).swapaxes(0, 1)
        expected = resample(expected, height)
    assert found.shape == original.shape and found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 2


def test_its_own_number_of_pixels_changes_nothing() -> None:
    assert (DegradedSource(pixel_set(noise(0), noise(1)), 24).read(1) == noise(1)).all()


def test_blur_comes_before_shrinking_and_jpeg_after() -> None:
    found = DegradedSource(pixel_set(noise(0), noise(1)), 16, blur=1.5, jpeg=30).read(0)
    small = Image.fromarray(noise(0)).filter(ImageFilter.GaussianBlur(1.5)).resize((16, 16), BICUBIC)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=30)
    expected = np.asarray(Image.open(file).convert("RGB").resize((24, 24), BICUBIC))
    assert np.abs(found.astype(int) - expected).max() <= 3
    for other in ({}, {"blur": 1.5}, {"jpeg": 30}, {"blur": 0.5, "jpeg": 30}, {"blur": 1.5, "jpeg": 95}):
        plain = DegradedSource(pixel_set(noise(0), noise(1)), 16, **other).read(0)
        assert np.abs(plain.astype(int) - expected).max() > 10


def test_encoded_images_are_decoded_first(folder: Path, image: Callable[..., bytes]) -> None:
    source = open_source(folder)
    found = DegradedSource(source, 8).read(3)
    pixels = decode((folder / source.keys[3]).read_bytes())
    assert (found == DegradedSource(pixel_set(pixels, pixels), 8).read(0)).all()


def test_only_pixels_and_fingerprint_change(folder: Path) -> None:
    source = open_source(folder)
    found = DegradedSource(source, 8)
    assert (found.path, found.keys, found.class_names) == (source.path, source.keys, source.class_names)
    assert found.labels.tolist() == source.labels.tolist() and len(found) == len(source)
    options = [(8, 0, None), (9, 0, None), (8, 0.5, None), (8, 0, 50), (8, 0.5, 50)]
    prints = [DegradedSource(source, *o).fingerprint for o in options]
    assert len({*prints, source.fingerprint}) == 6
    assert [DegradedSource(source, *o).fingerprint for o in options] == prints
    assert DegradedSource(source, 8, 0).fingerprint == DegradedSource(source, 8, 0.0).fingerprint
    assert found.stamp == source.stamp != ""


def test_it_pickles(folder: Path) -> None:
    source = DegradedSource(open_source(folder), 8)
    again = pickle.loads(pickle.dumps(source))
    assert (again.read(1) == source.read(1)).all() and again.fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0, 0, None), "resolution 0: expected a number of pixels"),
        ((8, -1, None), "blur -1: expected the sigma"),
        ((8, 0, 0), "JPEG quality 0: expected 1 to 100"),
        ((8, 0, 101), "JPEG quality 101"),
    ],
)
def test_wrong_options(folder: Path, options: tuple[int, float, int | None], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DegradedSource(open_source(folder), *options)


def test_more_pixels_than_the_image_has(folder: Path) -> None:
    source = DegradedSource(pixel_set(noise(0), noise(0, 24, 12)), 13)
    assert source.read(0).shape == (24, 24, 3)
    with pytest.raises(UsageError, match=r"x: image 1 has 12 x 24 pixels; expected a resolution up to 12, not 13"):
        source.read(1)
    with pytest.raises(UsageError, match="expected a resolution up to 16, not 17"):
        _ = degraded(open_dataset(folder), 17).shape


def test_a_data_set_keeps_its_images_and_size(folder: Path) -> None:
    dataset = open_dataset(folder, size=12)
    found = degraded(dataset, 4)
    assert found.shape == (12, 12) and found.keys == dataset.keys
    assert found.fingerprint != dataset.fingerprint
    assert (found.image(2) == Dataset(DegradedSource(dataset.source, 4), size=12).image(2)).all()
    assert (dataset.image(2) != found.image(2)).any()
    assert degraded(dataset, 4).fingerprint == found.fingerprint != degraded(dataset, 5).fingerprint


def test_a_subset_stays_a_subset(folder: Path) -> None:
    dataset = open_dataset(folder).subset([11, 0, 1, 9]).subset([0, 1, 2])
    found = degraded(dataset, 4)
    assert found.keys == dataset.keys and found.class_names == dataset.class_names
    batch, images = found.batch(range(3)), dataset.batch(range(3))
    assert batch.labels.tolist() == images.labels.tolist()
    expected = [DegradedSource(dataset.source, 4).read(int(i)) for i in dataset.indices]
    assert (batch.images.numpy().transpose(0, 2, 3, 1) == np.stack(expected)).all()
    assert found.subset([0]).fingerprint != dataset.subset([0]).fingerprint


def test_pixels_in_memory_are_degraded(folder: Path) -> None:
    dataset = open_dataset(folder)
    before = copy.copy(dataset.in_memory())
    assert (degraded(before, 4).batch([3]).images == degraded(dataset, 4).batch([3]).images).all()
    held = degraded(dataset, 4).in_memory()
    assert held.is_in_memory and (held.batch([3]).images == degraded(dataset, 4).batch([3]).images).all()


def test_unreadable_images_are_counted_apart(folder: Path) -> None:
    (folder / "a" / "01.jpg").write_bytes(b"\xff\xd8 no image")
    dataset = open_dataset(folder, max_unreadable=0.2)
    found = degraded(dataset, 4)
    assert found.batch(range(len(found))).unreadable == ["a/01.jpg"]
    assert (found.unreadable, dataset.unreadable) == (["a/01.jpg"], [])
    with pytest.raises(UserError, match=r"a/01\.jpg cannot be read"):
        found.image(1)


def test_a_verification_set_keeps_its_pairs() -> None:
    faces = draw_pairs(open_source("synthetic:identities=6,images=4,size=16"), 60, seed=0)
    found = degraded(Dataset(faces), 5).source
    assert isinstance(found, VerificationSet) and isinstance(found, DegradedSource)
    assert found.pairs is faces.pairs and found.same is faces.same
    assert (found.identities, found.name, len(found)) == (faces.identities, faces.name, len(faces))
    assert (found.read(3) == DegradedSource(faces, 5).read(3)).all()
