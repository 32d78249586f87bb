"""The machine that reads pickles as data, against Python's and numpy's own writers, and against made attacks."""

import io
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from facedistill.data.sources.pickled import DEPTH, Array, CarriesCode, NotData, Pickled

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=300) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=30,
)


def read(data: bytes) -> Any:
    return Pickled(data).value()


@settings(max_examples=300, deadline=None)
@given(PLAIN, st.integers(0, 5))
def test_what_python_writes(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value
    assert read(pickletools.optimize(pickle.dumps(value, protocol))) == value
    written = io.BytesIO()
    pickle._Pickler(written, protocol).dump(value)  # the writer in Python
    assert read(written.getvalue()) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("content", [b"", b"\0", bytes(range(256)) * 3, bytes(70_000)])
def test_bytes_of_any_length(content: bytes, protocol: int) -> None:
    assert read(pickle.dumps([content, bytearray(content)], protocol)) == [content, content]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", [(0,), (7,), (7, 1), (4, 5, 3), (2, 3, 4, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes(shape: tuple[int, ...], order: Any, protocol: int) -> None:
    pixels = np.asarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), order=order)
    for written in (pickle.dumps(pixels, protocol), pickle.dumps(pixels[::-1], protocol)):
        found = read(written)
        assert isinstance(found, Array) and found.kind[1:] == "u1" and found.shape == shape
        values = np.frombuffer(found.data, np.uint8).reshape(shape, order="F" if found.fortran else "C")
        assert (values == pickle.loads(written)).all()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["?", "i1", "u1", "<i2", ">i4", "<i8", ">u8"])
def test_numbers(kind: str, protocol: int) -> None:
    values = np.array([1, 0, 1, 100], dtype=kind) if kind != "?" else np.array([True, False])
    assert read(pickle.dumps(values, protocol)).numbers() == values.tolist()
    assert read(pickle.dumps(list(values), protocol)) == values.tolist()
    objects = np.array([b"a", b"bc"], dtype=object)
    assert read(pickle.dumps(objects, protocol)) == [b"a", b"bc"]


def test_names_before_numpy_2() -> None:
    written = pickle.dumps(np.arange(4, dtype=np.uint8), 2)
    assert b"numpy._core" in written
    assert read(written.replace(b"numpy._core", b"numpy.core")).data == bytes(range(4))


