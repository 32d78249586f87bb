"""TinyFace's layout, written file by file."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from facedistill.data.dataset import Dataset
from facedistill.data.sources.tinyface import is_tinyface, open_tinyface
from facedistill.errors import UserError

# 2 before 10: persons stand in the order of their numbers; 11 has a probe only, 30 a gallery image only
FILES = {
    "Gallery_Match": ["10_1.jpg", "2_4.jpg", "2_9.jpg", "30_2.jpg"],
    "Probe": ["10_3.jpg", "11_1.jpg", "2_1.jpg"],
    "Gallery_Distractor": ["1_2_3.jpg", "some/some name.jpg"],
}


def test_gallery_and_probes_share_one_numbering(write: Callable[..., Path]) -> None:
    path = write()
    parts = open_tinyface(path)
    assert list(parts) == ["gallery", "probes", "distractors"]
    gallery, probes, distractors = parts.values()
    assert gallery.class_names == probes.class_names == ["2", "10", "11", "30"]
    assert dict(zip(gallery.keys, gallery.labels.tolist(), strict=True)) == {
        "Gallery_Match/10_1.jpg": 1,
        "Gallery_Match/2_4.jpg": 0,
        "Gallery_Match/2_9.jpg": 0,
        "Gallery_Match/30_2.jpg": 3,
    }
    assert dict(zip(probes.keys, probes.labels.tolist(), strict=True)) == {
        "Probe/10_3.jpg": 1,
        "Probe/11_1.jpg": 2,
        "Probe/2_1.jpg": 0,
    }
    assert distractors.keys == ["Gallery_Distractor/1_2_3.jpg", "Gallery_Distractor/some/some name.jpg"]
    assert (distractors.class_names, distractors.labels.tolist()) == (["distractor"], [0, 0])


def test_images_are_read_also_after_pickling(write: Callable[..., Path]) -> None:
    path = write()
    for source in open_tinyface(path).values():
        again = pickle.loads(pickle.dumps(source))
        for i, key in enumerate(source.keys):
            assert again.read(i) == (path / key).read_bytes()
        assert len(Dataset(source).batch(range(len(source)))) == len(source)


@pytest.mark.parametrize("inside", [".", "Testing_Set", "aligned_pad_0.1_pad_high"])
def test_wherever_the_folders_stand(inside: str, write: Callable[..., Path], tmp_path: Path) -> None:
    assert not is_tinyface(tmp_path)
    write(inside)
    assert is_tinyface(tmp_path)
    assert len(open_tinyface(tmp_path)["probes"]) == 3
    assert len(open_tinyface(str(tmp_path / inside))["probes"]) == 3


def test_aligned_faces_go_before_the_published_ones(write: Callable[..., Path]) -> None:
    write("Testing_Set")
    write("aligned_112")
    assert Path(open_tinyface(write("aligned_112"))["gallery"].path).name == "aligned_112"
    with pytest.raises(UserError, match=r"several TinyFace sets \(aligned_112, aligned_96\); name one of them"):
        open_tinyface(write("aligned_96"))


def test_hidden_and_other_files_are_skipped(write: Callable[..., Path]) -> None:
    path = write(Probe=["10_3.jpg", "._10_3.jpg", "list.txt", ".cache/1_1.jpg"])
    assert open_tinyface(path)["probes"].keys == ["Probe/10_3.jpg"]


def test_distractors_may_be_missing(write: Callable[..., Path]) -> None:
    assert list(open_tinyface(write(Gallery_Distractor=[]))) == ["gallery", "probes"]


def test_the_fingerprint_sees_names_sizes_and_numbering(write: Callable[..., Path]) -> None:
    path = write()
    seen = [open_tinyface(path)["gallery"].fingerprint]
    assert open_tinyface(path)["gallery"].fingerprint == seen[0]
    for change in (
        lambda: (path / "Gallery_Match" / "2_4.jpg").write_bytes(b"x"),
        lambda: (path / "Gallery_Match" / "2_4.jpg").rename(path / "Gallery_Match" / "2_5.jpg"),
        lambda: (path / "Probe" / "11_1.jpg").rename(path / "Probe" / "12_1.jpg"),
    ):
        change()
        seen.append(open_tinyface(path)["gallery"].fingerprint)
    assert len(set(seen)) == 4


def test_the_stamp_sees_an_image_that_changed_in_place(write: Callable[..., Path]) -> None:
    path = write()
    before = open_tinyface(path)
    os.utime(path / "Probe" / "2_1.jpg", ns=(0, 1))
    after = open_tinyface(path)
    assert after["probes"].fingerprint == before["probes"].fingerprint
    assert after["probes"].stamp != before["probes"].stamp and after["gallery"].stamp == before["gallery"].stamp


def test_errors_say_what_was_expected(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not TinyFace; expected the folders Gallery_Match, Probe"):
        open_tinyface(tmp_path)
    (tmp_path / "Gallery_Match").mkdir()
    with pytest.raises(UserError, match="Gallery_Match: no images"):
        open_tinyface(tmp_path)
    path = write(Probe=[])
    with pytest.raises(UserError, match="Probe: no images; TinyFace has Gallery_Match, Probe"):
        open_tinyface(path)
    path = write(Probe=["10_3.jpg", "anna_1.jpg"])
    with pytest.raises(UserError, match=r"Probe/anna_1.jpg: no person in the file's name; expected <id>_<n>.jpg"):
        open_tinyface(path)


def test_system_folders_are_skipped_and_dead_links_counted(write: Callable[..., Path]) -> None:
    path = write()
    before = open_tinyface(path)["probes"].keys
    (path / "Probe" / "@eaDir").mkdir()
    (path / "Probe" / "@eaDir" / "2_1.jpg").write_bytes(b"x")
    assert open_tinyface(path)["probes"].keys == before
    (path / "Probe" / "2_7.jpg").symlink_to("/nowhere/x.jpg")
    dataset = Dataset(open_tinyface(path)["probes"], max_unreadable=1)
    assert dataset.batch(range(len(dataset))).unreadable == ["Probe/2_7.jpg"]
