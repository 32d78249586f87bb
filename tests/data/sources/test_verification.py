import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedistill.data.dataset import Dataset, open_source
from facedistill.data.sources.verification import VerificationSet, draw_pairs, load_verification, save_verification
from facedistill.errors import UserError


def python2_string(data: bytes) -> bytes:
    """The opcode BINSTRING, with which Python 2's pickle protocol 2 writes a str."""
    return b"T" + struct.pack("<i", len(data)) + data


def python2_array(data: bytes) -> bytes:
    """numpy.core.multiarray._reconstruct(ndarray, (0,), 'b') + BUILD((1, (n,), dtype('u1'), False, data))."""
    kind = b"cnumpy\ndtype\n" + python2_string(b"u1") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + python2_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
        + python2_string(b"b")
        + b"tR(K\x01J"
        + struct.pack("<i", len(data))
        + b"\x85"
        + kind
        + b"\x89"
        + python2_string(data)
        + b"tb"
    )


def python2_bin(images: list[bytes], same: list[bool], item: Callable[[bytes], bytes] = python2_string) -> bytes:
    """What `pickle.dump((bins, issame_list), f, protocol=2)` writes under Python 2."""
    bins = b"](" + b"".join(map(item, images)) + b"e"
    return b"\x80\x02" + bins + b"](" + b"".join(b"\x88" if s else b"\x89" for s in same) + b"e\x86."


IMAGES = [b"\xff\xd8one", b"\xff\xd8\x80two", b"\xff\xd8one", b"three", b"three", b"\xff\xd8\x80two"]


def check(found: VerificationSet) -> None:
    assert found.images == [b"\xff\xd8one", b"\xff\xd8\x80two", b"three"]
    assert found.pairs.tolist() == [[0, 1], [0, 2], [2, 1]] and found.pairs.dtype == np.int64
    assert found.same.tolist() == [True, False, False] and found.same.dtype == bool


@pytest.mark.parametrize("item", [python2_string, python2_array])
def test_a_pack_written_by_python_2(tmp_path: Path, item: Callable[[bytes], bytes]) -> None:
    (tmp_path / "x.bin").write_bytes(python2_bin(IMAGES, [True, False, False], item))
    check(load_verification(tmp_path / "x.bin"))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: np.frombuffer(data, np.uint8)])
@pytest.mark.parametrize("bools", [list, np.array, lambda same: [np.bool_(s) for s in same], tuple])
def test_packs_written_by_this_python(tmp_path: Path, protocol: int, kind: Any, bools: Any) -> None:
    for outer in (tuple, list):
        content = outer([[kind(i) for i in IMAGES], bools([True, False, False])])
        (tmp_path / "x.bin").write_bytes(pickle.dumps(content, protocol))
        check(load_verification(tmp_path / "x.bin"))


def test_an_empty_image_is_kept_for_the_reader_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([b"", b"a"], [True]), 2))
    assert load_verification(tmp_path / "x.bin").images == [b"", b"a"]


def test_decoded_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    (tmp_path / "x.bin").write_bytes(pickle.dumps((list(pixels[[0, 1, 0, 3]]), [True, False])))
    found = load_verification(tmp_path / "x.bin")
    assert found.pairs.tolist() == [[0, 1], [0, 2]] and (found.read(2) == pixels[3]).all()
    (tmp_path / "y.bin").write_bytes(pickle.dumps((pixels.transpose(0, 3, 1, 2), [True, False])))
    assert (load_verification(tmp_path / "y.bin").read(2) == pixels[2]).all()


@pytest.mark.parametrize("protocol", range(6))
def test_encoded_images_as_columns_and_rows(tmp_path: Path, protocol: int) -> None:
    """cv2.imencode returned (n, 1) until OpenCV 4.5."""
    for shape in ((-1, 1), (1, -1)):
        arrays = [np.frombuffer(data, np.uint8).reshape(shape) for data in IMAGES]
        (tmp_path / "x.bin").write_bytes(pickle.dumps((arrays, [True, False, False]), protocol))
        check(load_verification(tmp_path / "x.bin"))