REFUSED = {
    "a system call": b"cos\nsystem\n(S'true'\ntR.",
    "an instance": b"(S'true'\nios\nsystem\n.",
    "a builtin": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
    "numpy's loader": b"cnumpy\nload\n(S'x'\ntR.",
    "an attribute of an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tobytes\x93.",
    "a name with a line break": b"\x80\x04\x8c\x05numpy\x8c\x07a\nb\x1b[0m\x93.",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_names_are_refused(data: bytes) -> None:
    with pytest.raises(CarriesCode) as e:
        read(data)
    assert str(e.value).isprintable()


def kind(text: bytes) -> bytes:
    return b"cnumpy\ndtype\n(S'" + text + b"'\nI00\nI01\ntR"


def array(shape: bytes, of: bytes = kind(b"u1"), data: bytes = b"S'abcd'\n") -> bytes:
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return start + b"(I1\n" + shape + of + b"I00\n" + data + b"tb."


BIG = b"L99999999999999999999L\n"
HOSTILE = {
    "nothing": b"",
    "no end": b"]",
    "an empty stack": b".",
    "a pop of an open bracket": b"(0.",
    "a bracket that is not open": b"t.",
    "a memo that is empty": b"h\0.",
    "an append to bytes": b"C\1aK\1a.",
    "an append to itself is no list of images": b"]q\0h\0a(h\0h\0e",
    "a dict": pickle.dumps({"a": 1}),
    "a float": pickle.dumps(1.5),
    "4 GB announced": b"\x80\x02B" + struct.pack("<I", 2**32 - 1) + b"x.",
    "2^63 bytes announced": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"x.",
    "a negative length": b"T" + struct.pack("<i", -5) + b"x.",
    "a negative number of bytes": b"\x8b" + struct.pack("<i", -1) + b".",
    "a number of 2 GB": b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "no quotes": b"Sabc\n.",
    "half an escape": b"S'\\x4'\n.",
    "a frame of nothing": b"\x80\x04\x95",
    "an endless list of brackets": b"(" * 100_000,
    "a list in a list, deep": b"(" * (DEPTH + 1) + b"l" * (DEPTH + 1) + b".",
    "a shape larger than the bytes": array(b"(I100000\nt"),
    "a shape smaller than the bytes": array(b"(I3\nt"),
    "a shape whose product wraps around": array(b"(" + BIG + BIG + b"t"),
    "a negative shape": array(b"(I-4\nt"),
    "a shape of texts": array(b"(S'4'\nt"),
    "a shape of a hundred numbers": array(b"(" + b"I1\n" * 100 + b"t"),
    "objects out of bytes": array(b"(I4\nt", kind(b"O8")),
    "a record": array(b"(I4\nt", kind(b"V4")),
    "a type of a name": array(b"(I4\nt", b"cnumpy\nndarray\n"),
    "a type whose state has fields": kind(b"u1") + b"(I3\nS'|'\nNS'a'\nNI-1\nI-1\nI0\ntb.",
    "a type with a state that is no tuple": kind(b"u1") + b"I3\nb.",
    "a state for bytes": b"S'a'\n(I1\ntb.",
    "a call of bytes": b"S'a'\n(tR.",
    "a call of ndarray": b"cnumpy\nndarray\n((I1000000000\nttR.",
    "bytes of a number": b"c__builtin__\nbytes\n(I1000000000\ntR.",
    "a bytearray of a number": b"c__builtin__\nbytearray\n(I1000000000\ntR.",
    "a scalar of the wrong size": b"cnumpy.core.multiarray\nscalar\n(" + kind(b"i8") + b"S'a'\ntR.",
    "one text encoded again and again": b"c_codecs\nencode\np0\n0V"
    + b"x" * 1000
    + b"\np1\n0"
    + b"g0\n(g1\ntR" * 9
    + b".",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_are_refused_at_once(data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(NotData) as e:
        read(data)
    assert time.perf_counter() - start < 1 and str(e.value).isprintable() and len(str(e.value)) < 200


def test_the_state_of_an_array_is_given_once() -> None:
    good = array(b"(I4\nt")
    assert read(good).data == b"abcd"
    with pytest.raises(NotData, match="twice"):
        read(good[:-1] + b"(I1\n(I4\nt" + kind(b"u1") + b"I00\nS'abcd'\ntb.")


def test_operations_have_a_limit_that_real_sets_are_far_from() -> None:
    assert read(b"]0" * 49_000 + b"].") == []
    with pytest.raises(NotData, match=r"more than 112,\d{3} operations"):
        read(b"]0" * 100_000 + b"].")
    arrays = [np.full((16, 16, 3), i % 256, np.uint8) for i in range(10_000)]
    assert len(read(pickle.dumps((arrays, [True] * 5_000), 2))[0]) == 10_000


def test_any_damage_is_one_error() -> None:
    images = [np.frombuffer(b"abcdefgh", np.uint8), b"xyz", np.zeros((2, 2, 3), np.uint8)]
    rng = random.Random(0)
    for protocol in range(6):
        good = pickle.dumps((images * 2, [True, False, np.bool_(True)]), protocol)
        for _ in range(500):
            data = bytearray(good)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            with suppress(NotData, CarriesCode):
                read(bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.2 else data))


def test_no_numpy_object_is_made_while_a_pickle_is_read() -> None:
    """The module does not import numpy, so no state that a file chooses can reach one of its objects."""
    file = Path(sys.modules[Pickled.__module__].__file__ or "")
    code = f"import runpy, sys; sys.modules['numpy'] = None; runpy.run_path({os.fspath(file)!r}); print('read')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "read\n", done.stderr
