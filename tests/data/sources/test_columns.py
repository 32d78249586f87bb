"""Which column is the label: a choice that is open is an error, never a guess."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from facedistill.data.sources.columns import image_bytes, label_column
from facedistill.data.sources.source import classes_of_folders, numbered, stop_if_unusable
from facedistill.errors import UserError

NAMES = ["ann", "ann", "bob", "bob"]
ROWS = [0, 1, 2, 3]


def choose(class_labels: Sequence[str] = (), given: str | None = None, **columns: list[Any]) -> str:
    return label_column(list(columns), columns.__getitem__, given, {n: n for n in columns}, "faces", class_labels)


def test_the_label_is_told() -> None:
    assert choose(who=NAMES) == "who"
    assert choose(Label=NAMES, age=[1, 1, 2, 3]) == "Label"
    assert choose(id=ROWS, name=NAMES) == "name", "a column of different values numbers the rows"
    assert choose(label=[0, 0, 1, 1], identity=NAMES) == "label", "both say the same"
    assert choose(label=ROWS) == "label" and choose(label=ROWS, identity=["a", "b", "c", "d"]) == "label"
    assert choose(["person"], person=[0, 0, 1, 1], age=[3, 4, 5, 5]) == "person"
    assert choose(given="age", label=NAMES, age=[1, 1, 2, 3]) == "age"


@pytest.mark.parametrize(
    ("class_labels", "columns", "candidates"),
    [
        ([], {"id": ROWS, "who": NAMES}, r"id \(4 classes\)"),
        ([], {"label": [0, 0, 0, 1], "identity": NAMES}, r"label \(2 classes\), identity \(2 classes\)"),
        (["gender"], {"gender": [0, 1, 1, 1], "identity": NAMES}, r"gender \(2 classes\), identity \(2 classes\)"),
        ([], {"p": NAMES, "q": NAMES}, r"p \(2 classes\), q \(2 classes\)"),
        ([], {"caption": ["w", "x", "y", "z"]}, r"caption \(4 classes\)"),
    ],
)
def test_an_open_choice_lists_the_candidates(
    class_labels: list[str], columns: dict[str, list[Any]], candidates: str
) -> None:
    with pytest.raises(
        UserError, match=rf"faces: several columns could hold labels .*: {candidates}; give data.columns"
    ):
        choose(class_labels, None, **columns)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "", ".", "x\0.jpg"])
def test_a_row_names_a_file_outside(name: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="outside"):
        image_bytes({"bytes": None, "path": name}, tmp_path)
    assert image_bytes({"bytes": b"image", "path": name}, tmp_path) == b"image"


def test_a_row_names_a_file_inside(tmp_path: Any) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"image")
    for name in ("a/x.jpg", "./a/../a/x.jpg", str(tmp_path / "a/x.jpg")):
        assert image_bytes({"bytes": None, "path": name}, tmp_path) == b"image"


def test_classes_of_folders_are_decided_over_the_whole_set() -> None:
    assert classes_of_folders("x", ["t/ann/1.jpg", "t/bob/1.jpg"], "") == ["ann", "bob"]
    assert classes_of_folders("x", ["t/ann/1.jpg"], "") == ["ann"]
    assert classes_of_folders("x", ["t/p/ann/1.jpg", "t/q/ann/1.jpg"], "") == ["p/ann", "q/ann"]
    with pytest.raises(UserError, match="different depths, in ann, ann/old"):
        classes_of_folders("x", ["ann/1.jpg", "ann/old/1.jpg", "bob/1.jpg"], "")
    with pytest.raises(UserError, match=r"1\.jpg is in no class's folder"):
        classes_of_folders("x", ["ann/1.jpg", "1.jpg"], "")


def test_numbers_are_sorted_as_numbers() -> None:
    labels, names = numbered(["10", "9", "10", "009", "9" * 5000])
    assert names == ["009", "9", "10", "9" * 5000] and labels.tolist() == [2, 1, 2, 0, 3]
    assert numbered(["10", "9", "²"])[1] == ["10", "9", "²"]
    assert labels.dtype == np.int64


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "a\tb", "\x1b[31mred", "a\x00", "a\x7f", "a\x85b", "a\u2028b"])
def test_names_that_are_no_line_of_text(name: str) -> None:
    with pytest.raises(UserError, match=r"faces: class name '.*'; expected text") as e:
        stop_if_unusable(["ann", name], "faces")
    assert str(e.value).isprintable()


def test_names_of_all_languages() -> None:
    stop_if_unusable(["Ann Müller", "李小龍", "عمر", "o\u2019neil", "a\u00a0b", "\udce9", "👩‍🔬"], "faces")
