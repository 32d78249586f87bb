from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from facedistill.data.dataset import Dataset, open_dataset
from facedistill.data.sources.source import Source
from facedistill.data.split import components, groups, hold_out, of_each_class
from facedistill.errors import UsageError, UserError


class Names(Source):
    """A source of keys alone: "identity/file"."""

    def __init__(self, keys: list[str]) -> None:
        self.path, self.keys, self.fingerprint = "names", keys, "names"
        names, labels = np.unique([key.split("/")[0] for key in keys], return_inverse=True)
        self.class_names, self.labels = names.tolist(), labels.astype(np.int64)

    def read(self, i: int) -> np.ndarray:
        return np.zeros((2, 2, 3), dtype=np.uint8)


def test_groups_name_identity_family_and_photo() -> None:
    keys = ["fiw_F0001_MID2/P00001_face1.jpg", "fiw_F0001_MID2/other.jpg", "celeba_7/P00001_face1.jpg"]
    assert groups(Dataset(Names(keys))) == [
        ("identity fiw_F0001_MID2", "family F0001", "photo F0001/P00001"),
        ("identity fiw_F0001_MID2", "family F0001"),
        ("identity celeba_7",),
    ]


@given(st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3).map(tuple), min_size=1, max_size=15))
def test_components_are_those_of_the_graph(ties: list[tuple[str, ...]]) -> None:
    """Against the transitive closure of "shares a tie", by repeated squaring of the adjacency matrix."""
    near = np.array([[bool(set(a) & set(b)) for b in ties] for a in ties])
    for _ in range(5):
        near = (near.astype(int) @ near) > 0
    found = components(ties)
    assert ((found[:, None] == found[None, :]) == near).all()


def people(families: int, members: int, others: int) -> Dataset:
    names = [f"fiw_F{f:04d}_MID{m}" for f in range(families) for m in range(members)]
    names += [f"celeba_{k}" for k in range(others)]
    return Dataset(Names([f"{name}/P{i:05d}_face1.jpg" for name in names for i in range(3)]))


def test_families_stay_together_and_the_share_is_of_identities() -> None:
    dataset = people(40, 3, 80)
    train, held = hold_out(dataset, 0.2, 0)
    assert len(held.class_names) == 40 and len(train.class_names) == 160
    assert not {t for g in groups(train) for t in g} & {t for g in groups(held) for t in g}
    assert sorted(train.keys + held.keys) == sorted(dataset.keys)
    assert any(n.startswith("fiw") for n in held.class_names) and any(n.startswith("cel") for n in held.class_names)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0.05, 0.95), st.integers(0, 3))
def test_of_each_class_the_share_is_held_out_and_one_image_stays(labels: list[int], share: float, seed: int) -> None:
    labels_of = np.array(labels)
    held = of_each_class(labels_of, share, seed)
    for label in set(labels):
        own, count = held[labels_of == label], labels.count(label)
        assert own.sum() == min(int(np.floor(share * count + 0.5)), count - 1)
    assert (held == of_each_class(labels_of, share, seed)).all()


def test_images_of_each_class_are_held_out() -> None:
    dataset = people(2, 2, 3)
    train, held = hold_out(dataset, 0.34, 0, of_images=True)
    assert train.class_names == held.class_names == dataset.class_names and len(held) == 7 and len(train) == 14
    other = hold_out(dataset, 0.34, 1, of_images=True)[1]
    assert set(held.keys) != set(other.keys)
    with pytest.raises(UserError, match=r"no class has enough images to hold out 0\.1 of them"):
        hold_out(dataset, 0.1, 0, of_images=True)


def test_the_split_depends_on_the_seed_alone() -> None:
    first, again, other = (hold_out(people(40, 3, 80), 0.2, seed)[1] for seed in (1, 1, 2))
    assert first.keys == again.keys and first.fingerprint == again.fingerprint
    assert first.keys != other.keys


def test_a_family_that_is_too_large_is_passed_over() -> None:
    _, held = hold_out(people(1, 50, 50), 0.1, 0)
    assert len(held.class_names) == 10 and all(name.startswith("celeba") for name in held.class_names)


def test_faults_are_named() -> None:
    with pytest.raises(UserError, match="10 classes are tied together in 1 groups, the smallest of 10"):
        hold_out(people(1, 10, 0), 0.5, 0)
    with pytest.raises(UsageError, match="between 0 and 1"):
        hold_out(people(2, 2, 2), 1.0, 0)


def test_the_real_faces(shared: Path, tmp_path: Path) -> None:
    """Names from train_index.csv: the split needs no pixels."""
    lines = (shared / "train_index.csv").read_text().splitlines()[1:]
    dataset = Dataset(Names(["/".join(line.split(",")[:2]) for line in lines]))
    train, held = hold_out(dataset, 0.1, 0)
    assert (len(dataset), len(dataset.class_names)) == (15501, 1729)
    assert 165 <= len(held.class_names) <= 172 and len(held.class_names) + len(train.class_names) == 1729
    assert not {t for g in groups(train) for t in g} & {t for g in groups(held) for t in g}


def test_open_dataset_folders_split(folder: Path) -> None:
    train, held = hold_out(open_dataset(folder), 0.34, 0)
    assert len(held.class_names) == 1 and len(train.class_names) == 2
    assert train.batch([0]).images.shape == held.batch([0]).images.shape
