"""Landmarks from files: the lists that the field has, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from facedistill.errors import UserError
from facedistill.preparation import read_landmarks

FIVE = "30.5 51 65 51.5 48 71 33 92 62 92"


@pytest.mark.parametrize(
    "text",
    [
        f"a.jpg {FIVE} 0.98\nb.jpg {FIVE} 0.5\n",  # IJB's name_5pts_score.txt
        f"a.jpg\t{FIVE.replace(' ', chr(9))}\nb.jpg\t{FIVE.replace(' ', chr(9))}\n",
        "file,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n" + "".join(f"{n}.jpg,{FIVE.replace(' ', ',')}\n" for n in "ab"),
        "\ufefffile,l,t,w,h,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\r\n"
        + "".join(f"{n}.jpg,1,2,3,4,{FIVE.replace(' ', ',')}\r\n" for n in "ab"),
        f"2\nlefteye_x lefteye_y righteye_x righteye_y\na.jpg  {FIVE}\nb.jpg  {FIVE}\n",  # CelebA's
    ],
)
def test_lists_of_the_field(text: str, tmp_path: Path) -> None:
    (tmp_path / "points.txt").write_text(text, encoding="utf-8")
    found = read_landmarks(tmp_path / "points.txt")
    assert list(found) == ["a.jpg", "b.jpg"]
    np.testing.assert_allclose(found["a.jpg"][0].ravel(), [float(v) for v in FIVE.split()])


def test_several_faces_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(f"a.jpg {FIVE}\na.jpg {FIVE}\n")
    assert len(read_landmarks(tmp_path / "p.txt")["a.jpg"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no landmarks"),
        (f"a.jpg {FIVE}\nb.jpg 1 2 3\n".encode(), "line 2 is 'b.jpg 1 2 3'"),
        (f"a.jpg {FIVE}\nb.jpg {FIVE.replace('51.5', 'nan')}\n".encode(), "line 2"),
        (b"a.jpg 65 51 30 51 48 71 33 92 62 92\n", "the first eye lies right of the second in 1 of 1 lines"),
        (b"\xff\xfe\xff", "not UTF-8"),
    ],
)
def test_what_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_landmarks(tmp_path / "p.txt")
    with pytest.raises(UserError, match="cannot read landmarks"):
        read_landmarks(tmp_path / "nowhere.txt")


def test_line_ends_of_any_kind_and_none_inside_a_cell(tmp_path: Path) -> None:
    """A lone carriage return made Python's reader raise its own error."""
    line = FIVE.replace(" ", ",")
    (tmp_path / "p.csv").write_bytes(f"a.jpg,{line}\rb.jpg,{line}\r".encode())
    assert list(read_landmarks(tmp_path / "p.csv")) == ["a.jpg", "b.jpg"]
    (tmp_path / "p.csv").write_bytes(b'a.jpg,"' + b"x" * 200_000 + b"\n")
    with pytest.raises(UserError, match="field larger than field limit"):
        read_landmarks(tmp_path / "p.csv")
