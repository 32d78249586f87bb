"""Subsets of classes or labels: from a file, from the data, by the number of images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.data import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import by_shots
from facedistill.head.classifier import Classifier
from facedistill.training.subsets import read_subsets, save_subsets, similar_subsets, take_subset

PEOPLE = "synthetic:identities=4,images=3,size=16"
LABELS = "synthetic:identities=40,images=2,size=16,task=attributes"


def test_a_subset_of_classes_or_of_labels(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("old: [id000002, id000000]\nnew: [id000001, id000002]\n")
    people = open_dataset(PEOPLE)
    part = take_subset(people, f"{tmp_path}/s.yaml:old")
    assert part.class_names == ["id000000", "id000002"] and len(part) == 6
    assert take_subset(people, "few").class_names == people.class_names
    faces = open_dataset(LABELS)
    eyes = take_subset(faces, "eyes")
    assert eyes.targets == ["glasses", "frown", "dark glasses", "narrow eyes"]
    assert eyes.multi_hot is not None and eyes.multi_hot.any(1).all() and 0 < len(eyes) < len(faces)
    kept = faces.multi_hot[:, [faces.label_names.index(n) for n in eyes.targets]]  # type: ignore[index]
    assert (kept[kept.any(1)] == eyes.multi_hot).all()


def test_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    subsets = {"eyes": ["glasses", "frown, deep"], "all": ["frown, deep"]}
    save_subsets(tmp_path / "s.csv", subsets)
    assert read_subsets(tmp_path / "s.csv") == subsets
    with pytest.raises(UsageError, match=r"expected a \.csv"):
        save_subsets(tmp_path / "s.yaml", subsets)


def test_shots() -> None:
    found = by_shots(np.array([100, 99, 21, 20, 0]))
    assert [np.flatnonzero(found[name]).tolist() for name in ("many", "medium", "few")] == [[0], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "subset", "message"),
    [
        ("a: [nobody]", "a", "has no class or label nobody"),
        ("a: [id000001]", "b", "no subset 'b'"),
        ("a: id000001", "a", "expected a name and its classes"),
        ("a: [", "a", "not YAML"),
        ("[]", "a", "expected a name and its classes"),
        ("", "a", "expected a name and its classes"),
    ],
)
def test_refused(tmp_path: Path, text: str, subset: str, message: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        take_subset(open_dataset(PEOPLE), f"{tmp_path}/s.yaml:{subset}")


def test_a_subset_without_images_or_name() -> None:
    with pytest.raises(UserError, match="no image has one of its 0 classes"):
        take_subset(open_dataset(PEOPLE), "many")
    with pytest.raises(UsageError, match=r"no subset 'eye'.*did you mean 'eyes'"):
        take_subset(open_dataset(LABELS), "eye")


def test_a_line_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("a,id000001\nb\n")
    with pytest.raises(UserError, match="line 2: 1 cells"):
        read_subsets(tmp_path / "s.csv")


def test_similar_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.eye(3, 8)[[0, 1, 2, 0, 1, 2, 0]]
    rows = Classifier(middles + 0.1 * torch.randn(7, 8, generator=generator), list("abcdefg"))
    found = similar_subsets(rows, 3)
    assert sorted(map(tuple, found.values())) == [("a", "d", "g"), ("b", "e"), ("c", "f")]
    assert similar_subsets(rows, 1) == {"1": list("abcdefg")}
    assert sorted(map(tuple, similar_subsets(rows, 7).values())) == [(name,) for name in "abcdefg"]
    alike = Classifier(torch.ones(4, 2), list("abcd"))
    assert all(similar_subsets(alike, 3).values()) and sum(map(len, similar_subsets(alike, 3).values())) == 4
    with pytest.raises(UsageError, match="8 subsets of 7 classes: expected 1 to 7"):
        similar_subsets(rows, 8)
