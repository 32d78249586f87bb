import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facedistill.data.dataset import Dataset, open_source
from facedistill.data.loader import Loader
from facedistill.data.samplers import make_sampler
from facedistill.data.sources import arrow
from facedistill.data.sources.arrow import ArrowSource
from facedistill.errors import UserError

os.environ.setdefault("HF_HUB_OFFLINE", "1")
datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")


def dataset_of(folder: Path, label: Any = None) -> Any:
    plain = open_source(folder)
    label = label or datasets.ClassLabel(names=["a", "b", "c"])
    labels = (
        plain.labels.tolist()
        if isinstance(label, datasets.ClassLabel)
        else [plain.class_names[i] for i in plain.labels]
    )
    features = datasets.Features({"image": datasets.Image(), "label": label})
    files = [str(folder / key) for key in plain.keys]
    return datasets.Dataset.from_dict({"image": files, "label": labels}, features=features)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_saved_data_set(tmp_path: Path, folder: Path, shards: int) -> None:
    dataset_of(folder).save_to_disk(tmp_path / "hf", num_shards=shards)
    source, plain = open_source(tmp_path / "hf"), open_source(folder)
    assert isinstance(source, ArrowSource) and source.class_names == ["a", "b", "c"]
    assert source.labels.tolist() == plain.labels.tolist() and source.keys == plain.keys
    for file in folder.rglob("*.jpg"):
        file.unlink()  # the images are in the data set, not beside it
    order = np.random.default_rng(0).permutation(12)
    again = pickle.loads(pickle.dumps(source))
    assert Dataset(source).batch(order).images.shape == (12, 3, 16, 16)
    assert all(again.read(int(i)) == source.read(int(i)) for i in order)


def test_text_labels_and_a_shuffled_selection(tmp_path: Path, folder: Path) -> None:
    table = dataset_of(folder, datasets.Value("string")).shuffle(seed=1).select(range(5))
    table.save_to_disk(tmp_path / "hf")
    source = open_source(tmp_path / "hf")
    assert [source.class_names[i] for i in source.labels] == list(table["label"])
    for i in range(5):
        assert (Dataset(source).image(i) == np.asarray(table[i]["image"])).all()


def test_the_rows_of_sharded_files_keep_their_order(tmp_path: Path, folder: Path) -> None:
    plain = open_source(folder)
    dataset_of(folder).save_to_disk(tmp_path / "hf", num_shards=4)
    source = open_source(tmp_path / "hf")
    assert [source.read(i) for i in range(12)] == [plain.read(i) for i in range(12)]


def test_a_pickle_carries_no_images(tmp_path: Path) -> None:
    rows = {"image": [bytes(100_000)] * 10, "label": list("abababcabc")}
    datasets.Dataset.from_dict(
        rows, features=datasets.Features(image=datasets.Value("binary"), label=datasets.Value("string"))
    ).save_to_disk(tmp_path / "hf")
    stored = pickle.dumps(open_source(tmp_path / "hf"))
    assert len(stored) < 10_000 and pickle.loads(stored).read(3) == bytes(100_000)


def test_workers_read_it(tmp_path: Path, folder: Path) -> None:
    dataset_of(folder).save_to_disk(tmp_path / "hf", num_shards=2)
    dataset = Dataset(open_source(tmp_path / "hf"))
    sampler = make_sampler("uniform", dataset.labels, 4, 0)
    inline, workers = list(Loader(dataset, sampler).epoch(0)), list(Loader(dataset, sampler, workers=2).epoch(0))
    assert all((a.images == b.images).all() for a, b in zip(inline, workers, strict=True))


