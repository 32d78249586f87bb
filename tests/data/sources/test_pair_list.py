"""Lists of pairs written by hand, as people and programs write them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facedistill.data.dataset import Dataset
from facedistill.data.sources.pair_list import load_pair_list
from facedistill.data.sources.verification import VerificationSet
from facedistill.errors import UserError


@pytest.fixture
def faces(tmp_path: Path, image: Callable[..., bytes]) -> Path:
    """A folder with the images of two people: a/0.jpg, a/1.jpg, b/0.jpg, b/1.jpg."""
    for k, person in enumerate("ab"):
        (tmp_path / person).mkdir()
        for i in range(2):
            (tmp_path / person / f"{i}.jpg").write_bytes(image(10 * k + i))
    return tmp_path


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "pairs.csv").write_bytes(text.encode(encoding))
    return folder / "pairs.csv"


LINES = ["a/0.jpg,a/1.jpg,1", "a/0.jpg,b/1.jpg,0", "b/1.jpg,b/0.jpg,1"]


def check(found: VerificationSet) -> None:
    assert found.keys == ["a/0.jpg", "a/1.jpg", "b/1.jpg", "b/0.jpg"]
    assert found.pairs.tolist() == [[0, 1], [0, 2], [2, 3]] and found.pairs.dtype == np.int64
    assert found.same.tolist() == [True, False, True] and found.same.dtype == bool


def test_pairs_in_the_order_of_the_file(faces: Path) -> None:
    found = load_pair_list(write(faces, "\n".join(LINES)))
    check(found)
    assert isinstance(found, VerificationSet)
    assert (found.path, found.name, found.identities, len(found)) == (str(faces / "pairs.csv"), "pairs", None, 4)
    assert found.read(2) == (faces / "b" / "1.jpg").read_bytes()
    assert len(set(found.labels.tolist())) == len(found.class_names) == 4
    assert [found.class_names[label] for label in found.labels] == found.keys


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("header", ["", "image1,image2,same\n", "\n\na,b,label\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", ",\n"])
def test_delimiters_headers_and_line_ends(faces: Path, delimiter: str, header: str, end: str) -> None:
    text = header + "".join(line + end for line in LINES)
    check(load_pair_list(write(faces, text.replace(",", delimiter))))
    check(load_pair_list(write(faces, text.replace(",", f" {delimiter} "), "utf-8-sig")))


@pytest.mark.parametrize("yes", ["1", "true", "True", "same", "SAME", "yes"])
@pytest.mark.parametrize("no", ["0", "false", "FALSE", "different", "no"])
def test_labels(faces: Path, yes: str, no: str) -> None:
    text = "\n".join(line[:-1] + (yes if line[-1] == "1" else no) for line in LINES)
    check(load_pair_list(write(faces, text)))


def test_quoted_paths_with_delimiters_and_other_letters(faces: Path) -> None:
    (faces / "Müller, J").mkdir()
    (faces / "Müller, J" / "0.jpg").write_bytes(b"x")
    for text in ('"Müller, J/0.jpg",a/0.jpg,0', "Müller, J/0.jpg\ta/0.jpg\t0", "Müller, J/0.jpg;a/0.jpg;0"):
        assert load_pair_list(write(faces, text)).keys == ["Müller, J/0.jpg", "a/0.jpg"]


def test_paths_of_one_file_are_one_image(faces: Path) -> None:
    found = load_pair_list(write(faces, f"./a/0.jpg,a/1.jpg,1\na//0.jpg,b/../b/0.jpg,0\n{faces}/a/0.jpg,b/0.jpg,no"))
    assert found.keys == ["a/0.jpg", "a/1.jpg", "b/0.jpg", f"{faces}/a/0.jpg"]
    assert found.read(3) == found.read(0)


def test_a_first_pair_without_extensions_is_no_header(faces: Path) -> None:
    (faces / "one").write_bytes(b"x")
    assert load_pair_list(write(faces, "one,a/0.jpg,0\none,one,1")).keys == ["one", "a/0.jpg"]
    assert load_pair_list(write(faces, "one,one,1")).pairs.tolist() == [[0, 0]]


def test_persons_in_two_more_columns(faces: Path) -> None:
    lines = ["x,y,label,left,right", "b/0.jpg,a/0.jpg,0,zoe,ann", "a/0.jpg,a/1.jpg,1,ann,ann"]
    found = load_pair_list(write(faces, "\n".join(lines)))
    assert found.identities == ["zoe", "ann", "ann"]
    assert found.class_names == ["ann", "zoe"] and found.labels.tolist() == [1, 0, 0]
    assert load_pair_list(write(faces, "\n".join(line.rsplit(",", 2)[0] for line in lines))).identities is None


def test_images_are_read_when_asked_for(faces: Path) -> None:
    found = load_pair_list(write(faces, "\n".join(LINES)))
    again = pickle.loads(pickle.dumps(found))
    (faces / "a" / "1.jpg").write_bytes(b"another")
    assert found.read(1) == again.read(1) == b"another"
    (faces / "a" / "1.jpg").unlink()
    dataset = Dataset(found, max_unreadable=1)
    assert dataset.batch([0, 1]).unreadable == ["a/1.jpg"]


def test_the_fingerprint_sees_paths_sizes_pairs_labels_and_persons(faces: Path) -> None:
    def of(text: str) -> str:
        return load_pair_list(write(faces, text)).fingerprint

    one = "a/0.jpg,a/1.jpg,1\na/1.jpg,b/0.jpg,0"
    found = [
        of(one),
        of("a/0.jpg,a/1.jpg,1\na/0.jpg,b/0.jpg,0"),
        of("a/0.jpg,a/1.jpg,1\na/1.jpg,b/0.jpg,1"),
        of("a/0.jpg,a/1.jpg,1\na/1.jpg,b/1.jpg,0"),
        of("a/0.jpg,a/1.jpg,1,x,x\na/1.jpg,b/0.jpg,0,x,y"),
        of("a/0.jpg,a/1.jpg,1,x,x\na/1.jpg,b/0.jpg,0,x,z"),
    ]
    assert of(one) == found[0]
    (faces / "a" / "0.jpg").write_bytes(b"longer" * 1000)
    assert len({*found, of(one)}) == 7


def test_the_stamp_sees_an_image_that_changed_in_place(faces: Path) -> None:
    before = load_pair_list(write(faces, "\n".join(LINES)))
    os.utime(faces / "b" / "0.jpg", ns=(0, 1))
    after = load_pair_list(write(faces, "\n".join(LINES)))
    assert after.fingerprint == before.fingerprint and after.stamp != before.stamp


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"pairs\.csv: no pairs; expected two image paths"),
        ("\n \n", "no pairs"),
        ("image,image,label\n", "no pairs"),
        ("a/0.jpg,a/1.jpg", "line 1: 2 columns; expected"),
        ("a/0.jpg a/1.jpg 1", "line 1: 1 columns"),
        ("x,y,label\n\na/0.jpg,a/1.jpg\n", "line 3: 2 columns"),
        ("a/0.jpg,a/1.jpg,1,ann", "line 1: 4 columns"),
        ("a/0.jpg,a/1.jpg,1\na/0.jpg,a/1.jpg,1,ann,ann", "line 2: 5 columns; .*, alike on all lines"),
        ("a/0.jpg,a/1.jpg,1,,ann", "line 1: 5 columns, one of them empty"),
        (",a/1.jpg,1", "line 1: 3 columns, one of them empty"),
        ("a/0.jpg,a/1.jpg,1,ann,ann,more,cells", "line 1: 7 columns"),
        ("a/0.jpg,a/1.jpg,ja", "line 1: label 'ja'; expected one of 1, true, yes, 0, false, no, same, different"),
        ("a/0.jpg,a/1.jpg,1\na/0.jpg,b/1.jpg,2", "line 2: label '2'"),
        ("h,h,h\na/0.jpg,a/7.jpg,1", r"line 2: no image .*a/7\.jpg; expected its path, relative to the folder"),
        ("a/0.jpg,b,0", "line 1: no image .*b; expected"),
        ("7.jpg,8.jpg,no\na/0.jpg,a/1.jpg,1", r"line 1: no image .*7\.jpg"),
        ("7.jpg,8.jpg,ja\na/0.jpg,a/1.jpg,1", "line 1: label 'ja'"),
        ("a/0.jpg,b/0.jpg,1,ann,bob", "line 1: label '1' for ann and bob; correct one of them"),
        ("a/0.jpg,b/0.jpg,0,ann,ann", "line 1: label '0' for ann and ann"),
        ("a/0.jpg,a/0.jpg,0", "line 1: label '0' for a/0.jpg and itself; correct one of them"),
        ("a/0.jpg,a/1.jpg,1\na/1.jpg,a/0.jpg,0", "line 2: label '0', but the same two images have another on a line"),
        ("a/0.jpg,b/0.jpg,0,ann,bob\nb/1.jpg,a/0.jpg,1,bob,bob", r"line 2: a/0\.jpg shows bob, but ann on a line"),
    ],
)
def test_one_clear_line_for_what_is_wrong(faces: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as e:
        load_pair_list(write(faces, text))
    assert str(faces / "pairs.csv") in str(e.value) and "\n" not in str(e.value)


def test_what_is_no_text(faces: Path) -> None:
    with pytest.raises(UserError, match="not UTF-8 text"):
        load_pair_list(write(faces, "a/0.jpg,Müller.jpg,1", "latin1"))
    with pytest.raises(UserError, match=r"nowhere\.csv: No such file"):
        load_pair_list(faces / "nowhere.csv")
