"""Packs are written here byte by byte, from the format's definition (data/recordio.py)."""

import os
import pickle
import random
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from facedistill.data.dataset import Dataset, open_source
from facedistill.data.loader import Loader
from facedistill.data.samplers import make_sampler
from facedistill.data.sources.recordio import RecordIOSource
from facedistill.errors import UserError

MAGIC = struct.pack("<I", 0xCED7230A)


def record(payload: bytes) -> bytes:
    """One record as dmlc-core's RecordIOWriter lays it out: split at every 4-byte-aligned magic, which is left out."""
    cuts = [i for i in range(0, len(payload) - 3, 4) if payload[i : i + 4] == MAGIC]
    starts, ends = [0, *(c + 4 for c in cuts)], [*cuts, len(payload)]
    out = b""
    for number, (start, end) in enumerate(zip(starts, ends)):
        part = payload[start:end]
        kind = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        out += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4)
    return out


def payload(label: float | Sequence[float], number: int, data: bytes = b"") -> bytes:
    if isinstance(label, (int, float)):
        return struct.pack("<IfQQ", 0, label, number, 0) + data
    return struct.pack(f"<IfQQ{len(label)}f", len(label), 0.0, number, 0, *label) + data


def write(path: Path, payloads: dict[int, bytes], shuffle: bool = False) -> Path:
    lines, data = [], b""
    for key, content in payloads.items():
        lines.append(f"{key}\t{len(data)}\n")
        data += record(content)
    if shuffle:
        random.Random(0).shuffle(lines)
    path.with_suffix(".rec").write_bytes(data)
    path.with_suffix(".idx").write_text("".join(lines))
    return path.with_suffix(".rec")


def insightface(images: list[list[bytes]], flagged: bool = False, identities: bool = True) -> dict[int, bytes]:
    """An insightface pack: header 0, images 1..N, identity records after them."""
    flat = [(c, data) for c, group in enumerate(images) for data in group]
    end = len(flat) + 1
    pack = {0: payload([end, end + len(images) * identities], 0)}
    for key, (c, data) in enumerate(flat, 1):
        pack[key] = payload([c, 0.0] if flagged else c, key, data)
    first = 1
    for c, group in enumerate(images if identities else []):
        pack[end + c] = payload([first, first + len(group)], end + c)
        first += len(group)
    return pack


