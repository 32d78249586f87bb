"""A damaged gallery is told from a whole one, and what is readable of it is exported."""

import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from facedistill.errors import UsageError, UserError
from facedistill.gallery import Gallery, salvage
from facedistill.gallery.database import PAGE

DIM = 64


def filled(path: Path, precision: str = "float32", dim: int = DIM, count: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    people = {f"person {i}": rng.normal(size=(2, dim)) for i in range(count)}
    with Gallery.create(path, space="s", dim=dim, precision=precision) as gallery:  # type: ignore[arg-type]
        with gallery.writing():
            for name, vectors in people.items():
                gallery.add(name, vectors, made_by="m")
        gallery.set_threshold("p", "m", far=1e-3, value=0.3, interval=(0.25, 0.35), impostors=9, measured="lfw")
    return people


def content(path: Path) -> tuple[list[str], dict[str, int], np.ndarray, object]:
    with Gallery.open(path) as gallery:
        return gallery.names(), gallery.models(), gallery.matrix()[0], gallery.thresholds


@pytest.mark.parametrize(("precision", "dim"), [("float32", DIM), ("int8", DIM), ("float32", 8192)])
def test_all_of_a_whole_gallery_is_found(tmp_path: Path, precision: str, dim: int) -> None:
    """The reader of pages and SQLite agree; vectors of 8,192 dimensions go on in overflow pages."""
    filled(tmp_path / "g", precision, dim, 400 if dim == DIM else 7)
    salvage(tmp_path / "g", tmp_path / "out")
    (names, models, vectors, thresholds), found = content(tmp_path / "g"), content(tmp_path / "out")
    assert (names, models, thresholds) == (found[0], found[1], found[3])
    assert np.allclose(vectors, found[2], atol=1e-7)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_what_only_the_log_holds_is_found(tmp_path: Path) -> None:
    filled(tmp_path / "g", count=3)
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.add("in the log", np.ones(DIM), made_by="m")
        for name in ("g", "g-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("g", "copy", 1))
    assert b"in the log" not in (tmp_path / "copy").read_bytes()
    salvage(tmp_path / "copy", tmp_path / "out")
    assert "in the log" in content(tmp_path / "out")[0]


@pytest.mark.parametrize("kind", ["truncated", "header", "zeroed", "middle"])
def test_damage_is_told_and_the_rest_exported(tmp_path: Path, kind: str) -> None:
    people, path = filled(tmp_path / "g"), tmp_path / "g"
    data = bytearray(path.read_bytes())
    if kind == "truncated":
        data = data[: len(data) * 2 // 3 // PAGE * PAGE]
    elif kind == "header":
        data[:PAGE] = bytes(PAGE)
    elif kind == "zeroed":
        data[len(data) // 2 : len(data) // 2 + PAGE] = bytes(PAGE)
    else:
        data[len(data) // 2 :: PAGE] = bytes(len(data[len(data) // 2 :: PAGE]))
    path.write_bytes(data)
    with pytest.raises(UserError, match="--salvage FILE"), Gallery.open(path) as gallery:
        gallery.check()
    salvage(path, tmp_path / "out")
    with Gallery.open(tmp_path / "out") as gallery:
        gallery.check()
        vectors, person, names = gallery.matrix()
        assert len(vectors) >= len(people) and gallery.space == "s"
        for place, name in enumerate(names):
            if not name.startswith("lost name"):
                for vector in vectors[person == place]:
                    original = people[name] / np.linalg.norm(people[name], axis=1, keepdims=True)
                    assert np.abs(original - vector).max(axis=1).min() < 1e-6
        if kind == "header":
            assert names == sorted(people)


def test_every_flipped_bit_of_a_value_is_told(tmp_path: Path) -> None:
    """A bit of a name, a vector, a hash, the space or a threshold: no wrong value is ever read."""
    filled(tmp_path / "g", count=300)
    good = content(tmp_path / "g")
    data = (tmp_path / "g").read_bytes()
    rng, told = random.Random(0), 0
    for trial in range(100):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = tmp_path / f"g{trial}"
        path.write_bytes(changed)
        try:
            with Gallery.open(path) as gallery:
                gallery.check()
            names, models, vectors, thresholds = content(path)
            assert (names, models, thresholds) == (good[0], good[1], good[3])
            assert np.array_equal(vectors, good[2])
        except UserError:
            told += 1
    assert told > 40  # the rest hit free space


def test_salvage_refuses(tmp_path: Path) -> None:
    filled(tmp_path / "g", count=2)
    (tmp_path / "noise").write_bytes(random.Random(0).randbytes(100_000))
    with pytest.raises(UsageError, match="exists"):
        salvage(tmp_path / "g", tmp_path / "noise")
    for name in ("noise", "absent"):
        with pytest.raises(UserError, match=r"nothing to salvage|No such file"):
            salvage(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_forgotten_person_is_not_salvaged(tmp_path: Path) -> None:
    filled(tmp_path / "g", count=50)
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.forget("person 7", "person 20")
    salvage(tmp_path / "g", tmp_path / "out")
    assert not {"person 7", "person 20"} & set(content(tmp_path / "out")[0])


def fuzzed(folder: Path, trials: int) -> None:
    """Change some bytes of the file, or cut it: each use of it works or gives one line."""
    filled(folder / "g", count=20)
    data, rng = (folder / "g").read_bytes(), random.Random(trials)
    for trial in range(trials):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 3, 30, 300))):
            at = rng.choice((rng.randrange(100), rng.randrange(len(data)), rng.randrange(PAGE)))
            changed[at] = rng.randrange(256)
        path = folder / f"f{trial}"
        path.write_bytes(changed[: rng.choice((len(data), rng.randrange(len(data))))])
        for use in (_read, _change, lambda path: salvage(path, f"{path}.out")):
            try:
                use(path)
            except UserError as e:
                assert "\n" not in str(e)
        for file in folder.glob(f"f{trial}*"):
            file.unlink()


def _read(path: Path) -> None:
    with Gallery.open(path) as gallery:
        gallery.search(np.ones(gallery.dim))
        gallery.check()


def _change(path: Path) -> None:
    with Gallery.open(path) as gallery:
        gallery.add("new", np.ones(gallery.dim), made_by="m")
        gallery.forget("new")


def test_fuzzed_files(tmp_path: Path) -> None:
    fuzzed(tmp_path, 100)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_fuzzed_files(tmp_path: Path) -> None:
    fuzzed(tmp_path, 10_000)


def test_sqlite_finds_the_salvaged_file_whole(tmp_path: Path) -> None:
    filled(tmp_path / "g")
    salvage(tmp_path / "g", tmp_path / "out")
    assert sqlite3.connect(tmp_path / "out").execute("PRAGMA integrity_check").fetchall() == [("ok",)]
