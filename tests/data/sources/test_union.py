"""Several data sets as one: images, classes, weights, hold-out; and what is refused."""

import pickle
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from facedistill.data import hold_out, open_dataset
from facedistill.data.dataset import Dataset
from facedistill.data.sources.open import open_source, open_union
from facedistill.data.sources.union import names_of_sets
from facedistill.errors import UsageError, UserError
from facedistill.head import Classifier

DRAWN = "synthetic:identities=3,images=2,size=16,first=50"


def test_images_come_one_set_after_the_other(folder: Path) -> None:
    first, second = open_source(folder), open_source(DRAWN)
    union = open_union([folder, DRAWN])
    assert union.keys == [f"faces/{k}" for k in first.keys] + [f"synthetic/{k}" for k in second.keys]
    assert union.class_names == [f"faces/{n}" for n in first.class_names] + [
        f"synthetic/{n}" for n in second.class_names
    ]
    assert union.labels.tolist() == [*first.labels, *(second.labels + 3)]
    for i in (0, len(first) - 1):
        assert union.read(i) == first.read(i)
    for i in range(len(second)):
        np.testing.assert_array_equal(union.read(len(first) + i), second.read(i))
    again = pickle.loads(pickle.dumps(union))
    assert again.read(0) == first.read(0) and again.fingerprint == union.fingerprint
    assert union.fingerprint != open_union([DRAWN, folder]).fingerprint
    assert open_union([folder]).keys == first.keys  # one set is itself