def test_the_stamp_sees_the_files_and_the_images_that_rows_only_name(tmp_path: Path, folder: Path) -> None:
    names = {"image": [{"bytes": None, "path": str(folder / f"a/0{i}.jpg")} for i in (0, 1)], "label": ["x", "y"]}
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array(names["image"], kind), "label": names["label"]})
    data = tmp_path / "hf" / "data-00000-of-00001.arrow"
    data.parent.mkdir()
    with pyarrow.ipc.new_stream(str(data), table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "hf" / "state.json").write_text(json.dumps({"_data_files": [{"filename": data.name}]}))
    inside = {"folder": str(folder)}
    seen = [open_source(tmp_path / "hf", inside)]
    for file in (data, folder / "a" / "00.jpg"):
        os.utime(file, ns=(0, 1))
        seen.append(open_source(tmp_path / "hf", inside))
    assert seen[0].read(1) == (folder / "a" / "01.jpg").read_bytes()
    assert len({source.fingerprint for source in seen}) == 1 and len({source.stamp for source in seen}) == 3
    with pytest.raises(ValueError, match="names a file outside"):
        open_source(tmp_path / "hf").read(1)


def test_classes_of_a_label_without_images_are_left_out(tmp_path: Path, folder: Path) -> None:
    dataset_of(folder).filter(lambda label: label != 1, input_columns="label").save_to_disk(tmp_path / "hf")
    dataset = Dataset(open_source(tmp_path / "hf"))
    assert dataset.class_names == ["a", "c"] and dataset.labels.tolist() == [0] * 2 + [1] * 6


def test_splits_are_named(tmp_path: Path, folder: Path) -> None:
    table = dataset_of(folder)
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "hf")
    with pytest.raises(UserError, match=r"several splits \(train, test\); name one, e\.g\. .*hf/train"):
        open_source(tmp_path / "hf")
    assert len(open_source(tmp_path / "hf" / "test")) == 12


def test_a_reader_that_dies_is_one_line(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_of(folder).save_to_disk(tmp_path / "hf")
    monkeypatch.setattr(arrow, "VALIDATE", "import os; os.abort()")
    with pytest.raises(UserError, match=r"data-00000-of-00001\.arrow: .*ends the reader \(SIGABRT\)") as e:
        open_source(tmp_path / "hf")
    assert "\n" not in str(e.value)


def test_offsets_outside_the_data_are_refused(tmp_path: Path) -> None:
    """Offsets of a column of bytes: 0, 3, 6, ...; a large one would be read from anywhere in memory."""
    table = pyarrow.table({"image": [b"xxx"] * 9, "label": list("aaabbbccc")})
    data = tmp_path / "hf" / "data-00000-of-00001.arrow"
    data.parent.mkdir()
    with pyarrow.ipc.new_stream(str(data), table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "hf" / "state.json").write_text(json.dumps({"_data_files": [{"filename": data.name}]}))
    assert len(open_source(tmp_path / "hf")) == 9
    offsets = struct.pack("<3i", 0, 3, 6)
    assert data.read_bytes().count(offsets) == 1
    data.write_bytes(data.read_bytes().replace(offsets, struct.pack("<3i", 0, 2**31 - 1, 6)))
    with pytest.raises(UserError, match=r"not an Arrow stream that can be read: .*[Oo]ffset"):
        open_source(tmp_path / "hf")


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/passwd", "", 3, None, "a/b.arrow"])
def test_data_files_outside_the_folder(tmp_path: Path, name: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(UserError, match=r"state\.json: data file .*expected what datasets"):
        open_source(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", '{"_data_files": 3}', '{"_data_files": [3]}', "[" * 100_000, "\ufeff{"])
def test_a_state_of_another_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(UserError, match=r"state\.json") as e:
        open_source(tmp_path)
    assert "\n" not in str(e.value)


def test_faults_are_named(tmp_path: Path, folder: Path) -> None:
    dataset_of(folder).save_to_disk(tmp_path / "hf")
    data = next((tmp_path / "hf").glob("*.arrow"))
    data.write_bytes(b"not arrow")
    with pytest.raises(UserError, match="not an Arrow stream"):
        open_source(tmp_path / "hf")
    data.unlink()
    with pytest.raises(UserError, match=rf"{data.name}: not an Arrow stream"):
        open_source(tmp_path / "hf")
    (tmp_path / "hf" / "state.json").write_text('{"_data_files": []}')
    with pytest.raises(UserError, match="lists no data files"):
        open_source(tmp_path / "hf")
    (tmp_path / "hf" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json: .*expected what datasets\.save_to_disk writes"):
        open_source(tmp_path / "hf")
