"""QMUL-SurvFace's verification pairs, in cell arrays as scipy writes MATLAB's files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from evaluation_toys import model
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


def test_damaged_lists_and_missing_files_are_one_line(folder: Path) -> None:
    file = folder / "negative_pairs_names.mat"
    damaged: list[tuple[Any, str]] = [
        ({"other": cells(NEGATIVE)}, "cannot be read"),
        ({"negative_pairs_names": np.zeros((2, 3))}, r"of shape \(2, 3\)"),
        ({"negative_pairs_names": np.zeros((2, 2))}, "a cell is no file name"),
        ({"negative_pairs_names": cells([("../7_cam1_1.jpg", "9_cam1_1.jpg")])}, "a cell is no file name"),
        ({"negative_pairs_names": cells([("8_cam1_1.jpg", "9_cam1_1.jpg")])}, "8_cam1_1.jpg: no such image"),
    ]
    for content, message in damaged:
        savemat(file, content)
        with pytest.raises(UserError, match=message):
            open_source(folder)
    file.write_bytes(b"MATLAB 5.0" + bytes(200))
    with pytest.raises(UserError, match="cannot be read"):
        open_source(folder)
    file.unlink()
    with pytest.raises(UserError, match="no such file; expected a MATLAB file"):
        open_source(folder)
