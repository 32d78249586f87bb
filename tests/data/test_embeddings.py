"""Tables of embeddings from files that announce more than they hold."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedistill.data.embeddings import Embeddings
from facedistill.errors import UserError


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def announcing(shape: tuple[int, ...]) -> bytes:
    """A .npy of 16 bytes whose header says `shape`."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return out.getvalue() + bytes(16)


def write(path: Path, vectors: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in (("keys", ["x", "y"]), ("class_names", ["c"]), ("labels", [0, 0])):
            archive.writestr(f"{name}.npy", npy(np.array(array)))
        archive.writestr("vectors.npy", vectors)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_table_of_either_kind(tmp_path: Path, method: int) -> None:
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    assert (Embeddings.load(write(tmp_path / "t.npz", npy(vectors), method)).vectors[:, 0] == vectors).all()


@pytest.mark.parametrize("shape", [(2, 4), (2, 10**9), (2, 10**18), (2, 1)])
def test_a_shape_that_is_not_there(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        UserError, match=r"t\.npz: not a table of embeddings \(vectors\.npy: shape .* needs .* bytes, 144 are there\)"
    ):
        Embeddings.load(write(tmp_path / "t.npz", announcing(shape)))


def test_python_objects_are_named_and_never_unpickled(tmp_path: Path) -> None:
    words = npy(np.array(["a", "b"], dtype=object))
    with pytest.raises(UserError, match=r"vectors\.npy holds Python objects, which are never unpickled; save text by"):
        Embeddings.load(write(tmp_path / "t.npz", words))


def test_a_size_in_the_directory_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "t.npz", announcing((2, 10**9)))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory: vectors
    data[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"bytes announced by a file of"):
        Embeddings.load(path)


def test_a_bomb(tmp_path: Path) -> None:
    zeros = npy(np.zeros((2, 4_000_000), np.float32))
    with pytest.raises(UserError, match=r"32,\d{3},\d{3} bytes announced by a file of"):
        Embeddings.load(write(tmp_path / "t.npz", zeros, zipfile.ZIP_DEFLATED))


def test_what_was_saved_has_a_checksum(tmp_path: Path) -> None:
    """An archive that is written anew, so that its own checksums are right, and a number in it is another."""
    table = Embeddings(["x", "y"], ["c"], np.zeros(2, np.int64), np.ones((2, 1, 3), np.float32), "space")
    table.save(tmp_path / "t.npz")
    again = Embeddings.load(tmp_path / "t.npz", saved=True)
    assert (again.keys, again.space) == (["x", "y"], "space") and (again.vectors == 1).all()
    with np.load(tmp_path / "t.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    for change in ({"space": np.array("other")}, {"vectors": 2 * table.vectors}):
        np.savez(tmp_path / "t.npz", **(arrays | change))
        with pytest.raises(UserError, match="its checksum differs; the file is damaged"):
            Embeddings.load(tmp_path / "t.npz")
    del arrays["checksum"]
    np.savez(tmp_path / "t.npz", **arrays)
    assert Embeddings.load(tmp_path / "t.npz").keys == ["x", "y"]
    with pytest.raises(UserError, match="its checksum differs"):
        Embeddings.load(tmp_path / "t.npz", saved=True)


@pytest.mark.parametrize("name", ["keys", "class_names"])
def test_one_text_is_no_list_of_names(tmp_path: Path, name: str) -> None:
    """Its letters would be the names."""
    vectors = np.ones((2, 3), np.float32)
    arrays: dict[str, Any] = {"keys": ["x", "y"], "class_names": ["a", "b"], "labels": [0, 1], "vectors": vectors}
    np.savez(tmp_path / "t.npz", **(arrays | {name: "ab"}))
    with pytest.raises(UserError, match=rf"t\.npz: {name} of shape \(\)"):
        Embeddings.load(tmp_path / "t.npz")
