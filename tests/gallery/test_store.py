"""The gallery's file: what is added is there, for this user alone, and what is forgotten is nowhere."""

import os
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from facedistill.errors import UsageError, UserError
from facedistill.gallery import Gallery, Threshold, database
from plain_user import plain_users_folder

DIM = 32


def people(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Names, and one to four vectors of each."""
    rng = np.random.default_rng(seed)
    return {f"person {i}": rng.normal(size=(rng.integers(1, 5), DIM)) for i in range(count)}


def filled(path: Path, precision: str = "float32", count: int = 20) -> dict[str, np.ndarray]:
    found = people(count)
    with Gallery.create(path, space="space", dim=DIM, precision=precision) as gallery:  # type: ignore[arg-type]
        for name, vectors in found.items():
            assert gallery.add(name, vectors, made_by="teacher") == len(vectors)
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-7), ("int8", 0.01)])
def test_what_is_added_is_there(tmp_path: Path, precision: str, error: float) -> None:
    added = filled(tmp_path / "g", precision)
    with Gallery.open(tmp_path / "g") as gallery:
        vectors, person, names = gallery.matrix()
        assert names == gallery.names() == sorted(added)
        assert gallery.models() == {"teacher": len(vectors)} and len(gallery) == len(vectors)
    assert vectors.dtype == np.float32 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for place, name in enumerate(names):
        assert np.abs(vectors[person == place] - unit(added[name])).max() < error


def test_other_programs_read_the_file(tmp_path: Path) -> None:
    """The numbers are little-endian float32 in a table: sqlite3 and numpy alone find them."""
    added = filled(tmp_path / "g")
    sql = (
        "SELECT vector FROM vectors JOIN people ON person = people.id WHERE name = CAST(? AS BLOB) ORDER BY vectors.id"
    )
    rows = sqlite3.connect(tmp_path / "g").execute(sql, ("person 7",)).fetchall()
    assert np.allclose([np.frombuffer(blob, "<f4") for (blob,) in rows], unit(added["person 7"]), atol=1e-7)


def test_the_same_source_is_added_once(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        assert gallery.add("a", np.eye(2), made_by="m", sources=[b"1", b"2"]) == 2
        assert gallery.add("a", np.eye(2)[::-1], made_by="m", sources=[b"2", b"3"]) == 1
        assert gallery.add("a", np.eye(2), made_by="other", sources=[b"1", b"2"]) == 2
        assert gallery.sources_by("m") == dict.fromkeys([b"1", b"2", b"3"], "a") and gallery.sources_by("none") == {}


def test_only_this_user_may_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        filled(tmp_path / "g")
        with Gallery.open(tmp_path / "g") as gallery:
            gallery.add("b", np.ones(DIM), made_by="m")
            files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert files == {"g": 0o600, "g-wal": 0o600, "g-shm": 0o600}


@pytest.mark.parametrize(
    "name", ["O'Brien", 'a"b', "x'); DROP TABLE people; --", "../../etc/passwd", "\x00\x1b[31m\n", "=1+1"]
)
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        gallery.add(name, np.eye(2), made_by="m")
        gallery.add("other", -np.eye(2), made_by="m")
        assert gallery.names() == sorted([name, "other"])
        assert gallery.search(np.array([1.0, 0.1]), top=1)[0][0].name == name
        assert gallery.forget(name) == 2 and gallery.names() == ["other"]


def test_names_are_one_in_both_forms_of_unicode(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        gallery.add("Jose\u0301", np.eye(2)[0], made_by="m")
        gallery.add("Jos\u00e9", np.eye(2)[1], made_by="m")
        gallery.add(os.fsdecode(b"\xff\xfe"), np.ones(2), made_by="m")
        assert gallery.names() == ["Jos\u00e9", os.fsdecode(b"\xff\xfe")]


@pytest.mark.parametrize(
    ("name", "told"),
    [("", "empty name"), (" \t", "empty name"), ("x" * 20_000, "20,000 letters"), ("\ud800", "no text")],
)
def test_what_is_no_name_is_refused(tmp_path: Path, name: str, told: str) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        with pytest.raises(UserError, match=told):
            gallery.add(name, np.eye(2), made_by="m")
        assert gallery.names() == []


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (np.ones(3), "shape"),
        (np.zeros(2), "length 0"),
        (np.array([1, np.nan]), "not finite"),
        (np.ones((1, 1, 2)), "shape"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, vectors: np.ndarray, told: str) -> None:
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        with pytest.raises(UserError, match=told):
            gallery.add("a", vectors, made_by="m")
        assert gallery.names() == [] and len(gallery) == 0


def test_create_opens_the_same_gallery_and_no_other(tmp_path: Path) -> None:
    filled(tmp_path / "g", count=3)
    with Gallery.create(tmp_path / "g", space="space", dim=DIM) as gallery:
        assert len(gallery.names()) == 3
    with pytest.raises(UserError, match="gallery of space space, not other"):
        Gallery.create(tmp_path / "g", space="other", dim=DIM)
    with pytest.raises(UsageError, match="dimension 0"):
        Gallery.create(tmp_path / "h", space="s", dim=0)
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_no_byte_of_a_forgotten_person_is_left(tmp_path: Path, precision: str) -> None:
    added = filled(tmp_path / "g", precision, 300)
    with Gallery.open(tmp_path / "g") as gallery, Gallery.open(tmp_path / "g") as reader:
        gallery.add("Ada Lovelace", np.arange(1, DIM + 1), made_by="analytical", sources=[b"a photo's hash.."])
        row = gallery._db.execute("SELECT vector FROM vectors WHERE made_by = 'analytical'").fetchone()[0]
        traces = [b"Ada Lovelace", b"analytical", b"a photo's hash..", row, row[: len(row) // 2], row[len(row) // 2 :]]
        assert any(trace in path.read_bytes() for path in tmp_path.iterdir() for trace in traces)
        reader.search(np.ones(DIM))
        assert gallery.forget("Ada Lovelace") == 1
        for path in tmp_path.iterdir():  # while both are open: file, -wal, -shm
            assert not [trace for trace in traces if trace in path.read_bytes()], path
        assert reader.names() == sorted(added) and "Ada Lovelace" not in str(reader.search(np.arange(1, DIM + 1)))


def test_forget_refuses_a_name_that_is_not_there(tmp_path: Path) -> None:
    added = filled(tmp_path / "g", count=3)
    with Gallery.open(tmp_path / "g") as gallery:
        with pytest.raises(
            UserError, match=r"nobody named 'person 11' \(did you mean 'person 1'\?\); nobody was forgotten"
        ):
            gallery.forget("person 0", "person 11")
        assert gallery.names() == sorted(added)


def test_vectors_are_replaced_together(tmp_path: Path) -> None:
    added = filled(tmp_path / "g", count=50)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(DIM, DIM)))[0][:, :16]
    with Gallery.open(tmp_path / "g") as gallery, Gallery.open(tmp_path / "g") as other:
        gallery.set_threshold("student", "teacher", far=1e-3, value=0.3)
        with pytest.raises(UserError, match="expected one for each"):
            gallery.replace_vectors(lambda rows: rows[:1] @ turn, space="new", made_by="mapped", dim=16)
        with pytest.raises(ZeroDivisionError):
            gallery.replace_vectors(lambda rows: rows * (1 // 0), space="new", made_by="mapped", dim=16)
        assert gallery.models() == {"teacher": len(gallery)} and gallery.thresholds
        gallery.replace_vectors(lambda rows: rows @ turn, space="new", made_by="mapped", dim=16)
        assert (gallery.space, gallery.dim, gallery.models()) == ("new", 16, {"mapped": len(gallery)})
        assert gallery.thresholds == {}
        vectors, person, names = gallery.matrix()
        for use in (lambda: other.search(np.ones(DIM)), lambda: other.add("x", np.ones(DIM), made_by="teacher")):
            with pytest.raises(UserError, match="changed it to space new; open it again"):
                use()
    for place, name in enumerate(names):
        assert np.allclose(vectors[person == place], unit(unit(added[name]) @ turn), atol=1e-6)


def test_thresholds_are_of_a_pair(tmp_path: Path) -> None:
    filled(tmp_path / "g", count=2)
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.set_threshold("student", "teacher", far=1e-3, value=0.2)
        gallery.set_threshold(
            "student", "teacher", far=1e-3, value=0.3, interval=(0.25, 0.35), impostors=7, measured="lfw"
        )
        gallery.set_threshold("student", "teacher", far=1e-4, value=0.4)
        with pytest.raises(UserError, match="expected a cosine"):
            gallery.set_threshold("student", "teacher", far=1e-4, value=4)
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.thresholds == {
            ("student", "teacher"): [
                Threshold("student", "teacher", 1e-4, 0.4),
                Threshold("student", "teacher", 1e-3, 0.3, (0.25, 0.35), 7, "lfw"),
            ]
        }


def test_what_is_no_gallery_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("people")
    (tmp_path / "empty").touch()
    sqlite3.connect(tmp_path / "foreign").executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    for name, told in (
        ("absent", "no such gallery"),
        ("text", "not a gallery"),
        ("empty", "an empty file"),
        ("foreign", "another program's SQLite file"),
        ("", "not a file"),
    ):
        with pytest.raises(UserError, match=told):
            Gallery.open(tmp_path / name)
    for name in ("text", "foreign"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UserError, match=r"not a gallery|another program"):
            Gallery.create(tmp_path / name, space="s", dim=2)
        assert (tmp_path / name).read_bytes() == before
    assert (tmp_path / "text").read_text() == "people"
    assert sqlite3.connect(tmp_path / "foreign").execute("SELECT x FROM t").fetchall() == [(1,)]


def test_one_that_was_killed_while_it_was_made_is_made(tmp_path: Path) -> None:
    """SQLite writes the file's first page before anything is committed."""
    sqlite3.connect(tmp_path / "g").execute("PRAGMA journal_mode = WAL")
    assert (tmp_path / "g").stat().st_size
    with pytest.raises(database.NothingThere):
        Gallery.open(tmp_path / "g")
    with Gallery.create(tmp_path / "g", space="s", dim=2) as gallery:
        assert gallery.add("a", np.eye(2), made_by="m") == 2


def test_a_newer_schema_is_refused_and_an_older_one_is_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = filled(tmp_path / "g")
    monkeypatch.setattr(database, "MIGRATIONS", [*database.MIGRATIONS, "ALTER TABLE people ADD COLUMN note TEXT"])
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.names() == sorted(added)
        assert gallery.add("new", np.ones(DIM), made_by="m") == 1
    monkeypatch.undo()
    content = (tmp_path / "g").read_bytes()
    with pytest.raises(UserError, match=r"made by a newer facedistill \(schema 2; this one knows 1\)"):
        Gallery.open(tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == content


def test_a_schema_with_something_added_is_refused(tmp_path: Path) -> None:
    """A trigger or view in another person's file would run with our statements."""
    filled(tmp_path / "g")
    db = sqlite3.connect(tmp_path / "g")
    db.execute("CREATE TRIGGER t AFTER INSERT ON people BEGIN DELETE FROM vectors; END")
    db.close()
    with pytest.raises(UserError, match="its tables are not those of a gallery"):
        Gallery.open(tmp_path / "g")


def test_a_folder_that_cannot_be_written_is_read() -> None:
    with plain_users_folder() as folder:
        added = filled(folder / "g")
        folder.chmod(0o500)
        with Gallery.open(folder / "g") as gallery:
            assert gallery.names() == sorted(added) and gallery.search(np.ones(DIM))[0]
            with pytest.raises(UserError, match="cannot be written"):
                gallery.add("x", np.ones(DIM), made_by="m")