@pytest.mark.parametrize("label", [-1, 2, np.int64(-1), 10**9])
def test_a_label_that_is_neither_true_nor_false(tmp_path: Path, label: Any) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, [1, label, 0]), 2))
    with pytest.raises(UserError, match=rf"label {label} of pair 1; not True or False, 1 or 0"):
        load_verification(tmp_path / "x.bin")
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, [1, 0, np.int64(0)]), 2))
    check(load_verification(tmp_path / "x.bin"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_of_other_editors(tmp_path: Path, end: str, code: str) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, [True, False, False])))
    names = ["zoë/1.jpg", "ann/2.jpg", "zoë/1.jpg", "bob/1.jpg", "bob/1.jpg", "ann/2.jpg", ""]
    (tmp_path / "x_bin_names.txt").write_bytes(end.join(names).encode(code))
    assert load_verification(tmp_path / "x.bin").identities == ["zoë", "ann", "bob"]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, [True, False, False])))
    (tmp_path / "x_bin_names.txt").write_bytes("zoë/1.jpg".encode("latin-1"))
    with pytest.raises(UserError, match=r"x_bin_names\.txt: not UTF-8 text"):
        load_verification(tmp_path / "x.bin")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.bin")
    with pytest.raises(UserError, match="not a regular file"):
        load_verification(tmp_path / "x.bin")


def test_names_beside_give_identities_and_labels(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps((IMAGES, [True, False, False])))
    assert load_verification(tmp_path / "x.bin").identities is None
    assert load_verification(tmp_path / "x.bin").labels.tolist() == [0, 1, 2]
    names = tmp_path / "x_bin_names.txt"
    names.write_text("zoe/1.jpg\nann/2.jpg\nzoe/1.jpg\nbob/1.jpg\nbob/1.jpg\nann/2.jpg")
    found = load_verification(tmp_path / "x.bin")
    assert found.identities == ["zoe", "ann", "bob"]
    assert found.class_names == ["ann", "bob", "zoe"] and found.labels.tolist() == [2, 0, 1]
    names.write_text("ann/1.jpg\nzoe/2.jpg\nann/1.jpg\nbob/1.jpg\nbob/1.jpg\nzoe/2.jpg")
    other = load_verification(tmp_path / "x.bin")
    assert other.fingerprint == found.fingerprint and other.stamp != found.stamp, "other people on the same images"
    names.write_text("zoe/1.jpg\nann/2.jpg\n")
    with pytest.raises(UserError, match=r"2 names for the 6 images"):
        load_verification(tmp_path / "x.bin")
    names.write_text("zoe/1.jpg\nann/2.jpg\ncid/1.jpg\nbob/1.jpg\nbob/1.jpg\nann/2.jpg")
    with pytest.raises(UserError, match="is named zoe and cid"):
        load_verification(tmp_path / "x.bin")


class Attack:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("place", ["whole", "image", "same"])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (np.load, "load")]
)
def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, protocol: int, place: str, function: Any, name: str
) -> None:
    attack = Attack(function, f"__import__('os').mkdir({str(tmp_path / 'owned')!r})")
    content = {"whole": attack, "image": ([attack, b""], [True]), "same": ([b"", b""], [attack])}[place]
    (tmp_path / "x.bin").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(UserError, match=rf"x\.bin: carries code: it asks for [\w.]*{name}; nothing was run") as e:
        load_verification(tmp_path / "x.bin")
    assert not (tmp_path / "owned").exists() and "\n" not in str(e.value)


