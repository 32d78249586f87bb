"""Names that no person gave, text of any editor, and sets of several files."""

import os
from pathlib import Path

import pytest

from facedistill.data.sources.pread import Bounded, ReadAt
from facedistill.data.sources.reading import is_hidden, is_image, read_file, read_lines, read_table, read_text, shards
from facedistill.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "p0/._0.jpg", ".ipynb_checkpoints/0.jpg", "a/.thumbs/b/0.jpg", "__MACOSX/p0/0.jpg"),
        *("@eaDir/0.jpg", "p0/Thumbs.db", "p0/desktop.ini", "$RECYCLE.BIN/0.jpg", "System Volume Information/0.jpg"),
    ],
)
def test_hidden_names(name: str) -> None:
    assert is_hidden(name) and not is_image(name)


@pytest.mark.parametrize("name", ["p0/0.jpg", "./p0/0.JPEG", "../p0/0.png", "a.b/0.x.tif", "eaDir/x.gif", "p/0.jpe"])
def test_names_of_images(name: str) -> None:
    assert not is_hidden(name) and is_image(name)


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_marks_are_no_part_of_the_text(tmp_path: Path, code: str) -> None:
    mark = b"\xfe\xff" if code == "utf-16-be" else b""
    (tmp_path / "x.txt").write_bytes(mark + "zoë\r\nann\rbob\u2028y\n\n\n".encode(code))
    assert read_lines(tmp_path / "x.txt") == ["zoë", "ann", "bob\u2028y"]
    (tmp_path / "x.csv").write_bytes(mark + 'a;b\n"x\ny";2;;\n\n'.encode(code))
    assert list(read_table(tmp_path / "x.csv", "")) == [(1, ["a", "b"]), (3, ["x\ny", "2"])]


def test_what_is_no_text_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"zo\xeb\n")
    with pytest.raises(UserError, match=r"x\.txt: not UTF-8 text \(byte 2: .*expected names"):
        read_text(tmp_path / "x.txt", "expected names")
    assert os.fsencode(read_lines(tmp_path / "x.txt", errors="surrogateescape")[0]) == b"zo\xeb"
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(place)


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_files_of_a_set(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", "b.tar", "a.tar", "._a.tar", ".hidden.tar", "x.txt")
    assert [file.name for file in shards(folder, "*.tar")] == ["a.tar", "b.tar"]
    assert shards(folder / "b.tar", "*.tar") == [folder / "b.tar"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["train-00000-of-00002"], "train-00001-of-00002"),
        (["train-00001-of-00002-a09b74b3ef9c3b56"], "train-00000-of-00002"),
        (["x-1-of-3", "x-3-of-3"], "x-2-of-3"),
        (["x-00000-of-99999"], "x-00001-of-99999, x-00002-of-99999, x-00003-of-99999, ..."),
        (["x-0-of-2", "x-1-of-2", "y"], None),
        (["x-1-of-2", "x-2-of-2"], None),
    ],
)
@pytest.mark.parametrize("end", [".tar", ".parquet"])
def test_missing_parts(tmp_path: Path, names: list[str], missing: str | None, end: str) -> None:
    folder = make(tmp_path / "d", *(name + end for name in names))
    if missing is None:
        assert len(shards(folder, f"*{end}")) == len(names)
    else:
        with pytest.raises(UserError, match=rf"d: \d+ of [\d,]+ parts are there; missing: {missing};"):
            shards(folder, f"*{end}")
        assert len(shards(folder / (names[0] + end), f"*{end}")) == 1, "one file may be named alone"


def test_a_part_of_two_versions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there twice"):
        shards(make(tmp_path / "d", "x-0-of-1-aaa.tar", "x-0-of-1-bbb.tar"), "*.tar")


def test_splits_of_shards(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"several splits \(train, val\)"):
        shards(make(tmp_path / "d", "train-000000.tar", "train-000001.tar", "val-000000.tar"), "*.tar")


@pytest.mark.parametrize("count", [5, 10**6, 2**31, 2**62])
def test_a_count_never_takes_more_than_is_there(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    asked: list[int] = []
    if hasattr(os, "pread"):
        pread = os.pread

        def counted(file: int, size: int, offset: int) -> bytes:
            asked.append(size)
            return pread(file, size, offset)

        monkeypatch.setattr(os, "pread", counted)
    read = ReadAt(tmp_path / "x")
    assert read(count, 4) == b"456789"[:count] and read(count, 10) == read(count, 2**62) == read(-1, 0) == b""
    assert max(asked, default=0) <= 10
    with Bounded(tmp_path / "x") as file:
        assert file.read(4) == b"0123" and file.read(count) == b"456789"[:count]
        file.seek(2**40)
        assert file.read(count) == file.read() == b""


def test_reading_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread", raising=False)
    (tmp_path / "x").write_bytes(b"0123456789")
    read = ReadAt(tmp_path / "x")
    assert [read(3, 4), read(3, 0), read(30, 8)] == [b"456", b"012", b"89"]


def test_a_device_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        ReadAt("/dev/zero")(10, 0)
