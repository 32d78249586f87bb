"""QMUL-SurvFace's layout, written file by file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluation_toys import model
from facedistill.data.sources.survface import is_survface, open_survface
from facedistill.errors import UserError
from facedistill.evaluation import evaluate, open_sets

# Persons stand in the order of their numbers; 70 has probes only.
FILES = {
    "gallery": ["10002_cam3_1.jpg", "9_cam1_1.jpg", "9_cam2_1.jpg"],
    "mated_probe": ["10002_cam1_4.jpg", "9_cam1_2.jpg", "70_cam1_1.jpg"],
    "unmated_probe": ["x_cam1_1.jpg", "70_cam9_9.jpg"],
}


@pytest.mark.parametrize("inside", [".", "Face_Identification_Test_Set"])
def test_gallery_and_probes_share_one_numbering_and_strangers_are_nobody(
    inside: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    assert not is_survface(tmp_path)
    path = write(inside)
    assert is_survface(path)
    gallery, probes = open_survface(path).values()
    assert gallery.class_names == probes.class_names == ["9", "70", "10002", "unmated"]
    assert dict(zip(gallery.keys, gallery.labels.tolist(), strict=True)) == {
        "gallery/10002_cam3_1.jpg": 2,
        "gallery/9_cam1_1.jpg": 0,
        "gallery/9_cam2_1.jpg": 0,
    }
    assert dict(zip(probes.keys, probes.labels.tolist(), strict=True)) == {
        "mated_probe/10002_cam1_4.jpg": 2,
        "mated_probe/70_cam1_1.jpg": 1,
        "mated_probe/9_cam1_2.jpg": 0,
        "unmated_probe/70_cam9_9.jpg": 3,
        "unmated_probe/x_cam1_1.jpg": 3,
    }
    assert probes.read(0) == (Path(probes.path) / probes.keys[0]).read_bytes()


def test_it_is_an_open_set_search(write: Callable[..., Path]) -> None:
    sets = open_sets([str(write())])
    (result,) = evaluate({"m": model()}, sets, resamples=0, flip="none")["results"]
    assert result["protocol"] == "identification" and result["mated"] == 2
    assert result["probes"] == 5


def test_strangers_may_be_missing(write: Callable[..., Path]) -> None:
    assert len(open_survface(write(unmated_probe=[]))["probes"]) == 3


def test_errors_say_what_was_expected(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="not QMUL-SurvFace; expected the folders gallery, mated_probe and unmated_probe"
    ):
        open_survface(tmp_path)
    path = write(mated_probe=["anna_1.jpg"])
    with pytest.raises(UserError, match=r"mated_probe/anna_1.jpg: no person in the file's name; expected <id>_<n>.jpg"):
        open_survface(path)
    (tmp_path / "mated_probe" / "anna_1.jpg").unlink()
    for file in (tmp_path / "gallery").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="gallery: no images; QMUL-SurvFace has gallery, mated_probe"):
        open_survface(path)


def test_keys_are_in_sorted_order_for_any_file_system(write: Callable[..., Path]) -> None:
    for source in open_survface(write()).values():
        assert source.keys == sorted(source.keys) and isinstance(source.labels, np.ndarray)