def test_no_codec_but_latin1(tmp_path: Path) -> None:
    import codecs

    (tmp_path / "x.bin").write_bytes(pickle.dumps(Attack(codecs.encode, "a", "zip"), 2))
    with pytest.raises(UserError, match="codec 'zip'"):
        load_verification(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff\xe0 a jpeg",
        pickle.dumps((IMAGES, [True, False, False]))[:-20],
        pickle.dumps({"a": 1}),
        pickle.dumps((1, 2)),
        pickle.dumps((IMAGES, [True])),
        pickle.dumps(([], [])),
        pickle.dumps((IMAGES, ["yes", "no", "no"])),
        pickle.dumps(([1, 2], [True])),
        pickle.dumps(([np.zeros((4, 4, 3)), b""], [True])),
    ],
)
def test_what_is_no_verification_set(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.bin: .*expected the field's .bin") as e:
        load_verification(tmp_path / "x.bin")
    assert "\n" not in str(e.value)


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match="No such file"):
        load_verification("nowhere.bin")


def test_it_is_a_source(tmp_path: Path, image: Callable[..., bytes]) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([image(0), image(1)], [True])))
    dataset = Dataset(open_source(tmp_path / "x.bin"))
    assert len(dataset) == 2 and dataset.batch([0, 1]).images.shape == (2, 3, 16, 16)
    before = dataset.fingerprint
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([image(0), image(2)], [True])))
    assert Dataset(open_source(tmp_path / "x.bin")).fingerprint != before


def test_the_real_lfw(shared: Path) -> None:
    lfw = load_verification(shared / "verification" / "lfw.bin")
    assert (len(lfw), lfw.pairs.shape, int(lfw.same.sum()), len(lfw.class_names)) == (7701, (6000, 2), 3000, 4281)
    assert ((lfw.labels[lfw.pairs[:, 0]] == lfw.labels[lfw.pairs[:, 1]]) == lfw.same).all()
    counts = np.bincount(lfw.labels)
    assert (counts * (counts - 1) // 2).sum() == 8101
    names = (shared / "verification" / "lfw_bin_names.txt").read_text().split()
    persons = [name.split("/")[0] for name in names]
    assert lfw.identities is not None
    assert [lfw.identities[i] for i in lfw.pairs.ravel()] == persons
    stored = pickle.load(io.BytesIO((shared / "verification" / "lfw.bin").read_bytes()))[0]
    assert all(lfw.images[i] == data for i, data in zip(lfw.pairs.ravel().tolist(), stored, strict=True))


def test_drawn_pairs_are_half_genuine_in_every_fold_and_none_comes_twice() -> None:
    source = open_source("synthetic:identities=6,images=4,size=16")
    faces = draw_pairs(source, 60, seed=0)
    assert faces.identities is not None and faces.pairs.shape == (60, 2)
    persons = np.array(faces.identities)[faces.pairs]
    assert ((persons[:, 0] == persons[:, 1]) == faces.same).all()
    assert faces.same.reshape(-1, 6).mean(axis=1).tolist() == [0.5] * 10
    assert len({frozenset(pair) for pair in faces.pairs.tolist()}) == 60
    again, other = draw_pairs(source, 60, seed=0), draw_pairs(source, 60, seed=1)
    assert again.fingerprint == faces.fingerprint != other.fingerprint


def test_more_pairs_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"12 genuine and 54 impostor pairs; expected 20 of each"):
        draw_pairs(open_source("synthetic:identities=4,images=3,size=16"), 40, seed=0)


def test_a_saved_set_is_read_back_with_its_people(tmp_path: Path) -> None:
    faces = draw_pairs(open_source("synthetic:identities=6,images=4,size=16"), 60, seed=0)
    save_verification(faces, tmp_path / "x.bin")
    found = load_verification(tmp_path / "x.bin")
    assert found.same.tolist() == faces.same.tolist() and found.identities is not None
    saved, read = Dataset(faces), Dataset(found)
    for a, b in zip(faces.pairs.ravel(), found.pairs.ravel(), strict=True):
        assert (saved.image(int(a)) == read.image(int(b))).all()
        assert faces.identities is not None and faces.identities[a] == found.identities[b]
    # Nothing but lists, bytes and bools: what other programs expect of the format.
    bins, same = pickle.loads((tmp_path / "x.bin").read_bytes())
    assert {type(x) for x in bins} == {bytes} and {type(x) for x in same} == {bool}
