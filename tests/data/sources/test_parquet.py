import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from facedistill.data.dataset import Dataset, open_source
from facedistill.data.loader import Loader
from facedistill.data.samplers import make_sampler
from facedistill.data.sources.parquet import ParquetSource
from facedistill.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(path: Path, rows: int = 3, **columns: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


IMAGES = [b"zero", b"one", b"two", b"three", b"four", b"five", b"six"]


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_bytes_and_text(tmp_path: Path, rows: int) -> None:
    source = ParquetSource(write(tmp_path / "x.parquet", rows, image=IMAGES, label=list("cabbaac")))
    assert source.class_names == ["a", "b", "c"] and source.labels.tolist() == [2, 0, 1, 1, 0, 0, 2]
    assert [source.read(i) for i in (6, 0, 3, 5, 1, 2, 4)] == [IMAGES[i] for i in (6, 0, 3, 5, 1, 2, 4)]
    assert source.keys == list("0123456")


@pytest.mark.parametrize("kind", ["int8", "int64", "uint16"])
def test_integer_labels_are_ordered_by_number(tmp_path: Path, kind: str) -> None:
    labels = pa.array([10, 9, 10, 9, 100, 9, 9], getattr(pa, kind)())
    source = ParquetSource(write(tmp_path / "x.parquet", image=IMAGES, label=labels))
    assert source.class_names == ["9", "10", "100"] and source.labels.tolist() == [1, 0, 1, 0, 2, 0, 0]


def test_columns_are_found_by_type_and_then_by_name(tmp_path: Path) -> None:
    jpg = pa.array(IMAGES, pa.large_binary())
    names = pa.array(list("cabbaac")).dictionary_encode()
    path = write(tmp_path / "x.parquet", score=[0.5] * 7, thumbnail=IMAGES[::-1], jpg=jpg, age=[1] * 7, person=names)
    source = ParquetSource(path)
    assert source.read(2) == b"two" and source.class_names == ["a", "b", "c"]
    path = write(tmp_path / "y.parquet", photo=IMAGES, who=list("cabbaac"))
    assert ParquetSource(path).read(1) == b"one"


def test_columns_that_cannot_be_told_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column holds image bytes.*columns: label \(string\)"):
        ParquetSource(write(tmp_path / "x.parquet", label=["a"]))
    with pytest.raises(UserError, match=r"several columns could hold labels.*p \(int64\), q \(int64\)"):
        ParquetSource(write(tmp_path / "x.parquet", image=[b"x"], p=[1], q=[2]))


def test_a_folder_of_files(tmp_path: Path) -> None:
    write(tmp_path / "d" / "b.parquet", 2, image=IMAGES[:4], label=["x", "z", "x", "z"])
    write(tmp_path / "d" / "a.parquet", 2, image=IMAGES[4:], label=["y", "y", "z"])
    source = open_source(tmp_path / "d")
    assert isinstance(source, ParquetSource) and source.class_names == ["x", "y", "z"]
    assert source.keys == ["a:0", "a:1", "a:2", "b:0", "b:1", "b:2", "b:3"]
    assert [source.read(i) for i in range(7)] == IMAGES[4:] + IMAGES[:4]
    assert source.labels.tolist() == [1, 1, 2, 0, 2, 0, 2]
    write(tmp_path / "d" / "c.parquet", picture=[b"x"], label=["x"])
    with pytest.raises(UserError, match=r"c\.parquet: no column 'image'"):
        open_source(tmp_path / "d")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00000-of-00001", "test-00000-of-00001"], "test, train"),
        (["train-00000-of-00002-a09b74b3ef9c3b56", "train-00001-of-00002", "eval-00000-of-00001"], "eval, train"),
        (["train", "val"], "train, val"),
        (["train-00000-of-00002", "train-00001-of-00002"], None),
        (["trainees", "testers", "train-00000-of-00001"], None),
    ],
)
def test_several_splits_are_refused(tmp_path: Path, names: list[str], splits: str | None) -> None:
    for name in names:
        write(tmp_path / "d" / f"{name}.parquet", image=IMAGES, label=list("abcabca"))
    if splits is None:
        assert len(open_source(tmp_path / "d")) == 7 * len(names)
    else:
        with pytest.raises(UserError, match=rf"d: holds several splits \({splits}\); name one file, or put the files"):
            open_source(tmp_path / "d")
        assert len(open_source(tmp_path / "d" / f"{names[-1]}.parquet")) == 7


def test_the_stamp_sees_the_file_and_the_images_that_rows_only_name(tmp_path: Path, folder: Path) -> None:
    names = [{"bytes": None, "path": str(folder / f"a/0{i}.jpg")} for i in (0, 1)]
    images = pa.array(names, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    path = write(tmp_path / "x.parquet", image=images, label=["x", "y"])
    seen = [ParquetSource(path)]
    for file in (path, folder / "a" / "00.jpg"):
        os.utime(file, ns=(0, 1))
        seen.append(ParquetSource(path))
    assert seen[0].read(1) == (folder / "a" / "01.jpg").read_bytes()
    assert len({source.fingerprint for source in seen}) == 1 and len({source.stamp for source in seen}) == 3


@pytest.mark.parametrize("rows", [2, 100])
@pytest.mark.parametrize("embedded", [False, True])
def test_what_the_datasets_library_writes(tmp_path: Path, folder: Path, rows: int, embedded: bool) -> None:
    datasets = pytest.importorskip("datasets")
    plain = open_source(folder)
    table = datasets.Dataset.from_dict(
        {"image": [str(folder / key) for key in plain.keys], "label": (2 - plain.labels).tolist()},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["c", "b", "a"])}),
    )
    if embedded:  # as push_to_hub does; to_parquet alone leaves the paths of files
        from datasets.table import embed_table_storage

        table = table.with_format("arrow").map(embed_table_storage, batched=True, features=table.features)
    table.to_parquet(tmp_path / "x.parquet", batch_size=rows)
    contents = [plain.read(i) for i in range(12)]
    if embedded:
        shutil.rmtree(folder)
    source = open_source(tmp_path / "x.parquet")
    assert source.class_names == ["c", "b", "a"] and source.labels.tolist() == (2 - plain.labels).tolist()
    assert source.keys == plain.keys  # class and file name
    assert [source.read(i) for i in range(12)] == contents


