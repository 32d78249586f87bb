import os
from pathlib import Path

import pytest

from facedistill.data.dataset import Dataset
from facedistill.data.sources.folder import FolderSource
from facedistill.errors import UserError


def test_classes_and_files_are_sorted_and_hidden_ones_skipped(folder: Path) -> None:
    (folder / "a" / ".hidden.jpg").write_bytes(b"x")
    (folder / "a" / "notes.txt").write_text("x")
    (folder / ".git").mkdir()
    (folder / "a" / "Z.JPEG").write_bytes(b"not decoded here")
    source = FolderSource(folder)
    assert source.class_names == ["a", "b", "c"]
    assert source.keys[:4] == ["a/00.jpg", "a/01.jpg", "a/Z.JPEG", "b/00.jpg"]
    assert source.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 6
    assert source.read(3) == (folder / "b" / "00.jpg").read_bytes()


def test_the_fingerprint_sees_names_and_sizes(folder: Path) -> None:
    before = FolderSource(folder).fingerprint
    assert FolderSource(folder).fingerprint == before
    (folder / "a" / "00.jpg").write_bytes((folder / "a" / "00.jpg").read_bytes() + b"\0")
    longer = FolderSource(folder).fingerprint
    (folder / "a" / "00.jpg").rename(folder / "a" / "000.jpg")
    assert len({before, longer, FolderSource(folder).fingerprint}) == 3


def test_the_stamp_sees_a_file_that_changed_in_place(folder: Path) -> None:
    before = FolderSource(folder)
    assert FolderSource(folder).stamp == before.stamp
    os.utime(folder / "a" / "00.jpg", ns=(0, 1))
    after = FolderSource(folder)
    assert after.fingerprint == before.fingerprint and after.stamp != before.stamp


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".thumbnails", "$RECYCLE.BIN"])
def test_folders_of_systems_are_nobody(folder: Path, name: str) -> None:
    before = FolderSource(folder)
    for place in (folder / name / "a", folder / "a" / name):
        place.mkdir(parents=True)
        (place / "0.jpg").write_bytes(b"x")
    (folder / "a" / "Thumbs.db").write_bytes(b"x")
    assert FolderSource(folder).fingerprint == before.fingerprint


def test_links_to_nowhere_and_pipes_are_unreadable_images(folder: Path) -> None:
    for name in ("00.jpg", "01.jpg"):
        (folder / "b" / name).unlink()
    (folder / "b" / "00.jpg").symlink_to("/nowhere/x.jpg")
    os.mkfifo(folder / "b" / "01.jpg")
    dataset = Dataset(FolderSource(folder), max_unreadable=1)
    assert len(dataset) == 12 and dataset.batch(range(12)).unreadable == ["b/00.jpg", "b/01.jpg"]
    (folder / "d").symlink_to("/nowhere/d")
    with pytest.raises(UserError, match="d: a link that leads nowhere"):
        FolderSource(folder)


def test_a_folder_inside_an_identity_is_not_silently_left_out(folder: Path) -> None:
    (folder / "a" / "notes").mkdir()
    assert len(FolderSource(folder)) == 12
    (folder / "a" / "notes" / "1.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="images lie at different depths, in a, a/notes"):
        FolderSource(folder)


def test_what_is_no_person_gets_no_wrong_advice(folder: Path) -> None:
    (folder / "meta").mkdir()
    (folder / "meta" / "list.txt").write_text("x")
    with pytest.raises(UserError, match=r"meta: no image .*, but list\.txt; expected PATH/class") as e:
        FolderSource(folder)
    assert "remove" not in str(e.value)


def test_an_identity_without_images_is_named(folder: Path) -> None:
    (folder / "nobody").mkdir()
    with pytest.raises(UserError, match="nobody: this class has no image"):
        FolderSource(folder)


def test_one_folder_too_high_is_explained(folder: Path) -> None:
    with pytest.raises(UserError, match=r"is PATH perhaps .*faces\?"):
        FolderSource(folder.parent)


def test_a_folder_without_identities(tmp_path: Path) -> None:
    (tmp_path / "loose.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="expected a folder per class"):
        FolderSource(tmp_path)
