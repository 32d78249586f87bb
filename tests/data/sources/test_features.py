"""Tables of features: read as numpy wrote them, never resized, mirrored or decoded."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facedistill.cli.show import describe
from facedistill.data import Dataset, Loader, make_sampler, open_dataset
from facedistill.data.sources.open import open_source, open_union
from facedistill.errors import UserError

RNG = np.random.default_rng(0)


def write(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "keys": [f"call{i}" for i in range(12)],
        "class_names": ["ann", "ben", "nobody", "cy"],
        "labels": np.array([0, 1, 3] * 4),
        "vectors": RNG.normal(size=(12, 5)),
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "speech.npz")


def test_its_samples_are_the_rows(table: Path) -> None:
    dataset, vectors = open_dataset(f"features:{table}"), np.load(table)["vectors"].astype(np.float32)
    assert dataset.class_names == ["ann", "ben", "cy"] and dataset.sample_shape == (5,)
    for opened in (dataset, dataset.in_memory()):
        found = opened.batch([3, 7], [True, False])  # features have no mirror image
        assert found.images.dtype == torch.float32 and found.labels.tolist() == [0, 1]
        np.testing.assert_array_equal(found.images.numpy(), vectors[[3, 7]])
    assert dataset.in_memory().is_in_memory and dataset.in_memory().subset([1, 2]).sample_shape == (5,)


def test_several_vectors_of_a_sample_are_averaged(tmp_path: Path) -> None:
    vectors = RNG.normal(size=(12, 2, 5)).astype(np.float32)
    source = open_source(f"features:path={write(tmp_path / 'two.npz', vectors=vectors)}")
    np.testing.assert_array_equal(source.read(4), vectors[4].mean(0))


def test_workers_give_the_same_batches(table: Path) -> None:
    dataset = Dataset(pickle.loads(pickle.dumps(open_source(f"features:{table}"))))
    batches = []
    for workers in (0, 2):
        loader = Loader(dataset, make_sampler("uniform", dataset.labels, 4, 0), workers=workers)
        batches.append([batch.images for batch in loader.epoch(0)])
    assert len(batches[0]) == 3
    for own, other in zip(*batches, strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_the_fingerprint_covers_names_labels_and_numbers(tmp_path: Path) -> None:
    tables: list[dict[str, Any]] = [{}, {"labels": np.array([1, 0, 3] * 4)}]
    tables += [{"keys": [f"c{i}" for i in range(12)]}, {"vectors": np.ones((12, 5))}]
    vectors = RNG.normal(size=(12, 5))
    made = [write(tmp_path / f"{i}.npz", **{"vectors": vectors} | changes) for i, changes in enumerate(tables)]
    assert len({open_source(f"features:{path}").fingerprint for path in made}) == 4
    again = write(tmp_path / "again.npz", vectors=vectors)
    assert open_source(f"features:{again}").fingerprint == open_source(f"features:{made[0]}").fingerprint


def test_show_tells_what_it_holds(table: Path) -> None:
    text = describe(f"features:{table}")
    assert "12 samples of 3 classes" in text and "5 features each" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vectors": np.full((12, 5), np.nan)},
            "12 samples have a feature that is NaN or infinite, the first is call0",
        ),
        ({"vectors": np.zeros((12, 0))}, "expected at least one feature"),
        ({"vectors": None}, "no array 'vectors.*'; expected an .npz with keys"),
        ({"labels": np.array([0, 1, 9] * 4)}, "labels 0 to 9 for 4 class names"),
        ({"vectors": np.zeros(12)}, "vectors"),
        ({"labels": np.array([0.5] * 12)}, "labels are float64, not integers"),
    ],
)
def test_what_is_no_table_of_features(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(f"features:{write(tmp_path / 'bad.npz', **changes)}")


def test_a_missing_file_and_a_union_with_images(table: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        open_source(f"features:{tmp_path / 'none.npz'}")
    with pytest.raises(UserError, match=r"samples of several kinds \(.*vectors of 5 features"):
        open_union([f"features:{table}", "synthetic:identities=2,images=2,size=32"])


def test_what_works_on_images_says_so(table: Path) -> None:
    dataset = open_dataset(f"features:{table}")
    for asked in (lambda: dataset.shape, lambda: dataset.image(0)):
        with pytest.raises(UserError, match="vectors of features; this works on images only"):
            asked()