def test_equal_names_are_one_person_if_asked(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "more"
    (again / "b").mkdir(parents=True)
    (again / "z").mkdir()
    for name in ("b", "z"):
        (again / name / "1.jpg").write_bytes((folder / "a" / "00.jpg").read_bytes())
    assert open_union([folder, again]).class_names == ["faces/a", "faces/b", "faces/c", "more/b", "more/z"]
    same = open_union([folder, again], classes="same")
    assert same.class_names == ["a", "b", "c", "z"]
    assert same.labels[-2:].tolist() == [1, 3] and same.keys[-2:] == ["more/b/1.jpg", "more/z/1.jpg"]


def test_names_from_a_mac_and_from_a_keyboard_are_one_class(folder: Path, tmp_path: Path) -> None:
    """A Mac may write letter and accent apart (NFD), keyboards write one letter (NFC)."""
    image, name = (folder / "a" / "00.jpg").read_bytes(), "Jos\N{LATIN SMALL LETTER E WITH ACUTE}"
    apart = unicodedata.normalize("NFD", name)
    for person in (tmp_path / "typed" / name, tmp_path / "mac" / apart):
        person.mkdir(parents=True)
        (person / "1.jpg").write_bytes(image)
    union = open_union([tmp_path / "typed", tmp_path / "mac"], classes="same")
    assert union.class_names == [name] and union.labels.tolist() == [0, 0] and union.read(1) == image
    w = Classifier(torch.eye(2), ["b", apart])
    assert w.select(union.class_names).weight.tolist() == [[0, 1]]
    if sys.platform != "darwin":  # there the two forms name one folder
        (tmp_path / "typed" / apart).mkdir()
        (tmp_path / "typed" / apart / "2.jpg").write_bytes(image)
        with pytest.raises(
            UserError, match=f"are called '{name}': they differ in spaces around the name, or in the form"
        ):
            open_source(tmp_path / "typed")
    (folder / "a").rename(folder / "b ")
    with pytest.raises(UserError, match="two classes or labels are called 'b': they differ in spaces around the name"):
        open_source(folder)


def test_classes_are_merged_by_a_table(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("faces/a,Ann\nsynthetic/id000051,Ann\nfaces/c,faces/b\n", "utf-8")
    union = open_union([folder, DRAWN], classes=str(table))
    assert union.class_names == ["Ann", "faces/b", "synthetic/id000050", "synthetic/id000052"]
    names = [union.class_names[i] for i in union.labels]
    assert (
        names == ["Ann"] * 2 + ["faces/b"] * 10 + ["synthetic/id000050"] * 2 + ["Ann"] * 2 + ["synthetic/id000052"] * 2
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("faces/a,Ann\nfaces/x,Bob\n", r"people.csv, line 2: no set has the class 'faces/x'$"),
        ("ann,Ann\n", r"line 1: no set has the class 'ann'; a name begins with that of its set: faces/, synthetic/"),
        ("faces/a,Ann\nfaces/a,Bob\n", r"line 2: 'faces/a' is listed before, on line 1"),
        ("faces/a,Ann,x\n", r"line 1: 3 cells, or an empty one; expected the class of a set and its new name"),
        ("", r"people.csv: no line"),
    ],
)
def test_a_wrong_table_is_one_line(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_union([folder, DRAWN], classes=str(tmp_path / "people.csv"))


def test_what_needs_several_sets_or_names_none(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"data.weights: no set is called 'face' \(did you mean 'faces'\?\)"):
        open_union([folder, DRAWN], weights={"face": 2.0})
    with pytest.raises(UsageError, match=r"data.weights: needs several data sets"):
        open_union([folder], weights={"faces": 2.0})
    with pytest.raises(UsageError, match=r"data.classes: needs several data sets"):
        open_union([folder], classes="same")
    with pytest.raises(UserError, match=r"nowhere.csv: .*expected the class of a set"):
        open_union([folder, DRAWN], classes="nowhere.csv")
    with pytest.raises(UsageError, match=r"data.columns: none of .* has columns"):
        open_union([folder, DRAWN], {"label": "x"})


def test_columns_are_those_of_the_tables(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "1.jpg").write_bytes((folder / "a" / "00.jpg").read_bytes())
    (listed / "metadata.csv").write_text("file_name,person,shirt\n1.jpg,ann,red\n")
    assert open_union([folder, listed], {"label": "shirt"}).class_names[-1] == "listed/red"


def test_sets_have_short_different_names(tmp_path: Path) -> None:
    specs: list[str | Path] = [tmp_path / "a" / "faces", tmp_path / "b" / "faces", "synthetic:size=16"]
    specs += ["unlabelled:x/web", "unlabelled:synthetic:seed=2"]
    assert names_of_sets(specs) == ["faces", "faces-2", "synthetic", "web", "synthetic-2"]
    assert names_of_sets(["my:Own:x", "train.rec", "faces/"]) == ["my", "train.rec", "faces"]


def test_weights_are_those_of_the_images_wherever_they_go(folder: Path) -> None:
    union = open_union([folder, DRAWN], weights={"synthetic": 0.5})
    expected = np.array([1.0] * 12 + [0.5] * 6)
    dataset = Dataset(union)
    np.testing.assert_array_equal(dataset.weights, expected)
    np.testing.assert_array_equal(dataset.subset([0, 17]).in_memory().weights, [1, 0.5])
    assert open_dataset([str(folder), DRAWN]).weights is None


def test_people_are_held_out_of_the_first_set_as_if_it_were_alone(folder: Path) -> None:
    people = "synthetic:identities=20,images=2,size=16"
    alone = hold_out(open_dataset(people), 0.2, 3)[1]
    unknown = f"unlabelled:{DRAWN}"
    for specs in ([people, DRAWN], [unknown, people], [people, unknown, str(folder)]):
        train, held = hold_out(open_dataset(specs), 0.2, 3)
        assert [name.partition("/")[2] for name in held.class_names] == alone.class_names
        assert [key.partition("/")[2] for key in held.keys] == alone.keys
        assert len(train) + len(held) == len(open_dataset(specs))


def test_who_is_held_out_is_in_no_other_set(tmp_path: Path) -> None:
    people = "synthetic:identities=20,images=2,size=16"
    union = Dataset(open_union([people, "synthetic:identities=15,images=1,size=16"], classes="same"))
    train, held = hold_out(union, 0.3, 0)
    assert not set(train.class_names) & set(held.class_names) and len(held.class_names) == 6
    assert any(key.startswith("synthetic-2/") for key in held.keys)


def test_a_family_is_one_in_a_set_of_several(tmp_path: Path, folder: Path) -> None:
    for member in range(4):
        (tmp_path / "fiw" / f"fiw_F0001_MID{member}").mkdir(parents=True)
        (tmp_path / "fiw" / f"fiw_F0001_MID{member}" / "1.jpg").write_bytes((folder / "a" / "00.jpg").read_bytes())
    with pytest.raises(UserError, match="4 classes are tied together in 1 groups, the smallest of 4"):
        hold_out(open_dataset([str(tmp_path / "fiw"), DRAWN]), 0.5, 0)
