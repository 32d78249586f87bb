from pathlib import Path

import numpy as np
import pytest

from facedistill.data.dataset import open_dataset, open_source
from facedistill.data.sources.folder import FolderSource
from facedistill.data.sources.open import SOURCES, form_of
from facedistill.errors import UsageError, UserError


def test_a_folder_is_opened_by_path_or_text(folder: Path) -> None:
    assert isinstance(open_source(folder), FolderSource)
    assert open_source(str(folder)).fingerprint == open_source(folder).fingerprint
    assert open_dataset(folder, size=8).batch([0]).images.shape == (1, 3, 8, 8)


def test_synthetic_faces() -> None:
    source = open_source("synthetic:identities=3,images=2,size=24,seed=4,first=7")
    assert len(source) == 6 and len(source.class_names) == 3
    pixels = source.read(0)
    assert isinstance(pixels, np.ndarray) and pixels.shape == (24, 24, 3)
    assert len(open_source("synthetic").class_names) == 300
    with pytest.raises(UsageError, match=r"synthetic:identites=3: .*no option 'identites' .did you mean 'identities'"):
        open_source("synthetic:identites=3")
    with pytest.raises(UsageError, match=r"synthetic:size=big: .*option 'size': .*valid integer.*'big'"):
        open_source("synthetic:size=big")


def test_only_synthetic_itself_is_the_drawn_set(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="synthetic_casia: no such file or folder"):
        open_source("synthetic_casia")
    for name in ("synthetic_casia", "synthetic"):  # what is there wins
        folder.rename(tmp_path / name)
        folder = tmp_path / name
        assert open_source(name).class_names == ["a", "b", "c"]
    assert len(open_source("synthetic:identities=3").class_names) == 3


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder; expected \.rec, .*, a folder per class"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match=r"x\.txt: not a known form of data set"):
        open_source(tmp_path / "x.txt")
    (tmp_path / "a.rec").write_text("")
    (tmp_path / "b.rec").write_text("")
    with pytest.raises(UserError, match=r"several \.rec files \(a\.rec, b\.rec\); name one"):
        open_source(tmp_path)


def test_each_form_declares_how_it_is_recognised(tmp_path: Path) -> None:
    for name, kind in SOURCES.items():
        assert kind.expected in str(_refusal(tmp_path / "nowhere")), name
        for suffix in kind.suffixes:
            file = tmp_path / f"{name}{suffix}"
            file.write_bytes(b"")
            assert form_of(file) is kind, file
            file.unlink()
        for pattern in kind.inside:
            file = tmp_path / name / pattern.replace("*", "x")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"")
            assert form_of(file.parent) is kind, file
            file.unlink()
    assert form_of(tmp_path) is FolderSource
    (tmp_path / "x.txt").write_text("x")
    assert form_of(tmp_path / "x.txt") is None


@pytest.mark.parametrize(
    "inside", ["data/train-00000-of-00001.parquet", "shards/00000.tar", "faces_emore/train.rec", "a/b/c/x.tar"]
)
def test_a_data_set_further_down_is_named(tmp_path: Path, inside: str) -> None:
    (tmp_path / "hub" / "README.md").parent.mkdir()
    (tmp_path / "hub" / "README.md").write_text("---")
    (tmp_path / "hub" / inside).parent.mkdir(parents=True)
    (tmp_path / "hub" / inside).write_bytes(b"PAR1")
    assert f"do you mean the data set {tmp_path / 'hub' / inside}?" in str(_refusal(tmp_path / "hub"))


def test_hidden_files_decide_no_form(folder: Path) -> None:
    (folder / "._x.tar").write_bytes(b"x")
    (folder / ".x.parquet").write_bytes(b"x")
    assert isinstance(open_source(folder), FolderSource)


def test_columns_belong_to_tables(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"data.columns: .*faces has no columns"):
        open_source(folder, {"label": "x"})


def test_class_names_are_checked_when_the_data_is_opened(folder: Path) -> None:
    (folder / "a").rename(folder / "a\nb")
    with pytest.raises(UserError, match=r"faces: class name 'a\\nb'; expected text"):
        open_source(folder)


def _refusal(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        open_source(path)
    return caught.value
