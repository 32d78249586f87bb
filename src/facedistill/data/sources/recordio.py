"""MXNet RecordIO as insightface packs it, without mxnet: `.rec`, `.idx`, optional `property` and `classes.txt`.

A record: uint32 magic, uint32 lrec (upper 3 bits cflag, lower 29 the length), data, padding to 4 bytes. cflag 0 is a
whole record. If the data contain the magic, the writer removes it and splits the record there: cflags 1, 2 and 3 mark
the first, middle and last part. The data: flag uint32, label float32, id uint64, id2 uint64, then `flag` float32
labels, then the image file. Record 0 with flag 2 and no image holds [N + 1, M]: images are keys 1..N, and keys
N + 1..M - 1, of the same form, hold the [first, last) image keys of each identity. Any other record 0 is an image like
all others. The numbers are float32, so those above 2^24 are rounded, and the records themselves tell where images end.
"""

import codecs
import os
import struct
from pathlib import Path

import numpy as np

from facedistill.data.sources.pread import ReadAt
from facedistill.data.sources.reading import files_in, read_file, read_lines, read_text
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import stamp_of
from facedistill.errors import UserError
from facedistill.files import fingerprint

MAGIC = 0xCED7230A
HEADER = struct.Struct("<IfQQ")
LIST_BYTES = HEADER.size + 8  # of a record with two numbers and no image
MOST_CLASSES = 1 << 24  # float32 holds no larger class index exactly


