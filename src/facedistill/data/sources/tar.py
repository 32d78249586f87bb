"""Tar shards: the members are indexed once, the index is cached, and images are read in place."""

import json
import os
import posixpath
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facedistill.data.sources.pread import Bounded, ReadAt
from facedistill.data.sources.reading import is_hidden, is_image, shards
from facedistill.data.sources.source import Source, classes_of_folders, numbered
from facedistill.data.sources.stamp import size_and_time, stamp_of
from facedistill.errors import UserError
from facedistill.files import atomic_write, cache_dir, fingerprint

LAYOUTS = "expected members class/image.jpg, or webdataset pairs key.jpg and key.cls (or key.json with a label)"
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
LABELS = (".cls", ".json")
LABEL_BYTES = 1 << 20
Members = dict[str, tuple[int, int]]
NOWHERE = (0, 0)  # a link that leads nowhere: an empty image, which cannot be read


@dataclass
class Index:
    """One shard's images: names, byte offsets and sizes, and what their label files say.

    labels: the text of each image's label file, or None. faults: by image name, why its label file has no text.
    """

    names: list[str]
    offsets: list[int]
    sizes: list[int]
    labels: list[str | None]
    faults: dict[str, str] = field(default_factory=dict)


class TarSource(Source):
    """A .tar, or a folder of them in name order, whose images are read in place. The members tell the layout:

    - webdataset: key.jpg with key.cls (text or a number) or key.json {"label": ...};
    - folders: class/image.jpg (leading folders that all images share are left out of the class name).

    All shards of a set have one layout: if any image has a label file, each must have one.

    The index of a shard is cached under the shard's path, time and size. Classes are sorted, numerically if all are
    numbers. Compressed tars cannot be read in place, so they raise a UserError.
    """

    expected = ".tar"
    suffixes = (".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")
    inside = ("*.tar",)

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        files = shards(path, "*.tar")
        indexes = [_index(file) for file in files]
        self._read_at = [ReadAt(file) for file in files]
        counts = [len(index.names) for index in indexes]
        names = [name for index in indexes for name in index.names]
        if not names:
            raise UserError(f"{path}: no images; {LAYOUTS}")
        self._shard = np.repeat(np.arange(len(files)), counts)
        self._offset = np.array([o for index in indexes for o in index.offsets], dtype=np.int64)
        self._size = np.array([s for index in indexes for s in index.sizes], dtype=np.int64)
        classes = _classes(path, files, indexes)
        self.labels, self.class_names = numbered(classes)
        if len(set(names)) < len(names):
            names = [f"{files[s].name}:{name}" for s, name in zip(self._shard.tolist(), names, strict=True)]
        self.keys = names
        self.fingerprint = fingerprint("tar", "\0".join(names), "\0".join(classes), self._size)
        self.stamp = stamp_of(files)

    def read(self, i: int) -> bytes:
        return self._read_at[self._shard[i]](int(self._size[i]), int(self._offset[i]))


def _classes(path: str | Path, files: list[Path], indexes: list[Index]) -> list[str]:
    """Return the class of every image of the set, by label files if there is one, else by folders."""
    if not any(index.faults or any(label is not None for label in index.labels) for index in indexes):
        return classes_of_folders(path, [name for index in indexes for name in index.names], LAYOUTS)
    classes = []
    for file, index in zip(files, indexes, strict=True):
        for name, label in zip(index.names, index.labels, strict=True):
            if label is None:
                why = index.faults.get(name, f"{name} has no label {_stem(name)}.cls or .json beside it")
                raise UserError(f"{file}: {why}; {LAYOUTS}")
            classes.append(label)
    return classes


def _index(shard: Path) -> Index:
    """Return the shard's Index, from the cache if the shard has not changed since."""
    cached = cache_dir() / "tar" / f"{fingerprint('4', shard.resolve(), *size_and_time(shard))}.json"
    try:
        checksum, _, text = cached.read_text().partition("\n")
        if checksum == fingerprint(text):
            return Index(**json.loads(text))
    except (OSError, ValueError, TypeError):
        pass
    index = _scan(shard)
    try:
        text = json.dumps(index.__dict__)
        with atomic_write(cached) as temporary:
            temporary.write_text(f"{fingerprint(text)}\n{text}")
    except (UserError, OSError):
        pass  # without a cache the next start is slower, nothing else
    return index


