"""IDX, the files of MNIST and Fashion-MNIST: `train-images-idx3-ubyte` beside `train-labels-idx1-ubyte`, or with .gz.

A file: two zero bytes, the type of its numbers (8: uint8), the number of dimensions, each dimension as uint32 in
big-endian order, then the numbers in C order (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np

from facedistill.data.sources.arrays import MOST_COMPRESSED, ArraySource
from facedistill.data.sources.reading import files_in
from facedistill.errors import UserError, some

UINT8 = 8
NAME = re.compile(r"(?P<split>.*?)[-_.]?(?P<kind>images|labels)(?P<dot>[-.])idx[13]-ubyte(?P<gz>\.gz)?")
DIMENSIONS = {"images": 3, "labels": 1}
EXPECTED = "expected IDX of uint8, as MNIST's files are"


class IdxSource(ArraySource):
    """A file of images beside its file of labels; both may be packed with gzip. Either one names the set.

    Raises UserError for a folder with several splits, for a missing file, and for one that is damaged.
    """

    expected = "IDX (train-images-idx3-ubyte)"
    inside = ("*images?idx3-ubyte", "*images?idx3-ubyte.gz")

    @classmethod
    def opens(cls, path: Path) -> bool:
        return super().opens(path) if path.is_dir() else NAME.fullmatch(path.name) is not None

    @classmethod
    def open(cls, argument: str) -> "IdxSource":
        """Open a file of images or of labels, or a folder with the files of one split."""
        path = Path(argument)
        if not path.is_dir():
            return cls(_other(path, "images"))
        files = [file for pattern in cls.inside for file in files_in(path, pattern)]
        if len(files) > 1:
            names = some([file.name for file in files])
            raise UserError(f"data {path}: several splits ({names}); name the file of one, e.g. {files[0]}")
        return cls(files[0])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        images = Path(self.path)
        return read_idx(images, DIMENSIONS["images"]), read_idx(_other(images, "labels"), DIMENSIONS["labels"])


def _other(path: Path, kind: str) -> Path:
    """Return the file of `kind` that belongs to a file of images or labels, whichever of .gz and plain is there."""
    found = NAME.fullmatch(path.name)
    assert found is not None
    name = path.name.removesuffix(".gz")
    start = found.start("kind")
    name = f"{name[:start]}{kind}{found['dot']}idx{DIMENSIONS[kind]}-ubyte"
    packed, plain = path.with_name(f"{name}.gz"), path.with_name(name)
    first, second = (packed, plain) if found["gz"] else (plain, packed)
    if not first.exists() and not second.exists():
        raise UserError(f"{path}: its {kind}, {first.name}, are not beside it; copy them there")
    return first if first.exists() else second


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the array of an IDX file of uint8 with so many dimensions. Raises UserError for anything else."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0":
                raise UserError(f"{path}: begins with {head.hex() or 'nothing'}; {EXPECTED}")
            if (head[2], head[3]) != (UINT8, dimensions):
                found = f"numbers of type {head[2]:#04x} in {head[3]} dimensions"
                raise UserError(f"{path}: {found}; expected uint8 (0x08) in {dimensions}")
            head = file.read(4 * dimensions)
            if len(head) < 4 * dimensions:
                raise UserError(f"{path}: ends within its header; copy it again")
            shape = tuple(np.frombuffer(head, ">u4").tolist())
            size = math.prod(shape)
            if size > MOST_COMPRESSED * os.path.getsize(path):
                raise UserError(f"{path}: announces {size:,} bytes, more than the file can hold; copy it again")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as e:
        raise UserError(f"{path}: cannot be read: {e}; copy it again") from e
    if len(data) != size:
        there = f"{len(data):,}" if len(data) < size else "more"
        raise UserError(f"{path}: announces {size:,} bytes, but {there} are there; copy it again")
    return np.frombuffer(data, np.uint8).reshape(shape)