class RecordIOSource(Source):
    """An insightface pack. The label is the class index; class names are its digits, or the lines of `classes.txt`.

    The number of classes comes from `property` ("classes,height,width"), else classes.txt, else the largest label.
    Keys are the .idx keys. Raises UserError naming key and offset for a broken record.
    """

    expected = ".rec"
    suffixes = (".rec", ".idx")
    inside = ("*.rec",)

    @classmethod
    def open(cls, argument: str) -> "RecordIOSource":
        """Open a .rec (or its .idx), or a folder with one. If a folder holds several, train.rec is opened.

        Raises UserError if none of several is train.rec.
        """
        path = Path(argument)
        if not path.is_dir():
            return cls(path.with_suffix(".rec"))
        records = files_in(path, "*.rec")
        if len(records) > 1 and path / "train.rec" not in records:
            raise UserError(
                f"data {path}: several .rec files ({', '.join(r.name for r in records[:4])}); name one of them"
            )
        return cls(path / "train.rec" if len(records) > 1 else records[0])

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self.path = str(path)
        self._read_at = ReadAt(path)
        keys, self._offsets = _read_index(path)
        self._record_keys = keys
        images, labels = np.arange(len(keys)), None
        if keys[0] == 0 and self._is_list(0):
            first = self._first_identity(self._labels_of(0)[1][0])
            images = np.arange(1, first)
            labels = self._labels_by_identity(images, first)
        if not len(images):
            raise UserError(f"{path}: no images; a data set needs at least one")
        self._images = images
        self.labels = self._labels_by_image(images) if labels is None else labels
        self.keys = [str(key) for key in keys[images]]
        self.class_names = _class_names(path, int(self.labels.max()) + 1)
        size = os.path.getsize(path)
        self.fingerprint = fingerprint("recordio", keys, self._offsets, size, self.labels, *self.class_names)
        self.stamp = stamp_of([path])

    def read(self, i: int) -> bytes:
        payload = self._record(self._images[i])
        flag = HEADER.unpack_from(payload)[0]
        return payload[HEADER.size + 4 * flag :]

    def _broken(self, place: int, what: str) -> UserError:
        where = f"key {self._record_keys[place]} at offset {self._offsets[place]}"
        return UserError(f"{self.path}: {where}: {what}; is the .rec whole, and is this .idx its own?")

    def _part(self, place: int, offset: int, most: int = 1 << 29) -> tuple[int, int, bytes]:
        """Return (cflag, length, at most `most` bytes of the data) of the part at `offset`."""
        head = self._read_at(8 + min(most, 1 << 14), offset)
        if len(head) < 8:
            raise self._broken(place, "the file ends before the record")
        magic, lrec = struct.unpack_from("<II", head)
        if magic != MAGIC:
            raise self._broken(place, f"broken magic 0x{magic:08x}, expected 0x{MAGIC:08x}")
        cflag, length = lrec >> 29, lrec & ((1 << 29) - 1)
        wanted = min(length, most)
        data = head[8 : 8 + wanted]
        if len(data) < wanted:
            data += self._read_at(wanted - len(data), offset + 8 + len(data))
        if len(data) < wanted:
            raise self._broken(place, f"short record: {length} bytes announced, {len(data)} there")
        return cflag, length, data

    def _record(self, place: int) -> bytes:
        """Return the whole data of one record: its parts, joined with the magic that the writer removed."""
        offset = int(self._offsets[place])
        cflag, length, data = self._part(place, offset)
        if cflag not in (0, 1):
            raise self._broken(place, f"the record starts with a part of kind {cflag}, expected 0 or 1")
        parts = [data]
        while cflag not in (0, 3):
            offset += 8 + (length + 3) // 4 * 4
            cflag, length, data = self._part(place, offset)
            if cflag not in (2, 3):
                raise self._broken(place, f"a part of kind {cflag} follows, expected 2 or 3")
            parts.append(data)
        data = struct.pack("<I", MAGIC).join(parts)
        if len(data) < HEADER.size or len(data) < HEADER.size + 4 * HEADER.unpack_from(data)[0]:
            raise self._broken(place, f"short record: {len(data)} bytes do not hold its header")
        return data

    def _labels_of(self, place: int) -> tuple[float, tuple[float, ...]]:
        """Return (the record's label, all labels after its header), reading no more than the first 40 bytes."""
        cflag, length, data = self._part(place, int(self._offsets[place]), most=32)
        if cflag or length < HEADER.size:
            data = self._record(place)
        flag, label = HEADER.unpack_from(data)[:2]
        if not flag:
            return label, ()
        if len(data) < HEADER.size + 4 * min(flag, 2) or (not cflag and length < HEADER.size + 4 * flag):
            raise self._broken(place, f"short record: {length} bytes do not hold {flag} labels")
        more = struct.unpack_from(f"<{min(flag, 2)}f", data, HEADER.size)
        return more[0], more

    def _is_list(self, place: int) -> bool:
        """Return whether a record holds two numbers and no image, as record 0 and the identities' records do."""
        data = self._record(place) if self._part(place, int(self._offsets[place]), most=0)[1] <= 2 * LIST_BYTES else b""
        return len(data) == LIST_BYTES and HEADER.unpack_from(data)[0] == 2

    def _first_identity(self, end: float) -> int:
        """Return the place of the first record after the images, whose key is about `end`: float32 may round it.

        Raises UserError if the .idx lists fewer images than record 0 announces.
        """
        if not 0 < end < 1 << 62:
            raise self._broken(0, f"{end} images announced")
        spacing = 0 if end < 1 << 24 else int(np.spacing(np.float32(end)))
        low, high = np.searchsorted(self._record_keys, (end - spacing, end + spacing))
        first = next((place for place in range(max(low, 1), high) if self._is_list(place)), int(high))
        announced = int(end) - 1 - spacing
        if first - 1 < announced and not spacing:
            raise UserError(f"{self.path}: record 0 announces {announced} images, the .idx lists {first - 1} of them")
        return first

    def _labels_by_identity(self, images: np.ndarray, first: int) -> np.ndarray | None:
        """Return the labels by the identity records: two header reads per identity instead of one per image.

        None if the ranges do not tile the images, or an identity's first and last image differ in label.
        """
        keys = self._record_keys[images]
        labels = np.full(len(images), -1, dtype=np.int64)
        for place in range(first, len(self._record_keys)):
            ends = self._labels_of(place)[1]
            if len(ends) != 2 or not all(0 <= end < 1 << 62 for end in ends):
                return None
            start, stop = map(int, ends)
            if stop == start:
                continue
            low, high = np.searchsorted(keys, (start, stop)).tolist()
            if start > stop or low == len(keys) or keys[low] != start or keys[high - 1] != stop - 1:
                return None
            label = self._label(int(images[low]))
            if label != self._label(int(images[high - 1])):
                return None
            labels[low:high] = label
        return labels if len(labels) and labels.min() >= 0 else None

    def _labels_by_image(self, images: np.ndarray) -> np.ndarray:
        return np.fromiter((self._label(place) for place in images.tolist()), dtype=np.int64, count=len(images))

    def _label(self, place: int) -> int:
        label = self._labels_of(place)[0]
        if not (0 <= label <= MOST_CLASSES and label == int(label)):
            raise self._broken(place, f"label {label:.17g}, expected a class index 0, 1, 2, ... up to {MOST_CLASSES:,}")
        return int(label)


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (keys ascending, their byte offsets), both int64, from the .idx beside the .rec."""
    index = path.with_suffix(".idx")
    for file in (path, index):
        if not file.exists():
            raise UserError(f"{file}: no such file; RecordIO is a .rec and an .idx of the same name")
    try:
        numbers = np.array(read_file(index).removeprefix(codecs.BOM_UTF8).split(), dtype=np.int64)
        keys, offsets = numbers.reshape(-1, 2).T
    except (ValueError, OverflowError):
        raise UserError(f"{index}: not an index; expected a key, a tab and a byte offset on every line") from None
    if not len(keys):
        raise UserError(f"{index}: no records; a data set needs at least one image")
    order = np.argsort(keys, kind="stable")  # writers shuffle the lines
    keys, offsets = keys[order], offsets[order]
    if (repeated := np.flatnonzero(np.diff(keys) == 0)).size:
        raise UserError(f"{index}: key {keys[repeated[0]]} is listed twice; expected every key once")
    if offsets.min() < 0:
        raise UserError(f"{index}: offset {offsets.min()}; expected byte offsets, which are not negative")
    return np.ascontiguousarray(keys), np.ascontiguousarray(offsets)


def _class_names(path: Path, least: int) -> list[str]:
    """Return one name per class: the lines of classes.txt, else the class indexes; never fewer than `least`."""
    beside = path.with_name("classes.txt")
    names = read_lines(beside) if beside.exists() else None
    count = _property(path.with_name("property"), least)
    if names is None:
        return [str(i) for i in range(count or least)]
    if len(names) < least or (count and len(names) != count) or len(set(names)) < len(names):
        raise UserError(
            f"{beside}: {len(names)} names ({len(set(names))} different); expected {count or least}, one a line"
        )
    return names


def _property(path: Path, least: int) -> int | None:
    if not path.exists():
        return None
    text = read_text(path, "expected 'classes,height,width'", errors="replace").strip()
    number = text.split(",")[0].strip()
    if not (number.isascii() and number.isdigit() and len(number) < 9 and int(number) <= MOST_CLASSES):
        raise UserError(f"{path}: {text[:40]!r}; expected 'classes,height,width'")
    if int(number) < least:
        raise UserError(f"{path}: {number} classes, but the records hold label {least - 1}; is it this pack's own?")
    return int(number)