GROUPS = [[b"aa", b"bbb"], [b"c"], [b"dddd", b"", b"fffff"]]


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("identities", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_insightface_pack(tmp_path: Path, flagged: bool, identities: bool, shuffle: bool) -> None:
    source = RecordIOSource(write(tmp_path / "train", insightface(GROUPS, flagged, identities), shuffle))
    assert source.keys == ["1", "2", "3", "4", "5", "6"]
    assert source.labels.tolist() == [0, 0, 1, 2, 2, 2] and source.class_names == ["0", "1", "2"]
    assert [source.read(i) for i in range(6)] == [data for group in GROUPS for data in group]


def test_a_pack_whose_record_0_is_an_image(tmp_path: Path) -> None:
    source = RecordIOSource(write(tmp_path / "x", {k: payload(k % 2, k, bytes([k])) for k in range(5)}))
    assert source.keys == ["0", "1", "2", "3", "4"] and source.labels.tolist() == [0, 1, 0, 1, 0]
    assert source.read(0) == b"\0" and source.read(4) == b"\4"


def test_record_0_with_several_labels_is_an_image(tmp_path: Path) -> None:
    """im2rec --pack-label: every record has the identity and more labels, the first too; two look like a header's."""
    for more in ([30.0], [1.0], [3.0, 4.0]):
        pack = {k: payload([k // 2, *more], k, bytes([k])) for k in range(6)}
        source = RecordIOSource(write(tmp_path / f"x{len(more)}", pack))
        assert source.labels.tolist() == [0, 0, 1, 1, 2, 2] and source.read(0) == b"\0"


@pytest.mark.parametrize("end", [(1 << 24) + 1, (1 << 24) + 2, (1 << 24) + 3, 17186135, 17186137, 40_000_003])
def test_counts_that_float32_rounds(tmp_path: Path, end: int) -> None:
    images = {1: 0, 2: 0, 3: 1, end - 2: 1, end - 1: 2}
    pack = {0: payload([end, end + 3], 0)} | {k: payload(label, k, b"image") for k, label in images.items()}
    pack |= {end + c: payload(ends, end + c) for c, ends in enumerate([(1, 3), (3, end - 1), (end - 1, end)])}
    source = RecordIOSource(write(tmp_path / "x", pack))
    assert source.keys == [str(key) for key in images] and source.labels.tolist() == list(images.values())


@pytest.mark.parametrize("label", [float(1 << 24) + 2, 1e9, 3e38])
def test_a_label_never_sizes_a_list(tmp_path: Path, label: float) -> None:
    with pytest.raises(UserError, match=r"expected a class index 0, 1, 2, \.\.\. up to 16,777,216"):
        RecordIOSource(write(tmp_path / "x", {0: payload(0, 0), 1: payload(label, 1)}))
    path = write(tmp_path / "y", {0: payload(0, 0), 1: payload(1, 1)})
    for number in ("99999999999", "²", "1" * 5000):
        (tmp_path / "property").write_text(f"{number},112,112")
        with pytest.raises(UserError, match="expected 'classes,height,width'"):
            RecordIOSource(path)


@pytest.mark.parametrize("end", [float("nan"), float("inf"), -5.0, 3e38])
def test_a_count_of_images_that_is_none(tmp_path: Path, end: float) -> None:
    with pytest.raises(UserError, match="images announced"):
        RecordIOSource(write(tmp_path / "x", {0: payload([end, end], 0), 1: payload(0, 1, b"x")}))


def test_marks_of_editors(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {k: payload(k, k) for k in range(2)})
    path.with_suffix(".idx").write_bytes(b"\xef\xbb\xbf" + path.with_suffix(".idx").read_bytes())
    (tmp_path / "property").write_text("2,112,112", encoding="utf-8-sig")
    (tmp_path / "classes.txt").write_text("zoë\r\nann\r\n", encoding="utf-8-sig")
    assert RecordIOSource(path).class_names == ["zoë", "ann"]


def test_identity_ranges_that_disagree_with_the_images_are_not_believed(tmp_path: Path) -> None:
    pack = insightface(GROUPS)
    pack[7], pack[8] = payload([1, 4], 7), payload([4, 4], 8)  # joins an image of class 1 to class 0
    assert RecordIOSource(write(tmp_path / "a", pack)).labels.tolist() == [0, 0, 1, 2, 2, 2]
    del pack[8]
    assert RecordIOSource(write(tmp_path / "b", pack)).labels.tolist() == [0, 0, 1, 2, 2, 2]


def test_identity_ranges_spare_reading_every_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x", insightface([[b"x"] * 50, [b"y"] * 50]))
    monkeypatch.setattr(RecordIOSource, "_labels_by_image", lambda *_: pytest.fail("read every header"))
    assert RecordIOSource(path).labels.tolist() == [0] * 50 + [1] * 50


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.one_of(st.just(MAGIC), st.just(MAGIC[:2]), st.binary(max_size=9)), max_size=8).map(b"".join),
        min_size=1,
        max_size=6,
    )
)
def test_any_bytes_come_back(tmp_path: Path, contents: list[bytes]) -> None:
    source = RecordIOSource(write(tmp_path / "x", {k: payload(k, k, data) for k, data in enumerate(contents)}))
    assert [source.read(i) for i in range(len(contents))] == contents
    assert source.labels.tolist() == list(range(len(contents)))


def test_a_magic_inside_the_header_and_a_large_record(tmp_path: Path) -> None:
    number = struct.unpack("<Q", bytes(4) + MAGIC)[0]  # id's upper half: bytes 12 to 15 of the header
    large = random.Random(1).randbytes(100_000)
    path = write(tmp_path / "x", {0: payload(3, number, b"image"), 1: payload(1, 1, large)})
    assert path.read_bytes()[4:8] != struct.pack("<I", len(payload(3, 0, b"image")))  # it was split
    source = RecordIOSource(path)
    assert source.labels.tolist() == [3, 1] and source.read(0) == b"image" and source.read(1) == large


def test_property_and_class_names(tmp_path: Path) -> None:
    path = write(tmp_path / "train", insightface(GROUPS))
    (tmp_path / "property").write_text("5,112,112\n")
    assert RecordIOSource(path).class_names == ["0", "1", "2", "3", "4"]
    (tmp_path / "classes.txt").write_text("ann\nbob\n")
    with pytest.raises(UserError, match=r"classes.txt: 2 names .* expected 5"):
        RecordIOSource(path)
    (tmp_path / "property").unlink()
    (tmp_path / "classes.txt").write_text("ann\nbob\ncid\n")
    assert RecordIOSource(path).class_names == ["ann", "bob", "cid"]
    (tmp_path / "property").write_text("2,112,112")
    with pytest.raises(UserError, match="2 classes, but the records hold label 2"):
        RecordIOSource(path)
    (tmp_path / "property").write_text("many")
    with pytest.raises(UserError, match="expected 'classes,height,width'"):
        RecordIOSource(path)


def test_the_stamp_sees_a_pack_that_changed_in_place(tmp_path: Path) -> None:
    path = write(tmp_path / "train", insightface(GROUPS))
    before = RecordIOSource(path)
    os.utime(path, ns=(0, 1))
    after = RecordIOSource(path)
    assert after.fingerprint == before.fingerprint and after.stamp != before.stamp


def test_labels_with_a_gap_leave_no_empty_class(tmp_path: Path) -> None:
    source = RecordIOSource(write(tmp_path / "x", {k: payload(label, k) for k, label in enumerate([0, 0, 2, 2])}))
    dataset = Dataset(source)
    assert source.class_names == ["0", "1", "2"]
    assert dataset.class_names == ["0", "2"] and dataset.labels.tolist() == [0, 0, 1, 1]


def broken(tmp_path: Path, change: Callable[[bytes], bytes]) -> Path:
    path = write(tmp_path / "train", insightface([[b"0123456789abcdef"] * 2, [b"0123456789abcdef"] * 2]))
    path.write_bytes(change(path.read_bytes()))
    return path


def test_a_broken_magic_names_key_and_offset(tmp_path: Path) -> None:
    place = len(record(payload([0, 0], 0)))  # where key 1 starts
    path = broken(tmp_path, lambda data: data[:place] + b"junk" + data[place + 4 :])
    with pytest.raises(UserError, match=rf"train.rec: key 1 at offset {place}: broken magic 0x6b6e756a"):
        RecordIOSource(path)


def test_a_broken_record_inside_an_identity_is_met_on_reading(tmp_path: Path) -> None:
    images = [[b"0123456789abcdef"] * 3]
    path = write(tmp_path / "x", insightface(images))
    place = len(record(payload([0, 0], 0))) + len(record(payload(0, 1, images[0][0])))
    data = path.read_bytes()
    path.write_bytes(data[:place] + b"junk" + data[place + 4 :])
    source = RecordIOSource(path)
    with pytest.raises(UserError, match=rf"key 2 at offset {place}: broken magic"):
        source.read(1)
    with pytest.raises(UserError, match="key 2 at offset") as e:  # one line from a worker too
        list(Loader(Dataset(source, size=4), make_sampler("uniform", source.labels, 3, 0), workers=1).epoch(0))
    assert "Traceback" not in str(e.value)


def test_a_short_record_names_key_and_offset(tmp_path: Path) -> None:
    pack = {k: payload(0, k, b"x" * 50) for k in range(2)}
    path = write(tmp_path / "x", pack)
    place = len(record(pack[0]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"key 1 at offset {place}: short record: 74 bytes announced, 56 there"):
        RecordIOSource(path).read(1)
    path.write_bytes(path.read_bytes()[: place + 4])
    with pytest.raises(UserError, match=rf"key 1 at offset {place}: the file ends before the record"):
        RecordIOSource(path)


@pytest.mark.parametrize("content", [b"", b"x" * 23, struct.pack("<IfQQ", 3, 0.0, 0, 0) + bytes(8)])
def test_a_record_too_short_for_its_header(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="key 0 at offset 0: short record"):
        RecordIOSource(write(tmp_path / "x", {0: content, 1: payload(0, 1)}))


def test_parts_out_of_order(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {0: payload(0, 0, MAGIC + b"tail"), 1: payload(0, 1)})
    data = bytearray(path.read_bytes())
    second = data.index(MAGIC, 4)
    data[second + 4 : second + 8] = struct.pack("<I", 1 << 29 | 4)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="key 0 at offset 0: a part of kind 1 follows, expected 2 or 3"):
        RecordIOSource(path).read(0)


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf")])
def test_a_label_that_is_no_class(tmp_path: Path, label: float) -> None:
    with pytest.raises(UserError, match=r"key 1 at offset \d+: label"):
        RecordIOSource(write(tmp_path / "x", {0: payload(0, 0), 1: payload(label, 1)}))


def test_faults_of_the_index(tmp_path: Path) -> None:
    path = write(tmp_path / "x", {0: payload(0, 0)})
    for text, words in [
        ("0\tzero\n", "expected a key, a tab and a byte offset"),
        ("0\t0\n1\n", "expected a key, a tab and a byte offset"),
        ("", "no records"),
        ("0\t0\n0\t0\n", "key 0 is listed twice"),
        ("0\t-8\n", "not negative"),
    ]:
        path.with_suffix(".idx").write_text(text)
        with pytest.raises(UserError, match=words):
            RecordIOSource(path)
    path.with_suffix(".idx").unlink()
    with pytest.raises(UserError, match=r"x\.idx: no such file"):
        open_source(path)


def test_record_0_that_announces_more_images_than_there_are(tmp_path: Path) -> None:
    pack = insightface(GROUPS)
    del pack[3]
    with pytest.raises(UserError, match=r"announces 6 images, the \.idx lists 5"):
        RecordIOSource(write(tmp_path / "x", pack))


def test_it_pickles_and_reads_from_threads_and_workers(tmp_path: Path, image: Callable[..., bytes]) -> None:
    images = [[image(8 * c + i) for i in range(8)] for c in range(4)]
    (tmp_path / "pack").mkdir()
    write(tmp_path / "pack" / "train", insightface(images))
    source = open_source(tmp_path / "pack")
    assert isinstance(source, RecordIOSource) and open_source(tmp_path / "pack" / "train.idx").keys == source.keys
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(again.read, range(32))) == [data for group in images for data in group]
    dataset = Dataset(source)
    sampler = make_sampler("uniform", dataset.labels, 8, 0)
    inline, workers = list(Loader(dataset, sampler).epoch(0)), list(Loader(dataset, sampler, workers=2).epoch(0))
    assert all((a.images == b.images).all() for a, b in zip(inline, workers, strict=True))
