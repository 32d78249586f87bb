"""Writing that leaves the old or the new, never half; fingerprints."""

import os
from pathlib import Path

import numpy as np
import pytest

from facedistill import files
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir, fingerprint


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writes_a_new_file_and_makes_its_folder(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a" / "b.txt") as temporary:
        assert temporary.suffix == ".txt" and not (tmp_path / "a" / "b.txt").exists()
        temporary.write_text("new")
    assert (tmp_path / "a" / "b.txt").read_text() == "new" and _names(tmp_path / "a") == ["b.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "b.txt"
    file.write_text("old")
    with pytest.raises(error), atomic_write(file) as temporary:
        temporary.write_text("half")
        raise error
    assert file.read_text() == "old" and _names(tmp_path) == ["b.txt"]


def test_a_folder_replaces_a_folder_whole(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
    assert _names(folder) == ["new.txt"] and _names(tmp_path) == ["model"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(folder) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
        raise RuntimeError
    assert _names(folder) == ["old.txt"] and _names(tmp_path) == ["model"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", failing)
    with pytest.raises(UserError, match="No space left"), atomic_write(folder) as temporary:
        temporary.mkdir()
    assert _names(folder) == ["old.txt"] and _names(tmp_path) == ["model"]


@pytest.mark.parametrize("where", ["write", "replace", "fsync"])
def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    file = tmp_path / "b.txt"
    file.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if where != "write":
        monkeypatch.setattr(files.os, where, full)
    with pytest.raises(UserError) as caught, atomic_write(file) as temporary:
        temporary.write_text("new")
        if where == "write":
            full()
    assert str(caught.value) == f"cannot write {file}: No space left on device; free some space or choose another --out"
    assert file.read_text() == "old" and _names(tmp_path) == ["b.txt"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write"), atomic_write(tmp_path / "file" / "b.txt"):
        pass
    with pytest.raises(UserError, match="cannot write"), atomic_write(tmp_path / "never made.txt"):
        pass


def test_fingerprints_tell_values_types_shapes_and_borders_apart() -> None:
    a = np.arange(6, dtype=np.float32)
    different = [
        (a,),
        (a.reshape(2, 3),),
        (a.astype(np.float64),),
        (a, 1),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"abc", ""),
        (12, 3),
    ]
    found = {fingerprint(*parts) for parts in different}
    assert len(found) == len(different) and all(len(f) == 16 for f in found)
    assert fingerprint(a) == fingerprint(np.arange(12, dtype=np.float32)[::2] / 2)
    assert fingerprint("Andr\udce9") != fingerprint("Andr")  # a file's name of any bytes
    assert fingerprint("abc") == "ce91dc5eec0139ad"  # cached files are found by it: it never changes


def test_the_cache_may_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("FACEDISTILL_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "facedistill"
