"""What became of each photo: a line as soon as it is done, so that a killed run goes on, and the index at the end."""

import csv
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ConfigDict, InstanceOf, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed

from facedistill.errors import no_formula
from facedistill.files import atomic_write
from facedistill.preparation.photo import Found
from facedistill.progress import say

INDEX = "index.csv"
BORDERLINE_SCORE, BORDERLINE_SHARPNESS, BORDERLINE_YAW = 0.75, 6.0, 50.0
NUMBERS = ("score", "sharpness", "brightness", "yaw", "roll")
COLUMNS = (
    *("source", "person", "face", "kept", "why", "crop", "left", "top", "right", "bottom"),
    *(f"{axis}{i}" for i in range(1, 6) for axis in "xy"),
    *NUMBERS,
)
Name = InstanceOf[str]  # of files, which may hold bytes that are no text; pydantic's own str takes none of them


@dataclass
class Row:
    """A face of a photo, or a photo without one: a line of the index.

    Attributes:
        source: the photo's path below the folder of photos. crop: that of the crop below the data set; "" for none.
        why: why it is refused; "" where it is kept.
        box, points: in pixels of the upright photo; empty without a face.
        score: of the detector; None where landmarks were given.
    """

    source: Name
    person: Name
    face: int = 0
    crop: Name = ""
    why: Name = ""
    box: list[float] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    score: float | None = None
    sharpness: float | None = None
    brightness: float | None = None
    yaw: float | None = None
    roll: float | None = None

    @classmethod
    def of(cls, source: str, person: str, face: int, crop: str, found: Found) -> "Row":
        row = cls(source, person, face, crop, found.why, score=_rounded(found.score))
        if found.box is not None and found.points is not None:
            row.box, row.points = (numbers.ravel().round(2).tolist() for numbers in (found.box, found.points))
        if found.quality is not None:
            for name, value in asdict(found.quality).items():
                setattr(row, name, _rounded(value))
        return row

    @property
    def borderline(self) -> str:
        """Why a person should look at a kept face; "" where nothing speaks against it."""
        if self.score is not None and self.score < BORDERLINE_SCORE:
            return f"the detector is not sure: {self.score:.2f}"
        if self.sharpness is not None and self.sharpness < BORDERLINE_SHARPNESS:
            return f"blurred: sharpness {self.sharpness:.1f}"
        if self.yaw is not None and abs(self.yaw) > BORDERLINE_YAW:
            return f"turned aside: {self.yaw:.0f} degrees"
        return ""


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


@typed(config=ConfigDict(extra="forbid"))
class _Line:
    """A photo: its path, its size and time, and its rows."""

    source: Name
    stamp: list[int]
    rows: list[Row]


class Journal:
    """One JSON line a photo, appended when its crops are on disk; the last line may be half written.

    A photo whose line is damaged is prepared again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, list[Row]] = {}  # source -> its rows
        self._stamps: dict[str, list[int]] = {}
        for line in _lines(path):
            self.done[line.source], self._stamps[line.source] = line.rows, line.stamp

    def has(self, source: str, stamp: list[int]) -> bool:
        """Whether the photo was done, and is the same (size and time)."""
        return self._stamps.get(source) == stamp

    def write(self, done: Iterable[tuple[str, list[int], list[Row]]]) -> None:
        """Append photos: source, size and time, rows."""
        lines = []
        for source, stamp, rows in done:
            self.done[source], self._stamps[source] = rows, stamp
            lines.append(json.dumps({"source": source, "stamp": stamp, "rows": [asdict(row) for row in rows]}))
        with open(self.path, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[_Line]:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):  # killed while it wrote
        with atomic_write(path) as temporary:
            temporary.write_bytes(whole)
    damaged, reader = 0, TypeAdapter(_Line)
    for text in whole.splitlines():
        try:
            line = reader.validate_python(json.loads(text))
        except (ValidationError, ValueError, RecursionError):
            damaged += 1
            continue
        if all(len(row.box) in (0, 4) and len(row.points) in (0, 10) for row in line.rows):
            yield line
        else:
            damaged += 1
    if damaged:
        say(f"{path}: {damaged:,} lines are damaged; their photos are prepared again")


def write_index(rows: Iterable[Row], path: Path) -> None:
    """Write the index, a line a face, as CSV."""
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="", errors="surrogateescape") as f,
    ):
        writer = csv.writer(f)
        writer.writerow(COLUMNS)
        for row in rows:
            source, person, why, crop = map(no_formula, (row.source, row.person, row.why or row.borderline, row.crop))
            what = [source, person, row.face, int(bool(row.crop)), why, crop]
            places: list[object] = [*row.box, *row.points] or [""] * 14
            numbers = ["" if (value := getattr(row, name)) is None else value for name in NUMBERS]
            writer.writerow([*what, *places, *numbers])
