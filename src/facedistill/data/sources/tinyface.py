"""TinyFace, low-resolution 1:N identification: Gallery_Match, Probe and Gallery_Distractor.

Images of the first two are named <id>_<n>.jpg: the person is the number before the first "_". The three folders are in
Testing_Set of the published data set; public evaluators also use a folder of aligned faces.
"""

import os
import re
from pathlib import Path

import numpy as np

from facedistill.data.sources.reading import is_hidden, is_image, read_file
from facedistill.data.sources.source import Source
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError, some
from facedistill.files import fingerprint

MATCH, PROBE, DISTRACTOR = "Gallery_Match", "Probe", "Gallery_Distractor"
PERSON = re.compile(r"(\d+)_")


class TinyFacePart(Source):
    """The images of one folder, at any depth, in sorted order; keys "Probe/12_3.jpg".

    The fingerprint covers names and file sizes, not contents.
    """

    def __init__(
        self, path: Path, files: dict[str, tuple[int, int]], labels: np.ndarray, class_names: list[str]
    ) -> None:
        self.path, self.keys, self.labels, self.class_names = str(path), list(files), labels, class_names
        names = "\0".join(self.keys).encode("utf-8", "surrogateescape")
        sizes, times = np.array(list(files.values()), dtype=np.int64).T
        self.fingerprint = fingerprint("tinyface", names, sizes, "\0".join(class_names))
        self.stamp = fingerprint(times)

    def read(self, i: int) -> bytes:
        return read_file(os.path.join(self.path, self.keys[i]))


def is_tinyface(path: str | Path) -> bool:
    """Return True for a folder that holds Gallery_Match, directly or in Testing_Set or aligned_*."""
    return bool(_roots(Path(path)))


def open_tinyface(path: str | Path) -> dict[str, Source]:
    """Open "gallery", "probes" and, if its folder exists, "distractors".

    Gallery and probes share `class_names`, the persons by number, so their labels agree. All distractors have the one
    class "distractor". Aligned faces are preferred.

    Raises:
        UserError: another layout, several folders of aligned faces, no images, or a file name without a person.
    """
    roots = _roots(Path(path))
    if not roots:
        raise UserError(f"{path}: not TinyFace; expected the folders {MATCH}, {PROBE} and {DISTRACTOR}, or Testing_Set")
    if len(roots) > 1:
        raise UserError(f"{path}: several TinyFace sets ({some([root.name for root in roots])}); name one of them")
    root = roots[0]
    match, probe = _files(root, MATCH), _files(root, PROBE)
    persons = {key: _person(root, key) for key in (*match, *probe)}
    numbers = {person: label for label, person in enumerate(sorted(set(persons.values())))}
    class_names = [str(person) for person in numbers]

    def part(files: dict[str, tuple[int, int]]) -> Source:
        labels = np.array([numbers[persons[key]] for key in files], dtype=np.int64)
        return TinyFacePart(root, files, labels, class_names)

    found = {"gallery": part(match), "probes": part(probe)}
    if (root / DISTRACTOR).is_dir():
        files = _files(root, DISTRACTOR)
        found["distractors"] = TinyFacePart(root, files, np.zeros(len(files), dtype=np.int64), ["distractor"])
    return found


def _roots(path: Path) -> list[Path]:
    """Return the folders that hold a whole TinyFace: `path` itself, else its aligned ones, else Testing_Set."""
    for candidates in ([path], sorted(path.glob("aligned_*")), [path / "Testing_Set"]):
        if found := [folder for folder in candidates if (folder / MATCH).is_dir()]:
            return found
    return []


def _files(root: Path, folder: str) -> dict[str, tuple[int, int]]:
    """Return the size and time of every image, by key."""
    found = {}
    for parent, folders, names in os.walk(root / folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        inside = Path(parent).relative_to(root).as_posix()
        for name in filter(is_image, names):
            found[f"{inside}/{name}"] = size_and_time(os.path.join(parent, name))
    if not found:
        raise UserError(f"{root / folder}: no images; TinyFace has {MATCH}, {PROBE} and {DISTRACTOR} side by side")
    return dict(sorted(found.items()))


def _person(root: Path, key: str) -> int:
    person = PERSON.match(key.rpartition("/")[2])
    if person is None:
        raise UserError(f"{root / key}: no person in the file's name; expected <id>_<n>.jpg, e.g. 12_3.jpg")
    return int(person[1])
