"""QMUL-SurvFace's verification pairs, in cell arrays as scipy writes MATLAB's files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from evaluation_toys import model
from facedistill.data.sources.matlab import cells_of_text
from facedistill.data.sources.open import open_source
from facedistill.data.sources.survface_pairs import SurvFacePairs
from facedistill.errors import UserError
from facedistill.evaluation import evaluate

POSITIVE = [("7_cam1_1.jpg", "7_cam2_1.jpg"), ("9_cam1_1.jpg", "9_cam1_2.jpg"), ("7_cam1_1.jpg", "7_cam1_2.jpg")]
NEGATIVE = [("7_cam1_1.jpg", "9_cam1_1.jpg"), ("12_cam3_1.jpg", "9_cam1_2.jpg")]


def cells(pairs: list[tuple[str, str]]) -> np.ndarray:
    return np.array([[np.array([name]) for name in row] for row in pairs], dtype=object).reshape(len(pairs), 2)


@pytest.fixture
def folder(tmp_path: Path, image: Callable[..., bytes]) -> Path:
    (tmp_path / "verification_images").mkdir()
    for number, name in enumerate(sorted({name for row in POSITIVE + NEGATIVE for name in row})):
        (tmp_path / "verification_images" / name).write_bytes(image(number))
    savemat(tmp_path / "positive_pairs_names.mat", {"positive_pairs_names": cells(POSITIVE)})
    savemat(tmp_path / "negative_pairs_names.mat", {"negative_pairs_names": cells(NEGATIVE)}, do_compression=True)
    return tmp_path


def test_pairs_of_one_person_and_of_two_stand_in_turn(folder: Path) -> None:
    found = open_source(folder)
    assert isinstance(found, SurvFacePairs) and found.identities is None
    pairs = [(found.keys[a], found.keys[b]) for a, b in found.pairs]
    assert pairs == [POSITIVE[0], NEGATIVE[0], POSITIVE[1], NEGATIVE[1], POSITIVE[2]]
    assert found.same.tolist() == [True, False, True, False, True]
    assert found.read(0) == (folder / "verification_images" / "7_cam1_1.jpg").read_bytes()


def test_it_is_evaluated_as_pairs(folder: Path) -> None:
    savemat(folder / "positive_pairs_names.mat", {"positive_pairs_names": cells(POSITIVE * 2)})
    savemat(folder / "negative_pairs_names.mat", {"negative_pairs_names": cells(NEGATIVE * 3)})
    (result,) = evaluate({"student": model(0)}, {"survface": folder}, fars=[0.3], resamples=0)["results"]
    assert result["protocol"] == "pairs" and 0 <= result["tar_at_far"]["3e-1"]["value"] <= 1


def test_names_beyond_ascii_and_files_of_the_other_byte_order(folder: Path) -> None:
    names = ["7_cäm1_1.jpg", "7_cam2_1.jpg"]
    savemat(folder / "x.mat", {"first": np.arange(3), "names": cells([(names[0], names[1])])})
    assert cells_of_text((folder / "x.mat").read_bytes(), "names") == ((1, 2), names)
    text = _matrix(4, (1, 5), b"", _element(4, "9.jpg".encode("utf-16-be")))
    array = _matrix(1, (1, 2), b"names", text + text)
    file = bytes(124) + b"\x01\x00MI" + array
    assert cells_of_text(file, "names") == ((1, 2), ["9.jpg"] * 2)


def _element(kind: int, content: bytes) -> bytes:
    """An element in the byte order of large machines, by the format's definition."""
    return kind.to_bytes(4) + len(content).to_bytes(4) + content + bytes(-len(content) % 8)


def _matrix(kind: int, shape: tuple[int, int], name: bytes, content: bytes) -> bytes:
    flags = _element(6, kind.to_bytes(4) + bytes(4))
    sides = _element(5, b"".join(side.to_bytes(4) for side in shape))
    return _element(14, flags + sides + _element(1, name) + content)


def test_damaged_lists_and_missing_files_are_one_line(folder: Path) -> None:
    file = folder / "negative_pairs_names.mat"
    damaged: list[tuple[Any, str]] = [
        ({"other": cells(NEGATIVE)}, "cannot be read: no variable negative_pairs_names"),
        ({"negative_pairs_names": cells(NEGATIVE).T.reshape(4, 1)}, r"of shape \(4, 1\)"),
        ({"negative_pairs_names": np.zeros((2, 2))}, "negative_pairs_names is no cell array"),
        (
            {"negative_pairs_names": np.array([[np.zeros(3)] * 2] * 2 + [[0, 0]], dtype=object)},
            "a cell that is no text",
        ),
        ({"negative_pairs_names": cells([("../7_cam1_1.jpg", "9_cam1_1.jpg")])}, "a cell is no file name"),
        ({"negative_pairs_names": cells([("8_cam1_1.jpg", "9_cam1_1.jpg")])}, "8_cam1_1.jpg: no such image"),
    ]
    for content, message in damaged:
        savemat(file, content)
        with pytest.raises(UserError, match=message):
            open_source(folder)
    savemat(file, {"negative_pairs_names": cells(NEGATIVE)})
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="an element is longer than the file"):
        open_source(folder)
    file.write_bytes(b"MATLAB 5.0" + bytes(200))
    with pytest.raises(UserError, match="cannot be read"):
        open_source(folder)
    file.unlink()
    with pytest.raises(UserError, match="no such file; expected a MATLAB file"):
        open_source(folder)
