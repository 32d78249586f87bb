"""A selection of another data set: what it gives, what it refuses, and that it is told from a list of pairs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facedistill.data import open_dataset, open_source, save_selection
from facedistill.data.sources.open import form_of
from facedistill.data.sources.pair_list import PairList
from facedistill.data.sources.selection import SelectionSource
from facedistill.errors import UserError


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for person, shade in (("ann", 10), ("=b, \N{LATIN SMALL LETTER O WITH DIAERESIS}", 60), ("zoe", 200)):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (shade + i,) * 3).save(tmp_path / "faces" / person / f"{i} .png")
    return tmp_path / "faces"


def test_images_classes_and_order(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "selection.csv"
    out.parent.mkdir()
    keys = ["zoe/2 .png", "ann/0 .png", "=b, \N{LATIN SMALL LETTER O WITH DIAERESIS}/1 .png"]
    save_selection(out, faces, keys, ["zoe", "ann (2)", "ann"])
    assert out.read_text("utf-8").splitlines()[0] == "facedistill selection of,../faces"
    for place in (out, out.parent):
        dataset = open_dataset(place)
        assert dataset.keys == keys
        assert [dataset.class_names[i] for i in dataset.labels] == ["zoe", "ann (2)", "ann"]
        assert dataset.class_names == ["ann", "zoe", "ann (2)"]  # the original's order, then new ones
        assert [int(dataset.image(i)[0, 0, 0]) for i in range(3)] == [202, 10, 61]
    (tmp_path / "elsewhere").mkdir()
    tmp_path.joinpath("out").rename(tmp_path / "elsewhere" / "out")
    faces.rename(tmp_path / "elsewhere" / "faces")
    assert len(open_source(tmp_path / "elsewhere" / "out")) == 3  # moved together


def test_of_any_form_and_of_itself_again(tmp_path: Path) -> None:
    spec = "synthetic:identities=3,images=2,size=16"
    original = open_source(spec)
    save_selection(tmp_path / "a.csv", spec, original.keys[1:], ["x"] * 5)
    first = open_source(tmp_path / "a.csv")
    np.testing.assert_array_equal(first.read(0), original.read(1))
    save_selection(tmp_path / "b.csv", tmp_path / "a.csv", first.keys[1:], ["y"] * 4)
    second = open_source(tmp_path / "b.csv")
    np.testing.assert_array_equal(second.read(0), original.read(2))
    assert len({original.fingerprint, first.fingerprint, second.fingerprint}) == 3


def test_the_fingerprint_follows_images_and_classes(faces: Path, tmp_path: Path) -> None:
    made = []
    for keys, names in ((["ann/0 .png"], ["a"]), (["ann/1 .png"], ["a"]), (["ann/1 .png"], ["b"])):
        save_selection(tmp_path / "s.csv", faces, keys, names)
        made.append(open_source(tmp_path / "s.csv").fingerprint)
    assert len(set(made)) == 3


def test_a_list_of_pairs_is_none(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("a.png,b.png,1\n")
    assert form_of(tmp_path / "pairs.csv") is PairList
    (tmp_path / "s.csv").write_text("facedistill selection of,synthetic\n")
    assert form_of(tmp_path / "s.csv") is SelectionSource


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["facedistill selection of,faces"], "no image is listed"),
        (["facedistill selection of"], "line 1: .*expected 'facedistill selection of',DATA"),
        (["facedistill selection of,faces", "ann/0 .png"], "line 2: 1 cells"),
        (["facedistill selection of,faces", "ann/7.png,ann"], "line 2: no image ann/7.png in .*faces"),
        (["facedistill selection of,faces", "ann/0 .png,ann", "ann/0 .png,ann"], "line 3: ann/0 .png is listed before"),
        (["facedistill selection of,nowhere", "ann/0 .png,ann"], "nowhere: no such file or folder"),
        (["facedistill selection of,s.csv", "ann/0 .png,ann"], "cannot be read"),
        (["facedistill selection of,faces", '"ann/0 .png","a\nb"'], "class name 'a.nb'"),
    ],
)
def test_bad_lists(lines: list[str], message: str, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "s.csv")
