import os
from pathlib import Path

from facedistill.data.sources.stamp import MISSING, size_and_time, stamp_of


def test_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    os.utime(tmp_path / "x", ns=(0, 77))
    assert size_and_time(tmp_path / "x") == size_and_time(str(tmp_path / "x")) == (5, 77)
    assert size_and_time(tmp_path / "y") == size_and_time("no\0name") == MISSING


def test_a_stamp_changes_with_any_of_its_files(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    seen = [stamp_of(files)]
    for file in files:
        file.write_bytes(b"x")
        seen.append(stamp_of(files))
    os.utime(files[0], ns=(0, 1))
    seen.append(stamp_of(files))
    assert len(set(seen)) == 4 and stamp_of(files) == seen[-1]
