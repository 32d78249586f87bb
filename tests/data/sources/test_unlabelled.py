"""Images of unknown people: every one a class of its own."""

from pathlib import Path

import numpy as np
import pytest

from facedistill.data import hold_out, open_dataset
from facedistill.data.sources.open import open_source
from facedistill.errors import UserError


def test_labels_of_any_data_set_are_ignored(folder: Path) -> None:
    for spec in ("synthetic:identities=3,images=2,size=16", str(folder)):
        known, source = open_source(spec), open_source(f"unlabelled:{spec}")
        assert source.class_names == source.keys == known.keys and source.labels.tolist() == list(range(len(known)))
        assert source.unlabelled is not None and source.unlabelled.all()
        for i in (0, len(known) - 1):
            np.testing.assert_array_equal(source.read(i), known.read(i))
        assert source.fingerprint != known.fingerprint
        assert open_dataset(f"unlabelled:{spec}").in_memory().unlabelled.all()


def test_images_may_lie_at_any_depth(folder: Path) -> None:
    (folder / "a" / "deeper").mkdir()
    (folder / "b" / "00.jpg").rename(folder / "loose.jpg")
    (folder / "b" / "01.jpg").rename(folder / "a" / "deeper" / "x.JPG")
    (folder / ".hidden.jpg").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    before = open_source(f"unlabelled:{folder}")
    assert len(before) == 12 and before.keys == sorted(before.keys)
    assert {"loose.jpg", "a/deeper/x.JPG", "c/05.jpg"} <= set(before.keys)
    (folder / "loose.jpg").write_bytes((folder / "c" / "00.jpg").read_bytes() + b"0")
    assert open_source(f"unlabelled:{folder}").fingerprint != before.fingerprint
    (folder / "loose.jpg").unlink()
    (folder / "a" / "loop").symlink_to(folder)
    assert len(open_source(f"unlabelled:{folder}")) == 11
    (folder.parent / "links").mkdir()
    (folder.parent / "links" / "c").symlink_to(folder / "c")
    assert open_source(f"unlabelled:{folder.parent / 'links'}").keys[0] == "c/00.jpg"


def test_what_is_no_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images; expected a folder with images in it, or in folders inside"):
        open_source(f"unlabelled:{tmp_path / 'empty'}")
    with pytest.raises(UserError, match=r"data unlabelled: no data set; expected unlabelled:PATH"):
        open_source("unlabelled:")
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(f"unlabelled:{tmp_path / 'nowhere'}")


def test_nobody_is_held_out_of_unknown_people(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no image has a label, so nobody can be held out; set data.hold_out=0"):
        hold_out(open_dataset(f"unlabelled:{folder}"), 0.5, 0)
