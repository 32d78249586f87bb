"""MedMNIST's layout, an .npz whose members are built byte by byte from numpy's definition of .npy."""

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from facedistill.data import open_source
from facedistill.data.sources.medmnist import MedMnistSource
from facedistill.errors import UsageError, UserError

GREY = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
COLOUR = np.arange(2 * 30 * 28 * 3, dtype=np.uint8).reshape(2, 30, 28, 3)
SPLITS: dict[str, np.ndarray] = {
    "train_images": GREY,
    "val_images": COLOUR,
    "test_images": COLOUR[:1],
    "train_labels": np.array([[1], [0], [3], [1]], np.uint8),
    "val_labels": np.array([[0], [2]], np.int64),
    "test_labels": np.array([[1]], np.uint8),
}


def npy(array: np.ndarray) -> bytes:
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()


def write(path: Path, **changed: np.ndarray | None) -> Path:
    arrays: dict[str, np.ndarray | None] = {**SPLITS, **changed}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            if array is not None:
                archive.writestr(f"{name}.npy", npy(array))
    return path


ONE_SPLIT = dict.fromkeys(["val_images", "val_labels", "test_images", "test_labels"])


def test_a_split_of_three(tmp_path: Path) -> None:
    path = write(tmp_path / "blood.npz")
    train = open_source(f"medmnist:path={path},split=train")
    assert isinstance(train, MedMnistSource)
    assert train.labels.tolist() == [1, 0, 3, 1] and train.class_names == ["0", "1", "2", "3"]
    pixels = pickle.loads(pickle.dumps(train)).read(2)
    assert pixels.shape == (28, 28, 3) and (pixels == GREY[2][..., None]).all()
    val = open_source(f"medmnist:path={path},split=val")
    assert val.labels.tolist() == [0, 2] and (val.read(1) == COLOUR[1]).all()
    assert len(open_source(f"medmnist:split=test,path={path}")) == 1


def test_several_labels_an_image(tmp_path: Path) -> None:
    path = write(tmp_path / "chest.npz", **ONE_SPLIT, train_labels=np.eye(4, 14, dtype=np.uint8))
    found = open_source(path)
    assert found.multi_hot is not None and (found.multi_hot == np.eye(4, 14, dtype=bool)).all()
    assert list(found.label_names) == [str(i) for i in range(14)] and len(found.class_names) == len(found) == 4
    assert found.fingerprint != open_source(write(tmp_path / "one.npz", **ONE_SPLIT)).fingerprint


def test_names_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "blood.npz", **ONE_SPLIT)
    plain = open_source(path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    named = open_source(path)
    assert named.class_names == list("abcde") and (named.labels == plain.labels).all()
    assert named.fingerprint != plain.fingerprint
    several = write(tmp_path / "chest.npz", **ONE_SPLIT, train_labels=np.eye(4, 3, dtype=np.uint8))
    assert list(open_source(several).label_names) == list("abc")
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match=r"3 names .2 different.; expected 4 or more"):
        open_source(path)


def test_one_split_opens_by_its_path(tmp_path: Path) -> None:
    assert len(open_source(write(tmp_path / "blood.npz", **ONE_SPLIT))) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "several splits .train, val, test.; name one: medmnist:path=.*blood.npz,split=train"),
        (ONE_SPLIT | {"train_labels": 2 * np.eye(4, 14, dtype=np.uint8)}, "14 columns with numbers from 0 to 2"),
        (ONE_SPLIT | {"train_labels": np.array([[0.5]] * 4)}, r"train_labels is float64 \(4, 1\)"),
        (ONE_SPLIT | {"train_labels": np.array([[-1]] * 4)}, "label -1; expected numbers of classes"),
        (ONE_SPLIT | {"train_labels": np.array([[1]] * 3)}, "4 images, but 3 labels"),
        (ONE_SPLIT | {"train_labels": None}, "no array train_labels; expected MedMNIST's arrays"),
        (ONE_SPLIT | {"train_images": np.zeros((2, 28, 28, 28), np.uint8)}, r"train_images is uint8 \(2, 28, 28, 28\)"),
        (ONE_SPLIT | {"train_images": np.zeros((4, 28, 28))}, "train_images is float64"),
        (ONE_SPLIT | {"train_images": None}, "no images; expected MedMNIST's arrays"),
        (ONE_SPLIT | {"train_images": np.zeros((0, 28, 28), np.uint8)}, "no images; a data set needs"),
    ],
)
def test_bad_arrays(changed: dict[str, np.ndarray | None], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "blood.npz", **changed)
    with pytest.raises(UserError, match=message) as e:
        open_source(path)
    assert str(path) in str(e.value) and "\n" not in str(e.value)


def test_bad_options_and_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "blood.npz", **ONE_SPLIT)
    with pytest.raises(UserError, match="no split 'val'; it has: train"):
        open_source(f"medmnist:path={path},split=val")
    with pytest.raises(UsageError, match="split 'dev': expected one of train, val, test"):
        open_source(f"medmnist:path={path},split=dev")
    with pytest.raises(UserError, match=r"nowhere.npz: cannot be read: .*No such file"):
        open_source("medmnist:path=nowhere.npz,split=train")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        open_source(path)


def test_what_announces_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    content = npy(GREY).replace(b"(4, 28, 28)", b"(9999999, 28, 28)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", content)
    with pytest.raises(UserError, match=r"cannot be read: train_images.npy: shape .*are there"):
        open_source(path)
