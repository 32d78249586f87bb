"""The verb cache: lists, limits and clears what can be computed again, and nothing else."""

import os
from pathlib import Path

import numpy as np
import pytest

from facedistill.cli.app import main
from facedistill.data.embeddings import Embeddings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of 1,000, 2,000 and 3,000 bytes, the first one the oldest, and a demo's teacher."""
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path))
    for n, name in enumerate(["embeddings/a.npz", "nearest/b.npy", "embeddings/c.npz"], 1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(1000 * n))
        os.utime(tmp_path / name, (n, n))
    (tmp_path / "demo-teacher-1").mkdir()
    (tmp_path / "demo-teacher-1" / "recipe.yaml").touch()
    return tmp_path


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def _cache(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["cache", *arguments])
        raise SystemExit(0)
    return int(ended.value.code or 0)


def test_it_lists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cache() == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].startswith(str(folder))
        and "embeddings: 2 files, 0.0 MB" in lines
        and "face_mesh: 0 files, 0.0 MB" in lines
        and len(_names(folder)) == 4
    )


def test_the_oldest_files_go_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _cache("--limit", "0.000005") == 0
    assert _names(folder) == ["b.npy", "c.npz", "recipe.yaml"]
    assert "1 files removed" in capsys.readouterr().out


def test_it_clears_and_leaves_what_was_trained(folder: Path) -> None:
    assert _cache("--clear") == 0 and _names(folder) == ["recipe.yaml"]
    assert _cache("--clear", "--limit", "1") == 2 and _cache("--limit", "-1") == 2 and _cache("--limit", "nan") == 2


def test_embeddings_are_private(tmp_path: Path) -> None:
    place = tmp_path / "embeddings" / "x.npz"
    Embeddings(["a"], ["n"], np.zeros(1, np.int64), np.ones((1, 1, 2), np.float32)).save(place)
    assert place.stat().st_mode & 0o777 == 0o600 and place.parent.stat().st_mode & 0o777 == 0o700
