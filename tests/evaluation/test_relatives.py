"""False accepts within a family, across families and across sources, against a loop over all pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedistill.data.dataset import open_dataset
from facedistill.evaluation.protocols.all_pairs import all_pairs
from facedistill.evaluation.relatives import false_accepts, kinds_of

PEOPLE = ["fiw_F0001_MID1", "fiw_F0001_MID2", "fiw_F0002_MID1", "celeba_7", "celeba_8"]


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for name in PEOPLE:
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"P0000{i}_face0.png")
    return tmp_path


@pytest.mark.parametrize("symmetric", [True, False])
def test_counts_equal_a_loop_over_pairs(faces: Path, symmetric: bool) -> None:
    dataset = open_dataset(faces)
    kinds = kinds_of(dataset)
    assert kinds is not None
    rng = np.random.default_rng(0)
    probe = rng.normal(size=(15, 4)).astype(np.float32)
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    gallery = probe if symmetric else np.roll(probe, 1, axis=0).copy()
    found = false_accepts(probe, gallery, dataset.labels, kinds, {"1e-2": 0.3})
    expected = {"within_family": [0, 0], "across_families": [0, 0], "across_sources": [0, 0]}
    for i in range(15):
        for j in range(15):
            a, b = (dataset.class_names[dataset.labels[k]] for k in (i, j))
            if a == b or (symmetric and i >= j):
                continue
            family_a, family_b = a[:9], b[:9]
            if a[0] != b[0]:
                kind = "across_sources"
            else:
                kind = "within_family" if a[0] == "f" and family_a == family_b else "across_families"
            expected[kind][0] += 1
            expected[kind][1] += int(probe[i] @ gallery[j] >= np.float32(0.3))
    assert {k: [v["1e-2"]["pairs"], v["1e-2"]["impostors"]] for k, v in found.items()} == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_kinds_add_up_to_the_false_accepts_of_all_pairs(symmetric: bool, seed: int) -> None:
    """Also the one impostor whose score is the threshold."""
    rng = np.random.default_rng(seed)
    labels, kinds = np.repeat(np.arange(30), 2), np.stack([np.repeat(np.arange(15), 4), np.repeat([0, 1], [32, 28])])
    probe, gallery = rng.normal(size=(2, 60, 128)).astype(np.float32)
    probe, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (probe, gallery))
    gallery = probe if symmetric else gallery
    measured = all_pairs(probe, gallery, labels, fars=(0.1, 0.01), resamples=0)
    points = {far: point for far, (point, _) in measured.tar_at_far.items()}
    found = false_accepts(probe, gallery, labels, kinds, {far: point.threshold for far, point in points.items()})
    for far, point in points.items():
        assert sum(kind[far]["impostors"] for kind in found.values()) == round(point.far * measured.roc.pairs[1])


def test_ties_above_which_the_threshold_lies_are_not_accepted() -> None:
    """One photo under several names: their score is refused, so the threshold lies just above it."""
    labels, kinds = np.repeat(np.arange(30), 2), np.stack([np.repeat(np.arange(15), 4), np.repeat([0, 1], [32, 28])])
    probe = np.random.default_rng(0).normal(size=(60, 128)).astype(np.float32)
    probe[::10] = probe[0]
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    ((point, _),) = all_pairs(probe, probe, labels, fars=(1e-3,), resamples=0).tar_at_far.values()
    assert point.far == 0
    found = false_accepts(probe, probe, labels, kinds, {"1e-3": point.threshold})
    assert not any(kind["1e-3"]["impostors"] for kind in found.values())


def test_unrelated_identities_are_of_one_kind() -> None:
    assert kinds_of(open_dataset("synthetic:identities=3,images=2,size=16,seed=0")) is None
