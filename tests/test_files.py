"""Writing that leaves the old or the new, never half; fingerprints."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedistill import files
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir, fingerprint, locked, require_writable


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
    monkeypatch.setattr(files, "_exchange", lambda a, b: False)  # a file system that cannot exchange two folders

    def failing(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", failing)
    with pytest.raises(UserError, match="No space left"), atomic_write(folder) as temporary:
        temporary.mkdir()
    assert _names(folder) == ["old.txt"] and _names(tmp_path) == ["model"]


def _dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_folder_is_never_missing_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every rename, a kill leaves the old folder or the new one."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    seen: list[bool] = []
    for name in ("rename", "replace"):
        real = getattr(os, name)

        def watched(source: Path, target: Path, real: Any = real) -> None:
            real(source, target)
            seen.append(folder.is_dir())

        monkeypatch.setattr(files.os, name, watched)
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
    assert all(seen) and _names(folder) == ["new.txt"]


def test_where_folders_cannot_be_exchanged_the_old_one_comes_back_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f".model.{files._HOST}-{_dead_process()}-0123abcd.old"
    (tmp_path / name).mkdir()
    (tmp_path / name / "old.txt").write_text("old")
    with atomic_write(tmp_path / "other.txt") as temporary:
        temporary.write_text("new")
    assert _names(tmp_path) == ["model", "other.txt"] and _names(tmp_path / "model") == ["old.txt"]
    monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    with atomic_write(tmp_path / "model") as temporary:
        temporary.mkdir()
    assert _names(tmp_path / "model") == [] and _names(tmp_path) == ["model", "other.txt"]


def test_temporaries_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    dead, alive = _dead_process(), os.getppid()
    kept = [f".b.txt.{files._HOST}-{alive}-0123abcd.tmp.txt", ".b.txt.mine.tmp", f".b.000000-{dead}-0123abcd.tmp"]
    gone = [f".b.txt.{files._HOST}-{dead}-0123abcd.tmp.txt", f".b.000000-{alive}-0123abce.tmp"]
    for name in [*kept, *gone]:
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / gone[1], (0, 0))  # another machine's, of long ago
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert _names(tmp_path) == sorted([*kept, "a.txt"])


def test_all_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = files._fsync, os.replace

    def noted(path: Path) -> None:
        done.append(path.name)
        fsync(path)

    def renamed(a: Path, b: Path) -> None:
        done.append("replace")
        replace(a, b)

    monkeypatch.setattr(files, "_fsync", noted)
    monkeypatch.setattr(files.os, "replace", renamed)
    with atomic_write(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("w")
        (temporary / "config").write_text("c")
    assert sorted(done[:2]) == ["config", "weights"] and done[2:] == [temporary.name, "replace", tmp_path.name]


def test_a_links_target_is_replaced_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("there/real.txt")
    with atomic_write(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "there" / "real.txt").read_text() == "new"
    assert _names(tmp_path / "there") == ["real.txt"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        with atomic_write(tmp_path / "pipe") as temporary:
            temporary.write_text("through")
        assert reader.communicate()[0] == b"through"
    assert (tmp_path / "pipe").is_fifo() and _names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("link", [False, True])
def test_an_open_file_is_written_to(tmp_path: Path, link: bool) -> None:
    """`--json /dev/stdout > file`: after what was printed before, and before what is printed after."""
    place = tmp_path / "link" if link else Path("/dev/stdout")
    if link:
        place.symlink_to("/dev/stdout")
    code = f"""
from facedistill.files import atomic_write
print("before")
with atomic_write({str(place)!r}) as temporary:
    temporary.write_text("through\\n")
print("after")
with atomic_write("/dev/null") as temporary:
    temporary.write_text("nowhere")
"""
    with open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nthrough\nafter\n"
    assert Path("/dev/null").is_char_device() and Path("/dev/stdout").is_symlink()


def test_permissions_are_the_users_or_private(tmp_path: Path) -> None:
    def write(name: str, private: bool = False) -> int:
        with atomic_write(tmp_path / name, private) as temporary:
            if not private:
                temporary.touch(0o600)  # as safetensors does
        return (tmp_path / name).stat().st_mode & 0o777

    before = os.umask(0o022)
    try:
        assert write("a") == 0o644 and write("new/b", private=True) == 0o600
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        (tmp_path / "a").chmod(0o640)
        assert write("a") == 0o640 and write("a", private=True) == 0o600
    finally:
        os.umask(before)


def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    require_writable(tmp_path / "new" / "a.json")
    require_writable(tmp_path / "file")
    require_writable(tmp_path / "folder", folder=True)
    require_writable(Path("/dev/null"))
    for path, folder, why in (
        (tmp_path / "file" / "a.json", False, "Not a directory"),
        (tmp_path / "folder", False, "it is a folder, and a file"),
        (tmp_path / "file", True, "it is a file, and a folder"),
        (Path("/proc/nothing/a.json"), False, "No such file|Operation not permitted|Permission"),
    ):
        with pytest.raises(UserError, match=rf"cannot write {path}: .*({why})"):
            require_writable(path, folder)
    assert _names(tmp_path) == ["file", "folder"]


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


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")

    def add() -> None:
        for _ in range(20):
            with locked(tmp_path / ".lock"):
                number = int(file.read_text())
                time.sleep(0.0005)
                file.write_text(str(number + 1))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() == "60"
