import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from facedistill.data.dataset import Dataset, open_source
from facedistill.data.sources import tar as tar_module
from facedistill.data.sources.tar import TarSource
from facedistill.errors import UserError

Mode = Literal["w", "w:gz", "w:bz2", "w:xz"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT, mode: Mode = "w") -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


FOLDERS = [("b/2.jpg", b"b2"), ("b/1.jpg", b"b1" * 600), ("a/1.png", b""), ("a/.x.jpg", b"no"), ("a/notes.txt", b"no")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "train/", "deep/" * 30])
def test_folders_in_a_tar(tmp_path: Path, form: int, prefix: str) -> None:
    source = TarSource(write(tmp_path / "x.tar", [(prefix + name, data) for name, data in FOLDERS], form))
    assert source.class_names == ["a", "b"] and source.labels.tolist() == [1, 1, 0]
    assert [source.read(i) for i in range(3)] == [b"b2", b"b1" * 600, b""]


def test_a_tar_of_an_extracted_folder_equals_the_folder(tmp_path: Path, folder: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(folder, "faces")
    tarred, plain = open_source(tmp_path / "x.tar"), open_source(folder)
    contents = {key.removeprefix("faces/"): tarred.read(i) for i, key in enumerate(tarred.keys)}
    assert tarred.class_names == plain.class_names
    assert contents == {key: plain.read(i) for i, key in enumerate(plain.keys)}


def test_classes_of_equal_name_in_different_folders_stay_apart(tmp_path: Path) -> None:
    source = TarSource(write(tmp_path / "x.tar", [("p/a/1.jpg", b"1"), ("q/a/1.jpg", b"2")]))
    assert source.class_names == ["p/a", "q/a"]


def test_webdataset_with_cls_and_json(tmp_path: Path) -> None:
    samples = [("d/000.jpg", b"x"), ("d/000.cls", b"10\n"), ("d/001.cls", b"9"), ("d/001.jpg", b"yy")]
    source = TarSource(write(tmp_path / "x.tar", samples))
    assert source.class_names == ["9", "10"] and source.labels.tolist() == [1, 0]  # by number, not by text
    assert [source.read(0), source.read(1)] == [b"x", b"yy"]
    samples = [("0.png", b"x"), ("0.json", json.dumps({"label": "zoe"}).encode()), ("1.jpg", b"y"), ("1.cls", b"ann")]
    source = TarSource(write(tmp_path / "y.tar", samples))
    assert source.class_names == ["ann", "zoe"] and source.labels.tolist() == [1, 0]
    url = json.dumps({"url": "there"}).encode()
    samples = [("0.cls", b"ann"), ("0.jpg", b"x"), ("0.json", url), ("info.json", url)]
    assert TarSource(write(tmp_path / "z.tar", samples)).class_names == ["ann"]
    assert TarSource(write(tmp_path / "f.tar", [("ann/0.jpg", b"x"), ("info.json", url)])).class_names == ["ann"]


def test_labels_of_names_with_several_dots(tmp_path: Path) -> None:
    """By webdataset's key all images of `img.0.jpg`, `img.1.jpg` are one sample: each had the last label."""
    dotted = [(f"v1/img.{i}.{end}", text) for i in range(3) for end, text in (("jpg", b"x"), ("cls", b"%d" % i))]
    assert TarSource(write(tmp_path / "dots.tar", dotted)).labels.tolist() == [0, 1, 2]
    sides = [(f"{i}.{name}", b"%d" % i) for i in range(2) for name in ("left.jpg", "right.jpg", "cls", "depth.cls")]
    assert TarSource(write(tmp_path / "sides.tar", sides)).labels.tolist() == [0, 0, 1, 1]
    loud = [("0.JPG", b"x"), ("0.CLS", b"ann"), ("1.jpg", b"x"), ("1.meta.json", b'{"label": "bob"}')]
    assert TarSource(write(tmp_path / "loud.tar", loud)).class_names == ["ann", "bob"]
    with pytest.raises(UserError, match=r"img\.3\.jpg has no label v1/img\.3\.cls"):
        TarSource(write(tmp_path / "one.tar", [*dotted, ("v1/img.3.jpg", b"x")]))


def test_a_folder_of_shards(tmp_path: Path) -> None:
    for shard, names in [("1", "ab"), ("0", "bc")]:
        write(tmp_path / "shards" / f"train-{shard}.tar", [(f"{n}/0.jpg", (n + shard).encode()) for n in names])
    source = open_source(tmp_path / "shards")
    assert isinstance(source, TarSource) and source.class_names == ["a", "b", "c"]
    assert [source.read(i) for i in range(4)] == [b"b0", b"c0", b"a1", b"b1"] and source.labels.tolist() == [1, 2, 0, 1]
    assert source.keys == ["train-0.tar:b/0.jpg", "train-0.tar:c/0.jpg", "train-1.tar:a/0.jpg", "train-1.tar:b/0.jpg"]
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(i) for i in range(4)] == [b"b0", b"c0", b"a1", b"b1"]


