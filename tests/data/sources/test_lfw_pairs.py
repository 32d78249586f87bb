"""The pairs.txt of LFW and XQLFW, written line by line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation_toys import model
from facedistill.data.dataset import open_dataset
from facedistill.data.sources.lfw_pairs import load_lfw_pairs
from facedistill.data.sources.verification import VerificationSet
from facedistill.errors import UserError
from facedistill.evaluation import evaluate

# Two folds of two pairs of each kind.
LINES = [
    *("2\t2", "Ann_Lee\t1\t2", "Bob\t1\t3", "Ann_Lee\t1\tBob\t1", "Cy\t1\tBob\t3"),
    *("Ann_Lee\t2\t4", "Bob\t3\t1", "Cy\t1\tAnn_Lee\t4", "Bob\t1\tAnn_Lee\t2"),
]
FACES = {"Ann_Lee": (1, 2, 4), "Bob": (1, 3), "Cy": (1,)}


@pytest.fixture
def write(tmp_path: Path, image: Callable[..., bytes]) -> Callable[..., Path]:
    def write(lines: list[str] = LINES, faces: str = "xqlfw_aligned_112", ending: str = "jpg") -> Path:
        for person, numbers in FACES.items():
            for n in numbers:
                file = tmp_path / faces / person / f"{person}_{n:04}.{ending}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(image(10 * n + len(person)))
        (tmp_path / "xqlfw_pairs.txt").write_text("\n".join(lines) + "\n")
        return tmp_path / "xqlfw_pairs.txt"

    return write


@pytest.mark.parametrize("faces", ["xqlfw_aligned_112", "."])
def test_pairs_stand_in_the_order_of_the_file(faces: str, write: Callable[..., Path]) -> None:
    found = load_lfw_pairs(write(faces=faces))
    pairs = [(found.keys[a], found.keys[b], bool(same)) for (a, b), same in zip(found.pairs, found.same)]
    assert pairs[:4] == [
        ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", True),
        ("Bob/Bob_0001.jpg", "Bob/Bob_0003.jpg", True),
        ("Ann_Lee/Ann_Lee_0001.jpg", "Bob/Bob_0001.jpg", False),
        ("Cy/Cy_0001.jpg", "Bob/Bob_0003.jpg", False),
    ]
    assert found.same.tolist() == [True, True, False, False] * 2
    assert [found.class_names[label] for label in found.labels] == found.identities
    assert found.read(0) == (found.folder / found.keys[0]).read_bytes()


def test_it_is_evaluated_as_pairs_and_all_pairs(write: Callable[..., Path]) -> None:
    path = write([*LINES[:1], *(LINES[1:5] * 2)])
    source = open_dataset(path).source
    assert isinstance(source, VerificationSet) and len(source) == 6 - 1  # no line names Ann_Lee 4
    path = write()
    result = evaluate({"m": model()}, [path], protocols=["all-pairs"], resamples=0, flip="none")["results"]
    assert [(r["set"], r["protocol"], r["pairs"], r["genuine"]) for r in result] == [
        ("xqlfw_pairs", "all-pairs", 6 * 5 // 2, 3 + 1)
    ]


def test_png_spaces_and_windows_line_ends(write: Callable[..., Path]) -> None:
    path = write([line.replace("\t", "  ") + "\r" for line in LINES], ending="png")
    assert load_lfw_pairs(path).keys[0] == "Ann_Lee/Ann_Lee_0001.png"
    assert load_lfw_pairs(write(["4", *LINES[1:]], ending="png")).same.sum() == 4  # the form of LFW's first view


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Ann_Lee\t1\t2"], r"line 1: 'Ann_Lee 1 2'; expected the pairs.txt of LFW"),
        ([""], r"line 1: ''; expected"),
        (["1 1", "Ann_Lee 1"], r"line 2: 'Ann_Lee 1'; expected"),
        (["1 1", "Ann_Lee 1 Bob x"], r"line 2: 'Ann_Lee 1 Bob x'; expected"),
        (LINES[:-1], "7 pairs, but the first line promises 8; is the file whole"),
        (["0 3"], "0 pairs, but"),
        (["1 1", "Ann_Lee 1 2", "Ann_Lee 1 Bob 2"], r"no image .*Bob/Bob_0002.jpg; is the folder whole"),
        (["1 1", "Dan 1 2", "Ann_Lee 1 Bob 2"], r"no image Dan/Dan_0001.jpg in its folder or in a folder there"),
    ],
)
def test_errors_name_the_line_or_the_image(lines: list[str], message: str, write: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=message):
        load_lfw_pairs(write(lines))


def test_two_folders_of_images_are_ambiguous(write: Callable[..., Path]) -> None:
    write(faces="lfw_original")
    with pytest.raises(UserError, match=r"several folders \(lfw_original, xqlfw_aligned_112\); leave one beside it"):
        load_lfw_pairs(write())
