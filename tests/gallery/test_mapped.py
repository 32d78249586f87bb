"""The cache of a large gallery's vectors: as good as the database, never stale, never damaged, never left behind."""

import stat
from pathlib import Path

import numpy as np
import pytest

from facedistill.gallery import Gallery, mapped, reading

DIM = 16
COUNT = 10_000  # several blocks that have a sum together


@pytest.fixture(params=["float32", "int8"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery whose vectors are mapped."""
    monkeypatch.setattr(reading, "LARGE", 100_000)
    rng = np.random.default_rng(0)
    with Gallery.create(tmp_path / "g", space="s", dim=DIM, precision=request.param) as gallery, gallery.writing():
        for i in range(COUNT // 4):
            gallery.add(f"p{i}", rng.normal(size=(4, DIM)), made_by="m")
    return tmp_path / "g"


def read_by_sqlite(gallery: Gallery) -> np.ndarray:
    kind = {"float32": "<f4", "int8": "i1"}[gallery.precision]
    blobs = gallery._db.execute("SELECT vector FROM vectors ORDER BY id").fetchall()
    return np.array([np.frombuffer(blob, kind) for (blob,) in blobs])


def test_it_holds_the_vectors_for_this_user_alone(path: Path) -> None:
    with Gallery.open(path) as gallery:
        assert gallery.search(np.ones(DIM))[0]
        file = mapped.Mapped(Path(f"{path}-vectors"), gallery.precision, DIM)
        assert np.array_equal(file.rows, read_by_sqlite(gallery)) and len(file.people) == COUNT
        assert stat.S_IMODE(Path(f"{path}-vectors").stat().st_mode) == 0o600


def test_a_second_opening_reads_no_vector_of_the_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = np.random.default_rng(1).normal(size=(5, DIM))
    with Gallery.open(path) as gallery:
        first = gallery.search(probes)
    monkeypatch.setattr(reading.RowsCache, "_read", lambda *_: pytest.fail("read again"))
    with Gallery.open(path) as gallery:
        assert gallery.search(probes) == first
        assert gallery.search(probes, by="mean") and len(gallery.matrix()[0]) == COUNT


def test_new_people_are_found_beside_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = np.random.default_rng(2).normal(size=DIM)
    with Gallery.open(path) as gallery:
        gallery.search(probe)
        written = Path(f"{path}-vectors").stat().st_mtime_ns
        gallery.add("new", probe, made_by="m")
        assert gallery.search(probe, top=1)[0][0].name == "new"
        assert Path(f"{path}-vectors").stat().st_mtime_ns == written
        with gallery.writing():
            for i in range(COUNT // 7):
                gallery.add(f"more {i}", np.random.default_rng(100 + i).normal(size=DIM), made_by="m")
        assert gallery.search(probe, top=1)[0][0].name == "new"
        assert Path(f"{path}-vectors").stat().st_mtime_ns > written
        assert len(gallery.matrix()[0]) == len(gallery) == len(read_by_sqlite(gallery))


def test_forgetting_removes_it(path: Path) -> None:
    probe = np.random.default_rng(3).normal(size=DIM)
    with Gallery.open(path) as gallery:
        gallery.add("Ada", probe, made_by="m")
        gallery.search(probe)
        with Gallery.open(path) as other:
            assert other.search(probe, top=1)[0][0].name == "Ada"
            gallery.forget("Ada")
            assert not Path(f"{path}-vectors").exists()
            assert other.search(probe, top=1)[0][0].name != "Ada"


@pytest.mark.parametrize("where", ["head", "rows", "tail", "cut", "empty", "other"])
def test_damage_is_told_and_mended(path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    probes = np.random.default_rng(4).normal(size=(5, DIM))
    cache = Path(f"{path}-vectors")
    with Gallery.open(path) as gallery:
        expected = gallery.search(probes)
    content = bytearray(cache.read_bytes())
    if where in ("head", "rows", "tail"):
        at = {"head": 20, "rows": mapped.HEAD + 5000 * DIM, "tail": len(content) - 9000}[where]
        content[at] ^= 4
    changed = {"cut": content[: len(content) // 2], "empty": bytearray(), "other": bytearray(b"{}\n")}
    cache.write_bytes(changed.get(where, content))
    with Gallery.open(path) as gallery:
        assert gallery.search(probes) == expected
        assert np.array_equal(mapped.Mapped(cache, gallery.precision, DIM).rows, read_by_sqlite(gallery))
    assert "is damaged; it is made anew" in capsys.readouterr().err


def test_one_of_a_later_moment_is_not_used(path: Path) -> None:
    """A reader whose moment began before somebody came does not see that person."""
    with Gallery.open(path) as gallery, Gallery.open(path) as other:
        with gallery.reading():
            assert len(gallery) == COUNT
            other.add("later", np.ones(DIM), made_by="m")
            other.search(np.ones(DIM))  # writes the file, with the new vector
            vectors, person, names = gallery.matrix()
            assert len(vectors) == len(person) == COUNT and "later" not in names
        assert len(gallery.matrix()[0]) == COUNT + 1


def test_one_of_another_gallery_is_not_used(path: Path, tmp_path: Path) -> None:
    with Gallery.open(path) as gallery:
        gallery.search(np.ones(DIM))
        (tmp_path / "h-vectors").write_bytes(Path(f"{path}-vectors").read_bytes())
        precision = gallery.precision
    with Gallery.create(tmp_path / "h", space="s", dim=DIM, precision=precision) as other:
        other.add("x", np.ones(DIM), made_by="m")
        assert [hit.name for hit in other.search(np.ones(DIM))[0]] == ["x"]
