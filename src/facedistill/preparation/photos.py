"""The photos in a folder: every image below it, with the person it belongs to; links, system files and the rest."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from facedistill.data import IMAGE_SUFFIXES, is_hidden
from facedistill.errors import UserError, some
from facedistill.files import fingerprint
from facedistill.progress import say

SUFFIXES = {*IMAGE_SUFFIXES, ".pnm"}


class Photo(NamedTuple):
    """
    Attributes:
        source: path below the folder, with "/". stem: name of its crops, without .jpg; one photo's of that person.
        stamp: size in bytes and time of change in nanoseconds.
    """

    source: str
    person: str
    stem: str
    stamp: list[int]


def list_photos(folder: Path) -> list[Photo]:
    """Return the photos below `folder` in sorted order.

    A person is the first folder on the way down; photos in `folder` itself are of one person with its name. Hidden and
    system files and folders are passed over; other files, dead links, and folders that a link leads back to are counted
    and named.

    Raises:
        UserError: no such folder, or nothing in it is a photo.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of photos, with a folder for each person")
    others: list[str] = []
    found = sorted(_walk(folder, folder, {os.path.realpath(folder)}, others))
    if others:
        say(f"{folder}: passed over, no photos: {len(others):,} ({some(sorted(others))})")
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise UserError(f"{folder}: no photos; expected PHOTOS/person/photo.jpg (or {kinds})")
    here = folder.resolve().name or "photos"
    named = []
    for source, stamp in found:
        person, _, rest = source.partition("/") if "/" in source else (here, "", source)
        named.append((source, person, rest.replace("/", "__"), stamp))
    stems = Counter((person, _stem(rest)) for _, person, rest, _ in named)
    rests = Counter((person, rest) for _, person, rest, _ in named)

    def stem(source: str, person: str, rest: str) -> str:
        if stems[person, _stem(rest)] == 1:
            return _stem(rest)
        alone = rests[person, rest] == 1 and not stems[person, rest]
        return rest if alone else f"{rest}-{fingerprint(os.fsencode(source))[:8]}"

    return [Photo(source, person, stem(source, person, rest), stamp) for source, person, rest, stamp in named]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _walk(root: Path, folder: Path, above: set[str], others: list[str]) -> Iterator[tuple[str, list[int]]]:
    for entry in os.scandir(folder):
        if is_hidden(entry.name):
            continue
        name = Path(entry.path).relative_to(root).as_posix()
        try:
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in above:
                    others.append(f"{name} (a link back to a folder above it)")
                else:
                    yield from _walk(root, Path(entry.path), above | {real}, others)
            elif not entry.is_file():
                others.append(f"{name} ({'a dead link' if entry.is_symlink() else 'no regular file'})")
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                stat = entry.stat()
                yield name, [stat.st_size, stat.st_mtime_ns]
            else:
                others.append(name)
        except OSError as e:
            others.append(f"{name} ({e.strerror})")