def test_classes_are_decided_over_all_shards(tmp_path: Path) -> None:
    """The first shard's images are in one folder, the second's in two: each alone would name its classes otherwise."""
    write(tmp_path / "s" / "0.tar", [("p/ann/1.jpg", b"1")])
    write(tmp_path / "s" / "1.tar", [("p/bob/1.jpg", b"2"), ("q/cid/1.jpg", b"3")])
    assert TarSource(tmp_path / "s").class_names == ["p/ann", "p/bob", "q/cid"]
    write(tmp_path / "s" / "2.tar", [("dan/1.jpg", b"4")])
    with pytest.raises(UserError, match="images lie at different depths, in dan, "):
        TarSource(tmp_path / "s")


def test_shards_have_one_layout(tmp_path: Path) -> None:
    write(tmp_path / "s" / "0.tar", [("a/1.jpg", b"1"), ("a/1.cls", b"ann")])
    write(tmp_path / "s" / "1.tar", [("a/2.jpg", b"2")])
    with pytest.raises(UserError, match=r"1\.tar: a/2\.jpg has no label a/2\.cls or \.json beside it"):
        TarSource(tmp_path / "s")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path / "s" / "x-000-of-003.tar", FOLDERS)
    write(tmp_path / "s" / "x-002-of-003.tar", FOLDERS)
    with pytest.raises(UserError, match=r"2 of 3 parts are there; missing: x-001-of-003;"):
        open_source(tmp_path / "s")


@pytest.mark.parametrize("extra", ["x/p0/.ipynb_checkpoints/0.jpg", "x/.thumbs/0.jpg", "__MACOSX/x/p0/._0.jpg"])
def test_hidden_folders_are_no_classes(tmp_path: Path, extra: str) -> None:
    members = [(f"x/p{p}/{i}.jpg", b"x") for p in range(3) for i in range(2)]
    source = TarSource(write(tmp_path / "x.tar", [*members, (extra, b"no")]))
    assert source.class_names == ["p0", "p1", "p2"] and len(source) == 6


def test_symbolic_links(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", [("a/1.jpg", b"a1"), ("b/1.jpg", b"b1")])
    with tarfile.open(path, "a") as tar:
        for number, target in enumerate(["../a/1.jpg", "2.jpg", "/nowhere", "5.jpg"], start=2):
            info = link(f"b/{number}.jpg", target)
            info.type = tarfile.SYMTYPE
            tar.addfile(info)
    source = TarSource(path)
    assert [source.read(i) for i in range(6)] == [b"a1", b"b1", b"a1", b"a1", b"", b""]
    assert Dataset(source, size=4, max_unreadable=1).batch([4, 5]).unreadable == ["b/4.jpg", "b/5.jpg"]


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 11 + b"\0")
    block += b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(512)
    block = block[:512]
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


BIG = b"\x80" + (2**40).to_bytes(11, "big")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header(b"a/1.jpg", BIG), "announces 1,099,511,627,776 bytes|not a whole tar"),
        (header(b"a/1.jpg", b"\xff" * 12) + bytes(2048), "not a whole tar file"),
        (header(b"././@LongLink", BIG, b"L"), "not a whole tar file"),
        (header(b"x", BIG, b"x"), "not a whole tar file"),
        (header(b"a/1.jpg", b"00000001000\0", b"S") + bytes(2048), "sparse file"),
        (b"".join(header(b"x", b"0", b"x") for _ in range(5000)), "not a whole tar file"),
    ],
)
def test_sizes_that_a_file_announces(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.tar").write_bytes(data + bytes(1024))
    with pytest.raises(UserError, match=words) as e:
        TarSource(tmp_path / "x.tar")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("data", [b'{"label": null}', b'{"label": [1]}', b"[" * 100_000, b"\xff\xfe", b"[]"])
def test_labels_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match=r"label 1\.json") as e:
        TarSource(write(tmp_path / "x.tar", [("1.jpg", b"x"), ("1.json", data)]))
    assert len(str(e.value)) < 500


