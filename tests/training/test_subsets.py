"""Subsets of classes or labels: from a file, from the data, by the number of images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facedistill.data import open_dataset
from facedistill.errors import UsageError, UserError
from facedistill.evaluation import by_shots
from facedistill.head.classifier import Classifier
from facedistill.models.folder import load_model
from facedistill.recipe.read import make_recipe
from facedistill.training.engine import train
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
    assert eyes.multi_hot is not None and faces.multi_hot is not None
    own = faces.multi_hot[:, [faces.label_names.index(n) for n in eyes.targets]]
    healthy = ~faces.multi_hot.any(1)  # images without any label belong to every subset
    assert healthy.any() and (~own.any(1) & ~healthy).any()
    assert (own[own.any(1) | healthy] == eyes.multi_hot).all()


def _trained(out: Path, source: str, **changes: Any) -> Path:
    raw = {
        "data": {"train": source, "hold_out": 0},
        "student": {"input_size": 32, "embedding_dim": 8, "options": {"width": 0.125}},
        "method": {"name": "scratch"},
        "schedule": {"epochs": 1, "batch": 4, "lr": 0.05},
        "check": {"own_class": 0},
    }
    return train(make_recipe(raw | changes), out)


def test_a_student_inherits_the_classifiers_of_subset_teachers(tmp_path: Path) -> None:
    data, file = "synthetic:identities=6,images=4,size=32,seed=3", tmp_path / "s.yaml"
    file.write_text("one: [id000000, id000001, id000002]\ntwo: [id000002, id000003, id000004, id000005]\n")
    teachers = {
        name: str(_trained(tmp_path / name, data, data={"train": data, "hold_out": 0, "subset": f"{file}:{name}"}))
        for name in ("one", "two")
    }
    names = {name: load_model(path).classifier.class_names for name, path in teachers.items()}  # type: ignore[union-attr]
    assert names == {"one": [f"id00000{i}" for i in range(3)], "two": [f"id00000{i}" for i in range(2, 6)]}
    terms = {
        "subset_softmax": {"teacher": "one", "scale": 16},
        "two": {"term": "subset_softmax", "teacher": "two", "scale": 16},
    }
    method = {"name": "proxylesskd_subsets", "terms": terms}
    run = _trained(tmp_path / "student", data, teachers=teachers, method=method)
    assert load_model(run).space == load_model(teachers["one"]).space  # a projection leads to the other's W
    only_one = {"name": "proxylesskd_subsets", "terms": {"subset_softmax": {"teacher": "one"}}}
    with pytest.raises(UserError, match=r"3 of 6 classes are in no teacher's subset \(id000003, "):
        _trained(tmp_path / "x", data, teachers=teachers, method=only_one)
    with pytest.raises(UsageError, match=r"start=centres: a subset is that of the classes which a teacher's own W"):
        _trained(tmp_path / "y", data, teachers=teachers, method=method | {"classifier": {"start": "centres"}})
    with pytest.raises(UserError, match="its W knows none of the 6 classes"):
        _trained(tmp_path / "z", f"{data},first=100", teachers=teachers, method=method)


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
