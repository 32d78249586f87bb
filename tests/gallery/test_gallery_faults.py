"""Kills, crowds and full disks: nothing committed is lost, nobody is there by half, and what is forgotten is gone."""

import fcntl
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from facedistill.errors import UserError
from facedistill.gallery import Gallery, merge, reading

DIM, EACH = 256, 3


@pytest.fixture(autouse=True)
def _mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small galleries have a cache beside them too."""
    monkeypatch.setattr(reading, "LARGE", 50_000)


def vectors_of(name: str) -> np.ndarray:
    """The vectors of a person, from the name alone."""
    return np.random.default_rng(list(name.encode())).normal(size=(EACH, DIM))


@cache
def unit_vectors_of(name: str) -> np.ndarray:
    vectors = vectors_of(name)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def upgraded(vectors: np.ndarray) -> np.ndarray:
    """The vectors in space "t"."""
    return vectors[:, ::-1]


def forked(work: Callable[[int], None]) -> tuple[int, int]:
    """Start a process that does `work` with the end of a pipe to write to; return its number and the other end."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        try:
            work(writing)
            os._exit(0)
        except BaseException as e:
            os.write(writing, f"!{type(e).__name__}: {e}\n".encode())
            os._exit(1)
    os.close(writing)
    return process, reading


def said(process: int, pipe: int) -> tuple[list[str], int]:
    """Return what the process wrote, line by line, until it ended, and its exit code."""
    content = b""
    while part := os.read(pipe, 65536):
        content += part
    os.close(pipe)
    return content.decode().splitlines(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed(work: Callable[[int], None], after: float) -> list[str]:
    """Do the work in a process that is killed so many seconds after its first line; return the lines it wrote."""
    process, pipe = forked(work)
    first = os.read(pipe, 1)
    time.sleep(after)
    os.kill(process, signal.SIGKILL)
    lines, code = said(process, pipe)
    assert code in (0, -signal.SIGKILL), lines
    return (first.decode() + "\n".join(lines)).splitlines()


def require_whole_people(path: Path, at_least: set[str], at_most: set[str] | None = None) -> set[str]:
    with Gallery.open(path) as gallery:
        gallery.check()
        vectors, person, names = gallery.matrix()
        space = gallery.space
    assert at_least <= set(names) and (at_most is None or set(names) <= at_most)
    assert np.array_equal(np.bincount(person, minlength=len(names)), np.full(len(names), EACH))
    for name, found in zip(names, vectors[np.argsort(person, kind="stable")].reshape(-1, EACH, DIM), strict=True):
        expected = unit_vectors_of(name)
        assert np.allclose(found, expected if space == "s" else upgraded(expected), atol=1e-6), name
    return set(names)


def enrol_until_killed(folder: Path, times: int, rng: random.Random) -> None:
    done: set[str] = set()
    for round_ in range(times):

        def work(pipe: int, round_: int = round_) -> None:
            with Gallery.create(folder / "g", space="s", dim=DIM) as gallery:
                os.write(pipe, b"\n")
                for i in range(300):
                    name = f"{round_} {i}"
                    gallery.add(name, vectors_of(name), made_by="m")
                    os.write(pipe, f"{name}\n".encode())

        done |= set(killed(work, rng.uniform(0, 0.25))) - {""}
        done = require_whole_people(folder / "g", done)
    assert done


def forget_until_killed(folder: Path, times: int, rng: random.Random) -> None:
    everyone = {f"person {i:05}" for i in range(30 * times)}
    with Gallery.create(folder / "g", space="s", dim=DIM) as gallery, gallery.writing():
        for name in everyone:
            gallery.add(name, vectors_of(name), made_by="m")
    here = set(everyone)
    for _ in range(times):

        def work(pipe: int, names: tuple[str, ...] = tuple(sorted(here))) -> None:
            with Gallery.open(folder / "g") as gallery:
                os.write(pipe, b"\n")
                for name in names[:30]:
                    gallery.search(vectors_of(name))
                    gallery.forget(name)
                    os.write(pipe, f"{name}\n".encode())

        gone, before = set(killed(work, rng.uniform(0, 0.25))), here
        here = require_whole_people(folder / "g", set(), here - gone)
        require_no_byte_of(before - here, folder)
    require_no_byte_of(everyone - here, folder)


def require_no_byte_of(names: set[str], folder: Path) -> None:
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for name in names:
        assert name.encode() not in content and unit_vectors_of(name)[0, :8].tobytes() not in content


def merge_until_killed(folder: Path, times: int, rng: random.Random) -> None:
    with Gallery.create(folder / "other", space="s", dim=DIM) as other, other.writing():
        for i in range(150):
            other.add(f"other {i}", vectors_of(f"other {i}"), made_by="m")
    both = {f"other {i}" for i in range(150)} | {"first"}
    for round_ in range(times):
        path = folder / f"g{round_}"
        with Gallery.create(path, space="s", dim=DIM) as gallery:
            gallery.add("first", vectors_of("first"), made_by="m")

        def work(pipe: int, path: Path = path) -> None:
            with Gallery.open(path) as gallery, Gallery.open(folder / "other") as other:
                os.write(pipe, b"\n")
                merge(gallery, other)
                os.write(pipe, b"merged\n")

        lines = killed(work, rng.uniform(0, 0.06))
        found = require_whole_people(path, {"first"})
        assert found in ({"first"}, both) and ("merged" not in lines or found == both)


def upgrade_until_killed(folder: Path, times: int, rng: random.Random) -> None:
    """From one space to another and back, in turns by a map and by people who were enrolled again beside it."""
    names = [f"person {i:05}" for i in range(150)]
    for file, space in (("g", "s"), ("in s", "s"), ("in t", "t")):
        with Gallery.create(folder / file, space=space, dim=DIM) as gallery, gallery.writing():
            for name in names:
                vectors = vectors_of(name) if space == "s" else upgraded(vectors_of(name))
                gallery.add(name, vectors, made_by="m")
    space, spaces = "s", set()
    for round_ in range(times):
        other = "t" if space == "s" else "s"

        def work(pipe: int, space: str = other, mapped: bool = round_ % 4 < 2) -> None:
            with Gallery.open(folder / "g") as gallery, Gallery.open(folder / f"in {space}") as fresh:
                os.write(pipe, b"\n")
                if mapped:
                    gallery.replace_vectors(upgraded, space=space, made_by="m")
                else:
                    gallery.become(fresh)
                os.write(pipe, b"upgraded\n")

        lines = killed(work, rng.uniform(0, 0.06))
        assert require_whole_people(folder / "g", set(names)) == set(names)
        with Gallery.open(folder / "g") as gallery:
            assert gallery.space == other or (gallery.space == space and "upgraded" not in lines)
            space = gallery.space
        spaces.add(space)
    assert times < 20 or spaces == {"s", "t"}


WORKS = [enrol_until_killed, forget_until_killed, merge_until_killed, upgrade_until_killed]


@pytest.mark.parametrize("work", WORKS)
def test_a_kill_loses_nothing(work: Callable[[Path, int, random.Random], None], tmp_path: Path) -> None:
    work(tmp_path, 5, random.Random(0))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("work", WORKS)
def test_200_kills_lose_nothing(work: Callable[[Path, int, random.Random], None], tmp_path: Path) -> None:
    work(tmp_path, 200, random.Random(1))


def crowd(path: Path, seconds: float) -> None:
    """Two processes add, and one of them forgets; ten search. All see whole people, and all that was added stays."""
    with Gallery.create(path, space="s", dim=DIM) as gallery:
        gallery.add("first", vectors_of("first"), made_by="m")

    def write(pipe: int, number: int) -> None:
        end, count = time.monotonic() + seconds, 0
        with Gallery.open(path) as gallery:
            while time.monotonic() < end:
                name = f"{number} {count}"
                gallery.add(name, vectors_of(name), made_by="m")
                if number == 1 and count % 20 == 10:
                    gallery.forget(name)
                else:
                    os.write(pipe, f"{name}\n".encode())
                count += 1

    def read(pipe: int) -> None:
        end = time.monotonic() + seconds
        with Gallery.open(path) as gallery:
            while time.monotonic() < end:
                assert gallery.search(vectors_of("first")[0], top=1)[0][0] == ("first", pytest.approx(1, abs=1e-6))
                vectors, person, names = gallery.matrix()
                assert (np.bincount(person, minlength=len(names)) == EACH).all() and len(vectors) == EACH * len(names)

    processes = [forked(lambda pipe, number=number: write(pipe, number)) for number in (0, 1)]  # type: ignore[misc]
    processes += [forked(read) for _ in range(10)]
    results = [said(*one) for one in processes]
    assert [code for _, code in results] == [0] * 12, results
    added = {line for lines, _ in results[:2] for line in lines}
    assert require_whole_people(path, added) == added | {"first"} and len(added) > 2


def test_two_writers_and_ten_readers(tmp_path: Path) -> None:
    crowd(tmp_path / "g", 1.5)


@pytest.mark.slow
def test_two_writers_and_ten_readers_for_a_minute(tmp_path: Path) -> None:
    crowd(tmp_path / "g", 60)


@pytest.mark.parametrize("room", [0, 100_000, 400_000])
def test_a_full_disk(tmp_path: Path, room: int) -> None:
    """No file may grow beyond a size: the command ends with one line, and all that it said was added is there."""
    path = tmp_path / "g"
    with Gallery.create(path, space="s", dim=DIM) as gallery:
        gallery.add("first", vectors_of("first"), made_by="m")

    def work(pipe: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        with Gallery.open(path) as gallery:
            for i in range(2000):
                gallery.add(f"person {i}", vectors_of(f"person {i}"), made_by="m")
                os.write(pipe, f"person {i}\n".encode())

    lines, code = said(*forked(work))
    assert code == 1 and lines[-1].startswith("!UserError") and "free some space" in lines[-1], lines[-1]
    require_whole_people(path, {"first", *lines[:-1]})
    with Gallery.open(path) as gallery:
        gallery.add("after", vectors_of("after"), made_by="m")


def test_forgetting_waits_for_the_checkpoint_of_another_process(tmp_path: Path) -> None:
    """SQLite answers "busy" at once while another process holds the lock of checkpoints, byte 121 of its -shm file."""
    path = tmp_path / "g"

    def hold(pipe: int) -> None:
        with open(tmp_path / "g-shm", "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, 121)
            os.write(pipe, b"\n")
            time.sleep(0.5)

    with Gallery.create(path, space="s", dim=DIM) as gallery:
        gallery.add("first", vectors_of("first"), made_by="m")
        gallery.add("second", vectors_of("second"), made_by="m")
        process, pipe = forked(hold)
        os.read(pipe, 1)
        gallery.forget("first")
        assert said(process, pipe) == ([], 0)
    assert require_whole_people(path, {"second"}) == {"second"}
    assert b"first" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_forgetting_on_a_full_disk_is_finished_later(tmp_path: Path) -> None:
    path = tmp_path / "g"
    with Gallery.create(path, space="s", dim=DIM) as gallery, gallery.writing():
        for i in range(300):
            gallery.add(f"person {i:03}", vectors_of(f"person {i:03}"), made_by="m")

    def work(pipe: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        with Gallery.open(path) as gallery:
            gallery.forget("person 123")

    lines, code = said(*forked(work))
    assert code == 1 and "the bytes could not be erased yet" in lines[-1], lines
    with Gallery.open(path) as gallery:
        assert len(gallery.names()) == 299
        with pytest.raises(UserError, match="nobody named"):
            gallery.forget("person 123")
    row = (vectors_of("person 123")[0] / np.linalg.norm(vectors_of("person 123")[0])).astype("<f4")
    for file in tmp_path.iterdir():
        assert b"person 123" not in file.read_bytes() and row[:8].tobytes() not in file.read_bytes()
