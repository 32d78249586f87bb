"""Landmarks from a file, so that no detector is needed: a line an image, its name and ten numbers."""

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from facedistill.data import read_table, read_text
from facedistill.errors import UserError, some

NUMBERS = {
    10: 0,
    11: 0,
    14: 4,
    15: 4,
}  # numbers after the name -> where the landmarks begin: 4: a box stands before them
EXPECTED = "cannot read landmarks; expected a text file with a line an image"


def read_landmarks(file: str | Path) -> dict[str, list[np.ndarray]]:
    """Return image name -> its faces' landmarks, float64 (5, 2).

    A line is a name and x, y of eyes (left and right as seen), nose, and corners of the mouth, separated by commas,
    tabs or spaces. A box of four numbers may stand before them and a score after them: this reads CSV, and the lists of
    IJB (name_5pts_score.txt), TinyFace, MegaFace and CelebA. Lines before the first of this form are a header.

    Raises:
        UserError: the file cannot be read, a line has another form, or the eyes stand in the other order.
    """
    found: dict[str, list[np.ndarray]] = {}
    swapped = lines = 0
    for number, fields in enumerate(_rows(Path(file)), 1):
        points = _points(fields)
        if points is None:
            if not found and number <= 2:
                continue
            raise UserError(
                f"{file}: line {number} is {' '.join(fields)[:60]!r}; expected a name and x, y of five landmarks, "
                "perhaps with a box before them or a score after them"
            )
        found.setdefault(fields[0], []).append(points)
        lines, swapped = lines + 1, swapped + int(points[0, 0] > points[1, 0])
    if not found:
        raise UserError(f"{file}: no landmarks; expected a line an image: its name, and x, y of five landmarks")
    if swapped > lines / 2:
        raise UserError(
            f"{file}: the first eye lies right of the second in {swapped} of {lines} lines; expected the order left "
            "eye, right eye, nose, left and right corner of the mouth, as seen in the image"
        )
    return found


def landmarks_of_photos(
    landmarks: Mapping[str, list[np.ndarray]], photos: Iterable[str], file: str | Path
) -> dict[str, list[np.ndarray]]:
    """Return the landmarks of photos by their paths, of those that `file` names by path or by file name.

    Raises UserError if a file name stands for several photos: whose face it is cannot be known.
    """
    found, sharing = {}, dict[str, list[str]]()
    for photo in photos:
        name = photo if photo in landmarks else posixpath.basename(photo)
        if name in landmarks:
            found[photo] = landmarks[name]
            sharing.setdefault(name, []).append(photo)
    for name, of in sharing.items():
        if len(of) > 1:
            raise UserError(
                f"{file}: {name} may be any of {len(of)} photos ({some(of)}); write paths below the photos' folder"
            )
    return found


def _rows(file: Path) -> list[list[str]]:
    text = read_text(file, EXPECTED)
    head = text[:10_000]
    if "," in head or "\t" in head:
        return [cells for _, cells in read_table(file, EXPECTED)]
    return [line.split() for line in text.splitlines() if line.strip()]


def _points(fields: list[str]) -> np.ndarray | None:
    """Return the landmarks of a line, or None for a line of another form."""
    start = NUMBERS.get(len(fields) - 1)
    if start is None:
        return None
    try:
        numbers = np.array([float(field) for field in fields[1 + start : 11 + start]])
    except ValueError:
        return None
    return numbers.reshape(5, 2) if np.isfinite(numbers).all() else None