def test_a_changed_index_is_made_anew(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "x.tar", FOLDERS)
    TarSource(path)
    (file,) = cache.rglob("*.json")
    file.write_text(file.read_text().replace("b/2.jpg", "b/9.jpg"))
    assert TarSource(path).keys[0] == "b/2.jpg"


def test_the_index_is_remembered_until_the_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.tar", FOLDERS)
    first = TarSource(path)
    with monkeypatch.context() as patch:
        patch.setattr(tar_module, "_scan", lambda _: pytest.fail("scanned again"))
        again = TarSource(path)
        assert (again.keys, again.fingerprint, again.read(1)) == (first.keys, first.fingerprint, first.read(1))
    write(path, [*FOLDERS, ("c/1.jpg", b"c")])
    assert TarSource(path).class_names == ["a", "b", "c"]


def test_a_cache_that_cannot_be_used_does_not_matter(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.tar", FOLDERS)
    TarSource(path)
    for file in cache.rglob("*.json"):
        file.write_text('{"names": 1')
    assert len(TarSource(path)) == 3
    monkeypatch.setenv("FACEDISTILL_CACHE", str(path))  # a file, where a folder should be
    assert len(TarSource(path)) == 3


def test_the_stamp_sees_a_shard_that_changed_in_place(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", FOLDERS)
    before = TarSource(path)
    os.utime(path, ns=(0, 1))
    after = TarSource(path)
    assert after.fingerprint == before.fingerprint and after.stamp != before.stamp


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info


def test_a_hard_link_is_the_image_that_it_names(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", [("./a/1.jpg", b"a1"), ("./b/1.jpg", b"b1")])
    with tarfile.open(path, "a") as tar:
        tar.addfile(link("./b/2.jpg", "./a/1.jpg"))
        tar.addfile(link("./b/3.jpg", "./b/2.jpg"))  # a link to a link
    source = TarSource(path)
    assert source.keys == ["a/1.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"]
    assert [source.read(i) for i in range(4)] == [b"a1", b"b1", b"a1", b"a1"]
    with tarfile.open(path, "a") as tar:
        tar.addfile(link("b/4.jpg", "c/1.jpg"))
    with pytest.raises(UserError, match=r"b/4\.jpg is a hard link to c/1\.jpg, which is not among.*--hard-dereference"):
        TarSource(path)


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed_tars_are_refused_with_advice(tmp_path: Path, mode: Mode, kind: str) -> None:
    path = write(tmp_path / "x.tgz", FOLDERS, mode=mode)
    with pytest.raises(UserError, match=rf"compressed with {kind}.*tar -xf x\.tgz"):
        open_source(path)


def test_faults_are_named(tmp_path: Path) -> None:
    for name, members, words in [
        ("loose", [("1.jpg", b"x")], r"1\.jpg is in no class's folder"),
        ("empty", [("a/readme.txt", b"x")], "no images"),
        ("half", [("1.jpg", b"x"), ("1.cls", b"a"), ("2.jpg", b"y")], r"2\.jpg has no label 2\.cls"),
        ("blank", [("1.jpg", b"x"), ("1.cls", b" ")], r"label 1\.cls is empty"),
        ("keyless", [("1.jpg", b"x"), ("1.json", b'{"id": 3}')], r"label 1\.json cannot be read"),
    ]:
        with pytest.raises(UserError, match=words):
            TarSource(write(tmp_path / f"{name}.tar", members))
    (tmp_path / "no.tar").write_bytes(b"this is not a tar file" * 100)
    with pytest.raises(UserError, match="not a whole tar file"):
        TarSource(tmp_path / "no.tar")


def test_a_truncated_tar_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", [("a/1.jpg", b"x" * 5000), ("a/2.jpg", b"y" * 5000)])
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match="not a whole tar file"):
        TarSource(path)