def _scan(shard: Path) -> Index:
    try:
        with Bounded(shard) as file:
            kind = COMPRESSED.get(file.read(2))
            if kind:
                raise UserError(
                    f"{shard}: compressed with {kind}, which allows no reading in place; unpack it "
                    f"(tar -xf {shard.name}) and open the folder, or repack it as a plain .tar"
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = _members(shard, tar)
    except (tarfile.TarError, OSError, ValueError, RecursionError, OverflowError, MemoryError) as e:
        raise UserError(f"{shard}: not a whole tar file: {e or type(e).__name__}") from e
    images = [name for name in members if is_image(name)]
    labels, faults = _labels(shard, images, members)
    offsets, sizes = [members[name][0] for name in images], [members[name][1] for name in images]
    return Index(images, offsets, sizes, labels, faults)


def _members(shard: Path, tar: tarfile.TarFile) -> Members:
    """Return the offset and size of every file by its name; hidden ones are left out.

    A link has those of the file that it names: a hard link an earlier one, a symbolic link any file of the shard.
    """
    there = os.path.getsize(shard)
    found: Members = {}
    links: dict[str, str] = {}
    for member in tar:
        name, target = (posixpath.normpath(text) for text in (member.name, member.linkname))
        if member.size < 0 or (member.isfile() and member.offset_data + member.size > there):
            raise UserError(f"{shard}: not a whole tar file: {ascii(name)[:200]} announces {member.size:,} bytes")
        if is_hidden(name):
            continue
        if member.issparse():
            raise UserError(f"{shard}: {name} is a sparse file, which is not stored whole; pack again without --sparse")
        if member.isfile():
            found[name] = member.offset_data, member.size
        elif member.islnk():
            if target not in found:
                raise UserError(
                    f"{shard}: {name} is a hard link to {target}, which is not among the files before it; pack again "
                    "with tar --hard-dereference"
                )
            found[name] = found[target]
        elif member.issym():
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    return found | {name: _follow(target, links, found) for name, target in links.items() if is_image(name)}


def _follow(target: str, links: dict[str, str], found: Members) -> tuple[int, int]:
    for _ in range(len(links)):
        if target not in links:
            break
        target = links[target]
    return found.get(target, NOWHERE)


def _labels(shard: Path, images: list[str], members: Members) -> tuple[list[str | None], dict[str, str]]:
    """Return the text of each image's label file, and why a label file has none.

    A label file has its image's name with another ending, or the key of its sample, which webdataset ends at the first
    dot. If a sample has both files, .cls is the label and .json holds something else.
    """
    exact = {_stem(name) + end: name for name in members for end in LABELS if name.lower().endswith(end)}
    of_key: dict[str, list[str]] = {}
    for ending, name in exact.items():
        of_key.setdefault(_key(name) + posixpath.splitext(ending)[1], []).append(name)
    alone = {word: names[0] for word, names in of_key.items() if len(names) == 1}
    read = ReadAt(shard)
    labels: list[str | None] = []
    faults: dict[str, str] = {}
    for name in images:
        labels.append(None)
        places = ((exact, _stem(name)), (exact, _key(name)), (alone, _key(name)))
        label = next((known[word + end] for known, word in places for end in LABELS if word + end in known), None)
        if label:
            offset, size = members[label]
            try:
                labels[-1] = _label_text(label, read(min(size, LABEL_BYTES + 1), offset))
            except (ValueError, TypeError, RecursionError) as e:
                faults[name] = str(e) if isinstance(e, NoText) else f"label {label} cannot be read ({e!r})"
    return labels, faults


class NoText(ValueError):
    """A label file holds no label."""


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _key(name: str) -> str:
    return re.sub(r"\.[^/]*$", "", name)


def _label_text(name: str, data: bytes) -> str:
    if len(data) > LABEL_BYTES:
        raise NoText(f"label {name} is larger than {LABEL_BYTES:,} bytes")
    text = data.decode("utf-8-sig").strip()
    if name.lower().endswith(".json"):
        kept = json.loads(text)
        if not isinstance(kept, dict) or "label" not in kept:
            raise NoText(f"label {name} cannot be read: it has no key 'label'")
        found = kept["label"]
        if not isinstance(found, str | int):
            raise NoText(f"label {name} cannot be read: {type(found).__name__} where text or a number should be")
        text = str(found).strip()
    if not text:
        raise NoText(f"label {name} is empty")
    return text
