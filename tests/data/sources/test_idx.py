"""MNIST's files, built byte by byte from the definition of IDX."""

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facedistill.data import open_dataset, open_source
from facedistill.data.sources.idx import IdxSource
from facedistill.errors import UserError

PIXELS = np.arange(3 * 28 * 29, dtype=np.uint8).reshape(3, 28, 29)
LABELS = [2, 0, 2]


def idx(dimensions: tuple[int, ...], data: bytes, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(dimensions)}I", 0, 0, kind, len(dimensions), *dimensions) + data


IMAGES_FILE, LABELS_FILE = idx((3, 28, 29), PIXELS.tobytes()), idx((3,), bytes(LABELS))


def write(
    folder: Path, split: str = "train-", dot: str = "-", packed: bool = False, changed: dict[str, bytes] | None = None
) -> Path:
    for kind, content in ({"images": IMAGES_FILE, "labels": LABELS_FILE} | (changed or {})).items():
        name = f"{split}{kind}{dot}idx{3 if kind == 'images' else 1}-ubyte"
        file = folder / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("split", ["train-", "emnist-letters-test-", ""])
@pytest.mark.parametrize("dot", ["-", "."])
def test_a_folder_or_either_file_opens(packed: bool, split: str, dot: str, tmp_path: Path) -> None:
    write(tmp_path, split, dot, packed)
    found = [open_source(path) for path in (tmp_path, *sorted(tmp_path.iterdir()))]
    assert all(isinstance(source, IdxSource) for source in found)
    assert len({source.fingerprint for source in found}) == 1
    source = found[0]
    assert source.labels.tolist() == LABELS and source.labels.dtype == np.int64
    assert source.class_names == ["0", "1", "2"] and source.keys == ["0", "1", "2"]
    for copy in (source, pickle.loads(pickle.dumps(source))):
        pixels = copy.read(1)
        assert isinstance(pixels, np.ndarray) and pixels.shape == (28, 29, 3)
        assert all((pixels[..., channel] == PIXELS[1]).all() for channel in range(3))
    assert len(pickle.dumps(source)) < PIXELS.nbytes


def test_as_a_data_set(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path)).in_memory()
    batch = dataset.batch([2, 0], flips=[True, False])
    assert dataset.class_names == ["0", "2"] and dataset.labels.tolist() == [1, 0, 1] and dataset.shape == (28, 29)
    assert (batch.images[0, 1].numpy() == PIXELS[2, :, ::-1]).all()


def test_the_fingerprint_covers_pixels_and_labels(tmp_path: Path) -> None:
    def fingerprint(**changed: bytes) -> str:
        return open_source(write(tmp_path, changed=changed)).fingerprint

    assert (
        len({fingerprint(), fingerprint(images=IMAGES_FILE[:-1] + b"\0"), fingerprint(labels=LABELS_FILE[:-1] + b"\1")})
        == 3
    )


def test_a_folder_of_two_splits_is_refused_and_a_split_named(tmp_path: Path) -> None:
    write(write(tmp_path), "t10k-")
    with pytest.raises(UserError, match=r"several splits.*t10k-images-idx3-ubyte.*name the file of one"):
        open_source(tmp_path)
    assert open_source(tmp_path / "t10k-labels-idx1-ubyte").path == str(tmp_path / "t10k-images-idx3-ubyte")


def test_packed_images_beside_plain_labels(tmp_path: Path) -> None:
    write(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte"
    images.with_name(f"{images.name}.gz").write_bytes(gzip.compress(images.read_bytes()))
    images.unlink()
    assert len(open_source(tmp_path)) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": b"\0\0\x08"}, "begins with 000008; expected IDX of uint8"),
        ({"images": b""}, "begins with nothing"),
        ({"images": b"\x89PNG" + IMAGES_FILE}, "begins with 89504e47"),
        ({"images": idx((3, 28, 29), PIXELS.tobytes(), kind=0x0D)}, "type 0x0d in 3 dimensions; expected uint8"),
        ({"images": idx((3, 28, 29, 3), b"")}, "in 4 dimensions; expected uint8 .0x08. in 3"),
        ({"images": IMAGES_FILE[:9]}, "ends within its header"),
        ({"images": IMAGES_FILE[:-5]}, "announces 2,436 bytes, but 2,431 are there"),
        ({"images": IMAGES_FILE + b"\0"}, "but more are there"),
        ({"images": idx((2**31, 2**31, 28), b"")}, "more than the file can hold"),
        ({"labels": idx((2,), bytes(2))}, "3 images, but 2 labels"),
        ({"images": idx((0, 28, 28), b""), "labels": idx((0,), b"")}, "no images"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_files(changed: dict[str, bytes], message: str, packed: bool, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as e:
        open_source(write(tmp_path, packed=packed, changed=changed))
    assert str(tmp_path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:40], lambda data: b"no gzip", lambda data: data[:60] + data[70:]]
)
def test_a_damaged_gzip(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = write(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"images-idx3-ubyte.gz: cannot be read"):
        open_source(tmp_path)


def test_missing_labels(tmp_path: Path) -> None:
    (write(tmp_path) / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="its labels, train-labels-idx1-ubyte, are not beside it"):
        open_source(tmp_path)
