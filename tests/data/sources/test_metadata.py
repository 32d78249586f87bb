"""Hugging Face's imagefolder: the labels are in a list beside the images, never in the folders' names."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from facedistill.data.dataset import Dataset, open_source
from facedistill.data.sources.metadata import MetadataSource
from facedistill.errors import UsageError, UserError


@pytest.fixture
def train(tmp_path: Path, image: Callable[..., bytes]) -> Path:
    """Images of ann, bob and zoe in two folders of shards: images/000 and images/001."""
    for i in range(6):
        (tmp_path / f"train/images/00{i // 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"train/images/00{i // 3}/{i}.jpg").write_bytes(image(i))
    return tmp_path / "train"


PEOPLE = ["zoe", "ann", "bob", "zoe", "ann", "bob"]
ROWS = [f"images/00{i // 3}/{i}.jpg,{i % 3},{person},{i}" for i, person in enumerate(PEOPLE)]


def write(train: Path, rows: list[str] = ROWS, header: str = "file_name,number,identity,id") -> Path:
    (train / "metadata.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8-sig")
    return train


def check(source: object) -> None:
    assert isinstance(source, MetadataSource)
    assert source.keys == [f"images/00{i // 3}/{i}.jpg" for i in range(6)]
    assert [source.class_names[label] for label in source.labels] == PEOPLE and len(source.class_names) == 3
    assert len(Dataset(source).batch(range(6))) == 6


def test_labels_of_a_csv_and_of_json_lines(train: Path) -> None:
    check(open_source(write(train)))
    check(open_source(train / "metadata.csv"))
    (train / "metadata.csv").unlink()
    rows = [{"file_name": row.split(",")[0], "identity": person} for row, person in zip(ROWS, PEOPLE, strict=True)]
    (train / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    check(open_source(train))


def test_numbers_are_in_the_order_of_numbers(train: Path) -> None:
    rows = [f"{row.split(',')[0]},{10 - i // 2}" for i, row in enumerate(ROWS)]
    assert open_source(write(train, rows, "file_name,label")).class_names == ["8", "9", "10"]


@pytest.mark.parametrize("place", ["", "train", "train/images", "train/images/000"])
def test_at_every_level_the_list_is_found(train: Path, place: str) -> None:
    write(train)
    if place == "train":
        check(open_source(train.parent / place))
    else:
        with pytest.raises(UserError, match=r"labels of these images are in .*metadata\.csv; is PATH perhaps .*train"):
            open_source(train.parent / place)


def test_a_list_of_other_things_is_nobodys_labels(folder: Path) -> None:
    for place in (folder, folder.parent):
        (place / "a" if place == folder else place).joinpath("metadata.csv").write_text("camera,lens\nx,y\n")
    assert open_source(folder).class_names == ["a", "b", "c"]


def test_a_user_names_the_columns(train: Path) -> None:
    path = write(train, header="photo,number,label,person")
    with pytest.raises(UserError, match=r"no column file_name; columns: photo, number, label, person"):
        open_source(path)
    check(open_source(path, {"image": "photo"}))
    assert len(open_source(path, {"image": "photo", "label": "person"}).class_names) == 6
    with pytest.raises(UserError, match=r"data\.columns names 'age', which holds no labels"):
        open_source(path, {"image": "photo", "label": "age"})
    with pytest.raises(UsageError, match=r"data.columns has no key 'labl' .did you mean 'label'"):
        open_source(path, {"labl": "person"})


def test_a_row_opens_only_files_inside(train: Path, tmp_path: Path, image: Callable[..., bytes]) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0.jpg").write_bytes(image(0))
    for name in ("../other/0.jpg", str(tmp_path / "other" / "0.jpg"), "images/../../other/0.jpg"):
        with pytest.raises(UserError, match=r"metadata\.csv, line 8: the row names a file outside .*columns={folder"):
            open_source(write(train, [*ROWS, f"{name},0,ann,7"]))
    rows = ["0.jpg,ann"] * 1
    path = write(train, rows, "file_name,label")
    assert open_source(path, {"folder": str(tmp_path / "other")}).read(0) == image(0)


def test_missing_and_unusual_files_are_unreadable(train: Path) -> None:
    (train / "images/000/0.jpg").unlink()
    (train / "images/000/1.jpg").unlink()
    os.mkfifo(train / "images/000/1.jpg")
    dataset = Dataset(open_source(write(train)), max_unreadable=1)
    assert dataset.batch(range(6)).unreadable == ["images/000/0.jpg", "images/000/1.jpg"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no column file_name"),
        (ROWS[:5], r"1 images beside it have no row \(images/001/5\.jpg\)"),
        ([*ROWS, ROWS[2]], r"images/000/2\.jpg is listed twice"),
        ([*ROWS[:5], "images/001/5.jpg,2,,5"], "line 7: no label in column identity"),
        ([*ROWS[:5], ",2,bob,5"], "line 7: no image"),
        ([*ROWS[:5], ROWS[5] + ",more"], "line 7: 5 cells for 4 columns"),
    ],
)
def test_faults_are_named(train: Path, rows: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as e:
        open_source(write(train, rows))
    assert "\n" not in str(e.value)


def test_two_columns_of_one_name_are_named(train: Path) -> None:
    with pytest.raises(UserError, match=r"metadata\.csv: two columns are called 'label'"):
        open_source(write(train, ["0.jpg,ann,bob"], "file_name,label,label"))


def test_json_lines_that_are_none(train: Path) -> None:
    for text in ("{", "[]", '{"file_name": "x"}\n3'):
        (train / "metadata.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"metadata\.jsonl"):
            open_source(train)