def test_newer_types_of_arrow(tmp_path: Path) -> None:
    images, labels = pa.array(IMAGES, pa.binary_view()), pa.array(list("cabbaac"), pa.string_view())
    source = ParquetSource(write(tmp_path / "x.parquet", image=images, label=labels))
    assert source.class_names == ["a", "b", "c"] and source.read(1) == b"one"


def test_a_column_that_numbers_the_rows_is_no_label(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", id=list(range(7)), image=IMAGES, name=list("cabbaac"))
    assert ParquetSource(path).class_names == ["a", "b", "c"]
    assert len(open_source(path, {"label": "id"}).class_names) == 7
    with pytest.raises(
        UserError, match=r"several columns could hold labels .*: label \(2 classes\), name \(3 classes\)"
    ):
        ParquetSource(write(tmp_path / "y.parquet", image=IMAGES, label=[0, 0, 0, 1, 1, 1, 1], name=list("cabbaac")))


def named(path: Path, names: list[str] | None, labels: list[Any]) -> None:
    """A part whose ClassLabel has its own names."""
    table = pa.table({"image": [b"x"] * len(labels), "label": labels})
    if names:
        features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)


def test_parts_that_number_their_classes_differently(tmp_path: Path) -> None:
    named(tmp_path / "d" / "a.parquet", ["ann", "bob"], [0, 1])
    named(tmp_path / "d" / "b.parquet", ["bob", "cid"], [0, 1, 1])
    source = ParquetSource(tmp_path / "d")
    assert [source.class_names[label] for label in source.labels] == ["ann", "bob", "bob", "cid", "cid"]
    named(tmp_path / "d" / "c.parquet", None, [0])
    with pytest.raises(UserError, match=r"c\.parquet: labels without class names, which other files"):
        ParquetSource(tmp_path / "d")


def test_parts_with_labels_of_two_kinds(tmp_path: Path) -> None:
    named(tmp_path / "d" / "a.parquet", None, [0, 1])
    named(tmp_path / "d" / "b.parquet", None, ["0", "1"])
    with pytest.raises(UserError, match=r"b\.parquet: column 'label' holds string, and int64 in .*a\.parquet"):
        ParquetSource(tmp_path / "d")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train-00000-of-00002.parquet", image=IMAGES, label=list("abcabca"))
    with pytest.raises(UserError, match="missing: train-00001-of-00002"):
        open_source(tmp_path / "d")


def test_damage_is_one_line_or_an_unreadable_image(tmp_path: Path) -> None:
    images = [bytes([i]) * 200 for i in range(9)]
    good = write(tmp_path / "x.parquet", 4, image=images, label=list("aaabbbccc")).read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "x.parquet").write_bytes(data)
        try:
            source = open_source(tmp_path / "x.parquet")
        except UserError as e:
            assert "\n" not in str(e)
            continue
        for i in range(len(source)):
            with suppress(ValueError):
                source.read(i)


def test_a_class_label_out_of_range(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    for label in (-1, 2):
        table = pa.table({"image": [b"x", b"y"], "label": [0, label]})
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
        with pytest.raises(UserError, match=rf"label {label}; expected 0 to 1"):
            ParquetSource(tmp_path / "x.parquet")


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 1 has no label"):
        ParquetSource(write(tmp_path / "x.parquet", image=[b"x", b"y"], label=["a", None]))
    with pytest.raises(UserError, match="no rows"):
        ParquetSource(write(tmp_path / "x.parquet", image=pa.array([], pa.binary()), label=pa.array([], pa.string())))
    (tmp_path / "x.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    with pytest.raises(UserError, match="not a Parquet file that can be read"):
        ParquetSource(tmp_path / "x.parquet")


def test_a_row_without_an_image_is_unreadable(tmp_path: Path, image: Callable[..., bytes]) -> None:
    source = ParquetSource(write(tmp_path / "x.parquet", image=[image(0), None], label=["a", "b"]))
    assert Dataset(source, max_unreadable=0.5).batch([0, 1]).unreadable == ["1"]


def test_threads_workers_and_pickling(tmp_path: Path, image: Callable[..., bytes]) -> None:
    images = [image(i) for i in range(40)]
    source = ParquetSource(write(tmp_path / "x.parquet", 3, image=images, label=[i % 4 for i in range(40)]))
    dataset = Dataset(pickle.loads(pickle.dumps(source)))
    memory = dataset.in_memory()
    sampler = make_sampler("uniform", dataset.labels, 8, 0)
    inline, workers = list(Loader(memory, sampler).epoch(0)), list(Loader(dataset, sampler, workers=2).epoch(0))
    assert all((a.images == b.images).all() for a, b in zip(inline, workers, strict=True))


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", image=IMAGES, label=list("abcabca"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'facedistill\[parquet\]'"):
        open_source(path)
