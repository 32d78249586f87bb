"""The approximate index is a cache: its scores are exact, its recall is told, and it is never stale or left behind."""

import stat
from pathlib import Path

import numpy as np
import pytest

from facedistill.gallery import Gallery

pytest.importorskip("usearch")
DIM = 32


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    rng = np.random.default_rng(0)
    found = Gallery.create(tmp_path / "g", space="s", dim=DIM)
    with found.writing():
        for i in range(1000):
            found.add(f"p{i}", rng.normal(size=DIM) + 0.3 * rng.normal(size=(3, DIM)), made_by="m")
    return found


def probes(gallery: Gallery) -> np.ndarray:
    vectors = gallery.matrix()[0][::30]
    return vectors + 0.05 * np.random.default_rng(1).normal(size=vectors.shape)


def test_it_finds_what_the_exact_search_finds(gallery: Gallery) -> None:
    exact, found = (gallery.search(probes(gallery), top=1, index=index) for index in (False, True))
    same = [a == b for a, b in zip(exact, found, strict=True)]
    assert np.mean(same) > 0.95 and gallery.index_recall() > 0.95
    file = Path(f"{gallery.path}-index")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for by in ("mean", "top-mean"):
        hits = gallery.search(probes(gallery)[:3], top=1, by=by, index=True)
        assert hits == gallery.search(probes(gallery)[:3], top=1, by=by)


def test_people_who_came_since_are_found(gallery: Gallery) -> None:
    gallery.search(probes(gallery), index=True)
    written = Path(f"{gallery.path}-index").stat().st_mtime_ns
    new = np.random.default_rng(2).normal(size=DIM)
    gallery.add("new", new, made_by="m")
    assert gallery.search(new, top=1, index=True)[0][0] == ("new", pytest.approx(1, abs=1e-6))
    assert Path(f"{gallery.path}-index").stat().st_mtime_ns == written


def test_forgetting_removes_it(gallery: Gallery) -> None:
    probe = gallery.matrix()[0][0]
    (name, _) = gallery.search(probe, top=1, index=True)[0][0]
    gallery.forget(name)
    assert not Path(f"{gallery.path}-index").exists()
    assert gallery.search(probe, top=1, index=True)[0][0].name != name


@pytest.mark.parametrize("damage", ["cut", "flipped", "noise"])
def test_a_damaged_one_is_made_anew(gallery: Gallery, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = gallery.search(probes(gallery), top=1, index=True)
    gallery.close()
    file = Path(f"{gallery.path}-index")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes({"cut": data[:-5000], "flipped": data, "noise": bytearray(b"x" * 10_000)}[damage])
    with Gallery.open(gallery.path) as again:
        found = again.search(probes(again), top=1, index=True)
        same = np.mean([a == b for a, b in zip(found, expected, strict=True)])
        assert same > 0.9  # two builds of an index may each miss some
    assert "damaged; it is made anew" in capsys.readouterr().err
