"""Tar shards: the members are indexed once, the index is cached, and images are read in place."""

import json
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from facedistill.data.sources.folder import is_image
from facedistill.data.sources.pread import ReadAt
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import size_and_time, stamp_of
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir, fingerprint

LAYOUTS = "expected members identity/image.jpg, or webdataset pairs key.jpg and key.cls (or key.json with a label)"
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass
class Index:
    """One shard's images: names, byte offsets and sizes, and the class of each (text)."""

    names: list[str]
    offsets: list[int]
    sizes: list[int]
    classes: list[str]


class TarSource(Source):
    """A .tar, or a folder of them in name order, whose images are read in place. The members tell the layout:

    - folders: identity/image.jpg (leading folders that all images share are left out of the class name);
    - webdataset: key.jpg with key.cls (text or a number) or key.json {"label": ...}.

    The index of a shard is cached under the shard's path, time and size. Classes are sorted, numerically if all are
    numbers. Compressed tars cannot be read in place, so they raise a UserError.
    """

    expected = ".tar"
    suffixes = (".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")
    inside = ("*.tar",)

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        shards = [Path(path)] if os.path.isfile(path) else sorted(Path(path).glob("*.tar"))
        indexes = [_index(shard) for shard in shards]
        self._read_at = [ReadAt(shard) for shard in shards]
        counts = [len(index.names) for index in indexes]
        names = [name for index in indexes for name in index.names]
        if not names:
            raise UserError(f"{path}: no images; {LAYOUTS}")
        self._shard = np.repeat(np.arange(len(shards)), counts)
        self._offset = np.array([o for index in indexes for o in index.offsets], dtype=np.int64)
        self._size = np.array([s for index in indexes for s in index.sizes], dtype=np.int64)
        classes = [c for index in indexes for c in index.classes]
        self.class_names = sorted(set(classes), key=_by_number if all(c.isdigit() for c in set(classes)) else None)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels = np.array([numbers[c] for c in classes], dtype=np.int64)
        if len(set(names)) < len(names):
            names = [f"{shards[s].name}:{name}" for s, name in zip(self._shard.tolist(), names, strict=True)]
        self.keys = names
        self.fingerprint = fingerprint("tar", "\0".join(names), "\0".join(classes), self._size)
        self.stamp = stamp_of(shards)

    def read(self, i: int) -> bytes:
        return self._read_at[self._shard[i]](int(self._size[i]), int(self._offset[i]))


def _by_number(text: str) -> tuple[int, str]:
    return int(text), text


def _index(shard: Path) -> Index:
    """Return the shard's Index, from the cache if the shard has not changed since."""
    cached = cache_dir() / "tar" / f"{fingerprint('2', shard.resolve(), *size_and_time(shard))}.json"
    try:
        return Index(**json.loads(cached.read_text()))
    except (OSError, ValueError, TypeError):
        index = _scan(shard)
    try:
        with atomic_write(cached) as temporary:
            temporary.write_text(json.dumps(index.__dict__))
    except (UserError, OSError):
        pass  # without a cache the next start is slower, nothing else
    return index


def _scan(shard: Path) -> Index:
    with open(shard, "rb") as f:
        kind = COMPRESSED.get(f.read(2))
    if kind:
        raise UserError(
            f"{shard}: compressed with {kind}, which allows no reading in place; unpack it (tar -xf {shard.name}) and "
            "open the folder, or repack it as a plain .tar"
        )
    try:
        with tarfile.open(shard, "r:") as tar:
            members = _members(shard, tar)
    except (tarfile.TarError, OSError) as e:
        raise UserError(f"{shard}: not a whole tar file: {e}") from e
    images = {name: place for name, place in members.items() if is_image(name)}
    classes = _labels(shard, images, members) or _folders(shard, list(images))
    offsets, sizes = [o for o, _ in images.values()], [s for _, s in images.values()]
    return Index(list(images), offsets, sizes, classes)


def _members(shard: Path, tar: tarfile.TarFile) -> dict[str, tuple[int, int]]:
    """Return the offset and size of every file by its name. A hard link has those of the earlier member it names."""
    found: dict[str, tuple[int, int]] = {}
    for member in tar:
        name, target = member.name.removeprefix("./"), member.linkname.removeprefix("./")
        if member.isfile():
            found[name] = member.offset_data, member.size
        elif member.islnk():
            if target not in found:
                raise UserError(
                    f"{shard}: {name} is a hard link to {target}, which is not among the files before it; pack again "
                    "with tar --hard-dereference"
                )
            found[name] = found[target]
    return found


def _labels(shard: Path, images: dict[str, tuple[int, int]], members: dict[str, tuple[int, int]]) -> list[str] | None:
    """Return the webdataset classes, or None if no member is a label. A sample's key ends at its file's first dot.

    If a sample has both files, .cls is the label and .json holds something else.
    """
    samples = {_key(name) for name in images}
    named = {end: {_key(name): name for name in members if name.endswith(end)} for end in (".json", ".cls")}
    beside = {key: name for key, name in (named[".json"] | named[".cls"]).items() if key in samples}
    if not beside:
        return None
    read, classes = ReadAt(shard), []
    for name in images:
        label = beside.get(_key(name))
        if label is None:
            raise UserError(f"{shard}: {name} has no label {_key(name)}.cls or .json beside it; {LAYOUTS}")
        offset, size = members[label]
        classes.append(_label_text(shard, label, read(size, offset)))
    return classes


def _key(name: str) -> str:
    return re.sub(r"\.[^/]*$", "", name)


def _label_text(shard: Path, name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8").strip()
        text = str(json.loads(text)["label"]) if name.endswith(".json") else text
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{shard}: label {name} cannot be read ({e!r}); {LAYOUTS}") from e
    if not text:
        raise UserError(f"{shard}: label {name} is empty; {LAYOUTS}")
    return text


def _folders(shard: Path, names: list[str]) -> list[str]:
    folders = [str(PurePosixPath(name).parent) for name in names]
    if "." in folders:
        raise UserError(f"{shard}: {names[folders.index('.')]} is in no identity's folder; {LAYOUTS}")
    above = {str(PurePosixPath(folder).parent) for folder in folders}
    return [PurePosixPath(folder).name for folder in folders] if len(above) == 1 else folders
