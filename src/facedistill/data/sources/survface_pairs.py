"""QMUL-SurvFace's verification pairs: two lists of MATLAB beside a folder of images.

Face_Verification_Test_Set holds verification_images, positive_pairs_names.mat and negative_pairs_names.mat. Each list
is a cell array (P, 2) of file names, in a variable that is called as the file is.
"""

import os
from pathlib import Path

import numpy as np

from facedistill.data.sources.matlab import cells_of_text
from facedistill.data.sources.pair_list import PairList
from facedistill.data.sources.stamp import size_and_time
from facedistill.errors import UserError

LISTS = {"positive_pairs_names": True, "negative_pairs_names": False}
IMAGES = "verification_images"
MOST_BYTES = 64 << 20  # of a list; the published ones have 5,319 pairs


class SurvFacePairs(PairList):
    """Pairs of one person and of two in turn, so that every fold has both; nobody is named. Keys: the files' names."""

    expected = "QMUL-SurvFace's lists of pairs"
    suffixes = ()
    inside = ("positive_pairs_names.mat",)

    @classmethod
    def open(cls, argument: str) -> PairList:
        return load_survface_pairs(argument)


def load_survface_pairs(folder: str | Path) -> PairList:
    """Read both lists in a folder. Raises UserError for a list that is missing or none, and for a missing image."""
    folder = Path(folder)
    lists = {same: _names(folder / f"{name}.mat", name) for name, same in LISTS.items()}
    rows, labels = [], []
    for i in range(max(len(names) for names in lists.values())):
        for same, names in lists.items():
            if i < len(names):
                rows.append(names[i])
                labels.append(same)
    images = list(dict.fromkeys(name for row in rows for name in row))
    files = {name: _file(folder, name) for name in images}
    place = {name: i for i, name in enumerate(images)}
    pairs = np.array([[place[a], place[b]] for a, b in rows], dtype=np.int64)
    found = SurvFacePairs(folder, files, pairs, np.array(labels), None)
    found.folder = folder / IMAGES
    return found


def _names(file: Path, name: str) -> list[tuple[str, str]]:
    """Return the rows of a list."""
    expected = f"expected a MATLAB file with the cell array {name} (P, 2) of file names"
    if not file.is_file():
        raise UserError(f"{file}: no such file; {expected}")
    if file.stat().st_size > MOST_BYTES:
        raise UserError(f"{file}: {file.stat().st_size:,} bytes, more than a list of names has; {expected}")
    try:
        shape, texts = cells_of_text(file.read_bytes(), name)
    except ValueError as e:
        raise UserError(f"{file}: cannot be read: {e}; {expected}") from e
    if len(shape) != 2 or shape[1] != 2 or not texts:
        raise UserError(f"{file}: {name} of shape {shape}; {expected}")
    for text in texts:
        if not text.strip() or not text.isprintable() or "/" in text or "\\" in text:
            raise UserError(f"{file}: a cell is no file name: {text[:60]!r}; {expected}")
    half = len(texts) // 2
    return [(a.strip(), b.strip()) for a, b in zip(texts[:half], texts[half:], strict=True)]


def _file(folder: Path, name: str) -> tuple[int, int]:
    path = folder / IMAGES / name
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such image; is the folder whole?")
    return size_and_time(path)
